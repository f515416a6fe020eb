"""Soak one process for minutes or hours, an epoch at a time: whether its speed is steady and its memory drifts.

Points within one process are no independent trials: what is said here holds for this process, and arms are compared by
a campaign. An interrupt asks the process to end; what it has measured is analysed all the same.
"""

import errno
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from hakmem import epochs as epoch_files
from hakmem import run, sample, stats
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.epochs import COLUMNS, SAMPLED
from hakmem.errors import BadParameter, LedgerError
from hakmem.system import turn
from hakmem.verdict import SYSCALLS_OPS, SYSCALLS_PER_OP
from hakmem.workload import Workload

DRIVER = "soak"  # the one that knows epochs itself
WARM_SHARE = 1.2  # a soak's driver warms up for a tenth of its time
FEWEST = 5  # epochs from which a drift and percentiles are told
Watch = Callable[[pd.DataFrame], None]


class Analysis(BaseModel):
    """What one soak shows; None where it was not measured, or where there are fewer than five epochs.

    Rates are operations a second over epochs: `p1`, `p10` and `p50` are percentiles, so that `p1` is the slow tail.
    The slope is Theil-Sen's over the epochs' resident memory less LazyFree, KiB/s with its 95 % interval; `sampled_*`
    is the same of the memory seen from outside. Fragmentation is the share of resident memory, less LazyFree, that is
    in no live block, of the first and the last fifth of the epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    arm: str
    status: str
    stopped_early: bool
    epochs: int
    seconds: float
    ops_per_s: float | None
    cv_percent: float | None
    p1: float | None
    p10: float | None
    p50: float | None
    slowest_epoch: float | None
    stall_max_us: float | None
    rss_first_mb: float | None
    rss_last_mb: float | None
    slope_kb_per_s: float | None
    slope_low: float | None
    slope_high: float | None
    drifts: bool | None
    sampled_slope: float | None
    sampled_low: float | None
    sampled_high: float | None
    fragmentation_first: float | None
    fragmentation_last: float | None
    peak_rss_mb: float | None
    syscalls_per_op: float | None
    within_syscall_budget: bool | None


def lapped(work: Workload, seconds: float, epoch_s: float) -> Workload:
    """Make a driver or a trace run again and again in one process, for so long and in epochs of so many laps.

    Raises
    ------
    BadParameter
        It is a soak, which has epochs of its own, or a program.
    """
    if work.driver == DRIVER or work.program:
        raise BadParameter(f"{work.text} has no laps: it runs for as long as it is told")
    args = (*work.args, f"--laps-seconds={seconds:g}", f"--laps-epoch={epoch_s:g}")
    return work.model_copy(update={"args": args, "expected_s": seconds + work.expected_s})


def soak(build: Build, arm: Arm, work: Workload, csv: Path, watch: Watch) -> tuple[run.Outcome, pd.DataFrame]:
    """Run one process until its time is over, or somebody interrupts.

    Parameters
    ----------
    build : Build
    arm : Arm
    work : Workload
        A ``soak``; any other driver or a trace, which then runs lap after lap; or a program with `seconds`.
    csv : Path
        Gets a line an epoch while the process runs; a Parquet file of the same name is written at the end.
    watch : callable
        Called with the epochs so far whenever there is a new one.

    Returns
    -------
    tuple
        The outcome, and the epochs (`COLUMNS` and `SAMPLED`; a program's have memory only).

    Raises
    ------
    LedgerError
        The files cannot be written.
    """
    try:
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_text(",".join(COLUMNS) + "\n")
    except OSError as error:
        raise LedgerError(f"cannot write the epochs to {csv}: {error.strerror}") from error
    epoch_s = max(work.expected_s / 60, 0.1)
    source = _Sampled(epoch_s, csv) if work.program else _Written(csv, sample.use(work.threads))
    option = "--csv" if work.driver == DRIVER else "--laps-csv"
    chosen = work if work.program else work.model_copy(update={"args": (*work.args, f"{option}={csv}")})
    with turn.taken(), _interrupts() as asked:

        def tick(pid: int) -> None:
            asked.append(pid)
            if source.grows(pid):
                watch(source.epochs())

        outcome = run.trial(build, arm, chosen, timeout_s=WARM_SHARE * work.expected_s + 60, tick=tick)
    epochs, table = source.epochs(), csv.with_suffix(".parquet")
    try:
        epochs.to_parquet(table, index=False)
    except OSError as error:
        table.unlink(missing_ok=True)
        raise LedgerError(f"cannot write the epochs to {table}: {os.strerror(error.errno or errno.EIO)}") from error
    return outcome, epochs


def analyse(arm: str, epochs: pd.DataFrame, outcome: run.Outcome) -> Analysis:
    """Make the analysis of a soak: a pure function of its epochs and its outcome."""
    line = outcome.line
    timed = line.allocator.timed if line and line.allocator else {}
    calls = sum(count for name, count in timed.items() if name.startswith("sys_"))
    per_op = calls / line.ops if line and line.ops and timed else None
    extra = line.extra if line else {}
    return _analysis(arm, outcome.status, epochs, extra, line.peak_rss_kb if line else None, per_op)


def analyse_row(row: Mapping[str, Any], epochs: pd.DataFrame) -> Analysis:
    """Make the analysis of a soak that a study ran: a pure function of its row and its epochs."""
    peak_kb, per_op = (None if pd.isna(row[name]) else float(row[name]) for name in ("peak_rss_kb", "syscalls_per_op"))
    return _analysis(str(row["arm"]), str(row["status"]), epochs, row["extra"], peak_kb, per_op)


def _analysis(
    arm: str,
    status: str,
    epochs: pd.DataFrame,
    extra: Mapping[str, Any],
    peak_kb: float | None,
    per_op: float | None,
) -> Analysis:
    epochs = epochs.reindex(columns=[*COLUMNS, SAMPLED])
    enough = len(epochs) >= FEWEST
    rates = epochs["ops_per_s"].dropna().astype(float)
    tail = np.percentile(rates, [1, 10, 50]) if enough and len(rates) else [None, None, None]
    resident = (epochs["rss_mb"] - epochs["lazyfree_mb"].clip(lower=0).fillna(0)).astype(float)
    drift = stats.drift(epochs["t_s"], 1024 * resident) if enough else None
    outside = epochs[["t_s", SAMPLED]].astype(float).dropna()
    seen = stats.drift(outside["t_s"], 1024 * outside[SAMPLED]).slope if len(outside) >= FEWEST else None
    unused = ((resident - epochs["live_mb"].astype(float)) / resident).dropna()
    fifth = max(1, round(len(unused) / 5))
    return Analysis(
        arm=arm,
        status=status,
        stopped_early=bool(extra.get("stopped_early") or extra.get("asked_to_end") == 2),
        epochs=len(epochs),
        seconds=float(epochs["t_s"].iloc[-1]) if len(epochs) else 0.0,
        ops_per_s=float(rates.mean()) if len(rates) else None,
        cv_percent=100 * stats.cv(rates) if enough and len(rates) else None,
        **dict(zip(("p1", "p10", "p50"), tail, strict=True)),
        slowest_epoch=float(rates.min()) if len(rates) else None,
        stall_max_us=float(epochs["stall_max_us"].max()) if epochs["stall_max_us"].notna().any() else None,
        rss_first_mb=drift.first_kb / 1024 if drift else None,
        rss_last_mb=drift.last_kb / 1024 if drift else None,
        slope_kb_per_s=drift.slope.estimate if drift else None,
        slope_low=drift.slope.low if drift else None,
        slope_high=drift.slope.high if drift else None,
        drifts=not drift.is_zero if drift else None,
        sampled_slope=seen.estimate if seen else None,
        sampled_low=seen.low if seen else None,
        sampled_high=seen.high if seen else None,
        fragmentation_first=float(unused.iloc[:fifth].median()) if len(unused) else None,
        fragmentation_last=float(unused.iloc[-fifth:].median()) if len(unused) else None,
        peak_rss_mb=peak_kb / 1024 if peak_kb else None,
        syscalls_per_op=per_op,
        within_syscall_budget=_within_budget(per_op, float(epochs["ops"].sum())) if per_op is not None else None,
    )


def _within_budget(per_op: float, ops: float) -> bool | None:
    """Tell whether system calls keep to their budget; of few operations it cannot be told that they do not."""
    if per_op <= SYSCALLS_PER_OP:
        return True
    return False if ops >= SYSCALLS_OPS else None


class _Written:
    """The epochs that a driver writes to its CSV, and what is seen of its memory from outside where a core is free."""

    def __init__(self, csv: Path, sampled: bool) -> None:
        self._csv, self._file = csv, epoch_files.Growing(csv)
        self._sampler = sample.Sampler() if sampled else None

    def grows(self, pid: int) -> bool:
        """Take a sample; tell whether there is a further epoch."""
        if self._sampler is not None:
            self._sampler.tick(pid)
        return self._file.grows()

    def epochs(self) -> pd.DataFrame:
        """Return the whole lines; the last one may be half written."""
        table = epoch_files.read(self._csv)
        if self._sampler is None or not self._sampler.t_s or table.empty:
            return table.assign(**{SAMPLED: math.nan})
        # The driver counts from the end of its warm-up, the sampler from its start; both ended a moment ago.
        ago = self._sampler.t_s[-1] - np.array(self._sampler.t_s)
        number = np.searchsorted(table["t_s"], table["t_s"].iloc[-1] - ago)
        seen = pd.Series(np.array(self._sampler.rss_kb) / 1024).groupby(number).median()
        return table.assign(**{SAMPLED: seen.reindex(range(len(table))).to_numpy()})


class _Sampled:
    """The epochs of a program that tells nothing: the median of its RSS, sampled from outside."""

    def __init__(self, epoch_s: float, csv: Path) -> None:
        self._sampler = sample.Sampler(family=True)
        self._epoch_s, self._csv, self._known = epoch_s, csv, 0

    def grows(self, pid: int) -> bool:
        """Take a sample; tell whether it begins a further epoch."""
        self._sampler.tick(pid)
        before, self._known = self._known, int((self._sampler.t_s or [0.0])[-1] / self._epoch_s)
        return self._known > before

    def epochs(self) -> pd.DataFrame:
        """Return the epochs, and write them to the CSV."""
        taken = pd.DataFrame({"t_s": self._sampler.t_s, "rss_mb": np.array(self._sampler.rss_kb) / 1024})
        number = (taken["t_s"] // self._epoch_s).astype(int)
        table = taken.groupby(number).agg(t_s=("t_s", "last"), rss_mb=("rss_mb", "median")).reset_index(drop=True)
        table["peak_rss_mb"] = taken["rss_mb"].groupby(number).max().cummax().to_numpy()
        table[SAMPLED] = table["rss_mb"]
        table["epoch"] = range(len(table))
        table = table.reindex(columns=[*COLUMNS, SAMPLED]).astype("float64")
        table[COLUMNS].to_csv(self._csv, index=False)
        return table


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Hand the first Ctrl-C on to the measured process, whose pid stands last in the list that is yielded."""
    pids: list[int] = []
    begin = time.monotonic()

    def hand_on(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not pids:
            raise KeyboardInterrupt(f"after {time.monotonic() - begin:.1f} s, before anything was measured")
        os.kill(pids[-1], signal.SIGINT)

    before = signal.signal(signal.SIGINT, hand_on)
    try:
        yield pids
    finally:
        signal.signal(signal.SIGINT, before)
