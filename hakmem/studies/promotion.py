"""SAFE or BALANCED as the default: the published promotion, asked again on this machine.

BALANCED is promoted only for something: it has to be faster or to need less memory on a build, and to cost nothing on
any: neither speed, nor tails, nor system calls.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from hakmem import campaign, crosscheck, plots, reference, stats, verdict, workload
from hakmem.drivers import Profile
from hakmem.figure import Figure, Theme, panel, whiskers
from hakmem.planning import Plan
from hakmem.stats import BASELINE, BASELINE2, Interval
from hakmem.studies import soaks
from hakmem.studies.soaks import PAIR
from hakmem.study import STUDY, CampaignSpec, Parameters
from hakmem.verdict import SYSCALLS_PER_OP, Verdict, Word
from hakmem.workload import Workload

__all__ = [
    "PromotionSpec",
    "budget",
    "judge",
    "memory",
    "named",
    "published",
    "speed",
    "tail_chart",
    "tails",
    "throughput",
    "traced",
]

BUILDS = {"FAST": "hakmem_minimal", "Standard": "hakmem"}
EPOCHS = 100  # of a soak that is asked about its tail
LESS = 1.0  # percent of memory below which nothing is gained
TAIL = 5.0  # percent by which the slow tail may fall
REACH = 60.0  # percent, of the chart


class PromotionSpec(Parameters):
    """Ten runs of each preset on FAST and on Standard, a long run for system calls, short soaks for tails.

    `blocks`, `budget_minutes` (of each of the four), `budget_cycles` and `tail_seconds` go by `profile`; `margin` is
    the change of throughput that matters, as a fraction.
    """

    SIZES: ClassVar[Mapping[Profile, Mapping[str, object]]] = {
        "smoke": {"blocks": 2, "budget_minutes": 0.5, "budget_cycles": 20_000_000, "tail_seconds": 0.5},
        "quick": {"blocks": 10, "budget_minutes": 2, "budget_cycles": 200_000_000, "tail_seconds": 3},
        "full": {"blocks": 10, "budget_minutes": 20, "budget_cycles": 200_000_000, "tail_seconds": 20},
    }
    study: str = Field(default="promotion", pattern=STUDY)
    workload: str = "mixed:ws=400"
    margin: float = Field(default=0.01, gt=0, le=0.5)
    budget_cycles: int = Field(ge=1_000_000, le=10**12)
    tail_seconds: float = Field(ge=0.1, le=86_400)

    @field_validator("workload")
    @classmethod
    def _known_workload(cls, given: str) -> str:
        return workload.parse(given).text

    def campaigns(self) -> dict[str, CampaignSpec]:
        """Return the sweeps that answer it: FAST, Standard, budget and tail; all share the ledger."""
        same = self.shared() | PAIR
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
        One line a preset: build, who counted, operations, calls and calls an operation of its worst trial, the budget,
        and how many times under it that is (infinite where there were no calls).
    """
    good = stats.usable(rows).dropna(subset=["syscalls_per_op"])
    lines = []
    for preset, part in good.groupby(good["role"].map(soaks.NAMES), sort=False):
        worst = part.sort_values("syscalls_per_op").iloc[-1]
        calls = round(float(worst["syscalls_per_op"]) * worst["ops"])
        lines.append({"preset": preset, "build": "Standard", "counted by": "itself"} | _held(calls, int(worst["ops"])))
    return pd.DataFrame(lines)


def traced(plan: Plan, work: Workload) -> pd.DataFrame:
    """Hold FAST, which counts nothing, against the same budget: strace counts, in an untimed run of each preset.

    Returns
    -------
    DataFrame
        As of `budget`; empty where strace cannot trace.

    Raises
    ------
    TrialFailed
        A traced run failed.
    """
    lines = []
    for arm in plan.arms if crosscheck.why_not() is None else ():
        if arm.role != "baseline2":
            calls, line = crosscheck.traced(plan.build, arm, work)
            named = {"preset": soaks.NAMES[arm.role], "build": "FAST", "counted by": "strace"}
            lines.append(named | _held(calls.total(), line.ops))
    return pd.DataFrame(lines)


