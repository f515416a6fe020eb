"""Recording: run a program under the recorder of native/record, and turn what each process noted into a trace.

The recorder writes raw records (address, size, number) in chunks of one thread each; here they are put into order and
addresses become slots. A process can be killed or replace itself at any moment: what it noted until then is a trace.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import JsonValue

from hakmem.builds.build import Build
from hakmem.errors import BadTrace, MissingTool
from hakmem.traces import trace
from hakmem.traces.events import ALIGNED, CALLOC, EVENT, EXIT, FREE, MALLOC, REALLOC, Events

LIBRARY = "libhakmem_record.so"
RECORDS_A_CHUNK = 10922

_RECORD = np.dtype([("what", "<u8"), ("size", "<u8"), ("tick", "<u8")])
_CHUNK = np.dtype([("lane", "<u8"), ("reserved", "<u8"), ("records", _RECORD, (RECORDS_A_CHUNK,))])
_MOVE_FROM, _MOVE_TO, _ALIGNED_RECORD, _FREE_RECORD, _EXIT_RECORD = 3, 4, 5, 6, 7


@dataclass(frozen=True)
class Recorded:
    """What one run left behind.

    Attributes
    ----------
    status : int
        Exit status of the program; negative: the signal that ended it.
    traces : tuple of Path
        One trace a process image (a process that calls exec has several), the one with most events first.
    """

    status: int
    traces: tuple[Path, ...]


def record(build: Build, command: Sequence[str], output: Path) -> Recorded:
    """Run a program under the recorder.

    Parameters
    ----------
    build : Build
        Holds the recorder.
    command : sequence of str
        Program and arguments; standard input, output and error are those of the caller.
    output : Path
        The trace of the process with most events; those of the others have its name with ``.<pid>.<image>`` added.

    Returns
    -------
    Recorded

    Raises
    ------
    MissingTool
        There is no such program.
    BadTrace
        Nothing was seen: the program is static, brings an allocator of its own, or is set-user-id.
    """
    found = program(command)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".record.", dir=output.parent.absolute()) as folder:
        status = _run(found, environment(build, Path(folder)))
        counts = {raw: _count(raw) for raw in _raws(Path(folder))}
        raws = sorted(filter(counts.get, counts), key=lambda raw: (-counts[raw], raw.name))
        if not raws:
            raise BadTrace(
                f"{command[0]} allocated nothing that could be recorded: it is static, brings its own allocator, "
                "or runs with other rights"
            )
        written: list[Path] = []
        for raw in raws:
            name = _beside(output, raw.name.partition(".")[2]) if written else output
            convert(raw, name, _command(raw, command))
            written.append(name)
    return Recorded(status, tuple(written))


def convert(raw: Path, output: Path, command: Sequence[str]) -> None:
    """Turn the raw records of one process into a trace."""
    records, lanes = _load(raw)
    made, slots, counts = _events(records, lanes)
    numbers, threads = np.unique(made["thread"], return_inverse=True)
    made["thread"] = threads % trace.MAX_THREADS
    notes: dict[str, JsonValue] = {
        "frees_of_unknown_blocks": int(counts[0]),
        "frees_not_seen": int(counts[1]),
        "threads_folded": max(0, len(numbers) - trace.MAX_THREADS),
    }
    origin = trace.Origin(kind="recorded", generator="record", command=tuple(command), notes=notes)
    count = max(1, min(len(numbers), trace.MAX_THREADS))
    trace.write(output, made, origin, slots=slots, threads=count)


def program(command: Sequence[str]) -> list[str]:
    """Return a command with its program found on the PATH.

    Raises
    ------
    MissingTool
        There is no such program.
    """
    found = shutil.which(command[0])
    if found is None:
        raise MissingTool(f"no program {command[0]!r} on the PATH")
    return [found, *command[1:]]


def environment(build: Build, folder: Path) -> dict[str, str]:
    """Return the environment in which the processes of a program leave their notes in a folder."""
    before = os.environ.get("LD_PRELOAD")
    library = str(build.libs[LIBRARY])
    return {
        **os.environ,
        "LD_PRELOAD": f"{library}:{before}" if before else library,
        "HAKMEM_RECORD": str(folder / "raw"),
    }


def noted(folder: Path) -> int:
    """Count what all processes have noted in a folder."""
    return sum(map(_count, _raws(folder)))


def _raws(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix != ".cmd"]


def _run(command: list[str], env: dict[str, str]) -> int:
    running: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []  # to end

    def hand_on(number: int, _: FrameType | None) -> None:
        asked.append(number)
        for process in running:
            process.terminate()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal tells the program too; what it noted counts
    signal.signal(signal.SIGTERM, hand_on)
    try:
        with subprocess.Popen(command, env=env) as process:
            running.append(process)
            if asked:
                process.terminate()
            while True:  # a signal that comes just before a wait without end would be heard at its end
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _beside(output: Path, suffix: str) -> Path:
    found = re.fullmatch(r"(.*?)((?:\.trace)?(?:\.zst)?)", output.name)
    assert found is not None
    return output.with_name(f"{found[1]}.{suffix}{found[2]}")


def _command(raw: Path, command: Sequence[str]) -> tuple[str, ...]:
    try:
        told = raw.with_name(raw.name + ".cmd").read_bytes()
    except OSError:
        return tuple(command)
    return tuple(part.decode(errors="replace") for part in told.rstrip(b"\0").split(b"\0"))


def _chunks(raw: Path) -> npt.NDArray[np.void]:
    """Map the chunks of a file; one that was cut short does not count."""
    whole = raw.stat().st_size // _CHUNK.itemsize
    if not whole:
        return np.empty(0, _CHUNK)
    return np.memmap(raw, _CHUNK, mode="r", shape=(whole,))


def _count(raw: Path) -> int:
    return int(np.count_nonzero(_chunks(raw)["records"]["tick"]))


def _load(raw: Path) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint64]]:
    """Read all records in the order of their numbers, with the lane of each."""
    chunks = _chunks(raw)
    records = chunks["records"].reshape(-1)
    lanes = np.repeat(chunks["lane"], RECORDS_A_CHUNK)
    there = np.flatnonzero(
        (records["tick"] != 0) & (records["what"] != 0)
    )  # whole ones: a process can be killed in one
    there = there[np.argsort(records["tick"][there], kind="stable")]
    return records[there], lanes[there]


def _events(records: npt.NDArray[np.void], lanes: npt.NDArray[np.uint64]) -> tuple[Events, int, npt.NDArray[np.int64]]:
    address = records["what"] & np.uint64(2**48 - 1)
    op = (records["what"] >> np.uint64(48)).astype(np.uint8)  # the low byte
    align = (records["what"] >> np.uint64(56)).astype(np.uint8)
    known, blocks = np.unique(address, return_inverse=True)
    made = np.zeros(2 * len(records), EVENT)
    counts = np.zeros(3, np.int64)
    pending = np.full(int(lanes.max(initial=0)) + 1, -2, np.int64)
    spare = np.zeros(len(records) + 1, np.int64)
    given = (op, align, blocks.astype(np.int64), known[blocks] == 0, records["size"], lanes)
    count = _translate(*given, np.full(len(known), -1), pending, spare, made, counts)
    return made[:count], int(counts[2]), counts


@njit(cache=True)
def _translate(op, align, block, null, size, lane, slot_of, pending, spare, made, counts):  # type: ignore[no-untyped-def]
    """Give every block a slot; counts: unknown frees, unseen frees, slots. `pending` is a lane's block being moved."""
    n, spares, moved_from = 0, 0, np.zeros(len(pending), np.int64)
    for i in range(len(op)):
        what, at, thread = op[i], block[i], lane[i]
        if what == _EXIT_RECORD:
            made[n].thread, made[n].op = thread, EXIT
            n += 1
            continue
        if what == _MOVE_FROM:
            pending[thread], moved_from[thread] = slot_of[at], at
            slot_of[at] = -1
            continue
        slot = -1
        kind = FREE
        if what == _MOVE_TO:
            slot, pending[thread] = pending[thread], -2
            if null[i]:
                if slot >= 0:
                    slot_of[moved_from[thread]] = slot
                continue
            counts[0] += slot < 0
            kind = MALLOC if slot < 0 else REALLOC
        elif what != _FREE_RECORD:
            kind = ALIGNED if what == _ALIGNED_RECORD else CALLOC if what == CALLOC else MALLOC
        if slot_of[at] >= 0:  # freed, or taken over by a block whose predecessor was never seen to go
            made[n].slot, made[n].thread, made[n].op = slot_of[at], thread, FREE
            n += 1
            spare[spares] = slot_of[at]
            spares += 1
            slot_of[at] = -1
            counts[1] += what != _FREE_RECORD
            if what == _FREE_RECORD:
                continue
        elif what == _FREE_RECORD:
            counts[0] += 1
            continue
        if slot < 0:
            if spares:
                spares -= 1
                slot = spare[spares]
            else:
                slot = counts[2]
                counts[2] += 1
        slot_of[at] = slot
        made[n].slot, made[n].thread, made[n].op, made[n].size = slot, thread, kind, size[i]
        if kind == ALIGNED:
            made[n].align = max(align[i], 1)
        n += 1
    return n
