"""The parts of real processes, and judgements of what is known not to add up."""

import json
import subprocess
from typing import Any

import pandas as pd
import pytest
from ledgers import rows, trial

from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter
from hakmem.studies import rss_tax
from hakmem.studies.rss_tax import PARTS, TaxSpec

WORK = "tax:ws=40000"
LEAN = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED"}


def said(flavour: str, ws: int, gates: dict[str, str]) -> dict[str, Any]:
    """What one real run tells."""
    program = compile_native().driver("tax", flavour)
    done = subprocess.run([program, "100000", str(ws), "--json"], env=gates, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    arms = (
        ("hakmem", "baseline", "hakmem", {}),
        ("hakmem LEAN DONTNEED 10 MB", "arm", "hakmem", LEAN),
        ("system", "peer", "system", {}),
    )
    found = []
    for ws in (400, 40_000):
        for arm, role, flavour, gates in arms:
            told = said(flavour, ws, gates)
            phases = tuple(
                {name: phase[name] for name in ("name", "t_s", "rss_kb", "lazyfree_kb")} for phase in told["phases"]
            )
            changes = {"extra": told["extra"], "phases": phases, "gates": gates}
            found.append(trial(arm, role, f"tax:ws={ws}", 0, 1.0, told["peak_rss_kb"] / 1024, **changes))
    return rows(found)


def test_the_parts_of_real_processes_are_the_whole(measured: pd.DataFrame) -> None:
    apart = rss_tax.parts(measured).set_index(["workload", "key"])
    assert len(apart) == 6
    for (workload, key), line in apart.iterrows():
        told = [line[name] for name in PARTS if pd.notna(line[name])]
        assert min(told) >= 0
        assert sum(told) + line["unaccounted_mb"] == pytest.approx(line["rss_mb"])
        assert abs(line["unaccounted_mb"]) < 0.25 + 0.02 * line["rss_mb"], (workload, key)
        expected = 10_300 if workload == WORK else 105  # KiB: half of the slots, 527 bytes each, and the slots
        assert line["working set"] * 1024 == pytest.approx(expected, rel=0.05 if workload == WORK else 0.3)
    mine = apart.loc[(WORK, "A")]
    assert 0 < mine["thread caches"] < 2 and 0 < mine["metadata"] < 0.2 and 0 < mine["rounded up"] < 0.6
    assert pd.isna(mine[rss_tax.HELD]) and pd.isna(apart.loc[(WORK, "system"), "metadata"])


def test_nearly_nothing_is_unaccounted_for(measured: pd.DataFrame) -> None:
    word, sentences = rss_tax.judge(measured)
    assert word == "GO" and "in 2 trials with at least 10 MB live (limit 5 %)" in sentences[0]
    assert "speed-first: working set 10." in sentences[1] and "program and libraries" in sentences[1]
    assert sentences[2].startswith("On tax:ws=400 the process takes ") and "MB with system" in sentences[2]


@pytest.mark.parametrize(("missing", "word"), [((0.2, 0.2), "NO-GO"), ((0.2, 0.0), "INCONCLUSIVE")])
def test_memory_that_nobody_counts_is_not_go(measured: pd.DataFrame, missing: tuple[float, float], word: str) -> None:
    table = measured[measured["workload"] == WORK].copy()
    share = {"baseline": missing[0], "arm": missing[1], "peer": 0.0}
    table["phases"] = [
        [{**phase, "rss_kb": phase["rss_kb"] * (1 + share[role])} for phase in phases]
        for role, phases in zip(table["role"], table["phases"], strict=True)
    ]
    assert rss_tax.judge(table)[0] == word


def test_too_small_a_live_set_decides_nothing(measured: pd.DataFrame) -> None:
    word, [sentence] = rss_tax.judge(measured[measured["workload"] == "tax:ws=400"])
    assert word == "INCONCLUSIVE" and "choose more slots" in sentence


def test_the_charts_show_every_arm(measured: pd.DataFrame) -> None:
    figure = rss_tax.bars(measured)
    assert len(figure.panels) == 2 and "hakmem adds" in figure.panels[1].alt
    assert all(name in figure.panels[1].alt for name in ("hakmem (A)", "DONTNEED 10 MB", "system", "thread caches"))
    by_class = rss_tax.classes(measured)
    assert len(by_class.panels) == 2 and "hakmem (A): C6 takes" in by_class.panels[0].alt
    told = by_class.table[by_class.table["arm"] == "hakmem (A)"].set_index("place")
    assert told.loc["C6", "held by the program"] > told.loc["C5", "held by the program"] > 0.5
    own, others = rss_tax.maps(measured)
    assert f"hakmem on {WORK}" in own.panels[0].alt and len(others.panels) == 3
    assert others.table["resident MB"].min() > 10
    assert list(rss_tax.table(measured)["arm"]).count("hakmem (A)") == 2


def test_published_figures_have_a_name_each(measured: pd.DataFrame) -> None:
    small = measured[measured["workload"] == "tax:ws=400"]
    warmed = small.assign(gates=[{"HAKMEM_BENCH_PREFAULT": "0"}] * len(small))
    today = rss_tax.published(measured, warmed, small)
    assert today[("peak_rss", "hakmem FAST prefault 0")] is not None
    assert today[("peak_rss", "hakmem FAST prefault 20000000")] is None and today[("peak_rss", "mimalloc")] is None
    total = today[("metadata", "total")]
    assert total is not None and 0 < total < 200


def test_parameters_are_checked_before_anything_runs() -> None:
    spec = TaxSpec.checked({"ws": 400, "profile": "smoke"})
    assert spec.campaign().workloads == ("tax:ws=400",) and list(spec.gates()) == ["BENCH_PREFAULT", "SS_PREWARM"]
    with pytest.raises(BadParameter, match="numbers of slots from 1 to 1000000"):
        TaxSpec.checked({"ws": [0]})
