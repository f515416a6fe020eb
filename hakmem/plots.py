"""The charts: pure functions of the ledger's rows, each a `Figure` whose titles state the finding.

Axes carry units and say when they are logarithmic; estimates carry their intervals.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter

from hakmem import stats
from hakmem.figure import (
    FAMILIES,
    Family,
    Figure,
    Line,
    Theme,
    family,
    log_axis,
    panel,
    spoken,
    whiskers,
    write_ends,
    write_names,
)
from hakmem.stats import BASELINE, BASELINE2
from hakmem.traces.events import Shape
from hakmem.verdict import SYSCALLS_PER_OP, Verdict, memory_of

__all__ = ["Look", "cells", "forest", "frontier", "live_curve", "looks_of", "phases", "run_order", "syscalls"]


# ---- names and looks of arms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Name and look of one arm on one chart."""

    name: str
    family: Family
    role: str

    def colour(self, theme: Theme) -> str:
        """Colour on this paper."""
        return self.family.on(theme)


def looks_of(cell: pd.DataFrame) -> dict[str, Look]:
    """Find looks by the keys of `stats.wide`: A, A' and the arms' labels; names lose the prefix that all share."""
    found: dict[str, Look] = {}
    first = cell[["arm", "role", "allocator", "gates"]].drop_duplicates(["arm", "role"])
    for key, row in zip(stats.keys(first), first.to_dict("records"), strict=True):
        arm, role = str(row["arm"]), str(row["role"])
        name = (_short(arm) if role == "arm" else arm) + {"baseline": " (A)", "baseline2": " (A')"}.get(role, "")
        found[key] = Look(name, FAMILIES[family(str(row["allocator"]), row["gates"])], role)
    return found


def _short(arm: str) -> str:
    """`hakmem LEAN DONTNEED 10 MB` reads `DONTNEED 10 MB` on a chart that is about nothing else."""
    return re.sub(r"^hakmem\S*\s+(LEAN\s+)?(?=\S)", "", arm)


