"""The recorder, on real programs: what they did is what the trace says, and what a replay does again."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadTrace, MissingTool
from hakmem.traces import events, generate, recording, trace
from hakmem.traces.events import CALLOC, EXIT, FREE, MALLOC, MARK, REALLOC, Events
from hakmem.traces.trace import Trace

PYTHON = [sys.executable, "-I", "-S", "-c"]
RECORD = (
    "import sys; from pathlib import Path; from hakmem.builds import build; from hakmem.traces import recording; "
    "sys.exit(recording.record(build.build(), sys.argv[2:], Path(sys.argv[1])).status)"
)


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def recorded(native: Build, output: Path, *command: str | Path, status: int = 0) -> list[Trace]:
    done = recording.record(native, [str(part) for part in command], output)
    assert done.status == status
    return [trace.read(path) for path in done.traces]


def told(given: Events) -> list[tuple[int, int, int]]:
    """Operations with sizes and blocks; a block is known by the number of its allocation, not by its slot."""
    holds: dict[int, int] = {}
    born = 0
    story = []
    for slot, _, op, _, size in given.tolist():
        if op in (MARK, EXIT):
            continue
        if op not in (FREE, REALLOC):
            holds[slot] = born
            born += 1
        story.append((op, size, holds[slot]))
    return story


def live_curve(given: Events, slots: int) -> list[int]:
    calls = given[given["op"] <= FREE]
    return list(events.shape(calls, slots, points=len(calls)).live_bytes)


# ---- the generators against the drivers they imitate -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "arguments", "name", "parameters"),
    [
        ("random_mixed", ["20000", "300", "99"], "mixed", {"cycles": 20_000, "ws": 300, "seed": 99}),
        ("random_mixed", ["5000"], "mixed", {"cycles": 5000}),
        ("battle", ["3000", "--size=24"], "battle", {"n": 3000, "size": 24}),
        ("ramp", ["3000", "7", "--keep-each=9", "--churn-ops=2500"], "ramp",
         {"n": 3000, "seed": 7, "keep_each": 9, "churn_ops": 2500}),
        ("phases", ["2", "5", "--grow-mb=2", "--shrink-mb=1", "--work-ops=900"], "phases",
         {"cycles": 2, "seed": 5, "grow_mb": 2, "shrink_mb": 1, "work_ops": 900}),
    ],
)  # fmt: skip
def test_a_generator_tells_the_same_story_as_the_driver(
    native: Build, tmp_path: Path, driver: str, arguments: list[str], name: str, parameters: dict[str, Any]
) -> None:
    [seen] = recorded(native, tmp_path / "x.trace", native.driver(driver, "system"), *arguments)
    generate.make(name, generate.checked(name, parameters), tmp_path / "made.trace")
    made = told(trace.read(tmp_path / "made.trace").events)
    story = told(seen.events)
    if name == "mixed":  # the driver's table of slots is no part of the sequence
        ws = parameters.get("ws", 400)
        assert story[0] == (CALLOC, 8 * ws, 0)
        story = [(op, size, block - 1) for op, size, block in story[1:]]
    assert story[: len(made)] == made
    assert all(op == FREE for op, _, _ in story[len(made) :])  # the driver tidies up


# ---- real programs ---------------------------------------------------------------------------------------------------


def test_a_replay_repeats_the_live_bytes_of_the_program_exactly(native: Build, tmp_path: Path) -> None:
    work = (
        "x = [str(i) * (i % 700) for i in range(3000)]; y = [bytearray(3 ** (i % 12)) for i in range(500)]; del x[::2]"
    )
    [first] = recorded(native, tmp_path / "first.trace", *PYTHON, work)
    plain = f"--trace={first.path}"
    assert first.header.origin.command == (*PYTHON, work) and first.header.origin.kind == "recorded"
    assert {MALLOC, CALLOC, REALLOC, FREE} <= set(first.events["op"].tolist())
    [second] = recorded(native, tmp_path / "second.trace", native.driver("replay", "system"), plain, "--touch=full")
    was, again = (live_curve(one.events, one.header.slots) for one in (first, second))
    assert len(was) > 3000 and max(was) > 500_000
    assert again[: len(was)] == was
    assert told(second.events)[: len(was)] == told(first.events)


def test_threads_their_ends_and_frees_across_them_are_seen(native: Build, tmp_path: Path) -> None:
    driver = native.driver("larson", "system")
    [seen] = recorded(native, tmp_path / "x.trace", driver, "30000", "--profile=tiny", "--blocks=50", "--rounds=20")
    shape = events.shape(seen.events, seen.header.slots)
    assert seen.header.threads >= 2 and shape.cross_frees > 100
    assert shape.ops[EXIT] >= 20
    assert seen.header.origin.notes == {"frees_of_unknown_blocks": 0, "frees_not_seen": 0, "threads_folded": 0}
    replay = [native.driver("replay", "hakmem"), f"--trace={seen.path}"]
    done = subprocess.run(replay, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_replay_with_threads_frees_the_very_blocks_in_the_very_threads(native: Build, tmp_path: Path) -> None:
    given = {"events": 40_000, "size": 77, "backlog": 256}
    generate.make("producer_consumer", generate.checked("producer_consumer", given), tmp_path / "pc.trace")
    original = trace.read(tmp_path / "pc.trace").events
    driver = native.driver("replay", "system")
    [seen] = recorded(native, tmp_path / "x.trace", driver, f"--trace={tmp_path / 'pc.trace'}")
    (made, freed), (made_again, freed_again) = by_thread(original), by_thread(seen.events)
    assert made_again == made and freed_again[: len(freed)] == freed
    assert sorted(freed_again[len(freed) :]) == sorted(set(made) - set(freed))  # the driver tidies up


def by_thread(given: Events) -> tuple[list[int], list[int]]:
    """What the producer allocated and what the consumer freed, by number of allocation; blocks of 77 bytes only."""
    holds: dict[int, int] = {}
    made, freed = [], []
    producer = given["thread"][given["size"] == 77][0]
    for slot, thread, op, _, size in given.tolist():
        if op == MALLOC and size == 77:
            assert thread == producer
            holds[slot] = len(made)
            made.append(len(made))
        elif op == FREE and slot in holds and (block := holds.pop(slot)) is not None and thread != producer:
            freed.append(block)
    return made, freed


def test_fork_and_exec_give_a_trace_each(native: Build, tmp_path: Path) -> None:
    script = (
        "import os\nx = bytearray(1000001)\n"
        "if os.fork() == 0:\n    y = bytearray(2000002)\n    os.execvp('true', ['true', 'from exec'])\n"
        "os.wait()"
    )
    seen = recorded(native, tmp_path / "x.trace.zst", *PYTHON, script)
    assert len(seen) == 3
    biggest = [one.events["size"].max() for one in seen]
    assert 1000001 <= biggest[0] < 1000100
    assert sorted(2000002 <= size < 2000100 for size in biggest) == [False, False, True]
    assert ("true", "from exec") in [one.header.origin.command for one in seen]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(one.path.name for one in seen)
    assert all(one.path.name.startswith("x") and one.path.name.endswith(".trace.zst") for one in seen)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os._exit(7)", 7),
        ("raise SystemExit(3)", 3),
    ],
)
def test_what_was_noted_survives_the_end_of_the_program(native: Build, tmp_path: Path, end: str, status: int) -> None:
    script = f"import os\nx = bytearray(1234567)\n{end}"
    [seen] = recorded(native, tmp_path / "x.trace", *PYTHON, script, status=status)
    sizes = seen.events["size"]
    assert np.count_nonzero((sizes >= 1234567) & (sizes < 1234667)) == 1


def test_output_and_status_of_a_program_are_its_own(native: Build, tmp_path: Path) -> None:
    command = [*PYTHON, "import sys; print(sorted(range(5))); print('e', file=sys.stderr)"]
    done = subprocess.run(
        [sys.executable, "-c", RECORD, tmp_path / "x.trace", *command], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2, 3, 4]\n", "e\n")


def test_who_asks_the_recording_to_end_ends_the_program_and_has_its_trace(native: Build, tmp_path: Path) -> None:
    script = "import sys\nx = bytearray(1234567)\nprint('ready', flush=True)\nsys.stdin.read()\nsys.exit(9)"
    command = [sys.executable, "-c", RECORD, str(tmp_path / "x.trace"), *PYTHON, script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        running.send_signal(
            signal.SIGINT
        )  # from a terminal the program would have it too: that is not for us to repeat
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 256 - signal.SIGTERM  # the status of `record` is -15
    assert (trace.read(tmp_path / "x.trace").events["size"] >= 1234567).any()
    assert [path.name for path in tmp_path.iterdir()] == ["x.trace"]


@pytest.mark.parametrize(
    "command",
    [
        ["sqlite3", ":memory:", "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c "
         "where x<3000) insert into t select x, hex(x*x) from c; select count(*), max(b) from t group by a%3;"],
        ["lua5.4", "-e", "t={} for i=1,5000 do t[i]=('x'):rep(i%90) end print(#t)"],
        ["perl", "-e", 'my %h; $h{$_ % 701} .= "x" x ($_ % 50) for 1..5000; print length(join "", values %h), "\\n"'],
        ["git", "--version"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_real_programs_record_and_replay(
    native: Build, tmp_path: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    seen = recorded(native, tmp_path / "x.trace", *command)[0]
    assert capfd.readouterr().out == plain
    assert seen.header.origin.notes["frees_of_unknown_blocks"] == 0
    assert seen.header.origin.notes["frees_not_seen"] == 0
    for allocator in ("system", "hakmem"):
        replay = [native.driver("replay", allocator), f"--trace={seen.path}", "--touch=full"]
        done = subprocess.run(replay, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def compile_c(program: Path, source: str, *flags: str) -> bool:
    program.with_suffix(".c").write_text(source)
    command = ["cc", "-O0", "-fno-builtin", program.with_suffix(".c"), "-o", program, *flags]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_a_program_linked_with_another_allocator_gets_sizes_of_the_blocks_it_has(native: Build, tmp_path: Path) -> None:
    source = (
        "#include <malloc.h>\n#include <stdlib.h>\nint main(void) {\n"
        "for (int i = 1; i < 999; i++) { char *p = malloc(i * 7);"
        "if (malloc_usable_size(p) < (size_t)i * 7) return 1; free(p); }\nreturn malloc_usable_size(0) != 0; }\n"
    )
    if not compile_c(tmp_path / "sizes", source, "-Wl,--no-as-needed", "-ljemalloc"):
        pytest.skip("libjemalloc is not installed: apt-get install libjemalloc-dev")
    [seen] = recorded(native, tmp_path / "x.trace", tmp_path / "sizes")
    assert {i * 7 for i in range(1, 999)} <= set(seen.events["size"].tolist())


def test_a_cancelled_thread_gets_through_its_calls(native: Build, tmp_path: Path) -> None:
    """They are no points of cancellation, whatever the recorder opens meanwhile; its lock would stay held for good."""
    source = (
        "#include <pthread.h>\n#include <stdlib.h>\n#include <unistd.h>\nstatic int through;\n"
        "static void *work(void *p) { pthread_cancel(pthread_self());"
        "for (int i = 0; i < 30000; i++) free(malloc(100));"
        "through++; pthread_testcancel(); return p; }\nint main(void) { alarm(60); for (int i = 0; i < 3; i++) {"
        "pthread_t t; pthread_create(&t, 0, work, 0); pthread_join(t, 0); } return through != 3; }\n"
    )
    assert compile_c(tmp_path / "cancel", source, "-pthread")
    [seen] = recorded(native, tmp_path / "x.trace", tmp_path / "cancel")
    assert np.count_nonzero(seen.events["size"] == 100) == 90_000


CHUNK = 16 + 24 * recording.RECORDS_A_CHUNK


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(
        st.tuples(st.integers(1, 7), st.integers(0, 40), st.integers(0, 2), st.integers(0, 2**47)), max_size=40
    ),
    junk=st.binary(max_size=20),
)
def test_whatever_was_noted_becomes_a_trace_that_makes_sense(
    tmp_path: Path, records: list[tuple[int, int, int, int]], junk: bytes
) -> None:
    """Whatever calls in whatever order, as of a process that was killed or had not been seen from its start."""
    lanes: dict[int, bytearray] = {}
    for tick, (op, align, address, size) in enumerate(records, 1):
        what = address | op << 48 | align << 56
        lanes.setdefault(tick % 3, bytearray()).extend(struct.pack("<QQQ", what, size, tick))
    heads = {lane: struct.pack("<QQ", lane, 0) for lane in lanes}
    chunks = [(heads[lane] + bytes(notes)).ljust(CHUNK, b"\0") for lane, notes in lanes.items()]
    (tmp_path / "raw").write_bytes(b"".join(chunks) + junk)
    try:
        recording.convert(tmp_path / "raw", tmp_path / "x.trace", ["x"])
    except BadTrace:
        return
    trace.read(tmp_path / "x.trace")  # checks every event


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_static_program_is_refused_in_words(native: Build, tmp_path: Path) -> None:
    source = tmp_path / "static.c"
    source.write_text("#include <stdlib.h>\nint main(void) { return malloc(3) == 0; }\n")
    made = subprocess.run(["cc", "-static", source, "-o", tmp_path / "static"], capture_output=True)
    if made.returncode:
        pytest.skip("there is no static C library")
    with pytest.raises(BadTrace, match="static allocated nothing that could be recorded: it is static"):
        recording.record(native, [str(tmp_path / "static")], tmp_path / "out" / "x.trace")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_program_that_is_not_there_is_named(native: Build, tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="no program 'no-such-program' on the PATH"):
        recording.record(native, ["no-such-program"], tmp_path / "x.trace")


def test_a_folder_that_cannot_be_written_ends_the_recording_not_the_program(native: Build) -> None:
    env = os.environ | {"LD_PRELOAD": str(native.libs[recording.LIBRARY]), "HAKMEM_RECORD": "/nonexistent/raw"}
    done = subprocess.run(["echo", "fine"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "fine\n"
    assert done.stderr.startswith("hakmem record: recording ends early, /nonexistent/raw") and "No such" in done.stderr
