"""Verdicts: each rule on rows made to trip it, their order, and their error rates on simulated studies."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from ledgers import ARMS, LEAN, rows, study, trial
from pydantic import ValidationError
from scipy import stats as sp

from hakmem import stats, verdict
from hakmem.store import Trial

ARM = "hakmem LEAN DONTNEED 10 MB"


def lean_study(
    speed: float, mb: float, base_mb: float = 33.0, blocks: int = 8, cv: float = 0.005, **arm: object
) -> list[Trial]:
    """A baseline twice and one Lean arm on mixed:ws=400; `arm` changes the arm's trials."""
    rng, found = np.random.default_rng(1), []
    for block in range(blocks):
        noise = np.exp(cv * rng.standard_normal(3))
        for role, factor in zip(("baseline", "baseline2"), noise, strict=False):
            found.append(trial("hakmem", role, "mixed:ws=400", block, 100 * factor, base_mb))
        changes = {"gates": LEAN, "counters": {"os_alloc": 7, "madvise": 90}} | arm
        found.append(trial(ARM, "arm", "mixed:ws=400", block, 100 * speed * noise[2], mb, **changes))
    return found


def only(trials: list[Trial], **options: float) -> verdict.Verdict:
    (found,) = verdict.lean(rows(trials), **options)
    return found


def test_go_where_memory_meets_the_target_at_a_bearable_price() -> None:
    found = only(lean_study(0.96, 8.0))
    assert found.word == "GO" and "below 10 MB" in found.rule
    assert found.effect.estimate == pytest.approx(-4, abs=0.6) and found.effect.low < -4 < found.effect.high
    assert found.memory is not None and found.memory.estimate == pytest.approx(100 * (8 / 33 - 1), abs=0.1)
    assert (found.blocks, found.blocks_needed, found.bite) == (8, None, True) and 0 < found.floor < 1
    assert (found.icon, found.colour) == ("✔", "#1a7f37")


@pytest.mark.parametrize("status", ["failed", "timeout", "killed", "garbage"])
def test_a_crash_comes_first(status: str) -> None:
    trials = lean_study(0.96, 8.0)
    trials[-1] = trials[-1].model_copy(update={"status": status, "ops_per_s": None, "peak_rss_kb": None})
    found = only(trials)
    assert found.word == "NO-GO" and f"1 {status} of 8" in found.because and "crash" in found.rule


def test_what_is_not_known_is_null_in_json() -> None:
    """An arm that always crashes has no effect, one block no width, a study without A' no floor."""
    gone = {"status": "killed", "ops_per_s": None, "peak_rss_kb": None}
    crashed = only([t.model_copy(update=gone) if t.role == "arm" else t for t in lean_study(0.96, 8.0)])
    told = json.loads(json.dumps(crashed.model_dump(mode="json"), allow_nan=False))
    assert (told["word"], told["effect"]["estimate"], told["effect"]["n"], told["memory"]) == ("NO-GO", None, 0, None)
    one = only(lean_study(0.96, 8.0, blocks=1)).model_dump(mode="json")
    assert one["effect"]["high"] is None and one["effect"]["estimate"] == pytest.approx(-4, abs=1)
    floorless = only([t for t in lean_study(0.96, 8.0) if t.role != "baseline2"])
    assert math.isnan(floorless.floor) and floorless.model_dump(mode="json")["floor"] is None
    assert floorless.word == "GO"


def test_system_calls_that_run_away_come_before_the_target() -> None:
    over = only(lean_study(0.96, 8.0, base_mb=5.0, syscalls_per_op=2e-4))
    assert over.word == "NO-GO" and "0.0002 system calls an op" in over.because
    times = only(lean_study(0.96, 8.0, syscalls_per_op=2e-5))
    assert times.word == "NO-GO" and "against 1e-07" in times.because
    assert only(lean_study(0.96, 8.0, syscalls_per_op=9e-7)).word == "GO"


