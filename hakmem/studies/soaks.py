"""What soaks of a study show: SAFE against BALANCED over time, in speed, memory, tails and system calls.

The two presets are settings that a study can pair: SAFE is speed first, hakmem's defaults; BALANCED is Lean that gives
nothing back. Points within one process are no independent trials: what is said of one soak holds for that process, and
presets are compared within blocks.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import DisplayHandle
from matplotlib.axes import Axes
from pydantic import Field, model_validator

from hakmem import epochs, progress, soak, stats, units
from hakmem.builds import gates
from hakmem.builds.arms import Arm
from hakmem.drivers import Profile
from hakmem.figure import FAMILIES, Figure, Theme, family, panel, whiskers
from hakmem.plots import looks_of
from hakmem.soak import Analysis
from hakmem.study import STUDY, CampaignSpec, Parameters
from hakmem.verdict import SYSCALLS_PER_OP, Word

__all__ = [
    "BALANCED",
    "PAIR",
    "SAFE",
    "Live",
    "SoakSpec",
    "here",
    "judge",
    "memory",
    "presets",
    "published",
    "running",
    "speed",
    "table",
]

SAFE, BALANCED = "MIXED_TINYV3_C7_SAFE", "MIXED_TINYV3_C7_BALANCED"
PAIR: dict[str, object] = {"lean": (0, 1), "decommit": "OFF", "target_mb": 10}  # what the two presets set, swept
NAMES = {"baseline": "SAFE (A)", "baseline2": "SAFE (A')", "arm": "BALANCED"}
MINUTES: dict[Profile, float] = {"smoke": 1 / 3, "quick": 1, "full": 5}
EPOCHS = 60  # of a short soak; a long one has an epoch each 5 s
WINDOW = 0.2  # the first and the last fifth
RESOLVED_KB = 64.0  # a program's own first touches move its memory by less; no drift is told from so little
TABLE = {
    **{"ops_per_s": ("Mops/s", 1e-6), "cv_percent": ("CV %", 1), "p50": ("p50 Mops/s", 1e-6)},
    **{"p10": ("p10 Mops/s", 1e-6), "p1": ("p1 Mops/s", 1e-6), "stall_max_us": ("longest stall ms", 1e-3)},
    **{"rss_first_mb": ("first MB", 1), "rss_last_mb": ("last MB", 1), "peak_rss_mb": ("peak MB", 1)},
    **{"slope_kb_per_s": ("slope KB/min", 60), "slope_low": ("low", 60), "slope_high": ("high", 60)},
    **{"fragmentation_last": ("unused at the end %", 100), "syscalls_per_op": ("system calls/op", 1)},
}


class SoakSpec(Parameters):
    """How long each soak runs, and how often: one block is SAFE, SAFE again and BALANCED, one after another.

    `minutes` goes by `profile`; the published soaks took 5, 30 and 60. `budget_minutes` is what the blocks take.
    """

    study: str = Field(default="soak_presets", pattern=STUDY)
    minutes: float = Field(gt=0, le=10_080)
    blocks: int = Field(default=1, ge=1, le=1_000)
    ws: int = Field(default=400, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, given: Any) -> Any:
        said = {name: value for name, value in dict(given).items() if value is not None}
        minutes = said.get("minutes", MINUTES.get(said.get("profile", "quick"), 1))
        blocks = said.get("blocks", 1)
        times = minutes * blocks if isinstance(minutes, int | float) and isinstance(blocks, int) else 1
        return {"minutes": minutes, "blocks": 1, "budget_minutes": max(1, 4 * times)} | said

    def campaign(self) -> CampaignSpec:
        """Return the sweep that answers it."""
        seconds = 60 * self.minutes
        work = f"soak:ws={self.ws},seconds={seconds:g},epoch_seconds={min(5.0, seconds / EPOCHS):g}"
        return CampaignSpec.checked({**self.shared(), **PAIR, "workloads": [work], "allocators": "hakmem"})


def presets() -> pd.DataFrame:
    """Return the gates in which the two presets differ."""
    safe, balanced = (gates.effective({"HAKMEM_PROFILE": name}) for name in (SAFE, BALANCED))
    differing = [name for name in safe if name != "HAKMEM_PROFILE" and safe[name] != balanced[name]]
    return pd.DataFrame({"gate": differing, **{w: [of[n] for n in differing] for w, of in _named(safe, balanced)}})


def _named(*of: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    return list(zip(("SAFE", "BALANCED"), of, strict=True))


def table(rows: pd.DataFrame, ledger: Path) -> pd.DataFrame:
    """Return one line a soak, in the order they ran.

    Returns
    -------
    DataFrame
        Columns preset, block, status, epochs, seconds, those of `TABLE`, ``first to last %`` (speed of the last fifth
        of the epochs against the first), ``p1 of p50 %`` and drifts (None where there are too few epochs).
    """
    lines = []
    for row, told in _soaks(rows, ledger):
        found = soak.analyse_row(row, told)
        line: dict[str, Any] = {"preset": NAMES[row["role"]], "block": int(row["block"]), "status": row["status"]}
        line |= {"epochs": found.epochs, "seconds": found.seconds}
        figures = {name: getattr(found, name) for name in TABLE}
        line |= {TABLE[name][0]: None if x is None else x * TABLE[name][1] for name, x in figures.items()}
        line |= {"first to last %": _first_to_last(told), "p1 of p50 %": _tail(found)}
        line["within budget"] = found.within_syscall_budget
        line["drifts"] = found.drifts and bool(1024 * np.ptp(_resident(told)) > RESOLVED_KB)
        lines.append(line)
    return pd.DataFrame(lines)


def _soaks(rows: pd.DataFrame, ledger: Path) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return the soaks with their epochs; one that ended badly may have none."""
    good = rows[rows["workload"].str.startswith("soak")].sort_values("order")
    good = good.assign(key=stats.keys(good))
    told = [ledger.parent / str(name) if isinstance(name, str) else None for name in good["series"]]
    empty = pd.DataFrame(columns=epochs.COLUMNS, dtype=float)
    read = [pd.read_parquet(path) if path is not None and path.is_file() else empty for path in told]
    return list(zip(good.to_dict("records"), read, strict=True))  # type: ignore[arg-type]


