"""Every target with its figure, its verdict and its trend over the builds that this machine has measured.

Nothing is measured here: the figures come from the ledgers of the other studies.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field

from hakmem import reference, soak, stats, store
from hakmem.figure import FAMILIES, Figure, Theme, log_axis, panel, whiskers
from hakmem.stats import BASELINE, Array, Interval
from hakmem.studies import rebase
from hakmem.study import STUDY, Checked
from hakmem.verdict import SYSCALLS_PER_OP, Word

__all__ = ["TARGETS", "ScoreSpec", "Target", "card", "chart", "judge", "latest", "load", "newest", "trend"]

LEAN = "hakmem LEAN DONTNEED 10 MB"
MIXED = "mixed:ws=400"
SHOWN = 8  # builds on the chart
NO_MATTER = 0.01  # a share by which builds may differ without being a change point


class ScoreSpec(Checked):
    """Which ledgers hold the figures."""

    sweep: str = Field(default="lean_sweep", pattern=STUDY)
    rebase: str = Field(default="rebase", pattern=STUDY)
    soak: str = Field(default="soak_presets", pattern=STUDY)


@dataclass(frozen=True)
class Target:
    """A target: a figure of one ledger that has to stay below (or reach) a limit, on `mixed:ws=400` or over soaks.

    `values` gives one figure a block, from the rows of one build. An `aim` that is not reached is NEUTRAL: the target
    published was the first milestone.
    """

    name: str
    ledger: str
    unit: str
    limit: float
    at_most: bool
    values: Callable[[pd.DataFrame], Array]
    aim: bool = False
    published: tuple[str, str, str] | None = None  # study, metric and setting of the figure that was published for it

    def word(self, found: Interval | None) -> Word:
        """Judge the whole interval."""
        if found is None:
            return "NOT-APPLICABLE"
        below = True if found.high <= self.limit else False if found.low > self.limit else None
        above = True if found.low >= self.limit else False if found.high < self.limit else None
        kept = below if self.at_most else above
        return "INCONCLUSIVE" if kept is None else "GO" if kept else "NEUTRAL" if self.aim else "NO-GO"


def _column(arm: str, metric: str) -> Callable[[pd.DataFrame], Array]:
    def values(rows: pd.DataFrame) -> Array:
        table = stats.wide(rows, metric)
        return table[arm].dropna().to_numpy(dtype=float) if arm in table else np.empty(0)

    return values


def _calls(role: str, arm: str) -> Callable[[pd.DataFrame], Array]:
    def values(rows: pd.DataFrame) -> Array:
        good = stats.usable(rows)
        mine = good[(good["role"] == role) & (good["arm"] == arm)]
        return mine["syscalls_per_op"].dropna().to_numpy(dtype=float)

    return values


def _lean_share(rows: pd.DataFrame) -> Array:
    return np.asarray(100 * np.exp(stats.log_ratios(stats.wide(rows, "ops_per_s"), LEAN)))


def _growth(rows: pd.DataFrame) -> Array:
    """Growth of memory from the end of the warm-up to the end of the run, in percent, a figure a trial."""
    good = stats.usable(rows)
    ends = [[phase["rss_kb"] for phase in phases] for phases in good[good["role"] == "baseline"]["phases"]]
    return np.array([100 * max(0.0, (kb[-1] - kb[0] - 64) / kb[0]) for kb in ends if len(kb) > 1])


def _drift(rows: pd.DataFrame) -> Array:
    """Change of memory from the first to the last fifth of a soak beyond 64 KiB, in percent, a figure a process."""
    return stats.usable(rows)["drift_percent"].dropna().to_numpy(dtype=float)


def _peer_share(rows: pd.DataFrame) -> Array:
    table = stats.wide(rows, "ops_per_s")
    roles = set(rows.loc[rows["allocator"] == "mimalloc", "role"])
    peer = BASELINE if "baseline" in roles else "mimalloc"
    return np.asarray(100 * np.exp(stats.log_ratios(table, "hakmem_minimal", peer)))


PEAK, DRIFT = ("rss_tax", "peak_rss", "hakmem FAST prefault default"), ("soak", "rss_drift", "both 60 min")
CALLS = ("syscalls", "syscalls_per_op", "hakmem")
TARGETS = (
    Target("peak RSS, speed first", "sweep", "MB", 35, True, _column(BASELINE, "peak_rss_mb"), published=PEAK),
    Target("peak RSS, Lean", "sweep", "MB", 10, True, _column(LEAN, "peak_rss_mb")),
    Target("Lean's throughput, of speed first's", "sweep", "%", 90, False, _lean_share),
    Target("growth over the run, speed first", "sweep", "%", 1, True, _growth),
    Target("drift over soaks, SAFE and BALANCED", "soak", "%", 1, True, _drift, published=DRIFT),
    Target(
        "system calls, speed first",
        "sweep",
        "/op",
        SYSCALLS_PER_OP,
        True,
        _calls("baseline", "hakmem"),
        published=CALLS,
    ),
    Target("system calls, Lean", "sweep", "/op", SYSCALLS_PER_OP, True, _calls("arm", LEAN)),
    *(
        Target(
            f"FAST's throughput, of mimalloc's: {milestone} %",
            "rebase",
            "%",
            milestone,
            False,
            _peer_share,
            milestone > 50,
            ("rebase", "ratio", "hakmem/mimalloc"),
        )
        for milestone in rebase.MILESTONES
    ),
)


def load(ledgers: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """Read the rows of `mixed:ws=400`, and of soaks, of the host that measured last; a missing ledger gives none.

    Soaks have a further column, `drift_percent`; it is None where a soak has fewer than `soak.FEWEST` epochs.

    Raises
    ------
    LedgerError
        A ledger that is there and cannot be read.
    """
    found = {}
    for name, path in ledgers.items():
        rows = store.load(path, pool_hosts=True) if path.exists() else store.frame([])
        soaked = rows["workload"].str.startswith("soak").astype(bool)
        mine = rows[soaked] if name == "soak" else rows[rows["workload"] == MIXED]
        mine = mine[mine["host"] == mine["host"].iloc[-1]] if len(mine) else mine
        drifts = [_drift_of(path.parent / str(series)) for series in mine["series"]]
        found[name] = mine.assign(drift_percent=pd.array(drifts, dtype="Float64"))
    return found


def _drift_of(series: Path) -> float | None:
    """Return the drift of one process from its epochs."""
    if not series.is_file():
        return None
    epochs = pd.read_parquet(series)
    if len(epochs) < soak.FEWEST or not {"t_s", "rss_mb", "lazyfree_mb"} <= set(epochs):
        return None
    kb = 1024 * (epochs["rss_mb"] - epochs["lazyfree_mb"].fillna(0))
    found = stats.drift(epochs["t_s"], kb)
    return 100 * max(0.0, abs(found.change_kb) - 64) / found.first_kb


def card(ledgers: Mapping[str, pd.DataFrame], targets: Sequence[Target] = TARGETS) -> pd.DataFrame:
    """Hold every build that was measured against every target.

    Parameters
    ----------
    ledgers : mapping of name to DataFrame
        Rows by the `ledger` that targets name.

    Returns
    -------
    DataFrame
        One row a target and build, in the order measured: target, limit, unit, published, build, measured, estimate,
        low, high, blocks, verdict, share, share_low, share_high (of the limit; below 1 is within it), change (a change
        point: this interval and that of the build before do not meet, and they differ by over 1 %). A target that was
        never measured has one row, NOT-APPLICABLE.
    """
    records: list[dict[str, object]] = []
    for target in targets:
        limit = {
            "target": target.name,
            "limit": f"{'≤' if target.at_most else '≥'} {target.limit:g}",
            "unit": target.unit,
            "published": reference.figure(*target.published) if target.published else math.nan,
        }
        before: Interval | None = None
        mine = list(_builds(ledgers[target.ledger], target)) if target.ledger in ledgers else []
        if not mine:
            records.append({**limit, "verdict": target.word(None)})
        for build, when, values in mine:
            found = _estimate(values)
            moved = before is not None and _moved(before, found)
            records.append(
                limit
                | {"build": build, "measured": when, "estimate": found.estimate, "low": found.low, "high": found.high}
                | {"blocks": found.n, "verdict": target.word(found), "change": moved}
                | _shares(target, found)
            )
            before = found
    columns = [
        "target",
        "limit",
        "unit",
        "published",
        "build",
        "measured",
        "estimate",
        "low",
        "high",
        "blocks",
        "verdict",
    ]
    return pd.DataFrame(records, columns=[*columns, "share", "share_low", "share_high", "change"])


def _estimate(values: Array) -> Interval:
    """Estimate figures that cannot fall below 0: by their logarithms, unless one is 0."""
    if (values > 0).all():
        return stats.interval(np.log(values)).exp()
    found = stats.interval(values)
    return replace(found, low=max(0.0, found.low))


def _shares(target: Target, found: Interval) -> dict[str, float]:
    """Hold an interval against the limit, turned round where more is better."""
    ends = [found.estimate, found.low, found.high]
    if not target.at_most:
        ends = [1 / x if x else math.inf for x in (found.estimate, found.high, found.low)]
    scale = 1 / target.limit if target.at_most else target.limit
    return dict(zip(("share", "share_low", "share_high"), (scale * x for x in ends), strict=True))


def _moved(before: Interval, now: Interval) -> bool:
    """Tell whether two intervals do not meet, and the figures differ by more than `NO_MATTER`."""
    apart = now.low > before.high or now.high < before.low
    return apart and abs(now.estimate - before.estimate) > NO_MATTER * abs(before.estimate)


def _builds(rows: pd.DataFrame, target: Target) -> list[tuple[str, str, Array]]:
    """(build, day, figures) of each build that has figures, in the order measured."""
    found = []
    for build, mine in rows.groupby("build", sort=False):
        values = target.values(store.newest(mine))
        if values.size:
            found.append((str(build), f"{mine['started'].max():%Y-%m-%d %H:%M}", values))
    return found


def latest(table: pd.DataFrame) -> pd.DataFrame:
    """Return the newest line of each target."""
    return table.drop_duplicates("target", keep="last").reset_index(drop=True)


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the newest line of each target for reading: the limit, what was published, today's figure, the ratio."""
    found = latest(table)
    found["today / published"] = (found["estimate"] / found["published"]).where(found["published"] > 0)
    names = {"estimate": "today", "low": "95 % low", "high": "95 % high"}
    shown = [
        "target",
        "verdict",
        "limit",
        "unit",
        "published",
        "estimate",
        "low",
        "high",
        "today / published",
        "blocks",
    ]
    return found[[*shown, "measured", "build"]].rename(columns=names)


