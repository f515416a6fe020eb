"""The driver replay: it does what the trace says on any allocator, and no file makes it crash."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_generate import SMALL as SHORT
from test_trace import CASES, MARKS, ORIGIN, SLOTS, THREADS, damage, edits, sample

from hakmem import paths
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadTrace
from hakmem.run import parse_line
from hakmem.traces import generate, trace
from hakmem.traces.events import EVENT, FREE, MALLOC

SMALL = {name: given | ({"events": 60_000} if "events" in given else {}) for name, given in SHORT.items()}


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "sample.trace"
    trace.write(path, sample(), ORIGIN, slots=SLOTS, threads=THREADS, seed=7, warm=2, marks=MARKS)
    return path


def replay(native: Build, path: Path, *more: str, allocator: str = "system") -> subprocess.CompletedProcess[str]:
    command = [native.driver("replay", allocator), f"--trace={path}", *more, "--json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("HAKMEM_")}  # gates, to the drivers
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def result(native: Build, path: Path, *more: str, allocator: str = "system") -> dict[str, Any]:
    done = replay(native, path, *more, allocator=allocator)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (parsed := parse_line(done.stdout))[0] is not None, parsed[1]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("allocator", ["system", "hakmem", "hakmem_minimal"])
def test_every_generated_trace_replays(native: Build, tmp_path: Path, name: str, allocator: str) -> None:
    path = tmp_path / "x.trace"
    generate.make(name, generate.checked(name, SMALL[name]), path)
    read = trace.read(path)
    said = result(native, path, allocator=allocator)
    timed = read.events["op"][read.header.warm :]
    assert said["ops"] == np.count_nonzero(timed <= FREE) and said["seconds"] > 0
    born = np.count_nonzero((read.events["op"] < FREE) & (read.events["op"] != 3))
    assert said["extra"]["left_blocks"] == born - np.count_nonzero(read.events["op"] == FREE)
    warm = ["warm"] if read.header.warm else []
    assert [phase["name"] for phase in said["phases"]] == [*warm, *read.header.marks, "done"]


@pytest.mark.parametrize("allocator", ["system", "hakmem"])
def test_all_operations_replay_across_threads(native: Build, plain: Path, allocator: str) -> None:
    for touch in ("none", "first", "page", "full"):
        said = result(native, plain, f"--touch={touch}", allocator=allocator)
        assert said["ops"] == 4 and said["extra"]["left_blocks"] == 1
        assert said["args"] == {
            "trace": str(plain),
            "sha256": None,
            "touch": touch,
            "latency": 0,
            "repeat": 1,
            "rss-marks": 0,
        }


def test_an_empty_trace_and_sizes_of_zero_replay(native: Build, tmp_path: Path) -> None:
    trace.write(tmp_path / "empty.trace", sample()[:0], ORIGIN, slots=0)
    assert result(native, tmp_path / "empty.trace")["ops"] == 0
    zero = np.array([(0, 0, 1, 0, 0), (0, 0, 3, 0, 0), (0, 0, 5, 0, 0), (0, 0, 2, 0, 0)], EVENT)
    trace.write(tmp_path / "zero.trace", zero, ORIGIN, slots=1)
    for allocator in ("system", "hakmem"):
        assert result(native, tmp_path / "zero.trace", allocator=allocator)["ops"] == 4


@pytest.mark.parametrize("name", ["mixed", "server", "fragmenter"])
def test_the_same_trace_on_the_same_allocator_gives_the_same_counters(native: Build, tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.trace"
    generate.make(name, generate.checked(name, SMALL[name] | ({"threads": 1} if name == "server" else {})), path)
    first, second = (result(native, path, allocator="hakmem_observe")["allocator"] for _ in range(2))
    assert first["counters"] and sum(first["counters"].values()) > 0
    assert first["counters"] == second["counters"] and first["timed"] == second["timed"]


def test_the_trace_adds_nothing_to_the_memory_that_is_measured(native: Build, tmp_path: Path) -> None:
    """A trace of 64 MB, and slots that are never used, replayed in the memory that its live blocks take."""
    rows = np.tile(np.array([(0, 0, MALLOC, 0, 100), (0, 0, FREE, 0, 0)], EVENT), 2_000_000)
    trace.write(tmp_path / "long.trace", rows, ORIGIN, slots=1_000_000)
    trace.write(tmp_path / "short.trace", rows[:2], ORIGIN, slots=1)
    long, short = (result(native, tmp_path / f"{name}.trace")["peak_rss_kb"] for name in ("long", "short"))
    assert long - short < 700


def test_a_replay_of_mixed_peaks_within_300_kb_of_the_driver(native: Build, tmp_path: Path) -> None:
    generate.make("mixed", generate.checked("mixed", {"cycles": 200_000}), tmp_path / "x.trace")
    driver = [native.driver("random_mixed", "system"), "200000", "--json"]
    said = [subprocess.run(driver, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    plain = min(json.loads(lines.splitlines()[-1])["peak_rss_kb"] for lines in said)
    replayed = min(result(native, tmp_path / "x.trace")["peak_rss_kb"] for _ in range(3))
    assert replayed - plain < 300


@pytest.mark.parametrize("name", ["phases", "larson", "thread_churn"])
def test_a_short_trace_is_replayed_again_from_a_heap_without_it(native: Build, tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.trace"
    generate.make(name, generate.checked(name, SMALL[name]), path)
    read = trace.read(path)
    for allocator in ("system", "hakmem"):
        once = result(native, path, allocator=allocator)
        often = result(native, path, "--repeat=4", allocator=allocator)
        assert often["ops"] == once["ops"] + 3 * np.count_nonzero(read.events["op"] <= FREE)
        assert [phase["name"] for phase in often["phases"]] == [phase["name"] for phase in once["phases"]]
        assert often["extra"]["left_blocks"] == once["extra"]["left_blocks"]
        assert often["peak_rss_kb"] < 2 * once["peak_rss_kb"]  # nothing of the first replay is left in the second


def test_memory_is_read_where_asked(native: Build, tmp_path: Path) -> None:
    generate.make("mixed", generate.checked("mixed", SMALL["mixed"]), tmp_path / "x.trace")
    phases = result(native, tmp_path / "x.trace", "--rss-marks=5")["phases"]
    assert [phase["name"] for phase in phases] == ["warm", *(f"rss{i}" for i in range(1, 6)), "done"]
    assert all(phase["rss_kb"] > 0 for phase in phases)


@pytest.mark.parametrize("name", ["mixed", "larson"])
def test_latencies_are_ordered_and_tell_the_cost_of_the_clock(native: Build, tmp_path: Path, name: str) -> None:
    generate.make(name, generate.checked(name, SMALL[name]), tmp_path / "x.trace")
    extra = result(native, tmp_path / "x.trace", "--latency=1")["extra"]
    for what in ("alloc", "free"):
        quantiles = [extra[f"{what}_{part}_ns"] for part in ("p50", "p99", "p999", "p9999")]
        assert quantiles == sorted(quantiles) and quantiles[0] > 0
        assert extra[f"{what}_max_ns"] * 17 / 16 >= quantiles[2]
    assert extra["latency_clock_ns"] >= 0


def test_lives_of_threads_end_where_the_trace_says(native: Build, tmp_path: Path) -> None:
    """Ends of threads are real: an allocator that gives a thread's cache back at its end sees every one of them."""
    rows = [(0, 1, MALLOC, 0, 64), (0, 1, FREE, 0, 0), (0, 1, 6, 0, 0)] * 50
    trace.write(tmp_path / "x.trace", np.array([(1, 0, MALLOC, 0, 8), *rows], EVENT), ORIGIN, slots=2, threads=2)
    command = ["strace", "-f", "-qq", "-e", "trace=clone,clone3", native.driver("replay", "system")]
    done = subprocess.run([*command, f"--trace={tmp_path / 'x.trace'}"], capture_output=True, text=True)
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("this machine does not let strace attach")
    assert done.returncode == 0, done.stderr
    assert sum(1 for line in done.stderr.splitlines() if "clone3(" in line or "clone(" in line) == 2 + 50


