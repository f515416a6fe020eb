"""Promotion with known answers: what BALANCED gains, what it costs, and the word for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ledgers import rows as as_frame
from ledgers import trial
from test_soaks import ARMS

from hakmem import crosscheck, epochs, planning, plots, verdict, workload
from hakmem.errors import BadParameter
from hakmem.studies import promotion, soaks
from hakmem.studies.promotion import PromotionSpec
from hakmem.study import CampaignSpec

BLOCKS = 10


def part(allocator: str, workload: str, pace: float = 1.0, size: float = 1.0, **changes: Any) -> pd.DataFrame:
    """Ten blocks of both presets; BALANCED is `pace` as fast and `size` as big."""
    rng = np.random.default_rng(len(allocator))
    made = []
    for block in range(BLOCKS):
        for role, (arm, gates) in ARMS.items():
            fast, big = (pace, size) if role == "arm" else (1.0, 1.0)
            figures = 100 * fast * np.exp(0.002 * rng.standard_normal()), 8 * big
            where = {"order": len(made), "gates": gates, "trial_key": f"{workload}{block}{role}"}
            made.append(trial(arm.replace("hakmem", allocator), role, workload, block, *figures, **where, **changes))
    return as_frame(made)


def tail(folder: Path, slow: float = 1.0) -> pd.DataFrame:
    """Ten blocks of soaks; one epoch in twenty is slow, BALANCED's by `slow` more."""
    rows = part("hakmem_minimal", "soak:ws=400,seconds=3,epoch_seconds=0.03")
    (folder / "p.series").mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    for key, role in zip(rows["trial_key"], rows["role"], strict=True):
        rates = 100e6 * (1 + 0.002 * rng.standard_normal(100))
        rates[::20] *= 0.8 * (slow if role == "arm" else 1.0)
        told = pd.DataFrame({"epoch": range(100), "t_s": np.arange(1, 101) / 33, "ops": rates, "ops_per_s": rates})
        told = told.assign(rss_mb=8.0, lazyfree_mb=0.0, live_mb=1.0, peak_rss_mb=8.0, stall_max_us=50.0)
        told[epochs.COLUMNS].to_parquet(folder / "p.series" / f"{abs(hash(key))}.parquet")
    return rows.assign(series=[f"p.series/{abs(hash(key))}.parquet" for key in rows["trial_key"]])


def judged(
    folder: Path, fast: pd.DataFrame, standard: pd.DataFrame, calls: float, slow: float
) -> tuple[str, list[str]]:
    found = {"FAST": fast, "Standard": standard}
    pace = [one for rows in found.values() for one in verdict.ab(rows, 0.01)]
    long = part("hakmem", "mixed:ws=400,cycles=200000000", syscalls_per_op=calls, ops=200_000_000)
    tails = promotion.tails(tail(folder, slow), folder / "p.jsonl")
    return promotion.judge(pace, promotion.memory(found), promotion.budget(long), tails)


@pytest.mark.parametrize(
    ("fast", "standard", "size", "calls", "slow", "word", "said"),
    [
        (1.0, 1.0, 1.0, 1e-7, 1.0, "NEUTRAL", "SAFE stays the default: BALANCED changes nothing that matters"),
        (1.03, 1.0, 1.0, 1e-7, 1.0, "GO", "Throughput, BALANCED against SAFE: FAST +3."),
        (1.0, 1.0, 0.8, 1e-7, 1.0, "GO", "Peak memory: FAST -20.0 %"),
        (1.03, 0.95, 0.8, 1e-7, 1.0, "NO-GO", "Standard -5."),
        (1.03, 1.0, 0.8, 2e-4, 1.0, "NO-GO", "0.0002 system calls an operation at most"),
        (1.03, 1.0, 0.8, 1e-7, 0.8, "NO-GO", "Slow tail: -20."),
    ],
)
def test_a_preset_is_promoted_for_something_and_at_no_cost(
    tmp_path: Path, fast: float, standard: float, size: float, calls: float, slow: float, word: str, said: str
) -> None:
    workload = "mixed:ws=400"
    built = part("hakmem_minimal", workload, fast, size), part("hakmem", workload, standard, size)
    found, sentences = judged(tmp_path, *built, calls, slow)
    assert found == word and any(said in sentence for sentence in sentences), sentences


