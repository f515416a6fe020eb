"""Verdicts: GO, NO-GO, NEUTRAL, INCONCLUSIVE, NOT-APPLICABLE, each with the rule that gave it and what it rests on.

Two questions are answered, both as pure functions of the ledger's rows. `lean`: does an arm bring memory down to its
target at a bearable price? `ab`: is an arm faster (or smaller) than the baseline? `judge` asks the one that a study is
about. Both begin alike: a crash is NO-GO, and so are system calls that run away. Arms of one workload are judged
together, by intervals whose levels make the whole Holm's procedure.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, computed_field, field_serializer

from hakmem import stats
from hakmem.stats import BASELINE, NOWHERE, Drift, Interval

__all__ = [
    "Verdict",
    "ab",
    "calls_beyond_pages",
    "decide_ab",
    "judge",
    "lean",
    "memory_of",
    "overall",
    "prices",
    "unreachable",
]

Word = Literal["GO", "NO-GO", "NEUTRAL", "INCONCLUSIVE", "NOT-APPLICABLE"]
ICONS: dict[Word, str] = {"GO": "✔", "NO-GO": "✖", "NEUTRAL": "≈", "INCONCLUSIVE": "?", "NOT-APPLICABLE": "–"}
COLOURS: dict[Word, str] = {  # white text on each has a contrast of at least 4.5
    "GO": "#1a7f37",
    "NO-GO": "#b42318",
    "NEUTRAL": "#4b5a75",
    "INCONCLUSIVE": "#8a5a00",
    "NOT-APPLICABLE": "#5c6370",
}
WORST_FIRST: tuple[Word, ...] = ("NO-GO", "INCONCLUSIVE", "NEUTRAL", "GO")

LOSS = math.log(0.90)  # the throughput that a smaller footprint may cost
SYSCALLS_PER_OP = 1e-4  # the budget; above it system calls run away
SYSCALLS_TIMES = 10  # ... and above so many times the baseline's
SYSCALLS_QUIET = 1e-7  # a rate nobody minds: the baseline counts as at least this
PAGE = 4096  # bytes; giving one back may take a call
SYSCALLS_FEW = 100  # calls in one trial that cannot be a run-away, however short the trial
SYSCALLS_OPS = 500_000  # the budget is one of many operations (200 million): of fewer, starting alone takes it all
TARGET_GATE, MODE_GATE, LEAN_GATE = "HAKMEM_SS_MEM_LEAN_TARGET_MB", "HAKMEM_SS_MEM_LEAN_DECOMMIT", "HAKMEM_SS_MEM_LEAN"
TIMES = ("purge_ns",)  # counters that hold a time: what was done tells more than how long it took
SHRINKING = ("ramp", "phases", "battle")  # drivers that free most of their data: what is left counts, the peak is data


class Verdict(BaseModel):
    """One arm on one workload: the word, and everything needed to doubt it.

    `effect` is the change of throughput (or of the metric asked for) in percent, `memory` that of the memory that
    counts, `floor` the difference of the two baselines in percent. `blocks_needed` are still to come, None where blocks
    would not help. `bite`: whether the gates changed any counter or byte, None where nothing tells. Where several
    layouts of the code were compared, the interval is over `layouts`, and `layout_spread` is the standard deviation of
    the effect from one to the next, in percent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    workload: str
    host: str
    arm: str
    word: Word
    rule: str
    because: str
    effect: Interval
    memory: Interval | None = None
    floor: float
    blocks: int
    blocks_needed: int | None = None
    bite: bool | None = None
    bite_words: str = ""
    layouts: int = 0
    layout_spread: float | None = None

    @field_serializer("effect", "memory", "floor", when_used="json")
    def _told(self, value: Interval | float | None) -> dict[str, Any] | float | None:
        """Write null for what was not measured and for an end that is nowhere: JSON knows no other word."""
        if isinstance(value, Interval):
            return {name: _finite(one) if isinstance(one, float) else one for name, one in asdict(value).items()}
        return _finite(value)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def icon(self) -> str:
        """One character beside the word, so that colour alone says nothing."""
        return ICONS[self.word]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def colour(self) -> str:
        """Background of the banner, dark enough for white text."""
        return COLOURS[self.word]


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < NOWHERE else None


