"""What share of a peer's speed hakmem reaches: ratios paired within blocks, milestones, and their chart.

The claim "as fast as the peer" has a line drawn beforehand: the lower end of the 95 % interval is at least 97 %.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from hakmem import stats
from hakmem.builds.allocators import FLAVOURS
from hakmem.figure import FAMILIES, Figure, Theme, family, legend, panel, spoken, whiskers, write_figure
from hakmem.units import RATE
from hakmem.verdict import Word

__all__ = ["BUILDS", "MILESTONES", "chart", "instructions_chart", "judge", "overview", "ratios", "span"]

MILESTONES = (50, 75, 90, 100, 115, 125)  # percent of the peer's throughput
AS_FAST = 97.0  # percent that the interval's lower end has to reach
BUILDS = {"hakmem_minimal": "FAST", "hakmem": "Standard", "hakmem_observe": "OBSERVE"}
EDGES = (20.0, 400.0)  # percent, of the chart
FILLS = {"FAST": "full", "Standard": "left", "OBSERVE": "none"}


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare every build of hakmem with every other allocator on each workload.

    Parameters
    ----------
    rows : DataFrame
        Trials of one host, all of one linkage.

    Returns
    -------
    DataFrame
        Columns workload, build (FAST, Standard, OBSERVE), peer, percent, low, high (of the peer's throughput, 95 %),
        mops, peer_mops (medians), blocks, milestone (the highest that the whole interval reaches, 0 for none).
    """
    records = []
    for workload, cell in rows.groupby("workload", sort=False):
        table = stats.wide(cell, "ops_per_s")
        keys = _keys(cell)
        for key, (allocator, _) in keys.items():
            if allocator not in FLAVOURS:
                continue
            for peer, (other, label) in keys.items():
                x = stats.log_ratios(table, key, peer)
                if other in FLAVOURS or not x.size:
                    continue
                found = stats.interval(x).exp()
                low = 100 * found.low
                reached = max((m for m in MILESTONES if low >= m), default=0)
                records.append(
                    {"workload": workload, "build": BUILDS[allocator], "peer": label}
                    | {"percent": 100 * found.estimate, "low": low, "high": 100 * found.high}
                    | {"mops": table[key].median() / 1e6, "peer_mops": table[peer].median() / 1e6}
                    | {"blocks": x.size, "milestone": reached}
                )
    columns = ["workload", "build", "peer", "percent", "low", "high", "mops", "peer_mops", "blocks", "milestone"]
    return pd.DataFrame(records, columns=columns)


def overview(table: pd.DataFrame, build: str = "FAST") -> pd.DataFrame:
    """Put one build's shares side by side: a line a workload, a column a peer, `107 % (103 to 111)`."""
    mine = table[table["build"] == build]
    spans = [span(*line) for line in zip(mine["percent"], mine["low"], mine["high"], strict=True)]
    shown = mine.assign(span=spans).pivot(index="workload", columns="peer", values="span")
    shown = shown.reindex(list(dict.fromkeys(mine["workload"]))).rename_axis(columns=None).reset_index()
    return shown.assign(workload=shown["workload"].map(spoken))  # two may have the same short name


def span(percent: float, low: float, high: float) -> str:
    """Say a share: `107 % (106 to 108)`; the ends of an interval over too few blocks say nothing."""
    return f"{percent:.0f} %" + (f" ({low:.0f} to {high:.0f})" if high - low < stats.TELLING else "")


