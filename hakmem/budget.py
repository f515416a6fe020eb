"""A study that fits into a time: how many blocks, and of which arms.

A verdict needs the blocks of its profile. Where they do not fit, arms are left out, least informative first: peers that
nobody named, since no verdict rests on them, then of arms that resemble each other one of the nearest two. The first
session settles it: a later one with the same budget finds its plan in the ledger and goes on with it.
"""

from collections.abc import Sequence
from itertools import combinations

from hakmem import planning, store
from hakmem.builds.arms import Arm
from hakmem.errors import BadParameter
from hakmem.planning import Durations, Plan
from hakmem.progress import clock
from hakmem.study import BLOCKS

MOST_BLOCKS = 10_000


def fit(asked: Plan, seconds: float) -> Plan:
    """Choose the arms and blocks of a plan that fit into a time, from what trials took before or should take.

    Parameters
    ----------
    asked : Plan
        Its blocks and budget are replaced.
    seconds : float

    Returns
    -------
    Plan
        `left_out` says which arms it goes without, and why.

    Raises
    ------
    BadParameter
        Fewer than two blocks fit of what cannot be left out; the message says how long two take.
    """
    spec = asked.spec.model_copy(update={"budget_minutes": seconds / 60})
    whole = asked.model_copy(update={"spec": spec})
    if (known := _planned_before(whole)) is not None:
        return known
    durations = Durations(planning.past(whole).values())
    trial_s = sum(map(durations.of, whole.workloads))
    fewest = 2 * spec.layouts or BLOCKS[spec.profile]
    arms, left_out = list(whole.arms), []
    while len(arms) * trial_s * fewest > seconds and (found := least_informative(arms, spec.allocators)):
        arm, why = found
        arms.remove(arm)
        left_out.append(f"{arm.label} ({why})")
    blocks = int(seconds / (len(arms) * trial_s))
    if blocks < max(2, 2 * spec.layouts):
        least = max(2, 2 * spec.layouts)
        raise BadParameter(
            f"{clock(seconds)} is too short: {least} blocks of {len(arms)} arms x {len(whole.workloads)} workloads take"
            f" {clock(least * len(arms) * trial_s)}; ask for fewer, for --profile smoke, or for more time"
        )
    return _settled(whole, arms, min(blocks, MOST_BLOCKS), left_out)


def least_informative(arms: Sequence[Arm], named: Sequence[str]) -> tuple[Arm, str] | None:
    """Choose the arm that a study misses least, with the reason; None where each is needed.

    Parameters
    ----------
    arms : sequence of Arm
    named : sequence of str
        Allocators that were asked for by name.
    """
    peers = [arm for arm in arms if arm.role == "peer" and arm.allocator.label not in named]
    if len(peers) > 1:
        return peers[-1], "a peer that nobody named: no verdict rests on it"
    judged = [arm for arm in arms if arm.role == "arm"]
    alike = [pair for pair in combinations(judged, 2) if pair[0].allocator.label == pair[1].allocator.label]
    if alike:
        kept, dropped = min(alike, key=lambda pair: _distance(*pair))
        return dropped, f"of all arms it is nearest to another: {kept.label} is kept"
    return (peers[0], "a peer that nobody named: no verdict rests on it") if peers and judged else None


def _distance(one: Arm, other: Arm) -> float:
    """Count the gates in which two arms differ; one that both set to numbers counts half, it is a matter of degree."""
    names = {name for name in one.gates.keys() | other.gates.keys() if one.gates.get(name) != other.gates.get(name)}
    numbers = sum(one.gates.get(name, "").isdigit() and other.gates.get(name, "").isdigit() for name in names)
    return len(names) - numbers / 2


def _planned_before(whole: Plan) -> Plan | None:
    """Find the plan that an earlier session made of the same parameters and budget."""
    if not whole.ledger.exists():
        return None
    asked = whole.spec.model_dump(mode="json", exclude={"blocks"})
    for record in reversed([one for one in store.records(whole.ledger) if isinstance(one, store.Plan)]):
        if {name: value for name, value in record.spec.items() if name != "blocks"} == asked:
            arms = [arm for arm in whole.arms if arm.label in record.arms]
            left_out = [f"{arm.label} (as this budget was first planned)" for arm in whole.arms if arm not in arms]
            return _settled(whole, arms, record.blocks, left_out)
    return None


def _settled(whole: Plan, arms: Sequence[Arm], blocks: int, left_out: Sequence[str]) -> Plan:
    spec = whole.spec.model_copy(update={"blocks": blocks})
    return planning.counted(whole.model_copy(update={"spec": spec, "arms": tuple(arms), "left_out": tuple(left_out)}))