@dataclass(frozen=True)
class Ruling:
    """A word with its rule and reason, before it is dressed up with figures."""

    word: Word
    rule: str
    because: str
    total_blocks: int | None = None  # needed in all, for INCONCLUSIVE


def memory_of(workload: str) -> str:
    """Name the column of memory that counts: the peak, or what is left where the program frees most of its data.

    Left-over memory is counted without pages that the kernel may take at will (MADV_FREE); peaks cannot be told apart
    so.
    """
    return "end_rss_less_lazyfree_mb" if workload.split(":")[0] in SHRINKING else "peak_rss_mb"


# ---- the rules that come first in every study ------------------------------------------------------------------------


def _crash(rows: pd.DataFrame) -> Ruling | None:
    """Hold trials against an arm that did not end well; how one ended that was lost with its worker nobody knows."""
    bad = rows[~rows["status"].isin(["ok", "lost"])]
    if bad.empty:
        return None
    kinds = ", ".join(f"{n} {status}" for status, n in bad["status"].value_counts().items())
    return Ruling("NO-GO", "a crash, a hang or garbage is NO-GO", f"{kinds} of {len(rows)} trials")


def calls_beyond_pages(rows: pd.DataFrame, base: pd.DataFrame, workload: str) -> float:
    """Count system calls an operation; of a program that shrinks those beyond one for each page that it gave back."""
    calls, left = rows["syscalls_per_op"].median(), "end_rss_less_lazyfree_mb"
    if memory_of(workload) == "peak_rss_mb":
        return float(calls)
    given_back = max(0.0, float(np.nan_to_num(base[left].median() - rows[left].median()))) * 2**20 / PAGE
    return float(calls - given_back / rows["ops"].median())


def unreachable(rows: pd.DataFrame, base: pd.DataFrame, workload: str) -> tuple[float, float] | None:
    """Return the target that an arm could not reach (MiB), and what it reached; None where it did, or got nowhere.

    The arm itself counts each search for pages that left the process above its target.
    """
    memory = memory_of(workload)
    reached, target = rows[memory].median(), _target(rows, math.inf)
    tried = rows["counters"].map(lambda told: bool((told or {}).get("target_unreachable")))
    return (target, float(reached)) if tried.any() and target < reached < base[memory].median() else None


def _runaway(rows: pd.DataFrame, base: pd.DataFrame, workload: str) -> Ruling | None:
    """Hold system calls against their budget; calls that gave back pages of a program that shrinks are excused.

    Too many in a trial of few operations are INCONCLUSIVE: calls of the start cannot be told from a run-away.
    """
    ops, theirs = rows["ops"].median(), base["syscalls_per_op"].median()
    mine = calls_beyond_pages(rows, base, workload)
    if not mine * ops >= SYSCALLS_FEW:
        return None
    beyond = " (beyond one for each page given back)" if memory_of(workload) != "peak_rss_mb" else ""
    rule = f"system calls over {SYSCALLS_PER_OP:g} an op, or {SYSCALLS_TIMES} times the baseline's, are NO-GO{beyond}"
    told = f"{mine:.2g} system calls an op"
    if mine <= SYSCALLS_PER_OP:
        if not (math.isfinite(theirs) and mine > SYSCALLS_TIMES * max(theirs, SYSCALLS_QUIET)):
            return None
        told += f" against {theirs:.2g} of the baseline"
    if ops < SYSCALLS_OPS:
        rule = f"system calls are told from {SYSCALLS_OPS:,.0f} operations a trial on"
        return Ruling("INCONCLUSIVE", rule, f"{told}, but only {ops:,.0f} operations")
    return Ruling("NO-GO", rule, told)


# ---- A/B -------------------------------------------------------------------------------------------------------------


