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
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hakmem import stats, units
from hakmem.figure import (
    COLUMNS,
    FAMILIES,
    Family,
    Figure,
    Line,
    Theme,
    family,
    legend,
    log_axis,
    panel,
    spoken,
    whiskers,
    write_ends,
    write_names,
)
from hakmem.stats import BASELINE, BASELINE2
from hakmem.traces.events import Shape
from hakmem.verdict import SYSCALLS_PER_OP, Verdict, calls_beyond_pages, memory_of, unreachable

__all__ = ["Look", "cells", "forest", "frontier", "live_curve", "looks_of", "phases", "run_order", "syscalls"]


ROLES = ("baseline", "baseline2", "arm", "peer")
ENOUGH = 5  # blocks: of fewer, no order can tell a trend at 95 % (Kendall)


# ---- names and looks of arms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Name and look of one arm on one chart."""

    name: str
    family: Family
    role: str
    nth: int = 0  # of its family on this chart

    def colour(self, theme: Theme) -> str:
        """Colour on this paper."""
        return self.family.on(theme, self.nth)

    def mark(self, theme: Theme, fill: str = "", size: float = 6.5) -> dict[str, Any]:
        """How `plot` marks it, filled its own way or another."""
        return self.family.mark(theme, self.nth, fill, size)

    @property
    def line(self) -> str:
        """How a line of it is dashed: of a peer dotted, of each second arm of a family broken."""
        return ":" if self.role == "peer" else ("-", "--")[self.nth % 2]


def looks_of(cell: pd.DataFrame) -> dict[str, Look]:
    """Find looks by the keys of `stats.wide`: A, A' and the arms' labels; names lose the prefix that all share."""
    found: dict[str, Look] = {}
    first = cell[["arm", "role", "allocator", "gates"]].drop_duplicates(["arm", "role"])
    kinds = [family(str(allocator), gates) for allocator, gates in zip(first["allocator"], first["gates"], strict=True)]
    alike = first["arm"].groupby(kinds).unique().map(lambda arms: sorted(arms, key=lambda arm: (len(arm), arm)))
    for key, kind, row in zip(stats.keys(first), kinds, first.to_dict("records"), strict=True):
        arm, role = str(row["arm"]), str(row["role"])
        name = (_short(arm) if role == "arm" else arm) + {"baseline": " (A)", "baseline2": " (A')"}.get(role, "")
        found[key] = Look(name, FAMILIES[kind], role, alike[kind].index(arm))
    return found


def _short(arm: str) -> str:
    """`hakmem LEAN DONTNEED 10 MB` reads `DONTNEED 10 MB` on a chart that is about nothing else."""
    return re.sub(r"^hakmem\S*\s+(LEAN\s+)?(?=\S)", "", arm)


