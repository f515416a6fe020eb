"""The drivers: every one runs tiny and says what docs/design.md promises; bad arguments are refused with one line."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hakmem.run import parse_line

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
OUT = ROOT / "build" / "native"
FLAVOURS = ["hakmem", "hakmem_minimal", "hakmem_observe"]
FIELDS = ["hakmem_bench", "driver", "args", "ops", "seconds", "ops_per_s", "peak_rss_kb", "start_rss_kb"]
FIELDS += ["phases", "timed", "extra", "allocator"]
TINY: dict[str, list[str]] = {
    "random_mixed": ["20000", "100", "7"],
    "larson": ["20000", "--profile=tiny", "--blocks=50", "--rounds=20"],
    "battle": ["5000"],
    "ramp": ["5000", "--churn-ops=500"],
    "phases": ["2", "--grow-mb=4", "--shrink-mb=1", "--work-ops=100"],
    "soak": ["--seconds=0.3", "--epoch-seconds=0.1"],
    "producer_consumer": ["20000"],
    "thread_churn": ["4", "--blocks=200"],
    "cross": ["5000", "50"],
    "big": ["4", "2"],
    "realloc_growth": ["2", "--last-kb=1024"],
    "target": ["5000", "--live-mb=1"],
    "idle": ["--burst-mb=4", "--idle-ms=20", "--tick-ms=5"],
    "start_up": ["--rounds=2", "--processes=3"],
    "tax": ["20000", "2000"],
}
DESCRIBED = {"residency", "pages"}  # of what a driver adds, lists rather than figures


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Build the drivers once."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-C", str(NATIVE), f"OUT={OUT}", f"-j{os.cpu_count()}"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def program(driver: str, allocator: str = "system") -> Path:
    return OUT / "bin" / f"bench_{driver}_{allocator}"


def run(path: Path, *arguments: str, **gates: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", **gates}
    return subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def result(path: Path, *arguments: str, **gates: str) -> dict[str, Any]:
    done = run(path, *arguments, "--json", **gates)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_every_driver_is_tried() -> None:
    drivers = {source.stem for source in (NATIVE / "bench").glob("*.c") if "int bench_main(" in source.read_text()}
    assert drivers - {"replay"} == set(TINY)  # replay needs a trace: tests/test_replay.py


@pytest.mark.parametrize("allocator", ["system", *FLAVOURS])
@pytest.mark.parametrize("driver", TINY)
def test_output_is_what_the_contract_says(driver: str, allocator: str) -> None:
    done = run(program(driver, allocator), *TINY[driver], "--json")
    assert done.returncode == 0 and done.stderr == ""
    throughput, rss, line = done.stdout.splitlines()
    assert re.fullmatch(r"Throughput = \d+ ops/s \[iter=\d+ ws=\d+\] time=\d+\.\d{3}s", throughput)
    said = json.loads(line)
    assert rss == f"[RSS] max_kb={said['peak_rss_kb']}"
    assert (parsed := parse_line(done.stdout))[0] is not None, parsed[1]
    assert list(said) == FIELDS
    assert said["hakmem_bench"] == 1 and said["driver"] == driver
    assert said["ops"] > 0 and said["seconds"] > 0
    assert said["ops_per_s"] == pytest.approx(said["ops"] / said["seconds"], rel=1e-3)
    check_phases(said)
    assert set(said["timed"]) == {"user_s", "sys_s", "minflt", "majflt", "nvcsw", "nivcsw"}
    assert all(value >= 0 for value in said["timed"].values())
    assert all(isinstance(value, int | float) for name, value in said["extra"].items() if name not in DESCRIBED)
    check_allocator(said["allocator"], allocator)


def check_phases(said: dict[str, Any]) -> None:
    assert said["phases"]
    marks = [phase["t_s"] for phase in said["phases"]]
    assert marks == sorted(marks)
    for phase in said["phases"]:
        assert list(phase) == ["name", "t_s", "rss_kb", "lazyfree_kb", "anon_kb", "peak_rss_kb"]
        assert 0 < phase["rss_kb"] <= phase["peak_rss_kb"] <= said["peak_rss_kb"]
        assert 0 <= phase["lazyfree_kb"] <= phase["anon_kb"] <= phase["rss_kb"]


def check_allocator(said: dict[str, Any] | None, allocator: str) -> None:
    if allocator == "system":
        assert said is None
        return
    assert said is not None and said["name"] == "hakmem"
    assert said["build"] == {"hakmem": "standard", "hakmem_minimal": "fast", "hakmem_observe": "observe"}[allocator]
    assert said["gates"]["HAKMEM_SS_MEM_LEAN"] == "0"
    assert set(said["timed"]) == set(said["counters"])
    assert all(said["timed"][name] <= total for name, total in said["counters"].items())
    assert (allocator == "hakmem_minimal") == (said["counters"] == {})


@pytest.mark.parametrize("driver", sorted(set(TINY) - {"soak", "idle", "ramp", "phases"}))
def test_operations_depend_on_arguments_alone(driver: str) -> None:
    first, second = (result(program(driver, name), *TINY[driver]) for name in ("system", "hakmem"))
    assert first["ops"] == second["ops"] and first["args"] == second["args"]


def test_the_allocator_does_not_change_the_live_set() -> None:
    for driver in ("ramp", "target", "battle"):
        live = {result(program(driver, name), *TINY[driver])["extra"]["live_kb"] for name in ("system", "hakmem")}
        assert len(live) == 1 and live.pop() > 0


def test_linked_mimalloc_is_in_front_of_libc() -> None:
    path = program("random_mixed", "mi")
    if not path.exists():
        pytest.skip("libmimalloc is not installed: apt-get install libmimalloc-dev")
    bound = run(path, "1000", LD_DEBUG="bindings").stderr
    for name in ("malloc", "calloc", "free"):
        assert re.search(rf"{path.name} \[0\] to .*libmimalloc.*: normal symbol `{name}'", bound)


def test_the_system_driver_takes_any_preload() -> None:
    said = result(program("random_mixed"), "20000", LD_PRELOAD=str(OUT / "lib" / "libhakmem.so"))
    assert said["allocator"]["build"] == "standard"


@pytest.mark.parametrize("driver", TINY)
def test_drivers_give_back_what_they_took_and_write_within_it(driver: str) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    tiny = [*TINY[driver], "--seconds=0.05"] if driver == "soak" else TINY[driver]
    valgrind = ["valgrind", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=9"]
    checked = subprocess.run([*valgrind, program(driver), *tiny], capture_output=True, text=True, timeout=240)
    assert checked.returncode == 0, checked.stderr


# ---- arguments ----


@pytest.mark.parametrize("driver", TINY)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option=1"],
        ["-x"],
        ["--json=1"],
        ["many"],
        ["1", "2", "3", "4", "5"],
        ["0x10"],
        ["1e3"],
        ["--"],
        [""],
    ],
    ids=" ".join,
)
def test_bad_arguments_are_one_line_and_status_2(driver: str, arguments: list[str]) -> None:
    done = run(program(driver), *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"bench_{driver}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("driver", "argument", "said"),
    [
        ("random_mixed", "--ws=0", "--ws takes an integer in 1..100000000, not '0'"),
        ("random_mixed", "--seed=0", "--seed takes an integer in 1..4294967295, not '0'"),
        ("random_mixed", "--cycles=99999999999999999999", "--cycles takes an integer in 1..1000000000000"),
        ("random_mixed", "--cycles", "--cycles needs a value: --cycles=VALUE"),
        ("random_mixed", "--cycle=5", "unknown option '--cycle=5'"),
        ("larson", "--profile=huge", "--profile takes one of: tiny classic mixed large; not 'huge'"),
        ("larson", "--min=5000", "--min=5000 is above --max=1000"),
        ("soak", "--epoch-seconds=nan", "--epoch-seconds takes a number in 0..86400, not 'nan'"),
        ("soak", "--epoch-seconds=0", "--epoch-seconds must be above 0"),
        ("soak", "--csv=/no/such/directory/x", "cannot open the CSV '/no/such/directory/x'"),
        ("phases", "--shrink-mb=300", "--shrink-mb=300 is not below --grow-mb=200"),
        ("big", "--touch=all", "--touch takes one of: none first page full; not 'all'"),
    ],
)
def test_messages_name_what_was_given_and_what_is_allowed(driver: str, argument: str, said: str) -> None:
    done = run(program(driver), argument)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_help_lists_every_option() -> None:
    for driver in TINY:
        done = run(program(driver), "--help")
        assert done.returncode == 0
        for name in result(program(driver), *TINY[driver])["args"]:
            assert f"--{name} " in done.stdout


def test_positional_and_named_arguments_are_the_same() -> None:
    named = result(program("random_mixed"), "--cycles=5000", "--ws=50", "--seed=9")
    assert (
        named["args"]
        == result(program("random_mixed"), "5000", "50", "9")["args"]
        == {"cycles": 5000, "ws": 50, "seed": 9}
    )


# ---- warm-up ----


def warm_up(driver: str, *arguments: str, **gates: str) -> float:
    return float(result(program(driver), *arguments, **gates)["extra"]["warmup_iterations"])


@pytest.mark.parametrize("driver", ["random_mixed", "larson", "producer_consumer", "cross", "target", "soak"])
def test_prefault_gate_sets_the_warm_up(driver: str) -> None:
    arguments = [*TINY[driver], "--cycles=20000"]
    assert warm_up(driver, *arguments) == 2000
    assert warm_up(driver, *arguments, HAKMEM_BENCH_PREFAULT="-1") == 2000
    assert warm_up(driver, *arguments, HAKMEM_BENCH_PREFAULT="0") == 0
    assert warm_up(driver, *arguments, HAKMEM_BENCH_PREFAULT="123") == 123


@pytest.mark.parametrize("value", ["20MB", "-2", "", " 5", "1000000000001"])
def test_bad_prefault_gate_is_refused(value: str) -> None:
    for driver in TINY:
        done = run(program(driver), *TINY[driver], HAKMEM_BENCH_PREFAULT=value)
        assert done.returncode == 2
        assert f"HAKMEM_BENCH_PREFAULT takes an integer in -1..1000000000000, not '{value}'" in done.stderr


def test_without_warm_up_the_timed_region_takes_the_faults() -> None:
    cold = result(program("random_mixed"), "20000", "2000", HAKMEM_BENCH_PREFAULT="0")["timed"]["minflt"]
    warm = result(program("random_mixed"), "20000", "2000", HAKMEM_BENCH_PREFAULT="20000")["timed"]["minflt"]
    assert cold > warm + 100


# ---- what single drivers promise ----


COUNTER = """
#include <stdio.h>
#include <stddef.h>
extern void *__libc_malloc(size_t);
static unsigned long mallocs, mixed;
void *malloc(size_t size) {
    mallocs++;
    mixed = mixed * 31 + size;
    return __libc_malloc(size);
}
__attribute__((destructor)) static void tell(void) { fprintf(stderr, "%lu %lu", mallocs, mixed); }
"""


def mixed_sizes(cycles: int, ws: int, seed: int) -> Iterator[int]:
    """Yield the sizes that random_mixed allocates, from its published definition."""
    occupied: set[int] = set()
    r = seed
    for _ in range(cycles):
        r ^= (r << 13) & 0xFFFFFFFF
        r ^= r >> 17
        r ^= (r << 5) & 0xFFFFFFFF
        slot = r % ws
        if slot in occupied:
            occupied.remove(slot)
        else:
            occupied.add(slot)
            yield 16 + (r & 0x3FF)


@pytest.mark.parametrize(("cycles", "ws", "seed"), [(20000, 400, 1234567), (5000, 7, 1), (3000, 100000, 2**32 - 1)])
def test_random_mixed_follows_its_definition(cycles: int, ws: int, seed: int, tmp_path: Path) -> None:
    library, source = tmp_path / "counter.so", tmp_path / "counter.c"
    source.write_text(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-fno-builtin", "-o", library, source], check=True)
    arguments = [str(cycles), str(ws), str(seed)]
    done = run(program("random_mixed"), *arguments, LD_PRELOAD=str(library), HAKMEM_BENCH_PREFAULT="0")
    count = mixed = 0
    for size in mixed_sizes(cycles, ws, seed):
        count, mixed = count + 1, (mixed * 31 + size) % 2**64
    assert done.stderr == f"{count} {mixed}"


def test_battle_marks_what_each_free_gives_back() -> None:
    said = result(program("battle"), "100000")
    assert [phase["name"] for phase in said["phases"]] == ["filled", "blocks_freed", "pointers_freed"]
    assert said["ops"] == 200000
    filled = said["phases"][0]
    assert filled["rss_kb"] - said["start_rss_kb"] >= said["extra"]["live_kb"] * 0.95


def test_battle_asks_for_a_census_when_filled() -> None:
    census = result(program("battle", "hakmem"), "50000", "--census=1")["extra"]["residency"]
    assert sum(one["blocks_live"] for one in census["classes"] if one["size"] == 16) == 50_000
    assert "residency" not in result(program("battle", "hakmem"), "50000")["extra"]
    assert "residency" not in result(program("battle"), "50000", "--census=1")["extra"]


def test_phases_mark_memory_and_memory_after_100_ms() -> None:
    said = result(program("phases"), *TINY["phases"])
    names = [f"{kind}{cycle}{mark}" for cycle in (1, 2) for kind in ("grow", "shrink") for mark in ("", "+100ms")]
    assert [phase["name"] for phase in said["phases"]] == [*names, "end"]
    at = {phase["name"]: phase["t_s"] for phase in said["phases"]}
    assert at["grow1+100ms"] - at["grow1"] >= 0.1
    assert said["phases"][0]["rss_kb"] >= 4 * 1024


def test_ramp_keeps_each_hundredth_block() -> None:
    said = result(program("ramp"), "50000", "--churn-ops=1000")
    assert [phase["name"] for phase in said["phases"]] == ["full", "freed", "churned"]
    assert said["extra"]["churn_ops"] == 1000 and said["ops"] == 2 * 50000 - 500 + 1000
    assert said["phases"][0]["rss_kb"] >= said["extra"]["filled_mb"] * 1024


def test_soak_writes_one_line_an_epoch(tmp_path: Path) -> None:
    csv = tmp_path / "epochs.csv"
    said = result(program("soak"), "--seconds=0.5", "--epoch-seconds=0.1", f"--csv={csv}")
    header, *lines = csv.read_text().splitlines()
    assert header == "epoch,t_s,ops,ops_per_s,rss_mb,lazyfree_mb,peak_rss_mb,stall_max_us,live_mb"
    rows = [dict(zip(header.split(","), map(float, line.split(",")), strict=True)) for line in lines]
    assert [row["epoch"] for row in rows] == list(range(len(rows))) and len(rows) >= 3
    assert sum(row["ops"] for row in rows) == said["ops"]
    assert max(row["stall_max_us"] for row in rows) == pytest.approx(said["extra"]["stall_max_us"], abs=0.01)
    assert all(0 < row["live_mb"] < row["rss_mb"] <= row["peak_rss_mb"] for row in rows)


def several_laps(csv: Path, driver: str, seconds: float = 0.1) -> dict[str, Any]:
    """Run a driver's laps for long enough that there are two."""
    lasting = [f"--laps-seconds={seconds}", "--laps-epoch=0.04", f"--laps-csv={csv}"]
    said = result(program(driver, "hakmem"), *TINY[driver], *lasting)
    return said if said["extra"]["laps"] > 1 else several_laps(csv, driver, 3 * seconds)


