"""hakmem: a performance-research workbench around a native malloc replacement."""

from importlib.metadata import version

__version__ = version("hakmem")
