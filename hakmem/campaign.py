"""A study measured: what its plan lacks is run into the ledger block by block, then judged.

With `until_decided` the verdicts are looked at after `blocks` blocks and at each of `planning.LOOKS` times as many; a
workload gets no further blocks once each of its verdicts is decided, or cannot be by more of them. Alpha is spent over
the looks (`stats.nominal_alphas`), so that looking again and again errs no more often than looking once.

On a cluster a block runs on one host, whole: its trials are compared with each other, never with another host's.
"""

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from hakmem import epochs, planning, sample, stats, store, verdict
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.planning import Plan
from hakmem.progress import Progress, show
from hakmem.run import Outcome, padding_of, trial
from hakmem.store import Ledger, Trial
from hakmem.system import interrupts, machine, turn
from hakmem.verdict import Verdict
from hakmem.workload import Workload

ALPHA = 0.05
Judge = Callable[[pd.DataFrame, float], list[Verdict]]
Watch = Callable[[Arm, pd.DataFrame], None]


class Done(BaseModel):
    """What a session did: trials measured and reused, blocks that were spoiled, and why it ended early (or None).

    `undecided` names what `until_decided` did not settle, one sentence a workload.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    ledger: Path
    measured: int
    reused: int
    spoiled_blocks: int
    stopped: str | None
    undecided: tuple[str, ...] = ()


def run(made: Plan, *, quiet: bool = False, judge: Judge | None = None, watch: Watch | None = None) -> Done:
    """Measure what the ledger does not hold yet; stopped at any moment it loses at most the trial in flight.

    A block in which a trial was spoiled is run once more, as a further block. The study ends early, between blocks,
    when `budget_minutes` are spent: time in the ledger counts, and the first block is always completed.

    Parameters
    ----------
    made : Plan
    quiet : bool
        Show no progress.
    judge : callable, optional
        Makes the verdicts that `until_decided` waits for, of rows and an alpha; `verdict.judge` by default.
    watch : callable, optional
        Told the epochs so far of a soak that runs, whenever there is a new one and a core is free to look.

    Returns
    -------
    Done

    Raises
    ------
    LedgerError
        Another process writes the ledger, or it cannot be written.
    """
    with Ledger(made.ledger) as ledger:
        session = Session(made, ledger, quiet, judge, watch)
        try:
            return session.measure_all()
        finally:
            session.progress.close()


def rows(made: Plan) -> pd.DataFrame:
    """Return the ledger's rows that belong to a plan, as `store.load` does; other builds and hosts are left out."""
    return store.frame(planning.past(made).values())


def verdicts(made: Plan, table: pd.DataFrame, judge: Judge | None = None) -> list[Verdict]:
    """Judge the rows of a plan, each workload at the alpha that the look it stopped at may spend.

    Parameters
    ----------
    made : Plan
    table : DataFrame
        Its rows.
    judge : callable, optional
        Of rows and an alpha; `verdict.judge` with the smallest target by default.
    """
    return judged(table, made.looks, judge or _judge(made), together=made.cluster)


def judged(table: pd.DataFrame, when: tuple[int, ...], judge: Judge, *, together: bool = False) -> list[Verdict]:
    """Judge rows that were looked at after so many blocks; see `verdicts`.

    With `together` the blocks of all hosts make one verdict: arms are compared within blocks, hence within hosts, and
    the host is a blocking factor. Otherwise each host has its own.
    """
    found: list[Verdict] = []
    for _, cell in table.groupby("workload", sort=False):
        planned = cell.loc[cell["block"] < when[-1], "block"]
        level = alpha(when, planned.nunique())
        found += judge(stats.hosts_as_blocks(cell) if together else cell, level)
    return found


def alpha(when: tuple[int, ...], blocks: int) -> float:
    """Return the error that verdicts may spend at a look after so many blocks, one of several or not."""
    if len(when) == 1:
        return ALPHA
    now = min(max(blocks, 1), when[-1])
    shares = [look / when[-1] for look in when if look < now] + [now / when[-1]]
    return stats.nominal_alphas(shares, ALPHA)[-1]


def _judge(made: Plan) -> Judge:
    target = min(made.spec.target_mb)
    return lambda table, level: verdict.judge(table, target, level)