def test_what_is_open_stays_open(tmp_path: Path) -> None:
    few = part("hakmem_minimal", "mixed:ws=400"), part("hakmem", "mixed:ws=400")
    pace = [one for rows in few for one in verdict.ab(rows[rows["block"] < 1], 0.01)]
    short = promotion.tails(tail(tmp_path).query("block < 1"), tmp_path / "p.jsonl")
    calls = promotion.budget(few[1])
    none = promotion.tails(tail(tmp_path).query("role == 'baseline2'"), tmp_path / "p.jsonl")
    changes = promotion.memory(dict(zip(promotion.BUILDS, few, strict=True)))
    assert promotion.judge(pace, changes, calls, short)[0] == "INCONCLUSIVE"
    assert promotion.judge(pace, changes, calls, none)[0] == "INCONCLUSIVE"  # neither SAFE (A) nor BALANCED got there
    assert short["change %"].isna().all() and set(short["blocks"]) == {1}
    dead = tail(tmp_path).assign(status="killed", series=None)
    assert promotion.judge(pace, changes, calls, promotion.tails(dead, tmp_path / "p.jsonl"))[0] == "INCONCLUSIVE"
    assert promotion.tail_chart(dead, tmp_path / "p.jsonl").table.empty


def test_the_budget_is_held_by_the_worst_trial() -> None:
    rows = part("hakmem", "mixed:ws=400,cycles=200000000", ops=200_000_000)
    rows.loc[(rows["role"] == "arm") & (rows["block"] == 4), "syscalls_per_op"] = 4e-6
    table = promotion.budget(rows).set_index("preset")
    assert table.loc["BALANCED", "calls"] == 800 and table.loc["BALANCED", "times under"] == pytest.approx(25)
    assert table.loc["SAFE (A)", "calls"] == 20
    silent = promotion.budget(rows.assign(syscalls_per_op=np.nan))  # FAST counts nothing
    assert silent.empty


@pytest.mark.skipif(crosscheck.why_not() is not None, reason="no strace")
def test_fast_is_counted_from_outside() -> None:
    spec = {"workloads": "mixed:ws=400", "allocators": "hakmem_minimal", "profile": "smoke", **soaks.PAIR}
    plan = planning.plan(CampaignSpec.checked(spec | {"study": "none"}))
    told = promotion.traced(plan, workload.parse("ramp:n=20000,churn_ops=500")).set_index("preset")
    assert list(told.index) == ["SAFE (A)", "BALANCED"] and set(told["build"]) == {"FAST"}
    assert (told["calls"] > 0).all() and (told["operations"] > 20_000).all()  # a ramp has to ask for its memory
    assert (told["calls/op"] == told["calls"] / told["operations"]).all()


def test_figures_stand_beside_the_published_ones() -> None:
    found = {"FAST": part("hakmem_minimal", "mixed:ws=400", 1.02), "budget": part("hakmem", "mixed:ws=400")}
    table = promotion.published(found).set_index(["metric", "setting"])
    assert table.loc[("throughput", "LEAN+OFF"), "published"] == 56.8
    assert table.loc[("throughput", "LEAN+OFF"), "today"] == pytest.approx(102, rel=0.005)
    assert table.loc[("syscalls_per_op", "hakmem"), "ratio"] == pytest.approx(1e-7 / 1.25e-7)


def test_the_chart_states_its_finding(tmp_path: Path) -> None:
    worse = promotion.tail_chart(tail(tmp_path, 0.8), tmp_path / "p.jsonl")
    assert "BALANCED's slow tail lies 20.0 % below SAFE's" in worse.panels[0].alt
    same = promotion.tail_chart(tail(tmp_path), tmp_path / "p.jsonl")
    assert "is not told apart from SAFE" in same.panels[0].alt and len(same.table) == 6


def test_four_sweeps_share_a_ledger_and_sizes_go_by_profile() -> None:
    made = PromotionSpec.checked({"profile": "quick"}).campaigns()
    assert list(made) == ["FAST", "Standard", "budget", "tail"] and {one.study for one in made.values()} == {
        "promotion"
    }
    assert made["budget"].workloads == ("mixed:ws=400,cycles=200000000",) and made["FAST"].blocks == 10
    assert PromotionSpec.checked({"profile": "smoke"}).blocks == 2
    with pytest.raises(BadParameter, match="budget_cycles=5"):
        PromotionSpec.checked({"budget_cycles": 5})
    with pytest.raises(BadParameter, match="workload"):
        PromotionSpec.checked({"workload": "mixd"})


def test_charts_call_the_presets_by_their_names() -> None:
    rows = part("hakmem_minimal", "mixed:ws=400", pace=1.02)
    [judged] = verdict.ab(rows, 0.01, alpha=0.01)
    chart = promotion.throughput(rows, [judged], 0.01)
    assert chart.panels[0].alt.startswith("mixed:ws=400: BALANCED is faster than the baseline. BALANCED +2.")
    assert list(chart.table["arm"]) == ["SAFE (A')", "BALANCED"]
    assert list(chart.table["level"]) == [0.95, 0.99]  # that of its verdict, whose label is the arm's as ever
    assert judged.arm == "hakmem_minimal LEAN OFF"
    assert set(plots.run_order(promotion.named(rows)).table["arm"]) == {"SAFE (A)", "SAFE (A')", "BALANCED"}
    assert promotion.throughput(rows[:0], [], 0.01).panels == ()
