"""Studies, trials and plans as tables that fit a terminal."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from hakmem import console, stats, store
from hakmem.crosscheck import Check
from hakmem.planning import Plan
from hakmem.soak import Analysis
from hakmem.verdict import Verdict, memory_of

NARROW = 110
ROLES = ("baseline", "baseline2", "arm", "peer")
BASELINES = {"baseline": stats.BASELINE, "baseline2": stats.BASELINE2}
TRIAL_COLUMNS = ["arm", "workload", "status", "ops/s or time", "peak MB", "end MB", "faults", "syscalls/op", "spoiled"]


def plan(made: Plan) -> None:
    """Print the arms of a study and what measuring them takes."""
    arms = made.frame()
    arms = arms if console.out.width >= NARROW else arms[["arm", "role", "version"]]
    console.table(list(arms.columns), arms.itertuples(index=False))
    console.say(made.summary())


def trials(rows: pd.DataFrame) -> None:
    """Print one line a trial."""
    several = rows["host"].nunique() > 1
    cells = []
    for _, row in rows.iterrows():
        figures = [row["peak_rss_mb"], row["end_rss_less_lazyfree_mb"], row["minflt"], row["syscalls_per_op"]]
        shown = [speed(row["ops_per_s"], row["ops"]), *map(console.number, figures)]
        where = [row["host"]] if several else []
        cells.append((row["arm"], row["workload"], *where, row["status"], *shown, "yes" if row["spoiled"] else ""))
    console.table([*TRIAL_COLUMNS[:2], *["host"] * several, *TRIAL_COLUMNS[2:]], cells)


def speed(ops_per_s: float, ops: float) -> str:
    """Write a rate; of what is one operation, a whole program, the seconds it took."""
    return f"{1 / ops_per_s:.3g} s" if ops == 1 and ops_per_s > 0 else console.rate(ops_per_s)


def _headings(cell: pd.DataFrame) -> tuple[str, str]:
    """Name the columns of speed and of its ratio: a whole program has a time, but more is better in every ratio."""
    return ("time", "speed to A (95 %)") if cell["ops"].max() == 1 else ("ops/s", "to A (95 %)")


def system_calls(checks: Iterable[Check]) -> None:
    """Print the allocators' counts of system calls beside strace's, a line a kind."""
    for check in checks:
        kinds = [(name, check.counted[name], seen) for name, seen in check.traced.items()]
        table = [(name, counted, seen, "" if counted == seen else "differ") for name, counted, seen in kinds]
        title = f"{check.arm} on {check.workload}, timed region"
        console.table(["system calls", "hakmem counts", "strace sees", ""], table, title=title)
        if not check.agrees:
            console.complain(f"{check.arm} on {check.workload}: hakmem's count of system calls and strace's differ")


def spoiled(rows: Iterable[store.Trial]) -> None:
    """Print what speaks against trials."""
    for trial in rows:
        for reason in trial.spoiled:
            console.complain(f"{trial.arm} on {trial.workload} is spoiled: {reason}")


def torn(rows: pd.DataFrame) -> None:
    """Print how many trials of a ledger are lost."""
    if count := rows.attrs.get("torn_lines", 0):
        console.complain(
            f"{count} line(s) of this ledger were cut short, by a crash or a full disk; their trials are lost"
        )


def studies(parts: Sequence[tuple[pd.DataFrame, Iterable[Verdict]]]) -> None:
    """Print what a ledger holds, sessions of another baseline apart; see `study`."""
    for rows, judged in parts:
        if len(parts) > 1:
            console.say(f"against {rows.loc[rows['role'] == 'baseline', 'arm'].iloc[0]}:")
        study(rows, judged)


def study(rows: pd.DataFrame, judged: Iterable[Verdict]) -> None:
    """Print one table a workload and host: an arm a line, medians over its trials, ratio to the baseline, verdict.

    What several hosts say together follows, as ratios within blocks: figures of two hosts are never pooled.
    """
    words = {(one.host, one.workload, one.arm): one for one in judged}
    several = rows["host"].nunique() > 1
    for work, cell in rows.groupby("workload", sort=False):
        for host, mine in cell.groupby("host"):
            title = f"{work} on {host}" if several else str(work)
            here = {arm: one for (at, on, arm), one in words.items() if (at, on) == (host, work)}
            _arms(mine, here, title)
            verdicts(here.values())
        together = {arm: one for (at, on, arm), one in words.items() if on == work and at not in set(cell["host"])}
        if together:
            _together(stats.wide(cell, "ops_per_s"), together, f"{work}, hosts together")
            verdicts(together.values())
    layouts(one for one in words.values() if one.layouts)


def verdicts(judged: Iterable[Verdict]) -> None:
    """Print each verdict with its rule and all that it rests on."""
    gates = {None: "whether the gates bit is not told: ", False: "", True: "the gates bit: "}
    for one in judged:
        level = f"interval at {100 * one.effect.level:.4g} %"
        floor = "not measured" if math.isnan(one.floor) else f"{one.floor:.2g} %"
        more = "" if one.blocks_needed is None else f", {one.blocks_needed} more needed"
        figures = f"throughput {one.effect.words()}, {level}; noise floor {floor}; {one.blocks} blocks{more}"
        told = f"{_word(one)} {one.arm}: {one.rule} ({one.because}); {figures}; {gates[one.bite]}{one.bite_words}"
        console.say(textwrap.fill(told, console.out.width, subsequent_indent="  "))


def layouts(judged: Iterable[Verdict]) -> None:
    """Print what is the code's and what is its layout's, apart."""
    lines = [
        (one.workload, one.arm, percent(one.effect), f"±{console.number(one.layout_spread)}", one.layouts, one.blocks)
        for one in judged
    ]
    if lines:
        columns = ["workload", "arm", "effect % (95 %)", "layout moves it by % (sd)", "layouts", "blocks"]
        console.table(columns, lines, title="over layouts")


def percent(found: stats.Interval) -> str:
    """Write an interval of percents."""
    return f"{found.estimate:+.2f} ({found.low:+.2f}..{found.high:+.2f})"


def _arms(cell: pd.DataFrame, words: Mapping[str, Verdict], title: str) -> None:
    """Print the arms of one workload on one host."""
    pace = stats.wide(cell, "ops_per_s")
    ranked = cell.assign(rank=cell["role"].map(ROLES.index)).sort_values(["rank", "arm"])
    lines, headings = [], _headings(cell)
    for (name, role), mine in ranked.groupby(["arm", "role"], sort=False):
        judged = words.get(str(name)) if role == "arm" else None
        lines.append(_line(str(name), str(role), mine, pace, judged, headings))
    narrow = _narrow(str(cell["workload"].iloc[0]), headings)
    columns = [name for name in lines[0] if console.out.width >= NARROW or name in narrow]
    console.table(columns, ([line[name] for name in columns] for line in lines), title=title)


def _together(pace: pd.DataFrame, words: Mapping[str, Verdict], title: str) -> None:
    lines = [(arm, _ratio(stats.log_ratios(pace, arm)), one.blocks, _word(one)) for arm, one in words.items()]
    console.table(["arm", "to A (95 %)", "blocks", "verdict"], lines, title=title)


def _line(
    name: str,
    role: str,
    mine: pd.DataFrame,
    pace: pd.DataFrame,
    judged: Verdict | None,
    headings: tuple[str, str],
) -> dict[str, str]:
    rate, ratio = headings
    good = mine[mine["status"] == "ok"]
    return {
        "arm": f"{name} ({BASELINES[role]})" if role in BASELINES else name,
        "ok": f"{len(good)}/{len(mine)}",
        rate: speed(good["ops_per_s"].median(), good["ops"].median()),
        ratio: "" if role == "baseline" else _ratio(stats.log_ratios(pace, BASELINES.get(role, name))),
        "peak MB": console.number(good["peak_rss_mb"].median()),
        "end MB": console.number(good["end_rss_less_lazyfree_mb"].median()),
        "syscalls/op": console.number(good["syscalls_per_op"].median()),
        "verdict": _word(judged),
    }


def _word(judged: Verdict | None) -> str:
    return f"{judged.icon} {judged.word}" if judged else ""


def _narrow(work: str, headings: tuple[str, str]) -> tuple[str, ...]:
    """Name the columns for a narrow terminal: of memory only what counts for the workload."""
    memory = "peak MB" if memory_of(work) == "peak_rss_mb" else "end MB"
    return ("arm", *headings, memory, "verdict")


def _ratio(logs: stats.Array) -> str:
    if not logs.size:
        return ""
    found = stats.interval(logs).exp()
    return f"{found.estimate:.2f} ({found.low:.2f}..{found.high:.2f})" if logs.size > 1 else f"{found.estimate:.2f}"


def epochs(label: str, rows: pd.DataFrame, seconds: float, last: int = 12) -> Table:
    """Return the last epochs of a running soak as a table, each rate with a bar against the fastest epoch."""
    fastest = rows["ops_per_s"].max()
    lines = []
    for _, row in rows.tail(last).iterrows():
        bar = "█" * round(20 * row["ops_per_s"] / fastest) if fastest > 0 else ""
        figures = [console.number(row[name]) for name in ("rss_mb", "live_mb", "stall_max_us")]
        lines.append((f"{row['t_s']:.1f}", console.rate(row["ops_per_s"]), bar, *figures))
    title = f"{label}: {rows['t_s'].max():.0f} of {seconds:.0f} s; Ctrl-C ends it and analyses what is there"
    return console.drawn(["t s", "ops/s", "", "RSS MB", "live MB", "longest stall us"], lines, title)


def soak(analyses: Iterable[Analysis]) -> None:
    """Print what soaks show, one column an arm."""
    found = list(analyses)
    words = {None: "", True: "yes", False: "no"}

    def slope(estimate: float | None, low: float | None, high: float | None, without: str) -> str:
        if estimate is None or low is None or high is None:
            return without
        return f"{estimate:+.3g} ({low:+.3g}..{high:+.3g})"

    def percentiles(one: Analysis) -> str:
        return " / ".join(console.rate(x) for x in (one.p50, one.p10, one.p1) if x is not None)

    lines: dict[str, list[str]] = {
        "epochs": [f"{one.epochs} in {one.seconds:.1f} s{' (ended early)' * one.stopped_early}" for one in found],
        "ops/s": [console.rate(one.ops_per_s or math.nan) for one in found],
        "CV %": [console.number(one.cv_percent) for one in found],
        "p50 / p10 / p1": [percentiles(one) for one in found],
        "slowest epoch": [console.rate(one.slowest_epoch or math.nan) for one in found],
        "longest stall us": [console.number(one.stall_max_us) for one in found],
        "RSS MB, first -> last": [
            f"{console.number(one.rss_first_mb)} -> {console.number(one.rss_last_mb)}" for one in found
        ],
        "slope KB/s (95 %)": [
            slope(one.slope_kb_per_s, one.slope_low, one.slope_high, "too few epochs") for one in found
        ],
        "drifts": [words[one.drifts] for one in found],
        "slope seen from outside": [
            slope(one.sampled_slope, one.sampled_low, one.sampled_high, "not sampled") for one in found
        ],
        "not in live blocks": [
            ""
            if one.fragmentation_last is None or one.fragmentation_first is None
            else f"{one.fragmentation_first:.1%} -> {one.fragmentation_last:.1%}"
            for one in found
        ],
        "peak MB": [console.number(one.peak_rss_mb) for one in found],
        "syscalls/op": [console.number(one.syscalls_per_op) for one in found],
        "within 1e-4 an op": [words[one.within_syscall_budget] for one in found],
    }
    console.table(["", *(one.arm for one in found)], ([name, *cells] for name, cells in lines.items()))


def bench(lines: list[dict[str, Any]]) -> None:
    """Print one table a workload and baseline: an allocator a line, with the command of its trials below."""
    for work, to in dict.fromkeys((line["workload"], line["to"]) for line in lines):
        mine = [line for line in lines if (line["workload"], line["to"]) == (work, to)]
        rate = f"ops/{mine[0]['per']}"
        columns = ["allocator", "version", "linkage", rate, "spread %", f"to {to} (95 %)", "blocks", "peak MB"]
        cells = []
        for line in mine:
            ratio = f"{line['ratio']:.3f} ({line['ratio_low']:.3f}..{line['ratio_high']:.3f})" if line["ratio"] else ""
            figures = (console.rate(1e6 * line["mops"]), console.number(line["spread_percent"]), ratio)
            memory = console.number(line["peak_rss_mb"])
            cells.append((line["arm"], line["version"], line["linkage"], *figures, line["blocks"], memory))
        console.table(columns, cells, title=work)
        console.commands(line["command"] for line in mine)
