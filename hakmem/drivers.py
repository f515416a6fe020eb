"""The driver programs of `native/bench` by name, and their options: what each takes, and what a profile gives it."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Profile = Literal["smoke", "quick", "full"]
TRIAL_S: dict[Profile, float] = {"smoke": 0.15, "quick": 0.8, "full": 2.5}

Count = Annotated[int, Field(ge=1, le=10**12)]
Slots = Annotated[int, Field(ge=1, le=10**8)]
Bytes = Annotated[int, Field(ge=1, le=2**26)]
Mebibytes = Annotated[int, Field(ge=1, le=65536)]
Kibibytes = Annotated[int, Field(ge=1, le=2**22)]
Threads = Annotated[int, Field(ge=1, le=256)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000)]
Milliseconds = Annotated[float, Field(ge=0, le=3_600_000)]
Touch = Literal["none", "first", "page", "full"]


class Options(BaseModel):
    """The parameters of one kind of workload: a field is an option of the driver; None leaves it to profile or driver.

    Attributes
    ----------
    driver
        Stem of the driver program.
    summary
        One line for lists.
    work
        The parameter that a trial's duration grows with.
    smoke, quick, full
        What each profile gives the parameters that were left unsaid.
    flags
        Parameters whose option has another name in the driver.
    around
        Parameters that are none of the driver's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    driver: ClassVar[str]
    summary: ClassVar[str]
    work: ClassVar[str]
    smoke: ClassVar[dict[str, float]] = {}
    quick: ClassVar[dict[str, float]] = {}
    full: ClassVar[dict[str, float]] = {}
    flags: ClassVar[dict[str, str]] = {}
    around: ClassVar[tuple[str, ...]] = ()

    def sizes(self, profile: Profile) -> dict[str, float]:
        """Return what the profile gives the parameters that were left unsaid."""
        return {"smoke": self.smoke, "quick": self.quick, "full": self.full}[profile]

    def busy_threads(self) -> int:
        """Return how many threads work at once."""
        return int(getattr(self, "threads", 1))


class Seeded(Options):
    """A workload that draws random numbers."""

    seed: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None


