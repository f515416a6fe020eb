"""Where blocks and time go between malloc and free: which stage serves a miss, where freed blocks return to.

Figures are the counters of the OBSERVE build, which counts on the fast path too; a trial gives one figure, intervals
are over blocks. Everything is told for 1,000 mallocs or frees, so trials of any length compare.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from pydantic import Field

from hakmem import stats
from hakmem.figure import FAMILIES, Figure, Theme, panel, whiskers
from hakmem.plots import looks_of
from hakmem.stats import BASELINE2, Interval
from hakmem.study import STUDY, CampaignSpec, Countable, GateSpec, Parameters, Several
from hakmem.verdict import Word

__all__ = ["HERE", "FreePipelineSpec", "early", "frees", "judge", "misses", "published", "rooms", "table"]

BUILD = "hakmem_observe"
ROOM = 1.04  # times the longest bar: where the axis ends
SERVED = 32  # blocks that a miss has to bring at least, on average
MISSES = {"refill_spare": "full chain behind", "refill_depot": "depot", "refill_slab": "slabs"}
RETURNS = {
    **{"reused": "reused by caches and depot", "ss_local": "slab of nobody, or of the same thread (ss_local)"},
    **{"ss_remote": "slab of another thread (ss_remote)"},
}
EARLY = {"purge_runs": "searched", "early_under_target": "under the target", "early_cpu_budget": "CPU budget spent"}
ROOMS = {
    **{"fast path": "fast path", "api": "fast path", "tcache": "thread caches", "depot": "thread caches"},
    **{"slab": "slabs", "misuse": "slabs"},
    **dict.fromkeys(("span", "superslab", "unit", "lean", "policy", "os", "large"), "SuperSlabs and below"),
    "stats": "counting (OBSERVE)",
}
PER = 1000.0
Bar = tuple[str, str, str]  # workload, arm, what


class FreePipelineSpec(Parameters):
    """The workloads that are followed, speed-first and under Lean; of `counted` the instructions."""

    study: str = Field(default="free_pipeline", pattern=STUDY)
    workloads: Several[str] = ("mixed:ws=400", "larson", "pc", "churn")
    counted: Countable = ("mixed:ws=400", "larson", "pc", "churn")
    target_mb: int = Field(default=10, ge=1)

    def campaign(self) -> CampaignSpec:
        """Return the sweep: OBSERVE speed-first and under Lean."""
        lean = {"decommit": "DONTNEED", "target_mb": self.target_mb}
        return CampaignSpec.checked({**self.shared(), **lean, "workloads": self.workloads, "allocators": BUILD})

    def superslab(self) -> CampaignSpec:
        """Return the published question: what the SuperSlab backend brings on larson."""
        asked = {**self.shared(), "gate": "TINY_USE_SUPERSLAB", "workloads": "larson"}
        return GateSpec.checked(asked).campaign()


# ---- figures ---------------------------------------------------------------------------------------------------------


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn counters into flows.

    Parameters
    ----------
    rows : DataFrame
        Trials of the OBSERVE build.

    Returns
    -------
    DataFrame
        One row a workload, arm and figure: what, estimate, low, high (95 % over blocks, t), blocks. Misses are events
        for 1,000 mallocs; returns are blocks of 1,000 freed; early returns are shares of the looks at the target (%);
        moved is blocks that a miss or an overflow moved, purge the share of time spent giving back (%).
    """
    records = []
    for name, cell in rows.groupby("workload", sort=False):
        looks, good = looks_of(cell), stats.usable(cell)
        for key, look in sorted(looks.items(), key=lambda pair: pair[1].role != "baseline"):
            if key == BASELINE2:
                continue
            mine = good[stats.keys(good) == key]
            told = zip(mine["counters"], mine["wall_s"], strict=True)
            flows = pd.DataFrame([_flows(counted, wall_s) for counted, wall_s in told if counted])
            for what in flows:
                found = stats.t_interval(flows[what].dropna())
                records.append(
                    {"workload": str(name), "arm": look.name.removesuffix(" (A)"), "what": what}
                    | {"estimate": found.estimate, "low": float(np.maximum(found.low, 0)), "high": found.high}
                    | {"blocks": found.n}
                )
    return pd.DataFrame(records, columns=["workload", "arm", "what", "estimate", "low", "high", "blocks"])


def _flows(counted: Mapping[str, float], wall_s: float) -> dict[str, float]:
    n = {str(name): float(value) for name, value in counted.items()}
    events = sum(n[stage] for stage in MISSES)
    mallocs, freed = n["malloc_fast"] + events, max(n["free_fast"], n["ss_local"] + n["ss_remote"], 1.0)
    found = {stage: PER * n[stage] / mallocs for stage in MISSES} | {"misses": PER * events / mallocs}
    home = {name: PER * n[name] / freed for name in ("ss_local", "ss_remote")}
    looks = sum(n[name] for name in EARLY)
    moves = events + n["overflow"]
    return (
        found
        | {"reused": PER - sum(home.values()), **home, "returned": sum(home.values())}
        | {name: 100 * n[name] / looks if looks else math.nan for name in EARLY}
        | {"moved": n["tls_sll"] / moves if moves else math.nan}
        | {"new_slabs": PER * n["refill_new"] / mallocs, "partial_slabs": PER * n["refill_partial"] / mallocs}
        | {"purge": 100 * n["purge_ns"] / 1e9 / wall_s}
    )


