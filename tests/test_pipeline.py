"""Flows of blocks: known counters, known shares, the line of the verdict."""

from typing import Any

import pandas as pd
import pytest
from ledgers import LEAN, rows, trial

from hakmem.errors import BadParameter
from hakmem.studies import pipeline
from hakmem.studies.pipeline import BUILD, FreePipelineSpec

NAMES = (
    *pipeline.MISSES,
    *pipeline.EARLY,
    "ss_local",
    "ss_remote",
    "tls_sll",
    "overflow",
    "refill_new",
    "refill_partial",
)


def counters(misses: int, **more: int) -> dict[str, int]:
    """A thousand mallocs, so many of which missed, and a thousand frees."""
    counted = dict.fromkeys(NAMES, 0) | {"purge_ns": 0, "malloc_fast": 1000 - misses, "free_fast": 1000}
    return counted | {"refill_slab": misses, "tls_sll": 64 * misses} | more


def measured(misses: list[int], **more: int) -> pd.DataFrame:
    found = []
    for block, now in enumerate(misses):
        lean = counters(now, early_under_target=90, purge_runs=10, purge_ns=5_000_000)
        for workload in ("larson", "pc"):
            for role in ("baseline", "baseline2"):
                found.append(trial(BUILD, role, workload, block, 10, 5, counters=counters(now, **more)))
            name = f"{BUILD} LEAN DONTNEED 10 MB"
            found.append(trial(name, "arm", workload, block, 10, 5, counters=lean, gates=LEAN, wall_s=1.0))
    return rows(found)


def flow(table: pd.DataFrame, what: str, arm: str = BUILD) -> dict[str, Any]:
    found = table[(table["workload"] == "pc") & (table["arm"] == arm) & (table["what"] == what)]
    return dict(found.iloc[0])


def test_counters_become_flows() -> None:
    table = pipeline.table(measured([9, 10, 11], ss_local=150, ss_remote=50))
    assert flow(table, "misses")["estimate"] == pytest.approx(10)
    assert flow(table, "misses")["low"] == pytest.approx(10 - 4.303 / 3**0.5, abs=0.01)  # t of three blocks
    assert flow(table, "ss_local")["estimate"] == 150 and flow(table, "ss_remote")["estimate"] == 50
    assert flow(table, "reused")["estimate"] == 800 and flow(table, "moved")["estimate"] == 64
    assert flow(table, "misses")["blocks"] == 3  # the second baseline is no further block
    lean = "DONTNEED 10 MB"
    assert flow(table, "early_under_target", lean)["estimate"] == 90
    assert flow(table, "purge", lean)["estimate"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("misses", "word"), [([9, 10, 11], "GO"), ([50, 51, 52], "NO-GO"), ([20, 31, 42], "INCONCLUSIVE")]
)
def test_a_refill_has_to_serve_many(misses: list[int], word: str) -> None:
    found, sentences = pipeline.judge(pipeline.table(measured(misses)), rows([]))
    assert found == word and sentences[0].startswith("Of 1,000 mallocs the hot list serves all but")


def test_superslabs_are_judged_on_larson() -> None:
    gates = {"HAKMEM_TINY_USE_SUPERSLAB": "0"}
    pairs = [("hakmem", "baseline", 12.0, {}), ("hakmem TINY_USE_SUPERSLAB=0", "arm", 10.0, gates)]
    larson = rows(
        [trial(arm, role, "larson", b, mops + 0.01 * b, 5, gates=of) for b in range(4) for arm, role, mops, of in pairs]
    )
    _, sentences = pipeline.judge(pipeline.table(measured([9, 10, 11])), larson)
    assert any("changes larson's throughput by +20.0 % (+19.9 to +20.0)" in one for one in sentences)
    today = pipeline.published(larson)
    assert today[("throughput", "with superslab")] == pytest.approx(12, abs=0.05)
    assert today[("throughput", "before superslab")] == pytest.approx(10, abs=0.05)


def test_the_charts_say_what_they_show() -> None:
    table = pipeline.table(measured([9, 10, 11], ss_remote=300))
    assert "misses most on larson: 10 of 1,000" in pipeline.misses(table).panels[0].alt
    assert "30 % of those freed" in pipeline.frees(table).panels[0].alt
    assert "90 % of the looks end early" in pipeline.early(table).panels[0].alt
    counts = pd.DataFrame(
        [("pc", BUILD, room, n) for room, n in (("fast path", 40.0), ("slab", 70.0), ("tcache", 5.0), ("stats", 14.0))],
        columns=["workload", "arm", "room", "instructions"],
    )
    assert "fast path on pc: 75 instructions an op" in pipeline.rooms(counts).panels[0].alt
    assert pipeline.rooms(counts.iloc[:0]).panels == ()


def test_what_is_followed_is_checked_beforehand() -> None:
    assert FreePipelineSpec.checked({}).campaign().allocators == (BUILD,)
    assert FreePipelineSpec.checked({}).superslab().gates == {"HAKMEM_TINY_USE_SUPERSLAB": ("1", "0")}
    with pytest.raises(BadParameter, match="workload 'idle' has no length to grow"):
        FreePipelineSpec.checked({"counted": "idle"})