@pytest.mark.parametrize("driver", sorted(TINY.keys() - {"soak"}))  # which has epochs of its own
def test_laps_are_the_same_work_again_in_one_process(driver: str, tmp_path: Path) -> None:
    once = result(program(driver, "hakmem"), *TINY[driver])
    said = several_laps(tmp_path / "epochs.csv", driver)
    extra = said["extra"]
    assert said["ops"] == extra["laps"] * once["ops"] and extra["stopped_early"] == 0
    assert extra.get("live_kb") == once["extra"].get("live_kb")
    assert [phase["name"] for phase in said["phases"]] == [phase["name"] for phase in once["phases"]]
    check_phases(said)
    header, *lines = (tmp_path / "epochs.csv").read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert len(rows) == extra["epochs"] and sum(int(row["ops"]) for row in rows) == said["ops"]
    assert all(0 < float(row["rss_mb"]) <= float(row["peak_rss_mb"]) for row in rows)
    assert {row["live_mb"] != "" for row in rows} == {"live_kb" in extra}


def test_an_interrupt_ends_laps_with_a_report(tmp_path: Path) -> None:
    said = json.loads(interrupted([program("larson"), *TINY["larson"], "--laps-seconds=600"], "laps", tmp_path))
    assert said["extra"]["stopped_early"] == 1 and said["extra"]["laps"] >= 1


