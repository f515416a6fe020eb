"""Where every resident megabyte is: each part measured by itself, and their sum held against what the kernel says.

The driver `tax` tells of itself, with its blocks held: what each mapping holds (smaps), what hakmem counts room by
room, and which pages are resident (pagemap). No part is what the others leave over: that is called unaccounted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from hakmem import residency, stats
from hakmem.figure import Figure, Theme, panel, whiskers
from hakmem.plots import Look, cells, looks_of
from hakmem.stats import BASELINE, BASELINE2
from hakmem.studies import atlas
from hakmem.study import STUDY, CampaignSpec, GateSpec, Parameters, Several
from hakmem.verdict import Word

__all__ = ["HERE", "PARTS", "TaxSpec", "bars", "classes", "judge", "maps", "parts", "published", "table"]

LIMIT = 5.0  # percent of the resident memory that may be unaccounted for
LIVE_MB = 10.0  # with so much live
PAINTS = {
    "working set": "#2f6fd0",
    "rounded up": "#8fb8f0",
    "thread caches": "#1aa3a3",
    "free in slabs": "#e0a100",
    "empty slabs": "#d9480f",
    "metadata": "#9c4fd6",
    "allocator's code": "#c2255c",
    "held by the allocator": "#e0a100",
    "program and libraries": "#8a95a1",
}
PARTS = tuple(PAINTS)
HERE = {  # what stands for the published settings
    "hakmem FAST prefault default": "hakmem with SS_PREWARM=TOUCH",
    "hakmem FAST prefault 0": "hakmem, nothing touched in advance, prefault 0",
    "hakmem FAST prefault 20000000": "hakmem, nothing touched in advance, prefault 20000000",
    "total": "all of hakmem's metadata",
}
HELD = "held by the allocator"  # of a peer, which tells nothing of itself: anonymous memory less the working set


class TaxSpec(Parameters):
    """Slots of the live sets (40,000 hold 10 MB), the Lean arm, and the warm-ups ("prefault") that are compared."""

    study: str = Field(default="rss_tax", pattern=STUDY)
    ws: Several[int] = (400, 40_000)
    decommit: str = "DONTNEED"
    target_mb: int = Field(default=10, ge=1)
    prefault: Several[int] = (0, 20_000_000)

    @field_validator("ws")
    @classmethod
    def _some(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if min(given) < 1 or max(given) > 1_000_000:
            raise ValueError("it takes numbers of slots from 1 to 1000000, such as [400, 40000]")
        return given

    def campaign(self) -> CampaignSpec:
        """Return the sweep: hakmem speed-first and Lean, the system's allocator, the peers."""
        swept = {"lean": (0, 1), "decommit": self.decommit, "target_mb": self.target_mb}
        return CampaignSpec.checked({**self.shared(), **swept, "workloads": [f"tax:ws={ws}" for ws in self.ws]})

    def gates(self) -> dict[str, CampaignSpec]:
        """Return the A/B of prefault, and of prewarm that touches its memory, by gate; on the smallest live set."""
        sides = {"BENCH_PREFAULT": [str(count) for count in self.prefault], "SS_PREWARM": ["TOUCH"]}
        work = [f"tax:ws={min(self.ws)}"]
        return {
            gate: GateSpec.checked({**self.shared(), "gate": gate, "values": values, "workloads": work}).campaign()
            for gate, values in sides.items()
        }


# ---- parts -----------------------------------------------------------------------------------------------------------


def _free_in_slabs(of: residency.Residency) -> float:
    """MiB of resident slabs and larger blocks in which no block is: slab by slab, since a slab may be unwritten too."""
    held = of.units[of.units["place"].isin((*residency.OCTAVES, "large"))]
    return float((held["resident_kb"] - held["out_kb"]).clip(lower=0).sum()) / 1024


def _own(extra: dict[str, Any]) -> dict[str, float]:
    """Parts that hakmem counts by itself (MiB)."""
    inside = extra["residency"]
    empty = inside["warm_pool"]["resident"] + inside["free_slabs"]["resident"] + inside["superslabs"]["kept_resident"]
    live = sum(each["bytes_live"] for each in inside["classes"]) + inside["large"]["bytes"] + inside["direct"]["bytes"]
    counted = {
        "rounded up": live - 1024 * extra["live_kb"],  # two counts: of the allocator in its classes, of the program
        "thread caches": sum(each["bytes_cached"] for each in inside["classes"]),
        "empty slabs": empty,
        "metadata": sum(kind["resident"] for kind in inside["metadata"].values()),
    }
    found = {name: value / 2**20 for name, value in counted.items()}
    return found | {"free in slabs": _free_in_slabs(residency.of_json({"residency": inside}, "a trial"))}


def parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Take every trial apart.

    Parameters
    ----------
    rows : DataFrame
        Trials of the workload ``tax``.

    Returns
    -------
    DataFrame
        One row a good trial: workload, key (as `stats.wide` names arms), rss_mb (of the kernel's rollup), the `PARTS`
        in MiB (NaN where an allocator does not tell; the working set is what the program asked for), unaccounted_mb,
        and told (whether the allocator tells).
    """
    good, records = stats.usable(rows), []
    for key, row in zip(stats.keys(good), good.to_dict("records"), strict=True):
        extra, rss = row["extra"], row["phases"][-1]["rss_kb"] / 1024
        found = {
            "program and libraries": (extra["program_kb"] + extra["libraries_kb"] + extra["stack_kb"]) / 1024,
            "allocator's code": extra["allocator_kb"] / 1024,
            "working set": extra["live_kb"] / 1024,
        }
        told, live = "residency" in extra, found["working set"]
        anonymous = (extra["anonymous_kb"] + extra["heap_kb"]) / 1024
        found |= _own(extra) if told else {HELD: max(0.0, anonymous - live)}
        records.append(
            {"workload": row["workload"], "key": key, "rss_mb": rss}
            | {name: found.get(name, np.nan) for name in PARTS}
            | {"unaccounted_mb": rss - sum(found.values()), "told": told}
        )
    return pd.DataFrame(records)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the medians over trials: a row a workload and arm, MiB a part, unaccounted in percent of the whole."""
    lines = []
    for workload, cell in parts(rows).groupby("workload", sort=False):
        looks = looks_of(rows[rows["workload"] == workload])
        for key, mine in cell.groupby("key", sort=False):
            told = bool(mine["told"].all())
            share = (100 * mine["unaccounted_mb"] / mine["rss_mb"]).median() if told else np.nan
            medians = mine[["rss_mb", *PARTS]].median().to_dict()
            lines.append({"workload": workload, "arm": looks[str(key)].name, **medians, "unaccounted %": share})
    found = pd.DataFrame(lines).sort_values(["workload", "rss_mb"], ignore_index=True)
    return found.rename(columns={"rss_mb": "resident"}).dropna(axis=1, how="all")


def judge(rows: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge whether every megabyte is found: under 5 % unaccounted for, in every trial with 10 MB live.

    Returns
    -------
    tuple
        GO where it is, NO-GO where no trial is within it, else INCONCLUSIVE; and what to say, the finding first.
    """
    apart = parts(rows)
    mine = apart[apart["told"] & (apart["working set"] >= LIVE_MB)]
    if mine.empty:
        return "INCONCLUSIVE", [f"No trial of hakmem had {LIVE_MB:g} MB live: choose more slots (ws)."]
    share = 100 * mine["unaccounted_mb"].abs() / mine["rss_mb"]
    word: Word = "GO" if (share < LIMIT).all() else "NO-GO" if (share >= LIMIT).all() else "INCONCLUSIVE"
    first = mine[mine["key"] == BASELINE]
    shown = (first if len(first) else mine).median(numeric_only=True)
    held = ", ".join(f"{name} {shown[name]:.2f}" for name in PARTS if shown.get(name, 0) >= 0.005)
    return word, [
        f"At most {share.max():.2g} % of hakmem's memory is unaccounted for, in {len(mine)} trials with at least "
        f"{LIVE_MB:g} MB live (limit {LIMIT:g} %).",
        f"Of {shown['rss_mb']:.1f} MB speed-first: {held} MB.",
        *_beside(apart),
    ]


def _by_live(apart: pd.DataFrame) -> list[str]:
    """Return the workloads, the smallest live set first."""
    return [str(name) for name in apart.groupby("workload")["working set"].min().sort_values().index]


def _beside(apart: pd.DataFrame) -> list[str]:
    """Say what hakmem takes more than others, on the smallest live set."""
    least = _by_live(apart)[0]
    rss = apart[apart["workload"] == least].groupby("key", sort=False)["rss_mb"].median()
    others = [name for name in ("mimalloc", "system") if name in rss]
    if BASELINE not in rss or not others:
        return []
    words = ", ".join(f"{rss[name]:.2f} MB with {name}" for name in others)
    return [f"On {least} the process takes {rss[BASELINE]:.2f} MB with hakmem, {words}."]


def published(rows: pd.DataFrame, prefault: pd.DataFrame, prewarm: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Return today's figures under the published names: peaks on the smallest live set (MiB), metadata (KiB).

    The published default touched its SuperSlabs at the start, which is a gate here: its figure is that gate's.
    """
    apart = parts(rows)
    mine = apart[apart["key"] == BASELINE]
    least = _by_live(apart)[0] if len(apart) else ""

    def peak(of: pd.DataFrame, said: Callable[[pd.DataFrame], pd.Series]) -> float | None:
        good = stats.usable(of)
        good = good[said(good) & (good["workload"] == least)]
        return float(good["peak_rss_mb"].median()) if len(good) else None

    def warmed(count: str) -> Callable[[pd.DataFrame], pd.Series]:
        return lambda of: of["gates"].map(lambda gates: gates.get("HAKMEM_BENCH_PREFAULT") == count)

    def named(arm: str) -> Callable[[pd.DataFrame], pd.Series]:
        return lambda of: of["arm"] == arm

    return {
        ("peak_rss", "hakmem FAST prefault default"): peak(prewarm, lambda of: of["role"] == "arm"),
        ("peak_rss", "hakmem FAST prefault 0"): peak(prefault, warmed("0")),
        ("peak_rss", "hakmem FAST prefault 20000000"): peak(prefault, warmed("20000000")),
        **{("peak_rss", name): peak(rows, named(name)) for name in ("mimalloc", "system")},
        ("metadata", "total"): 1024 * float(mine["metadata"].median()) if len(mine) else None,
    }


# ---- charts ----------------------------------------------------------------------------------------------------------


def bars(rows: pd.DataFrame) -> Figure:
    """Draw what the memory of each arm consists of, one panel a workload."""
    apart, panels = parts(rows), []
    for workload, cell in cells(rows):
        mine = apart[(apart["workload"] == workload) & (apart["key"] != BASELINE2)]
        looks = {key: look for key, look in looks_of(cell).items() if key in set(mine["key"])}
        if not looks:
            continue
        told = mine[mine["told"] & (mine["key"] == BASELINE)].median(numeric_only=True)
        finding = "memory by what holds it"
        if len(told.dropna()):
            overhead = told["rss_mb"] - told["working set"] - told["program and libraries"]
            finding = f"hakmem adds {overhead:.2f} MB to {told['working set']:.2f} MB of blocks and the program"
        panels.append(panel(_bar_drawing(mine, looks), 1.9 + 0.34 * len(looks), f"{workload}: {finding}"))
    note = (
        "Medians over trials; the black bar is the whole, from least to most, as smaps_rollup has it. Each part is "
        f"counted by itself. Peers tell nothing: {HELD} is their anonymous memory less the working set."
    )
    return Figure("Where the resident megabytes are.", note, tuple(panels), table(rows))


def _bar_drawing(mine: pd.DataFrame, looks: dict[str, Look]) -> Callable[[Axes, Theme], str]:
    by = mine.groupby("key", sort=False)
    medians, whole = by[list(PARTS)].median().fillna(0.0), by["rss_mb"].agg(["median", "min", "max"])
    keys = list(whole["median"].sort_values().index)
    used = [name for name in PARTS if medians[name].max() > 0]

    def draw(axes: Axes, theme: Theme) -> str:
        left = np.zeros(len(keys))
        for name in used:
            width = medians.loc[keys, name].to_numpy()
            shown = "free in slabs, or " + HELD if name == "free in slabs" else name
            label = "_" if name == HELD else shown
            axes.barh(range(len(keys)), width, left=left, height=0.62, color=PAINTS[name], label=label)
            left += width
        at = whole.loc[keys]
        whiskers(axes, range(len(keys)), at["min"], at["max"], theme.ink)
        axes.plot(at["median"], range(len(keys)), "|", ms=13, mew=1.6, color=theme.ink)
        axes.set_yticks(range(len(keys)), [looks[str(key)].name for key in keys])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Resident (MiB)")
        axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.4, 0), borderaxespad=5, frameon=False)
        totals = at["median"].to_dict()
        words = [
            f"{looks[str(key)].name} {totals[key]:.3g} MB ("
            + ", ".join(f"{name} {mb:.2g}" for name, mb in line.items() if mb > 0)
            + ")"
            for key, line in medians.loc[keys].iterrows()
        ]
        return "Resident memory: " + "; ".join(words) + "."

    return draw


