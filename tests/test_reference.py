"""Published figures: found by name, never computed with where there is nothing to compare."""

import pytest

from hakmem import reference
from hakmem.errors import BadParameter


def test_figures_stand_beside_today_s_with_their_ratio() -> None:
    today = {("throughput", "mimalloc"): 240.932, ("ratio", "hakmem/mimalloc"): None}
    table = reference.beside("rebase", today).set_index("metric")
    assert table.loc["throughput", "published"] == 120.466 and table.loc["throughput", "ratio"] == pytest.approx(2)
    assert table.loc["ratio", "unit"] == "%" and table.isna().loc["ratio", "today"]


def test_nothing_is_divided_by_a_published_zero() -> None:
    assert reference.beside("soak", {("rss_drift", "both 60 min"): 3.0})["ratio"].isna().all()


def test_what_was_not_published_is_refused() -> None:
    with pytest.raises(BadParameter, match=r"no published figures of 'sot' \(did you mean ssot\?\)"):
        reference.figures("sot")
    with pytest.raises(
        BadParameter, match="ssot has no published speed of SSOT on; it has throughput_change of SSOT on"
    ):
        reference.figure("ssot", "speed", "SSOT on")
