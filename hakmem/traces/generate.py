"""Generators of traces by name: checked parameters with units, and streams of events in bounded memory.

A generator is a pydantic model; its fields are its parameters, its docstring says what it imitates and after whom. The
same parameters give the same bytes on every machine. Generators without an end take `events`; the first tenth of them
(`warm` to say otherwise) is a warm-up that a replay does not time.
"""

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hakmem.errors import BadTrace, did_you_mean
from hakmem.traces import kernels, tables, trace
from hakmem.traces.events import EVENT, Events, Told

PIECE = 1 << 16
STREAM = 0x9E3779B9

Fill = Callable[[npt.NDArray[np.uint64]], int]


@dataclass
class Stream:
    """A trace about to be made.

    Attributes
    ----------
    fill : callable
        Writes the next events into an array of shape ``(n, 2)`` and returns how many; 0 is the end.
    slots, threads : int
    events : int
        How many there will be (of a generator without an end), or the most there can be.
    warm : int
    marks : tuple of str
    """

    fill: Fill
    slots: int
    events: int
    threads: int = 1
    warm: int = 0
    marks: tuple[str, ...] = ()

    def pieces(self) -> Iterator[Events]:
        """Yield the events; each piece is overwritten by the next one."""
        buffer = np.zeros((PIECE, 2), np.uint64)
        left = self.events
        while left > 0 and (made := self.fill(buffer)) > 0:
            made = min(made, left)
            left -= made
            yield buffer[:made].view(EVENT).reshape(-1)


class Generator(BaseModel, abc.ABC):
    """What all generators have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1  # goes up when the same parameters make other events
    seed: Annotated[int, Field(ge=1, le=2**32 - 1, description="of the generator of random numbers")] = 1234567

    @abc.abstractmethod
    def stream(self) -> Stream:
        """Set the kernel up."""

    def rng(self) -> npt.NDArray[np.uint64]:
        """Return the state of the 64-bit generator."""
        return np.array([self.seed], np.uint64)


class Endless(Generator):
    """A generator that goes on as long as it is asked to."""

    events: Annotated[int, Field(ge=1, le=2**40, description="length of the trace")] = 1_000_000
    warm: Annotated[int | None, Field(ge=0, le=2**40, description="untimed leading events, a tenth by default")] = None

    def endless(self, fill: Fill, slots: int, threads: int = 1, start: int = 0) -> Stream:
        """Return the stream; the warm-up includes the first `start` events, which set the scene."""
        warm = max(start, self.events // 10 if self.warm is None else self.warm)
        if warm >= self.events:
            raise BadTrace(
                f"events={self.events} is too few: the first {warm} are its warm-up, and a replay times none"
            )
        return Stream(fill, slots, self.events, threads, warm)


def stream_state(seed: int, stream: int) -> npt.NDArray[np.uint64]:
    """Return the drivers' 32-bit generator for one of their streams, as `bench_stream` in native/bench/bench.h does."""
    mixed = (seed ^ stream * STREAM) & 0xFFFFFFFF
    return np.array([mixed or STREAM], np.uint64)


# ---- the drivers' own sequences --------------------------------------------------------------------------------------


class Mixed(Generator):
    """The sequence of the driver random_mixed, warm-up included, event for event."""

    ws: Annotated[int, Field(ge=1, le=10**8, description="slots")] = 400
    cycles: Annotated[int, Field(ge=1, le=2**39, description="timed events")] = 1_000_000
    warm: Annotated[int | None, Field(ge=0, le=2**39, description="untimed events, by default cycles / 10")] = None

    def stream(self) -> Stream:
        """Set the kernel up."""
        held = np.zeros(self.ws, np.bool_)
        warm = self.cycles // 10 if self.warm is None else self.warm
        states = [(warm, stream_state(self.seed, 1)), (self.cycles, stream_state(self.seed, 0))]

        def fill(out: npt.NDArray[np.uint64]) -> int:
            while states and not states[0][0]:
                states.pop(0)
            if not states:
                return 0
            left, rng = states[0]
            made = min(left, len(out))
            states[0] = (left - made, rng)
            return int(kernels.mixed(out[:made], rng, held, self.ws))

        return Stream(fill, self.ws, warm + self.cycles, warm=warm)


class Battle(Generator):
    """Many equal blocks held at once through an array of pointers, then freed: the driver battle, event for event."""

    n: Annotated[int, Field(ge=1, le=10**8, description="blocks")] = 1_000_000
    size: Annotated[int, Field(ge=1, le=2**20, description="bytes of a block")] = 16

    def stream(self) -> Stream:
        """Set the kernel up."""
        s = np.zeros(1, np.int64)
        marks = ("filled", "blocks_freed", "pointers_freed")
        return Stream(lambda out: kernels.battle(out, s, self.n, self.size), self.n + 1, 2 * self.n + 5, marks=marks)