HERE = {"with superslab": "the backend on (default)", "before superslab": "the backend off (TINY_USE_SUPERSLAB=0)"}


def published(superslab: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Return larson's throughput (Mops/s) with and without the SuperSlab backend, under the published names."""
    good = stats.usable(superslab)
    found = {role: good.loc[good["role"] == role, "mops"].median() for role in ("baseline", "arm")}
    return {
        ("throughput", name): float(found[role]) if math.isfinite(found[role]) else None
        for name, role in (("with superslab", "baseline"), ("before superslab", "arm"))
    }


def judge(found: pd.DataFrame, superslab: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge the refills of speed-first: a miss has to bring many blocks.

    Returns
    -------
    tuple
        GO where, on every workload, the whole interval of misses lies under one for `SERVED` mallocs; NO-GO where one
        lies above; else INCONCLUSIVE; and what to say, the finding first.
    """
    missed, home, remote = (_first(found, what) for what in ("misses", "returned", "ss_remote"))
    if not missed:
        return "INCONCLUSIVE", ["Nothing was counted."]
    line = PER / SERVED
    sides = [one.below(line) for one in missed.values()]
    word: Word = "NO-GO" if False in sides else "INCONCLUSIVE" if None in sides else "GO"
    most, worst = _most(missed)
    best, least = min((one.estimate, name) for name, one in missed.items())
    (home_on, returned), (remote_on, crossed) = _most(home), _most(remote)
    return word, [
        f"Of 1,000 mallocs the hot list serves all but {_figure(worst)} on {most}, all but {_figure(best)} on {least}.",
        f"Of 1,000 freed blocks {_figure(returned)} go back to a slab on {home_on}, where most do; the caches hand the "
        f"rest out again. At most {_figure(crossed)} ({remote_on}) go to a slab of another thread: a slab that ran "
        "full belongs to nobody, whoever frees into it.",
        *_superslab(superslab),
        f"The line: fewer than one miss for {SERVED} mallocs, with the whole interval.",
    ]


def _first(found: pd.DataFrame, what: str) -> dict[str, Interval]:
    """Intervals of a figure under speed-first, by workload."""
    mine = found[(found["arm"] == BUILD) & (found["what"] == what)]
    figures = zip(mine["workload"], mine["estimate"], mine["low"], mine["high"], mine["blocks"], strict=True)
    return {str(name): Interval(mid, low, high, 0.95, "t", int(n)) for name, mid, low, high, n in figures}


def _most(found: Mapping[str, Interval]) -> tuple[str, float]:
    return _largest({name: one.estimate for name, one in found.items()})


def _largest(values: Mapping[str, float]) -> tuple[str, float]:
    return max(values.items(), key=lambda pair: pair[1], default=("", 0.0))


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _superslab(rows: pd.DataFrame) -> list[str]:
    arms = rows.loc[rows["role"] == "arm", "arm"].unique()
    if not len(arms):
        return []
    x = -stats.log_ratios(stats.wide(rows, "ops_per_s"), str(arms[0]))
    if not x.size:
        return []
    gain = stats.interval(x).percent()
    return [f"The SuperSlab backend changes larson's throughput by {gain.words()}; published was +19 %."]


# ---- charts ----------------------------------------------------------------------------------------------------------


def misses(found: pd.DataFrame) -> Figure:
    """Draw which stage serves what the hot list does not."""
    worst, missed = _most(_first(found, "misses"))
    title = f"Speed-first misses most on {worst}: {_figure(missed)} of 1,000 mallocs"
    note = (
        "Mallocs, of 1,000, that the hot list could not serve, by the stage that did: the full chain behind it, the "
        "depot of other threads' chains, slabs. Bars are means over blocks, lines 95 % intervals of the whole."
    )
    return _stacked(found, MISSES, "misses", "Misses of 1,000 mallocs", title, note, "Which stage serves a miss.")


def frees(found: pd.DataFrame) -> Figure:
    """Draw where freed blocks end up."""
    most, returned = _most(_first(found, "returned"))
    title = f"Speed-first sends most blocks home on {most}: {returned / 10:.0f} % of those freed"
    note = (
        "Of 1,000 freed blocks: handed out again by thread caches and depot, or returned to their slab, which belongs "
        "to nobody or to the freeing thread, or to another thread. Means over blocks; lines are 95 % intervals of what "
        "stays."
    )
    return _stacked(found, RETURNS, "reused", "Blocks of 1,000 freed", title, note, "Where freed blocks go.")


def early(found: pd.DataFrame) -> Figure:
    """Draw how often Lean looks whether to give back, and why it returns early."""
    lean = found[found["arm"] != BUILD]
    under = lean[lean["what"] == "early_under_target"]["estimate"]
    title = f"Under Lean {under.median():.4g} % of the looks end early, since the target is met"
    note = (
        "Whenever slabs are refilled or blocks return, Lean looks whether the process is above its target. Shares of "
        "these looks: a search for free pages, or an early return because the target is met or the CPU budget is "
        "spent. Means over blocks; lines are 95 % intervals of the searches."
    )
    return _stacked(lean, EARLY, "purge_runs", "Looks at the target (%)", title, note, "Early returns.")


def rooms(counts: pd.DataFrame) -> Figure:
    """Draw the instructions of an operation by the room they stand in; `counts` comes from `callgrind.by_room`."""
    named = counts.assign(what=counts["room"].map(ROOMS).fillna("other"))
    summed = named.groupby(["workload", "arm", "what"], sort=False)["instructions"].sum().reset_index()
    summed = summed.rename(columns={"instructions": "estimate"}).assign(blocks=1)
    summed["arm"] = summed["arm"].where(summed["arm"] == BUILD, summed["arm"].str.removeprefix(f"{BUILD} LEAN "))
    parts = {name: name for name in dict.fromkeys([*ROOMS.values(), "other"])}
    behind = summed[(summed["arm"] == BUILD) & ~summed["what"].isin(["fast path", "counting (OBSERVE)"])]
    shares = behind.groupby("workload")["estimate"].sum()
    most, share = _largest({str(name): float(n) for name, n in shares.items()})
    title = f"Speed-first spends most behind the fast path on {most}: {share:.0f} instructions an op"
    note = (
        "Instructions of the allocator an operation, by the source file they stand in, counted under callgrind: exact, "
        "so there is no interval. What OBSERVE spends on counting is shown apart; the other builds do not have it."
    )
    return _stacked(summed, parts, None, "Instructions an operation", title, note, "Where the time goes.")


def _stacked(
    found: pd.DataFrame, parts: Mapping[str, str], whole: str | None, unit: str, title: str, note: str, heading: str
) -> Figure:
    """Draw a bar a workload and arm, stacked of parts, with the interval of `whole`."""
    shown = found[found["what"].isin([*parts, *([whole] if whole else [])])]
    bars = list(dict.fromkeys(zip(shown["workload"], shown["arm"], strict=True)))[::-1]
    keys = zip(shown["workload"], shown["arm"], shown["what"], strict=True)
    at = dict(zip(keys, shown.to_dict("records"), strict=True))
    drawn = (panel(_bars(at, bars, parts, whole, unit), 2.1 + 0.3 * len(bars), title),) if bars else ()
    return Figure(heading, note, drawn, shown.assign(what=shown["what"].map(parts).fillna(shown["what"])))


def _bars(
    at: Mapping[Bar, Mapping[Any, Any]],
    bars: Sequence[tuple[str, str]],
    parts: Mapping[str, str],
    whole: str | None,
    unit: str,
) -> Callable[[Axes, Theme], str]:
    colours = ("hakmem", "mimalloc", "LEAN FREE", "gates", "system", "jemalloc")

    def draw(axes: Axes, theme: Theme) -> str:
        words, most = [], max(sum(_estimate(at, (*bar, part)) for part in parts) for bar in bars) or 1.0
        fills = dict(zip(parts, (FAMILIES[name].on(theme) for name in colours), strict=False))
        for y, bar in enumerate(bars):
            done = 0.0
            for part, colour in fills.items():
                width = _estimate(at, (*bar, part))
                axes.barh(y, width, left=done, height=0.62, color=colour)
                done += width
            if whole and (*bar, whole) in at:
                _error(axes, at[(*bar, whole)], y, theme, most)
            told = ", ".join(f"{name} {_figure(_estimate(at, (*bar, part)))}" for part, name in parts.items())
            words.append(f"{' '.join(bar)}: {told}")
        axes.set_yticks(range(len(bars)), [f"{name}\n{_arm(arm)}" for name, arm in bars], fontsize=8)
        axes.set_xlim(0, ROOM * most)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)
        key = [Patch(color=fills[part], label=name) for part, name in parts.items()]
        axes.legend(
            handles=key,
            loc="lower left",
            bbox_to_anchor=(-0.3, 1.0),
            ncols=1 if len(key) < 4 else 2,
            frameon=False,
            fontsize=8,
        )
        return "; ".join(reversed(words)) + "."

    return draw


def _arm(arm: str) -> str:
    return "speed first" if arm == BUILD else f"Lean {arm}"


def _estimate(at: Mapping[Bar, Mapping[Any, Any]], key: Bar) -> float:
    return float(np.nan_to_num(at[key]["estimate"])) if key in at else 0.0


def _error(axes: Axes, line: Mapping[Any, Any], y: float, theme: Theme, most: float) -> None:
    """Draw the interval of a whole, cut at its own size and at the edge where blocks are few."""
    value = float(line["estimate"])
    if value > 0:
        whiskers(axes, y, line["low"], line["high"], theme.ink, (value / 2, min(2 * value, ROOM * most)))
