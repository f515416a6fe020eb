"""What a chart is: panels for light and dark paper, a text for those who see neither, a table, one way to emit all.

The same allocator has the same colour and the same marker everywhere.
"""

import base64
import html
import io
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from scipy import optimize

Line = tuple[float, float, float, float]
Side = Literal["left", "center", "right"]

__all__ = [
    "FAMILIES",
    "THEMES",
    "Family",
    "Figure",
    "Panel",
    "Theme",
    "family",
    "log_axis",
    "panel",
    "spoken",
    "table_html",
    "write_ends",
    "write_names",
]


@dataclass(frozen=True)
class Theme:
    """Colours of a page."""

    name: str
    paper: str
    ink: str
    quiet: str
    grid: str
    band: str


@dataclass(frozen=True)
class Family:
    """How one kind of arm looks: colour on light and on dark paper (contrast at least 3), and marker."""

    light: str
    dark: str
    marker: str

    def on(self, theme: Theme) -> str:
        """Return the colour on this paper."""
        return self.light if theme.name == "light" else self.dark


THEMES = (
    Theme("light", "#ffffff", "#1f2328", "#656d76", "#dfe3e8", "#e8edf3"),
    Theme("dark", "#12161c", "#e6edf3", "#99a2ac", "#2d333b", "#222933"),
)
FAMILIES = {
    "hakmem": Family("#0b57c2", "#6cb6ff", "o"),
    "LEAN OFF": Family("#12708f", "#56c7e8", "s"),
    "LEAN FREE": Family("#b35900", "#ffa94d", "D"),
    "LEAN DONTNEED": Family("#c2261a", "#ff8371", "^"),
    "gates": Family("#6f3fb5", "#b794f6", "P"),
    "system": Family("#57606a", "#b1bac4", "X"),
    "mimalloc": Family("#1a7f5a", "#4ac99b", "v"),
    "jemalloc": Family("#b0307e", "#f07ac0", "<"),
    "tcmalloc": Family("#7a6a00", "#d9c23c", ">"),
    "tbbmalloc": Family("#7d4a2a", "#d6a27c", "h"),
    "other": Family("#444c56", "#c9d1d9", "*"),
}
WIDTH = 4.7  # inches of a panel: readable at 370 px, two abreast on a wide screen


def family(allocator: str, gates: dict[str, str]) -> str:
    """Name the look of an arm from its allocator and gates."""
    if not allocator.startswith("hakmem"):
        return allocator if allocator in FAMILIES else "other"
    if gates.get("HAKMEM_SS_MEM_LEAN") == "1":
        return f"LEAN {gates.get('HAKMEM_SS_MEM_LEAN_DECOMMIT', 'FREE')}"
    return "gates" if gates else "hakmem"


# ---- a figure and how it is emitted ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One picture, drawn for light and for dark paper (SVG text), and its description in words."""

    alt: str
    light: str
    dark: str


@dataclass(frozen=True)
class Figure:
    """Pictures with one finding, how to read them, and the table of what they show."""

    title: str
    note: str
    panels: tuple[Panel, ...]
    table: pd.DataFrame

    def html(self) -> str:
        """Put the chart on a page: figure, images with alternative text, caption, table."""
        pictures = "".join(_picture(panel) for panel in self.panels)
        return (
            f'<figure class="chart"><div class="panels">{pictures}</div>'
            f"<figcaption><strong>{html.escape(self.title)}</strong> {html.escape(self.note)}</figcaption></figure>"
            f"<details><summary>The figures of this chart</summary>{table_html(self.table, self.title)}</details>"
        )

    _repr_html_ = html


def _picture(panel: Panel) -> str:
    light, dark = (base64.b64encode(svg.encode()).decode() for svg in (panel.light, panel.dark))
    return (
        '<picture><source media="screen and (prefers-color-scheme: dark)" '
        f'srcset="data:image/svg+xml;base64,{dark}">'
        f'<img alt="{html.escape(panel.alt)}" src="data:image/svg+xml;base64,{light}"></picture>'
    )


def table_html(table: pd.DataFrame, label: str) -> str:
    """Write a frame as an escaped HTML table that scrolls by itself where the screen is narrow."""
    shown = table.map(_cell)
    body = shown.to_html(index=False, border=0, escape=True, na_rep="–")
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{body}</div>'


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float) and abs(value) > 1e15:
        return "∞" if value > 0 else "-∞"  # an end of an interval that too few blocks left open
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    return str(value)