class Mixed(Seeded):
    """Random malloc and free over a set of slots."""

    driver = "random_mixed"
    summary = "random malloc and free of 16..1039 bytes over ws slots"
    work = "cycles"
    smoke, quick, full = {"cycles": 8_000_000}, {"cycles": 60_000_000}, {"cycles": 200_000_000}
    ws: Slots = 400
    cycles: Count | None = None

    def sizes(self, profile: Profile) -> dict[str, float]:
        """Return fewer cycles where the processor's caches miss."""
        slower = 1 if self.ws <= 10_000 else 2 if self.ws < 500_000 else 6
        return {"cycles": super().sizes(profile)["cycles"] // slower}


class Tax(Mixed):
    """A live set held still: where its process's memory is."""

    driver = "tax"
    summary = "mixed with blocks written whole; at its end, the memory of the process part by part"
    smoke, quick, full = {"cycles": 800_000}, {"cycles": 4_000_000}, {"cycles": 20_000_000}


class Ramp(Seeded):
    """A peak, and what stays of it; churn is counted in operations, 100 a millisecond: all arms do the same."""

    driver = "ramp"
    summary = "n blocks of 16..1039 bytes written, all but each 100th freed, then light churn"
    work = "n"
    smoke, quick, full = {"churn_ops": 5_000}, {"churn_ops": 30_000}, {"churn_ops": 200_000}
    flags: ClassVar[dict[str, str]] = {"n": "blocks"}
    n: Slots = 300_000
    keep_each: Slots | None = None
    churn_ops: Annotated[int, Field(ge=0, le=10**12)] | None = None
    churn_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None

    def sizes(self, profile: Profile) -> dict[str, float]:
        """Return nothing where the user counts churn by the clock."""
        return super().sizes(profile) if self.churn_seconds is None else {}


class Phases(Seeded):
    """A service that breathes."""

    driver = "phases"
    summary = "cycles of growing to grow_mb and shrinking to shrink_mb, with work in between"
    work = "cycles"
    smoke: ClassVar[dict[str, float]] = {"cycles": 1, "grow_mb": 50, "work_ms": 10}
    quick: ClassVar[dict[str, float]] = {"cycles": 2, "grow_mb": 200, "work_ms": 100}
    full: ClassVar[dict[str, float]] = {"cycles": 5, "grow_mb": 200, "work_ms": 500}
    cycles: Annotated[int, Field(ge=1, le=20)] | None = None
    grow_mb: Mebibytes | None = None
    shrink_mb: Annotated[int, Field(ge=0, le=65536)] = 5
    work_ms: Milliseconds | None = None
    work_ops: Annotated[int, Field(ge=0, le=10**12)] | None = None


class Battle(Options):
    """Many small blocks held at once."""

    driver = "battle"
    summary = "n blocks of size bytes held at once, then freed"
    work = "n"
    flags: ClassVar[dict[str, str]] = {"n": "blocks"}
    n: Slots = 1_000_000
    size: Annotated[int, Field(ge=1, le=2**20)] = 16
    census: Annotated[int, Field(ge=0, le=1)] | None = None


class Larson(Seeded):
    """A server under load."""

    driver = "larson"
    summary = "threads replace random blocks and hand them to successor threads"
    work = "cycles"
    smoke, quick, full = {"cycles": 2_000_000}, {"cycles": 12_000_000}, {"cycles": 40_000_000}
    threads: Threads = 2
    profile: Literal["tiny", "classic", "mixed", "large"] = "classic"
    cycles: Count | None = None
    min: Annotated[int, Field(ge=1, le=2**30)] | None = None
    max: Annotated[int, Field(ge=1, le=2**30)] | None = None
    blocks: Slots | None = None
    rounds: Annotated[int, Field(ge=1, le=10**9)] | None = None


class Soak(Seeded):
    """One process over time; the user's soaks take 5, 30 and 60 minutes."""

    driver = "soak"
    summary = "random_mixed in epochs"
    work = "seconds"
    smoke: ClassVar[dict[str, float]] = {"seconds": 0.5, "epoch_seconds": 0.05}
    quick: ClassVar[dict[str, float]] = {"seconds": 5, "epoch_seconds": 0.25}
    full: ClassVar[dict[str, float]] = {"seconds": 300, "epoch_seconds": 5}
    ws: Slots = 400
    cycles: Annotated[int, Field(ge=0, le=10**15)] | None = None
    seconds: Seconds | None = None
    epoch_seconds: Annotated[float, Field(ge=0, le=86400)] | None = None


class ProducerConsumer(Options):
    """Every block goes home through the remote path."""

    driver = "producer_consumer"
    summary = "one thread allocates, another frees"
    work = "cycles"
    smoke, quick, full = {"cycles": 1_000_000}, {"cycles": 8_000_000}, {"cycles": 25_000_000}
    cycles: Count | None = None
    size: Bytes = 64
    pairs: Annotated[int, Field(ge=1, le=128)] = 1
    backlog: Annotated[int, Field(ge=64, le=2**24)] | None = None

    def busy_threads(self) -> int:
        """Return two for each pair."""
        return 2 * self.pairs


class ThreadChurn(Seeded):
    """Threads that die while their blocks live on."""

    driver = "thread_churn"
    summary = "threads die while their blocks live on and are freed elsewhere"
    work = "generations"
    smoke, quick, full = {"generations": 60}, {"generations": 400}, {"generations": 1_200}
    threads: Threads = 2
    generations: Slots | None = None
    blocks: Slots | None = None
    min: Bytes | None = None
    max: Bytes | None = None


class Cross(Seeded):
    """Threads share one set of slots."""

    driver = "cross"
    summary = "random sizes and frees across threads over shared slots"
    work = "cycles"
    smoke, quick, full = {"cycles": 400_000}, {"cycles": 3_000_000}, {"cycles": 10_000_000}
    threads: Threads = 2
    ws: Slots = 2_000
    cycles: Count | None = None
    min: Bytes | None = None
    max: Bytes | None = None


class Big(Seeded):
    """Blocks of many MiB."""

    driver = "big"
    summary = "random replacement of blocks of 5 to 25 MiB"
    work = "cycles"
    smoke, quick, full = {"cycles": 60}, {"cycles": 400}, {"cycles": 1_200}
    ws: Annotated[int, Field(ge=1, le=10_000)] = 8
    cycles: Annotated[int, Field(ge=1, le=10**9)] | None = None
    min_kb: Kibibytes | None = None
    max_kb: Kibibytes | None = None
    touch: Touch | None = None


class ReallocGrowth(Options):
    """Buffers that grow by half at a time."""

    driver = "realloc_growth"
    summary = "buffers grow from 16 B to 64 MiB by half at a time"
    work = "cycles"
    smoke, quick, full = {"cycles": 4}, {"cycles": 30}, {"cycles": 100}
    cycles: Slots | None = None
    first_bytes: Annotated[int, Field(ge=2, le=2**20)] | None = None
    last_kb: Annotated[int, Field(ge=1, le=2**24)] | None = None
    buffers: Annotated[int, Field(ge=1, le=10_000)] = 1
    touch: Touch | None = None


class Target(Seeded):
    """The program a memory target is held against."""

    driver = "target"
    summary = "heavy churn of mixed sizes over a live set of live_mb"
    work = "cycles"
    smoke, quick, full = {"cycles": 500_000}, {"cycles": 5_000_000}, {"cycles": 20_000_000}
    live_mb: Mebibytes = 5
    cycles: Count | None = None


class Idle(Seeded):
    """One of a thousand processes of a host."""

    driver = "idle"
    summary = "a burst of memory, then an idle process"
    work = "idle_ms"
    smoke, quick, full = {"idle_ms": 80}, {"idle_ms": 500}, {"idle_ms": 2_000}
    burst_mb: Mebibytes = 50
    idle_ms: Annotated[float, Field(ge=0, le=86_400_000)] | None = None
    tick_ms: Annotated[float, Field(ge=0, le=86_400_000)] | None = None


class Container(Idle):
    """A burst in a small container: a process that outgrows it is killed."""

    summary = "a burst of memory within limit_mb, set by a cgroup"
    work = "burst_mb"
    smoke: ClassVar[dict[str, float]] = {"idle_ms": 5}
    quick: ClassVar[dict[str, float]] = {"idle_ms": 5}
    full: ClassVar[dict[str, float]] = {"idle_ms": 5}
    around = ("limit_mb",)
    limit_mb: Annotated[int, Field(ge=4, le=65536)] = 64


class StartUp(Options):
    """What a process costs before it has done anything."""

    driver = "start_up"
    summary = "processes that start, allocate once from every class, and rest"
    work = "processes"
    smoke, quick, full = {"rounds": 20}, {"rounds": 200}, {"rounds": 1_000}
    processes: Annotated[int, Field(ge=1, le=100_000)] = 1
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def sizes(self, profile: Profile) -> dict[str, float]:
        """Return one round where many are alive at once."""
        return super().sizes(profile) if self.processes == 1 else {"rounds": 1}


class Replay(Options):
    """A trace, replayed on the allocator; `latency` times every single call, which costs two readings of the clock."""

    driver = "replay"
    summary = "a recorded or generated trace, event for event"
    work = "rss_marks"
    touch: Touch | None = None
    repeat: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    rss_marks: Annotated[int, Field(ge=0, le=25)] | None = None
    latency: Annotated[int, Field(ge=0, le=1)] | None = None


KINDS: dict[str, type[Options]] = {
    "mixed": Mixed,
    "ramp": Ramp,
    "phases": Phases,
    "battle": Battle,
    "larson": Larson,
    "soak": Soak,
    "pc": ProducerConsumer,
    "churn": ThreadChurn,
    "cross": Cross,
    "big": Big,
    "realloc": ReallocGrowth,
    "target": Target,
    "idle": Idle,
    "container": Container,
    "start_up": StartUp,
    "tax": Tax,
}