def decide_ab(
    ratios: Mapping[str, stats.Array], floor: float, margin: float = 0.01, alpha: float = 0.05
) -> dict[str, tuple[Ruling, Interval]]:
    """Judge arms by their paired log ratios, where more is better.

    Parameters
    ----------
    ratios : mapping of arm to array, shape (blocks,)
        Log of arm over baseline.
    floor : float
        A/A floor on the log scale, NaN where the second baseline was not measured.
    margin : float
        Change that matters, as a fraction; the floor replaces it where that is coarser.
    alpha : float
        Error allowed to all arms together (at one look).

    Returns
    -------
    dict of arm to (Ruling, Interval)
        The interval is one of log ratios.
    """
    line = max(math.log1p(margin), 0.0 if math.isnan(floor) else floor)
    # A word says on which side of both lines an arm is: its p value is that of the line that is harder to tell it from.
    hardest = [max(stats.p_beyond(x, line), stats.p_beyond(x, -line)) for x in ratios.values()]
    levels = stats.holm_levels(hardest, alpha)
    return {
        arm: _rule_ab(x, stats.interval(x, float(level)), line)
        for (arm, x), level in zip(ratios.items(), levels, strict=True)
    }


def _rule_ab(x: stats.Array, found: Interval, line: float) -> tuple[Ruling, Interval]:
    percent = 100 * math.expm1(line)
    if found.low > line:
        word: Word = "GO"
        rule = f"the whole interval lies above +{percent:.2g} %"
    elif found.high < -line:
        word, rule = "NO-GO", f"the whole interval lies below -{percent:.2g} %"
    elif -line <= found.low and found.high <= line:
        word, rule = "NEUTRAL", f"the whole interval lies within ±{percent:.2g} %: no difference that matters"
    else:
        distance = min(abs(found.estimate - line), abs(found.estimate + line))
        total = _total_blocks(x, distance, found.level)
        return Ruling("INCONCLUSIVE", f"the interval crosses ±{percent:.2g} %", "too few blocks", total), found
    return Ruling(word, rule, f"{found.percent().estimate:+.2f} %"), found


def _total_blocks(x: stats.Array, distance: float, level: float) -> int | None:
    if x.size < 2:
        return 2
    needed = stats.blocks_needed(float(x.std(ddof=1)), distance, alpha=1 - level)
    return None if needed is None else max(needed, x.size + 1)


def ab(
    rows: pd.DataFrame,
    margin: float = 0.01,
    metric: str = "ops_per_s",
    *,
    more_is_better: bool = True,
    alpha: float = 0.05,
) -> list[Verdict]:
    """Judge every arm of a study against its baseline, on each workload and host apart.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    margin : float
        Change that matters, as a fraction.
    metric : str
        Column compared.
    more_is_better : bool
        False for memory and time.
    alpha : float
        Error allowed to all arms of one workload together, at this look.
    """
    sign = 1.0 if more_is_better else -1.0

    def judge(cell: pd.DataFrame, arms: Sequence[str]) -> dict[str, tuple[Ruling, Interval]]:
        table = stats.wide(cell, metric)
        ratios = {arm: sign * stats.log_ratios(table, arm) for arm in arms}
        return decide_ab(ratios, stats.noise_floor(table), margin, alpha)

    found = _verdicts(rows, judge, metric)
    if more_is_better:
        return found
    return [v.model_copy(update={"effect": _mirrored(v.effect)}) for v in found]


def _mirrored(found: Interval) -> Interval:
    """Turn the percent change of 1/x into that of x."""
    low, mid, high = (-math.log1p(max(x, -99.999999) / 100) for x in (found.high, found.estimate, found.low))
    return Interval(mid, low, high, found.level, found.method, found.n).percent()


# ---- Memory-Lean -----------------------------------------------------------------------------------------------------


