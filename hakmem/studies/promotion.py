"""SAFE or BALANCED as the default: the published promotion, asked again on this machine.

BALANCED is promoted only for something: it has to be faster or to need less memory on a build, and to cost nothing on
any: neither speed, nor tails, nor system calls.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field, field_validator, model_validator

from hakmem import campaign, reference, stats, verdict, workload
from hakmem.drivers import Profile
from hakmem.figure import Figure, Theme, panel
from hakmem.planning import Plan
from hakmem.plots import looks_of
from hakmem.stats import BASELINE, BASELINE2, Interval
from hakmem.studies import soaks
from hakmem.studies.soaks import PAIR
from hakmem.study import STUDY, CampaignSpec, Parameters
from hakmem.verdict import SYSCALLS_PER_OP, Verdict, Word

__all__ = ["PromotionSpec", "budget", "judge", "memory", "published", "speed", "tail_chart", "tails"]

BUILDS = {"FAST": "hakmem_minimal", "Standard": "hakmem"}
SIZES: dict[Profile, dict[str, float]] = {
    "smoke": {"blocks": 2, "budget_minutes": 0.5, "budget_cycles": 20_000_000, "tail_seconds": 0.5},
    "quick": {"blocks": 10, "budget_minutes": 2, "budget_cycles": 200_000_000, "tail_seconds": 3},
    "full": {"blocks": 10, "budget_minutes": 20, "budget_cycles": 200_000_000, "tail_seconds": 20},
}
EPOCHS = 100  # of a soak that is asked about its tail
LESS = 1.0  # percent of memory below which nothing is gained
TAIL = 5.0  # percent by which the slow tail may fall


class PromotionSpec(Parameters):
    """Ten runs of each preset on FAST and on Standard, a long run for system calls, short soaks for tails.

    `blocks`, `budget_minutes` (of each of the four), `budget_cycles` and `tail_seconds` go by `profile`; `margin` is
    the change of throughput that matters, as a fraction.
    """

    study: str = Field(default="promotion", pattern=STUDY)
    workload: str = "mixed:ws=400"
    margin: float = Field(default=0.01, gt=0, le=0.5)
    budget_cycles: int = Field(ge=1_000_000, le=10**12)
    tail_seconds: float = Field(ge=0.1, le=86_400)

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, given: Any) -> Any:
        said = {name: value for name, value in dict(given).items() if value is not None}
        return SIZES.get(said.get("profile", "quick"), SIZES["quick"]) | said

    @field_validator("workload")
    @classmethod
    def _known_workload(cls, given: str) -> str:
        return workload.parse(given).text

    def campaigns(self) -> dict[str, CampaignSpec]:
        """Return the sweeps that answer it: FAST, Standard, budget and tail; all share the ledger."""
        same = self.model_dump(include={"study", "blocks", "budget_minutes", "profile", "seed"}) | PAIR
        epoch_s = self.tail_seconds / EPOCHS
        asked: dict[str, dict[str, object]] = {
            **{name: {"workloads": [self.workload], "allocators": build} for name, build in BUILDS.items()},
            "budget": {"workloads": [f"mixed:ws=400,cycles={self.budget_cycles}"], "allocators": "hakmem", "blocks": 2},
            "tail": {
                "workloads": [f"soak:ws=400,seconds={self.tail_seconds:g},epoch_seconds={epoch_s:g}"],
                "allocators": "hakmem_minimal",
            },
        }
        return {name: CampaignSpec.checked(same | one) for name, one in asked.items()}


# ---- what is weighed -------------------------------------------------------------------------------------------------


def speed(plans: Mapping[str, Plan], found: Mapping[str, pd.DataFrame], margin: float) -> dict[str, list[Verdict]]:
    """Judge BALANCED's throughput against SAFE's on each build; memory is weighed by itself."""

    def asked(rows: pd.DataFrame, alpha: float) -> list[Verdict]:
        return verdict.ab(rows, margin, alpha=alpha)

    return {build: campaign.verdicts(plans[build], found[build], asked) for build in BUILDS}


def budget(rows: pd.DataFrame) -> pd.DataFrame:
    """Hold system calls of the long run against their budget.

    Returns
    -------
    DataFrame
        One line a preset: operations, calls and calls an operation of its worst trial, the budget, and how many times
        under it that is (infinite where there were no calls).
    """
    good = stats.usable(rows).dropna(subset=["syscalls_per_op"])
    lines = []
    for preset, part in good.groupby(good["role"].map(soaks.NAMES), sort=False):
        worst = part.sort_values("syscalls_per_op").iloc[-1]
        per_op = float(worst["syscalls_per_op"])
        lines.append(
            {"preset": preset, "operations": int(worst["ops"]), "calls": round(per_op * worst["ops"])}
            | {"calls/op": per_op, "budget": SYSCALLS_PER_OP}
            | {"times under": SYSCALLS_PER_OP / per_op if per_op else np.inf}
        )
    return pd.DataFrame(lines)


def tails(rows: pd.DataFrame, ledger: Path) -> pd.DataFrame:
    """Compare the tails of short soaks with SAFE's, paired within blocks.

    Returns
    -------
    DataFrame
        Columns preset, what (slow tail: the slowest epoch in a hundred as a share of the median one; or longest
        stall), value (median over blocks: %, ms), change %, low %, high % (95 %; of SAFE (A) itself there is none) and
        blocks.
    """
    soaked = soaks.table(rows, ledger)
    lines = []
    for column, what in (
        ("longest stall ms", "longest stall, ms"),
        ("p1 of p50 %", "slow tail, % of the median epoch"),
    ):
        wide = soaked.pivot_table(index="block", columns="preset", values=column).astype(float)
        for preset in (name for name in soaks.NAMES.values() if name in wide):
            logs = np.log((wide[preset] / wide[soaks.NAMES["baseline"]]).dropna().to_numpy())
            own = preset == soaks.NAMES["baseline"]
            found = None if own or len(logs) < 2 else stats.interval(logs).percent()
            lines.append(
                {"preset": preset, "what": what, "value": float(wide[preset].median())} | _ends(found, len(logs))
            )
    return pd.DataFrame(lines)


def _ends(found: Interval | None, blocks: int) -> dict[str, float | int | None]:
    names = ("change %", "low %", "high %")
    ends = (found.estimate, found.low, found.high) if found else (None, None, None)
    return dict(zip(names, ends, strict=True)) | {"blocks": blocks}


def memory(found: Mapping[str, pd.DataFrame]) -> dict[str, Interval]:
    """Return the change of peak memory by build, in percent, of BALANCED against SAFE."""
    changes = {}
    for build in BUILDS:
        wide = stats.wide(found[build], "peak_rss_mb")
        arms = [name for name in wide.columns if name not in (BASELINE, BASELINE2)]
        logs = stats.log_ratios(wide, arms[0]) if arms else np.empty(0)
        changes[build] = stats.interval(logs).percent()
    return changes


def judge(
    pace: Sequence[Verdict], peak: Mapping[str, Interval], calls: pd.DataFrame, tail: pd.DataFrame
) -> tuple[Word, list[str]]:
    """Say which preset should be the default here.

    Parameters
    ----------
    pace : sequence of Verdict
        Of BALANCED against SAFE on each build.
    peak : mapping of str to Interval
        What `memory` returns.
    calls, tail : DataFrame
        What `budget` and `tails` return.

    Returns
    -------
    tuple
        NO-GO where BALANCED is slower on a build, has a slow tail that is surely over 5 % slower, or exceeds the budget
        of system calls; GO where it is faster, or needs less memory, on a build and harms none; INCONCLUSIVE while its
        speed or tail is open; else NEUTRAL: nothing to gain, so that SAFE stays.
    """
    words = {one.word for one in pace}
    mine = tail[(tail["preset"] == "BALANCED") & tail["what"].str.startswith("slow tail")].iloc[0]
    known = mine["low %"] is not None and bool(np.isfinite(mine["low %"]))
    slower_tail = known and mine["high %"] < -TAIL
    steady_tail = known and mine["low %"] > -TAIL
    over = calls["calls/op"].max() > SYSCALLS_PER_OP if len(calls) else False
    leaner = [build for build, change in peak.items() if change.high < -LESS]
    if "NO-GO" in words or slower_tail or over:
        word: Word = "NO-GO"
    elif "INCONCLUSIVE" in words or not steady_tail or calls.empty:
        word = "INCONCLUSIVE"
    else:
        word = "GO" if "GO" in words or leaner else "NEUTRAL"
    says = {
        "GO": "BALANCED can be the default here.",
        "NO-GO": "SAFE stays the default: BALANCED costs something.",
        "NEUTRAL": "SAFE stays the default: BALANCED changes nothing that matters here.",
        "INCONCLUSIVE": "SAFE stays the default until more blocks tell.",
    }[word]
    builds = {allocator: build for build, allocator in BUILDS.items()}
    paces = ", ".join(f"{builds[v.arm.split(' ')[0]]} {_span(v.effect)} ({v.word})" for v in pace)
    sizes = ", ".join(f"{build} {_span(change)}" for build, change in peak.items())
    worst = (
        f"{calls['calls/op'].max():.2g} system calls an operation at most" if len(calls) else "no system calls counted"
    )
    slow = _span(Interval(mine["change %"], mine["low %"], mine["high %"], 0.95, "", 0)) if known else "not told yet"
    return word, [
        says,
        f"Throughput, BALANCED against SAFE: {paces}.",
        f"Peak memory: {sizes}.",
        f"Slow tail: {slow}; {worst}, the budget is {SYSCALLS_PER_OP:g}.",
    ]


def _span(found: Interval) -> str:
    bounded = found.high - found.low < 1000
    return f"{found.estimate:+.1f} %" + (f" ({found.low:+.1f} to {found.high:+.1f})" if bounded else " (open)")


def published(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put today's FAST and system calls beside the published figures."""
    fast = stats.usable(found["FAST"])
    base, other = fast[fast["role"] == "baseline"]["mops"], fast[fast["role"] == "arm"]["mops"]
    here = {
        ("throughput", "baseline"): float(base.mean()) if len(base) else None,
        ("throughput", "LEAN+OFF"): float(other.mean()) if len(other) else None,
        ("cv", "baseline"): 100 * stats.cv(base) if len(base) > 1 else None,
        ("cv", "LEAN+OFF"): 100 * stats.cv(other) if len(other) > 1 else None,
    }
    calls = budget(found["budget"])
    worst = {("syscalls_per_op", "hakmem"): float(calls["calls/op"].max()) if len(calls) else None}
    return pd.concat([reference.beside("lean", here), reference.beside("syscalls", worst)], ignore_index=True)