def cells(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Yield each workload with its rows."""
    for workload, cell in rows.groupby("workload", sort=False):
        yield str(workload), cell


# ---- RSS against throughput ------------------------------------------------------------------------------------------


FRONTIER_NAMES = {
    **{"memory": "MB", "memory_low": "MB low", "memory_high": "MB high", "n": "blocks", "dominated_by": "dominated by"},
    **{"speed": "Mops/s", "speed_low": "Mops/s low", "speed_high": "Mops/s high"},
}


def frontier(rows: pd.DataFrame, prices: pd.DataFrame | None = None) -> Figure:
    """Memory against throughput, one panel a workload, with joint 95 % error crosses and the Pareto frontier.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    prices : DataFrame, optional
        From `verdict.prices`: gives the panels their finding.
    """
    panels, tables = [], []
    for workload, cell in cells(rows):
        column = memory_of(workload)
        points, looks = stats.frontier(cell, column), looks_of(cell)
        points = points[points.index.isin(looks) & (points.index != BASELINE2)]
        if points.empty:
            continue
        panels.append(panel(_frontier_drawing(points, looks, column), 3.9, _frontier_title(workload, points, looks)))
        named = points.assign(arm=[looks[key].name for key in points.index], workload=workload)
        tables.append(named[["workload", "arm", *[c for c in points.columns if c != "arm"]]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    title = "Memory against throughput: up and to the left is better."
    if prices is not None and prices["percent_per_mb"].notna().any():
        title = "What a megabyte costs: " + _cheapest(prices)
    note = (
        "Each cross is an arm's geometric mean with its joint 95 % interval; the line is the Pareto frontier; "
        "grey arms are beaten in both by another beyond the crosses; hollow ones have a single block, and so no cross. "
        "The memory axis is logarithmic."
    )
    return Figure(title, note, tuple(panels), table.rename(columns=FRONTIER_NAMES))


def _cheapest(prices: pd.DataFrame) -> str:
    """Say the price of the leanest arm, on the workload where it saves most."""
    known = prices.dropna(subset=["percent_per_mb"]).sort_values("saved_mb")
    return str(known["sentence"].iloc[-1])


def _frontier_title(workload: str, points: pd.DataFrame, looks: dict[str, Look]) -> str:
    if BASELINE not in points.index:
        return workload
    base = points.loc[BASELINE]
    arms = points[[looks[key].role == "arm" for key in points.index]]
    if arms.empty:
        return workload
    name, leanest = arms.sort_values("memory").index[0], arms.sort_values("memory").iloc[0]
    change = 100 * (leanest["speed"] / base["speed"] - 1)
    if leanest["memory_high"] >= base["memory_low"]:
        return f"{workload}: no arm needs surely less than the baseline's {base['memory']:.3g} MB"
    memory = f"{base['memory']:.3g} to {leanest['memory']:.3g} MB"
    return f"{workload}: {looks[str(name)].name} takes {memory} at {change:+.1f} % throughput"


def _frontier_drawing(points: pd.DataFrame, looks: dict[str, Look], column: str) -> Callable[[Axes, Theme], str]:
    what = "Peak RSS" if column == "peak_rss_mb" else "RSS left at the end, without lazily freed pages"
    shown, edge = _within_reach(points), points[points["frontier"]].sort_values("memory")
    height = shown["speed_high"].max() - shown["speed_low"].min()

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_xscale("log")
        axes.set_xlim(0.85 * shown["memory_low"].min(), 1.3 * shown["memory_high"].max())
        axes.set_ylim(shown["speed_low"].min() - 0.06 * height, shown["speed_high"].max() + 0.1 * height)
        axes.step(edge["memory"], edge["speed"], where="post", color=theme.quiet, lw=1.2, ls="--", zorder=1)
        beaten = shown["dominated_by"] != ""
        colours = [theme.quiet if b else looks[str(key)].colour(theme) for key, b in beaten.items()]
        faded = [to_rgba(colour, 0.6 if b else 1) for colour, b in zip(colours, beaten, strict=True)]
        axes.hlines(shown["speed"], shown["memory_low"], shown["memory_high"], faded, lw=1.1)
        axes.vlines(shown["memory"], shown["speed_low"], shown["speed_high"], faded, lw=1.1)
        names = []
        for (key, point), colour, fade in zip(shown.to_dict("index").items(), colours, faded, strict=True):
            look, alone = looks[str(key)], point["n"] < 2
            mark: dict[str, Any] = {"marker": look.family.marker, "ms": 6.5, "mew": 0.7, "color": fade}
            mark |= {"fillstyle": "none"} if alone else {"mec": theme.paper}
            axes.plot(point["memory"], point["speed"], zorder=3 - 0.5 * (fade[3] < 1), **mark)
            names.append((point["memory"], point["speed"], look.name, colour))
        axes.set_xlabel(f"{what} (MiB, log scale)")
        axes.set_ylabel("Throughput (million ops/s)")
        log_axis(axes.xaxis)
        write_names(axes, names, theme, _obstacles(shown, edge))
        best = ", ".join(
            f"{looks[str(key)].name} at {memory:.3g} MB and {speed:.3g} Mops/s"
            for key, memory, speed in zip(edge.index, edge["memory"], edge["speed"], strict=True)
        )
        worse = ", ".join(looks[str(key)].name for key in points.index[points["dominated_by"] != ""])
        return f"On the frontier: {best}." + (f" Dominated: {worse}." if worse else "")

    return draw


def _within_reach(points: pd.DataFrame) -> pd.DataFrame:
    """Cut crosses of very few blocks where they would squeeze all points into a corner (the table has them whole)."""
    memory, speed = points["memory"], points["speed"]
    room = max(0.15 * speed.max(), speed.max() - speed.min())
    alone = points["n"] < 2  # a single block has no interval, and no cross
    points = points.assign(
        memory_low=points["memory_low"].mask(alone, memory),
        memory_high=points["memory_high"].mask(alone, memory),
        speed_low=points["speed_low"].mask(alone, speed),
        speed_high=points["speed_high"].mask(alone, speed),
    )
    return points.assign(
        memory_low=points["memory_low"].clip(lower=memory.min() / 2),
        memory_high=points["memory_high"].clip(upper=memory.max() * 2),
        speed_low=points["speed_low"].clip(lower=max(0.0, speed.min() - room)),
        speed_high=points["speed_high"].clip(upper=speed.max() + room),
    )


def _obstacles(points: pd.DataFrame, edge: pd.DataFrame) -> list[Line]:
    """Crosses and frontier of the chart as lines that names should not cover."""
    crosses = [
        line
        for p in points.to_dict("records")
        for line in (
            (p["memory_low"], p["speed"], p["memory_high"], p["speed"]),
            (p["memory"], p["speed_low"], p["memory"], p["speed_high"]),
        )
    ]
    memory, speed = edge["memory"].tolist(), edge["speed"].tolist()
    steps = [
        line
        for (m0, m1), (s0, s1) in zip(pairwise(memory), pairwise(speed), strict=True)
        for line in ((m0, s0, m1, s0), (m1, s0, m1, s1))
    ]
    return crosses + steps


# ---- paired ratios ---------------------------------------------------------------------------------------------------


def forest(rows: pd.DataFrame, verdicts: Sequence[Verdict] = (), margin: float = 0.01) -> Figure:
    """Change of throughput against the baseline, paired by block, with the neutral band max(margin, A/A floor).

    Arms that `verdicts` judge show the interval of their verdict (Holm's level); the others one of 95 %.
    """
    levels = {(v.workload, v.arm): v.effect.level for v in verdicts}
    panels, records = [], []
    for workload, cell in cells(rows):
        table, looks = stats.wide(cell, "ops_per_s"), looks_of(cell)
        band = 100 * math.expm1(max(math.log1p(margin), np.nan_to_num(stats.noise_floor(table))))
        found = {}
        for key, look in looks.items():
            x = stats.log_ratios(table, key)
            if key != BASELINE and x.size:
                found[key] = stats.interval(x, levels.get((workload, key), 0.95)).percent()
                extra = {
                    "Hodges-Lehmann %": 100 * math.expm1(stats.hodges_lehmann(x)),
                    "permutation p": stats.permutation_p(x),
                }
                records.append(
                    {"workload": workload, "arm": look.name, "change %": found[key].estimate, "low %": found[key].low}
                    | {"high %": found[key].high, "level": found[key].level, "method": found[key].method}
                    | extra
                    | {"CV %": 100 * stats.cv(table[key].dropna()), "blocks": x.size, "neutral band %": band}
                )
        if found:
            order = sorted(found, key=lambda key: found[key].estimate)
            height = 1.5 + 0.28 * len(order)
            panels.append(
                panel(_forest_drawing(order, found, looks, band), height, _forest_title(workload, found, looks, band))
            )
    note = (
        "Throughput against the baseline A, paired within blocks; bars are 95 % intervals (Holm's for judged arms); "
        f"the shaded band is neutral: the larger of {100 * margin:g} % and the difference of the two baselines."
    )
    return Figure("What each arm costs or gains in speed.", note, tuple(panels), pd.DataFrame(records))


def _forest_title(workload: str, found: dict[str, stats.Interval], looks: dict[str, Look], band: float) -> str:
    words = {
        key: "faster" if i.low > band else "slower" if i.high < -band else "not told apart"
        for key, i in found.items()
        if key != BASELINE2
    }
    if len(words) == 1:
        [(key, word)] = words.items()
        return f"{workload}: {looks[key].name} is {word} {'from' if word.startswith('not') else 'than'} the baseline"
    counted = Counter(words.values())
    parts = [f"{counted[word]} {word}" for word in ("faster", "slower", "not told apart") if word in counted]
    return f"{workload}: of {len(words)} arms " + ", ".join(parts) if parts else workload


def _forest_drawing(
    order: Sequence[str], found: dict[str, stats.Interval], looks: dict[str, Look], band: float
) -> Callable[[Axes, Theme], str]:
    estimates = [found[key].estimate for key in order]
    room = max(25.0, max(estimates) - min(estimates))  # cuts bars of very few blocks; the table has them whole
    least, most = min(estimates) - room, max(estimates) + room

    def reach(key: str) -> tuple[float, float]:
        i = found[key]
        return (max(i.low, least), min(i.high, most)) if i.n > 1 else (math.nan, math.nan)

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvspan(-band, band, color=theme.band, zorder=0)
        axes.axvline(0, color=theme.quiet, lw=1)
        low, high = ([*ends] for ends in zip(*map(reach, order), strict=True))
        whiskers(axes, range(len(order)), low, high, [looks[key].colour(theme) for key in order], 1.3)
        for y, key in enumerate(order):
            mark: dict[str, Any] = {"marker": looks[key].family.marker, "ms": 6.5, "mec": theme.paper, "mew": 0.7}
            axes.plot(found[key].estimate, y, color=looks[key].colour(theme), **mark)
        axes.set_yticks(range(len(order)), [looks[key].name for key in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Throughput against the baseline (%)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
        words = "; ".join(f"{looks[key].name} {found[key].words()}" for key in reversed(order))
        return f"{words}. Neutral band plus or minus {band:.1f} %."

    return draw


# ---- order of the run ------------------------------------------------------------------------------------------------


def run_order(rows: pd.DataFrame) -> Figure:
    """Draw every trial in the order it ran, as percent of its arm's median: trends, bursts of noise, spoiled trials."""
    panels, tables = [], []
    for workload, cell in cells(rows):
        looks = looks_of(cell)
        shown = cell.assign(key=stats.keys(cell), spoilt=stats.spoiled(cell)).sort_values("order")
        speeds = shown.groupby("key")["ops_per_s"]
        percent = 100 * (shown["ops_per_s"] / speeds.transform("median") - 1)
        shown["percent"] = percent.where(speeds.transform("count") > 1)  # a single trial is its own median
        good = stats.usable(shown).dropna(subset=["percent"])
        if len(good) < 2:
            continue
        slope = stats.theil_sen(good["order"], good["percent"])
        span = float(good["order"].max() - good["order"].min())
        trend = slope.low > 0 or slope.high < 0
        says = f"a trend of {slope.estimate * span:+.1f} % over the run" if trend else "no trend over the run"
        spread = float(good["percent"].abs().median())
        title = f"{workload}: {says}, trials within {spread:.1f} % of their median by half"
        panels.append(panel(_order_drawing(shown, good, looks, slope), 2.7, title))
        named = shown.assign(
            arm=[looks[k].name for k in shown["key"]], workload=workload, spoiled=shown["spoiled"].map("; ".join)
        )
        tables.append(named[["workload", "order", "block", "arm", "status", "mops", "percent", "spoiled"]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    note = (
        "One mark a trial (a single trial has no interval); hollow marks were spoiled, "
        "crosses at the bottom failed; the dashed line is the Theil-Sen trend. Arms that ran once are left out."
    )
    return Figure(
        "Did the machine hold still?",
        note,
        tuple(panels),
        table.rename(columns={"percent": "% of median", "mops": "Mops/s"}),
    )


def _order_drawing(
    shown: pd.DataFrame, good: pd.DataFrame, looks: dict[str, Look], slope: stats.Interval
) -> Callable[[Axes, Theme], str]:
    def draw(axes: Axes, theme: Theme) -> str:
        for (key, hollow), marks in shown.groupby(["key", "spoilt"], sort=False):
            look, colour = looks[str(key)], looks[str(key)].colour(theme)
            style: dict[str, Any] = {"ls": "", "marker": look.family.marker, "ms": 4.7, "mew": 0.8}
            style |= {"mfc": "none", "mec": colour} if hollow else {"mfc": colour, "mec": theme.paper}
            axes.plot(marks["order"], marks["percent"], **style)
        bad = shown[shown["status"] != "ok"]
        bottom = axes.get_ylim()[0]
        axes.scatter(bad["order"], [bottom] * len(bad), marker="x", color=theme.ink, s=26)
        x = np.array([good["order"].min(), good["order"].max()])
        centre = float(good["order"].median())
        axes.plot(
            x, float(good["percent"].median()) + slope.estimate * (x - centre), color=theme.quiet, lw=1.2, ls="--"
        )
        axes.set_xlabel("Trial, in the order run")
        axes.set_ylabel("Throughput against\nthe arm's median (%)")
        spoilt = int(shown["spoilt"].sum())
        spread = f"{good['percent'].min():+.1f} to {good['percent'].max():+.1f} %"
        return f"{len(good)} good trials, {len(bad)} failed, {spoilt} spoiled, spread over {spread}."

    return draw


# ---- memory over the phases ------------------------------------------------------------------------------------------


def phases(rows: pd.DataFrame) -> Figure:
    """Resident memory at the end of each phase of a workload: how closely each arm follows what the program needs."""
    panels, tables = [], []
    for workload, cell in cells(rows):
        looks = looks_of(cell)
        points = _phase_points(stats.usable(cell))
        points = points[points["key"].isin(looks) & (points["key"] != BASELINE2)]
        if points.empty:
            continue
        summary = (
            points.groupby(["key", "at", "phase"], sort=False)["mb"]
            .agg(["median", "min", "max", "count"])
            .reset_index()
        )
        last = summary[summary["at"] == summary["at"].max()].set_index("key")["median"]
        panels.append(panel(_phase_drawing(summary, looks), 3.4, _phase_title(workload, last, looks)))
        named = summary.assign(arm=[looks[k].name for k in summary["key"]], workload=workload)
        tables.append(named[["workload", "arm", "phase", "median", "min", "max", "count"]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    table = table.rename(columns={"median": "MB (median)", "min": "MB min", "max": "MB max", "count": "trials"})
    note = "Median over trials of RSS less lazily freed pages, bars from least to most; read by the program itself."
    return Figure("Does memory follow what the program needs?", note, tuple(panels), table)


def _phase_points(rows: pd.DataFrame) -> pd.DataFrame:
    records = [
        {"key": str(key), "at": at, "phase": str(phase["name"])}
        | {"mb": (phase["rss_kb"] - (phase["lazyfree_kb"] or 0)) / 1024}
        for key, marks in zip(stats.keys(rows), rows["phases"], strict=True)
        for at, phase in enumerate(marks)
        if phase["rss_kb"] is not None
    ]
    return pd.DataFrame(records, columns=["key", "at", "phase", "mb"])


def _phase_title(workload: str, last: pd.Series, looks: dict[str, Look]) -> str:
    arms = last[[looks[str(k)].role == "arm" for k in last.index]].sort_values()
    if arms.empty or BASELINE not in last:
        return f"{workload}: memory at each phase's end"
    name = looks[str(arms.index[0])].name
    return f"{workload} ends at {arms.min():.3g} MB with {name}, at {last[BASELINE]:.3g} MB with the baseline"


def _phase_drawing(summary: pd.DataFrame, looks: dict[str, Look]) -> Callable[[Axes, Theme], str]:
    names = summary.drop_duplicates("at").sort_values("at")

    def draw(axes: Axes, theme: Theme) -> str:
        ends, words = [], []
        shift = dict(zip(looks, np.linspace(-0.12, 0.12, len(looks)), strict=True))
        colours = {key: look.colour(theme) for key, look in looks.items()}
        shown = summary.sort_values("at", kind="stable")
        shown = shown.assign(x=shown["at"] + shown["key"].map(shift), colour=shown["key"].map(colours))
        axes.vlines(shown["x"], shown["min"], shown["max"], shown["colour"].tolist(), lw=1)
        for key, line in shown.groupby("key", sort=False):
            look, x, median, colour = looks[str(key)], line["x"], line["median"], colours[str(key)]
            style: dict[str, Any] = {"marker": look.family.marker, "ms": 5, "mec": theme.paper, "mew": 0.5}
            axes.plot(x, median, lw=1.3, color=colour, ls=":" if look.role == "peer" else "-", **style)
            ends.append((float(x.iloc[-1]), float(median.iloc[-1]), look.name, colour))
            words.append(f"{look.name} {median.iloc[-1]:.3g} MB")
        crowded = names["phase"].str.len().sum() > 30
        tilt: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(names["at"], names["phase"], **tilt)
        axes.set_xlim(-0.3, len(names) - 0.8)
        axes.set_ylim(0, 1.08 * float(summary["max"].max()))
        axes.set_xlabel("End of phase")
        axes.set_ylabel("RSS less lazily freed (MiB)")
        write_ends(axes, ends)
        return f"At the end ({names['phase'].iloc[-1]}): " + ", ".join(words) + "."

    return draw


# ---- system calls ----------------------------------------------------------------------------------------------------


def syscalls(rows: pd.DataFrame, budget: float = SYSCALLS_PER_OP) -> Figure:
    """System calls an operation in the timed region, against the budget, of the allocators that count theirs."""
    panels, tables, quiet = [], [], []
    for workload, cell in cells(rows):
        looks = looks_of(cell)
        good = stats.usable(cell).dropna(subset=["syscalls_per_op"])
        by_arm = good["syscalls_per_op"].groupby(stats.keys(good), sort=False)
        summary = by_arm.agg(["median", "min", "max", "count"]).rename_axis("key")
        if summary.empty:
            continue
        summary = summary.sort_values("median", kind="stable")
        if summary["max"].max() == 0:
            quiet.append(spoken(workload))
        else:
            worst = float(summary["max"].max())
            title = f"{workload}: at most {worst:.2g} calls an op, {_times(worst, budget)} the budget"
            panels.append(panel(_syscall_drawing(summary, looks, budget), 1.5 + 0.26 * len(summary), title))
        named = summary.reset_index().assign(
            arm=[looks[str(k)].name for k in summary.index], workload=workload, budget=budget
        )
        tables.append(named[["workload", "arm", "median", "min", "max", "count", "budget"]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    note = f"Median over trials, bars from least to most; the line is the budget of {budget:g} an op; none at all is 0."
    note += f" No arm that counts its calls made any in the timed region of {', '.join(quiet)}." if quiet else ""
    return Figure(
        "The system calls that each arm makes.",
        note,
        tuple(panels),
        table.rename(columns={"median": "calls/op", "count": "trials"}),
    )


def _times(value: float, budget: float) -> str:
    ratio, side = (budget / value, "under") if value <= budget else (value / budget, "over")
    return f"{ratio:,.0f} times {side}" if ratio >= 10 else f"{ratio:.1f} times {side}"


def _syscall_drawing(summary: pd.DataFrame, looks: dict[str, Look], budget: float) -> Callable[[Axes, Theme], str]:
    told = summary[["min", "median", "max"]].to_numpy(dtype=float)
    left = 10.0 ** math.floor(math.log10(min([*told[told > 0], budget / 100]) / 3))

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_xscale("log")
        axes.set_xlim(left, 4 * max(budget, float(summary["max"].max())))
        axes.set_ylim(-0.7, len(summary) - 0.3)
        axes.axvline(budget, color=theme.ink, lw=1.2, ls="--")
        y, ends = np.arange(len(summary)), np.maximum(told, left)
        colours = [looks[str(key)].colour(theme) for key in summary.index]
        axes.barh(y, ends[:, 1] - left, left=left, height=0.55, color=colours, alpha=0.85)
        for none in y[told[:, 1] == 0]:
            axes.text(left * 1.15, none, "0", va="center", color=theme.ink)
        some = told[:, 2] > 0
        whiskers(axes, y[some], ends[some, 0], ends[some, 2], theme.ink)
        axes.set_yticks(range(len(summary)), [looks[str(k)].name for k in summary.index])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("System calls an operation (log scale)")
        log_axis(axes.xaxis)
        words = ", ".join(f"{looks[str(k)].name} {line['median']:.2g}" for k, line in summary.iterrows())
        return f"Calls an operation: {words}. Budget {budget:g}."

    return draw


# ---- a trace ---------------------------------------------------------------------------------------------------------


def live_curve(shape: Shape, name: str) -> Figure:
    """Live memory over the events of a trace: what any allocator has to hold at least."""
    mib = shape.live_bytes / 2**20
    table = pd.DataFrame({"after event": shape.live_at, "live MiB": mib, "live blocks": shape.live_blocks})

    def draw(axes: Axes, theme: Theme) -> str:
        axes.fill_between(shape.live_at, mib, color=theme.band)
        axes.plot(shape.live_at, mib, color=FAMILIES["hakmem"].on(theme))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Event of the trace")
        axes.set_ylabel("Live memory (MiB)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return f"Live memory between {mib.min():.2g} and {mib.max():.3g} MiB, at the end {mib[-1]:.3g} MiB."

    title = f"{name}: at most {shape.peak_bytes / 2**20:.3g} MiB in {shape.peak_blocks:,} blocks are live at once"
    note = (
        f"{shape.frees:,} of {int(shape.ops[1]):,} blocks are freed within it, {shape.cross_frees:,} by another thread."
    )
    thinned = table.iloc[:: max(1, len(table) // 20)]
    return Figure("What the program holds.", note, (panel(draw, 2.8, title),), thinned)
