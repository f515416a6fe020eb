"""A study: arms x workloads x blocks, planned and validated before anything runs, then measured into the ledger.

In a block every arm of a workload runs once, back to back. Orders are counterbalanced: a seeded order is rotated from
pair of blocks to pair of blocks, and the second block of a pair runs backwards (ABBA). The baseline runs twice in every
block. What the ledger holds already is not measured again.

With `until_decided` the verdicts are looked at after `blocks` blocks and at each of `LOOKS` times as many; a workload
gets no further blocks once each of its verdicts is decided, or cannot be by more of them. Alpha is spent over the looks
(`stats.nominal_alphas`), so that looking again and again errs no more often than looking once.

On a cluster a block runs on one host, whole: its trials are compared with each other, never with another host's.
"""

import functools
import math
import random
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import pandas as pd
from pydantic import BaseModel, ConfigDict

from hakmem import epochs, paths, sample, stats, store, verdict, workload
from hakmem.builds import allocators, arms
from hakmem.builds.allocators import Allocator
from hakmem.builds.arms import DECOMMIT, FAST, LEAN, TARGET, Arm
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, TrialFailed
from hakmem.progress import Progress, clock, show
from hakmem.run import Outcome, padding_of, trial
from hakmem.store import Ledger, Trial
from hakmem.study import PEERS, CampaignSpec, ProgramSpec
from hakmem.system import machine, turn
from hakmem.verdict import Verdict
from hakmem.workload import Workload

__all__ = [
    "CampaignSpec",
    "Done",
    "Durations",
    "Plan",
    "Session",
    "alpha",
    "counted",
    "judged",
    "intention",
    "looks",
    "measure",
    "on_cluster",
    "origin",
    "past",
    "plan",
    "prove",
    "rows",
    "run",
    "verdicts",
]

LAUNCH_S = 0.02
LOOKS = (1, 1.5, 2, 3, 4)  # when verdicts are looked at, in multiples of the blocks asked for
ALPHA = 0.05
Judge = Callable[[pd.DataFrame, float], list[Verdict]]