def lean(rows: pd.DataFrame, target_mb: float = 10, alpha: float = 0.05) -> list[Verdict]:
    """Judge arms that promise less memory, on each workload and host apart.

    Parameters
    ----------
    rows : DataFrame
        The ledger's trials.
    target_mb : float
        Target in MiB for arms whose gates name none that they use.
    alpha : float
        Error allowed to all arms of one workload together, at this look.
    """

    def judge(cell: pd.DataFrame, arms: Sequence[str]) -> dict[str, tuple[Ruling, Interval]]:
        speed, memory = (stats.wide(cell, name) for name in ("ops_per_s", memory_of(str(cell["workload"].iloc[0]))))
        ratios = {arm: stats.log_ratios(speed, arm) for arm in arms}
        hardest = [_hardest(cell, memory, arm, target_mb, ratios[arm]) for arm in arms]
        levels = stats.holm_levels(hardest, alpha)
        return {
            arm: (
                _rule_lean(cell, memory, arm, target_mb, ratios[arm], float(level)),
                stats.interval(ratios[arm], float(level)),
            )
            for arm, level in zip(arms, levels, strict=True)
        }

    return _verdicts(rows, judge, "ops_per_s")


def _rule_lean(
    cell: pd.DataFrame, table: pd.DataFrame, arm: str, target_mb: float, speed: stats.Array, level: float
) -> Ruling:
    """Apply the rules from NOT-APPLICABLE on; `table` has the memory that counts, `speed` the arm's log ratios."""
    column = memory_of(str(cell["workload"].iloc[0]))
    target = _target(cell[cell["arm"] == arm], target_mb)
    what = "peak RSS" if column == "peak_rss_mb" else "RSS left"
    logs = {name: stats.over_layouts(np.log(table[name].dropna())) for name in (BASELINE, arm) if name in table}
    if len(logs) < 2 or speed.size < 2:
        return Ruling("INCONCLUSIVE", "an interval needs at least two blocks", f"blocks: {speed.size}", 2)
    base, mine = (stats.interval(logs[name], level) for name in (BASELINE, arm))
    if base.below(math.log(target)):
        rule = f"nothing to gain where the baseline's {what} is below {target:g} MB already"
        return Ruling("NOT-APPLICABLE", rule, f"baseline {math.exp(base.estimate):.1f} MB")

    ratio = stats.log_ratios(table, arm)
    floor = _memory_floor(table)
    pace = stats.interval(speed, level)
    meets, falls, slow = mine.below(math.log(target)), stats.interval(ratio, level).below(-floor), pace.below(LOSS)
    drift = arm_drift(cell[cell["arm"] == arm], level)
    # Nothing steady there to drift, unless a phase is repeated; nor in a program that is one operation and ends.
    breathes = column != "peak_rss_mb" or bool((cell["ops"] == 1).all())
    steady = drift.is_zero if drift else (True if breathes else None)
    figures = f"{what} {math.exp(base.estimate):.1f} to {math.exp(mine.estimate):.1f} MB"
    if meets and steady and slow is False:
        calm = "drift 0" if drift else "no steady stretch to drift"
        return Ruling("GO", f"{what} below {target:g} MB, {calm}, throughput within -10 %", figures)
    if falls is False:
        return Ruling("NO-GO", f"{what} does not fall", figures)
    failed = [
        (slow is True, "throughput falls by more than 10 %"),
        (meets is False, f"{what} stays above {target:g} MB"),
        (steady is False, "memory drifts"),
    ]
    if falls and any(bad for bad, _ in failed):
        lacks = ", ".join(words for bad, words in failed if bad)
        return Ruling("NEUTRAL", "RSS falls, but not within the rule: keep as a research gate", f"{figures}; {lacks}")
    doubts = [
        (slow is None, "throughput against -10 %", _total_blocks(speed, pace.estimate - LOSS, level)),
        (
            meets is None,
            f"{what} against {target:g} MB",
            _total_blocks(logs[arm], mine.estimate - math.log(target), level),
        ),
        (falls is None, f"whether {what} falls", _total_blocks(ratio, float(ratio.mean()) + floor, level)),
        (steady is None, "drift, which these trials do not measure (a soak does)", None),
    ]
    open_questions = [(words, total) for doubt, words, total in doubts if doubt]
    totals = [total for _, total in open_questions]
    known = [total for total in totals if total is not None]
    needed = max(known) if len(known) == len(totals) else None
    return Ruling("INCONCLUSIVE", "undecided: " + ", ".join(words for words, _ in open_questions), figures, needed)


