"""The price of a megabyte, drawn and told; published figures under their names."""

import pytest
from ledgers import ARMS, LEAN, rows, study

from hakmem import reference, verdict
from hakmem.studies import pricing


def test_every_arm_that_saves_has_a_price() -> None:
    found = rows(study(blocks=8))
    prices = verdict.prices(found)
    drawn = pricing.chart(found, prices)
    assert len(drawn.panels) == 4 and len(drawn.table) == len(prices)
    [ramp] = [panel for panel in drawn.panels if panel.alt.startswith("ramp")]
    assert "saving 124 MB costs 0.0" in ramp.alt and "hakmem LEAN DONTNEED 10 MB +0.0" in ramp.alt


def test_the_leanest_setting_is_named_for_what_can_be_spared() -> None:
    arms = (
        *ARMS[:2],
        ("hakmem LEAN DONTNEED 10 MB", "arm", 0.90, 0.25, LEAN),
        ("hakmem LEAN FREE 10 MB", "arm", 0.97, 0.4, LEAN | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "FREE"}),
        ("hakmem LEAN OFF", "arm", 1.0, 1.0, LEAN | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF"}),
    )
    found = rows(study(blocks=8, cv=0.002, arms=arms))
    table = pricing.choices(found, verdict.lean(found), verdict.prices(found))
    ramp = table[table["workload"] == "ramp"]
    assert list(ramp["to spare"]) == ["5 %", "25 %"]  # 3 % and 10 % of loss; neither fits into 1 %
    assert ramp["setting"].iloc[0].startswith("HAKMEM_SS_MEM_LEAN=1 HAKMEM_SS_MEM_LEAN_DECOMMIT=FREE")
    assert ramp["saves MiB"].iloc[1] == pytest.approx(0.75 * 165, rel=0.01)
    few = rows(study(blocks=1, arms=arms))
    assert (
        pricing.choices(few, verdict.lean(few), verdict.prices(few))["setting"].str.startswith("the defaults: ").all()
    )


def test_a_saving_of_one_block_is_told_without_a_price() -> None:
    found = verdict.prices(rows(study(blocks=1)))
    ramp = found[(found["workload"] == "ramp") & (found["arm"] == "hakmem LEAN DONTNEED 10 MB")]
    assert (
        "saves 123.5 MB" in ramp["sentence"].iloc[0]
        and "in a single block: too few for a price" in ramp["sentence"].iloc[0]
    )
    priced = verdict.prices(rows(study(blocks=8)))["sentence"]
    assert priced.str.contains(r"a megabyte costs \S+ % throughput .* 1 % of throughput buys \S+ MB").any()


def test_where_nothing_is_saved_there_is_no_price() -> None:
    found = rows(study(blocks=1))
    drawn = pricing.chart(found, verdict.prices(found))
    assert drawn.panels == () and "too few blocks to tell" in drawn.html()


def test_published_figures_have_today_s_beside_them() -> None:
    today = pricing.published(rows(study(blocks=8, cv=0.01)))
    assert today[("throughput", "baseline")] == pytest.approx(110, rel=0.01)
    assert today[("throughput", "LEAN+OFF")] == pytest.approx(110.5, rel=0.01)
    assert today[("target_peak_rss", "LEAN")] == pytest.approx(8.25, rel=0.01)
    cv = today[("cv", "baseline")]
    assert cv is not None and 0.3 < cv < 3
    assert len(reference.beside("lean", today)) == 5


def test_what_each_allocator_dominates() -> None:
    table = pricing.shares(rows(study(blocks=4)))
    assert len(table) == 4 * 5 and table["allocator"][0] == "mimalloc"
    assert (table["hakmem ahead by, points"].isna() == (table["allocator"] == "hakmem")).all()
    mixed = table[table["workload"] == "mixed:ws=400"].set_index("allocator")
    assert mixed.loc["mimalloc", "dominates %"] == pytest.approx(100 * 0.92 * 0.97 / 1.005, abs=1)
    assert mixed.loc["mimalloc", "hakmem ahead by, points"] < 0 and (mixed["low %"] <= mixed["high %"]).all()
    assert pricing.shares(rows(study(blocks=1))[:0]).empty
    wide = pricing.shares(rows(study(blocks=2, cv=0.5)))
    assert wide[["low %", "high %"]].stack().between(0, 100).all()


def test_shares_are_drawn_with_who_leads() -> None:
    drawn = pricing.dominance(rows(study(blocks=8)))
    mixed, _, ramp, _ = drawn.panels
    assert len(drawn.table) == 4 * 5 and mixed.alt.startswith("mixed:ws=400: most is dominated by mimalloc 8")
    assert "; hakmem 7" in ramp.alt
    noisy = pricing.dominance(rows(study(blocks=2, cv=0.5)))
    assert any("% are not told apart" in panel.alt for panel in noisy.panels)
