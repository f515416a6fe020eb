"""The rule of 5 %: known gains, known words."""

from typing import Any

import pandas as pd
import pytest
from ledgers import rows, study

from hakmem import reserve

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


def test_what_was_not_measured_is_none() -> None:
    found = swept(0.01)["SS_EMPTY_RESERVE"].assign(extra=[{"live_kb": 2048.0}] * 96)
    today = reserve.battle(found[found["workload"] == "ramp"])
    assert today[("peak_rss", "mimalloc")] is None and today[("expected_data", "1M x 16 B")] == 2.0