def _keys(cell: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Columns of `stats.wide`, each with its allocator and name; the second baseline is noise, not a peer."""
    first = cell[cell["role"] != "baseline2"].drop_duplicates(["arm", "role"])
    return dict(zip(stats.keys(first), zip(first["allocator"], first["arm"], strict=True), strict=True))


def judge(table: pd.DataFrame, peer: str, build: str = "FAST") -> tuple[Word, list[str]]:
    """Judge one build against the peer named beforehand.

    Returns
    -------
    tuple
        GO where it is as fast on every workload, NO-GO where it is surely slower on one, else INCONCLUSIVE; and what to
        say, the finding first.
    """
    mine = table[(table["build"] == build) & (table["peer"] == peer)]
    if mine.empty:
        return "INCONCLUSIVE", [f"hakmem {build} and {peer} were not both measured."]
    as_fast, slower = mine[mine["low"] >= AS_FAST], mine[mine["high"] < AS_FAST]
    mean = math.exp(float(np.log(mine["percent"]).mean()))
    ordered = mine.assign(workload=mine["workload"].map(spoken)).sort_values("percent")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    word: Word = "NO-GO" if len(slower) else "GO" if len(as_fast) == len(mine) else "INCONCLUSIVE"
    n, open_on = len(mine), len(mine) - len(as_fast) - len(slower)
    counted = {"as fast": len(as_fast), "surely slower": len(slower), "undecided": open_on}
    tally = ", ".join(f"{what} on {'all' if k == n > 1 else k}" for what, k in counted.items() if k)
    of = f"geometric mean of {n} workloads" if n > 1 else low["workload"]
    return word, [
        f"hakmem {build} runs at {mean:.0f} % of {peer}'s throughput ({of}): {tally}.",
        f"Least on {low['workload']} ({low['percent']:.0f} %), most on {high['workload']} ({high['percent']:.0f} %).",
        f"As fast means a 95 % lower end of at least {AS_FAST:g} %"
        + (f"; surely slower on {', '.join(map(spoken, slower['workload']))}." if len(slower) else "."),
        f"Milestones, reached by the whole interval: {_reached(mine)}.",
    ]


def _reached(mine: pd.DataFrame) -> str:
    counts = {milestone: int((mine["low"] >= milestone).sum()) for milestone in MILESTONES}
    first, *more = (f"{milestone} % on {n}" for milestone, n in counts.items() if n or milestone == MILESTONES[0])
    return ", ".join([f"{first} of {len(mine)}", *more])


def chart(table: pd.DataFrame, peer: str) -> Figure:
    """Draw each build's share of one peer's throughput, a line a workload, with the milestones."""
    shown = table[table["peer"] == peer]
    names = list(dict.fromkeys(shown["workload"]))
    fast = shown[shown["build"] == "FAST"]
    ahead, behind = (int(surely.sum()) or "none" for surely in (fast["low"] > 100, fast["high"] < 100))
    title = f"hakmem FAST is surely ahead of {peer} on {ahead} of {len(fast)} workloads, surely behind on {behind}"
    note = (
        "Throughput as a percentage of the peer's, paired within blocks, with 95 % intervals; upright lines are the "
        "milestones. The axis is logarithmic and ends at four times the "
        "peer's throughput: what lies beyond is written at the edge. One block has no interval, few have one that is "
        "cut."
    )
    panels = (panel(_drawing(shown, names), 1.6 + 0.42 * len(names), title),) if names else ()
    told = shown.rename(
        columns={"percent": "%", "low": "low %", "high": "high %", "mops": RATE, "peer_mops": f"peer {RATE}"}
    )
    return Figure(f"What share of {peer}'s speed.", note, panels, told)


def _drawing(shown: pd.DataFrame, names: Sequence[str]) -> Callable[[Axes, Theme], str]:
    least, most = max(EDGES[0], min(45.0, 0.8 * shown["percent"].min())), EDGES[1]
    order = list(reversed(names))

    def draw(axes: Axes, theme: Theme) -> str:
        look = FAMILIES["hakmem"]
        axes.set_xscale("log")
        axes.set_xlim(least, most)
        for milestone in MILESTONES:
            strong = milestone == 100
            axes.axvline(milestone, color=theme.ink if strong else theme.quiet, lw=1.2 if strong else 0.7, ls="--")
        for line in shown.to_dict("records"):
            shift = 0.22 * (1 - list(FILLS).index(line["build"]))
            share, y = line["percent"], order.index(line["workload"]) + shift
            if not least <= share <= most:
                edge, side, text = (
                    (most, "right", f"{share:,.0f} % →") if share > most else (least, "left", f"← {share:.0f} %")
                )
                axes.text(edge, y, text, ha=side, va="center", fontsize=6.5, color=FAMILIES["hakmem"].on(theme))
                continue
            whiskers(axes, y, line["low"], line["high"], look.on(theme), (least, most))
            axes.plot(share, y, **look.mark(theme, fill=FILLS[line["build"]], size=5.5))
        axes.set_yticks(range(len(order)), [spoken(name) for name in order])
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.grid(visible=False)
        marks = {name: Line2D([], [], **look.mark(theme, fill=fill, size=5.5)) for name, fill in FILLS.items()}
        legend(axes, list(marks.values()), [f"hakmem {name}" for name in marks])
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in (25, 50, 100, 200, 400) if tick >= least]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("Throughput\n(% of the peer's, log scale)")
        fast = shown[shown["build"] == "FAST"]
        words = ", ".join(f"{w} {p:.0f} %" for w, p in zip(fast["workload"], fast["percent"], strict=True))
        return f"FAST: {words}."

    return draw


def instructions_chart(counts: pd.DataFrame) -> Figure:
    """Draw the instructions of an operation, the allocator's own and those of the program's loop.

    Parameters
    ----------
    counts : DataFrame
        From `callgrind.counted`.
    """
    panels = []
    if counts["name"].isin(["hakmem_minimal", "hakmem_observe"]).any():  # several builds: called as elsewhere
        counts = counts.assign(arm=counts["arm"].replace({name: f"hakmem {build}" for name, build in BUILDS.items()}))
    for workload, cell in counts.groupby("workload", sort=False):
        ordered = cell.drop_duplicates("arm").sort_values("allocator", ascending=False)
        least, most = ordered.iloc[-1], ordered.iloc[0]
        title = f"{workload}: {least['arm']} takes the fewest instructions, {least['allocator']:.0f} an op"
        if most["allocator"] - least["allocator"] < 0.05:  # what a bar's label would not show
            title = f"{workload}: every arm takes {least['allocator']:.1f} instructions an op"
        panels.append(panel(_bars(ordered), 1.4 + 0.28 * len(ordered), title))
    note = (
        "Strong: the allocator's own instructions, an operation of the program; pale: the program's loop. Counted "
        "under callgrind, between a short and a long run: exact, so there is no interval. Instructions are not time: "
        "one miss of a cache costs as much as a hundred of them."
    )
    return Figure("What an operation takes in instructions.", note, tuple(panels), counts.drop(columns="name"))


def _bars(ordered: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    lines = ordered.to_dict("records")

    def draw(axes: Axes, theme: Theme) -> str:
        for y, line in enumerate(lines):
            colour = FAMILIES[family(str(line["name"]), {})].on(theme)
            axes.barh(y, line["allocator"], height=0.62, color=colour)
            axes.barh(y, line["loop"], left=line["allocator"], height=0.62, color=colour, alpha=0.25)
            write_figure(axes, line["allocator"] + line["loop"], y, f"{line['allocator']:.1f}")
        axes.set_yticks(range(len(lines)), [line["arm"] for line in lines])
        axes.set_xlim(0, 1.13 * (ordered["allocator"] + ordered["loop"]).max())
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Instructions an operation")
        return ", ".join(f"{line['arm']} {line['allocator']:.1f}" for line in reversed(lines)) + "."

    return draw