def cells(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Yield each workload with its rows."""
    for workload, cell in rows.groupby("workload", sort=False):
        yield str(workload), cell


# ---- RSS against throughput ------------------------------------------------------------------------------------------


ENDS = ("memory_low", "memory_high", "speed_low", "speed_high")
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
        points = stats.frontier(cell[cell["role"] != "baseline2"], column)
        looks = looks_of(cell)
        if points.empty:
            continue
        panels.append(panel(_frontier_drawing(points, looks, column), 3.9, _frontier_title(workload, points, looks)))
        beaten_by = points["dominated_by"].map({key: look.name for key, look in looks.items()} | {"": ""})
        named = points.assign(arm=[looks[key].name for key in points.index], workload=workload, dominated_by=beaten_by)
        tables.append(named[["workload", "arm", *[c for c in points.columns if c != "arm"]]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    title = "Memory against throughput: up and to the left is better."
    if prices is not None and prices["percent_per_mb"].notna().any():
        title = "What a megabyte costs: " + _cheapest(prices)
    note = (
        "Each cross is an arm's geometric mean with its joint 95 % interval; the line is the Pareto frontier; "
        "grey arms are surely beaten: another is as good in both, and in one better beyond the crosses. Hollow ones "
        "have a single block, and so no cross; an arrow is a cross that goes on. The memory axis is logarithmic."
    )
    return Figure(title, note, tuple(panels), table.rename(columns=FRONTIER_NAMES))


def _cheapest(prices: pd.DataFrame) -> str:
    """Say the price of the leanest arm, on the workload where it saves most."""
    known = prices.dropna(subset=["percent_per_mb"]).sort_values("saved_mb")
    return str(known["sentence"].iloc[-1])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _frontier_title(workload: str, points: pd.DataFrame, looks: dict[str, Look]) -> str:
    arms = points[[looks[key].role == "arm" for key in points.index]]
    if BASELINE not in points.index or arms.empty:
        beaten = [looks[str(key)].name for key in points.index[points["dominated_by"] != ""]]
        says = f"{_listed(beaten)} {'are' if len(beaten) > 1 else 'is'} surely beaten"
        return f"{workload}: {says if beaten else 'no arm is surely beaten'}"
    base = points.loc[BASELINE]
    name, leanest = arms.sort_values("memory").index[0], arms.sort_values("memory").iloc[0]
    change = 100 * (leanest["speed"] / base["speed"] - 1)
    if leanest["memory_high"] >= base["memory_low"]:
        return f"{workload}: no arm needs surely less than the baseline's {base['memory']:.3g} MB"
    memory = f"{base['memory']:.3g} to {leanest['memory']:.3g} MB"
    return f"{workload}: {looks[str(name)].name} takes {memory} at {change:+.1f} % throughput"


def _frontier_drawing(points: pd.DataFrame, looks: dict[str, Look], column: str) -> Callable[[Axes, Theme], str]:
    what = "Peak RSS" if column == "peak_rss_mb" else "RSS left at the end, without lazily freed pages"
    scale, unit = units.fitting(1e6 * points["speed"].max(), units.RATES)
    rates = {name: points[name] * (1e6 / scale) for name in ("speed", "speed_low", "speed_high")}
    points = points.assign(**rates)
    reach, edge = _reach(points), points[points["frontier"]].sort_values("memory")
    axis = {end: end.split("_")[0] for end in ENDS}
    cut = {end: points[end].clip(*reach[of]).mask(points["n"] < 2, points[of]) for end, of in axis.items()}
    shown = points.assign(**cut)
    height = (shown["speed_high"].max() - shown["speed_low"].min()) or shown["speed"].max()

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_xscale("log")
        axes.set_xlim(0.85 * shown["memory_low"].min(), 1.3 * shown["memory_high"].max())
        axes.set_ylim(shown["speed_low"].min() - 0.06 * height, shown["speed_high"].max() + 0.1 * height)
        axes.step(edge["memory"], edge["speed"], where="post", color=theme.quiet, lw=1.2, ls="--", zorder=1)
        beaten = shown["dominated_by"] != ""
        colours = [theme.quiet if b else looks[str(key)].colour(theme) for key, b in beaten.items()]
        faded = [to_rgba(colour, 0.6 if b else 1) for colour, b in zip(colours, beaten, strict=True)]
        for along, across in (("memory", "speed"), ("speed", "memory")):
            ends = points[f"{along}_low"], points[f"{along}_high"]
            whiskers(axes, points[across], *ends, faded, reach[along], upright=along == "speed")
        names = []
        for (key, point), colour, fade in zip(shown.to_dict("index").items(), colours, faded, strict=True):
            look = looks[str(key)]
            mark = look.mark(theme, "none" if point["n"] < 2 else "")
            mark |= {"color": fade} | ({} if mark["mec"] == theme.paper else {"mec": fade})
            axes.plot(point["memory"], point["speed"], zorder=3 - 0.5 * (fade[3] < 1), **mark)
            names.append((point["memory"], point["speed"], look.name, colour))
        axes.set_xlabel(f"{what} (MiB, log scale)")
        axes.set_ylabel(f"Throughput ({unit})")
        log_axis(axes.xaxis)
        write_names(axes, names, theme, _obstacles(shown, edge))
        best = ", ".join(
            f"{looks[str(key)].name} at {memory:.3g} MB and {speed:.3g} {unit}"
            for key, memory, speed in zip(edge.index, edge["memory"], edge["speed"], strict=True)
        )
        worse = ", ".join(looks[str(key)].name for key in points.index[points["dominated_by"] != ""])
        return f"On the frontier: {best}." + (f" Dominated: {worse}." if worse else "")

    return draw


def _reach(points: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Say where crosses of few blocks are cut, else they would squeeze all points into a corner; the table has them."""
    memory, speed = points["memory"], points["speed"]
    room = max(0.15 * speed.max(), speed.max() - speed.min())
    return {
        "memory": (memory.min() / 2, memory.max() * 2),
        "speed": (max(0.0, speed.min() - room), speed.max() + room),
    }


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
        "Throughput against the baseline A, paired within blocks; bars are 95 % intervals (Holm's for judged arms), an "
        "arrow is one that goes on; "
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
    if set(counted) == {"not told apart"}:
        return f"{workload}: none of {len(words)} arms is told apart from the baseline"
    parts = [f"{counted[word]} {word}" for word in ("faster", "slower", "not told apart") if word in counted]
    return f"{workload}: of {len(words)} arms " + ", ".join(parts) if parts else workload


def _forest_drawing(
    order: Sequence[str], found: dict[str, stats.Interval], looks: dict[str, Look], band: float
) -> Callable[[Axes, Theme], str]:
    estimates = [found[key].estimate for key in order]
    room = max(25.0, max(estimates) - min(estimates))  # cuts bars of very few blocks; the table has them whole
    least, most = min(estimates) - room, max(estimates) + room

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvspan(-band, band, color=theme.band, zorder=0)
        axes.axvline(0, color=theme.quiet, lw=1)
        low, high = ([getattr(found[key], end) for key in order] for end in ("low", "high"))
        colours = [looks[key].colour(theme) for key in order]
        whiskers(axes, range(len(order)), low, high, colours, (least, most))
        for y, key in enumerate(order):
            axes.plot(found[key].estimate, y, **looks[key].mark(theme))
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
        blocks, slope = _slope(good)
        spread = float(good["percent"].abs().median())
        title = f"{workload}: {_trend(slope)}; half of the trials lie within {spread:.1f} % of their arm's median"
        height = 2.75 + 0.15 * math.ceil(len(looks) / COLUMNS)
        panels.append(panel(_order_drawing(shown, good, looks, blocks, slope), height, title))
        named = shown.assign(
            arm=[looks[k].name for k in shown["key"]], workload=workload, spoiled=shown["spoiled"].map("; ".join)
        )
        tables.append(named[["workload", "order", "block", "arm", "status", "mops", "percent", "spoiled"]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    note = (
        "One mark a trial (a single trial has no interval); hollow marks were spoiled, crosses at the bottom failed. "
        "The trend is Theil and Sen's of the blocks' medians, drawn where its 95 % interval leaves out 0. Arms that "
        "ran once are left out."
    )
    return Figure(
        "Did the machine hold still?",
        note,
        tuple(panels),
        table.rename(columns={"percent": "% of median", "mops": "Mops/s"}),
    )


def _slope(good: pd.DataFrame) -> tuple[pd.DataFrame, stats.Interval]:
    """Fit a line to the medians of the blocks, on the log scale: what a trial shares with its block counts once."""
    logs = good.assign(log=np.log1p(good["percent"].clip(lower=-99) / 100))
    blocks = logs.groupby(["host", "block"])[["order", "log"]].median().sort_values("order")
    if len(blocks) < ENOUGH:
        return blocks, stats.Interval(math.nan, -math.inf, math.inf, 0.95, "Theil-Sen", len(blocks))
    found, span = stats.theil_sen(blocks["order"], blocks["log"]), blocks["order"].iloc[-1] - blocks["order"].iloc[0]
    low, mid, high = (end * span for end in (found.low, found.estimate, found.high))
    return blocks, stats.Interval(mid, low, high, found.level, found.method, found.n).percent()


def _trend(over: stats.Interval) -> str:
    """Say the change of throughput from the first block to the last where it is told apart from none."""
    if over.n < ENOUGH:
        return f"{over.n} block{'s' * (over.n > 1)} cannot tell a trend"
    if over.low <= 0 <= over.high:
        return f"no trend told apart from none ({over.low:+.1f} to {over.high:+.1f} % over the run)"
    verb = "rose" if over.estimate > 0 else "fell"
    return f"throughput {verb} by {abs(over.estimate):.1f} % over the run ({over.low:+.1f} to {over.high:+.1f})"


def _order_drawing(
    shown: pd.DataFrame, good: pd.DataFrame, looks: dict[str, Look], blocks: pd.DataFrame, over: stats.Interval
) -> Callable[[Axes, Theme], str]:
    def draw(axes: Axes, theme: Theme) -> str:
        for (key, hollow), marks in shown.groupby(["key", "spoilt"], sort=False):
            axes.plot(marks["order"], marks["percent"], **looks[str(key)].mark(theme, "none" if hollow else "", 5))
        bad = shown[shown["status"] != "ok"]
        bottom = axes.get_ylim()[0]
        axes.scatter(bad["order"], [bottom] * len(bad), marker="x", color=theme.ink, s=26)
        if over.low > 0 or over.high < 0:
            x = blocks["order"].iloc[[0, -1]]
            y = 100 * np.expm1(blocks["log"].median() + np.log1p(over.estimate / 100) * np.array([-0.5, 0.5]))
            axes.plot(x, y, color=theme.ink, lw=1.2, ls="--")
        named = sorted(looks.values(), key=lambda look: (ROLES.index(look.role), look.name))
        legend(axes, [Line2D([], [], **look.mark(theme, size=5)) for look in named], [look.name for look in named])
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
        whiskers(axes, shown["x"], shown["min"], shown["max"], shown["colour"].tolist(), upright=True)
        for key, line in shown.groupby("key", sort=False):
            look, x, median, colour = looks[str(key)], line["x"], line["median"], colours[str(key)]
            axes.plot(x, median, **look.mark(theme, size=5) | {"ls": look.line, "lw": 1.3})
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
            title = f"{workload}: {_syscall_title(workload, good, float(summary['max'].max()), budget)}"
            panels.append(panel(_syscall_drawing(summary, looks, budget), 1.5 + 0.26 * len(summary), title))
        named = summary.reset_index().assign(
            arm=[looks[str(k)].name for k in summary.index], workload=workload, budget=budget
        )
        tables.append(named[["workload", "arm", "median", "min", "max", "count", "budget"]])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    note = f"Median over trials, bars from least to most; the line is the budget of {budget:g} an op; none at all is 0."
    none = f"No arm that counts its calls made any in the timed region of {', '.join(quiet)}." if quiet else ""
    shown = table.rename(columns={"median": "calls/op", "count": "trials"})
    return Figure(
        "The system calls that each arm makes.",
        f"{note} {none}".rstrip(),
        tuple(panels),
        shown,
        none or "No arm here counts its calls.",
    )


def _syscall_title(workload: str, good: pd.DataFrame, worst: float, budget: float) -> str:
    """Say how far the worst trial is from the budget; above it, what the verdict excuses, and which target is too low.

    A target below the floor, which is the least that any arm reached, makes Lean search on for pages to give back.
    """
    if worst <= budget:
        return f"at most {worst:.2g} calls an op, {_times(worst, budget)} the budget"
    arms = [arm for _, arm in good[good["role"] == "arm"].groupby("arm", sort=False)]
    base = good[good["role"] == "baseline"]
    missed = [found for found in (unreachable(arm, base, workload) for arm in arms) if found]
    says = []
    if missed:
        targets = [f"{target:g}" for target in sorted({target for target, _ in missed})]
        floor = min(reached for _, reached in missed)
        one = len(targets) == 1
        says.append(f"{'a target' if one else 'targets'} of {_listed(targets)} MB {'is' if one else 'are'} below the ")
        says[-1] += f"floor of {floor:.3g} MB"
    if memory_of(workload) == "peak_rss_mb" or base.empty or not arms:
        says.append(f"at most {worst:.2g} calls an op, {_times(worst, budget)} the budget")
        return "; ".join(says)
    left, name = max((calls_beyond_pages(arm, base, workload), _short(str(arm["arm"].iloc[0]))) for arm in arms)
    kept = "what exceeds the budget gives pages back"
    says.append(kept if left <= budget else f"apart from pages given back, {name} is {_times(left, budget)} the budget")
    return "; ".join(says)


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
        some = told[:, 2] > 0
        colours = np.array([looks[str(key)].colour(theme) for key in summary.index])
        whiskers(axes, y[some], ends[some, 0], ends[some, 2], colours[some])
        for at, key in enumerate(summary.index):
            if told[at, 1] > 0:
                axes.plot(told[at, 1], at, **looks[str(key)].mark(theme))
            else:
                axes.text(left * 1.15, at, "0", va="center", color=colours[at])
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
    scale, unit = units.fitting(shape.peak_bytes, units.BYTES)
    live = shape.live_bytes / scale
    table = pd.DataFrame({"after event": shape.live_at, f"live {unit}": live, "live blocks": shape.live_blocks})
    peak, end = (units.words(size, units.BYTES) for size in (shape.peak_bytes, shape.live_bytes[-1]))

    def draw(axes: Axes, theme: Theme) -> str:
        axes.fill_between(shape.live_at, live, color=theme.band)
        axes.plot(shape.live_at, live, color=FAMILIES["hakmem"].on(theme))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Event of the trace")
        axes.set_ylabel(f"Live memory ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return f"Live memory over {shape.live_at[-1]:,} events, at most {peak}, at the end {end}."

    title = f"{name}: at most {peak} in {shape.peak_blocks:,} blocks are live at once"
    note = (
        f"{shape.frees:,} of {int(shape.ops[1]):,} blocks are freed within it, {shape.cross_frees:,} by another thread."
    )
    thinned = table.iloc[:: max(1, len(table) // 20)]
    return Figure("What the program holds.", note, (panel(draw, 2.8, title),), thinned)
