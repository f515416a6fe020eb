"""A study that fits into a time: blocks, arms left out with their reasons, and sessions that go on with one plan."""

from pathlib import Path

import pytest

from hakmem import budget, campaign, planning
from hakmem.builds import allocators
from hakmem.builds.arms import Arm, make
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter
from hakmem.planning import Plan
from hakmem.study import BLOCKS, CampaignSpec

TINY = {
    "study": "tiny",
    "workloads": ["mixed:ws=50,cycles=20000", "ramp:n=2000,churn_ops=100"],
    "decommit": ["DONTNEED", "FREE", "OFF"],
    "target_mb": [10, 30],
    "allocators": ["hakmem", "system", "peers"],
    "profile": "smoke",
}


def fit(folder: Path, seconds: float, **changes: object) -> Plan:
    spec = CampaignSpec.checked(TINY | changes)
    return budget.fit(planning.plan(spec, ledger=folder / "tiny.jsonl", host="here"), seconds)


def test_as_many_blocks_are_planned_as_fit(tmp_path: Path) -> None:
    long, short = fit(tmp_path, 600), fit(tmp_path, 60)
    assert long.spec.blocks // 10 <= short.spec.blocks < long.spec.blocks
    assert short.spec.budget_minutes == 1 and 60 * short.expected_minutes <= 60
    assert not long.left_out and "left out" not in long.summary()


def test_arms_are_left_out_where_the_blocks_of_a_verdict_do_not_fit(tmp_path: Path) -> None:
    whole = fit(tmp_path, 600)
    block_s = 60 * whole.expected_minutes / whole.spec.blocks
    short = fit(tmp_path, 0.6 * BLOCKS["smoke"] * block_s)
    labels = [arm.label for arm in short.arms]
    assert short.spec.blocks >= BLOCKS["smoke"] and len(labels) < len(whole.arms)
    assert [arm.role for arm in short.arms[:2]] == ["baseline", "baseline2"] and "system" in labels
    assert all(
        arm.label not in labels for arm in whole.arms if any(s.startswith(arm.label + " (") for s in short.left_out)
    )
    assert len(short.left_out) + len(labels) == len(whole.arms)
    assert f"left out to fit the budget: {short.left_out[0]}" in short.summary()


def test_what_cannot_fit_says_how_long_it_takes(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"0:00 is too short: 2 blocks of \d+ arms x 2 workloads take 0:0"):
        fit(tmp_path, 0.1)
    with pytest.raises(BadParameter, match="8 blocks of"):
        fit(tmp_path, 0.6, layouts=4, blocks=8)


def arm(settings: dict[str, str], name: str = "hakmem", role: str = "arm") -> Arm:
    return make(allocators.find(name, compile_native()), settings, role)  # type: ignore[arg-type]


def lean(mode: str, target: str = "10") -> Arm:
    gates = {"MEM_LEAN": "1", "MEM_LEAN_DECOMMIT": mode, "MEM_LEAN_TARGET_MB": target}
    return arm({f"HAKMEM_SS_{name}": value for name, value in gates.items()})


def test_the_least_informative_arm_goes_first() -> None:
    base, twin = arm({}, role="baseline"), arm({}, role="baseline2")
    free, free30, dontneed = lean("FREE"), lean("FREE", "30"), lean("DONTNEED")
    system = arm({}, "system", "peer")
    unnamed = system.model_copy(update={"label": "other"})
    arms = [base, twin, free, dontneed, free30, system, unnamed]
    order = []
    while found := budget.least_informative(arms, ["hakmem"]):
        arms.remove(found[0])
        order.append(found)
    assert [one.label for one, _ in order] == ["other", free30.label, dontneed.label, "system"]
    assert order[0][1] == "a peer that nobody named: no verdict rests on it"
    assert order[1][1] == f"of all arms it is nearest to another: {free.label} is kept"  # a number apart, not a mode
    assert arms == [base, twin, free]
    assert budget.least_informative([base, twin, free, system], ["hakmem", "system"]) is None  # it was asked for


def test_a_later_session_goes_on_with_the_same_plan(tmp_path: Path) -> None:
    whole = fit(tmp_path, 600)
    seconds = 0.7 * BLOCKS["smoke"] * 60 * whole.expected_minutes / whole.spec.blocks
    first = fit(tmp_path, seconds)
    done = campaign.run(first, quiet=True)
    again = fit(tmp_path, seconds)  # measured durations differ from those expected, the plan does not
    assert (again.arms, again.spec) == (first.arms, first.spec) and again.to_measure < first.to_measure
    assert campaign.run(again, quiet=True).reused == done.measured
    assert all("first planned" in sentence for sentence in again.left_out) and len(again.left_out) == len(
        first.left_out
    )