def test_a_handful_of_calls_in_a_short_trial_is_no_runaway() -> None:
    assert only(lean_study(0.96, 8.0, syscalls_per_op=5e-5, ops=100_000)).word == "GO"


def test_system_calls_of_few_operations_are_not_told() -> None:
    short = only(lean_study(0.96, 8.0, syscalls_per_op=5e-3, ops=30_000))
    assert short.word == "INCONCLUSIVE" and "told from 500,000 operations a trial on" in short.rule
    assert short.because == "0.005 system calls an op, but only 30,000 operations"
    assert only(lean_study(0.96, 8.0, syscalls_per_op=5e-3, ops=500_000)).word == "NO-GO"
    assert only(lean_study(0.99, 33.0, syscalls_per_op=5e-3, ops=30_000)).rule == "peak RSS does not fall"
    assert only(lean_study(0.8, 8.0, syscalls_per_op=5e-3, ops=30_000)).word == "NEUTRAL"


def test_an_allocator_that_counts_no_calls_is_not_judged_by_them() -> None:
    assert only(lean_study(0.96, 8.0, syscalls_per_op=None, syscalls=None)).word == "GO"


def test_not_applicable_where_the_baseline_meets_the_target() -> None:
    found = only(lean_study(0.5, 4.0, base_mb=5.0))
    assert found.word == "NOT-APPLICABLE" and "5.0 MB" in found.because


def test_the_target_is_the_arm_s_own() -> None:
    assert only(lean_study(0.96, 8.0, gates=LEAN | {"HAKMEM_SS_MEM_LEAN_TARGET_MB": "64"})).word == "NOT-APPLICABLE"
    off = LEAN | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF", "HAKMEM_SS_MEM_LEAN_TARGET_MB": "64"}
    assert only(lean_study(0.96, 8.0, gates=off)).word == "GO"  # OFF makes no use of its target


def test_no_go_where_memory_does_not_fall() -> None:
    found = only(lean_study(0.99, 33.0))
    assert found.word == "NO-GO" and found.rule == "peak RSS does not fall"


@pytest.mark.parametrize(("speed", "mb", "why"), [(0.8, 8.0, "throughput"), (0.96, 20.0, "stays above 10 MB")])
def test_neutral_where_memory_falls_but_the_rule_is_missed(speed: float, mb: float, why: str) -> None:
    found = only(lean_study(speed, mb))
    assert found.word == "NEUTRAL" and why in found.because


def test_memory_that_drifts_is_not_go() -> None:
    leak = [{"name": "warm", "t_s": 0.1, "rss_kb": 7000}, {"name": "done", "t_s": 0.4, "rss_kb": 8000}]
    found = only(lean_study(0.96, 8.0, phases=tuple(leak)))
    assert found.word == "NEUTRAL" and "drifts" in found.because


def test_drift_that_was_not_measured_leaves_it_open() -> None:
    found = only(lean_study(0.96, 8.0, phases=()))
    assert found.word == "INCONCLUSIVE" and "a soak does" in found.rule and found.blocks_needed is None


def test_a_program_that_ends_has_nothing_steady_to_drift() -> None:
    runs = [t.model_copy(update={"ops": 1, "phases": ()}) for t in lean_study(0.96, 8.0, syscalls_per_op=None)]
    found = only(runs)
    assert found.word == "GO" and "no steady stretch to drift" in found.rule
    assert only([*runs[:-1], runs[-1].model_copy(update={"status": "killed", "ops": None})]).word == "NO-GO"


def test_too_few_blocks_are_inconclusive_and_say_how_many_are_missing() -> None:
    found = only(lean_study(0.90, 8.0, blocks=5, cv=0.05))
    assert found.word == "INCONCLUSIVE" and found.blocks_needed is not None and found.blocks_needed > 5
    assert only(lean_study(0.96, 8.0, blocks=1)).blocks_needed == 1


