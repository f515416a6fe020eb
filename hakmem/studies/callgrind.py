"""Instructions of an allocator, counted by callgrind: exact where a clock is noise.

An operation's figure is the growth between a short and a long run of the same driver, divided by the operations in
between, so that what happens once (start, end, first slabs) falls out. The driver's own loop is told apart by where the
code stands, not subtracted. Callgrind runs one thread at a time: lines of other processors' caches cost nothing in it.
"""

import os
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hakmem import progress, run, workload
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.errors import TrialFailed
from hakmem.system import turn
from hakmem.workload import Workload

__all__ = ["Place", "an_op", "by_room", "collected", "counted", "of_allocator", "read", "room", "why_not"]

SLOWER = 60  # times that a program may take longer under callgrind
ALLOCATES = re.compile(  # functions
    r"_?_?(libc_)?(malloc\w*|free|calloc|realloc|cfree)\b|_int_|tcache_|unlink_chunk|sysmalloc|systrim"
)
CLIB = ("libc.", "libc-", "ld-", "libpthread", "libm.", "vgpreload")
UNKNOWN = "???"  # code in a section that callgrind takes for no object's
NAMED = re.compile(r"(c?)(ob|fl|fi|fe|fn)=\((\d+)\)(?: (.*))?")


@dataclass(frozen=True)
class Place:
    """Where an instruction stands: the file it was loaded from, its source (if that is known), its function."""

    object: str
    source: str
    function: str


def why_not() -> str | None:
    """Say why instructions cannot be counted here; None where they can."""
    return None if shutil.which("valgrind") else "no program 'valgrind' on the PATH: apt-get install valgrind"


def counted(build: Build, arms: Iterable[Arm], texts: Iterable[str]) -> pd.DataFrame:
    """Count every arm's instructions an operation on every workload.

    Returns
    -------
    DataFrame
        Columns workload, arm, name (of the allocator), allocator (instructions an op of its own), loop (of all else).

    Raises
    ------
    BadParameter, TrialFailed
        See `an_op`.
    """
    records = []
    for text, arm, places in _each(build, arms, texts):
        own = sum(n for place, n in places.items() if of_allocator(arm, place))
        line = {"workload": text, "arm": arm.label, "name": arm.allocator.name}
        records.append(line | {"allocator": own, "loop": sum(places.values()) - own})
    return pd.DataFrame(records, columns=["workload", "arm", "name", "allocator", "loop"])


def by_room(build: Build, arms: Iterable[Arm], texts: Iterable[str]) -> pd.DataFrame:
    """Count the instructions an operation of every room of hakmem's.

    Returns
    -------
    DataFrame
        Columns workload, arm, room, instructions (an op).

    Raises
    ------
    BadParameter, TrialFailed
        See `an_op`.
    """
    records = []
    for text, arm, places in _each(build, arms, texts):
        rooms: defaultdict[str, float] = defaultdict(float)
        for place, n in places.items():
            if of_allocator(arm, place):
                rooms[room(place)] += n
        records += [{"workload": text, "arm": arm.label, "room": name, "instructions": n} for name, n in rooms.items()]
    return pd.DataFrame(records, columns=["workload", "arm", "room", "instructions"])


def _each(build: Build, arms: Iterable[Arm], texts: Iterable[str]) -> Iterator[tuple[str, Arm, dict[Place, float]]]:
    """Count cell after cell, and show how far it is; the second baseline is the first one's program."""
    cells = [(text, arm) for text in texts for arm in arms if arm.role != "baseline2"]
    shown, begin = progress.show(quiet=not cells), time.monotonic()
    for done, (text, arm) in enumerate(cells, 1):
        yield text, arm, an_op(build, arm, text)
        left_s = (time.monotonic() - begin) / done * (len(cells) - done)
        shown.step(done, len(cells), left_s, f"instructions of {text}: {arm.label}")
    shown.close()


def an_op(build: Build, arm: Arm, text: str) -> dict[Place, float]:
    """Count the instructions of one operation by where they stand.

    Raises
    ------
    BadParameter, TrialFailed
        See `workload.short_and_long` and `collected`.
    """
    short, long, warmup = workload.short_and_long(text)
    (before, few), (after, many) = (collected(build, arm, work, warmup) for work in (short, long))
    return {place: (n - before[place]) / (many - few) for place, n in after.items() if n != before[place]}


def collected(build: Build, arm: Arm, work: Workload, warmup: int) -> tuple[Counter[Place], int]:
    """Run a driver under callgrind; return its instructions by where they stand, and its operations.

    Raises
    ------
    TrialFailed
        The program or callgrind failed; the message shows what was printed.
    """
    with tempfile.TemporaryDirectory(prefix="hakmem-") as folder:
        out = Path(folder, "callgrind.out")
        env = run.environment(arm.gates | {"HAKMEM_BENCH_PREFAULT": str(warmup)})
        preload = ["env", f"LD_PRELOAD={arm.allocator.library}"] if arm.allocator.library else []
        valgrind = [*preload, "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--error-exitcode=0"]
        program = str(build.driver(work.driver, arm.allocator.flavour))
        with turn.taken():
            done = run.execute([*valgrind, program, *work.args], env, timeout_s=120 + SLOWER * work.expected_s)
        line, complaint = run.parse_line(done.stdout_tail)
        if done.status != "ok" or line is None or not out.exists():
            said = done.stderr_tail.strip() or complaint
            raise TrialFailed(f"{arm.label} on {work.text} under callgrind: {done.status}: {said}")
        return read(out), line.ops


def read(path: Path) -> Counter[Place]:
    """Sum up a file of callgrind's: every function's own instructions, not those of what it calls."""
    found: Counter[Place] = Counter()
    for place, instructions in _costs(path):
        found[place] += instructions
    return found


def _costs(path: Path) -> Iterator[tuple[Place, int]]:
    """Read cost lines; a name stands in full once, later as its number, and may first stand with a call."""
    names: dict[tuple[str, str], str] = {}
    now = {"ob": "", "fl": "", "fn": ""}
    of_call = False
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if named := NAMED.match(line):
                of_callee, kind, number, name = named.groups()
                kind = kind if kind in ("ob", "fn") else "fl"
                if name is not None:
                    names[kind, number] = name
                if not of_callee:
                    now[kind] = names.get((kind, number), "")
            elif line.startswith("calls="):
                of_call = True
            elif line[:1] in "+-*0123456789" and line.strip():
                if not of_call:
                    yield Place(now["ob"], now["fl"], now["fn"]), int(line.split()[1])
                of_call = False


def of_allocator(arm: Arm, place: Place) -> bool:
    """Tell whether an instruction is the allocator's: neither the driver's nor the C library's, but for its own.

    A preloaded library may bring further ones of its own.
    """
    file = Path(place.object).name
    if file.startswith("bench_"):
        return arm.allocator.linkage == "linked" and _folder(place) != "bench"
    if place.object == UNKNOWN or file.startswith(CLIB):
        mine = arm.allocator.name == "system" or place.object == UNKNOWN
        return mine and ALLOCATES.match(place.function) is not None
    return True


def room(place: Place) -> str:
    """Name the room of hakmem that an instruction stands in: `tcache` for tcache.c and tcache.h."""
    source = Path(place.source)
    if source.name == "hakmem_inline.h":
        return "fast path"
    return source.stem if _folder(place) == "src" else "other"


def _folder(place: Place) -> str:
    """Return the folder below `native` that a source lies in: builds call their sources `native/...` anywhere."""
    parts = Path(os.path.normpath(place.source)).parts
    return parts[-2] if parts[-3:-2] == ("native",) else ""