def _hardest(cell: pd.DataFrame, table: pd.DataFrame, arm: str, target_mb: float, speed: stats.Array) -> float:
    """Return the largest p value among the lines that an arm is held against: each may be what its word rests on."""
    target = _target(cell[cell["arm"] == arm], target_mb)
    own = stats.over_layouts(np.log(table[arm].dropna())) if arm in table else np.array([])
    falls = stats.p_beyond(stats.log_ratios(table, arm), -_memory_floor(table))
    return max(stats.p_beyond(speed, LOSS), stats.p_beyond(own, math.log(target)), falls)


def _memory_floor(table: pd.DataFrame) -> float:
    """Return the change of memory that counts as one, on the log scale."""
    return max(0.01, float(np.nan_to_num(stats.noise_floor(table))))


def _target(rows: pd.DataFrame, default_mb: float) -> float:
    """Target of an arm: its own TARGET_MB where the gates make use of it, else the study's."""
    gates = (rows["effective_gates"].dropna().iloc[:1].tolist() or rows["gates"].iloc[:1].tolist())[0]
    uses = gates.get(LEAN_GATE) == "1" and gates.get(MODE_GATE) != "OFF"
    return float(gates.get(TARGET_GATE, default_mb)) if uses else float(default_mb)


def arm_drift(rows: pd.DataFrame, level: float = 0.95) -> Drift | None:
    """Drift of one arm on one workload, from phases of its trials that do the same work again.

    Alike are the end of the warm-up and the end of the run, or phases whose names differ in digits only (`shrunk0`,
    `shrunk1`). A trial gives one slope, the interval is over trials; a change within 64 KiB is below what so short a
    run resolves and counts as none. None where no phase is repeated or only one trial is there.
    """
    drifts = [found for phases in stats.usable(rows)["phases"] if (found := _trial_drift(phases)) is not None]
    return stats.pooled_drift(drifts, level) if len(drifts) > 1 else None


def _trial_drift(phases: Sequence[Mapping[str, float | str | None]]) -> Drift | None:
    alike: dict[str, list[tuple[float, float]]] = {}
    for phase in phases:
        if phase["rss_kb"] is not None and phase["t_s"] is not None:
            stem = "steady" if phase["name"] in ("warm", "done") else re.sub(r"\d+", "", str(phase["name"]))
            point = float(phase["t_s"]), float(phase["rss_kb"]) - float(phase["lazyfree_kb"] or 0)
            alike.setdefault(stem, []).append(point)
    repeated = [points for points in alike.values() if len({t for t, _ in points}) > 1]
    if not repeated:
        return None
    times, kb = np.array(repeated[-1]).T
    found = stats.drift(times, kb)
    flat = stats.Interval(0.0, 0.0, 0.0, found.slope.level, found.slope.method, found.slope.n)
    return found if np.ptp(kb) > 64 else Drift(flat, found.first_kb, found.last_kb)


def judge(rows: pd.DataFrame, target_mb: float = 10, alpha: float = 0.05) -> list[Verdict]:
    """Ask what a study is about: `lean` where one of its arms runs Lean, else `ab`."""
    asked = rows.loc[rows["role"] == "arm", "gates"]
    about_memory = any(gates.get(LEAN_GATE) == "1" for gates in asked)
    return lean(rows, target_mb, alpha) if about_memory else ab(rows, alpha=alpha)


# ---- from rulings to verdicts ----------------------------------------------------------------------------------------