class Ramp(Generator):
    """Fill, thin out to each `keep_each`-th block, light churn over 400 slots: the driver ramp, event for event."""

    n: Annotated[int, Field(ge=1, le=10**8, description="blocks of 16..1039 bytes")] = 300_000
    keep_each: Annotated[int, Field(ge=1, le=10**8, description="every so-manieth block survives")] = 100
    churn_ops: Annotated[int, Field(ge=0, le=2**39, description="events of churn")] = 30_000

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, held = np.zeros(2, np.int64), np.zeros(kernels.RAMP_CHURN_SLOTS, np.bool_)
        fill_rng, churn_rng = stream_state(self.seed, 0), stream_state(self.seed, 1)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.ramp(out, s, fill_rng, churn_rng, held, self.n, self.keep_each, self.churn_ops))

        slots = self.n + 1 + kernels.RAMP_CHURN_SLOTS
        return Stream(fill, slots, 2 * self.n + 4 + self.churn_ops, marks=("full", "freed", "churned"))


class Phases(Generator):
    """Cycles of growing and shrinking with work in between: the driver phases with --work-ops, event for event."""

    cycles: Annotated[int, Field(ge=1, le=20, description="of growing and shrinking")] = 2
    grow_mb: Annotated[int, Field(ge=1, le=65536, description="grow to so many MiB")] = 200
    shrink_mb: Annotated[int, Field(ge=0, le=65535, description="shrink to so many MiB")] = 5
    work_ops: Annotated[int, Field(ge=0, le=2**36, description="replacements in 400 slots after each cycle")] = 100_000

    def stream(self) -> Stream:
        """Set the kernel up."""
        if self.shrink_mb >= self.grow_mb:
            raise BadTrace(f"phases: shrink_mb={self.shrink_mb} is not below grow_mb={self.grow_mb}")
        room = (self.grow_mb << 20) // 500
        s, ids, sizes = np.zeros(6, np.int64), np.arange(room), np.zeros(room, np.int64)
        held = np.zeros(kernels.PHASES_SLOTS, np.bool_)
        rng, work_rng = stream_state(self.seed, 0), stream_state(self.seed, 1)
        limits = (self.cycles, self.grow_mb << 20, self.shrink_mb << 20, self.work_ops)
        numbers = range(1, self.cycles + 1)
        marks = [f"{what}{i}{later}" for i in numbers for what in ("grow", "shrink") for later in ("", "+100ms")]
        most = self.cycles * (2 * room + 4 * kernels.PHASES_BURST + 2 * self.work_ops + 4) + 2

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.phases(out, s, rng, work_rng, ids, sizes, held, *limits))

        return Stream(fill, room + kernels.PHASES_SLOTS + 1, most, marks=(*marks, "end"))


# ---- threads ---------------------------------------------------------------------------------------------------------


class Larson(Endless):
    """A server whose threads replace random blocks and hand them to successors (after Larson and Krishnan, 1998).

    Threads take turns of 64 replacements; after `rounds` replacements a block every thread ends and its set of blocks
    goes to the next one.
    """

    threads: Annotated[int, Field(ge=1, le=256, description="at work at once")] = 2
    blocks: Annotated[int, Field(ge=1, le=10**6, description="held by a thread")] = 5000
    rounds: Annotated[int, Field(ge=1, le=10**6, description="replacements a block until the handover")] = 10
    min: Annotated[int, Field(ge=1, le=2**30, description="smallest block in bytes")] = 8
    max: Annotated[int, Field(ge=1, le=2**30, description="largest block in bytes")] = 1000

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, rng, table = np.zeros(2, np.int64), self.rng(), _sizes(self.min, self.max)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.larson(out, s, rng, table, self.threads, self.blocks, self.rounds))

        total = self.threads * self.blocks
        return self.endless(fill, total, self.threads, start=total)


class ProducerConsumer(Endless):
    """Pairs of threads: one allocates in bursts of 64, the other frees as far behind as the backlog allows."""

    pairs: Annotated[int, Field(ge=1, le=128, description="of a producer and a consumer")] = 1
    size: Annotated[int, Field(ge=1, le=2**26, description="bytes of a block")] = 64
    backlog: Annotated[int, Field(ge=64, le=2**22, description="blocks under way in a pair, a multiple of 64")] = 4096

    def stream(self) -> Stream:
        """Set the kernel up."""
        if self.backlog % kernels.BURST:
            raise BadTrace(f"producer_consumer: backlog={self.backlog} is no multiple of {kernels.BURST}")
        s, slots = np.zeros(1, np.int64), self.pairs * self.backlog

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.producer_consumer(out, s, self.pairs, self.size, self.backlog))

        return self.endless(fill, slots, 2 * self.pairs, start=slots)


