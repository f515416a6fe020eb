"""The ledger: append-only JSON lines, one durable write a trial; what is measured is never edited.

Three record types stand in one file, told apart by ``"type"``: `Provenance`, `Plan` and `Trial`. One process writes
(an exclusive lock says so), any number read. A line cut short by a crash or a full disk stays where it is: the next
append starts on a line of its own, and readers count the fragment as torn.

A record of an older schema is brought up to date as it is read, step by step; the file stays as it was written. One of
a newer schema is refused.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

from hakmem.builds.arms import Arm, Role
from hakmem.builds.build import Build
from hakmem.errors import LedgerError
from hakmem.run import Outcome
from hakmem.workload import Workload

SCHEMA = 3
Linkage = Literal["preload", "linked", "none"]
Status = Literal["ok", "failed", "timeout", "killed", "garbage", "lost"]


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Bring up to 2: a session of schema 1 measured on one host, and knew no trial lost with its worker."""
    return record | ({"cluster": False} if record.get("type") == "plan" else {})


def _from_2(record: dict[str, Any]) -> dict[str, Any]:
    """Bring up to 3: nobody wrote down which arms a trial of schema 2 shared its block with."""
    return record | ({"cohort": ""} if record.get("type") == "trial" else {})


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: _from_2}  # schema n to n + 1


class Record(BaseModel):
    """What every line of a ledger has in common."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True, allow_inf_nan=False
    )
    schema_: Literal[3] = Field(default=3, alias="schema")


class Provenance(Record):
    """Where rows come from: one record per session and host. What could not be read is ``"unknown"``."""

    type: Literal["provenance"] = "provenance"
    id: str
    host: str
    started: AwareDatetime
    facts: dict[str, JsonValue]


class Plan(Record):
    """What a session set out to measure; `cluster`: its blocks were dealt out to the hosts of a cluster."""

    type: Literal["plan"] = "plan"
    study: str
    started: AwareDatetime
    seed: int
    blocks: int
    arms: tuple[str, ...]
    workloads: tuple[str, ...]
    spec: dict[str, JsonValue]
    cluster: bool


class Phase(BaseModel):
    """Memory at the end of one phase of a driver, read by the driver itself (KiB)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    t_s: float
    rss_kb: int | None = None
    lazyfree_kb: int | None = None
    anon_kb: int | None = None
    peak_rss_kb: int | None = None


class Trial(Record):
    """One fresh process, one arm, one workload: one row. What was not measured is null, never zero.

    Trials of one `cohort` were planned together, with the same build, arms, seed and profile; those of another are not
    compared with them. `order` counts the trials of the ledger as they were run; `block` numbers a set of trials run
    back to back (a spoiled block is run again as a further block, and both are kept). `build` is the content address of
    the native build, `layout` numbers the layouts of hakmem's library where a study compares several, `extra` holds the
    driver's own figures. Kilobytes are KiB, times are seconds. A `lost` trial is one whose worker died: nobody knows
    how it ended.
    """

    type: Literal["trial"] = "trial"
    study: str
    trial_key: str
    cohort: str = ""
    provenance: str
    host: str
    block: int
    position: int
    order: int
    arm: str
    role: Role
    allocator: str
    version: str
    linkage: Linkage
    build: str
    layout: int | None = None
    gates: dict[str, str]
    effective_gates: dict[str, str] | None = None
    workload: str
    argv: tuple[str, ...]
    cpu: int | None = None
    status: Status
    exit_status: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    spoiled: tuple[str, ...] = ()
    started: AwareDatetime
    wall_s: float
    user_s: float | None = None
    sys_s: float | None = None
    ops: int | None = None
    seconds: float | None = None
    ops_per_s: float | None = None
    peak_rss_kb: int | None = None
    start_rss_kb: int | None = None
    end_rss_kb: int | None = None
    end_lazyfree_kb: int | None = None
    phases: tuple[Phase, ...] = ()
    minflt: int | None = None
    majflt: int | None = None
    nvcsw: int | None = None
    nivcsw: int | None = None
    steal_s: float | None = None
    syscalls: dict[str, int] | None = None
    syscalls_per_op: float | None = None
    counters: dict[str, JsonValue] | None = None
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    series: str | None = None