class Plan(BaseModel):
    """What will be measured, complete: nothing is decided later but when to stop.

    Attributes
    ----------
    merged : tuple of str
        Sentences: settings that cannot differ from an arm and are not measured apart.
    missing : dict
        Peers that are not measured, and what to do about it.
    left_out : tuple of str
        Arms that do not fit into the budget, each with the reason.
    expected_minutes : float
        For what the ledger does not hold yet; beyond `spec.budget_minutes` it is not run.
    cluster : bool
        The blocks are dealt out to the hosts of a cluster, whoever they are: rows of every host belong to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    spec: CampaignSpec
    host: str
    build: Build
    arms: tuple[Arm, ...]
    workloads: tuple[Workload, ...]
    merged: tuple[str, ...]
    missing: dict[str, str]
    left_out: tuple[str, ...] = ()
    ledger: Path
    to_measure: int
    expected_minutes: float
    cluster: bool = False

    @property
    def trials(self) -> int:
        """Number of planned trials, those in the ledger included."""
        return len(self.arms) * len(self.workloads) * self.spec.blocks

    @property
    def looks(self) -> tuple[int, ...]:
        """Blocks after which the verdicts are looked at; the last is the end."""
        return looks(self.spec.blocks, self.spec.until_decided)

    def key(self, arm: Arm, work: Workload, block: int, position: int) -> str:
        """Return what resume looks up: everything that makes a trial what it is."""
        used = arm.laid_out(self.layout(block)).allocator
        return store.digest(
            {
                "build": self.build.build_id,
                "allocator": [used.label, used.version, used.sha256],
                "role": arm.role,
                "gates": dict(arm.gates),
                "workload": [work.driver, *work.args, *([f"memory_mb={work.memory_mb}"] if work.memory_mb else [])],
                "host": self.host,
                "block": block,
                "position": position,
                "seed": self.spec.seed,
            }
        )

    def layout(self, block: int) -> int:
        """Return the number of the layout of a block: both orders of a pair of blocks have the same."""
        return block // 2 % max(1, self.spec.layouts)

    def order(self, work: Workload, block: int) -> list[Arm]:
        """Return the arms in the order in which a block runs them."""
        shuffled = list(self.arms)
        random.Random(f"order {self.spec.seed} {work.text}").shuffle(shuffled)
        turn = (block // 2) % len(shuffled)
        rotated = shuffled[turn:] + shuffled[:turn]
        return rotated[::-1] if block % 2 else rotated

    def keys(self, work: Workload, block: int) -> list[str]:
        """Return the keys of a block's trials, in order."""
        return [self.key(arm, work, block, at) for at, arm in enumerate(self.order(work, block))]

    def on(self, host: str) -> "Plan":
        """Return the plan as another host would run it."""
        return self.model_copy(update={"host": host})

    def frame(self) -> pd.DataFrame:
        """Return the arms as a table."""
        return pd.DataFrame(
            {
                "arm": [arm.label for arm in self.arms],
                "role": [arm.role for arm in self.arms],
                "version": [arm.allocator.version for arm in self.arms],
                "linkage": [arm.allocator.linkage for arm in self.arms],
                "gates": [arm.setting() for arm in self.arms],
            }
        )

    def summary(self) -> str:
        """Say in a few lines what will be measured and how long it takes."""
        lines = [
            f"{len(self.arms)} arms x {len(self.workloads)} workloads x {self.spec.blocks} blocks: {self.trials} trials"
            f" on {'a cluster' if self.cluster else self.host}, seed {self.spec.seed}, profile {self.spec.profile}",
            f"to measure: {self.to_measure} trials, about {clock(60 * self.expected_minutes)}"
            f" (budget {self.spec.budget_minutes:g} min); ledger {self.ledger}",
        ]
        if self.spec.layouts:
            lines.append(
                f"{self.spec.layouts} layouts of every hakmem, two blocks each or more: intervals count layouts"
            )
        if len(self.looks) > 1:
            lines.append(f"until each verdict is decided: looked at after {', '.join(map(str, self.looks))} blocks")
        lines += [f"merged: {sentence}" for sentence in self.merged]
        lines += [f"left out to fit the budget: {sentence}" for sentence in self.left_out]
        lines += [f"not measured: {name} ({remedy})" for name, remedy in self.missing.items()]
        return "\n".join(lines)


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


def plan(
    spec: CampaignSpec,
    *,
    ledger: Path | None = None,
    build: Build | None = None,
    host: str | None = None,
) -> Plan:
    """Compile what is needed, find and prove the allocators, lay out the arms and say how long it takes.

    Parameters
    ----------
    spec : CampaignSpec
    ledger : Path, optional
        ``data/runs/<study>.jsonl`` by default.
    build : Build, optional
        The native build of the checkout by default.
    host : str, optional
        Identity of this host, see `hakmem.system.machine.host_id`.

    Returns
    -------
    Plan

    Raises
    ------
    HakmemError
        Gates that a flavour does not have, an allocator that is not installed or not at work, a build that fails, a
        ledger that cannot be read.
    """
    build = build or compile_native()
    if isinstance(spec, ProgramSpec):
        works: tuple[Workload, ...] = (workload.program(spec.command),)
    else:
        works = tuple(workload.parse(text, spec.profile) for text in spec.workloads)
    found, missing = _find(spec, build, works)
    laid_out, merged = _lay_out(spec, found)
    made = Plan(
        spec=spec,
        host=machine.host_id(host),
        build=build,
        arms=laid_out,
        workloads=works,
        merged=merged,
        missing=missing,
        ledger=ledger or paths.runs() / f"{spec.study}.jsonl",
        to_measure=0,
        expected_minutes=0,
    )
    return counted(made)


