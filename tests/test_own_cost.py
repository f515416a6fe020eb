"""What the workbench costs: measured on real drivers, and judged by known intervals."""

import json
import os

import pytest
from typer.testing import CliRunner

from hakmem import stats, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import build as compile_native
from hakmem.cli import app
from hakmem.errors import TrialFailed
from hakmem.progress import Silent
from hakmem.stats import Interval
from hakmem.studies import own_cost
from hakmem.studies.own_cost import OwnCost

SMALL = "mixed:ws=50,cycles=5000000"


def cost(low: float, high: float) -> OwnCost:
    return OwnCost(workload="w", arm="a", effect=Interval((low + high) / 2, low, high, 0.95, "t", 40), samples=9)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.4, 0.3, "within ±0.5 %"),
        (-0.9, 0.1, "not shown to be within ±0.5 %, which takes about 2571 pairs"),
        (-0.2, 0.6, "not shown to be within ±0.5 %, which takes about 185 pairs"),
        (-2.0, 0.6, "not shown to be within ±0.5 %"),
        (-2.0, -1.0, ": more than ±0.5 %"),
    ],
)
def test_it_says_when_it_costs_more_than_it_may_or_cannot_tell(low: float, high: float, says: str) -> None:
    found = cost(low, high)
    assert found.within == (says == "within ±0.5 %")
    assert found.sentence().endswith(says) and "40 pairs" in found.sentence()


def test_trials_are_paired_and_sampled_where_a_core_is_free() -> None:
    done = CliRunner().invoke(app, ["own-cost", "--pairs", "3", "--workload", SMALL, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["effect"]["n"] == 3 and found["effect"]["low"] < found["effect"]["estimate"] < found["effect"]["high"]
    assert (found["samples"] > 0) == (len(os.sched_getaffinity(0)) > 1)
    made = compile_native()
    busy = workload.parse(f"larson:threads={len(os.sched_getaffinity(0))},cycles=20000", "smoke")
    arm = arms.make(allocators.find("system", made), {})
    assert own_cost.measure(made, arm, busy, 2, Silent()).samples == 0  # every core is the program's


def test_a_trial_that_fails_is_no_figure() -> None:
    made = compile_native()
    arm = arms.make(allocators.find("hakmem", made), {}).model_copy(update={"gates": {"HAKMEM_SS_MEM_LEAN": "maybe"}})
    with pytest.raises(TrialFailed, match="with the workbench: failed: HAKMEM_SS_MEM_LEAN=maybe"):
        own_cost.measure(made, arm, workload.parse(SMALL), 2, Silent())


def test_pairs_needed_of_few_pairs_are_those_of_their_spread() -> None:
    """An interval over three pairs is wide for want of pairs too: its width is 4.3 standard errors, not 1.96."""
    few = stats.t_interval([-0.1, 0.2, 0.5])
    found = OwnCost(workload="w", arm="a", effect=few, samples=9)
    assert not found.within and found.pairs_needed == stats.blocks_needed(0.3, 0.3)
