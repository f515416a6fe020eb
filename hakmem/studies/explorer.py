"""The explorer: any metric of any arms on any workload of a ledger, picked with the mouse; on a page a still chart.

In JupyterLab it is a widget that redraws. An exported page has no kernel to ask, so the same output also carries the
chart of the moment as HTML, which is what the page shows.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hakmem import stats, units
from hakmem.errors import BadParameter, did_you_mean
from hakmem.figure import Figure, Theme, log_axis, panel, whiskers
from hakmem.plots import Look, cells, looks_of
from hakmem.units import RATE

__all__ = ["METRICS", "Explorer", "Metric", "chart"]

LOG_FROM = 20  # the axis is logarithmic where the largest figure is so many times the smallest


@dataclass(frozen=True)
class Metric:
    """One column of the ledger's rows, and how it is spoken of."""

    column: str
    name: str
    unit: str
    more_is_better: bool = False


METRICS = (
    Metric("mops", "throughput", RATE, more_is_better=True),
    Metric("peak_rss_mb", "peak RSS", "MiB"),
    Metric("end_rss_less_lazyfree_mb", "RSS left at the end, less lazily freed", "MiB"),
    Metric("minflt", "minor page faults, timed region", "faults"),
    Metric("syscalls_per_op", "system calls", "calls an op"),
    Metric("nivcsw", "involuntary context switches, timed region", "switches"),
)


# ---- the chart -------------------------------------------------------------------------------------------------------


def chart(rows: pd.DataFrame, workload: str, arms: Collection[str], metric: Metric) -> Figure:
    """Draw one metric of some arms on one workload, with 95 % intervals over blocks.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    workload : str
        One of theirs.
    arms : collection of str
        Names as charts show them, ``hakmem (A)``; those that the workload lacks are left out.
    metric : Metric
        What to show.

    Raises
    ------
    BadParameter
        The rows hold no such workload.
    """
    known = dict(cells(rows))
    if workload not in known:
        hint = did_you_mean(workload, known)
        raise BadParameter(f"no workload {workload!r} in these rows{hint}; they hold {', '.join(known)}")
    table = _estimates(known[workload], arms, metric)
    note = "Geometric means over blocks with 95 % intervals, cut with an arrow where blocks are very few."
    if table.empty:
        return Figure("Nothing to show:", note, (), table, f"{workload} has no {metric.name} of these arms.")
    if metric.unit == RATE:
        scale, unit = units.fitting(1e6 * table["value"].max(), units.RATES)
        figures = {name: table[name] * (1e6 / scale) for name in ("value", "low", "high")}
        metric, table = replace(metric, unit=unit), table.assign(**figures)
    height = 1.5 + 0.3 * len(table)
    shown = table.drop(columns=["look", "key"]).rename(
        columns={"value": metric.unit, "low": "95 % low", "high": "95 % high"}
    )
    title = f"{metric.name[0].upper()}{metric.name[1:]} on {workload}."
    drawing, says = _drawing(table, metric), _finding(table, metric, stats.wide(known[workload], metric.column))
    return Figure(title, note, (panel(drawing, height, f"{workload}: {says}"),), shown)


def _estimates(cell: pd.DataFrame, arms: Collection[str], metric: Metric) -> pd.DataFrame:
    """Estimate the metric of each arm, the best one first; an arm without a figure has no line."""
    lines = []
    good = stats.usable(cell)
    key = stats.keys(good)
    for name, look in looks_of(cell).items():
        x = good.loc[key == name, metric.column].dropna().to_numpy(dtype=float)
        if look.name in arms and x.size:
            positive = bool((x > 0).all())
            found = stats.t_interval(np.log(x)).exp() if positive else stats.t_interval(x)
            figures = {"value": found.estimate, "low": max(0.0, found.low), "high": found.high}
            lines.append({"arm": look.name, **figures, "blocks": x.size, "look": look, "key": name})
    table = pd.DataFrame(lines, columns=["arm", "value", "low", "high", "blocks", "look", "key"])
    return table.sort_values("value", ascending=not metric.more_is_better, kind="stable", ignore_index=True)