def judge(table: pd.DataFrame) -> tuple[Word, list[str]]:
    """Sum the newest build up: GO where every target that was measured is met."""
    found = latest(table)
    words = found["verdict"].value_counts().to_dict()
    missed, open_ = found[found["verdict"] == "NO-GO"], found[found["verdict"] == "INCONCLUSIVE"]
    measured = len(found) - words.get("NOT-APPLICABLE", 0)
    word: Word = "NO-GO" if len(missed) else "INCONCLUSIVE" if len(open_) or not measured else "GO"
    moved = found[found["change"].eq(True)]
    others = {"missed": len(missed), "open": len(open_), "aims not reached": words.get("NEUTRAL", 0)}
    others["not measured"] = len(found) - measured
    rest = ", ".join(f"{what}: {count}" for what, count in others.items() if count)
    return word, [
        f"Of {len(found)} targets {words.get('GO', 0)} are met{rest and '; '}{rest}.",
        *([f"Missed: {'; '.join(missed['target'])}."] if len(missed) else []),
        *([f"Open: {'; '.join(open_['target'])}."] if len(open_) else []),
        *([f"Changed since the build before: {'; '.join(moved['target'])}."] if len(moved) else []),
    ]


def chart(table: pd.DataFrame) -> Figure:
    """Draw every target's figure as a share of its limit, older builds paler, change points ringed."""
    shown = table.dropna(subset=["share"]).groupby("target", sort=False).tail(SHOWN)
    names = list(dict.fromkeys(shown["target"]))
    word, sentences = judge(table)
    note = (
        "Left of the line is within the limit (log scale); none at all stands at the left edge. Bars are 95 % "
        "intervals over blocks, cut where blocks are few. Older builds are paler."
    )
    drawn = (
        (panel(_drawing(shown, names), 1.3 + 0.3 * len(names), f"{word}: {sentences[0].rstrip('.')}"),) if names else ()
    )
    return Figure("Every target, as a share of its limit.", f"{note} A ring marks a change point.", drawn, table)


