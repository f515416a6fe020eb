"""Shares of a peer's speed: known answers, milestones by the whole interval, the verdict's line."""

from typing import Any

import pandas as pd
import pytest
from ledgers import rows, study

from hakmem import paths
from hakmem.builds.allocators import PEERS
from hakmem.errors import BadParameter
from hakmem.studies import rebase
from hakmem.study import BLOCKS, RebaseSpec

ARMS: tuple[tuple[Any, ...], ...] = (
    ("mimalloc", "baseline", 1.0, 1.0, {}),
    ("mimalloc", "baseline2", 1.0, 1.0, {}),
    ("hakmem_minimal", "arm", 1.08, 1.0, {}),
    ("hakmem", "arm", 1.0, 1.0, {}),
    ("hakmem_observe", "arm", 0.8, 1.0, {}),
    ("system", "peer", 0.5, 1.0, {}),
)


def test_every_build_is_held_to_every_other_allocator() -> None:
    table = rebase.ratios(rows(study(blocks=8, arms=ARMS)))
    assert len(table) == 4 * 3 * 2  # workloads x builds x peers: A' is no peer
    found = table[table["workload"] == "ramp"].set_index(["build", "peer"])
    assert found.loc[("FAST", "mimalloc"), "percent"] == pytest.approx(108, rel=0.02)
    assert found.loc[("OBSERVE", "system"), "percent"] == pytest.approx(160, rel=0.02)
    assert found.loc[("FAST", "mimalloc"), "milestone"] == 100 and found.loc[("OBSERVE", "mimalloc"), "milestone"] == 75
    assert (found["low"] < found["percent"]).all() and (found["percent"] < found["high"]).all()
    assert rebase.chart(table, "mimalloc").title == "What share of mimalloc's speed."
    assert "mixed:ws=400 108 %, mixed:ws=100000 108 %" in rebase.chart(table, "mimalloc").panels[0].alt


def test_what_lies_beyond_the_chart_is_written_at_its_edge() -> None:
    arms = tuple(("hakmem_minimal", "arm", 45.0, 1.0, {}) if one[0] == "hakmem_minimal" else one for one in ARMS)
    table = rebase.ratios(rows(study(blocks=4, arms=arms)))
    drawn = rebase.chart(table, "mimalloc").panels[0]
    beyond = table[(table["peer"] == "mimalloc") & (table["percent"] > rebase.EDGES[1])]["percent"]
    assert len(beyond) == 4 and all(f"{share:,.0f} % →" in drawn.light for share in beyond)
    assert drawn.alt.startswith("hakmem FAST is surely ahead of mimalloc on 4 of 4 workloads, surely behind on none")
    wide = rebase.ratios(rows(study(blocks=3, cv=0.3, arms=ARMS)))
    assert "surely ahead of mimalloc on none of 4" in rebase.chart(wide, "mimalloc").panels[0].alt


def test_equal_counts_are_said_to_be_equal() -> None:
    line = {"workload": "pc", "loop": 23.5, "name": "hakmem", "allocator": 20.1}
    counts = pd.DataFrame([line | {"arm": "hakmem"}, line | {"arm": "hakmem ALLOC_PASSDOWN_SSOT=1"}])
    [panel] = rebase.instructions_chart(counts).panels
    assert panel.alt.startswith("pc: every arm takes 20.1 instructions an op")


def test_one_build_s_shares_stand_side_by_side() -> None:
    table = rebase.ratios(rows(study(blocks=8, arms=ARMS)))
    twice = [table.assign(workload=f"trace:data/traces/gcc.trace.zst,repeat={times}") for times in (1, 10)]
    one = pd.concat([part.drop_duplicates(["build", "peer"]) for part in twice])
    assert list(rebase.overview(one)["workload"]) == ["trace:gcc"] * 2
    shown = rebase.overview(table).set_index("workload")
    assert list(shown.columns) == ["mimalloc", "system"] and len(shown) == 4
    assert shown.loc["ramp", "mimalloc"] == "107 % (106 to 108)"