class ThreadChurn(Endless):
    """Generations of threads that end while their blocks live on: each frees what another one left behind."""

    threads: Annotated[int, Field(ge=1, le=256, description="in a generation")] = 2
    blocks: Annotated[int, Field(ge=1, le=10**6, description="that a thread leaves behind")] = 5000
    min: Annotated[int, Field(ge=1, le=2**26, description="smallest block in bytes")] = 16
    max: Annotated[int, Field(ge=1, le=2**26, description="largest block in bytes")] = 1039

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, rng, table = np.zeros(1, np.int64), self.rng(), _sizes(self.min, self.max)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.thread_churn(out, s, rng, table, self.threads, self.blocks))

        total = self.threads * self.blocks
        return self.endless(fill, total, self.threads, start=total)


# ---- populations -----------------------------------------------------------------------------------------------------


class Skewed(Endless):
    """A generator whose sizes are lognormal: most blocks small, few large (as Zorn measured, 1992)."""

    median: Annotated[int, Field(ge=1, le=2**24, description="of the sizes in bytes")] = 64
    sigma: Annotated[float, Field(ge=0.01, le=10, description="of the natural logarithm of the sizes")] = 1.2
    max: Annotated[int, Field(ge=1, le=2**30, description="sizes above are not drawn, bytes")] = 1 << 20

    def sizes(self) -> tables.Table:
        """Return the table of the sizes."""
        if self.median > self.max:
            raise BadTrace(f"median={self.median} is above max={self.max}")
        return tables.lognormal(self.median, self.sigma, 1, self.max)


class Lognormal(Skewed):
    """Lognormal sizes, lifetimes exponential with a mean of `live` allocations: whoever dies is drawn evenly."""

    live: Annotated[int, Field(ge=1, le=10**8, description="blocks")] = 10_000

    def stream(self) -> Stream:
        """Set the kernel up."""
        return _replacing(self, tables.even(0, self.live - 1))


class Zipf(Skewed):
    """Slots of Zipf popularity get new blocks: few slots churn, the blocks of the many live long (after Zipf, 1949)."""

    live: Annotated[int, Field(ge=1, le=10**8, description="slots, each with a block")] = 100_000
    exponent: Annotated[float, Field(gt=0, le=5, description="slot r is replaced with a weight of r^-exponent")] = 1.0

    def stream(self) -> Stream:
        """Set the kernel up."""
        return _replacing(self, tables.zipf(self.live, self.exponent))


class Generational(Skewed):
    """A nursery is filled and collected at once; few blocks survive into an old population whose members die at random.

    After the hypothesis that most objects die young (Ungar, 1984).
    """

    nursery: Annotated[int, Field(ge=1, le=10**7, description="blocks")] = 10_000
    old: Annotated[int, Field(ge=1, le=10**8, description="blocks")] = 100_000
    survive: Annotated[float, Field(ge=0, le=1, description="share of the nursery that survives")] = 0.05

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, rng, table = np.zeros(3, np.int64), self.rng(), self.sizes()
        ids, survive = np.arange(self.nursery + self.old), _share(self.survive)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.generational(out, s, rng, table, ids, self.nursery, survive))

        return self.endless(fill, len(ids))


class Server(Skewed):
    """Requests in flight allocate step by step and free all they had when done; now and then one leaks a block.

    A leaked block lives until `kept` further ones have leaked; with several threads another one may free it. After the
    request arenas of web servers (Berger, Zorn and McKinley, 2002).
    """

    requests: Annotated[int, Field(ge=1, le=10**6, description="in flight")] = 64
    objects: Annotated[int, Field(ge=1, le=10**4, description="blocks of a request on average")] = 50
    leak: Annotated[float, Field(ge=0, le=1, description="share of requests that leak a block")] = 0.02
    kept: Annotated[int, Field(ge=1, le=10**7, description="leaked blocks alive at most")] = 10_000
    threads: Annotated[int, Field(ge=1, le=256, description="that serve requests")] = 1

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, rng, table, room = np.zeros(1, np.int64), self.rng(), self.sizes(), 2 * self.objects
        ids = np.arange(trace.fitting(self.requests * room + self.kept))
        done, goal = np.zeros(self.requests, np.int64), np.zeros(self.requests, np.int64)
        shape = (self.kept, self.requests, self.objects, _share(self.leak), self.threads)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.server(out, s, rng, table, ids, done, goal, *shape))

        return self.endless(fill, len(ids), self.threads)


