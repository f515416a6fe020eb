"""What a study will measure: arms, orders, keys, and what stops it before anything runs."""

from collections import Counter
from pathlib import Path

import pytest

from hakmem import planning
from hakmem.builds import allocators
from hakmem.builds.allocators import Peer
from hakmem.errors import BadGate, BadParameter, MissingTool, TrialFailed
from hakmem.planning import Plan
from hakmem.study import CampaignSpec

TINY = {
    "study": "tiny",
    "workloads": ["mixed:ws=50,cycles=20000", "ramp:n=2000,churn_ops=100"],
    "decommit": ["DONTNEED", "OFF"],
    "target_mb": [10, 30],
    "allocators": ["hakmem", "system"],
    "blocks": 4,
    "budget_minutes": 30,
    "profile": "smoke",
}
ARMS = 6  # A, A', DONTNEED under two targets, OFF, system


def plan(folder: Path, **changes: object) -> Plan:
    return planning.plan(CampaignSpec.checked(TINY | changes), ledger=folder / "tiny.jsonl", host="here")


def test_the_plan_is_complete_before_anything_runs(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert [(arm.label, arm.role) for arm in made.arms] == [
        ("hakmem", "baseline"),
        ("hakmem", "baseline2"),
        ("hakmem LEAN DONTNEED 10 MB", "arm"),
        ("hakmem LEAN DONTNEED 30 MB", "arm"),
        ("hakmem LEAN OFF", "arm"),
        ("system", "peer"),
    ]
    assert made.trials == made.to_measure == ARMS * 2 * 4
    assert made.expected_minutes > 0
    assert len(made.merged) == 2
    assert "6 arms x 2 workloads x 4 blocks: 48 trials" in made.summary()
    assert len(made.frame()) == ARMS
    assert not made.ledger.exists()


def test_orders_are_seeded_and_counterbalanced(tmp_path: Path) -> None:
    made = plan(tmp_path)
    work = made.workloads[0]
    orders = [[(arm.label, arm.role) for arm in made.order(work, block)] for block in range(2 * ARMS)]
    assert orders[1] == orders[0][::-1]
    for position in range(ARMS):  # every arm stands twice at every place
        assert set(Counter(order[position] for order in orders).values()) == {2}
    again = plan(tmp_path)
    assert [again.keys(work, block) for block in range(4)] == [made.keys(work, block) for block in range(4)]
    other = plan(tmp_path, seed=2)
    assert [arm.label for arm in other.order(work, 0)] != [arm.label for arm in made.order(work, 0)]


def test_layouts_go_round_within_the_blocks_asked_for_and_are_new_beyond(tmp_path: Path) -> None:
    made = plan(tmp_path)

    def numbers(count: int, **asked: int) -> list[int]:
        laid_out = made.model_copy(update={"spec": made.spec.model_copy(update=asked)})
        return [laid_out.layout(block) for block in range(count)]

    assert set(numbers(16)) == {0}
    assert numbers(16, layouts=2, blocks=8) == [0, 0, 1, 1] * 4
    assert numbers(16, layouts=2, blocks=4, until_decided=1) == [at // 2 for at in range(16)]
    longer = numbers(64, layouts=2, blocks=8, until_decided=1)
    assert longer[:16] == [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2 and longer[32:] == longer[:32]  # repeated blocks
    assert max(numbers(40, layouts=2, blocks=5, until_decided=1)) == 7
    with pytest.raises(BadParameter, match="hakmem@linked has one layout: several are made of libraries"):
        plan(tmp_path, allocators=["hakmem@linked", "hakmem_minimal@linked"], layouts=2)


def test_keys_tell_trials_apart(tmp_path: Path) -> None:
    made = plan(tmp_path)
    keys = [key for work in made.workloads for block in range(8) for key in made.keys(work, block)]
    assert len(set(keys)) == len(keys) == ARMS * 2 * 8
    elsewhere = planning.plan(made.spec, ledger=made.ledger, host="there")
    assert not set(keys) & set(elsewhere.keys(made.workloads[0], 0))


def test_a_block_is_of_one_session_or_of_sessions_that_planned_the_same(tmp_path: Path) -> None:
    """With one arm more, or another seed, every block is another; more blocks go on with those that are there."""
    made = plan(tmp_path)
    keys = {key for work in made.workloads for block in range(4) for key in made.keys(work, block)}
    for changes in ({"target_mb": [10, 30, 50]}, {"seed": 2}, {"allocators": ["hakmem", "system", "hakmem_minimal"]}):
        other = plan(tmp_path, **changes)
        assert other.cohort() != made.cohort()
        assert not keys & {key for work in other.workloads for block in range(8) for key in other.keys(work, block)}
    longer = plan(tmp_path, blocks=8)
    assert longer.cohort() == made.cohort()
    assert keys < {key for work in longer.workloads for block in range(8) for key in longer.keys(work, block)}


def test_allocators_that_are_not_there_stop_the_plan_only_when_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(allocators.PEERS, "jemalloc", Peer(("libsurely_not_here.so",), "libjemalloc-dev"))
    with pytest.raises(MissingTool, match="libjemalloc-dev"):
        plan(tmp_path, allocators=["hakmem", "jemalloc"])
    made = plan(tmp_path, allocators=["hakmem", "system", "peers"])
    assert made.missing["jemalloc"] == "apt-get install libjemalloc-dev"
    assert "not measured: jemalloc" in made.summary()


def test_a_broken_peer_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libbroken.so").write_text("no library")
    monkeypatch.setattr(allocators, "COMMON_DIRECTORIES", (str(tmp_path),))
    monkeypatch.setitem(allocators.PEERS, "jemalloc", Peer(("libbroken.so",), "libjemalloc-dev"))
    made = plan(tmp_path, allocators=["hakmem", "system", "peers"])
    assert "not at work" in made.missing["jemalloc"]
    with pytest.raises(TrialFailed):
        plan(tmp_path, allocators=["hakmem", "jemalloc"])


def test_flavours_refuse_gates_they_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(BadGate, match="compiled out"):
        plan(tmp_path, allocators=["hakmem_minimal"], gates={"WARM_POOL": [0, 2]})
