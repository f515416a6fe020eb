"""hakmem: a performance-research workbench around a native malloc replacement."""

__version__ = "0.1.0"