def counted(made: Plan) -> Plan:
    """Return a plan with what it still has to measure, and how long that takes."""
    known = past(made)
    durations = Durations(known.values())
    lacks = _Lacks(made, known.values())
    left = {work: sum(lacks(work, block, known) for block in range(made.spec.blocks)) for work in made.workloads}
    minutes = sum(count * durations.of(work) for work, count in left.items()) / 60
    return made.model_copy(update={"to_measure": sum(left.values()), "expected_minutes": minutes})


def on_cluster(made: Plan) -> Plan:
    """Return a plan whose blocks are dealt out to the hosts of a cluster."""
    return counted(made.model_copy(update={"cluster": True}))


def run(made: Plan, *, quiet: bool = False, judge: Judge | None = None) -> Done:
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

    Returns
    -------
    Done

    Raises
    ------
    LedgerError
        Another process writes the ledger, or it cannot be written.
    """
    with Ledger(made.ledger) as ledger:
        session = Session(made, ledger, quiet, judge)
        try:
            return session.measure_all()
        finally:
            session.progress.close()


def rows(made: Plan) -> pd.DataFrame:
    """Return the ledger's rows that belong to a plan, as `store.load` does; other builds and hosts are left out."""
    return store.frame(past(made).values())


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


def looks(blocks: int, until_decided: bool) -> tuple[int, ...]:
    """Return the blocks after which verdicts are looked at."""
    times = LOOKS if until_decided else (1,)
    return tuple(dict.fromkeys(math.ceil(time * blocks) for time in times))


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

    `left` counts the trials still to measure by workload, `spoiled` holds the numbers of its spoiled blocks, `hands` is
    how many hosts are at work.
    """

    hands = 1

    def __init__(self, made: Plan, ledger: Ledger, quiet: bool, judge: Judge | None) -> None:
        self.plan, self.ledger, self.judge = made, ledger, judge
        self.most = made.looks[-1]
        self.goal = dict.fromkeys((work.text for work in made.workloads), made.spec.blocks)
        self.undecided: dict[str, str] = {}
        before = past(made)
        self.find_lacks = _Lacks(made, before.values())
        self.durations = Durations(before.values())
        self.reused, self.measured = len(before), 0
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
        return self.find_lacks(work, block, self.ledger.keys)

    def repeats(self, work: Workload) -> int:
        """Return how many further blocks the spoiled ones among the planned ask for."""
        return sum(block < self.most for block in self.spoiled[work.text])

    def note(self, known: Trial) -> None:
        """Take note of a spoiled trial: its block will be run once more, unless it is itself such a repetition."""
        if known.spoiled and known.block not in self.spoiled[known.workload]:
            self.spoiled[known.workload].add(known.block)
            if known.block < self.most:
                work = next(one for one in self.plan.workloads if one.text == known.workload)
                self.left[work.text] += self.lacks(work, self.most + self.repeats(work) - 1)

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
        table = store.frame(trial for trial in past(self.plan).values() if trial.workload == work.text)
        open_ones = [v for v in verdicts(self.plan, table, self.judge) if v.word == "INCONCLUSIVE"]
        self.undecided.pop(work.text, None)
        if open_ones:
            self.undecided[work.text] = f"{work.text}: {len(open_ones)} arm(s) undecided after {reached} blocks"
        if reached < self.most and any(v.blocks_needed is not None for v in open_ones):
            self.goal[work.text] = next(look for look in self.plan.looks if look > reached)
            self.left[work.text] += sum(self.lacks(work, block) for block in range(reached, self.goal[work.text]))

    def measure_all(self) -> Done:
        """Go through the blocks until all is measured or the budget is spent."""
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
            self.ledger.append(intention(self.plan))
            self.provenance = known.id
        for position, key in enumerate(self.plan.keys(work, block)):
            if key not in self.ledger.keys:
                made = measure(self.plan, work, block, position, self.provenance)
                self.take(made.model_copy(update={"order": len(self.ledger.trials)}))

    def take(self, made: Trial) -> None:
        """Make a trial durable, and show it."""
        self.ledger.append(made)
        self.durations.add(made)
        self.measured += 1
        self.left[made.workload] -= 1
        self.note(made)
        self.tell(f"{made.workload}: {made.arm}")

    def tell(self, what: str) -> None:
        """Show where we are; the ETA is what the measured durations say, and no more than the budget."""
        eta_s = sum(self.left[work.text] * self.durations.of(work) for work in self.plan.workloads) / self.hands
        budget_s = max(0.0, 60 * self.plan.spec.budget_minutes - self.durations.spent_s)
        self.progress.step(self.measured, self.measured + sum(self.left.values()), min(eta_s, budget_s), what)


class Durations:
    """How long the trials of each workload take: measured, or expected before anything is measured."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._walls: dict[str, list[float]] = {}
        self.spent_s = 0.0
        for known in trials:
            self.add(known)

    def add(self, known: Trial) -> None:
        """Take note of a trial; how long a lost one ran nobody knows."""
        if known.status == "lost":
            return
        self._walls.setdefault(known.workload, []).append(known.wall_s)
        self.spent_s += known.wall_s + LAUNCH_S

    def of(self, work: Workload) -> float:
        """Return how long a trial takes, starting it included (s)."""
        return LAUNCH_S + (fmean(self._walls[work.text]) if work.text in self._walls else work.expected_s)


