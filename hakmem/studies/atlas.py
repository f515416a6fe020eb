"""Maps of memory: which SuperSlabs and slabs are resident, of which class, how full; and any allocator's pages."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.patches import Patch

from hakmem.figure import Figure, Panel, Theme, panel
from hakmem.residency import OCTAVES, PLACES, UNIT, Residency

__all__ = ["PAINTS", "lines", "over_time", "pages", "slabs"]

ROWS = 48  # SuperSlabs on one chart, or lines in a terminal
ACROSS = 32  # units of 64 KiB in a row of a page map
_SIZES = [to_hex(colormaps["viridis"](0.08 + 0.9 * k / (len(OCTAVES) - 1))) for k in range(len(OCTAVES))]
PAINTS = dict(
    zip(PLACES, [*_SIZES, "#d9730d", "#c2261a", "#b0307e", "#9aa4ae", "#6b7682", "#c9d1d9"], strict=True)
)  # of every place, on light and on dark paper
_LETTERS = dict(zip(PLACES, [*"01234567M", "L", "D", "w", ":", "k", "."], strict=True))
_SHADES = " ░▒▓█"


def _table(of: Residency) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Place, fill (%) and resident share (%) of every unit: a row a SuperSlab that is in use, a column a unit."""
    per = of.units.assign(
        fill=100 * of.units["out_kb"] * 1024 / UNIT, resident=100 * of.units["resident_kb"] * 1024 / UNIT
    )
    per.loc[per["place"] == "direct", "fill"] = 100.0
    shown = per.groupby("superslab")["place"].transform(lambda places: (places != "decommitted").any())
    tables = (
        per[shown].pivot(index="superslab", columns="unit", values=name) for name in ("place", "fill", "resident")
    )
    place, fill, resident = tables
    return place, fill, resident


def lines(of: Residency, rows: int = ROWS) -> list[str]:
    """Draw the map in text, a line a SuperSlab: a letter a slab for what it holds, then a shade for how full it is.

    A letter is the class C0..C7 or M of a slab, L a larger block, D a direct mapping, w the warm pool, a colon a free
    slab that is resident, a dot one that is not; k a kept empty SuperSlab.
    """
    place, fill, resident = _table(of)
    made = []
    for number in place.index[:rows]:
        letters = [_LETTERS[name] for name in place.loc[number]]
        gone = resident.loc[number] == 0
        letters = ["." if empty and letter in ":k" else letter for letter, empty in zip(letters, gone, strict=True)]
        steps = np.ceil(fill.loc[number].clip(0, 100).to_numpy() / 100 * (len(_SHADES) - 1)).astype(int)
        mb = resident.loc[number].sum() / 100 * UNIT / 2**20
        made.append(f"{number:5d} {mb:5.2f} MB  {''.join(letters)}  {''.join(_SHADES[step] for step in steps)}")
    if len(place) > rows:
        made.append(f"and {len(place) - rows} more SuperSlabs")
    return made


def slabs(of: Residency, name: str = "") -> Figure:
    """Draw the residency map: every slab's class, and how full it is, a row a SuperSlab.

    Parameters
    ----------
    of : Residency
    name : str
        Of the program or arm, for the title.
    """
    place, fill, resident = _table(of)
    found = of.places()
    total, out = found["resident_mb"].sum(), found["out_mb"].sum()
    title = (
        f"{name or f'process {of.pid}'}: {total:.3g} MB of slabs are resident, {out:.3g} MB of blocks are out of them"
    )
    more = f" Of {len(place)} SuperSlabs the first {ROWS} are shown." if len(place) > ROWS else ""
    panels = (
        _place_panel(place.head(ROWS), resident.head(ROWS), title),
        _fill_panel(fill.head(ROWS), resident.head(ROWS), _fill_title(found)),
    )
    note = (
        "A row is a SuperSlab, a cell one slab of 64 KiB. Empty cells are not resident at all; blocks are out of a "
        f"slab while the program or a thread cache has them.{more}"
    )
    return Figure("Which slabs are resident.", note, panels, found.reset_index())


def _height(rows: int) -> float:
    return 1.5 + 0.16 * max(rows, 3)


def _fill_title(found: pd.DataFrame) -> str:
    held = found[found["resident_mb"] > 0]
    if held.empty:
        return "No slab is resident"
    free = (held["resident_mb"] - held["out_mb"]).sort_values()
    return f"Most free memory stands in {free.index[-1]}: {max(0.0, free.iloc[-1]):.2g} MB"