class Session:
    """One process at work on a plan.

    `left` counts the trials still to measure by workload, `spoiled` holds the numbers of its spoiled blocks, `repeated`
    counts the trials that were added for these, `hands` is how many hosts are at work.
    """

    hands = 1
    check: Callable[[], None]  # of `interrupts.heard`, while it measures

    def __init__(
        self, made: Plan, ledger: Ledger, quiet: bool, judge: Judge | None, watch: Watch | None = None
    ) -> None:
        self.plan, self.ledger, self.judge, self.watch = made, ledger, judge, watch
        self.most = made.looks[-1]
        self.goal = dict.fromkeys((work.text for work in made.workloads), made.spec.blocks)
        self.undecided: dict[str, str] = {}
        before = planning.past(made)
        self.find_lacks = planning.Lacks(made, before.values())
        self.durations = planning.Durations(before.values())
        self.reused, self.measured, self.repeated = len(before), 0, 0
        self.spoiled: dict[str, set[int]] = {work.text: set() for work in made.workloads}
        self.left = {
            work.text: sum(self.lacks(work, block) for block in range(made.spec.blocks)) for work in made.workloads
        }
        for known in before.values():
            self.note(known)
        self.progress: Progress = show(quiet=quiet or not any(self.left.values()))
        self.provenance = ""

    def lacks(self, work: Workload, block: int) -> int:
        """Return how many trials of a block are not in the ledger."""
        return self.find_lacks.least(work, block, self.ledger.keys)

    def repeats(self, work: Workload) -> int:
        """Return how many further blocks the spoiled ones among the planned ask for."""
        return sum(block < self.most for block in self.spoiled[work.text])

    def note(self, known: Trial) -> None:
        """Take note of a spoiled trial: its block will be run once more, unless it is itself such a repetition."""
        if known.spoiled and known.block not in self.spoiled[known.workload]:
            self.spoiled[known.workload].add(known.block)
            if known.block < self.most:
                work = next(one for one in self.plan.workloads if one.text == known.workload)
                further = self.lacks(work, self.most + self.repeats(work) - 1)
                self.left[work.text] += further
                self.repeated += further

    def blocks(self) -> Iterator[tuple[Workload, int]]:
        """Yield the planned blocks, all workloads in turn so that a budget cuts them alike, then the repetitions."""
        for block in range(self.most):
            for work in self.plan.workloads:
                if block == self.goal[work.text] and block in self.plan.looks:
                    self.look(work)
                if block < self.goal[work.text]:
                    yield work, block
        for work in self.plan.workloads:
            if self.most > self.plan.spec.blocks and self.goal[work.text] == self.most:
                self.look(work)
        for block in range(self.most, 2 * self.most):
            for work in self.plan.workloads:
                if block < self.most + self.repeats(work):
                    yield work, block

    def look(self, work: Workload) -> None:
        """Judge a workload; where more blocks may decide it, plan those up to the next look."""
        reached = self.goal[work.text]
        table = store.frame(trial for trial in planning.past(self.plan).values() if trial.workload == work.text)
        open_ones = [v for v in verdicts(self.plan, table, self.judge) if v.word == "INCONCLUSIVE"]
        self.undecided.pop(work.text, None)
        if open_ones:
            self.undecided[work.text] = f"{work.text}: {len(open_ones)} arm(s) undecided after {reached} blocks"
        if reached < self.most and any(v.blocks_needed is not None for v in open_ones):
            self.goal[work.text] = next(look for look in self.plan.looks if look > reached)
            self.left[work.text] += sum(self.lacks(work, block) for block in range(reached, self.goal[work.text]))

    def measure_all(self) -> Done:
        """Measure until all is measured or the budget is spent."""
        with interrupts.heard() as self.check:
            return self.go_through()

    def go_through(self) -> Done:
        """Run the blocks one after the other."""
        stopped = None
        for work, block in self.blocks():
            lacks = self.lacks(work, block)
            needs = lacks * self.durations.of(work)
            if lacks and block > 0 and self.durations.spent_s + needs > 60 * self.plan.spec.budget_minutes:
                stopped = f"the budget of {self.plan.spec.budget_minutes:g} min is spent"
                break
            if lacks:
                with turn.taken(self.progress.wait):
                    self.measure_block(work, block)
        return self.done(stopped)

    def done(self, stopped: str | None) -> Done:
        """Sum up what this session did."""
        return Done(
            ledger=self.plan.ledger,
            measured=self.measured,
            reused=self.reused,
            spoiled_blocks=sum(map(len, self.spoiled.values())),
            stopped=stopped,
            undecided=tuple(self.undecided.values()),
        )

    def measure_block(self, work: Workload, block: int) -> None:
        """Run what a block lacks, in its order, each trial durable before the next begins."""
        if not self.provenance:
            known = origin(self.plan)
            self.ledger.append(known)
            self.ledger.append(planning.intention(self.plan))
            self.provenance = known.id
        for position, key in enumerate(self.plan.keys(work, block)):
            if key not in self.ledger.keys:
                made = measure(self.plan, work, block, position, self.provenance, self.watch)
                self.take(made.model_copy(update={"order": len(self.ledger.trials)}))

    def take(self, made: Trial) -> None:
        """Make a trial durable, and show it."""
        self.ledger.append(made)
        self.durations.add(made)
        self.measured += 1
        self.left[made.workload] -= 1
        self.note(made)
        self.tell(f"{made.workload}: {made.arm}")
        self.check()

    def tell(self, what: str) -> None:
        """Show where we are; the ETA is what the measured durations say, and no more than the budget."""
        eta_s = sum(self.left[work.text] * self.durations.of(work) for work in self.plan.workloads) / self.hands
        budget_s = max(0.0, 60 * self.plan.spec.budget_minutes - self.durations.spent_s)
        total = self.measured + sum(self.left.values())
        self.progress.step(self.measured, total, min(eta_s, budget_s), what, self.repeated)


