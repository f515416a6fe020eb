"""Processes that tests look for."""

import psutil


def children_named(pid: int, start: str) -> list[psutil.Process]:
    """Find the children of a process whose names start so; one that ends meanwhile is none."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            if child.name().startswith(start):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
