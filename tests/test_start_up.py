"""What prewarm costs and buys: known figures, known words, and who lived in a container."""

import numpy as np
import pandas as pd
import pytest
from ledgers import rows, trial

from hakmem.errors import BadParameter
from hakmem.store import Trial
from hakmem.studies import start_up
from hakmem.studies.start_up import StartUpSpec

MANY = "start_up:processes=200"
ARMS = (
    ("hakmem", "baseline"),
    ("hakmem", "baseline2"),
    (start_up.OFF, "arm"),
    (start_up.TOUCH, "arm"),
    ("system", "peer"),
)


def told(ready_us: float, own_kb: float, first_ns: float) -> dict[str, float]:
    first = {f"first_c{c}_ns": first_ns for c in range(8)} | {f"second_c{c}_ns": 30.0 for c in range(8)}
    memory = {"rest_anon_kb": own_kb, "rest_pss_kb": own_kb + 50, "rest_rss_kb": own_kb + 1400, "rest_tables_kb": 64.0}
    return {
        "to_main_us": 0.9 * ready_us,
        "ready_us": ready_us,
        "faults_ready": 80.0,
        "at_once": 200.0,
        **memory,
        **first,
    }


def measured(slower: float = 0.0, more_kb: float = 0.0, noise: float = 0.004) -> pd.DataFrame:
    """Six blocks in which reserving costs `slower` of the time and `more_kb` of memory; touching ten times as much."""
    rng = np.random.default_rng(1)
    found: list[Trial] = []
    for block in range(6):
        for arm, role in ARMS:
            ready, own = 500 * (1 + slower * (arm == "hakmem")), 150 + more_kb * (arm == "hakmem")
            if arm == start_up.TOUCH:
                ready, own = 5000, 150 + 16 * 1024
            for workload in ("start_up", MANY):
                extra = told(ready * np.exp(noise * rng.standard_normal()), own, 100 if arm == start_up.TOUCH else 1500)
                gates = {"HAKMEM_SS_PREWARM": arm[-5:].strip("=")} if "=" in arm else {}
                found.append(trial(arm, role, workload, block, 0.002, 1.7, extra=extra, gates=gates))
    return rows(found)


@pytest.mark.parametrize(
    ("slower", "more_kb", "noise", "word"),
    [(0.0, 0, 0.004, "GO"), (0.2, 0, 0.004, "NO-GO"), (0.0, 500, 0.004, "NO-GO"), (0.05, 0, 0.1, "INCONCLUSIVE")],
)
def test_reserving_has_to_be_cheap(slower: float, more_kb: float, noise: float, word: str) -> None:
    found, sentences = start_up.judge(measured(slower, more_kb, noise))
    assert found == word
    if word == "GO":
        assert "to be ready instead of 0.50 ms; the first malloc of all eight classes then takes 0.8 µs" in sentences[1]
        assert "0.25 GiB, with touched pages 15.9 GiB (extrapolated from 200)" in sentences[2]


def test_the_tables_hold_every_arm() -> None:
    table = start_up.table(measured())
    assert len(table) == 2 * len(ARMS)
    touched = table[table["arm"] == "SS_PREWARM=TOUCH"].iloc[0]
    assert touched["its own (KiB)"] == pytest.approx(150 + 16 * 1024)
    assert touched["1,000 of them (GiB)"] == pytest.approx((150 + 16 * 1024 + 50 + 64) * 1000 / 2**20)
    assert start_up.published(measured())[("peak_rss", "mimalloc")] is None
    assert start_up.published(measured())[("peak_rss", "system")] == pytest.approx(1550 / 1024)


def test_the_charts_say_what_they_show() -> None:
    found = measured()
    assert "makes a start 10.0 times as long" in start_up.times(found).panels[0].alt
    first = start_up.first_allocations(found)
    assert "first malloc takes hakmem 1,500 ns, the next one 30 ns" in first.panels[0].alt and len(first.table) == 8 * 4
    assert "0.26 MiB; pages touched in advance make that 16.3 MiB" in start_up.at_rest(found).panels[0].alt


def test_who_lived_in_the_container_is_counted() -> None:
    trials = [
        trial(arm, "arm", f"container:burst_mb={burst},limit_mb=64", block, 5, 50, status=status)
        for block in range(2)
        for arm in ("lean", "fat")
        for burst, status in ((48, "ok"), (56, "killed" if arm == "fat" else "ok"))
    ]
    table = start_up.survivors(rows(trials)).set_index("arm")
    assert list(table.columns) == ["48 MB of data", "56 MB of data"]
    assert list(table.loc["fat"]) == ["2 of 2", "0 of 2"] and list(table.loc["lean"]) == ["2 of 2", "2 of 2"]


def test_sizes_go_by_profile_and_bad_ones_are_refused() -> None:
    assert StartUpSpec.checked({"profile": "smoke"}).many() == "start_up:processes=20"
    assert StartUpSpec.checked({"processes": 7}).campaign().workloads == ("start_up", "start_up:processes=7")
    assert StartUpSpec.checked({"bursts_mb": 40}).contained().workloads == ("container:burst_mb=40,limit_mb=64",)
    with pytest.raises(BadParameter, match="it takes growing amounts of MiB"):
        StartUpSpec.checked({"bursts_mb": [48, 40]})
    with pytest.raises(BadParameter, match="parameter processes=1"):
        StartUpSpec.checked({"processes": 1})