def _place_panel(place: pd.DataFrame, resident: pd.DataFrame, title: str) -> Panel:
    seen = place.where(resident > 0)
    used = [name for name in PLACES if (seen == name).to_numpy().any()]
    codes = place.map(lambda name: used.index(name) if name in used else -1).astype(float)
    counts = {name: int((place == name).to_numpy().sum()) for name in used}

    def draw(axes: Axes, theme: Theme) -> str:
        paint = ListedColormap([PAINTS[name] for name in used])
        hidden = (resident.to_numpy() == 0) | (codes.to_numpy() < 0)
        _grid(axes, theme, codes, hidden, paint, (-0.5, len(used) - 0.5), bar=False)
        patches = [Patch(color=PAINTS[name], label=name) for name in used]
        axes.legend(handles=patches, ncols=1, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return "Slabs by what they hold: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."

    return panel(draw, _height(len(place)), title)


def _fill_panel(fill: pd.DataFrame, resident: pd.DataFrame, title: str) -> Panel:
    seen = fill.to_numpy()[resident.to_numpy() > 0]

    def draw(axes: Axes, theme: Theme) -> str:
        _grid(axes, theme, fill, resident.to_numpy() == 0, colormaps["cividis"], (0, 100), bar=True)
        axes.collections[0].colorbar.set_label("Blocks out of the slab (%)")  # type: ignore[union-attr]
        mean = float(seen.mean()) if seen.size else 0.0
        return f"Fill of the {seen.size} slabs that are resident: on average {mean:.0f} % of their bytes are out."

    return panel(draw, _height(len(fill)), title)


def _grid(
    axes: Axes,
    theme: Theme,
    values: pd.DataFrame,
    hidden: npt.NDArray[np.bool_],
    paint: object,
    limits: Sequence[float],
    bar: bool,
) -> None:
    """Draw one heat map; what is hidden shows the paper."""
    axes.grid(visible=False)
    sns.heatmap(
        values,
        mask=hidden,
        cmap=paint,
        vmin=limits[0],
        vmax=limits[1],
        cbar=bar,
        linewidths=0.4,
        linecolor=theme.grid,
        ax=axes,
        xticklabels=8,
        yticklabels=max(1, len(values) // 8),
    )
    axes.set_xlabel("Slab (64 KiB each)")
    axes.set_ylabel("SuperSlab")
    axes.tick_params(axis="y", rotation=0)


def pages(resident: Sequence[Sequence[int]], name: str, page: int = 4096) -> Panel:
    """Draw which pages of any allocator's memory are resident: a cell is 64 KiB of addresses, a row 2 MiB of them.

    Parameters
    ----------
    resident : sequence of pairs
        Number of the 64 KiB (address / 65536) and pages resident in it, as the driver `tax` tells.
    name : str
        Of the arm.
    page : int
        Bytes of a page.
    """
    told = pd.DataFrame([*resident], columns=["unit", "count"]).groupby("unit")["count"].sum()
    share = 100 * told * page / UNIT
    rows = pd.Index(sorted({int(unit) // ACROSS for unit in told.index}))
    grid = np.zeros((len(rows), ACROSS))
    for unit, value in share.items():
        grid[rows.get_loc(int(str(unit)) // ACROSS), int(str(unit)) % ACROSS] = value
    table = pd.DataFrame(grid, index=range(len(rows))).head(ROWS)
    mb, touched = float(told.sum()) * page / 2**20, int((table > 0).to_numpy().sum())
    full = 100 * mb * 2**20 / UNIT / max(1, len(told))

    def draw(axes: Axes, theme: Theme) -> str:
        _grid(axes, theme, table, table.to_numpy() == 0, colormaps["cividis"], (0, 100), bar=True)
        axes.collections[0].colorbar.set_label("Resident (%)")  # type: ignore[union-attr]
        axes.set_xlabel("64 KiB of addresses each")
        axes.set_ylabel("2 MiB touched")
        return f"{touched} of {table.size} cells hold resident pages, {full:.0f} % of each on average."

    return panel(draw, _height(len(table)), f"{name}: {mb:.3g} MB, {full:.0f} % of each 64 KiB it touches")


def over_time(samples: pd.DataFrame, name: str) -> Figure:
    """Draw residency by place over time.

    Parameters
    ----------
    samples : DataFrame
        From `live.Sampler.frame`.
    name : str
        Of the program.
    """
    places = [place for place in PLACES if samples[place].max() > 0]
    total = samples[places].sum(axis=1)
    peak, end = float(total.max()), float(total.iloc[-1])
    title = f"{name}: at most {peak:.3g} MB of slabs were resident, {end:.3g} MB at the end"

    def draw(axes: Axes, theme: Theme) -> str:
        axes.stackplot(
            samples["t_s"],
            *(samples[place] for place in places),
            labels=places,
            colors=[PAINTS[place] for place in places],
        )
        axes.set(xlabel="Time (s)", ylabel="Resident (MiB)", ylim=(0, None))
        axes.margins(x=0)
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], names[::-1], fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        last = ", ".join(f"{place} {samples[place].iloc[-1]:.2g} MB" for place in places)
        return f"{len(samples)} samples over {samples['t_s'].iloc[-1]:.3g} s; at the end {last}."

    thinned = samples[["t_s", *places]].iloc[:: max(1, len(samples) // 20)]
    note = (
        "Read from the page that the process shows of itself; a place is a class of slabs, or what else holds memory."
    )
    return Figure("Residency by class over time.", note, (panel(draw, 3.2, title),), thinned)
