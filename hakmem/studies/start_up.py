"""What a process costs before it has done anything, and what preparing memory in advance ("prewarm") buys.

Figures come from the driver `start_up`: medians over the processes of a trial; intervals are over blocks.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from hakmem import stats, units
from hakmem.drivers import Profile
from hakmem.figure import Figure, Theme, log_axis, panel, whiskers, write_ends, write_figure
from hakmem.plots import Look, looks_of
from hakmem.stats import BASELINE, BASELINE2, Interval
from hakmem.study import STUDY, CampaignSpec, Parameters, Several
from hakmem.verdict import Word

__all__ = ["HERE", "StartUpSpec", "at_rest", "first_allocations", "judge", "published", "survivors", "table", "times"]

HOST = 1_000  # processes of a host, to which memory is extrapolated
SLOWER = 5.0  # percent of the time to ready that prewarm may cost
MORE_KB = 64.0  # memory at rest that it may cost
CLASSES = tuple(f"C{c}" for c in range(8))
OFF, TOUCH = "hakmem SS_PREWARM=OFF", "hakmem SS_PREWARM=TOUCH"
METRICS = {
    **{"to_main_us": "start to main (µs)", "ready_us": "start to ready (µs)", "rest_rss_kb": "resident (KiB)"},
    **{"rest_anon_kb": "its own (KiB)", "rest_pss_kb": "own and share (KiB)", "rest_tables_kb": "page tables (KiB)"},
    **{"faults_ready": "page faults", "at_once": "alive at once"},
}


class StartUpSpec(Parameters):
    """How many processes at once, and the container they have to fit into (MiB).

    `processes` goes by `profile`; `bursts_mb` are the amounts of data tried in a container of `container_mb`.
    """

    study: str = Field(default="start_up", pattern=STUDY)
    SIZES: ClassVar[Mapping[Profile, Mapping[str, object]]] = {  # both parts of a quick one take under 5 minutes
        "smoke": {"processes": 20},
        "quick": {"processes": 200, "budget_minutes": 2},
        "full": {"processes": HOST},
    }
    processes: int = Field(ge=2, le=100_000)
    container_mb: int = Field(default=64, ge=4, le=65536)
    bursts_mb: Several[int] = (40, 48, 52, 56, 60)

    @field_validator("bursts_mb")
    @classmethod
    def _ascending(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if list(given) != sorted(set(given)) or given[0] < 1:
            raise ValueError("it takes growing amounts of MiB, such as [40, 48, 56]")
        return given

    def many(self) -> str:
        """Name the workload of many processes at once."""
        return f"start_up:processes={self.processes}"

    def _campaign(self, workloads: Sequence[str], prewarm: Sequence[str]) -> CampaignSpec:
        swept = {"lean": (0, 1), "decommit": "DONTNEED", "target_mb": 10, "gates": {"SS_PREWARM": tuple(prewarm)}}
        return CampaignSpec.checked({**self.shared(), **swept, "workloads": tuple(workloads)})

    def campaign(self) -> CampaignSpec:
        """Return the sweep of one process after the other, and of many at once."""
        return self._campaign(("start_up", self.many()), ("RESERVE", "OFF", "TOUCH"))

    def contained(self) -> CampaignSpec:
        """Return the sweep of bursts within a container."""
        bursts = [f"container:limit_mb={self.container_mb},burst_mb={burst}" for burst in self.bursts_mb]
        return self._campaign(bursts, ("RESERVE", "TOUCH"))


# ---- figures ---------------------------------------------------------------------------------------------------------


def _figures(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the driver's own figures columns of their own."""
    told = pd.DataFrame([dict(extra or {}) for extra in rows["extra"]], index=rows.index)
    return rows.assign(**{str(name): told[name] for name in told})


def _intervals(rows: pd.DataFrame, metric: str) -> dict[str, Interval]:
    """Interval over blocks (natural scale, geometric) of a figure of every arm of one workload, by its key."""
    found = stats.wide(rows, metric)
    return {str(key): stats.interval(np.log(found[key].dropna())).exp() for key in found}


