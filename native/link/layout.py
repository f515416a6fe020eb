#!/usr/bin/env python3
"""Lay functions out anew: a linker script with the code of some objects in a seeded order, with seeded gaps between.

    layout.py SEED SCRIPT OBJECT...

Writes SCRIPT, which the linker takes beside its own (``-T``), and prints the objects in the order to link them in,
which is the order of their data. The objects are compiled with ``-ffunction-sections``.
"""

import hashlib
import re
import subprocess
import sys

STEP = 16  # compilers align functions to so many bytes
GAPS = 4  # steps to a cache line


def key(seed: str, name: str) -> int:
    """Draw a number for a name: the same everywhere, another for another seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def functions(objects: list[str]) -> set[str]:
    """Name the sections of code."""
    listing = subprocess.run(["readelf", "-SW", *objects], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\] (\.text\.\S+) +PROGBITS", listing))


def script(seed: str, names: set[str]) -> str:
    """Write the linker script."""
    lines = []
    for name in sorted(names, key=lambda name: key(seed, name)):
        gap = STEP * (key(f"gap {seed}", name) % GAPS)
        lines.append(f"    . = . + {gap}; *({name})")
    return "\n".join(["SECTIONS {", "  .text.laid_out : {", *lines, "  }", "}", "INSERT BEFORE .text;", ""])


def main() -> None:
    """Do it."""
    seed, path, *objects = sys.argv[1:]
    with open(path, "w", encoding="utf-8") as file:
        file.write(script(seed, functions(objects)))
    print(*sorted(objects, key=lambda name: key(seed, name.rpartition("/")[2])))


if __name__ == "__main__":
    main()