def test_an_interrupted_soak_still_reports(tmp_path: Path) -> None:
    said = json.loads(interrupted([program("soak"), "--seconds=600", "--epoch-seconds=0.05"], "", tmp_path))
    assert said["extra"]["stopped_early"] == 1


def interrupted(command: list[str | Path], kind: str, folder: Path) -> str:
    """Interrupt a driver after three epochs; return its last line."""
    csv = folder / "epochs.csv"
    command += [f"--laps-csv={csv}", "--laps-epoch=0.05"] if kind == "laps" else [f"--csv={csv}"]
    soak = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, text=True, env={"HAKMEM_BENCH_PREFAULT": "1000"}
    )
    try:
        deadline = time.monotonic() + 60
        while (not csv.exists() or csv.read_text().count("\n") < 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        soak.send_signal(signal.SIGINT)
        out, _ = soak.communicate(timeout=60)
    finally:
        soak.kill()
    assert soak.returncode == 0
    return out.splitlines()[-1]


@pytest.mark.parametrize("allocator", ["system", "hakmem"])
def test_start_up_tells_what_its_processes_measured(allocator: str) -> None:
    said = result(program("start_up", allocator), "--rounds=3", "--processes=4")
    told = said["extra"]
    assert said["ops"] == 12 and told["at_once"] == 4
    assert 0 < told["to_main_us"] < told["ready_us"] < 1e6 * said["seconds"]
    assert all(told[f"first_c{c}_ns"] > 0 and told[f"second_c{c}_ns"] > 0 for c in range(8))
    assert 0 < told["rest_anon_kb"] <= told["rest_pss_kb"] <= told["rest_rss_kb"] and told["rest_tables_kb"] > 0


def test_touched_superslabs_are_resident_before_main() -> None:
    plain, touched = (
        result(program("start_up", "hakmem"), "--processes=2", HAKMEM_SS_PREWARM=how)["extra"]
        for how in ("RESERVE", "TOUCH")
    )
    megabytes = (touched["rest_anon_kb"] - plain["rest_anon_kb"]) / 1024
    assert megabytes == pytest.approx(16, abs=0.5)  # C0..C7, 2 MiB each
    assert touched["faults_at_main"] - plain["faults_at_main"] > 3500


def test_a_start_up_that_is_killed_leaves_no_process() -> None:
    command = [program("start_up"), "--processes=2000", "--rounds=1000"]
    parent = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (begun := members(parent.pid)) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert begun
    parent.kill()
    parent.wait()
    while members(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not members(parent.pid)


def members(group: int) -> list[str]:
    """Processes of a group other than its leader, zombies left out."""
    stats = [path.read_text().rpartition(")")[2].split() for path in _stats()]
    return [state for state, _, its_group, *_ in stats if its_group == str(group) and state != "Z"][1:]


def _stats() -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            path.read_text()
        except OSError:
            continue  # ended meanwhile
        yield path


def test_null_driver_measures_the_loop_alone() -> None:
    said = result(program("random_mixed", "null"), "20000")
    assert said["driver"] == "random_mixed_null" and said["allocator"] is None


def test_out_of_memory_is_a_message_and_status_1() -> None:
    limited = ["prlimit", f"--as={64 << 20}", str(program("battle")), "50000000"]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "bench_battle: the allocator returned NULL: out of memory\n"


@pytest.mark.parametrize("lean", ["0", "1"])
def test_the_parts_of_a_process_are_its_memory(lean: str) -> None:
    """What hakmem counts room by room is what the kernel sees, but for a hundredth and a few pages."""
    gates = {"HAKMEM_SS_MEM_LEAN": lean, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED"}
    said = result(program("tax", "hakmem"), "300000", "40000", **gates)
    extra, found = said["extra"], said["extra"]["residency"]
    mappings = sum(extra[f"{name}_kb"] for name in ("program", "libraries", "allocator", "stack", "heap", "anonymous"))
    assert mappings == pytest.approx(said["phases"][-1]["rss_kb"], abs=64)
    assert sum(pages for _, pages in extra["pages"]) * 4 == pytest.approx(
        extra["anonymous_kb"] + extra["heap_kb"], abs=64
    )
    rooms = sum(each["bytes_resident"] for each in found["classes"]) + sum(
        found[room]["resident"] for room in ("warm_pool", "free_slabs", "large", "direct")
    )
    metadata = sum(each["resident"] for each in found["metadata"].values())
    own = (rooms + metadata + found["superslabs"]["kept_resident"]) / 1024
    assert own == pytest.approx(extra["anonymous_kb"], rel=0.01, abs=32)
    live = sum(each["bytes_live"] for each in found["classes"]) + found["large"]["bytes"]
    assert extra["live_kb"] <= live / 1024 <= 1.05 * extra["live_kb"]  # 16..1039 bytes, rounded up to their classes