def _tail(found: Analysis) -> float | None:
    return 100 * found.p1 / found.p50 if found.p1 is not None and found.p50 else None


def _first_to_last(told: pd.DataFrame) -> float | None:
    rates = told["ops_per_s"].dropna().to_numpy(dtype=float)
    k = max(1, round(WINDOW * rates.size))
    return float(100 * (np.median(rates[-k:]) / np.median(rates[:k]) - 1)) if rates.size >= soak.FEWEST else None


def judge(soaked: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge both presets by the published rule of stability.

    Parameters
    ----------
    soaked : DataFrame
        What `table` returns.

    Returns
    -------
    tuple
        GO where every soak ended well, no memory drifts (64 KB in all are none) and system calls stay within 1e-4 an
        operation; NO-GO where a soak failed, calls run away, or each soak of a preset drifts; INCONCLUSIVE where some
        drift and some do not, or where there are too few epochs.
    """
    kind = soaked["preset"].str.split(" ").str[0]
    by_kind = [(name, soaked[kind == name]) for name in ("SAFE", "BALANCED")]
    failed = soaked[soaked["status"] != "ok"]
    calls = soaked["system calls/op"].astype(float).max()
    always = [name for name, part in by_kind if part["drifts"].notna().all() and part["drifts"].astype(bool).all()]
    word: Word = "GO" if not soaked["drifts"].isna().any() and not soaked["drifts"].any() else "INCONCLUSIVE"
    if len(failed) or soaked["within budget"].map(lambda kept: kept is False).any() or always:
        word = "NO-GO"
    longest = soaked["seconds"].max()
    over = f"over {longest:.3g} seconds"
    if longest >= 60:
        over = f"over {longest / 60:.3g} minute{'' if longest == 60 else 's'}"
    says = {"GO": "The memory of SAFE and of BALANCED holds still", "NO-GO": "SAFE and BALANCED are not both stable"}
    sentences = [f"{says.get(word, 'Whether SAFE and BALANCED are stable is open')} {over}."]
    sentences += [f"{len(failed)} of {len(soaked)} soaks did not end well."] if len(failed) else []
    sentences += [_sentence(name, part) for name, part in by_kind]
    sentences.append(
        f"System calls: {calls:.2g} an operation at most, the budget is {SYSCALLS_PER_OP:g}."
        if np.isfinite(calls)
        else "System calls were not counted."
    )
    return word, sentences


def _sentence(name: str, part: pd.DataFrame) -> str:
    drifts = part["drifts"]
    if drifts.isna().all():
        return f"{name}: too few epochs to tell a drift."
    known = drifts.dropna().astype(bool)
    drifting, soaks = int(known.sum()), f"{len(known)} soak{'s' * (len(known) > 1)}"
    widest = max((part["last MB"] - part["first MB"]).dropna(), key=abs)
    spread, change = (part[column].astype(float).median() for column in ("CV %", "first to last %"))
    return (
        f"{name}: {drifting or 'none'} of {soaks} {'drift' if drifting > 1 else 'drifts'} (memory moved by "
        f"{widest:+.2f} MB at most); its speed varied by {spread:.2g} % from epoch to epoch (CV) and changed by "
        f"{change:+.2g} % from the first fifth to the last."
    )


def here(soaked: pd.DataFrame) -> dict[str, str]:
    """Say what stands for the published settings: soaks of another length."""
    seconds = soaked["seconds"].max()
    length = f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.3g} s"
    named = {"SAFE 60 min": "SAFE", "BALANCED 60 min": "BALANCED", "both 60 min": "the soak that moved most"}
    return {published: f"{mine}, {length}" for published, mine in named.items()}


def published(soaked: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Return today's counterparts of the published soaks."""
    cv = soaked.groupby(soaked["preset"].str.split(" ").str[0])["CV %"].median()
    change = 100 * (soaked["last MB"] / soaked["first MB"] - 1)
    moved = max(change.dropna(), key=abs, default=None)
    return {
        ("cv", "SAFE 60 min"): cv.get("SAFE"),
        ("cv", "BALANCED 60 min"): cv.get("BALANCED"),
        ("rss_drift", "both 60 min"): None if moved is None else float(moved),
    }


# ---- charts ----------------------------------------------------------------------------------------------------------


def speed(rows: pd.DataFrame, ledger: Path) -> Figure:
    """Draw each soak's speed over its epochs, with its median and the range of eight epochs of ten behind the end."""
    soaked, seen = table(rows, ledger), _soaks(rows, ledger)
    words = [f"{preset} CV {part['CV %'].astype(float).median():.2g}\u00a0%" for preset, part in _by_preset(soaked)]
    title = "Speed over time: " + ", ".join(words)
    scale, unit = units.fitting(np.nanmax([1.0, *(told["ops_per_s"].median() for _, told in seen)]), units.RATES)

    def draw(axes: Axes, theme: Theme) -> str:
        end = _lines(axes, theme, rows, seen, lambda told: told["ops_per_s"] / scale)
        looks = looks_of(rows)
        for at, (row, told) in enumerate(seen):
            rates = told["ops_per_s"].dropna() / scale
            if len(rates):
                low, mid, high = np.percentile(rates, [10, 50, 90])
                look, where = looks[row["key"]], end * (1.03 + 0.03 * at)
                whiskers(axes, where, low, high, look.colour(theme), upright=True)
                axes.plot(where, mid, clip_on=False, **look.mark(theme))
        axes.set_ylabel(f"Throughput ({unit})")
        axes.set_ylim(bottom=0)
        return "; ".join(words) + "."

    note = "A line is one process; behind its end stand the median epoch and the range of eight epochs of ten."
    columns = ["preset", "block", "epochs", "seconds", "Mops/s", "CV %", "p50 Mops/s", "p10 Mops/s", "p1 Mops/s"]
    shown = soaked[[*columns, "p1 of p50 %", "longest stall ms", "first to last %"]]
    return Figure("Is it steady in speed?", note, (panel(draw, 3.2, title),), shown)


def memory(rows: pd.DataFrame, ledger: Path) -> Figure:
    """Draw each soak's resident memory over its epochs, LazyFree left out, with the slope's interval in words."""
    soaked, seen = table(rows, ledger), _soaks(rows, ledger)
    drifting = int(soaked["drifts"].fillna(False).astype(bool).sum())
    says = f"{drifting} of {len(soaked)} soaks drift" if drifting else f"none of {len(soaked)} soaks drifts"
    words = [
        f"{line['preset']} {line['slope KB/min']:+.2g} KB a minute ({line['low']:+.2g} to {line['high']:+.2g})"
        for line in soaked.to_dict("records")
        if line["slope KB/min"] is not None and np.isfinite(line["slope KB/min"])
    ]

    def draw(axes: Axes, theme: Theme) -> str:
        _lines(axes, theme, rows, seen, _resident)
        axes.set_ylabel("Resident, less LazyFree (MiB)")
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        return "; ".join(words) + "."

    note = (
        "A line is one process. It drifts where the 95 % interval of its slope leaves out 0, or where the last fifth "
        "of the epochs is off the first by over 1 % and 64 KB; 64 KB in all are none."
    )
    columns = ["preset", "block", "first MB", "last MB", "peak MB", "slope KB/min", "low", "high", "drifts"]
    return Figure("Does memory drift?", note, (panel(draw, 3.2, f"Memory over time: {says}"),), soaked[columns])


def running(arm: Arm, told: pd.DataFrame) -> Figure:
    """Draw a soak while it runs: its speed and its memory up to the last epoch."""
    scale, unit = units.fitting(told["ops_per_s"].median(), units.RATES)
    look, resident = FAMILIES[family(arm.allocator.name, dict(arm.gates))], _resident(told)
    rates = told["ops_per_s"] / scale
    lines = (
        (f"{arm.label}: {rates.median():.3g} {unit} in the median epoch so far", rates, f"Throughput ({unit})"),
        (f"{arm.label}: {resident.iloc[-1]:.3g} MB in the last epoch", resident, "Resident, less LazyFree (MiB)"),
    )

    def drawn(y: pd.Series, unit: str) -> Callable[[Axes, Theme], str]:
        def draw(axes: Axes, theme: Theme) -> str:
            axes.plot(told["t_s"], y, color=look.on(theme), lw=1.2, marker=look.marker, ms=3)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("Time (s)")
            axes.set_ylabel(unit)
            return f"From {y.min():.3g} to {y.max():.3g} over {len(y)} epochs."

        return draw

    panels = tuple(panel(drawn(y, unit), 2.6, title) for title, y, unit in lines)
    note = "The process that runs now, a mark an epoch (a single epoch has no interval)."
    return Figure(f"{told['t_s'].iloc[-1]:.0f} s of this soak are over.", note, panels, told.tail(1))


class Live:
    """One chart in a notebook, drawn anew as epochs come in; nothing where the notebook is made into a page."""

    def __init__(self, every_s: float = 2.0) -> None:
        self._every_s, self._next = every_s, 0.0
        self._shows = progress.in_notebook() and progress.FILE not in os.environ
        self._place: DisplayHandle | None = None

    def __call__(self, arm: Arm, told: pd.DataFrame) -> None:
        """Show the epochs so far, no more often than every few seconds."""
        if not self._shows or time.monotonic() < self._next:
            return
        chart = running(arm, told)
        if self._place is None:
            self._place = DisplayHandle()
            self._place.display(chart)
        else:
            self._place.update(chart)
        self._next = time.monotonic() + self._every_s


def _by_preset(soaked: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, soaked[soaked["preset"] == name]) for name in NAMES.values() if name in set(soaked["preset"])]


def _resident(told: pd.DataFrame) -> pd.Series:
    return told["rss_mb"] - told["lazyfree_mb"].clip(lower=0).fillna(0)


def _lines(
    axes: Axes,
    theme: Theme,
    rows: pd.DataFrame,
    seen: Sequence[tuple[dict[str, Any], pd.DataFrame]],
    of: Callable[[pd.DataFrame], pd.Series],
) -> float:
    """Draw a line a soak; return where the last one ends."""
    longest = max((float(told["t_s"].max()) for _, told in seen if len(told)), default=1.0)
    minutes, looks = longest > 180, looks_of(rows)
    for row, told in seen:
        look = looks[row["key"]]
        dashes = "--" if row["role"] == "baseline2" else "-"
        x = told["t_s"] / (60 if minutes else 1)
        axes.plot(x, of(told), dashes, color=look.colour(theme), lw=1.2, label=NAMES[row["role"]])
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    known = [name for name in NAMES.values() if name in once]
    axes.legend([once[name] for name in known], known, frameon=False, ncols=3, loc="lower left")
    axes.set_xlabel(f"Time ({'min' if minutes else 's'})")
    return longest / (60 if minutes else 1)