def _drawing(shown: pd.DataFrame, names: Sequence[str]) -> Callable[[Axes, Theme], str]:
    order = list(reversed(names))
    positive = shown["share"][shown["share"] > 0]
    left = 0.6 * min(0.5, float(positive.min())) if len(positive) else 0.1
    right = 3 * max(1.0, float(shown["share"].max()))  # cuts bars of very few blocks; the table has them whole

    def draw(axes: Axes, theme: Theme) -> str:
        blue = FAMILIES["hakmem"].on(theme)
        axes.set_xscale("log")
        axes.set_xlim(left / 1.3, right)
        axes.axvline(1, color=theme.ink, lw=1.2, ls="--")
        for name, mine in shown.groupby("target", sort=False):
            shares, y = mine["share"].clip(lower=left).to_numpy(), order.index(str(name))
            newest_one = mine.iloc[-1]
            if newest_one["blocks"] > 1:
                whiskers(axes, y, newest_one["share_low"], newest_one["share_high"], blue, (left, right))
            for age, (share, moved) in enumerate(zip(reversed(shares), reversed(list(mine["change"])), strict=True)):
                axes.plot(share, y, "o", ms=6, color=blue, alpha=max(0.15, 1 - 0.3 * age))
                if moved:
                    axes.plot(share, y, "o", ms=11, mfc="none", mec=theme.ink, mew=1)
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.grid(visible=False, axis="y")
        log_axis(axes.xaxis)
        axes.set_xlabel("Share of the limit (log scale)")
        last = latest(shown)
        return ", ".join(f"{t} {s:.2g}" for t, s in zip(last["target"], last["share"], strict=True)) + "."

    return draw


