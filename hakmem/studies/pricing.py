"""What a megabyte costs, drawn; what each allocator dominates; published figures of Memory-Lean beside today's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from hakmem import stats
from hakmem.figure import Figure, Theme, panel
from hakmem.plots import Look, cells, looks_of
from hakmem.stats import BASELINE
from hakmem.verdict import memory_of

__all__ = ["HERE", "chart", "published", "shares"]

MIXED = "mixed:ws=400"
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
    lacks = "" if panels else " Here none does: either nothing is saved, or there are too few blocks to tell."
    return Figure("What a megabyte costs here.", note + lacks, tuple(panels), prices.drop(columns="sentence"))


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
            look, price = looks[str(line["arm"])], line["percent_per_mb"]
            reach = [[price - max(line["low"], -room)], [min(line["high"], room) - price]]
            style: dict[str, Any] = {"fmt": look.family.marker, "ms": 6.5, "mec": theme.paper, "mew": 0.7}
            axes.errorbar(price, y, xerr=reach, elinewidth=1.3, capsize=2.5, color=look.colour(theme), **style)
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