def _finding(table: pd.DataFrame, metric: Metric, paired: pd.DataFrame) -> str:
    """Say which arm is best where the blocks tell it from the next one, else that they do not."""
    told = table[[look.role != "baseline2" for look in table["look"]]]  # A' is A's program: it is not the better one
    table = table if told.empty else told
    best, values = table.iloc[0], table.set_index("arm")["value"]
    if len(table) == 1 or values.min() == values.max():
        return f"{metric.name} {best['value']:.3g} {metric.unit}"
    said = f"{best['arm']} has the {'most' if metric.more_is_better else 'least'} {metric.name}, {best['value']:.3g}"
    second = table.iloc[1]
    if not _apart(paired, best["key"], second["key"]):
        both = f"{best['value']:.3g} and {second['value']:.3g} {metric.unit}"
        return f"{best['arm']} and {second['arm']} are not told apart in {metric.name}, {both}"
    base = next((name for name in values.index if name.endswith("(A)")), best["arm"])
    return f"{said} {metric.unit}" + ("" if base == best["arm"] else f", {base} {values[base]:.3g}")


def _apart(paired: pd.DataFrame, one: str, other: str) -> bool:
    """Tell whether two arms surely differ within blocks."""
    differences = (paired[one] - paired[other]).dropna().to_numpy(dtype=float)
    found = stats.t_interval(differences)
    return differences.size > 1 and (found.low > 0 or found.high < 0)


def _drawing(table: pd.DataFrame, metric: Metric) -> Callable[[Axes, Theme], str]:
    least, most = float(table["value"].min()), float(table["value"].max())
    logarithmic = least > 0 and most > LOG_FROM * least
    floor, ceiling = (least / 2, most * 2) if logarithmic else (0.0, 1.5 * most or 1.0)

    def draw(axes: Axes, theme: Theme) -> str:
        for y, (_, line) in enumerate(table.iloc[::-1].iterrows()):
            look: Look = line["look"]
            whiskers(axes, y, line["low"], line["high"], look.colour(theme), (floor, ceiling))
            axes.plot(line["value"], y, **look.mark(theme))
        axes.set_yticks(range(len(table)), table["arm"].iloc[::-1])
        axes.set_ylim(-0.7, len(table) - 0.3)
        axes.grid(visible=False, axis="y")
        if logarithmic:
            axes.set_xscale("log")
            log_axis(axes.xaxis)
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(f"{metric.name[0].upper()}{metric.name[1:]}\n({metric.unit}{', log scale' * logarithmic})")
        return "; ".join(f"{n} {v:.3g}" for n, v in zip(table["arm"], table["value"], strict=True)) + "."

    return draw


# ---- the widget ------------------------------------------------------------------------------------------------------


class Explorer:
    """Controls for workload, metric and arms, over the chart that they ask for.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials, from `store.load` or `campaign.rows`.

    Attributes
    ----------
    workload, metric : ipywidgets.Dropdown
        What is shown.
    arms : tuple of ipywidgets.Checkbox
        Which arms are shown.
    figure : Figure
        The chart of the moment.

    Raises
    ------
    BadParameter
        There are no rows.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        if rows.empty:
            raise BadParameter("the explorer was given no rows: measure something first, such as hakmem sweep")
        names = {look.name for _, cell in cells(rows) for look in looks_of(cell).values()}
        metrics = [(metric.name, metric) for metric in METRICS if rows[metric.column].notna().any()]
        wide = {"layout": ipywidgets.Layout(width="auto"), "style": {"description_width": "5em"}}
        self._rows = rows
        self.workload = ipywidgets.Dropdown(options=[name for name, _ in cells(rows)], description="workload", **wide)
        self.metric = ipywidgets.Dropdown(options=metrics, description="metric", **wide)
        boxed = {"value": True, "indent": False}
        self.arms = tuple(
            ipywidgets.Checkbox(description=name, layout=ipywidgets.Layout(width="auto"), **boxed)
            for name in sorted(names, key=lambda name: (not name.endswith(("(A)", "(A')")), name))  # baselines first
        )
        self._chart = ipywidgets.HTML()
        self._redraw(None)
        for control in (self.workload, self.metric, *self.arms):
            control.observe(self._redraw, names="value")
        flow = ipywidgets.Layout(flex_flow="row wrap")
        controls = [ipywidgets.Box([self.workload, self.metric], layout=flow), ipywidgets.Box(self.arms, layout=flow)]
        self._whole = ipywidgets.VBox([*controls, self._chart])
        self._whole.add_class("explorer")

    def _redraw(self, _: object) -> None:
        asked = [box.description for box in self.arms if box.value]
        self.figure = chart(self._rows, self.workload.value, asked, self.metric.value)
        self._chart.value = self.figure.html()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        hint = "<p><small>In JupyterLab (make lab) this chart shows any workload, metric and arms.</small></p>"
        return {**self._whole._repr_mimebundle_(), "text/html": self.figure.html() + hint}