def trend(table: pd.DataFrame) -> Figure:
    """Draw each target's figure over the builds that this machine has measured, a panel a target, changes ringed."""
    panels = []
    for name, mine in table.dropna(subset=["estimate"]).groupby("target", sort=False):
        shown = mine.tail(SHOWN)
        if len(shown) > 1:
            first, last = float(shown["estimate"].iloc[0]), float(shown["estimate"].iloc[-1])
            moved = int(shown["change"].sum())
            says = f"{moved} change point{'s' * (moved > 1)}" if moved else "no change point"
            panels.append(panel(_trend_drawing(shown), 2.5, f"{name}: {first:.3g} to {last:.3g}, {says}"))
    note = (
        "Builds in the order measured here, with 95 % intervals over blocks (cut where blocks are few); the dashed "
        "line is the limit. A ring marks a change point: this interval and that of the build before do not meet, and "
        "over 1 % lie between."
    )
    lacks = "Only one build has been measured so far: a trend needs two."
    columns = ["target", "build", "measured", "estimate", "low", "high", "change"]
    return Figure("The trend over builds.", note, tuple(panels), table.dropna(subset=["estimate"])[columns], lacks)


def _trend_drawing(shown: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    lines = shown.to_dict("records")
    limit = float(lines[0]["limit"].split()[1])
    values = [float(line["estimate"]) for line in lines]
    least, most = min([*values, limit]), max([*values, limit])
    room = 0.15 * (most - least) or 0.1 * abs(most) or 1.0

    def draw(axes: Axes, theme: Theme) -> str:
        blue = FAMILIES["hakmem"].on(theme)
        axes.axhline(limit, color=theme.ink, lw=1.2, ls="--")
        axes.plot(range(len(lines)), values, color=blue, lw=1, alpha=0.5)
        for x, line in enumerate(lines):
            whiskers(axes, x, line["low"], line["high"], blue, (least - room, most + room), upright=True)
            axes.plot(x, values[x], **FAMILIES["hakmem"].mark(theme))
            if line["change"]:
                axes.plot(x, values[x], "o", ms=11, mfc="none", mec=theme.ink, mew=1)
        axes.set_xticks(
            range(len(lines)), [f"{line['build'][:6]}\n{line['measured'][5:]}" for line in lines], fontsize=8
        )
        axes.set_xlim(-0.5, len(lines) - 0.5)
        axes.set_ylim(least - 1.3 * room, most + 1.3 * room)
        axes.set_xlabel("Build, and when it was last measured")
        axes.set_ylabel(f"{lines[0]['unit']} (limit {lines[0]['limit']})")
        return ", ".join(f"{line['build'][:6]} {line['estimate']:.3g}" for line in lines) + f" {lines[0]['unit']}."

    return draw