def measure(
    made: Plan, work: Workload, block: int, position: int, provenance: str, watch: Watch | None = None
) -> Trial:
    """Run one trial of a plan and make its row; its series is saved beside the ledger.

    Parameters
    ----------
    made : Plan
    work : Workload
        One of its workloads.
    block, position : int
        Which trial.
    provenance : str
        What the row says of where it comes from, see `origin`.
    watch : callable, optional
        As for `run`.

    Returns
    -------
    Trial
        Its `order` is 0: who writes the ledger knows better.
    """
    arm, key, layout = made.order(work, block)[position], made.keys(work, block)[position], made.layout(block)
    placed = arm.laid_out(layout)
    shift = padding_of(made.spec.seed, block)
    series = Path(f"{made.ledger.stem}.series", f"{key}.parquet")
    beside = made.ledger.parent / series
    if work.driver == "soak":
        outcome, saved = _in_epochs(made.build, placed, work, shift, beside, watch)
    else:
        outcome, saved = _sampled(made.build, placed, work, shift, beside)
    return store.row(
        outcome,
        placed,
        work,
        made.build,
        study=made.spec.study,
        trial_key=key,
        cohort=made.cohort(),
        provenance=provenance,
        host=made.host,
        block=block,
        position=position,
        order=0,
        layout=layout if arm.allocator.layouts else None,
        series=str(series) if saved else None,
    )


def _sampled(build: Build, arm: Arm, work: Workload, shift: int, series: Path) -> tuple[Outcome, bool]:
    """Run a trial whose memory is sampled from outside, where that disturbs nobody; tell whether there is a series."""
    sampler = sample.Sampler(family=work.program) if sample.use(work.threads) else None
    outcome = trial(build, arm, work, padding=shift, tick=sampler.tick if sampler else None)
    return outcome, sampler is not None and sampler.write(series)


def _in_epochs(
    build: Build, arm: Arm, work: Workload, shift: int, series: Path, watch: Watch | None
) -> tuple[Outcome, bool]:
    """Run a soak: it tells its epochs itself, and they are its series."""
    with tempfile.TemporaryDirectory(prefix="hakmem-epochs-") as scratch:
        csv = Path(scratch, "epochs.csv")
        file = epochs.Growing(csv)

        def tick(_: int) -> None:
            if watch and file.grows():
                watch(arm, epochs.read(csv))

        written = work.model_copy(update={"args": (*work.args, f"--csv={csv}")})
        watched = watch is not None and sample.use(work.threads)
        outcome = trial(build, arm, written, padding=shift, tick=tick if watched else None)
        told = epochs.read(csv) if csv.exists() else pd.DataFrame()
    if told.empty:
        return outcome, False
    sample.write(pa.Table.from_pandas(told, preserve_index=False), series)
    return outcome, True


def origin(made: Plan) -> store.Provenance:
    """Say where the rows measured from now on come from: this host, as it is."""
    now = datetime.now(UTC)
    facts = machine.probe(made.host, compiler=None).model_dump(mode="json")
    facts |= {"build": made.build.build_id, "build_compiler": made.build.compiler, "seed": made.spec.seed}
    facts |= {"allocators": {arm.allocator.label: arm.allocator.model_dump(mode="json") for arm in made.arms}}
    identity = store.digest({"facts": facts, "started": now.isoformat()})
    return store.Provenance(id=identity, host=made.host, started=now, facts=facts)
