"""What a trace looks like: a summary in figures, and charts of sizes, lifetimes, live bytes and sharing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hakmem import units
from hakmem.figure import FAMILIES, Figure, Panel, Theme, panel
from hakmem.traces import events
from hakmem.traces.events import Counts, Shape
from hakmem.traces.trace import Trace

__all__ = ["bars", "charts", "summary"]

LEVELS = 48
BARS = "▁▂▃▄▅▆▇█"
QUANTILES = (0.1, 0.5, 0.9, 0.99)


def summary(of: Trace, shape: Shape | None = None) -> dict[str, Any]:
    """Sum a trace up.

    Parameters
    ----------
    of : Trace
    shape : Shape, optional
        From `hakmem.traces.events.shape`; measured here if not given.

    Returns
    -------
    dict
        Plain values: bytes, counts, shares; lifetimes count allocations.
    """
    found = shape or events.shape(of.events, of.header.slots)
    header = of.header
    return {
        "file": str(of.path),
        "origin": header.origin.model_dump(mode="json"),
        "sha256": header.sha256,
        "seed": header.seed,
        "events": header.events,
        "warm": header.warm,
        "slots": header.slots,
        "threads": header.threads,
        "marks": list(header.marks),
        "ops": {name: int(found.ops[op]) for op, name in events.OPS.items()},
        "size_quantiles": _quantiles(found.sizes),
        "lifetime_quantiles": _quantiles(found.lifetimes),
        "peak_bytes": found.peak_bytes,
        "peak_blocks": found.peak_blocks,
        "end_bytes": int(found.live_bytes[-1]) if header.events else 0,
        "live_curve": _levels(found),
        "size_octaves": _octaves(found.sizes),
        "cross_thread_share": found.cross_frees / found.frees if found.frees else 0.0,
        "never_freed_share": float(found.joint[:, -1].sum() / max(1, found.joint.sum())),
    }


def charts(of: Trace, shape: Shape | None = None) -> Figure:
    """Draw a trace: live bytes over its events, sizes, lifetimes, who frees."""
    found = shape or events.shape(of.events, of.header.slots)
    told = summary(of, found)
    panels = (_live(found, told), _sizes(found, told), _lifetimes(found, told), _sharing(found, told))
    lows = events.bucket_lows()
    used = np.flatnonzero(found.sizes)
    never = found.joint[used, -1]
    table = pd.DataFrame(
        {
            "size from (B)": lows[used],
            "to (B)": lows[used + 1] - 1,
            "allocations": found.sizes[used],
            "never freed": never,
        }
    )
    origin = of.header.origin
    made_by = " ".join(origin.command) if origin.command else f"{origin.kind} by {origin.generator}"
    note = f"{made_by}: {told['events']:,} events, {told['threads']} thread(s); lifetimes count allocations meanwhile."
    return Figure(f"The trace {of.path.name}", note, panels, table)


def _levels(found: Shape) -> list[int]:
    """Return the largest live bytes in each of at most `LEVELS` equal parts of the trace."""
    parts = np.array_split(found.live_bytes, min(LEVELS, len(found.live_bytes)))
    return [int(part.max()) for part in parts]


def _octaves(counts: Counts) -> dict[str, int]:
    """Count allocations from each power of two on, from the smallest used one to the largest."""
    lows = events.bucket_lows()[:-1]
    octaves = np.array([int(low).bit_length() for low in lows.tolist()])
    by_octave = np.bincount(octaves, weights=counts).astype(int)
    used = np.flatnonzero(by_octave)
    return {str(2**at // 2): int(by_octave[at]) for at in range(used[0], used[-1] + 1)} if len(used) else {}


def bars(values: Sequence[float]) -> str:
    """Draw values as a line of blocks: ``▁▄█``."""
    most = max(values, default=0)
    return "".join(BARS[round(7 * value / most)] if value else " " for value in values) if most else ""


def _quantiles(counts: Counts) -> dict[str, int]:
    """Return the lower ends of the buckets that hold the quantiles; empty without counts."""
    total = np.cumsum(counts)
    if not total[-1]:
        return {}
    lows = events.bucket_lows()
    return {f"p{round(100 * part)}": int(lows[np.searchsorted(total, part * total[-1])]) for part in QUANTILES}


def _live(found: Shape, told: dict[str, Any]) -> Panel:
    end = told["end_bytes"]
    peak, left = (units.words(size, units.BYTES) for size in (told["peak_bytes"], end))
    title = f"Live bytes peak at {peak}, {left} are left at the end"

    def draw(axes: Axes, theme: Theme) -> str:
        scale, unit = units.fitting(told["peak_bytes"] / 2, units.BYTES)
        axes.plot(found.live_at, found.live_bytes / scale, color=FAMILIES["hakmem"].on(theme), lw=1.2)
        axes.set(xlabel="Event of the trace", ylabel=f"Live memory ({unit})", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return f"Line of live bytes over {told['events']} events, at most {told['peak_blocks']} blocks at once."

    return panel(draw, 2.7, title)


def _histogram(counts: Counts, axes: Axes, theme: Theme, colour: str) -> None:
    """Draw shares by octave: 0, 1, 2-3, 4-7, ... on a logarithmic axis."""
    lows = events.bucket_lows()[:-1]
    octaves = np.array([int(low).bit_length() for low in lows.tolist()])
    shares = 100 * np.bincount(octaves, weights=counts) / max(1, counts.sum())
    used = np.flatnonzero(shares)
    shown = np.arange(used[0], used[-1] + 1) if len(used) else np.arange(1)
    axes.bar(shown, shares[shown], width=0.85, color=FAMILIES[colour].on(theme))
    step = max(1, len(shown) // 6)
    axes.set_xticks(shown[::step], [_octave(int(number)) for number in shown[::step]])


def _octave(number: int) -> str:
    low = 0 if number == 0 else 2 ** (number - 1)
    scale, unit = units.fitting(low, units.BYTES)
    return f"{low // scale:g}{unit[0].replace('B', '')}"


def _sizes(found: Shape, told: dict[str, Any]) -> Panel:
    half = units.words(told["size_quantiles"].get("p50", 0), units.BYTES)
    title = f"Half of all allocations are of at most about {half}"
    return _distribution(found.sizes, told["size_quantiles"], title, ("size", "bytes", "allocations"), "hakmem")


def _lifetimes(found: Shape, told: dict[str, Any]) -> Panel:
    quantiles = told["lifetime_quantiles"]
    title = f"Half of the freed blocks live for at most about {quantiles.get('p50', 0):,} allocations"
    return _distribution(found.lifetimes, quantiles, title, ("lifetime", "allocations", "freed blocks"), "mimalloc")


def _distribution(
    counts: Counts, quantiles: dict[str, int], title: str, words: tuple[str, str, str], colour: str
) -> Panel:
    """Draw what (`words`: its name, its unit, of what) was counted in buckets."""
    what, unit, whose = words

    def draw(axes: Axes, theme: Theme) -> str:
        _histogram(counts, axes, theme, colour)
        axes.set(xlabel=f"{what.capitalize()} from, {unit} (octaves: log scale)", ylabel=f"% of {whose}")
        return f"Histogram of {what}s; quantiles in {unit}: {quantiles}."

    return panel(draw, 2.7, title)


def _sharing(found: Shape, told: dict[str, Any]) -> Panel:
    blocks = max(1, int(found.joint.sum()))
    never = int(found.joint[:, -1].sum())
    parts = {
        "freed by its thread": found.frees - found.cross_frees,
        "freed by another one": found.cross_frees,
        "never freed": never,
    }
    title = f"{100 * told['cross_thread_share']:.3g} % of the frees come from another thread"

    def draw(axes: Axes, theme: Theme) -> str:
        shares = [100 * count / blocks for count in parts.values()]
        axes.barh(list(parts), shares, color=[FAMILIES[name].on(theme) for name in ("hakmem", "LEAN FREE", "system")])
        axes.invert_yaxis()
        axes.set(xlabel="% of blocks", xlim=(0, 100))
        return "Bars: " + ", ".join(f"{name} {share:.3g} %" for name, share in zip(parts, shares, strict=True)) + "."

    return panel(draw, 2.0, title)
