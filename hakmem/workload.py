"""Workloads by name: ``mixed:ws=400`` becomes the checked options of one driver program of `native/bench`.

A workload is ``kind`` or ``kind:parameter=value,...``. What is left unsaid is sized by the profile, so that a trial
takes about 0.1 s (smoke), 0.5 to 1 s (quick) or 2 s and more (full) on a machine of today.

``trace:FILE`` replays a trace as it is, whatever the profile. ``gen:GENERATOR`` makes one and replays it, and so does
``fleet:FILE`` after a fleet's distribution; it is made once and kept in ``build/traces``. In the name of a file ``*``
and ``?`` stand for anything: `names` makes a workload of each file that there is.
"""

import glob
import hashlib
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hakmem import paths
from hakmem.drivers import KINDS, TRIAL_S, Options, Profile, Replay, Soak
from hakmem.errors import BadParameter, did_you_mean
from hakmem.traces import fitted, generate, trace
from hakmem.traces.generate import Generator

PROGRAM_S = 1.0
REPLAY_EVENT_S = 50e-9  # checking and replaying one event of a trace
GENERATED: dict[Profile, int] = {"smoke": 1_000_000, "quick": 3_000_000, "full": 10_000_000}  # events
TRACES = ("trace", "fleet", "gen")
FILES = ("distribution", "source")  # parameters of generators that name one
GROWING = {"cycles": (20_000, 120_000), "n": (20_000, 120_000), "generations": (2, 8)}  # short and long, by `work`


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
        ``kind`` or ``kind:parameter=value,...``; ``trace:FILE``, ``fleet:FILE``, ``gen:GENERATOR``, each with
        parameters behind a comma.
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
        file, options = _recorded(text, rest)
        return _replay(_named("trace", _shown(file), options), file, options)
    if name in TRACES:
        of, notes, label, options = _generated(text, name, rest)
        return _replay(label, _made(of, notes, profile), options)
    if name not in KINDS:
        known = [*KINDS, *TRACES]
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


def short_and_long(text: str) -> tuple[Workload, Workload, int]:
    """Size a workload twice, small, so that what an operation takes can be told from what a run takes.

    Returns
    -------
    tuple
        The short and the long one, and the warm-up (`HAKMEM_BENCH_PREFAULT`) that both should have.

    Raises
    ------
    BadParameter
        Its length cannot be chosen, or was given; the message says what is allowed.
    """
    said = parse(text).text
    name, _, rest = said.partition(":")
    kind = KINDS.get(name)
    if kind is None or kind.work not in GROWING:
        known = ", ".join(known for known, one in KINDS.items() if one.work in GROWING)
        raise BadParameter(f"workload {text!r} has no length to grow; these have one: {known}")
    if kind.work in _parameters(text, kind, rest):
        raise BadParameter(f"workload {text!r} gives {kind.work}, which is grown here: leave it out")
    sizes = GROWING[kind.work]
    short, long = (parse(f"{said}{',' if rest else ':'}{kind.work}={size}", "smoke") for size in sizes)
    return short, long, sizes[0]


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


def names(given: Iterable[str]) -> list[str]:
    """Return the canonical names of workloads, each once; patterns become what they match.

    Raises
    ------
    BadParameter, BadTrace
        As `parse` does. Nothing is generated.
    """
    found: list[str] = []
    for text in given:
        kind, _, rest = (piece.strip() for piece in text.partition(":"))
        if kind not in TRACES:
            found.append(parse(text).text)
        elif kind == "gen":
            found.append(_generated(text, kind, rest)[2])
        else:
            pattern, comma, parameters = rest.partition(",")
            for file in _matches(text, pattern):
                one = f"{file}{comma}{parameters}"
                found.append(parse(f"trace:{one}").text if kind == "trace" else _generated(text, kind, one)[2])
    return list(dict.fromkeys(found))


# ---- traces ----------------------------------------------------------------------------------------------------------


def _replay(text: str, file: Path, options: Options) -> Workload:
    """Replay a trace; its hash stands among the arguments."""
    plain = trace.unpacked(file)
    header = trace.read_header(plain)
    return Workload(
        text=text,
        driver=Replay.driver,
        args=(f"--trace={plain}", f"--sha256={header.sha256[:16]}", *_arguments(options)),
        threads=header.threads,
        expected_s=0.05 + REPLAY_EVENT_S * header.events * int(getattr(options, "repeat", None) or 1),
    )