AnyRecord = Annotated[Provenance | Plan | Trial, Field(discriminator="type")]
_RECORD: TypeAdapter[Provenance | Plan | Trial] = TypeAdapter(AnyRecord)

COLUMNS = tuple(info.alias or name for name, info in Trial.model_fields.items() if name != "type")
NUMERIC = [
    name
    for name, info in Trial.model_fields.items()
    if name not in ("schema_", "block", "position", "order") and info.annotation in (int | None, float | None, float)
]


def digest(value: JsonValue, length: int = 16) -> str:
    """Hash any JSON value: the same content gives the same text on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


class Ledger:
    """The single writer of one ledger file; use it as a context manager.

    Parameters
    ----------
    path : Path
        The ``.jsonl`` file; it and its directory are made when missing.

    Raises
    ------
    LedgerError
        Another process writes this ledger, the file cannot be opened, or it holds records this version cannot read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f"cannot open the ledger {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise LedgerError(f"another process is writing {self.path}: wait for it, or name another study") from None
        try:
            self.trials = [record for record in records(self.path) if isinstance(record, Trial)]
        except LedgerError:
            os.close(self._fd)
            raise
        self.keys = {trial.trial_key for trial in self.trials}

    def append(self, record: Provenance | Plan | Trial, *, durable: bool = True) -> None:
        """Write one record durably: one write, one fsync; without `durable` that is left to `sync`.

        Raises
        ------
        LedgerError
            The disk is full or fails; what stood in the ledger before stays readable, and a later append works.
        """
        line = record.model_dump_json().encode() + b"\n"
        try:
            if self._ends_inside_a_line():
                line = b"\n" + line
            written = os.write(self._fd, line)
            if written < len(line):  # a full disk takes a part; asking for the rest yields the reason
                os.write(self._fd, line[written:])
            if durable:
                os.fsync(self._fd)
        except OSError as error:
            raise LedgerError(f"cannot write to the ledger {self.path}: {error.strerror}") from error
        if isinstance(record, Trial):
            self.trials.append(record)
            self.keys.add(record.trial_key)

    def sync(self) -> None:
        """Make durable what was written."""
        os.fsync(self._fd)

    def _ends_inside_a_line(self) -> bool:
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def close(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self.close()


def records(path: Path) -> Iterator[Provenance | Plan | Trial]:
    """Yield every whole record of a ledger, in file order; fragments of torn lines are passed over.

    Raises
    ------
    LedgerError
        The file cannot be read, or a whole line is of an unknown schema or does not fit it.
    """
    for number, raw in enumerate(_lines(path), start=1):
        value = _parse(raw)
        if value is None:
            continue
        schema = value.get("schema")
        if schema not in [*MIGRATIONS, SCHEMA]:
            raise LedgerError(
                f"{path}, line {number}: schema {schema!r}, but this hakmem reads schema {min(MIGRATIONS)} to {SCHEMA};"
                " use the hakmem that wrote it"
            )
        try:
            yield _RECORD.validate_python(_migrated(value))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise LedgerError(f"{path}, line {number}: {where}: {first['msg']}") from error


def _migrated(record: dict[str, Any]) -> dict[str, Any]:
    while record["schema"] != SCHEMA:
        older = int(record["schema"])
        record = MIGRATIONS[older](record) | {"schema": older + 1}
    return record


def torn(path: Path) -> int:
    """Count the lines of a ledger cut short by a crash or a full disk."""
    return sum(1 for raw in _lines(path) if raw.strip() and _parse(raw) is None)


def load(path: Path, *, host: str | None = None, pool_hosts: bool = False) -> pd.DataFrame:
    """Read the trials of a ledger as a frame, one row a trial, in the order they were written.

    Parameters
    ----------
    path : Path
        The ledger file.
    host : str, optional
        Keep the rows of this host only.
    pool_hosts : bool
        Return rows of several hosts together (host is then a blocking factor: never compare across it).

    Returns
    -------
    pandas.DataFrame
        The columns of `Trial` plus ``peak_rss_mb``, ``end_rss_mb``, ``end_rss_less_lazyfree_mb`` (MiB) and ``mops``
        (10^6 ops/s). Failed trials are rows with nulls. ``attrs["torn_lines"]`` counts lines cut short.

    Raises
    ------
    LedgerError
        No such ledger, a record of another schema, or rows of several hosts without `pool_hosts`.
    """
    trials = [record for record in records(path) if isinstance(record, Trial)]
    if host is not None:
        trials = [trial for trial in trials if trial.host == host]
    hosts = sorted({trial.host for trial in trials})
    if len(hosts) > 1 and not pool_hosts:
        raise LedgerError(f"{path} holds rows of {len(hosts)} hosts ({', '.join(hosts)}): choose one of them")
    table = frame(trials)
    table.attrs["torn_lines"] = torn(path)
    return table


def row(outcome: Outcome, arm: Arm, work: Workload, build: Build, **where: Any) -> Trial:
    """Make the ledger's row of a trial; `where` gives study, host, block and the like."""
    done, line = outcome.exit, outcome.line
    end = line.phases[-1] if line and line.phases else None
    own = line.allocator if line else None
    # FAST counts nothing: that is no zero.
    counts = own is not None and bool(own.timed)
    syscalls = {name[4:]: int(n) for name, n in own.timed.items() if name[:4] == "sys_"} if own else {}
    measured: dict[str, Any] = {}
    if line is not None:
        measured = line.model_dump(include={"ops", "seconds", "ops_per_s", "peak_rss_kb", "start_rss_kb", "extra"})
        measured |= line.timed.model_dump()
        if work.seconds:  # it was asked to end: how long it took says nothing
            measured |= {"ops": None, "seconds": None, "ops_per_s": None}
    return Trial(
        **where,
        **_asked(arm, work, build),
        effective_gates=own.gates if own else None,
        cpu=done.cpu,
        status=outcome.status,
        exit_status=done.exit_status,
        signal=done.signal,
        stderr_tail="\n".join(filter(None, (outcome.complaint, done.stderr_tail))),
        spoiled=outcome.spoiled,
        started=done.started,
        wall_s=done.wall_s,
        steal_s=done.steal_s,
        end_rss_kb=end.rss_kb if end else None,
        end_lazyfree_kb=end.lazyfree_kb if end else None,
        phases=tuple(Phase(**phase.model_dump()) for phase in line.phases) if line else (),
        syscalls=syscalls if counts else None,
        syscalls_per_op=sum(syscalls.values()) / line.ops if counts and line and line.ops else None,
        counters=own.counters if counts and own else None,
        **{"user_s": done.user_s, "sys_s": done.sys_s, **measured},
    )


def lost(arm: Arm, work: Workload, build: Build, why: str, started: datetime, **where: Any) -> Trial:
    """Make the row of a trial whose worker was lost: what was asked for, and that nobody knows how it ended."""
    wall_s = (datetime.now(UTC) - started).total_seconds()
    ended = {"status": "lost", "spoiled": (why,), "started": started, "wall_s": wall_s}
    return Trial(**where, **_asked(arm, work, build), **ended)


def _asked(arm: Arm, work: Workload, build: Build) -> dict[str, Any]:
    """Return the columns that say what a trial was to measure."""
    program = () if work.program else (build.driver(work.driver, arm.allocator.flavour).name,)
    return {
        "arm": arm.label,
        "role": arm.role,
        "allocator": arm.allocator.name,
        "version": arm.allocator.version,
        "linkage": arm.allocator.linkage,
        "build": build.build_id,
        "gates": arm.gates,
        "workload": work.text,
        "argv": (*program, *work.args),
    }


def frame(trials: Iterable[Trial]) -> pd.DataFrame:
    """Return trials as the tidy frame that `load` documents."""
    table = pd.DataFrame([trial.model_dump() for trial in trials], columns=COLUMNS)
    table[NUMERIC] = table[NUMERIC].astype("float64")
    table["started"] = pd.to_datetime(table["started"], utc=True)
    table["peak_rss_mb"] = table["peak_rss_kb"] / 1024
    table["end_rss_mb"] = table["end_rss_kb"] / 1024
    table["end_rss_less_lazyfree_mb"] = (table["end_rss_kb"] - table["end_lazyfree_kb"]) / 1024
    table["mops"] = table["ops_per_s"] / 1e6
    return table


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows that belong together: for each host and workload those of the build and arguments measured last.

    Of each baseline the cohort measured last is kept: what other arms or another seed shared a block with says nothing
    of these.
    """
    kept = []
    for _, cell in table.groupby(["host", "workload"], sort=False):
        last = cell.sort_values("order").iloc[-1]
        same_arguments = cell["argv"].map(lambda argv: argv[1:]) == last["argv"][1:]
        kept.append(cell[same_arguments & (cell["build"] == last["build"])])
    if not kept:
        return table
    found: pd.DataFrame = pd.concat(kept)
    sessions = found.groupby(["host", "workload", _baselines(found)], sort=False, dropna=False)
    planned_last: pd.Series = sessions["cohort"].transform("last")
    return found[(found["cohort"] == planned_last).to_numpy(dtype=bool)]


def by_cohort(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Part rows by what is compared: the baseline that their session measured against, and the cohort."""
    parts = table.groupby([_baselines(table), "cohort"], sort=False, dropna=False)
    return [(str(baseline), part) for (baseline, _), part in parts]


def _baselines(table: pd.DataFrame) -> pd.Series:
    """Name the baseline of each row's session; one that ran none went on with the last one's."""
    own = table["arm"].where(table["role"] == "baseline").groupby(table["provenance"]).transform("first")
    return own.ffill().bfill().rename("baseline")


class Merged(BaseModel):
    """What a merged ledger holds: trials, those that stood in more than one source, and the hosts, kept apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path
    trials: int
    twice: int
    hosts: tuple[str, ...]


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Join ledgers into a new one; the sources are only read, and hosts stay apart as ever.

    Trials stand in the order in which they were run, and `order` counts them anew; one that several sources hold
    stands once. Series are copied along.

    Parameters
    ----------
    sources : sequence of Path
    target : Path
        Must not exist.

    Returns
    -------
    Merged

    Raises
    ------
    LedgerError
        A source cannot be read, the target exists or cannot be written, or two sources hold different trials under one
        key, which is to say that one of them was edited.
    """
    if target.exists():
        raise LedgerError(f"{target} exists: a ledger is never written over, name another")
    rest: dict[str, Provenance | Plan] = {}
    trials: dict[str, tuple[Trial, Path]] = {}
    twice = 0
    for source in sources:
        for record in records(source):
            if not isinstance(record, Trial):
                rest.setdefault(record.model_dump_json(), record)
            elif record.trial_key not in trials:
                trials[record.trial_key] = record, source
            else:
                twice += 1
                known, first = trials[record.trial_key]
                if known.started != record.started:
                    raise LedgerError(f"{first} and {source} hold different trials under the key {record.trial_key}")
    ordered = sorted(trials.values(), key=lambda found: found[0].started)
    scratch = target.with_suffix(".merging")
    scratch.unlink(missing_ok=True)
    with Ledger(scratch) as ledger:
        for other in sorted(rest.values(), key=lambda record: record.started):
            ledger.append(other, durable=False)
        for order, (trial, source) in enumerate(ordered):
            series = _copied(trial.series, source, target)
            ledger.append(trial.model_copy(update={"order": order, "series": series}), durable=False)
        ledger.sync()
    scratch.rename(target)
    hosts = tuple(sorted({trial.host for trial, _ in ordered}))
    return Merged(path=target, trials=len(ordered), twice=twice, hosts=hosts)


def _copied(series: str | None, source: Path, target: Path) -> str | None:
    """Copy a trial's series beside the merged ledger; None where the source has lost it."""
    if series is None or not (source.parent / series).is_file():
        return None
    copy = Path(f"{target.stem}.series", Path(series).name)
    (target.parent / copy.parent).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.parent / series, target.parent / copy)
    return str(copy)


def provenance(path: Path) -> dict[str, Provenance]:
    """Return the provenance records of a ledger by their id."""
    return {record.id: record for record in records(path) if isinstance(record, Provenance)}


def _lines(path: Path) -> list[bytes]:
    try:
        return Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise LedgerError(f"no ledger {path}: measure first, `hakmem sweep` makes one") from None
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror}") from error


def _parse(raw: bytes) -> dict[str, Any] | None:
    """One line as a JSON object, or None for an empty line or a fragment."""
    try:
        value = from_json(raw) if raw.strip() else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