def _verdicts(
    rows: pd.DataFrame,
    judge: Callable[[pd.DataFrame, Sequence[str]], dict[str, tuple[Ruling, Interval]]],
    metric: str,
) -> list[Verdict]:
    """Judge every arm of every workload on every host; rows of different hosts never meet."""
    verdicts = []
    for (host, workload), cell in rows.groupby(["host", "workload"], sort=False):
        arms = list(dict.fromkeys(cell.loc[cell["role"] == "arm", "arm"]))
        base, both = cell[cell["role"] == "baseline"], cell[cell["role"].isin(["baseline", "baseline2"])]
        table, memory = stats.wide(cell, metric), stats.wide(cell, memory_of(str(workload)))
        floor = 100 * math.expm1(stats.noise_floor(table))
        for arm, (ruling, effect) in judge(cell, arms).items():
            mine = cell[(cell["arm"] == arm) & (cell["role"] == "arm")]
            calls = _runaway(mine, base, str(workload))
            if calls and (calls.word == "NO-GO" or ruling.word == "GO"):
                ruling = calls
            ruling = _crash(mine) or ruling
            bite, words = gate_bite(mine, both)
            saved = stats.log_ratios(memory, arm)
            laid_out = effect.n if mine["layout"].notna().any() else 0
            blocks = len(table[[BASELINE, arm]].dropna()) if laid_out else effect.n  # those that the interval rests on
            more = None if ruling.total_blocks is None else max(1, ruling.total_blocks - effect.n)
            spread = stats.layout_spread(table, arm)
            verdicts.append(
                Verdict(
                    workload=str(workload),
                    host=str(host),
                    arm=arm,
                    word=ruling.word,
                    rule=ruling.rule,
                    because=ruling.because + (f"; {_moves(spread)}" if spread else ""),
                    effect=effect.percent(),
                    memory=stats.interval(saved).percent() if saved.size else None,
                    floor=floor,
                    blocks=blocks,
                    # a further layout takes as many blocks as those there are
                    blocks_needed=math.ceil(more * blocks / effect.n) if more and laid_out else more,
                    bite=bite,
                    bite_words=words,
                    layouts=laid_out,
                    layout_spread=100 * math.expm1(spread.layout_sd) if spread else None,
                )
            )
    return verdicts


def _moves(spread: stats.LayoutSpread) -> str:
    """Say what is the layout's, apart from the effect."""
    return f"counted over {spread.layouts} layouts, which move it by ±{100 * math.expm1(spread.layout_sd):.2g} %"


