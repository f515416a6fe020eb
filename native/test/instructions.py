#!/usr/bin/env python3
"""Count the instructions of malloc and free under callgrind: exact where a clock is noise.

    instructions.py COMPILER OUT [--gate HAKMEM_X=value ...]    print them as JSON
    instructions.py COMPILER OUT --write                        and make them this compiler's golden ones

COMPILER is what OUT was built with: the table has a row for each architecture, compiler and major version.
`make -C native golden` builds and writes.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GOLDEN = Path(__file__).with_suffix(".json")
WARMUP = 20_000
SHORT, LONG = 20_000, 420_000  # cycles; what happens once (start, end, first slabs) is in both and falls out

# name: driver, function whose instructions count (callees included), cycles a call of it, library preloaded
FIGURES = {
    "loop alone": ("random_mixed_null", "run", 1, None),
    "FAST linked, an op": ("random_mixed_hakmem_minimal", "run", 1, None),
    "Standard linked, an op": ("random_mixed_hakmem", "run", 1, None),
    "Standard preloaded, an op": ("random_mixed_system", "run", 1, "libhakmem.so"),
    "FAST malloc": ("random_mixed_hakmem_minimal", "malloc", 2, None),
    "FAST free": ("random_mixed_hakmem_minimal", "free", 2, None),
    "Standard malloc": ("random_mixed_hakmem", "malloc", 2, None),
    "Standard free": ("random_mixed_hakmem", "free", 2, None),
}


def compiler_key(compiler: str) -> str:
    """Architecture, compiler and major version: `x86_64 gcc 12`."""
    command = [*compiler.split(), "-dM", "-E", "-x", "c", os.devnull]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    defined = dict(re.findall(r"^#define (\w+) (.+)$", text, flags=re.MULTILINE))
    arch = "x86_64" if "__x86_64__" in defined else "aarch64"
    if "__clang__" in defined:
        return f"{arch} clang {defined['__clang_major__']}"
    return f"{arch} gcc {defined['__GNUC__']}"


def without_debug_information(out: Path, to: Path) -> None:
    """Copy what is measured: some valgrinds give up over what newer compilers write."""
    for driver, _, _, library in FIGURES.values():
        for path in (f"bin/bench_{driver}", f"lib/{library}" if library else None):
            if path and not (to / path).exists():
                (to / path).parent.mkdir(exist_ok=True)
                subprocess.run(["objcopy", "--strip-debug", out / path, to / path], check=True)


def collected(out: Path, figure: str, cycles: int, gates: Mapping[str, str]) -> int:
    """Instructions of a figure's function over a whole run of its driver."""
    driver, function, _, library = FIGURES[figure]
    environment = {"PATH": os.environ["PATH"], "HAKMEM_BENCH_PREFAULT": str(WARMUP), **gates}
    if library:
        environment["LD_PRELOAD"] = str(out / "lib" / library)
    valgrind = ["valgrind", "--tool=callgrind", f"--toggle-collect={function}", f"--callgrind-out-file={os.devnull}"]
    command = [*valgrind, str(out / "bin" / f"bench_{driver}"), str(cycles)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return int(found[1])


def in_between(out: Path, figure: str, gates: Mapping[str, str]) -> int:
    """Instructions by which the long run exceeds the short one."""
    short, long = (collected(out, figure, cycles, gates) for cycles in (SHORT, LONG))
    return long - short


def measure(out: Path, gates: Mapping[str, str] | None = None) -> dict[str, float]:
    """Instructions an op, or a call of malloc or free: every figure, in the order of the table."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        without_debug_information(out, Path(folder))
        counts = pool.map(lambda figure: in_between(Path(folder), figure, gates or {}), FIGURES)
        per = {figure: FIGURES[figure][2] / (LONG - SHORT) for figure in FIGURES}
        return {figure: round(n * per[figure], 2) for figure, n in zip(FIGURES, counts, strict=True)}


def golden() -> dict[str, dict[str, float]]:
    """Read the committed figures, by compiler_key()."""
    table: dict[str, dict[str, float]] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    return table


def main() -> None:
    """Measure, print and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("compiler")
    parser.add_argument("out", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--gate", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    gates = dict(text.split("=", 1) for text in arguments.gate)
    key, figures = compiler_key(arguments.compiler), measure(arguments.out, gates)
    print(json.dumps({key: figures}, indent=2))
    if arguments.write:
        GOLDEN.write_text(json.dumps({**golden(), key: figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
