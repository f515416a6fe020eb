"""Workloads by name: ``mixed:ws=400`` becomes the checked options of one driver program of `native/bench`.

A workload is ``kind`` or ``kind:parameter=value,...``. What is left unsaid is sized by the profile, so that a trial
takes about 0.1 s (smoke), 0.5 to 1 s (quick) or 2 s and more (full) on a machine of today.

``trace:FILE`` or ``trace:FILE,parameter=value,...`` replays a trace as it is, whatever the profile.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hakmem import paths, trace
from hakmem.errors import BadParameter, did_you_mean

Profile = Literal["smoke", "quick", "full"]
PROGRAM_S = 1.0
TRIAL_S: dict[Profile, float] = {"smoke": 0.15, "quick": 0.8, "full": 2.5}
REPLAY_EVENT_S = 50e-9  # checking and replaying one event of a trace

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
    """A trace, replayed on the allocator."""

    driver = "replay"
    summary = "a recorded or generated trace, event for event"
    work = "rss_marks"
    touch: Touch | None = None
    rss_marks: Annotated[int, Field(ge=0, le=25)] | None = None


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
}


class Workload(BaseModel):
    """One workload, ready to run.

    Attributes
    ----------
    text : str
        Its canonical name, what the user said and no more: ``mixed:ws=400``.
    driver : str
        Stem of the driver program: ``random_mixed``.
    args : tuple of str
        Its arguments, all sizes included.
    threads : int
        Threads that work at once; 1 for a program, of which nobody knows.
    expected_s : float
        Roughly how long one trial takes, before anything was measured.
    program : bool
        Whether `args` are a command of the user's own rather than the arguments of a driver.
    seconds : float or None
        When such a program is asked to end; None to let it run to its end.
    memory_mb : int or None
        Memory that the process may have, by a cgroup (MiB); None for all there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    driver: str
    args: tuple[str, ...]
    threads: int
    expected_s: float
    program: bool = False
    seconds: float | None = None
    memory_mb: int | None = None


def program(command: Sequence[str], seconds: float | None = None) -> Workload:
    """Make a workload of a command of the user's own: one run is one operation.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; no shell sees them.
    seconds : float, optional
        After so long the program is asked to end (SIGTERM); a server then has a memory figure, and no time.

    Raises
    ------
    BadParameter
        There is no such program.
    """
    found = shutil.which(command[0])
    if found is None:
        raise BadParameter(f"no program {command[0]!r} on the PATH")
    args = (str(Path(found).absolute()), *command[1:])
    return Workload(
        text=shlex.join(command),
        driver="program",
        args=args,
        threads=1,
        expected_s=seconds or PROGRAM_S,
        program=True,
        seconds=seconds,
    )


def parse(text: str, profile: Profile = "quick") -> Workload:
    """Read a workload's name.

    Parameters
    ----------
    text : str
        ``kind`` or ``kind:parameter=value,...``; ``trace:FILE`` or ``trace:FILE,parameter=value,...``.
    profile : {"smoke", "quick", "full"}
        Sizes what is left unsaid.

    Returns
    -------
    Workload

    Raises
    ------
    BadParameter
        Unknown kind or parameter, or a value out of its range; the message lists what is allowed.
    BadTrace
        The trace cannot be read.
    """
    name, _, rest = (piece.strip() for piece in text.partition(":"))
    if name == "trace":
        return _replay(text, rest)
    if name not in KINDS:
        known = [*KINDS, "trace"]
        raise BadParameter(
            f"unknown workload {text!r}{did_you_mean(name, known)}; the workloads are {', '.join(known)}"
        )
    kind = KINDS[name]
    given = _parameters(text, kind, rest)
    said = _checked(text, kind, given)
    sizes = said.sizes(profile)
    options = kind.model_validate({**sizes, **said.model_dump(exclude_none=True)})
    parameters = ",".join(f"{key}={getattr(said, key)}" for key in kind.model_fields if key in given)
    usual = sizes.get(kind.work, kind.model_fields[kind.work].default)
    return Workload(
        text=f"{name}:{parameters}" if parameters else name,
        driver=kind.driver,
        args=_arguments(options),
        threads=options.busy_threads(),
        expected_s=_expected_s(options, profile, usual),
        memory_mb=getattr(options, "limit_mb", None),
    )


def profile(name: str) -> Profile:
    """Check the name of a profile.

    Raises
    ------
    BadParameter
        There is no such profile.
    """
    for known in TRIAL_S:
        if name == known:
            return known
    raise BadParameter(f"unknown profile {name!r}; the profiles are {', '.join(TRIAL_S)}")


def _replay(text: str, rest: str) -> Workload:
    """Find the trace below the working directory or the checkout; its hash stands among the arguments."""
    name, _, parameters = (piece.strip() for piece in rest.partition(","))
    if not name:
        raise BadParameter(f"workload {text!r} names no file: trace:FILE")
    file = Path(name).absolute()
    if not file.exists() and (paths.root() / name).exists():
        file = paths.root() / name
    plain = trace.unpacked(file)
    header = trace.read_header(plain)
    given = _parameters(text, Replay, parameters)
    options = _checked(text, Replay, given)
    shown = file.relative_to(paths.root()) if file.is_relative_to(paths.root()) else file
    said = [f"{key}={given[key]}" for key in Replay.model_fields if key in given]
    return Workload(
        text=",".join([f"trace:{shown}", *said]),
        driver=Replay.driver,
        args=(f"--trace={plain}", f"--sha256={header.sha256[:16]}", *_arguments(options)),
        threads=header.threads,
        expected_s=0.05 + REPLAY_EVENT_S * header.events,
    )


def _checked(text: str, kind: type[Options], given: dict[str, str]) -> Options:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadParameter(f"workload {text!r}: {where}: {first['msg']}") from error


def _arguments(options: Options) -> tuple[str, ...]:
    said = options.model_dump(exclude_none=True, exclude=set(options.around)).items()
    flags = {name: options.flags.get(name, name).replace("_", "-") for name, _ in said}
    return (*(f"--{flags[name]}={value}" for name, value in said), "--json")


def _expected_s(options: Options, profile: Profile, usual: float) -> float:
    """Scale the profile's usual duration by the work asked for; a soak takes what it says."""
    asked = float(getattr(options, options.work) or usual)
    return asked if isinstance(options, Soak) else 0.05 + (TRIAL_S[profile] - 0.05) * asked / usual


def _parameters(text: str, kind: type[Options], rest: str) -> dict[str, str]:
    """Split ``a=1,b=2``; names may be written with hyphens, and as the driver writes them."""
    by_flag = {flag: name for name, flag in kind.flags.items()}
    names = list(kind.model_fields)
    given: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = by_flag.get(name, name).replace("-", "_")
        if not equals or name not in names:
            what = f"unknown parameter {name!r}{did_you_mean(name, names)}" if equals else f"{part!r} is no name=value"
            raise BadParameter(f"workload {text!r}: {what}; its parameters are {', '.join(names)}")
        if name in given:
            raise BadParameter(f"workload {text!r} gives {name} twice")
        given[name] = value
    return given