def test_instructions_are_drawn_and_told() -> None:
    line = {"workload": "mixed:ws=400", "loop": 23.5}
    counts = pd.DataFrame(
        [line | {"arm": "hakmem", "name": "hakmem", "allocator": 22.6}]
        + [line | {"arm": "system", "name": "system", "allocator": 68.5}]
    )
    [panel] = rebase.instructions_chart(counts).panels
    assert "hakmem takes the fewest instructions, 23 an op" in panel.alt and "system 68.5" in panel.alt
    assert rebase.instructions_chart(counts.iloc[:0]).panels == ()
    fast = line | {"arm": "hakmem_minimal", "name": "hakmem_minimal", "allocator": 14.0}
    [both] = rebase.instructions_chart(pd.concat([counts, pd.DataFrame([fast])])).panels
    assert "hakmem FAST takes the fewest instructions" in both.alt and "hakmem Standard 22.6" in both.alt


def test_the_drivers_and_the_recorded_traces_are_asked() -> None:
    spec = RebaseSpec.checked({})
    assert {"mixed:ws=400", "larson", "trace:data/traces/node.trace.zst,repeat=10"} <= set(spec.workloads)
    assert sum(name.startswith("trace:") for name in spec.workloads) == len(list(paths.traces().glob("*.trace.zst")))
    drivers = {name: {w.split(":")[0] for w in RebaseSpec.checked({"profile": name}).workloads} for name in BLOCKS}
    assert drivers["quick"] == drivers["full"] > drivers["smoke"]  # a quick one asks the same, for less
    with pytest.raises(BadParameter, match="workload 'idle' has no length to grow"):
        RebaseSpec.checked({"counted": "idle"})


def test_the_word_hangs_on_the_line_drawn_beforehand() -> None:
    table = rebase.ratios(rows(study(blocks=8, arms=ARMS)))
    word, sentences = rebase.judge(table, "mimalloc")
    assert word == "GO" and sentences[0].startswith("hakmem FAST runs at 108 % of mimalloc's throughput")
    assert sentences[0].endswith("(geometric mean of 4 workloads): as fast on all.")
    reached = "50 % on 4 of 4, 75 % on 4, 90 % on 4, 100 % on 4"
    assert sentences[3] == f"Milestones, reached by the whole interval: {reached}."
    slow, said = rebase.judge(table, "mimalloc", "OBSERVE")
    assert slow == "NO-GO" and said[0].endswith("surely slower on all.") and "slower on mixed:ws=400, " in said[2]
    noisy = rebase.ratios(rows(study(blocks=3, cv=0.2, arms=ARMS)))
    doubted, why = rebase.judge(noisy, "mimalloc")
    assert doubted == "INCONCLUSIVE" and "undecided on" in why[0]  # the headline says what is open
    [one] = [rebase.judge(table[table["workload"] == "ramp"], "mimalloc")[1][0]]
    assert one.endswith("throughput (ramp): as fast on 1.")
    assert rebase.judge(table, "jemalloc")[0] == "INCONCLUSIVE"


def test_one_linkage_for_all() -> None:
    linked = RebaseSpec.checked({"linked": True, "peer": "mimalloc"}).campaign()
    assert linked.allocators[0] == "mimalloc@linked" and all(name.endswith("@linked") for name in linked.allocators)
    preloaded = RebaseSpec.checked({"peer": "system"}).campaign()
    assert preloaded.allocators == ("system", "hakmem_minimal", "hakmem", "hakmem_observe", "peers")


def test_hakmem_is_no_peer_of_itself() -> None:
    with pytest.raises(BadParameter, match="it takes an allocator that is not hakmem: " + ", ".join(PEERS)):
        RebaseSpec.checked({"peer": "hakmem"})
