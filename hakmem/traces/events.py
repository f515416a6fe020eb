"""Events of a trace: 16 bytes each, their operations, and the passes over them that numba compiles.

An event is (slot, thread, op, align, size): a slot holds at most one block at a time, `align` is the power of two that
an aligned allocation asks for, `size` is in bytes. ``exit`` ends a thread (a later event of its number starts another
one), ``mark`` ends a phase, its slot counts the marks.
"""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Events = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Told = Callable[[int, int], None]  # events done, events in all

EVENT = np.dtype([("slot", "<u4"), ("thread", "<u2"), ("op", "u1"), ("align", "u1"), ("size", "<u8")])
MALLOC, CALLOC, REALLOC, ALIGNED, FREE, EXIT, MARK = range(1, 8)
OPS = {1: "malloc", 2: "calloc", 3: "realloc", 4: "aligned", 5: "free", 6: "exit", 7: "mark"}
MAX_SIZE = 2**47
MAX_ALIGN = 40
WINDOW = 1 << 20

_WRONG = {
    1: "has an unknown operation",
    2: "names a slot that the header does not promise",
    3: "names a thread that the header does not promise",
    4: "has a size above 2^47 bytes, or one where none belongs",
    5: "has an alignment above 2^40, or one where none belongs",
    6: "allocates into a slot that holds a block",
    7: "frees or resizes a block that does not live",
    8: "is not the next mark",
}


def windows(given: Events) -> Iterator[Events]:
    """Yield events in parts of at most `WINDOW`; of a mapped file no more than one part stays in memory."""
    mapped = getattr(given, "_mmap", None)
    for begin in range(0, len(given), WINDOW):
        yield given[begin : begin + WINDOW]
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def check(given: Events, slots: int, threads: int, marks: int) -> tuple[int, str] | None:
    """Find the first event that no program can have caused.

    Parameters
    ----------
    given : Events
        All events of a trace.
    slots, threads, marks : int
        What its header promises.

    Returns
    -------
    tuple of int and str, or None
        Its index, and what is wrong with it.
    """
    live, seen, done = np.zeros(slots, np.bool_), np.zeros(1, np.int64), 0
    for part in windows(given):
        at, why = _check(part, live, threads, marks, seen)
        if why:
            return done + at, _WRONG[why]
        done += len(part)
    return None


@njit(cache=True)
def _wrong(event, slots, threads):  # type: ignore[no-untyped-def]
    """Say what is wrong with an event whatever came before it, 0 if nothing is."""
    op, size, align = event.op, event.size, event.align
    if op < MALLOC or op > MARK:
        return 1
    if op <= FREE and event.slot >= slots:
        return 2
    if event.thread >= threads:
        return 3
    if size > MAX_SIZE or (op >= FREE and size != 0):
        return 4
    return 5 if align > MAX_ALIGN or (align == 0) == (op == ALIGNED) else 0


@njit(cache=True)
def _check(given, live, threads, marks, seen):  # type: ignore[no-untyped-def]
    """Check a part of a trace; `live` says which slots hold a block, seen[0] counts the marks."""
    for at in range(len(given)):
        event = given[at]
        op, slot = event.op, event.slot
        why = _wrong(event, len(live), threads)
        if why:
            return at, why
        if op == MARK:
            if slot != seen[0] or slot >= marks:
                return at, 8
            seen[0] += 1
        elif op != EXIT:
            needs_block = op in (FREE, REALLOC)
            if live[slot] != needs_block:
                return at, 7 if needs_block else 6
            live[slot] = op != FREE
    return 0, 0


# ---- what a trace looks like -----------------------------------------------------------------------------------------

FINE = 8  # size and lifetime buckets an octave
BUCKETS = 48 * FINE