def classes(rows: pd.DataFrame) -> Figure:
    """Draw what hakmem's slabs hold, class by class, on the largest live set: a panel an arm, medians over trials."""
    good = stats.usable(rows)
    largest = _by_live(parts(rows))[-1]
    mine = good[
        (good["workload"] == largest)
        & (good["role"] != "baseline2")
        & good["extra"].map(lambda extra: "residency" in extra)
    ]
    looks, panels, tables = looks_of(mine), [], []
    for key, cell in mine.groupby(stats.keys(mine), sort=False):
        found = [residency.of_json(extra, "a trial").places().reset_index() for extra in cell["extra"]]
        medians = pd.concat(found).groupby("place", sort=False)[["resident_mb", "out_mb", "cached_mb"]].median()
        held = pd.DataFrame(
            {
                "held by the program": medians["out_mb"] - medians["cached_mb"],
                "thread caches": medians["cached_mb"],
                "free in slabs": (medians["resident_mb"] - medians["out_mb"]).clip(lower=0),
            }
        )[medians["resident_mb"] > 0]
        top = str(held.sum(axis=1).idxmax())
        title = f"{looks[str(key)].name}: {top} takes {held.loc[top].sum():.3g} of {held.to_numpy().sum():.3g} MB"
        panels.append(panel(_class_drawing(held), 1.6 + 0.24 * len(held), title))
        tables.append(held.reset_index().assign(arm=looks[str(key)].name))
    note = (
        f"{largest}, median over trials. C0 are blocks of 16 bytes, Ck of up to 16 << k, M those above 2 KiB in slabs, "
        "large those above 32 KiB."
    )
    return Figure("Slabs by class.", note, tuple(panels), pd.concat(tables, ignore_index=True))