def _one_and_many(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    figures, names = _figures(rows), list(dict.fromkeys(rows["workload"]))
    one, many = "start_up", next((name for name in names if name != "start_up"), "start_up")
    return figures[figures["workload"] == one], figures[figures["workload"] == many]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate every figure of every arm.

    Returns
    -------
    DataFrame
        One row a workload and arm: times in µs, memory a process in KiB, and what `HOST` such processes would need in
        GiB (share of what is resident, and page tables; extrapolated from those that were alive at once).
    """
    records = []
    for workload, cell in _figures(rows).groupby("workload", sort=False):
        looks, found = looks_of(cell), {metric: _intervals(cell, metric) for metric in METRICS}
        for key, look in looks.items():
            if key in found["ready_us"]:
                line = {words: found[metric][key].estimate for metric, words in METRICS.items() if key in found[metric]}
                host = (line["own and share (KiB)"] + line["page tables (KiB)"]) * HOST / 2**20
                records.append({"workload": workload, "arm": look.name, **line, f"{HOST:,} of them (GiB)": host})
    return pd.DataFrame(records)


def survivors(rows: pd.DataFrame) -> pd.DataFrame:
    """Count the trials that a container let live: one row an arm, one column an amount of data."""
    bursts = rows["workload"].str.extract(r"burst_mb=(\d+)")[0].astype(int)
    alive = (rows["status"] == "ok").groupby([rows["arm"], bursts], sort=False).agg(["sum", "count"])
    told = alive["sum"].astype(str) + " of " + alive["count"].astype(str)
    wide = told.unstack().sort_index(axis=1)
    return wide.rename(columns=lambda burst: f"{burst} MB of data").rename_axis(columns=None).reset_index()


HERE = {  # what stands for the published peaks
    "hakmem FAST prefault default": "hakmem with SS_PREWARM=TOUCH, at rest",
    "mimalloc": "mimalloc, at rest",
    "system": "system, at rest",
}


def published(rows: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Return memory at rest (MiB) under the names of the published peaks: prewarm touched, as the old default was."""
    one, _ = _one_and_many(rows)
    found = _intervals(one, "rest_rss_kb") if len(one) else {}
    names = {"hakmem FAST prefault default": TOUCH, "mimalloc": "mimalloc", "system": "system"}
    return {("peak_rss", name): found[arm].estimate / 1024 if arm in found else None for name, arm in names.items()}


def judge(rows: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge the default prewarm (reserve, touch nothing) against none at all.

    Returns
    -------
    tuple
        GO where it costs under 5 % of the time to ready and under 64 KiB a process, with whole intervals; NO-GO where
        it surely costs more; and what to say, the finding first.
    """
    one, many = _one_and_many(rows)
    times, memory = stats.wide(one, "ready_us"), stats.wide(many, "rest_pss_kb")
    if not {OFF, BASELINE} <= set(times.columns.intersection(memory.columns)):
        return "INCONCLUSIVE", ["Prewarm and none at all were not both measured."]
    slower = stats.interval(-stats.log_ratios(times, OFF)).percent()
    more = stats.interval((memory[BASELINE] - memory[OFF]).dropna())
    within = [slower.below(SLOWER), more.below(MORE_KB)]
    word: Word = "NO-GO" if False in within else "INCONCLUSIVE" if None in within else "GO"
    return word, [
        f"Prewarm as it is by default (SuperSlabs reserved, not touched) changes the time from start to ready by "
        f"{slower.words()} and takes {more.words('KiB')} a process.",
        *_touched(one, many),
        f"The line: under {SLOWER:g} % of the time and under {MORE_KB:g} KiB, with the whole interval.",
    ]


def _touched(one: pd.DataFrame, many: pd.DataFrame) -> list[str]:
    """Say what touching costs and brings, and what a host of such processes needs."""
    ready, first = _intervals(one, "ready_us"), one.assign(first=_first_us(one))
    served, alive = _intervals(first, "first"), many["at_once"].max()
    if TOUCH not in ready:
        return []
    sentences = [
        f"Touching the pages in advance takes a process {ready[TOUCH].estimate / 1e3:.1f} ms to be ready instead of "
        f"{ready[BASELINE].estimate / 1e3:.2f} ms; the first malloc of all eight classes then takes "
        f"{served[TOUCH].estimate:.1f} µs instead of {served[BASELINE].estimate:.1f} µs."
    ]
    pss, tables = _intervals(many, "rest_pss_kb"), _intervals(many, "rest_tables_kb")
    if {BASELINE, TOUCH} <= set(pss):
        gib = {key: (pss[key].estimate + tables[key].estimate) * HOST / 2**20 for key in (BASELINE, TOUCH)}
        how = "measured" if alive >= HOST else f"extrapolated from {alive:.0f}"
        sentences.append(
            f"{HOST:,} processes at rest need {gib[BASELINE]:.2f} GiB, with touched pages {gib[TOUCH]:.1f} GiB ({how})."
        )
    return sentences


def _first_us(figures: pd.DataFrame) -> pd.Series:
    return figures[[f"first_{c.lower()}_ns" for c in CLASSES]].sum(axis=1) / 1e3


# ---- charts ----------------------------------------------------------------------------------------------------------


def _arms(cell: pd.DataFrame) -> dict[str, Look]:
    return {key: look for key, look in looks_of(cell).items() if key != BASELINE2}


def _flat(found: dict[str, Interval], looks: dict[str, Look], what: str) -> pd.DataFrame:
    lines = [
        {"arm": looks[key].name, "what": what, "estimate": i.estimate, "low": i.low, "high": i.high, "blocks": i.n}
        for key, i in found.items()
        if key in looks
    ]
    return pd.DataFrame(lines)


def _whisker(axes: Axes, at: float, found: Interval, colour: str, upright: bool = False) -> None:
    """Draw an interval, cut at a factor of two where blocks are few."""
    whiskers(axes, at, found.low, found.high, colour, (found.estimate / 2, 2 * found.estimate), upright)


def times(rows: pd.DataFrame) -> Figure:
    """Draw the time from a process's start to main() and to having served every class once."""
    one, _ = _one_and_many(rows)
    looks, main, ready = _arms(one), _intervals(one, "to_main_us"), _intervals(one, "ready_us")
    order = sorted(looks.keys() & ready.keys(), key=lambda key: -ready[key].estimate)
    title = "What a start takes"
    if {TOUCH, BASELINE} <= ready.keys():
        factor = ready[TOUCH].estimate / ready[BASELINE].estimate
        title = f"Touching pages in advance makes a start {factor:.1f} times as long"

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_xscale("log")
        for y, key in enumerate(order):
            for found, fill in ((main[key], "full"), (ready[key], "none")):
                _whisker(axes, y, found, looks[key].colour(theme))
                axes.plot(found.estimate, y, **looks[key].mark(theme, fill))
        axes.set_yticks(range(len(order)), [looks[key].name for key in order])
        axes.set_ylim(-0.7, len(order) - 0.3)
        axes.grid(visible=False, axis="y")
        log_axis(axes.xaxis)
        axes.set_xlabel("Since the process's start (µs, log scale)")
        words = (f"{looks[k].name} {main[k].estimate:.0f} and {ready[k].estimate:.0f} µs" for k in reversed(order))
        return f"To main and to ready: {'; '.join(words)}."

    note = (
        "Solid: start to main(). Hollow: until a block of every class was handed out and written. Geometric means over "
        "blocks of a trial's median process, with 95 % intervals, cut at a factor of two. The axis is logarithmic."
    )
    figures = pd.concat([_flat(main, looks, "to main (µs)"), _flat(ready, looks, "to ready (µs)")])
    return Figure("What a start takes.", note, (panel(draw, 1.5 + 0.3 * len(order), title),) if order else (), figures)


def first_allocations(rows: pd.DataFrame) -> Figure:
    """Draw the first malloc of each class, of hakmem's settings, the system's allocator and mimalloc."""
    one, _ = _one_and_many(rows)
    looks = {key: look for key, look in _arms(one).items() if key.startswith(("A", "hakmem", "system", "mimalloc"))}
    by_class = [_intervals(one, f"first_{c.lower()}_ns") for c in CLASSES]
    shown = [key for key in looks if all(key in found for found in by_class)]
    again = _intervals(one, "second_c1_ns")
    title = "What the first malloc of each class takes"
    if BASELINE in shown:
        typical = float(np.median([found[BASELINE].estimate for found in by_class[1:]]))
        title = f"A class's first malloc takes hakmem {typical:,.0f} ns, the next one {again[BASELINE].estimate:.0f} ns"

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set_yscale("log")
        ends, words = [], []
        for at, key in enumerate(shown):
            x = np.arange(len(CLASSES)) + 0.06 * (at - len(shown) / 2)
            y = np.array([found[key].estimate for found in by_class])
            for place, found in zip(x, by_class, strict=True):
                _whisker(axes, place, found[key], looks[key].colour(theme), upright=True)
            axes.plot(x, y, **looks[key].mark(theme, size=5) | {"ls": looks[key].line, "lw": 1.1})
            ends.append((float(x[-1]), float(y[-1]), looks[key].name, looks[key].colour(theme)))
            words.append(f"{looks[key].name} {y[0]:,.0f} ns in C0, {float(np.median(y[1:])):,.0f} ns in the others")
        axes.set_xticks(range(len(CLASSES)), CLASSES)
        axes.set_xlim(-0.4, len(CLASSES) - 0.5)
        log_axis(axes.yaxis)
        axes.set_xlabel("Class (C0: 16 bytes ... C7: 2 KiB), in this order")
        axes.set_ylabel("First malloc and write (ns, log scale)")
        write_ends(axes, ends)
        return "; ".join(words) + "."

    note = (
        "A malloc and one write, in a fresh process, C0 first, which so pays for the thread's own state. Geometric "
        "means over blocks of the median process, with 95 % intervals, cut at a factor of two. The axis is logarithmic."
    )
    figures = pd.concat([_flat(found, looks, f"{c} (ns)") for c, found in zip(CLASSES, by_class, strict=True)])
    return Figure("The first malloc of each class.", note, (panel(draw, 3.4, title),) if shown else (), figures)


def at_rest(rows: pd.DataFrame) -> Figure:
    """Draw the memory of one of many processes at rest: its own, its share of what is shared, its page tables."""
    _, many = _one_and_many(rows)
    own, shared = "own pages (KiB)", "share of shared pages (KiB)"
    parts = {own: many["rest_anon_kb"], shared: many["rest_pss_kb"] - many["rest_anon_kb"]}
    parts["page tables (KiB)"] = many["rest_tables_kb"]
    many = many.assign(all_kb=many["rest_pss_kb"] + many["rest_tables_kb"], **parts)
    looks, whole = _arms(many), _intervals(many, "all_kb")
    means = {part: _intervals(many, part) for part in parts}
    order = sorted(looks.keys() & whole.keys(), key=lambda key: -whole[key].estimate)
    title = "What a process at rest holds"
    if {TOUCH, BASELINE} <= whole.keys():
        title = (
            f"A process at rest holds {whole[BASELINE].estimate / 1024:.2g} MiB; "
            f"pages touched in advance make that {whole[TOUCH].estimate / 1024:.3g} MiB"
        )

    edge = 3.0 * float(np.median([whole[key].estimate for key in order])) if order else 1.0

    def draw(axes: Axes, theme: Theme) -> str:
        for y, key in enumerate(order):
            done = 0.0
            for part, fade in zip(parts, (0.95, 0.6, 0.3), strict=True):
                width = means[part][key].estimate if key in means[part] else 0.0
                axes.barh(y, width, left=done, height=0.6, color=looks[key].colour(theme), alpha=fade)
                done += width
            found, cut = whole[key], whole[key].estimate > edge
            if not cut:
                _whisker(axes, y, found, theme.ink)
            says = units.words(1024 * found.estimate, units.BYTES)
            if cut:
                write_figure(axes, 0.96 * edge, y, f"{says} →", ha="right", color=theme.paper)
            else:
                write_figure(axes, min(found.high, 2 * found.estimate, 0.8 * edge), y, says)
        axes.set_xlim(0, edge)
        axes.set_yticks(range(len(order)), [looks[key].name for key in order])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Memory of one process (KiB)")
        return ", ".join(f"{looks[key].name} {whole[key].estimate:,.0f} KiB" for key in reversed(order)) + "."

    alive = many["at_once"].max() if len(many) else 0
    note = (
        f"Of {alive:.0f} processes at once, each of which allocated once from every class. From strong to pale: its "
        "own pages, its share of shared ones, its page tables. Lines are 95 % intervals over blocks; an arrow is a bar "
        "cut at the edge."
    )
    figures = pd.concat([_flat(found, looks, part) for part, found in (*means.items(), ("all (KiB)", whole))])
    return Figure("Memory at rest.", note, (panel(draw, 1.5 + 0.3 * len(order), title),) if order else (), figures)
