"""Other people's traces: glibc's mtrace text, and a simple CSV.

CSV: lines of ``op,id,size,thread,time``; op is malloc, calloc, realloc, aligned (to 16) or free, id names the block (a
number, an address, any word), size is in bytes, thread any word. The last two, and the size of a free, may be left out;
with times the lines are put into their order. A first line with these names is a heading.
"""

import csv
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from hakmem.errors import BadTrace
from hakmem.traces import trace
from hakmem.traces.events import ALIGNED, CALLOC, EVENT, FREE, MALLOC, MAX_SIZE, REALLOC, Events

FORMATS = ("csv", "mtrace")
CSV_OPS = {"malloc": MALLOC, "calloc": CALLOC, "realloc": REALLOC, "aligned": ALIGNED, "free": FREE}
CSV_ALIGN = 4  # 16 bytes
HEADING = ["op", "id"]

_MTRACE = re.compile(r"(?:@ \S.* )?(?P<op>[-+<>!]) (?P<address>0x[0-9a-fA-F]+)(?: (?P<size>0x[0-9a-fA-F]+|0))?")


class _Heap:
    """Gives every block a slot, lowest free one last freed first, and collects events."""

    def __init__(self) -> None:
        self.words = array("Q")  # two an event, as in the file
        self.slots = 0
        self.unknown_frees = 0
        self.missed_frees = 0
        self._slot_of: dict[str, int] = {}
        self._spare: list[int] = []
        self._threads: dict[str, int] = {}

    def allocate(self, op: int, name: str, size: int, thread: str) -> None:
        if name in self._slot_of:
            self.missed_frees += 1
            self.free(name, thread)
        if self._spare:
            slot = self._spare.pop()
        else:
            slot, self.slots = self.slots, self.slots + 1
        self._slot_of[name] = slot
        self._add(slot, op, CSV_ALIGN if op == ALIGNED else 0, size, thread)

    def resize(self, old: str, new: str, size: int, thread: str) -> None:
        slot = self._slot_of.pop(old, None)
        if slot is None:
            self.unknown_frees += 1
            self.allocate(MALLOC, new, size, thread)
            return
        if new in self._slot_of:
            self.missed_frees += 1
            self.free(new, thread)
        self._slot_of[new] = slot
        self._add(slot, REALLOC, 0, size, thread)

    def free(self, name: str, thread: str) -> None:
        slot = self._slot_of.pop(name, None)
        if slot is None:
            self.unknown_frees += 1
            return
        self._spare.append(slot)
        self._add(slot, FREE, 0, 0, thread)

    def _add(self, slot: int, op: int, align: int, size: int, thread: str) -> None:
        number = self._threads.setdefault(thread, len(self._threads))
        self.words.extend((slot | number % trace.MAX_THREADS << 32 | op << 48 | align << 56, size))

    @property
    def threads(self) -> int:
        return max(1, min(len(self._threads), trace.MAX_THREADS))

    def notes(self) -> dict[str, JsonValue]:
        return {
            "frees_of_unknown_blocks": self.unknown_frees,
            "frees_not_seen": self.missed_frees,
            "threads_folded": max(0, len(self._threads) - trace.MAX_THREADS),
        }


def convert(source: Path, output: Path, form: str | None = None) -> None:
    """Turn a foreign trace into one of ours.

    Parameters
    ----------
    source, output : Path
    form : {"csv", "mtrace"}, optional
        By default what the file looks like.

    Raises
    ------
    BadTrace
        It cannot be read; the message names the line.
    """
    if form is not None and form not in FORMATS:
        raise BadTrace(f"unknown format {form!r}; the formats are {', '.join(FORMATS)}")
    try:
        with source.open(encoding="utf-8", newline="") as file:
            lines = iter(file)
            first = next(lines, "")
            form = form or ("mtrace" if first.startswith(("= Start", "@ ", "+ 0x", "- 0x")) else "csv")
            heap = _Heap()
            (_read_mtrace if form == "mtrace" else _read_csv)(chain([first], lines), heap, source)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"cannot read {source}: {error}") from error
    if not heap.words:
        raise BadTrace(f"{source} holds no allocation in the format {form}")
    made: Events = np.frombuffer(heap.words, EVENT)
    parameters: dict[str, JsonValue] = {"source": source.name}
    origin = trace.Origin(kind="imported", generator=form, parameters=parameters, notes=heap.notes())
    trace.write(output, made, origin, slots=heap.slots, threads=heap.threads)


def _read_csv(lines: Iterable[str], heap: _Heap, source: Path) -> None:
    rows = list(_csv_rows(lines, source))
    if any(time is not None for *_, time in rows):
        if any(time is None for *_, time in rows):
            raise BadTrace(f"{source}: some lines have a time and some have none")
        rows.sort(key=lambda row: row[-1] or 0.0)  # equal times stay as they are
    for op, name, size, thread, _ in rows:
        if op == FREE:
            heap.free(name, thread)
        elif op == REALLOC:
            heap.resize(name, name, size, thread)
        else:
            heap.allocate(op, name, size, thread)


def _csv_rows(lines: Iterable[str], source: Path) -> Iterator[tuple[int, str, int, str, float | None]]:
    for number, fields in enumerate(csv.reader(lines), 1):
        given = [field.strip() for field in fields]
        if not any(given) or (number == 1 and given[:2] == HEADING):
            continue
        name, block, size, thread, time = [*given, "", "", "", "", ""][:5]
        if name not in CSV_OPS or not block or len(given) > 5:
            raise BadTrace(f"{source}, line {number}: {','.join(fields)!r} is no op,id,size,thread,time")
        try:
            bytes_asked = int(size) if size or name != "free" else 0
            moment = _moment(time) if time else None
        except ValueError as error:
            raise BadTrace(f"{source}, line {number}: {','.join(fields)!r} has no number where one belongs") from error
        if not 0 <= bytes_asked <= MAX_SIZE:
            raise BadTrace(f"{source}, line {number}: sizes are 0..2^47 bytes, not {bytes_asked}")
        yield CSV_OPS[name], block, bytes_asked, thread, moment


def _moment(text: str) -> float:
    moment = float(text)
    if math.isnan(moment):
        raise ValueError("it has no place in an order")
    return moment


def _read_mtrace(lines: Iterable[str], heap: _Heap, source: Path) -> None:
    moving: str | None = None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("="):
            continue
        found = _MTRACE.fullmatch(text)
        size = int(found["size"] or "0", 16) if found else 0
        if found is None or size > MAX_SIZE or (found["op"] == ">") != (moving is not None):
            raise BadTrace(f"{source}, line {number}: {text!r} is no line of mtrace")
        op, address = found["op"], found["address"]
        if op == "+":
            heap.allocate(MALLOC, address, size, "")
        elif op == "-":
            heap.free(address, "")
        elif op == "<":
            moving = address
        elif op == ">" and moving is not None:
            heap.resize(moving, address, size, "")
            moving = None
