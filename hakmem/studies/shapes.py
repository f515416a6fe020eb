"""What traces look like beside each other, and which allocator wins on which of them, and why.

How a trace looks is a matter of its events; who wins is measured, and judged as in `rebase`. The reason is told
by the same trials: how much of the difference is time in the kernel, page faults, and what is special in the trace.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from pydantic import Field, field_validator

from hakmem import stats, units, workload
from hakmem.drivers import Profile
from hakmem.figure import FAMILIES, Figure, Panel, Theme, family, legend, log_axis, panel, whiskers
from hakmem.plots import looks_of
from hakmem.studies import portrait, rebase
from hakmem.study import PEERS, SPEED_FIRST, STUDY, CampaignSpec, Parameters, RebaseSpec, Several
from hakmem.traces import events, trace
from hakmem.traces.events import Shape

__all__ = ["Portrait", "ShapesSpec", "looks", "portraits", "reasons", "speed"]

FAST = "hakmem_minimal"
CALLED = {arm: f"hakmem {build}" for arm, build in rebase.BUILDS.items()}  # as pages speak of them
RECORDED = "trace:data/traces/*.trace.zst"
SHAPES = (
    *("gen:mixed,cycles=2M", "gen:battle", "gen:ramp", "gen:phases", "gen:larson", "gen:producer_consumer"),
    *("gen:thread_churn", "gen:lognormal", "gen:generational", "gen:zipf", "gen:server", "gen:fragmenter,limit=4MiB"),
    RECORDED,
)
FEW = ("gen:zipf,events=400k", "gen:producer_consumer,events=400k", "trace:data/traces/gcc.trace.zst")
SHARED, LARGE, LARGE_BYTES = 0.05, 0.1, 32 << 10  # shares of frees and of allocations that are worth a word
POINTS = 400


class ShapesSpec(Parameters):
    """Generated and recorded traces, replayed over every allocator; only workloads that replay a trace are taken.

    `peer` is the one that counts, as in `RebaseSpec`. A trace from a file is short: it is replayed `repeat` times in a
    trial, unless the workload itself says how often.
    """

    SIZES: ClassVar[Mapping[Profile, Mapping[str, object]]] = {
        "smoke": {"workloads": FEW, "repeat": 2},
        "quick": {"workloads": SHAPES, "repeat": 10, "budget_minutes": 3},
        "full": {"workloads": SHAPES, "repeat": 40},
    }
    study: str = Field(default="traces", pattern=STUDY)
    workloads: Several[str]
    repeat: int = Field(ge=1, le=100_000)
    peer: str | None = None

    @field_validator("workloads")
    @classmethod
    def _traces(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            if text.partition(":")[0] not in workload.TRACES:
                raise ValueError(f"{text!r} replays no trace: {', '.join(workload.TRACES)} do")
        return tuple(workload.names(given))

    def replayed(self) -> list[str]:
        """Return the workloads, short ones repeated."""
        short = [text.startswith("trace:") and "repeat=" not in text for text in self.workloads]
        said = f",repeat={self.repeat}"
        return [text + said if again else text for text, again in zip(self.workloads, short, strict=True)]

    def rebase(self) -> RebaseSpec:
        """Return the comparison with the peer."""
        return RebaseSpec.checked({"peer": self.peer, "workloads": self.replayed(), "profile": self.profile})

    def campaign(self) -> CampaignSpec:
        """Return the sweep: FAST, Standard, the system's allocator, all peers; the one that counts is the baseline."""
        arms = [self.rebase().named(), FAST, "hakmem", "system", PEERS]
        asked = {**self.shared(), **SPEED_FIRST, "workloads": self.replayed(), "allocators": arms}
        return CampaignSpec.checked(asked)


# ---- what they look like ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Portrait:
    """One trace: the workload that replays it, a short name, what `portrait.summary` says of it, its shape."""

    workload: str
    name: str
    summary: dict[str, Any]
    shape: Shape

    @property
    def large(self) -> float:
        """Share of allocations above 32 KiB."""
        sizes = self.shape.sizes
        return float(sizes[events.bucket_lows()[:-1] >= LARGE_BYTES].sum() / max(1, sizes.sum()))


def portraits(works: Sequence[str], profile: Profile) -> list[Portrait]:
    """Look at the trace of every workload."""
    found = []
    for text in works:
        work = workload.parse(text, profile)
        opened = trace.read(Path(work.args[0].removeprefix("--trace=")), verify=False)
        shape = events.shape(opened.events, opened.header.slots, POINTS)
        found.append(Portrait(work.text, _name(work.text), portrait.summary(opened, shape), shape))
    return found