def test_another_trace_than_the_one_meant_is_refused(native: Build, plain: Path) -> None:
    sha256 = trace.read(plain).header.sha256
    assert result(native, plain, f"--sha256={sha256[:12]}")["ops"] == 4
    done = replay(native, plain, "--sha256=0123")
    assert done.returncode == 2 and f"is another trace: its SHA-256 is {sha256}, not 0123" in done.stderr


# ---- damage ----------------------------------------------------------------------------------------------------------


ONLY_PYTHON = {"no origin"}  # the driver does not read what a trace tells of its origin


@pytest.mark.parametrize("name", sorted(set(CASES) - ONLY_PYTHON))
def test_damage_is_refused_with_the_same_reason_as_in_python(native: Build, plain: Path, name: str) -> None:
    change, _ = CASES[name]
    plain.write_bytes(change(plain.read_bytes()))
    with pytest.raises(BadTrace) as refusal:
        trace.read(plain)
    done = replay(native, plain)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    reason = next(
        word for word in ("no trace", "truncated", "foreign", "newer", "damaged") if word in str(refusal.value)
    )
    assert reason in done.stderr and str(plain) in done.stderr


def test_what_is_no_plain_trace_is_refused(native: Build, plain: Path, tmp_path: Path) -> None:
    packed = tmp_path / "x.trace.zst"
    trace.pack(plain, packed)
    for path, said in (
        (packed, "is compressed: unpack it"),
        (tmp_path / "no", "No such file"),
        (tmp_path, "no regular"),
    ):
        done = replay(native, path)
        assert done.returncode == 2 and said in done.stderr
    done = subprocess.run([native.driver("replay", "system")], capture_output=True, text=True)
    assert done.returncode == 2 and "which trace? --trace=FILE" in done.stderr


