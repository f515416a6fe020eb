"""Any sequence of operations, by any thread, under any gates, against a shadow heap: see native/test/model.c."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakmem import paths

ROOT = paths.root()
OUT = ROOT / "build" / "native"
GATES = {  # what changes where blocks come from and go to
    "SS_MEM_LEAN": ["0", "1", "1"],
    "SS_MEM_LEAN_DECOMMIT": ["FREE", "DONTNEED", "DONTNEED", "OFF"],
    "SS_MEM_LEAN_TARGET_MB": ["1", "8", "64"],
    "SS_PREWARM": ["OFF", "RESERVE", "TOUCH"],
    "SS_EMPTY_RESERVE": ["0", "2", "ADAPTIVE"],
    "SS_CACHE_GLOBAL": ["0", "3"],
    "SS_CACHE_THREAD": ["0", "2"],
    "SS_SIZE_KB": ["2048", "1024", "512"],
    "SS_PARTIAL_RELEASE": ["0", "1"],
    "SS_LEAN_CPU_PERMILLE": ["50", "1000"],
    "SS_LEAN_DECAY_MS": ["0", "1"],
    "TINY_USE_SUPERSLAB": ["0", "1", "1"],
    "TINY_MAG_SCALE_PCT": ["1", "30", "100", "400"],
    "TINY_MAG_LEVELS": ["1", "2"],
    "WARM_POOL": ["0", "2", "8"],
    "ALLOC_PASSDOWN_SSOT": ["0", "1"],
    "HUGE_PAGES": ["NEVER", "LARGE", "ALWAYS"],
}

gates = st.fixed_dictionaries({}, optional={f"HAKMEM_{name}": st.sampled_from(words) for name, words in GATES.items()})
sizes = st.one_of(
    st.integers(0, 600),
    st.integers(0, 40_000),
    st.integers(32_000, 3_000_000),
    st.integers(0, 25).flatmap(lambda power: st.integers(-1, 1).map(lambda off: max(0, (1 << power) + off))),
)
threads = st.sampled_from([0, 0, 0, 1, 2, 3, 7])
slots = st.integers(0, 4095)
# Many small blocks or a few large ones: caches overflow, chains go to the depot, slabs and SuperSlabs become empty.
many = st.tuples(threads, st.sampled_from("mmcarfff"), slots, st.integers(1, 2000), st.integers(0, 600), st.just(0))
few = st.tuples(threads, st.sampled_from("mcaarrffv"), slots, st.integers(1, 12), sizes, st.integers(3, 22))
rare = st.tuples(threads, st.sampled_from("ttek"), st.just(0), st.just(0), st.just(0), st.just(3))
scripts = st.lists(st.one_of(many, few, few, rare), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def built() -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        programs = [str(OUT / "test" / variant / "model") for variant in ("plain", "stress")]
        command = ["make", "-C", str(ROOT / "native"), f"OUT={OUT}", f"-j{os.cpu_count()}", *programs]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return OUT / "test"


@pytest.mark.parametrize("variant", ["plain", "stress"])
@settings(max_examples=int(os.environ.get("EXAMPLES", "150")))
@given(script=scripts, gates=gates)
def test_any_script_under_any_gates(
    variant: str, built: Path, script: list[tuple[int, str, int, int, int, int]], gates: dict[str, str]
) -> None:
    lines = [f"{t} {o} {first} {count} {size} {1 << max(power, 3)}" for t, o, first, count, size, power in script]
    done = subprocess.run(
        [built / variant / "model"],
        input="\n".join(lines),
        env=gates,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "\n".join(lines)