def panel(draw: Callable[[Axes, Theme], str], height: float, title: str) -> Panel:
    """Draw one panel on light paper and repaint it for dark; `draw` returns the alternative text."""
    title, (light, dark) = spoken(title), THEMES
    with mpl.rc_context(_settings(light)):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(canvas)  # measures text, for `write_names`
        axes = canvas.subplots()
        axes.grid(visible=True)
        canvas.suptitle("\n".join(textwrap.wrap(title, 52)), x=0.015, ha="left")
        alt = draw(axes, light)
        sns.despine(ax=axes)
        out = io.StringIO()
        # Not `savefig`, which draws twice.
        FigureCanvasSVG(canvas).print_svg(out, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    svg = _slim(out.getvalue())
    repainted = dict(zip(vars(light).values(), vars(dark).values(), strict=True))
    repainted |= {look.light: look.dark for look in FAMILIES.values()}
    return Panel(f"{title}. {alt}", svg, re.sub(r"#[0-9a-f]{6}\b", lambda hue: repainted.get(hue[0], hue[0]), svg))


def _settings(theme: Theme) -> Any:
    """Matplotlib's settings for a theme; the salt makes the same rows give the same bytes."""
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    paper = ("axes.facecolor", "figure.facecolor", "savefig.facecolor")
    return {
        **{"font.size": 9.5, "figure.titlesize": 10, "figure.titleweight": "bold"},
        **{"grid.linewidth": 0.7, "axes.axisbelow": True, "svg.hashsalt": "hakmem"},
        "svg.fonttype": "none",  # letters stay letters: a quarter of the bytes
        **{"axes.edgecolor": theme.quiet, "grid.color": theme.grid},
        **dict.fromkeys(ink, theme.ink),
        **dict.fromkeys(paper, theme.paper),
    }


def _slim(svg: str) -> str:
    """Drop what a browser does not need: the prolog, comments, and digits of a path below a hundredth of a point.

    Where the font that placed the letters is missing, one as wide stands in.
    """
    svg = re.sub(r'font-family: [^;"]*; | transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(?<= d=")[^"]+', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = svg.replace('<style type="text/css">', "<style>text{font-family: 'DejaVu Sans', Verdana, sans-serif} ")
    return re.sub(r"\n\s*", "\n", svg)


def spoken(text: str) -> str:
    """Shorten workloads: `trace:data/traces/gcc.trace.zst,repeat=10` reads `trace:gcc`, `cycles=10000000` `10M`."""
    text = re.sub(r"=(\d+)000000\b", r"=\1M", text)
    return re.sub(r"\btrace:(?:[^\s,:]*/)?([^\s,:/]+?)\.trace(?:\.zst)?(?:,repeat=\d+)?", r"trace:\1", text)


def write_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names right of a chart at the ends of their lines (x, y, text, colour), one below another."""
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    if (layout := canvas.get_layout_engine()) is not None:
        layout.execute(canvas)
    ordered = sorted(ends, key=lambda end: end[1])
    heights = axes.transAxes.inverted().transform(axes.transData.transform([(x, y) for x, y, _, _ in ordered]))[:, 1]
    apart = 10 / 72 * canvas.dpi / axes.get_window_extent().height * np.arange(len(ordered))
    free = np.clip(optimize.isotonic_regression(heights - apart).x, 0, max(0.0, 1 - apart[-1])) + apart
    for (x, y, text, colour), at in zip(ordered, free, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 4, "relpos": (0, 0.5)}
        style: dict[str, Any] = {"fontsize": 8, "color": colour, "va": "center", "arrowprops": leader}
        axes.annotate(text, (x, y), (1.03, at), textcoords="axes fraction", annotation_clip=False, **style)


def write_names(
    axes: Axes, points: Sequence[tuple[float, float, str, str]], theme: Theme, lines: Sequence[Line] = ()
) -> None:
    """Write names beside points (x, y, text, colour), each at the free place nearest to its point.

    `lines` are further things on the chart that names should not cover, as (x0, y0, x1, y1) along an axis.
    """
    canvas = axes.get_figure(root=True)
    assert canvas is not None and isinstance(canvas.canvas, FigureCanvasAgg)
    renderer = canvas.canvas.get_renderer()  # type: ignore[no-untyped-call]
    if (layout := canvas.get_layout_engine()) is not None:
        layout.execute(canvas)
        canvas.set_layout_engine("none")  # names stand where things are now
    frame, size = axes.get_window_extent(renderer), 7 * canvas.dpi / 72

    def towards(distance: int, degrees: int) -> tuple[float, float, Side]:
        dx, dy = distance * math.cos(math.radians(degrees)), distance * math.sin(math.radians(degrees))
        return dx, dy, "left" if dx > 1 else "right" if dx < -1 else "center"

    def place(x: float, y: float, text: str, colour: str, distance: int, degrees: int) -> tuple[Annotation, Bbox]:
        dx, dy, side = towards(distance, degrees)
        arrow = {"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkB": 3} if distance > 8 else None
        behind = {"boxstyle": "square,pad=0.05", "facecolor": theme.paper, "edgecolor": "none", "alpha": 0.75}
        style: dict[str, Any] = {
            "bbox": behind,
            "fontsize": 8,
            "color": colour,
            "ha": side,
            "va": "center",
            "arrowprops": arrow,
        }
        note = axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", zorder=5, **style)
        note.update_positions(renderer)
        return note, Bbox(Text.get_window_extent(note, renderer))

    spots = axes.transData.transform([(x, y) for x, y, _, _ in points])
    marks = [Bbox.from_bounds(x - size / 2, y - size / 2, size, size) for x, y in spots]
    ends = axes.transData.transform(np.array(lines).reshape(-1, 2)).reshape(-1, 2, 2) if lines else ()
    thin = [Bbox(np.sort(pair, axis=0) + [[-1, -1], [1, 1]]) for pair in ends]
    for point, (at_x, at_y) in zip(points, spots, strict=True):
        note, size_of = place(*point, 7, 0)
        note.remove()
        best: tuple[float, int, int] | None = None
        for distance, degrees in itertools.product((7, 8, 14, 21, 29, 38, 48), range(0, 360, 30)):
            dx, dy, side = towards(distance, degrees)
            left = at_x + dx * canvas.dpi / 72 - {"left": 0.0, "center": 0.5, "right": 1.0}[side] * size_of.width
            middle = at_y + dy * canvas.dpi / 72
            box = Bbox.from_bounds(left, middle - size_of.height / 2, size_of.width, size_of.height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            cost = 100 * (not inside) + 10 * box.count_overlaps(marks) + box.count_overlaps(thin) + distance / 25
            if best is None or cost < best[0]:
                best = cost, distance, degrees
        assert best is not None
        marks.append(place(*point, *best[1:])[1])


def log_axis(axis: Any) -> None:
    """Write the figures of a logarithmic axis plainly, three a decade where they fit; call it when limits are set."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