class Fragmenter(Endless):
    """An adversary: fills the heap with one size, keeps one block in each `stride` bytes, goes on with twice the size.

    Every round leaves pages pinned by single blocks, which are of no use to the sizes that follow; after the last one
    all is freed. After Robson's lower bounds (1971, 1974).
    """

    limit: Annotated[int, Field(ge=2**16, le=2**36, description="live bytes at most")] = 32 << 20
    stride: Annotated[int, Field(ge=32, le=2**24, description="bytes of which one block is kept")] = 4096
    rounds: Annotated[int, Field(ge=1, le=16, description="sizes: 16, 32, 64, ... bytes")] = 9

    def stream(self) -> Stream:
        """Set the kernel up."""
        s, ids = np.zeros(7, np.int64), np.arange(trace.fitting(self.limit // 16 + 1))

        def fill(out: npt.NDArray[np.uint64]) -> int:
            return int(kernels.fragmenter(out, s, ids, self.limit, self.stride, self.rounds))

        return self.endless(fill, len(ids))


def _replacing(of: Lognormal | Zipf, places: tables.Table) -> Stream:
    s, rng, sizes = np.zeros(1, np.int64), of.rng(), of.sizes()
    return of.endless(lambda out: kernels.replace(out, s, rng, sizes, places, of.live), of.live, start=of.live)


def _sizes(low: int, high: int) -> tables.Table:
    if low > high:
        raise BadTrace(f"min={low} is above max={high}")
    return tables.even(low, high)


def _share(part: float) -> int:
    return round(part * 2**32)


# ---- by name ---------------------------------------------------------------------------------------------------------

GENERATORS: dict[str, type[Generator]] = {
    "mixed": Mixed,
    "battle": Battle,
    "larson": Larson,
    "ramp": Ramp,
    "phases": Phases,
    "producer_consumer": ProducerConsumer,
    "thread_churn": ThreadChurn,
    "lognormal": Lognormal,
    "generational": Generational,
    "zipf": Zipf,
    "server": Server,
    "fragmenter": Fragmenter,
}


UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}


def quantity(text: str) -> str | int:
    """Read ``64MiB``, ``20M`` and the like; all else is left to the generator's model."""
    for unit, scale in UNITS.items():
        if text.endswith(unit) and text.removesuffix(unit).strip().isdecimal():
            return int(text.removesuffix(unit)) * scale
    return text


def checked(name: str, parameters: dict[str, Any], known: dict[str, type[Generator]] = GENERATORS) -> Generator:
    """Check a generator's parameters.

    Parameters
    ----------
    name : str
    parameters : dict
        What is not given has its default.
    known : dict
        The generators there are.

    Raises
    ------
    BadTrace
        Unknown name or parameter, or a value out of its range; the message lists what is allowed.
    """
    if name not in known:
        raise BadTrace(f"unknown generator {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    fields = known[name].model_fields
    for given in parameters:
        if given not in fields:
            meant = did_you_mean(given, fields)
            raise BadTrace(f"generator {name}: unknown parameter {given!r}{meant}; there are {', '.join(fields)}")
    try:
        return known[name].model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise BadTrace(f"generator {name} needs {where}=FILE; `hakmem trace list` says what it takes") from error
        given = f"{where}={parameters[where]!r}" if where in parameters else where
        raise BadTrace(f"generator {name}: {given}: {first['msg']}") from error


def make(name: str, of: Generator, path: Path, told: Told | None = None, notes: dict[str, Any] | None = None) -> None:
    """Stream a trace to a file.

    Parameters
    ----------
    name : str
        The generator's name, for the header.
    of : Generator
    path : Path
        Ends in ``.zst`` for the compressed form.
    told : callable, optional
        Called with events done and events in all after every piece.
    notes : dict, optional
        For the header.
    """
    stream = of.stream()
    made = {"generator": name, "version": of.version, "parameters": of.model_dump(mode="json"), "notes": notes or {}}
    origin = trace.Origin(kind="generated", **made)
    fields = {"slots": stream.slots, "threads": stream.threads, "warm": stream.warm, "seed": of.seed}
    promised = stream.events * EVENT.itemsize
    with trace.Writer(path, origin, marks=stream.marks, promised=promised, **fields) as out:
        done = 0
        for piece in stream.pieces():
            out.append(piece)
            done += len(piece)
            if told is not None:
                told(done, stream.events)