@dataclass(frozen=True)
class Shape:
    """What the events of a trace amount to.

    Attributes
    ----------
    ops : array of int64
        Events by operation, index 1 is malloc.
    sizes : array of int64, shape ``(BUCKETS,)``
        Allocations (reallocations included) by size bucket, see `bucket_lows`.
    lifetimes : array of int64, shape ``(BUCKETS,)``
        Freed blocks by lifetime bucket; a lifetime counts the allocations of the whole trace meanwhile.
    joint : array of int64, shape ``(BUCKETS, BUCKETS + 1)``
        Blocks by size and lifetime; the last column never died.
    live_at, live_bytes, live_blocks : array of int64
        Live bytes and blocks after event number `live_at`, at evenly spread points.
    peak_bytes, peak_blocks : int
        Largest live bytes and blocks after any event.
    cross_frees, frees : int
        Frees (and reallocations) by another thread than the one that allocated; all of them.
    """

    ops: Counts
    sizes: Counts
    lifetimes: Counts
    joint: Counts
    live_at: Counts
    live_bytes: Counts
    live_blocks: Counts
    peak_bytes: int
    peak_blocks: int
    cross_frees: int
    frees: int


def shape(given: Events, slots: int, points: int = 1000, told: Told | None = None) -> Shape:
    """Measure the events of a valid trace in one pass.

    Parameters
    ----------
    given : Events
    slots : int
    points : int
        Of the live curve.
    told : callable, optional
        Called with events done and events in all after every part.
    """
    ops, sizes, lifetimes = np.zeros(8, np.int64), np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
    joint = np.zeros((BUCKETS, BUCKETS + 1), np.int64)
    at = np.unique(np.linspace(1, max(1, len(given)), max(1, min(points, len(given)))).astype(np.int64))
    curve = np.zeros((2, len(at)), np.int64)
    totals, state = np.zeros(4, np.int64), np.zeros(5, np.int64)
    born, held, owner = (np.zeros(slots, np.int64) for _ in range(3))  # slots that are never used cost nothing
    threads = np.arange(1 << 16)  # who bears a thread's number: another one after each exit
    for part in windows(given):
        _shape(part, state, born, held, owner, threads, ops, sizes, lifetimes, joint, at, curve, totals)
        if told is not None:
            told(int(state[0]), len(given))
    _lasting(born, held, joint)
    return Shape(ops, sizes, lifetimes, joint, at, curve[0], curve[1], *(int(value) for value in totals))


def bucket_lows() -> Counts:
    """Return the lower bound of every bucket, and the end of the last one: exact up to 16, then 8 an octave."""
    return np.array([_bucket_low(bucket) for bucket in range(BUCKETS + 1)], np.int64)


@njit(cache=True)
def bucket(value):  # type: ignore[no-untyped-def]
    """Return the bucket of a non-negative integer."""
    octave = 0
    value = np.int64(value)
    while value >> octave >= 2 * FINE:
        octave += 1
    return min(octave * FINE + (value >> octave), BUCKETS - 1)


@njit(cache=True)
def _bucket_low(number):  # type: ignore[no-untyped-def]
    if number < 2 * FINE:
        return number
    octave = number // FINE - 1
    return (number - octave * FINE) << octave


@njit(cache=True)
def _shape(given, state, born, held, owner, threads, ops, sizes, lifetimes, joint, at, curve, totals):  # type: ignore[no-untyped-def]
    """Go on over a part; state: events so far, allocations, live bytes, live blocks, points of the curve.

    `born` is the number of the allocation that a slot holds, from 1 on; 0 is an empty slot.
    """
    done, clock, live, blocks, point = state
    for event in given:
        op, slot = event.op, event.slot
        ops[op] += 1
        if op in (FREE, REALLOC):
            totals[3] += 1
            totals[2] += owner[slot] != threads[event.thread]
            life = bucket(clock - born[slot])
            lifetimes[life] += 1
            joint[bucket(held[slot]), life] += 1
            live -= held[slot]
            blocks -= 1
            born[slot] = 0
        if op == EXIT:
            threads[event.thread] += 1 << 16
        if op <= ALIGNED:
            clock += 1
            size = np.int64(event.size)
            born[slot], held[slot], owner[slot] = clock, size, threads[event.thread]
            sizes[bucket(size)] += 1
            live += size
            blocks += 1
            totals[0] = max(totals[0], live)
            totals[1] = max(totals[1], blocks)
        done += 1
        while point < len(at) and at[point] == done:
            curve[0, point], curve[1, point] = live, blocks
            point += 1
    state[:] = done, clock, live, blocks, point


@njit(cache=True)
def _lasting(born, held, joint):  # type: ignore[no-untyped-def]
    """Count the blocks that live at the end."""
    for slot in range(len(born)):
        if born[slot]:
            joint[bucket(held[slot]), BUCKETS] += 1