# ---- the chart of tails ----------------------------------------------------------------------------------------------


def tail_chart(rows: pd.DataFrame, ledger: Path) -> Figure:
    """Draw the change of both tails against SAFE, with 95 % intervals."""
    found = tails(rows, ledger)
    shown = found.dropna(subset=["change %"])
    looks = {soaks.NAMES[look.role]: look for look in looks_of(rows).values()}
    slow = shown[(shown["preset"] == "BALANCED") & shown["what"].str.startswith("slow")]
    title = "Tails: BALANCED is not told apart from SAFE"
    if len(slow) and (slow["low %"].iloc[0] > 0 or slow["high %"].iloc[0] < 0):
        title = f"Tails: BALANCED's slow tail is {slow['change %'].iloc[0]:+.1f} % of SAFE's"
    names = [f"{line['preset']}: {line['what'].split(',')[0]}" for line in shown.to_dict("records")]

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvline(0, color=theme.quiet, lw=1)
        reach = 60.0
        for y, line in enumerate(shown.to_dict("records")):
            look = looks[str(line["preset"])]
            mid, low, high = (max(-reach, min(reach, float(line[name]))) for name in ("change %", "low %", "high %"))
            style: dict[str, Any] = {"fmt": look.family.marker, "ms": 6.5, "color": look.colour(theme), "capsize": 2.5}
            axes.errorbar(mid, y, xerr=[[mid - low], [high - mid]], **style)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.7, max(len(names), 1) - 0.3)
        axes.set_xlim(-reach, reach)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Change against SAFE (A), % (bars end at 60)")
        told = zip(names, shown.to_dict("records"), strict=True)
        return "; ".join(f"{name} {line['change %']:+.1f} %" for name, line in told) + "."

    note = (
        "Slow tail: the slowest epoch in a hundred as a share of the median one, less is worse. Longest stall: more is "
        "worse, and one interrupt of the machine makes it. Paired within blocks, 95 % intervals."
    )
    return Figure("Are the tails as good?", note, (panel(draw, 2.6, title),), found)