def gate_bite(rows: pd.DataFrame, base: pd.DataFrame) -> tuple[bool | None, str]:
    """Tell whether an arm's gates changed anything: a counter, or a byte of memory.

    Changed means that all of the arm's trials lie on one side of all trials of both baselines.

    Returns
    -------
    (bool or None, str)
        None where the allocator counts nothing and memory was not read; the words name what changed most clearly.
    """
    mine, theirs = _figures(rows), _figures(base)
    names = [name for name in theirs.columns.intersection(mine.columns) if mine[name].notna().any()]
    if not names:
        return None, "nothing was counted"
    changes = []
    for name in names:
        a, b = theirs[name].dropna(), mine[name].dropna()
        if not a.empty and not b.empty and (b.min() > a.max() or b.max() < a.min()):
            size = abs(math.log((abs(b.median()) + 1) / (abs(a.median()) + 1)))
            changes.append((name not in TIMES, size, f"{name} {_count(a.median())} → {_count(b.median())}"))
    if changes:
        return True, max(changes)[2]
    counted = set(names) - {"peak_rss_kb", "end_rss_kb"}
    return (
        False,
        "the gates changed no counter and no byte" if counted else "no byte changed, and nothing else is counted",
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def _figures(rows: pd.DataFrame) -> pd.DataFrame:
    """Every counter and every memory figure, one column each, one line a good trial."""
    good = stats.usable(rows)
    counters = [
        {name: value for name, value in (counted or {}).items() if isinstance(value, int | float)}
        for counted in good["counters"].where(good["counters"].notna(), None)
    ]
    memory = good[["peak_rss_kb", "end_rss_kb"]].reset_index(drop=True).astype(float)
    return pd.concat([pd.DataFrame(counters, index=memory.index, dtype=float), memory], axis=1)


def overall(found: Sequence[Verdict]) -> tuple[Word, str, Verdict]:
    """Sum up a study: the word of its best arm over all workloads, that arm, and the verdict that shows most of it.

    An arm is GO where it is GO wherever the question applies; one NO-GO spoils it, then one INCONCLUSIVE. Among arms of
    the same word the one with more GO, then the one that saves more memory, is the best.
    """
    ranks: dict[Word, int] = {"GO": 4, "NEUTRAL": 3, "INCONCLUSIVE": 2, "NOT-APPLICABLE": 1, "NO-GO": 0}
    best: tuple[tuple[float, ...], Word, str, Verdict] | None = None
    for arm in dict.fromkeys(v.arm for v in found):
        mine = [v for v in found if v.arm == arm]
        words = {v.word for v in mine}
        applies = words - {"NOT-APPLICABLE"}
        word: Word = next((w for w in WORST_FIRST if w in applies), "NOT-APPLICABLE")
        shown = min(mine, key=lambda v: (v.word != word, v.memory.estimate if v.memory else 0.0))
        saved = -sum(v.memory.estimate for v in mine if v.memory)
        rank = (ranks[word], sum(v.word == "GO" for v in mine), saved)
        if best is None or rank > best[0]:
            best = rank, word, arm, shown
    if best is None:
        raise ValueError("no verdicts to sum up")
    return best[1:]


# ---- what a megabyte costs -------------------------------------------------------------------------------------------


def prices(rows: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Price of a saved MiB in percent of throughput, for every arm and workload, with the sentence that says it.

    Returns
    -------
    DataFrame
        Columns workload, arm, saved_mb, percent_per_mb, low, high, blocks, sentence; NaN where nothing was saved.
    """
    records = []
    for workload, cell in rows.groupby("workload", sort=False):
        column = memory_of(str(workload))
        table = stats.wide(cell, column)
        for arm in dict.fromkeys(cell.loc[cell["role"] == "arm", "arm"]):
            price = stats.price_of_a_megabyte(cell, arm, column, level=level)
            pairs = (table[BASELINE] - table[arm]).dropna() if {arm, BASELINE} <= set(table) else pd.Series(dtype=float)
            saved = float(pairs.mean()) if len(pairs) else math.nan
            sentence = _price_sentence(str(workload), arm, saved, len(pairs), price)
            records.append(
                {"workload": workload, "arm": arm, "saved_mb": saved}
                | {"percent_per_mb": price.estimate if price else math.nan}
                | {"low": price.low if price else math.nan, "high": price.high if price else math.nan}
                | {"blocks": price.n if price else 0, "sentence": sentence}
            )
    columns = ["workload", "arm", "saved_mb", "percent_per_mb", "low", "high", "blocks", "sentence"]
    return pd.DataFrame(records, columns=columns)


def _price_sentence(workload: str, arm: str, saved: float, blocks: int, price: Interval | None) -> str:
    if not blocks:
        return f"On {workload}, {arm} was not measured beside the baseline."
    if price is None and blocks < 2:
        return f"On {workload}, {arm} saves {saved:.1f} MB in a single block: too few for a price."
    if price is None:
        return f"On {workload}, {arm} saves no memory that could be told from noise."
    span = f"(95 % interval {price.low:+.2g} to {price.high:+.2g} % per MB)"
    if price.low <= 0 <= price.high:
        return f"On {workload}, {arm} saves {saved:.1f} MB; a megabyte costs nothing that could be measured {span}."
    verb = "costs" if price.estimate > 0 else "gains"
    buys = f": 1 % of throughput buys {1 / price.estimate:.2g} MB" if price.estimate > 0 else ""
    costs = f"a megabyte {verb} {abs(price.estimate):.2g} % throughput {span}{buys}"
    return f"On {workload}, {arm} saves {saved:.1f} MB; {costs}."
