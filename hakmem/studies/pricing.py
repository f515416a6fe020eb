"""What a megabyte costs, drawn; which setting to take; what each allocator dominates; published figures of Lean."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from hakmem import stats
from hakmem.figure import FAMILIES, Figure, Theme, family, panel, whiskers
from hakmem.plots import Look, cells, looks_of
from hakmem.stats import BASELINE
from hakmem.verdict import Verdict, memory_of

__all__ = ["HERE", "SPARE", "chart", "choices", "dominance", "published", "shares"]

MIXED = "mixed:ws=400"
SPARE = (1, 5, 10, 25, 50)  # percent of throughput that somebody may be ready to give
LEAN, OFF = "hakmem LEAN DONTNEED 10 MB", "hakmem LEAN OFF"
HERE = {"baseline": "hakmem, all defaults", "LEAN+OFF": OFF, "LEAN": LEAN}  # what stands for the published settings


def chart(rows: pd.DataFrame, prices: pd.DataFrame) -> Figure:
    """Draw the price of a saved MiB for every arm that surely saves one, a panel a workload.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    prices : DataFrame
        From `verdict.prices`.
    """
    known = prices.dropna(subset=["percent_per_mb"])
    panels = []
    for workload, cell in known.groupby("workload", sort=False):
        looks = looks_of(rows[rows["workload"] == workload])
        ordered = cell.sort_values("saved_mb")
        panels.append(
            panel(_drawing(ordered, looks), 1.6 + 0.36 * len(ordered), _title(str(workload), ordered.iloc[-1]))
        )
    note = (
        "Throughput lost in percent over memory saved in MiB, block by block, with 95 % intervals; left of 0 an arm is "
        "faster and smaller. Only arms that surely save memory have a price, and it holds for this workload alone."
    )
    lacks = "No arm surely saves memory: either nothing is saved, or there are too few blocks to tell."
    return Figure("What a megabyte costs here.", note, tuple(panels), prices.drop(columns="sentence"), lacks)


def _title(workload: str, leanest: Any) -> str:
    price, saved = leanest["percent_per_mb"], leanest["saved_mb"]
    if leanest["low"] <= 0 <= leanest["high"]:
        return f"{workload}: saving {saved:.3g} MB costs nothing that could be measured"
    verb = "costs" if price > 0 else "gains"
    return f"{workload}: saving {saved:.3g} MB {verb} {abs(price):.2g} % throughput for each"


def _drawing(ordered: pd.DataFrame, looks: dict[str, Look]) -> Callable[[Axes, Theme], str]:
    lines = ordered.to_dict("records")
    room = 4 * max(0.01, float(ordered["percent_per_mb"].abs().max()))

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvline(0, color=theme.quiet, lw=1)
        for y, line in enumerate(lines):
            look = looks[str(line["arm"])]
            whiskers(axes, y, line["low"], line["high"], look.colour(theme), (-room, room))
            axes.plot(line["percent_per_mb"], y, **look.mark(theme))
        names = [f"{looks[str(line['arm'])].name}\nsaves {line['saved_mb']:.1f} MB" for line in lines]
        axes.set_yticks(range(len(lines)), names, fontsize=8.5)
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("Throughput lost for a saved megabyte (% per MiB)")
        words = (
            f"{line['arm']} {line['percent_per_mb']:+.2g} % ({line['low']:+.2g} to {line['high']:+.2g}) a megabyte"
            for line in reversed(lines)
        )
        return "; ".join(words) + "."

    return draw


def choices(rows: pd.DataFrame, found: Sequence[Verdict], prices: pd.DataFrame) -> pd.DataFrame:
    """Name the leanest setting for what somebody can spare, as an environment to copy.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    found : sequence of Verdict
        From `campaign.verdicts`: the changes of throughput, with Holm's intervals.
    prices : DataFrame
        From `verdict.prices`: only an arm that surely saves memory is a choice.

    Returns
    -------
    DataFrame
        One row a workload and arm that is the leanest for one of `SPARE`: the whole interval of its throughput lies
        above that loss. A workload without a choice has one row that says so.
    """
    pace = {(one.workload, one.arm): one.effect for one in found}
    settings = rows.drop_duplicates("arm").set_index("arm")["gates"]
    lines: list[dict[str, Any]] = []
    for workload in dict.fromkeys(prices["workload"]):
        mine = prices[(prices["workload"] == workload) & prices["percent_per_mb"].notna()].set_index("arm")
        left, before = mine["saved_mb"], None
        for spare in SPARE:
            fits = left[[pace[(workload, arm)].low >= -spare for arm in left.index]]
            if fits.empty or fits.idxmax() == before:
                continue
            before = str(fits.idxmax())
            gates = " ".join(f"{name}={value}" for name, value in settings[before].items())
            lines.append(
                {"workload": workload, "to spare": f"{spare} %", "saves MiB": fits.max()}
                | {"throughput": pace[(workload, before)].words(), "setting": gates}
            )
        if before is None:
            why = "none surely saves memory" if mine.empty else f"none surely costs under {SPARE[-1]} %"
            lines.append({"workload": workload, "to spare": f"{SPARE[-1]} %", "setting": f"the defaults: {why}"})
    return pd.DataFrame(lines, columns=["workload", "to spare", "saves MiB", "throughput", "setting"])


def dominance(rows: pd.DataFrame) -> Figure:
    """Draw what share of memory x throughput each allocator dominates, a panel a workload."""
    table, first = shares(rows), str(rows.loc[rows["role"] == "baseline", "allocator"].iloc[0])
    panels = [
        panel(_share_drawing(cell.iloc[::-1]), 1.5 + 0.3 * len(cell), f"{workload}: {_leader(cell, first)}")
        for workload, cell in (table.groupby("workload", sort=False) if len(table) else ())
    ]
    note = (
        "One number for each allocator: of a rectangle from nothing to the largest memory and the highest throughput "
        "of any arm, the share that its arms dominate together; more is better. Lines are 95 % intervals over blocks."
    )
    return Figure("What each allocator dominates of memory x throughput.", note, tuple(panels), table)


def _leader(cell: pd.DataFrame, first: str) -> str:
    """Hold the first allocator against the best of the others, where the interval of its lead leaves out 0."""
    mine = cell.set_index("allocator")["dominates %"][first]
    others = cell[cell["allocator"] != first]
    if others.empty:
        return f"{first} dominates {mine:.2g} %"
    rival = others.iloc[0]
    ours, theirs = f"{first} {mine:.2g} %", f"{rival['allocator']} {rival['dominates %']:.2g} %"
    if rival["ahead low"] > 0:
        return f"most is dominated by {ours}, then {theirs}"
    if rival["ahead high"] < 0:
        return f"most is dominated by {theirs}; {ours}"
    return f"{ours} and {theirs} are not told apart"


def _share_drawing(cell: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    lines = cell.to_dict("records")

    def draw(axes: Axes, theme: Theme) -> str:
        for y, line in enumerate(lines):
            look, share = FAMILIES[family(str(line["allocator"]), {})], line["dominates %"]
            axes.barh(y, share, height=0.6, color=look.on(theme), alpha=0.85)
        whiskers(axes, range(len(cell)), cell["low %"], cell["high %"], theme.ink)
        axes.set_yticks(range(len(lines)), [line["allocator"] for line in lines])
        axes.set_xlim(0, min(100.0, 1.15 * max(1.0, float(cell["high %"].fillna(cell["dominates %"]).max()))))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Dominated share of memory x throughput (%)")
        return ", ".join(f"{line['allocator']} {line['dominates %']:.3g} %" for line in reversed(lines)) + "."

    return draw


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Tell for each workload what share of memory x throughput each allocator's arms dominate together.

    Returns
    -------
    DataFrame
        One row a workload and allocator, the largest share first, see `stats.dominated_share`; empty where no block
        has every arm.
    """
    found = {workload: stats.dominated_share(cell, memory_of(workload)) for workload, cell in cells(rows)}
    known = [table.reset_index().assign(workload=workload) for workload, table in found.items() if len(table)]
    if not known:
        return pd.DataFrame()
    first = known[0]["allocator"].iloc[0]
    ranked = pd.concat([table.sort_values("share", ascending=False) for table in known], ignore_index=True)
    leads = ["lead", "lead_low", "lead_high"]
    ranked[leads] = ranked[leads].mask(ranked["allocator"] == first)  # nobody is ahead of himself
    told = ["share", "low", "high"]
    ranked[told] = ranked[told].clip(0, 100)  # of few blocks the estimate itself may lie outside
    ranked.loc[ranked["n"] < 2, ["low", "high"]] = np.nan
    ends = {"lead": f"{first} ahead by, points", "lead_low": "ahead low", "lead_high": "ahead high"}
    names = {"share": "dominates %", "low": "low %", "high": "high %", **ends, "n": "blocks"}
    return ranked[["workload", "allocator", *names]].rename(columns=names)


def published(rows: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Return today's figures on `mixed:ws=400` under the names of the published study of Lean."""
    cell = rows[rows["workload"] == MIXED]
    speed, peak = (stats.wide(cell, metric) for metric in ("mops", "peak_rss_mb"))
    named = {"baseline": BASELINE, "LEAN+OFF": OFF}
    found: dict[tuple[str, str], float | None] = {
        ("throughput", name): _median(speed[arm]) if arm in speed else None for name, arm in named.items()
    }
    found |= {
        ("cv", name): 100 * stats.cv(speed[arm].dropna()) if arm in speed else None for name, arm in named.items()
    }
    return found | {("target_peak_rss", "LEAN"): _median(peak[LEAN]) if LEAN in peak else None}


def _median(values: pd.Series) -> float:
    return float(np.median(values.dropna().to_numpy(dtype=float)))