@pytest.fixture(scope="module")
def sanitized() -> Path:
    """The driver under the sanitizers of addresses and of undefined behaviour."""
    out = paths.build() / "sanitized"
    target = out / "bin" / "bench_replay_sanitized"
    made = subprocess.run(["make", "-s", "-C", paths.native(), f"OUT={out}", target], capture_output=True, text=True)
    if made.returncode and "san" in made.stderr:
        pytest.skip("needs the compiler's sanitizers: sudo apt-get install libasan8 libubsan1")
    assert made.returncode == 0, made.stderr
    return target


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=edits, length=st.none() | st.integers(0, 4300), seal=st.booleans())
def test_no_file_makes_it_crash_and_it_agrees_with_the_reader_in_python(
    sanitized: Path, plain: Path, tmp_path: Path, edits: list[tuple[int, bytes]], length: int | None, seal: bool
) -> None:
    damaged = tmp_path / "damaged.trace"
    damaged.write_bytes(damage(plain.read_bytes(), edits, length, seal))
    try:
        trace.read(damaged)
        complaint = ""
    except BadTrace as refusal:
        complaint = str(refusal)
    env = {"ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=0:exitcode=77", "UBSAN_OPTIONS": "exitcode=77"}
    done = subprocess.run([sanitized, f"--trace={damaged}"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 77, done.stderr
    out_of_memory = done.returncode == 1 and "returned NULL" in done.stderr
    accepted = done.returncode == 0 or out_of_memory
    assert accepted or (done.returncode == 2 and done.stderr.count("\n") == 1), done
    if "tell where it comes from" not in complaint:  # the driver does not look at that
        assert accepted == (not complaint), (complaint, done.stderr)
