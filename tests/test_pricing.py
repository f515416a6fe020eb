"""The price of a megabyte, drawn and told; published figures under their names."""

import pytest
from ledgers import rows, study

from hakmem import reference, verdict
from hakmem.studies import pricing


def test_every_arm_that_saves_has_a_price() -> None:
    found = rows(study(blocks=8))
    prices = verdict.prices(found)
    drawn = pricing.chart(found, prices)
    assert len(drawn.panels) == 4 and len(drawn.table) == len(prices)
    [ramp] = [panel for panel in drawn.panels if panel.alt.startswith("ramp")]
    assert "saving 124 MB costs 0.0" in ramp.alt and "hakmem LEAN DONTNEED 10 MB +0.0" in ramp.alt


def test_where_nothing_is_saved_there_is_no_price() -> None:
    found = rows(study(blocks=1))
    drawn = pricing.chart(found, verdict.prices(found))
    assert drawn.panels == () and "too few blocks to tell" in drawn.note


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
