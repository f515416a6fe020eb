"""Nobody makes malloc or free longer unnoticed: instructions under callgrind against a golden table."""

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hakmem import paths

ROOT = paths.root()
TOOL = ROOT / "native" / "test" / "instructions.py"
GOLDEN = json.loads(TOOL.with_suffix(".json").read_text(encoding="utf-8"))
SLACK = 0.02
TARGETS = [f"lib/{name}" for name in ("libhakmem.so",)] + [
    f"bin/bench_random_mixed_{name}" for name in ("hakmem", "hakmem_minimal", "system", "null")
]
COMPILERS = list(dict.fromkeys([os.environ.get("CC", "gcc"), "gcc", "clang"]))
OFF = {  # not their defaults, and each off on the way that a malloc or free takes
    "dumps": ["SS_OS_STATS=1", "TINY_MEM_DUMP=1", "SS_STATS_DUMP=1", "WARM_POOL_STATS=1"],
    "lean-details-without-lean": [
        "SS_MEM_LEAN_DECOMMIT=DONTNEED",
        "SS_MEM_LEAN_TARGET_MB=1",
        "SS_LEAN_DECAY_MS=1",
        "SS_LEAN_CACHE_IDLE_MS=1",
        "SS_LEAN_BACKGROUND_MS=1",
    ],
    "superslabs": [
        "SS_PREWARM=OFF",
        "SS_EMPTY_RESERVE=2",
        "SS_CACHE_GLOBAL=8",
        "SS_CACHE_THREAD=2",
        "SS_SIZE_KB=512",
        "HUGE_PAGES=NEVER",
    ],
    "route": ["ALLOC_PASSDOWN_SSOT=1"],
    "statistics": [f"STATS_LIVE={tempfile.gettempdir()}", f"STATS_JSON={os.devnull}"],  # on, and yet not on this way
    "lean-off": ["SS_MEM_LEAN=1", "SS_MEM_LEAN_DECOMMIT=OFF"],
}


def built(compiler: str) -> Path:
    """Build what is measured; the default compiler's build is the one that all tests share."""
    out = ROOT / "build" / ("native" if compiler == COMPILERS[0] else f"native-{Path(compiler).name}")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = [str(out / target) for target in TARGETS]
        command = ["make", "-C", str(ROOT / "native"), f"OUT={out}", f"CC={compiler}", f"-j{os.cpu_count()}", *files]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@functools.cache
def measured(compiler: str, out: Path, gates: tuple[str, ...] = ()) -> tuple[str, dict[str, float]]:
    command = [sys.executable, str(TOOL), compiler, str(out)]
    command += [f"--gate=HAKMEM_{gate}" for gate in gates]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [(key, figures)] = json.loads(done.stdout).items()
    return key, figures


@pytest.fixture(autouse=True)
def callgrind() -> None:
    for program in ("valgrind", "objcopy"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: sudo apt-get install valgrind binutils")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_malloc_and_free_are_as_long_as_they_were(compiler: str) -> None:
    if shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"{compiler} is not installed")
    out = built(compiler)
    key, figures = measured(compiler, out)
    again = f"make -C native golden CC={compiler} OUT={out}"
    if key not in GOLDEN:
        pytest.skip(f"no golden figures for {key}: write them with  {again}")
    assert figures.keys() == GOLDEN[key].keys()
    off = {
        name: (f"golden {GOLDEN[key][name]}", f"now {now}")
        for name, now in figures.items()
        if abs(now / GOLDEN[key][name] - 1) > SLACK
    }
    assert not off, f"instructions with {key} moved: {off}. If this is meant:  {again}"


@pytest.mark.parametrize("gates", OFF.values(), ids=OFF.keys())
def test_a_gate_that_is_off_costs_no_instruction(gates: list[str]) -> None:
    """Malloc and free to the instruction; an operation, which has a share of slow ways in it, to two hundredths."""
    out = built(COMPILERS[0])
    _, under = measured(COMPILERS[0], out, tuple(gates))
    _, default = measured(COMPILERS[0], out)
    per_call = {name for name in default if name.endswith((" malloc", " free"))}
    assert len(per_call) == 4
    assert {name: under[name] for name in per_call} == {name: default[name] for name in per_call}
    assert under == pytest.approx(default, abs=0.02)


def test_the_gates_named_here_are_in_force() -> None:
    """A gate that nobody reads would cost nothing for the wrong reason: caches of a hundredth do cost."""
    out = built(COMPILERS[0])
    _, default = measured(COMPILERS[0], out)
    _, small = measured(COMPILERS[0], out, ("TINY_MAG_SCALE_PCT=1", "TINY_MAG_LEVELS=1"))
    assert small["Standard linked, an op"] > default["Standard linked, an op"]
