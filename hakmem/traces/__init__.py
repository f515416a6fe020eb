"""Traces of allocations: format, generators, recording, imports."""