def test_arms_share_the_error_whatever_their_words_rest_on() -> None:
    """Two arms hold the target at p = 0.04 each: neither is GO, however sure it is that they are fast enough."""
    spread = np.array([-1.0, -0.8, -0.3, -0.1, 0.1, 0.3, 0.8, 1.0]) * 0.02
    below = sp.t.isf(0.02, 7) * spread.std(ddof=1) / math.sqrt(8)
    trials = lean_study(0.96, 8.0)
    arms = [t for t in trials if t.role == "arm"]
    mine = [
        t.model_copy(update={"arm": f"{name} {ARM}", "peak_rss_kb": round(10240 * math.exp(move - below))})
        for name in ("one", "other")
        for t, move in zip(arms, spread, strict=True)
    ]
    found = verdict.lean(rows([t for t in trials if t.role != "arm"] + mine))
    assert {v.word for v in found} == {"INCONCLUSIVE"} and all("against 10 MB" in v.rule for v in found)
    (alone,) = verdict.lean(rows([t for t in trials if t.role != "arm"] + mine[:8]))
    assert alone.word == "GO"


def test_what_is_left_counts_where_the_program_frees_its_data() -> None:
    assert (
        verdict.memory_of("ramp:n=300000") == "end_rss_less_lazyfree_mb" and verdict.memory_of("mixed") == "peak_rss_mb"
    )
    marks = tuple({"name": n, "t_s": t, "rss_kb": kb} for n, t, kb in [("full", 0.2, 163840), ("churned", 0.9, 9216)])
    ramp = lean_study(0.96, 160.0, base_mb=160.0, end_mb=9.0, phases=marks)
    trials = [t.model_copy(update={"workload": "ramp"}) for t in ramp]
    found = only(trials)
    assert found.word == "GO" and "RSS left" in found.rule
    lazy = only(
        [
            t.model_copy(update={"end_lazyfree_kb": 100 * 1024}) if t.role == "arm" else t
            for t in lean_study(0.96, 160.0, 160.0)
        ]
    )
    assert lazy.word == "NO-GO"  # mixed is judged by its peak, lazily freed or not


def test_gates_that_changed_nothing_are_flagged() -> None:
    found = only(lean_study(1.0, 33.0, counters={"os_alloc": 7}))
    assert found.bite is False and found.bite_words == "the gates changed no counter and no byte"
    assert only(lean_study(0.96, 8.0)).bite_words == "madvise 0 → 90" or only(lean_study(0.96, 8.0)).bite is True


def test_hosts_and_workloads_are_judged_apart() -> None:
    trials = study(blocks=3)
    both = trials + [t.model_copy(update={"host": "bench-2"}) for t in trials]
    found = verdict.lean(rows(both))
    lean_arms = sum(role == "arm" for _, role, *_ in ARMS)
    assert len(found) == 2 * 4 * lean_arms and {v.host for v in found} == {"bench-1", "bench-2"}
    assert all(v.blocks == 3 for v in found)


def test_an_effect_of_code_is_counted_over_its_layouts() -> None:
    rng, trials = np.random.default_rng(2), []
    for layout, luck in enumerate((0.04, -0.03, 0.02, -0.05, 0.03, -0.01, 0.01, -0.02)):
        for block in (2 * layout, 2 * layout + 1):
            noise = np.exp(0.0005 * rng.standard_normal(3))
            roles = (("hakmem", "baseline", 1.0), ("hakmem", "baseline2", 1.0), ("patch:x", "arm", math.exp(luck)))
            trials += [
                trial(arm, role, "mixed:ws=400", block, 100 * times * noise[at], 2.0, layout=layout)
                for at, (arm, role, times) in enumerate(roles)
            ]
    (found,) = verdict.judge(rows(trials))
    plain = verdict.judge(rows([t.model_copy(update={"layout": None}) for t in trials[:6]]))[0]  # one layout, by luck
    assert plain.word in ("GO", "NO-GO") and found.word == "INCONCLUSIVE"
    assert (found.layouts, found.blocks, found.effect.n) == (8, 16, 8) and found.effect.low < 0 < found.effect.high
    assert found.layout_spread == pytest.approx(3, abs=1.5)
    assert "counted over 8 layouts, which move it by ±" in found.because
    assert found.blocks_needed is not None and found.blocks_needed % 2 == 0  # two blocks for each further layout
    bad = [t.model_copy(update={"spoiled": ("stolen CPU time",)}) if t.layout == 7 else t for t in trials]
    (fewer,) = verdict.judge(rows(bad))
    assert (fewer.layouts, fewer.blocks, fewer.effect.n) == (7, 14, 7)  # what was spoiled is not counted


