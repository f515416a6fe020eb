"""What the workbench costs the programs it measures, measured as anything else is: with it and without, in pairs.

Without it a driver is started and nobody looks until it has ended. With it the driver is a trial as a campaign runs
one: its output is read and its memory sampled from outside while it runs, and it has a deadline.
"""

import math

import numpy as np
import scipy
from pydantic import BaseModel, ConfigDict

from hakmem import run, sample, stats
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.errors import TrialFailed
from hakmem.pairs import in_turns
from hakmem.progress import Progress
from hakmem.workload import Workload

BOUND = 0.5  # percent of throughput


class OwnCost(BaseModel):
    """The change of throughput in percent that the workbench makes, with its 95 % interval.

    `samples` were taken from outside over all trials; none where a trial uses every core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    workload: str
    arm: str
    effect: stats.Interval
    samples: int

    @property
    def within(self) -> bool:
        """Whether the whole interval lies within the bound."""
        return max(abs(self.effect.low), abs(self.effect.high)) <= BOUND

    @property
    def pairs_needed(self) -> int | None:
        """Pairs after which the interval probably lies within the bound, if the effect is as it seems; None: never."""
        slack = BOUND - abs(self.effect.estimate)
        quantile = float(scipy.stats.t.ppf(0.5 + self.effect.level / 2, self.effect.n - 1))
        sd = (self.effect.high - self.effect.low) / 2 / quantile * math.sqrt(self.effect.n)
        return stats.blocks_needed(sd, slack) if slack > 0 else None

    def sentence(self) -> str:
        """Say what it costs, and whether that can be told finely enough."""
        span = f"{self.effect.estimate:+.2f} % ({self.effect.low:+.2f} to {self.effect.high:+.2f} %)"
        told = f"the workbench changes the throughput of {self.workload} by {span}, {self.effect.n} pairs"
        if self.within:
            return f"{told}: within ±{BOUND} %"
        if self.effect.high < -BOUND or self.effect.low > BOUND:
            return f"{told}: more than ±{BOUND} %"
        more = f", which takes about {self.pairs_needed} pairs" if self.pairs_needed else ""
        return f"{told}: not shown to be within ±{BOUND} %{more}"


def measure(build: Build, arm: Arm, work: Workload, pairs: int, progress: Progress) -> OwnCost:
    """Run a workload with and without the workbench, in turns and in both orders.

    Parameters
    ----------
    build : Build
    arm : Arm
    work : Workload
        Of a driver.
    pairs : int
        Two or more.
    progress : Progress
        Told after each pair.

    Raises
    ------
    TrialFailed
        A trial did not end well.
    """
    samples = 0

    def plain(pair: int) -> float:
        return run.unwatched(build, arm, work, padding=run.padding_of(1, pair)).ops_per_s

    def watched(pair: int) -> float:
        nonlocal samples
        sampler = sample.Sampler() if sample.use(work.threads) else None
        tick = sampler.tick if sampler else None
        outcome = run.trial(build, arm, work, padding=run.padding_of(1, pair), tick=tick)
        samples += len(sampler.t_s) if sampler else 0
        if outcome.status != "ok" or outcome.line is None or not outcome.line.ops_per_s:
            complaint = f"{outcome.status}: {outcome.complaint or outcome.exit.stderr_tail.strip()}"
            raise TrialFailed(f"{arm.label} on {work.text} with the workbench: {complaint}")
        return outcome.line.ops_per_s

    rates: stats.Array = np.array(in_turns(plain, watched, pairs, progress, work.text))
    effect = stats.interval(np.log(rates[:, 1] / rates[:, 0])).percent()
    return OwnCost(workload=work.text, arm=arm.label, effect=effect, samples=samples)