class _Lacks:
    """How many trials a block lacks on the host that has most of it; keys are hashed once."""

    def __init__(self, made: Plan, past: Iterable[Trial]) -> None:
        self._plan = made
        self._keys = functools.cache(lambda host, work, block: made.on(host).keys(work, block))
        self._hosts = dict.fromkeys([made.host, *(known.host for known in past)])

    def __call__(self, work: Workload, block: int, known: Container[str]) -> int:
        return min(self.on(host, work, block, known) for host in self._hosts)

    def on(self, host: str, work: Workload, block: int, known: Container[str]) -> int:
        """Return how many it lacks on one host."""
        self._hosts[host] = None
        return sum(key not in known for key in self._keys(host, work, block))


def measure(made: Plan, work: Workload, block: int, position: int, provenance: str) -> Trial:
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

    Returns
    -------
    Trial
        Its `order` is 0: who writes the ledger knows better.
    """
    arm, key, layout = made.order(work, block)[position], made.keys(work, block)[position], made.layout(block)
    placed = arm.laid_out(layout)
    shift = padding_of(made.spec.seed, block)
    series = Path(f"{made.ledger.stem}.series", f"{key}.parquet")
    watches = _in_epochs if work.driver == "soak" else _sampled
    outcome, saved = watches(made.build, placed, work, shift, made.ledger.parent / series)
    return store.row(
        outcome,
        placed,
        work,
        made.build,
        study=made.spec.study,
        trial_key=key,
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


def _in_epochs(build: Build, arm: Arm, work: Workload, shift: int, series: Path) -> tuple[Outcome, bool]:
    """Run a soak: it tells its epochs itself, and they are its series."""
    with tempfile.TemporaryDirectory(prefix="hakmem-epochs-") as scratch:
        csv = Path(scratch, "epochs.csv")
        outcome = trial(build, arm, work.model_copy(update={"args": (*work.args, f"--csv={csv}")}), padding=shift)
        told = epochs.read(csv) if csv.exists() else pd.DataFrame()
    if told.empty:
        return outcome, False
    series.parent.mkdir(parents=True, exist_ok=True)
    told.to_parquet(series, index=False)
    return outcome, True


def origin(made: Plan) -> store.Provenance:
    """Say where the rows measured from now on come from: this host, as it is."""
    now = datetime.now(UTC)
    facts = machine.probe(made.host, compiler=None).model_dump(mode="json")
    facts |= {"build": made.build.build_id, "build_compiler": made.build.compiler, "seed": made.spec.seed}
    facts |= {"allocators": {arm.allocator.label: arm.allocator.model_dump(mode="json") for arm in made.arms}}
    identity = store.digest({"facts": facts, "started": now.isoformat()})
    return store.Provenance(id=identity, host=made.host, started=now, facts=facts)


def intention(made: Plan) -> store.Plan:
    """Say what a session sets out to measure."""
    return store.Plan(
        study=made.spec.study,
        started=datetime.now(UTC),
        seed=made.spec.seed,
        blocks=made.spec.blocks,
        arms=tuple(arm.label for arm in made.arms),
        workloads=tuple(work.text for work in made.workloads),
        spec=made.spec.model_dump(mode="json"),
        cluster=made.cluster,
    )


def past(made: Plan) -> dict[str, Trial]:
    """Return the trials of a plan, repeated blocks included, that its ledger holds; by key, in the order they ran."""
    if not made.ledger.exists():
        return {}
    blocks = range(2 * made.looks[-1])
    known = [record for record in store.records(made.ledger) if isinstance(record, Trial)]
    plans = [made.on(host) for host in {trial.host for trial in known}] if made.cluster else [made]
    wanted = {key for one in plans for work in made.workloads for at in blocks for key in one.keys(work, at)}
    return {trial.trial_key: trial for trial in known if trial.trial_key in wanted}


def _find(spec: CampaignSpec, build: Build, works: Iterable[Workload]) -> tuple[list[Allocator], dict[str, str]]:
    """Find the allocators of a study and prove them; a peer that nobody named may be missing or broken."""
    found: list[Allocator] = []
    missing: dict[str, str] = {}
    for name in spec.allocators:
        if name != PEERS:
            one = _proven(allocators.find(name, build), build, works)
            found.append(allocators.lay_out(one, name, spec.layouts, spec.seed) if spec.layouts else one)
            continue
        missing |= {peer: how for peer, how in allocators.missing_peers().items() if peer not in spec.allocators}
        for peer in allocators.installed_peers():
            if peer not in spec.allocators:
                try:
                    found.append(_proven(allocators.find(peer, build), build, works))
                except TrialFailed as error:
                    missing[peer] = str(error)
    if not found:
        raise BadParameter(f"no peer is installed: {'; '.join(missing.values())}")
    if spec.layouts and len(found) < 2:
        raise BadParameter(
            f"layouts={spec.layouts} compares code, and {found[0].label} is one: gates do not move it;"
            " name a second allocator, such as rev:HEAD~1 or patch:FILE.diff"
        )
    return found, missing


def prove(allocator: Allocator, build: Build, work: Workload) -> None:
    """Make sure that an allocator serves the program of a workload; see `allocators.prove`.

    Raises
    ------
    TrialFailed, BadParameter
        It does not, or cannot.
    """
    if work.program:
        allocators.prove_program(allocator, Path(work.args[0]))
    else:
        allocators.prove(allocator, build.driver(work.driver, allocator.flavour))


def _proven(allocator: Allocator, build: Build, works: Iterable[Workload]) -> Allocator:
    for work in works:
        prove(allocator, build, work)
    return allocator


def _lay_out(spec: CampaignSpec, found: list[Allocator]) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Turn allocators and gate values into arms: the first one twice as baseline, hakmem swept, the others as peers."""
    under = {name: (value,) for name, value in spec.under.items()}
    base = arms.product(under)[0][0] if found[0].is_hakmem else {}
    laid_out = [arms.make(found[0], base, "baseline"), arms.make(found[0], base, "baseline2")]
    lists = {LEAN: spec.lean, DECOMMIT: spec.decommit, TARGET: spec.target_mb, **spec.gates, **under}
    swept = {name: [str(value) for value in values] for name, values in lists.items()}
    merged: list[str] = []
    for allocator in found:
        if allocator.is_hakmem:
            settings, sentences = arms.product(swept, fast=allocator.name == FAST, known=allocator.gates())
            laid_out += [arms.make(allocator, one) for one in settings if one != base or allocator is not found[0]]
            merged += [sentence for sentence in sentences if sentence not in merged]
        elif allocator is not found[0]:
            laid_out.append(arms.make(allocator, {}, "peer"))
    return tuple(laid_out), tuple(merged)