def test_a_verdict_takes_no_field_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        verdict.Verdict.model_validate(
            only(lean_study(0.96, 8.0)).model_dump()
        )  # icon and colour are derived, not given


@pytest.mark.parametrize(
    ("effect", "word"), [(0.05, "GO"), (-0.05, "NO-GO"), (0.0, "NEUTRAL"), (0.0095, "INCONCLUSIVE")]
)
def test_ab_words(effect: float, word: str) -> None:
    x = effect + 0.003 * np.array([-1.0, 1.0, -1.0, 1.0, 0.0, 0.0, 1.0, -1.0])
    ruling, found = verdict.decide_ab({"arm": x}, floor=0.0)["arm"]
    assert ruling.word == word and found.n == 8
    assert (ruling.total_blocks is not None) == (word == "INCONCLUSIVE")


def test_no_verdict_is_finer_than_the_floor() -> None:
    x = 0.02 + 0.001 * np.array([-1.0, 1.0, -1.0, 1.0, 0.0])
    assert verdict.decide_ab({"arm": x}, floor=0.0)["arm"][0].word == "GO"
    assert verdict.decide_ab({"arm": x}, floor=0.03)["arm"][0].word == "NEUTRAL"


def test_ab_of_a_metric_where_less_is_better() -> None:
    (found,) = verdict.ab(rows(lean_study(1.0, 16.5)), metric="peak_rss_mb", more_is_better=False)
    assert found.word == "GO" and found.effect.estimate == pytest.approx(-50, abs=0.1)
    assert found.effect.low <= found.effect.estimate <= found.effect.high


def null_studies(arms: int, blocks: int, studies: int = 1000) -> np.ndarray:
    """Logs of throughput at CV 3 %, shape (studies, A A' and arms, blocks), no arm differs."""
    return 0.03 * np.random.default_rng(arms).standard_normal((studies, 2 + arms, blocks))


def decided(logs: np.ndarray, alpha: float = 0.05) -> bool:
    """Whether any arm of one study gets GO or NO-GO."""
    ratios = {str(i): x - logs[0] for i, x in enumerate(logs[2:])}
    floor = abs(float((logs[1] - logs[0]).mean()))
    return any(ruling.word in ("GO", "NO-GO") for ruling, _ in verdict.decide_ab(ratios, floor, 0.0, alpha).values())


@pytest.mark.parametrize(("arms", "blocks"), [(1, 10), (3, 10), (6, 20)])
def test_a_a_studies_are_called_different_in_at_most_5_percent(arms: int, blocks: int) -> None:
    """With no margin asked, so that only the statistics stand between noise and a verdict."""
    assert sum(decided(logs) for logs in null_studies(arms, blocks)) <= 50


def test_six_arms_that_differ_are_seldom_called_alike() -> None:
    """All are a little beyond the margin: NEUTRAL is wrong, and the line that is far away says nothing of it."""
    rng, line = np.random.default_rng(1), math.log(1.01)
    wrong = 0
    for _ in range(600):
        ratios = {str(arm): 1.0001 * line + 0.008 * rng.standard_normal(20) for arm in range(6)}
        wrong += any(ruling.word == "NEUTRAL" for ruling, _ in verdict.decide_ab(ratios, 0.0, 0.01).values())
    assert wrong <= 0.05 * 600