def _name(text: str) -> str:
    """`trace:data/traces/gcc.trace.zst,repeat=10` is gcc, `gen:zipf,live=9,events=1M` is zipf live=9."""
    kind, _, rest = text.partition(":")
    first, *said = rest.split(",")
    shown = [one for one in said if not one.startswith(("events=", "cycles=", "repeat="))]
    return " ".join([first if kind == "gen" else Path(first).name.partition(".")[0], *shown])


def looks(found: Sequence[Portrait]) -> Figure:
    """Draw all traces beside each other: live bytes, sizes, lifetimes, who frees; a line each."""
    names = [one.name for one in found]
    table = pd.DataFrame([_line(one) for one in found])
    shared = sum(one.summary["cross_thread_share"] > SHARED for one in found)
    ending = sum(2 * one.summary["end_bytes"] < one.summary["peak_bytes"] for one in found)
    sizes = [one.summary["size_quantiles"].get("p50", 0) for one in found]
    titles = (
        f"{ending or 'none'} of {len(found)} traces end with less than half of their largest live heap",
        f"Median sizes: {_span(sizes)} bytes",
        f"Median lifetimes: {_span(table['life p50'])} allocations",
        f"{shared} of {len(found)} traces free over {100 * SHARED:g} % of their blocks in another thread",
    )
    height = 1.2 + 0.27 * len(found)
    drawings = (_curves(found), _ranges(found, "size"), _ranges(found, "lifetime"), _fates(found))
    panels = tuple(panel(_lined(names, draw), height, title) for draw, title in zip(drawings, titles, strict=True))
    note = (
        "Curves: live bytes over the events, each as a share of its own peak, which stands at the right. Bars: from "
        "the 10th to the 90th percentile, the dot is the median; lifetimes count allocations meanwhile."
    )
    return Figure("What the traces look like.", note, panels, table)


def _span(values: Sequence[int] | pd.Series) -> str:
    least, most = min(values), max(values)
    return f"{least:,} to {most:,}" if least < most else f"{most:,}"


def _line(one: Portrait) -> dict[str, object]:
    told = one.summary
    sizes, lives = told["size_quantiles"], told["lifetime_quantiles"]
    return {
        **{"trace": one.name, "made by": told["origin"]["kind"], "events": told["events"], "threads": told["threads"]},
        **{"peak live MiB": told["peak_bytes"] / 2**20, "peak blocks": told["peak_blocks"]},
        **{f"size {part}": sizes.get(part, 0) for part in ("p10", "p50", "p90", "p99")},
        **{f"life {part}": lives.get(part, 0) for part in ("p10", "p50", "p90")},
        **{"above 32 KiB %": 100 * one.large, "realloc %": 100 * told["ops"]["realloc"] / max(1, told["events"])},
        **{"freed by another thread %": 100 * told["cross_thread_share"]},
        **{"never freed %": 100 * told["never_freed_share"]},
    }


Draw = Callable[[Axes, Theme], str]


def _lined(names: Sequence[str], draw: Draw) -> Draw:
    """Draw something of one line a trace, the first on top."""

    def lined(axes: Axes, theme: Theme) -> str:
        alt = draw(axes, theme)
        axes.set_yticks(range(len(names)), list(names))
        axes.set_ylim(len(names) - 0.4, -0.7)
        axes.grid(visible=False, axis="y")
        return alt

    return lined


def _curves(found: Sequence[Portrait]) -> Draw:
    def draw(axes: Axes, theme: Theme) -> str:
        for place, one in enumerate(found):
            x = np.linspace(0, 100, max(1, len(one.shape.live_at)))
            y = place + 0.38 - 0.78 * one.shape.live_bytes / max(1, one.shape.peak_bytes)
            axes.fill_between(x, y, place + 0.38, color=theme.band, lw=0)
            axes.plot(x, y, color=FAMILIES["hakmem"].on(theme), lw=0.9)
            axes.annotate(units.words(one.shape.peak_bytes, units.BYTES), (100, place), (4, 0), fontsize=7,
                          textcoords="offset points", va="center", color=theme.quiet)  # fmt: skip
        axes.set(xlabel="% of the trace's events", xlim=(0, 100))
        said = (f"{one.name} {units.words(one.shape.peak_bytes, units.BYTES)}" for one in found)
        return f"A curve of live bytes for each trace; peaks: {', '.join(said)}."

    return draw