def _class_drawing(held: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    paints = {"held by the program": PAINTS["working set"]} | PAINTS

    def draw(axes: Axes, theme: Theme) -> str:
        left = np.zeros(len(held))
        for name in held.columns:
            axes.barh(range(len(held)), held[name], left=left, height=0.62, color=paints[str(name)], label=name)
            left += held[name].to_numpy()
        axes.set_yticks(range(len(held)), [str(place) for place in held.index])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Resident (MiB)")
        axes.legend(fontsize=7, loc="lower right", frameon=True, facecolor=theme.paper, edgecolor=theme.grid)
        return "; ".join(
            f"{place} " + ", ".join(f"{name} {mb:.2g} MB" for name, mb in line.items())
            for place, line in held.iterrows()
        )

    return draw


def maps(rows: pd.DataFrame) -> tuple[Figure, Figure]:
    """Draw which slabs hakmem has resident, and beside it which pages the others have, on the largest live set.

    Returns
    -------
    tuple of Figure
        The map by class and fill of the baseline; pages of the baseline, Lean, mimalloc and the system's allocator.
    """
    good = stats.usable(rows)
    largest = _by_live(parts(rows))[-1]
    first = good[(good["workload"] == largest) & (good["role"] != "baseline2")].drop_duplicates("arm")
    looks = looks_of(first)
    chosen: dict[str, list[Any]] = {"baseline": [], "arm": [], "peer": []}
    for row in first.to_dict("records"):
        if row["role"] != "peer" or row["allocator"] in ("mimalloc", "system"):
            chosen[str(row["role"])].append(row)
    shown = [row for role in chosen.values() for row in role]
    told = next(row for row in shown if "residency" in row["extra"])
    own = atlas.slabs(residency.of_json({"residency": told["extra"]["residency"]}, "a trial"), f"hakmem on {largest}")
    names = {row["arm"]: looks[key].name for key, row in zip(stats.keys(first), first.to_dict("records"), strict=True)}
    panels = tuple(atlas.pages(row["extra"]["pages"], names[row["arm"]], _page(row)) for row in shown)
    counts = pd.DataFrame(
        {
            "arm": names[row["arm"]],
            "resident MB": sum(count for _, count in row["extra"]["pages"]) * _page(row) / 2**20,
            "64 KiB touched": len(row["extra"]["pages"]),
        }
        for row in shown
    )
    note = (
        f"One trial of each on {largest}; only memory that no file is behind. A row is 2 MiB of addresses; rows in "
        "which nothing is resident are left out. As the kernel's page map has it."
    )
    return own, Figure("Which pages are resident, beside others.", note, panels, counts)


def _page(row: Any) -> int:
    return int(1024 * row["extra"]["page_kb"])