def test_adding_blocks_until_decided_errs_no_more_often() -> None:
    looks = (5, 10, 15, 20)
    alphas = stats.nominal_alphas([n / looks[-1] for n in looks])
    studies = null_studies(3, looks[-1])
    wrong = sum(any(decided(logs[:, :n], alpha) for n, alpha in zip(looks, alphas, strict=True)) for logs in studies)
    assert wrong <= 50


def test_a_true_effect_is_found_with_the_promised_power() -> None:
    """A true 3 % at CV 3 % on both sides, margin 1 %: 54 blocks give 90 % power, 50 would without the noise floor."""
    blocks = 54
    bare = stats.blocks_needed(0.03 * math.sqrt(2), math.log(1.03) - math.log(1.01))
    assert bare is not None and 50 <= bare < blocks
    a, a2, arm = 0.03 * np.random.default_rng(3).standard_normal((3, 20_000, blocks))
    ratios, floors = math.log(1.03) + arm - a, np.abs((a2 - a).mean(axis=1))
    low = ratios.mean(axis=1) - sp.t.ppf(0.975, blocks - 1) * ratios.std(axis=1, ddof=1) / math.sqrt(blocks)
    by_hand = low > np.maximum(math.log(1.01), floors)
    assert 0.90 <= by_hand.mean() <= 0.92
    some = range(150)  # the product agrees, but where its bootstrap and the t interval part
    words = [verdict.decide_ab({"arm": ratios[n]}, floors[n], 0.01)["arm"][0].word for n in some]
    assert np.mean([(word == "GO") == by_hand[n] for word, n in zip(words, some, strict=True)]) >= 0.95


def test_price_of_a_megabyte_in_words() -> None:
    table = verdict.prices(rows(lean_study(0.90, 8.0)))
    (line,) = table.to_dict("records")
    assert line["percent_per_mb"] == pytest.approx(0.4, abs=0.03) and line["low"] < 0.4 < line["high"]
    assert line["sentence"].startswith(f"On mixed:ws=400, {ARM} saves 25.0 MB; a megabyte costs 0.")
    nothing = verdict.prices(rows(lean_study(0.90, 33.0)))["sentence"].iloc[0]
    assert "saves no memory that could be told from noise" in nothing


def test_prices_have_their_columns_without_any_arm() -> None:
    table = verdict.prices(rows([t for t in lean_study(1.0, 8.0) if t.role != "arm"]))
    assert isinstance(table, pd.DataFrame) and table.empty and "sentence" in table


def test_calls_that_give_pages_back_are_excused_where_the_program_shrinks() -> None:
    marks = tuple({"name": n, "t_s": t, "rss_kb": kb} for n, t, kb in [("full", 0.2, 163840), ("churned", 0.9, 9216)])

    def ramp(calls: int) -> verdict.Verdict:
        ops = 600_000
        made = lean_study(0.96, 160.0, base_mb=160.0, end_mb=9.0, phases=marks, ops=ops, syscalls_per_op=calls / ops)
        base = [
            t.model_copy(update={"end_rss_kb": 160 * 1024, "syscalls_per_op": 1e-7}) for t in made if t.role != "arm"
        ]
        rest = [t for t in made if t.role == "arm"]
        return only([t.model_copy(update={"workload": "ramp"}) for t in base + rest])

    pages = (160 - 9) * 256
    assert ramp(pages + 50).word == "GO"
    assert ramp(pages + 200).word == "NO-GO" and "each page given back" in ramp(pages + 200).rule


def test_a_study_is_summed_up_by_its_best_arm() -> None:
    good, bad = only(lean_study(0.96, 8.0)), only(lean_study(0.8, 8.0))
    other = bad.model_copy(update={"arm": "slow"})
    aside = good.model_copy(update={"workload": "tiny", "word": "NOT-APPLICABLE"})
    assert verdict.overall([other, good, aside])[:2] == ("GO", ARM)
    spoiler = good.model_copy(update={"workload": "ramp", "word": "NO-GO"})
    assert verdict.overall([other, good, spoiler])[:2] == ("NEUTRAL", "slow")
    with pytest.raises(ValueError, match="no verdicts"):
        verdict.overall([])