def _recorded(text: str, rest: str) -> tuple[Path, Options]:
    name, _, parameters = (piece.strip() for piece in rest.partition(","))
    if not name:
        raise BadParameter(f"workload {text!r} names no file: trace:FILE")
    return _found(name), _checked(text, Replay, _parameters(text, Replay, parameters))


def _generated(text: str, kind: str, rest: str) -> tuple[Generator, dict[str, object], str, Options]:
    """Check the generator that a workload names; return it, notes for the header, the canonical name, and options."""
    name, _, parameters = (piece.strip() for piece in rest.partition(","))
    if not name:
        raise BadParameter(
            f"workload {text!r} names no {'file: fleet:FILE' if kind == 'fleet' else 'generator: gen:NAME'}"
        )
    given = _pairs(text, parameters)
    ours = {key: given.pop(key) for key in Replay.model_fields if key in given}
    options = _checked(text, Replay, ours)
    said: dict[str, object] = {key: generate.quantity(value) for key, value in given.items()}
    files: dict[str, Path] = {key: _found(str(said[key])) for key in FILES if key in said}
    if kind == "fleet":
        files["distribution"] = _found(name)
    of, notes = fitted.generator("fleet" if kind == "fleet" else name, said | dict(files.items()))
    shown = given | {key: _shown(file) for key, file in files.items() if key in given}
    first = _shown(files["distribution"]) if kind == "fleet" else name
    return of, notes, _named(kind, first, options, shown), options


def _made(of: Generator, notes: dict[str, object], profile: Profile) -> Path:
    """Return the trace of a generator, made at the first call; the profile says how long it is if nobody else does."""
    if "events" in type(of).model_fields and "events" not in of.model_fields_set:
        of = of.model_copy(update={"events": GENERATED[profile]})
    name = next(name for name, kind in fitted.ALL.items() if kind is type(of))
    identity = hashlib.sha256(f"{name} {of.version} {of.model_dump_json()}".encode())
    for value in dict(of).values():
        if isinstance(value, Path):
            identity.update(value.read_bytes())
    file = paths.build() / "traces" / f"{name}-{identity.hexdigest()[:20]}{trace.SUFFIX}"
    if not file.exists():
        generate.make(name, of, file, notes=notes)
    return file


def _named(kind: str, first: str, options: Options, more: dict[str, str] | None = None) -> str:
    said = {**(more or {}), **options.model_dump(exclude_none=True)}
    return ",".join([f"{kind}:{first}", *(f"{key}={value}" for key, value in said.items())])


def _found(name: str) -> Path:
    """Find a file below the working directory or the checkout."""
    file = Path(name).absolute()
    return paths.root() / name if not file.exists() and (paths.root() / name).exists() else file


def _shown(file: Path) -> str:
    return str(file.relative_to(paths.root()) if file.is_relative_to(paths.root()) else file)


def _matches(text: str, pattern: str) -> list[str]:
    """Return the files a pattern names, below the working directory or else below the checkout."""
    if not glob.has_magic(pattern):
        return [pattern]
    for folder in (Path.cwd(), paths.root()):
        if found := sorted(glob.glob(str(folder / pattern.strip()))):
            return found
    raise BadParameter(f"workload {text!r}: no file is called {pattern}, below {Path.cwd()} or {paths.root()}")


# ---- parameters ------------------------------------------------------------------------------------------------------


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
    for said, value in _pairs(text, rest, names).items():
        name = by_flag.get(said, said).replace("-", "_")
        if name not in names:
            raise BadParameter(
                f"workload {text!r}: unknown parameter {name!r}{did_you_mean(name, names)}; "
                f"its parameters are {', '.join(names)}"
            )
        if name in given:
            raise BadParameter(f"workload {text!r} gives {name} twice")
        given[name] = value
    return given


def _pairs(text: str, rest: str, names: Sequence[str] = ()) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            known = f"; its parameters are {', '.join(names)}" if names else ""
            raise BadParameter(f"workload {text!r}: {part!r} is no name=value{known}")
        if name in given:
            raise BadParameter(f"workload {text!r} gives {name} twice")
        given[name] = value
    return given
