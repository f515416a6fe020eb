"""What traces cost: making them, replaying them beside the driver they imitate, recording a program.

Both sides of a comparison run in turns, the order changing from pair to pair; a figure is that of the pairs.
"""

import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hakmem import run, stats, workload
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.errors import TrialFailed
from hakmem.pairs import in_turns
from hakmem.progress import Progress
from hakmem.traces import fitted, generate, recording, trace
from hakmem.workload import Workload

MADE_BOUND = {"mixed": 50.0}  # millions of events a second
MADE_BOUND_ELSE = 20.0
REPLAY_BOUND = 1.5  # nanoseconds an event
RECORD_BOUND = 3.0  # times
PASS_EVENTS = 1 << 20  # generated between two looks at the clock
PASSES = 8
COUNTED_CYCLES = 300_000
LOOPS = {"random_mixed": "run", "replay": "run_alone_first"}  # what callgrind counts
_COLLECTED = re.compile(r"Collected : (\d+)")


# ---- making ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """Millions of events a second of CPU time, of one core.

    Attributes
    ----------
    generator : str
    made : float
        By the kernel and the Python around it, into memory.
    written : float
        Into a file as well, checksum and hash included.
    system : float
        Share of the operating system in the time of that.
    bound : float
        What `made` is meant to reach.
    """

    generator: str
    made: float
    written: float
    system: float
    bound: float


def generation(name: str, parameters: dict[str, object], folder: Path) -> Rate:
    """Measure how fast a generator is, its compilation apart: the median of passes of a million events.

    Parameters
    ----------
    name : str
    parameters : dict
        As `hakmem.traces.fitted.generator` takes them; `events` (of some: `cycles`, `n`) is chosen here.
    folder : Path
        Where there is room for a trace of as many events, which is removed again.
    """
    fields = fitted.ALL[name].model_fields if name in fitted.ALL else {}
    size = next(({field: count} for field, count in _sizes(PASSES * PASS_EVENTS).items() if field in fields), {})
    of, _ = fitted.generator(name, {**size, **parameters})
    stream = of.stream()
    rates = list(_passes(stream))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        target = Path(scratch) / f"speed{trace.SUFFIX}"
        generate.make(name, of, target)
        before = os.times()
        generate.make(name, of, target)
        after = os.times()
        count = trace.read_header(target).events
    user, system = after.user - before.user, after.system - before.system
    bound, took = MADE_BOUND.get(name, MADE_BOUND_ELSE), max(user + system, 1e-9)
    return Rate(name, float(np.median(rates[1:] or rates)) / 1e6, count / took / 1e6, system / took, bound)


def _sizes(events: int) -> dict[str, int]:
    return {"events": events, "n": events // 2, "work_ops": events // 8, "cycles": events}


def _passes(stream: generate.Stream) -> list[float]:
    """Return the events a second of each pass; the first one compiles, or sets the scene."""
    rates, count, begin = [], 0, time.process_time()
    for piece in stream.pieces():
        count += len(piece)
        if count >= PASS_EVENTS:
            rates.append(count / max(time.process_time() - begin, 1e-9))
            count, begin = 0, time.process_time()
    return rates


# ---- replaying -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Replaying:
    """What a replay of `mixed` adds to the driver's own loop, on one allocator.

    Attributes
    ----------
    allocator : str
    driver_ns, replay_ns : float
        Medians of nanoseconds an event.
    added_ns : Interval
        Of the difference within pairs.
    added_instructions : float or None
        An event, in the loops alone; None without valgrind.
    """

    allocator: str
    driver_ns: float
    replay_ns: float
    added_ns: stats.Interval
    added_instructions: float | None


def replaying(build: Build, arm: Arm, cycles: int, pairs: int, progress: Progress) -> Replaying:
    """Run the driver random_mixed and a replay of its sequence in turns.

    Parameters
    ----------
    build : Build
    arm : Arm
        The allocator.
    cycles : int
        Timed events; a tenth as many warm up.
    pairs : int
        Two or more.
    progress : Progress
        Told after each pair.

    Raises
    ------
    TrialFailed
        A run did not end well.
    """

    def rate(work: Workload, pair: int) -> float:
        return run.unwatched(build, arm, work, padding=run.padding_of(1, pair)).ops_per_s

    of_driver, of_replay = (
        functools.partial(rate, workload.parse(f"{kind}ws=400,cycles={cycles}")) for kind in ("mixed:", "gen:mixed,")
    )
    took = 1e9 / np.array(in_turns(of_driver, of_replay, pairs, progress, arm.label))
    driver, replay = np.median(took, axis=0)
    added = stats.interval(took[:, 1] - took[:, 0])
    return Replaying(arm.label, float(driver), float(replay), added, _added_instructions(build))


def _added_instructions(build: Build) -> float | None:
    if shutil.which("valgrind") is None:
        return None
    made = workload.parse(f"gen:mixed,warm=0,cycles={COUNTED_CYCLES}").args[0]
    replay = _instructions(build, "replay", made)
    return (replay - _instructions(build, "random_mixed", str(COUNTED_CYCLES))) / COUNTED_CYCLES


def _instructions(build: Build, driver: str, argument: str) -> int:
    """Count the instructions of a driver's loop under callgrind, the C library's allocator included."""
    with tempfile.TemporaryDirectory() as folder:
        tool = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder}/out",
            f"--toggle-collect={LOOPS[driver]}",
        ]
        env = {"PATH": os.environ["PATH"], "HAKMEM_BENCH_PREFAULT": "0"}
        command = [*tool, str(build.driver(driver, "system")), argument]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = _COLLECTED.search(done.stderr)
    if done.returncode or not found:
        raise TrialFailed(f"{driver} under callgrind: {done.stderr.strip().splitlines()[-1:]}")
    return int(found[1])


# ---- recording -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """How many times as long a program takes while it is recorded.

    Attributes
    ----------
    wall, cpu : Interval
        Recorded over plain, within pairs; CPU time counts the children it waited for.
    plain_s, recorded_s : float
        Medians of the wall time.
    records : int
        What one run left: events of all its processes, before they become traces.
    """

    wall: stats.Interval
    cpu: stats.Interval
    plain_s: float
    recorded_s: float
    records: int


def recorded(build: Build, command: Sequence[str], pairs: int, progress: Progress) -> Recording:
    """Run a program plainly and under the recorder in turns; its output is dropped.

    Parameters
    ----------
    build : Build
        Holds the recorder.
    command : sequence of str
    pairs : int
        Two or more.
    progress : Progress
        Told after each pair.

    Raises
    ------
    MissingTool
        There is no such program.
    TrialFailed
        It ended with a status other than 0.
    """
    program = recording.program(command)
    records = 0

    def plain(_: int) -> tuple[float, float]:
        return _timed(program, dict(os.environ))

    def noted(_: int) -> tuple[float, float]:
        nonlocal records
        with tempfile.TemporaryDirectory(prefix="hakmem-") as folder:
            took = _timed(program, recording.environment(build, Path(folder)))
            records = recording.noted(Path(folder))
        return took

    took: stats.Array = np.array(in_turns(plain, noted, pairs, progress, command[0]))  # pairs x sides x (wall, CPU)
    wall, cpu = took[..., 0], took[..., 1]
    longer, busier = (stats.interval(np.log(one[:, 1] / one[:, 0])).exp() for one in (wall, cpu))
    plain_s, recorded_s = (float(value) for value in np.median(wall, axis=0))
    return Recording(longer, busier, plain_s, recorded_s, records)


def _timed(command: Sequence[str], env: dict[str, str]) -> tuple[float, float]:
    """Run a program; return its wall time and its CPU time in seconds."""
    begin = time.perf_counter()
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdin=null, stdout=null, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise TrialFailed(f"{command[0]} ended with status {process.returncode}: {' '.join(last)}")
    return time.perf_counter() - begin, max(used.ru_utime + used.ru_stime, 1e-6)