def _ranges(found: Sequence[Portrait], what: str) -> Draw:
    def draw(axes: Axes, theme: Theme) -> str:
        said = []
        for place, one in enumerate(found):
            quantiles = one.summary[f"{what}_quantiles"]
            low, middle, high = (max(1, quantiles.get(part, 0)) for part in ("p10", "p50", "p90"))
            colour = FAMILIES["hakmem" if what == "size" else "mimalloc"].on(theme)
            axes.plot([low, high], [place, place], color=colour, lw=4, alpha=0.45, solid_capstyle="round")
            axes.plot(middle, place, "o", color=colour, ms=5)
            said.append(f"{one.name} {middle}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.words(value, units.COUNTS)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        unit = "bytes" if what == "size" else "allocations"
        axes.set_xlabel(f"{what.capitalize()}, {unit} (log scale; 0 shown as 1)")
        return f"Bars of the middle 80 % of {what}s; medians in {unit}: {', '.join(said)}."

    return draw


def _fates(found: Sequence[Portrait]) -> Draw:
    def draw(axes: Axes, theme: Theme) -> str:
        said = []
        for place, one in enumerate(found):
            blocks = max(1, int(one.shape.joint.sum()))
            shares = [
                100 * count / blocks
                for count in (
                    one.shape.frees - one.shape.cross_frees,
                    one.shape.cross_frees,
                    int(one.shape.joint[:, -1].sum()),
                )
            ]
            left = 0.0
            for share, colour in zip(shares, ("hakmem", "LEAN FREE", "system"), strict=True):
                axes.barh(place, share, left=left, height=0.62, color=FAMILIES[colour].on(theme))
                left += share
            said.append(f"{one.name} {shares[0]:.0f}/{shares[1]:.0f}/{shares[2]:.0f}")
        handles = [axes.barh(-5, 0, color=FAMILIES[colour].on(theme)) for colour in ("hakmem", "LEAN FREE", "system")]
        legend(axes, handles, ["by its thread", "by another one", "never"])
        axes.set(xlabel="% of blocks freed ...", xlim=(0, 100))
        return f"Stacked bars, % of blocks freed by their thread/by another/never: {', '.join(said)}."

    return draw


# ---- who wins, and why -----------------------------------------------------------------------------------------------


def speed(rows: pd.DataFrame, peer: str) -> Figure:
    """Draw the throughput of every allocator on every trace as a share of the peer's, with intervals."""
    records = []
    for text, cell in rows.groupby("workload", sort=False):
        table = stats.wide(cell, "ops_per_s")
        for key, look in looks_of(cell).items():
            x = stats.log_ratios(table, key) if look.role not in ("baseline", "baseline2") else np.empty(0)
            if x.size:
                found = stats.interval(x).exp()
                arm = cell[cell["arm"] == key].iloc[0]
                records.append(
                    {"trace": _name(str(text)), "allocator": key, "family": family(arm["allocator"], arm["gates"])}
                    | {"percent": 100 * found.estimate, "low": 100 * found.low, "high": 100 * found.high}
                )
    table = pd.DataFrame(records, columns=["trace", "allocator", "family", "percent", "low", "high"])
    fast = table[table["allocator"] == FAST]
    ahead, behind = (int(surely.sum()) or "none" for surely in (fast["low"] > 100, fast["high"] < 100))
    title = f"hakmem FAST is surely ahead of {peer} on {ahead} of {table['trace'].nunique()} traces, behind on {behind}"
    names = list(dict.fromkeys(table["trace"]))
    note = (
        f"Throughput as a percentage of {peer}'s (the line), paired within blocks, with 95 % intervals; hakmem filled: "
        "FAST, hollow: Standard. The axis is logarithmic; bars of very few blocks are cut."
    )
    panels: tuple[Panel, ...] = ()
    if names:
        panels = (panel(_lined(names, _shares(table, names)), 1.3 + 0.36 * len(names), title),)
    return Figure(
        "Who is fastest on which shape.", note, panels, table.drop(columns="family").replace({"allocator": CALLED})
    )


def _shares(table: pd.DataFrame, names: Sequence[str]) -> Draw:
    least, most = 0.8 * table["percent"].min(), 1.25 * max(100.0, table["percent"].max())

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_xscale("log")
        axes.set_xlim(least, most)
        log_axis(axes.xaxis)
        axes.axvline(100, color=theme.ink, lw=1, ls="--")
        arms = list(dict.fromkeys(table["allocator"]))
        for line in table.to_dict("records"):
            shift = 0.6 * (arms.index(line["allocator"]) / max(1, len(arms) - 1) - 0.5)
            look, fill = FAMILIES[line["family"]], "none" if line["allocator"] == "hakmem" else "full"
            at, label = names.index(line["trace"]) + shift, CALLED.get(line["allocator"], line["allocator"])
            whiskers(axes, at, line["low"], line["high"], look.on(theme), (least, most))
            axes.plot(line["percent"], at, **look.mark(theme, fill=fill, size=4.5) | {"label": label})
        handles, labels = axes.get_legend_handles_labels()
        each = dict(zip(labels, handles, strict=True))
        legend(axes, list(each.values()), list(each))
        axes.set_xlabel("% of the peer's throughput (log scale)")
        fast = table[table["allocator"] == FAST]
        return "hakmem FAST: " + ", ".join(f"{r.trace} {r.percent:.0f} %" for r in fast.itertuples()) + "."

    return draw


def reasons(rows: pd.DataFrame, found: Sequence[Portrait], peer: str) -> pd.DataFrame:
    """Hold hakmem FAST against the peer on each trace, and say where the difference lies.

    Returns
    -------
    DataFrame
        Columns trace, fastest (of all allocators), hakmem's share of the peer's throughput in words, why, and of each
        side ns (an operation), kernel ns (of the process, an operation), faults (in 1,000 operations), peak MB.
    """
    ratios = rebase.ratios(rows)
    records = []
    for one in found:
        good = stats.usable(rows[rows["workload"] == one.workload])
        line = ratios[(ratios["workload"] == one.workload) & (ratios["build"] == "FAST") & (ratios["peer"] == peer)]
        if line.empty:
            continue
        share = line.iloc[0]
        sides = {name: _side(good[good["arm"] == arm]) for name, arm in (("hakmem", FAST), ("peer", peer))}
        fastest = str(good.groupby("arm")["ops_per_s"].median().idxmax())
        records.append(
            {
                "trace": one.name,
                "fastest": CALLED.get(fastest, fastest),
                f"hakmem FAST of {peer}": rebase.span(share["percent"], share["low"], share["high"]),
                "why": _why(share, sides, one, peer),
            }
            | {f"{what}, {name}": _plain(side[what]) for what in sides["peer"] for name, side in sides.items()}
        )
    return pd.DataFrame(records)


def _plain(value: float) -> float:
    return float(f"{value:.3g}")


def _side(rows: pd.DataFrame) -> dict[str, float]:
    ops = rows["ops"].astype(float)
    return {
        "ns": float((1e9 * rows["seconds"] / ops).median()),
        "kernel ns": float((1e9 * rows["sys_s"] / ops).median()),
        "faults": float((1000 * rows["minflt"] / ops).median()),
        "peak MB": float(rows["peak_rss_mb"].median()),
    }


def _why(share: pd.Series, sides: dict[str, dict[str, float]], one: Portrait, peer: str) -> str:
    """Say where the slower side loses its time."""
    if share["low"] <= 100 <= share["high"] or not math.isfinite(share["percent"]):
        return "no difference is shown"
    names = {"hakmem": "hakmem", "peer": peer}
    slower, faster = ("peer", "hakmem") if share["percent"] > 100 else ("hakmem", "peer")
    more = sides[slower]["ns"] - sides[faster]["ns"]
    kernel = sides[slower]["kernel ns"] - sides[faster]["kernel ns"]
    said = f"{names[slower]} takes {more:.1f} ns more an operation, "
    if kernel > more / 2:
        faults = f"{sides[slower]['faults']:.3g} page faults in 1,000 operations against {sides[faster]['faults']:.3g}"
        return said + f"most of it in the kernel: {faults}"
    special = [
        text
        for text, applies in (
            (f"{100 * one.summary['cross_thread_share']:.0f} % of the frees come from another thread",
             one.summary["cross_thread_share"] > SHARED),
            (f"{100 * one.large:.0f} % of the allocations are above 32 KiB", one.large > LARGE),
        )
        if applies
    ]  # fmt: skip
    return said + "in its own code" + "".join(f"; {text}" for text in special)