def _held(calls: int, ops: int) -> dict[str, float]:
    under = SYSCALLS_PER_OP * ops / calls if calls else np.inf
    return {"operations": ops, "calls": calls, "calls/op": calls / ops, "budget": SYSCALLS_PER_OP, "times under": under}


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
            own = preset == soaks.NAMES["baseline"]
            logs = np.log((wide[preset] / wide.get(soaks.NAMES["baseline"], np.nan)).dropna().to_numpy())
            found = None if own or len(logs) < 2 else stats.interval(logs).percent()
            lines.append(
                {"preset": preset, "what": what, "value": float(wide[preset].median())} | _ends(found, len(logs))
            )
    return pd.DataFrame(lines, columns=["preset", "what", "value", "change %", "low %", "high %", "blocks"])


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
        What `budget` (and `traced`, beneath it) and `tails` return.

    Returns
    -------
    tuple
        NO-GO where BALANCED is slower on a build, has a slow tail that is surely over 5 % slower, or exceeds the budget
        of system calls; GO where it is faster, or needs less memory, on a build and harms none; INCONCLUSIVE while its
        speed or tail is open; else NEUTRAL: nothing to gain, so that SAFE stays.
    """
    words = {one.word for one in pace}
    slow = _slow_tail(tail)
    fallen = slow.below(-TAIL) if slow else None
    over = calls["calls/op"].max() > SYSCALLS_PER_OP if len(calls) else False
    leaner = [build for build, change in peak.items() if change.high < -LESS]
    if "NO-GO" in words or fallen or over:
        word: Word = "NO-GO"
    elif "INCONCLUSIVE" in words or fallen is None or calls.empty:
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
    paces = ", ".join(f"{builds[v.arm.split(' ')[0]]} {v.effect.words()}: {v.word}" for v in pace)
    sizes = ", ".join(f"{build} {change.words()}" for build, change in peak.items())
    worst = (
        f"{calls['calls/op'].max():.2g} system calls an operation at most" if len(calls) else "no system calls counted"
    )
    return word, [
        says,
        f"Throughput, BALANCED against SAFE: {paces}.",
        f"Peak memory: {sizes}.",
        f"Slow tail: {slow.words() if slow else 'not told yet'}; {worst}, the budget is {SYSCALLS_PER_OP:g}.",
    ]


def _slow_tail(tail: pd.DataFrame) -> Interval | None:
    """Return the change of BALANCED's slow tail; None where there are no two blocks."""
    mine = tail[(tail["preset"] == "BALANCED") & tail["what"].str.startswith("slow tail")].dropna(subset=["low %"])
    lines = mine[["change %", "low %", "high %", "blocks"]].to_numpy(dtype=float)
    return next((Interval(mid, low, high, 0.95, "t", int(n)) for mid, low, high, n in lines), None)


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
    names = {
        "baseline": "FAST, SAFE",
        "LEAN+OFF": "FAST, BALANCED",
        "hakmem": "Standard, the worst trial of both presets",
    }
    tables = reference.beside("lean", here, names), reference.beside("syscalls", worst, names)
    return pd.concat(tables, ignore_index=True)


# ---- charts ----------------------------------------------------------------------------------------------------------


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """Call the arms by the presets that they are, for a chart."""
    return rows.assign(arm=rows["role"].map({role: name.split()[0] for role, name in soaks.NAMES.items()}))


def throughput(rows: pd.DataFrame, judged: Sequence[Verdict], margin: float) -> Figure:
    """Draw the change of throughput on one build, as `plots.forest` does."""
    return plots.forest(named(rows), [one.model_copy(update={"arm": "BALANCED"}) for one in judged], margin)


def tail_chart(rows: pd.DataFrame, ledger: Path) -> Figure:
    """Draw the change of both tails against SAFE, with 95 % intervals."""
    found = tails(rows, ledger)
    shown = found.dropna(subset=["change %"])
    looks = {soaks.NAMES[look.role]: look for look in plots.looks_of(rows).values()}
    slow = _slow_tail(found)
    title = "Tails: BALANCED is not told apart from SAFE"
    if slow and (slow.low > 0 or slow.high < 0):
        side = "above" if slow.estimate > 0 else "below"
        title = f"Tails: BALANCED's slow tail lies {abs(slow.estimate):.1f} % {side} SAFE's"
    names = [f"{line['preset']}: {line['what'].split(',')[0]}" for line in shown.to_dict("records")]

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvline(0, color=theme.quiet, lw=1)
        for y, line in enumerate(shown.to_dict("records")):
            look = looks[str(line["preset"])]
            whiskers(axes, y, line["low %"], line["high %"], look.colour(theme), (-REACH, REACH))
            at, end = line["change %"], float(np.clip(line["change %"], -REACH, REACH))
            beyond = {} if at == end else {"marker": ">" if at > end else "<"}
            axes.plot(end, y, **look.mark(theme) | beyond)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.7, max(len(names), 1) - 0.3)
        axes.set_xlim(-1.06 * REACH, 1.06 * REACH)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Change against SAFE (A)\n(%; arrows lie beyond)")
        told = zip(names, shown.to_dict("records"), strict=True)
        return "; ".join(f"{name} {line['change %']:+.1f} %" for name, line in told) + "."

    note = (
        "Slow tail: the slowest epoch in a hundred as a share of the median one, less is worse. Longest stall: more is "
        "worse, and one interrupt of the machine makes it. Paired within blocks, 95 % intervals."
    )
    return Figure("Are the tails as good?", note, (panel(draw, 2.6, title),), found)
