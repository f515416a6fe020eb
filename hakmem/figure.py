"""What a chart is: panels for light and dark paper, a text for those who see neither, a table, one way to emit all.

The same allocator has the same colour and the same marker everywhere.
"""

import base64
import functools
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox, IdentityTransform

from hakmem.stats import NOWHERE
from hakmem.table import table_html

Line = tuple[float, float, float, float]

__all__ = [
    "FAMILIES",
    "THEMES",
    "Family",
    "Figure",
    "Panel",
    "Theme",
    "family",
    "legend",
    "log_axis",
    "panel",
    "spoken",
    "whiskers",
    "write_ends",
    "write_figure",
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

    def on(self, theme: Theme, nth: int = 0) -> str:
        """Return the colour on this paper, of each second arm of its kind nearer to the ink."""
        colour = self.light if theme.name == "light" else self.dark
        if nth % SHADES == 0:
            return colour
        return to_hex(np.mean([to_rgb(colour), to_rgb(theme.ink)], axis=0))

    def mark(self, theme: Theme, nth: int = 0, fill: str = "", size: float = 6.5) -> dict[str, Any]:
        """Return how `plot` marks the nth arm of its kind on a chart: marker and colour of the kind, filled its way."""
        colour, fill = self.on(theme, nth), fill or FILLS[nth % len(FILLS)]
        full = {"mec": theme.paper, "mew": 0.4, "ms": size}  # an edge of paper tells marks apart that overlap
        edge = full if fill == "full" else {"mec": colour, "mew": 0.9, "ms": 0.87 * size}
        look = {"ls": "", "marker": self.marker, "fillstyle": fill, "markerfacecoloralt": theme.paper}
        return {"color": colour, **look, **edge}


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
SHADES = 2  # of a colour, and
FILLS = ("full", "left", "right", "top", "bottom")  # of a marker: for the arms of one kind on a chart
DOTS = 144  # an inch, where a drawing holds a picture: a colour bar
PAD, LABELS = 3, 34  # points of paper around labels; what those of an x axis mostly take
COLUMNS = 3  # of a legend
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
    """Pictures with one finding, how to read them, the table of what they show; why, where there is no picture."""

    title: str
    note: str
    panels: tuple[Panel, ...]
    table: pd.DataFrame
    lacks: str = "Nothing to draw: too little was measured."

    def html(self) -> str:
        """Put the chart on a page: images with alternative text, caption, table; without pictures say why."""
        title, said = html.escape(self.title), html.escape(self.note if self.panels else self.lacks)
        words = f"<strong>{title}</strong> {said}"
        pictures = "".join(_picture(panel) for panel in self.panels)
        chart = f'<figure class="chart"><div class="panels">{pictures}</div><figcaption>{words}</figcaption></figure>'
        figures = f"<details><summary>The figures of this chart</summary>{table_html(self.table, self.title)}</details>"
        return (chart if self.panels else f'<p class="chart">{words}</p>') + (figures if len(self.table) else "")

    _repr_html_ = html


def _picture(panel: Panel) -> str:
    light, dark = (base64.b64encode(svg.encode()).decode() for svg in (panel.light, panel.dark))
    return (
        '<picture><source media="screen and (prefers-color-scheme: dark)" '
        f'srcset="data:image/svg+xml;base64,{dark}">'
        f'<img alt="{html.escape(panel.alt)}" src="data:image/svg+xml;base64,{light}"></picture>'
    )


class Pen(RendererSVG):
    """Writes SVG and measures texts."""

    def get_text_width_height_descent(self, s: str, prop: Any, ismath: Any) -> tuple[float, float, float]:
        """Measure a text once a process: the same names and figures stand on many panels."""
        return _measured(s, prop, ismath)


_measured = functools.lru_cache(maxsize=4096)(text_to_path.get_text_width_height_descent)


class Sheet(FigureCanvasSVG):
    """What one panel is drawn on, measured in points: its title, its axes, and the pen."""

    def __init__(self, height: float, title: str) -> None:
        drawing = Canvas(figsize=(WIDTH, height), dpi=72)
        super().__init__(drawing)
        self.out = io.StringIO()
        pen: Callable[..., Pen] = Pen
        self.pen = pen(*drawing.bbox.size, self.out, image_dpi=DOTS, metadata={"Date": None, "Creator": None})
        title_at = drawing.text(
            PAD, drawing.bbox.height - PAD, "", transform=IdentityTransform(), va="top", size=10, weight="bold"
        )
        title_at.set_text("\n".join(self._lines(title, title_at.get_fontproperties(), drawing.bbox.width - 2 * PAD)))
        self.top = title_at.get_window_extent(self.pen).y0 - 2 * PAD
        self.axes = drawing.subplots()
        self.axes.grid(visible=True)
        self.axes.spines[:].set_in_layout(False)  # the axes are in it
        drawing.subplots_adjust(0.2, LABELS / drawing.bbox.height, 0.98, self.top / drawing.bbox.height)
        self.settled = False

    @classmethod
    def of(cls, axes: Axes) -> Self:
        """Find the sheet that axes stand on."""
        drawing = axes.get_figure(root=True)
        assert drawing is not None and isinstance(drawing.canvas, cls)
        return drawing.canvas

    def _lines(self, text: str, prop: Any, width: float) -> Iterator[str]:
        """Break a text into lines of at most so many points, between words; a word that is longer by itself within."""

        def fits(line: str) -> bool:
            return self.pen.get_text_width_height_descent(line, prop, ismath=False)[0] <= width

        line = ""
        for word in re.split(r" (?!%|[KMG]?i?B\b|[kM]?ops/s)", text):  # a figure stays with its unit
            if line and not fits(f"{line} {word}"):
                yield line
                line = ""
            line = f"{line} {word}" if line else word
            while not fits(line):
                end = next(end for end in range(len(line) - 1, 0, -1) if end == 1 or fits(line[:end]))
                yield line[:end]
                line = line[end:]
        yield line

    def get_renderer(self) -> Pen:
        """Return what measures texts."""
        return self.pen

    def settle(self) -> None:
        """Give the axes all the room that title and labels leave, once; again where that brought other ticks."""
        if self.settled:
            return
        self.settled, drawing, axes, ticks = True, self.figure, self.axes, self._ticks()
        room = [[PAD, PAD], [drawing.bbox.width - PAD, self.top]]
        for _ in range(3):
            around = [one.get_tightbbox(self.pen, for_layout_only=True) for one in drawing.axes]
            outer = Bbox.union([box for box in around if box]).get_points()
            inner = Bbox.union([one.bbox for one in drawing.axes]).get_points()
            labels = axes.yaxis.label.get_position()[0], axes.xaxis.label.get_position()[1]
            aside, below = np.subtract(labels, axes.bbox.min)
            (left, bottom), (right, top) = (inner - outer + room) / drawing.bbox.size
            drawing.subplots_adjust(left, bottom, right, top)
            before, ticks = ticks, self._ticks()
            if ticks == before:
                break
        axes.yaxis.set_label_coords(aside / axes.bbox.width, 0.5)  # else drawing looks through all ticks for the place
        axes.xaxis.set_label_coords(0.5, below / axes.bbox.height)

    def _ticks(self) -> list[list[float]]:
        axes = self.figure.axes
        return [[*axis.get_majorticklocs()] for axis in (*(a.xaxis for a in axes), *(a.yaxis for a in axes))]

    def svg(self) -> str:
        """Write what was drawn."""
        self.settle()
        mixed: Callable[..., Any] = MixedModeRenderer  # takes a pixel picture of what asks for one
        self.figure.draw(mixed(self.figure, *self.figure.get_size_inches(), DOTS, self.pen))
        self.pen.finalize()  # type: ignore[no-untyped-call]
        return _slim(self.out.getvalue())


def panel(draw: Callable[[Axes, Theme], str], height: float, title: str) -> Panel:
    """Draw one panel on light paper and repaint it for dark; `draw` returns the alternative text."""
    title, (light, dark) = spoken(title), THEMES
    with mpl.rc_context(_settings(light)):
        sheet = Sheet(height, title)
        alt = draw(sheet.axes, light)
        svg = sheet.svg()
    repainted = dict(zip(vars(light).values(), vars(dark).values(), strict=True))
    repainted |= {look.on(light, nth): look.on(dark, nth) for look in FAMILIES.values() for nth in range(SHADES)}
    return Panel(f"{title}. {alt}", svg, re.sub(r"#[0-9a-f]{6}\b", lambda hue: repainted.get(hue[0], hue[0]), svg))


def _settings(theme: Theme) -> Any:
    """Matplotlib's settings for a theme; the salt makes the same rows give the same bytes."""
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **{"font.size": 9.5, "grid.linewidth": 0.7, "axes.axisbelow": True, "svg.hashsalt": "hakmem"},
        "axes.unicode_minus": False,  # as in titles and tables
        **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
        "svg.fonttype": "none",  # letters stay letters: a quarter of the bytes
        **{"axes.edgecolor": theme.quiet, "grid.color": theme.grid},
        **dict.fromkeys(ink, theme.ink),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor"), theme.paper),
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


def whiskers(
    axes: Axes,
    at: Any,
    low: Any,
    high: Any,
    colours: Any,
    within: tuple[Any, Any] = (-math.inf, math.inf),
    upright: bool = False,
) -> None:
    """Draw intervals from `low` to `high` along x at the heights `at`, or upright at the places `at`, a colour each.

    Both ends have caps; one that lies beyond `within` is cut there and has an arrow. What a single block leaves open is
    not drawn.
    """
    at, low, high, least, most = (one.ravel() for one in np.broadcast_arrays(at, low, high, *within))
    shown = high < NOWHERE
    colours = np.broadcast_to(to_rgba_array(colours), (len(at), 4))[shown]
    at, low, high, least, most = at[shown], low[shown], high[shown], least[shown], most[shown]
    start, end = np.clip(low, least, most), np.clip(high, least, most)
    (axes.vlines if upright else axes.hlines)(at, start, end, colours, lw=1.1)
    marks = ("_", "v", "^") if upright else ("|", "<", ">")
    for place, cut, arrow in ((start, low < least, marks[1]), (end, high > most, marks[2])):
        for marker, which, size in ((marks[0], ~cut, 25), (arrow, cut, 12)):
            if which.any():
                x, y = (at, place) if upright else (place, at)
                style: dict[str, Any] = {"marker": marker, "lw": 0.8, "clip_on": False}
                axes.scatter(x[which], y[which], size, colours[which], **style)


def write_figure(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Write a figure right of the end of a bar."""
    look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    axes.annotate(text, (x, y), (5, 0), **look | style)


def legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend between title and picture, where nothing is drawn."""
    style: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False, "fontsize": 7}
    axes.legend(handles, labels, ncols=COLUMNS, columnspacing=1, handletextpad=0.3, **style)


def write_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names right of a chart at the ends of their lines (x, y, text, colour), one below another; do it last."""
    ordered = sorted(ends, key=lambda end: end[1])
    style: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False, "fontsize": 8, "va": "center"}
    notes = [axes.annotate(t, (1, 0), (8, 0), "axes fraction", color=colour, **style) for *_, t, colour in ordered]
    Sheet.of(axes).settle()
    starts, frame = axes.transData.transform([(x, y) for x, y, _, _ in ordered]), axes.bbox
    apart = 10 * np.arange(len(ordered))
    free = scipy.optimize.isotonic_regression(starts[:, 1] - apart).x
    heights = np.clip(free, frame.y0, max(frame.y0, frame.y1 - apart[-1])) + apart
    for note, height in zip(notes, heights, strict=True):
        note.xy = (1, (height - frame.y0) / frame.height)
    _leaders(axes, starts + [4, 0], [(frame.x1 + 6, height) for height in heights], [colour for *_, colour in ordered])


def write_names(
    axes: Axes, points: Sequence[tuple[float, float, str, str]], theme: Theme, lines: Sequence[Line] = ()
) -> None:
    """Write names beside points (x, y, text, colour), each at the free place nearest to its point; do it last.

    `lines` are further things on the chart that names should not cover, as (x0, y0, x1, y1) along an axis.
    """
    Sheet.of(axes).settle()
    spots = axes.transData.transform([(x, y) for x, y, _, _ in points])
    taken = np.hstack([spots - 3.5, spots + 3.5])
    ends = axes.transData.transform(np.reshape(lines, (-1, 2))).reshape(-1, 2, 2)
    thin = np.hstack([ends.min(axis=1) - 1, ends.max(axis=1) + 1])
    distance, degrees = np.array([*itertools.product((7, 8, 14, 21, 29, 38, 48), range(0, 360, 30))]).T
    angle = np.radians(degrees)
    away = np.column_stack([distance * np.cos(angle), distance * np.sin(angle)]).round(6)
    before = np.column_stack([(1 - np.sign(away[:, 0])) / 2, np.full(len(away), 0.5)])  # the share left of there, below
    behind = {"boxstyle": "square,pad=0.05", "facecolor": theme.paper, "edgecolor": "none", "alpha": 0.75}
    led = []
    for spot, (x, y, text, colour) in zip(spots, points, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "bbox": behind, "fontsize": 8, "color": colour}
        note = axes.annotate(text, (x, y), (0, 0), va="center", zorder=5, **style)
        size = Text.get_window_extent(note, Sheet.of(axes).pen).size + np.array([0, 1])
        corner = spot + away - size * before
        places = np.hstack([corner, corner + size])
        outside = (corner < axes.bbox.min).any(axis=1) | (corner + size > axes.bbox.max).any(axis=1)
        cost = 100 * outside + 10 * _overlaps(places, taken) + _overlaps(places, thin) + distance / 25
        best = int(np.argmin(cost))
        taken = np.vstack([taken, places[best]])
        note.set(position=away[best], ha=("left", "center", "right")[int(2 * before[best, 0])])
        if distance[best] > 8:
            upright = np.array([0, np.sign(away[best, 1]) * size[1] / 2]) * (away[best, 0] == 0)
            led.append((spot + 3 / distance[best] * away[best], spot + away[best] - upright, colour))
    if led:
        _leaders(axes, *zip(*led, strict=True))


def _overlaps(places: Any, others: Any) -> Any:
    """Count for each box (x0, y0, x1, y1) how many of the others it overlaps."""
    low, high = np.maximum(places[:, None, :2], others[:, :2]), np.minimum(places[:, None, 2:], others[:, 2:])
    return (low < high).all(axis=2).sum(axis=1)


def _leaders(axes: Axes, starts: Any, ends: Any, colours: Any) -> None:
    """Draw thin lines from points to their names, in points of the sheet."""
    lines = LineCollection([*zip(starts, ends, strict=True)], colors=colours, lw=0.6, transform=IdentityTransform())
    axes.add_artist(lines).set_clip_on(False)


def log_axis(axis: Any) -> None:
    """Write the figures of a logarithmic axis plainly, as many a decade as fit; call it when limits are set.

    One line marks what is between them: as ticks these would take longer to draw than the rest of a chart.
    """
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 60 * low else (1, 3) if high < 1000 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
    fine = np.outer(10.0 ** np.arange(math.floor(math.log10(low)), math.log10(high)), range(2, 10)).ravel()
    fine = fine[(low < fine) & (fine < high)]
    axes, across, at = axis.axes, axis.axis_name == "x", (fine, 0 * fine)
    style: dict[str, Any] = {"ls": "", "ms": 2, "mew": 0.6, "color": mpl.rcParams["xtick.color"], "clip_on": False}
    style["marker"], transform = (
        (TICKDOWN, axes.get_xaxis_transform) if across else (TICKLEFT, axes.get_yaxis_transform)
    )
    axes.add_artist(Line2D(*(at if across else at[::-1]), transform=transform(), **style))
