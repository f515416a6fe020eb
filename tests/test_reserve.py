"""The rule of 5 %: known gains, known words."""

from typing import Any

import pandas as pd
import pytest
from ledgers import rows, study, trial

from hakmem.studies import reserve

LEAN = {"HAKMEM_SS_MEM_LEAN": "1"}


def swept(gain: float, cv: float = 0.004) -> dict[str, pd.DataFrame]:
    """One gate whose value 2 is faster by `gain` and takes twice the memory."""
    arms: tuple[tuple[Any, ...], ...] = (
        ("hakmem LEAN", "baseline", 1.0, 1.0, LEAN),
        ("hakmem LEAN", "baseline2", 1.0, 1.0, LEAN),
        ("hakmem LEAN 2", "arm", 1 + gain, 2.0, LEAN | {"HAKMEM_SS_EMPTY_RESERVE": "2"}),
    )
    return {"SS_EMPTY_RESERVE": rows(study(blocks=8, cv=cv, arms=arms))}


@pytest.mark.parametrize(
    ("gain", "cv", "rule", "word"),
    [
        (0.01, 0.004, "keep the default", "GO"),
        (0.12, 0.004, "worth it", "NO-GO"),
        (0.05, 0.05, "undecided", "INCONCLUSIVE"),
    ],
)
def test_a_fatter_setting_has_to_gain_5_percent(gain: float, cv: float, rule: str, word: str) -> None:
    table = reserve.trade(swept(gain, cv))
    assert list(table["value"].unique()) == ["2"] and len(table) == 4
    assert set(table["rule"]) == {rule} and reserve.judge(table)[0] == word
    ramp = table[table["workload"] == "ramp"].iloc[0]
    assert ramp["gain %"] == pytest.approx(100 * gain, abs=0.6 if cv < 0.01 else 8)
    assert ramp["peak_mb"] == pytest.approx(165, rel=0.02)


def test_each_gate_is_swept_alone_under_lean() -> None:
    made = reserve.ReserveSpec.checked({"profile": "smoke"}).campaigns()
    assert list(made) == list(reserve.GATES)
    assert all(len(one.gates) == 1 and one.under["HAKMEM_SS_MEM_LEAN"] == "1" for one in made.values())


MIB = 2**20
CENSUS = {
    "classes": [{"bytes_resident": 17 * MIB, "bytes_live": 15 * MIB, "bytes_cached": MIB // 2}],
    "metadata": {"unit records": {"resident": MIB // 4}, "thread heaps": {"resident": MIB // 8}},
    "large": {"bytes": 8 * MIB, "resident": 8 * MIB},
    "superslabs": {"kept_resident": 4 * MIB},
    "free_slabs": {"resident": MIB},
    "warm_pool": {"resident": 0},
}


def held(peak_mb: float = 32.0) -> pd.DataFrame:
    """The battle test: hakmem with a census, mimalloc without."""
    arms: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
        ("hakmem", "baseline", peak_mb, {"live_kb": 23 * 1024, "residency": CENSUS}),
        ("mimalloc", "peer", 25.0, {"live_kb": 23 * 1024}),
    )
    return rows(
        [
            trial(arm, role, "battle", b, 50, mb, extra=extra, start_rss_kb=1536)
            for b in range(3)
            for arm, role, mb, extra in arms
        ]
    )


def test_the_peak_is_divided_into_the_published_categories() -> None:
    found = reserve.breakdown(held()).set_index("arm")
    mine = found.loc["hakmem"]
    assert list(found.index) == ["hakmem", "mimalloc"]
    assert mine["reserved superslabs"] == 5 and mine["fragmentation"] == 1.5 and mine["TLS"] == 0.625
    assert mine["slab metadata"] == 0.25 and mine["program baseline"] == 1.5 and mine["data"] == 23
    assert mine[["data", *reserve.CATEGORIES]].sum() == pytest.approx(32)
    peer = found.loc["mimalloc"]
    assert peer[reserve.REST] == pytest.approx(25 - 23 - 1.5) and pd.isna(peer["fragmentation"])
    today = reserve.battle(held())
    assert today[("overhead_of_30.6_peak", "reserved superslabs")] == 5 and today[("peak_rss", "mimalloc")] == 25


def test_the_charts_say_what_they_show() -> None:
    chart = reserve.breakdown_chart(held())
    assert "hakmem's peak is 7.0 MB over mimalloc's; published was 7.8 over" in chart.panels[0].alt
    assert chart.table.iloc[0]["arm"] == "published" and chart.table.iloc[0]["reserved superslabs"] == 4.0
    gains = reserve.trade_chart(reserve.trade(swept(0.12)))
    assert len(gains.panels) == 4 and "worth more than 5 %: SS_EMPTY_RESERVE=2" in gains.panels[0].alt
    assert "no setting surely gains 5 %" in reserve.trade_chart(reserve.trade(swept(0.01))).panels[0].alt


def test_what_was_not_measured_is_none() -> None:
    today = reserve.battle(held().query("allocator != 'mimalloc'"))
    assert today[("peak_rss", "mimalloc")] is None and today[("expected_data", "1M x 16 B")] == 23.0
    told = reserve.battle(held().assign(extra=[{"live_kb": 2048.0}] * 6))
    assert told[("overhead_of_30.6_peak", "fragmentation")] is None and told[("expected_data", "1M x 16 B")] == 2.0


def test_a_setting_that_never_ran_is_no_gain() -> None:
    dead = {name: table.assign(status="killed", ops_per_s=None) for name, table in swept(0.1).items()}
    assert reserve.judge(reserve.trade(dead)) == ("INCONCLUSIVE", ["No setting was measured beside its default."])
    assert reserve.trade_chart(reserve.trade(dead)).panels == ()


def test_many_comparisons_do_not_find_a_gain_by_luck() -> None:
    alone = swept(0.075, 0.02)
    mine = reserve.trade(alone).iloc[:1]
    together = reserve.trade(alone | {f"NOISE_{seed}": noise(seed) for seed in range(20)})
    again = together[together["gate"] == "SS_EMPTY_RESERVE"].iloc[:1]
    assert again["gain %"].item() == pytest.approx(mine["gain %"].item())
    assert again["low %"].item() < mine["low %"].item() and again["high %"].item() > mine["high %"].item()
    assert not (together[together["gate"] != "SS_EMPTY_RESERVE"]["rule"] == "worth it").any()


def noise(seed: int) -> pd.DataFrame:
    """A gate that changes nothing."""
    gates = LEAN | {f"HAKMEM_NOISE_{seed}": "1"}
    arms = (("hakmem LEAN", "baseline", 1.0, 1.0, LEAN), ("hakmem LEAN 1", "arm", 1.0, 1.0, gates))
    return rows(study(blocks=8, cv=0.02, arms=arms, seed=seed))
