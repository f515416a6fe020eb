"""What a study will measure, complete before anything runs: arms x workloads x blocks, and what the ledger lacks of it.

In a block every arm of a workload runs once, back to back. Orders are counterbalanced: a seeded order is rotated from
pair of blocks to pair of blocks, and the second block of a pair runs backwards (ABBA). The baseline runs twice in every
block. What the ledger holds already is not measured again.
"""

import functools
import math
import random
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import pandas as pd
from pydantic import BaseModel, ConfigDict, JsonValue

from hakmem import paths, store, workload
from hakmem.builds import allocators, arms
from hakmem.builds.allocators import Allocator
from hakmem.builds.arms import DECOMMIT, FAST, LEAN, TARGET, Arm
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, TrialFailed
from hakmem.progress import clock
from hakmem.store import Trial
from hakmem.study import PEERS, CampaignSpec, ProgramSpec
from hakmem.system import machine
from hakmem.workload import Workload

LAUNCH_S = 0.02
LOOKS = (1, 1.5, 2, 3, 4)  # when verdicts are looked at, in multiples of the blocks asked for


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

    def cohort(self) -> str:
        """Return what trials must share to be compared: the build, every arm, the seed of their order, their size."""
        built = [(arm.allocator.label, arm.allocator.version, arm.allocator.sha256) for arm in self.arms]
        return store.digest(
            {
                "build": self.build.build_id,
                "arms": [[*one, arm.role, dict(arm.gates)] for one, arm in zip(built, self.arms, strict=True)],
                "layouts": self.spec.layouts,
                "seed": self.spec.seed,
                "profile": self.spec.profile,
            }
        )

    def layout(self, block: int) -> int:
        """Return the number of the layout of a block: both orders of a pair of blocks have the same.

        Blocks that `until_decided` adds bring further layouts: the old ones again would average out noise alone.
        """
        if not self.spec.layouts:
            return 0
        again, pair = divmod(block // 2, self.spec.blocks // 2)
        return (again * self.spec.layouts + pair % self.spec.layouts) % layouts(self.spec)

    def order(self, work: Workload, block: int) -> list[Arm]:
        """Return the arms in the order in which a block runs them."""
        shuffled = list(self.arms)
        random.Random(f"order {self.spec.seed} {work.text}").shuffle(shuffled)
        turn = (block // 2) % len(shuffled)
        rotated = shuffled[turn:] + shuffled[:turn]
        return rotated[::-1] if block % 2 else rotated

    def keys(self, work: Workload, block: int) -> list[str]:
        """Return what resume looks up, a key a trial, in order: all that makes it what it is, its whole block included.

        A study with other arms is measured anew: no block has trials of two sessions that planned different ones.
        """
        size: list[JsonValue] = [work.driver, *work.args, *([f"memory_mb={work.memory_mb}"] if work.memory_mb else [])]
        what: list[JsonValue] = [self.cohort(), self.host, size, block, self.layout(block)]
        return [store.digest([*what, position]) for position in range(len(self.arms))]

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
                f"{self.spec.layouts} layouts of every hakmem, two blocks each or more"
                f"{', further ones with further blocks' if self.spec.until_decided else ''}: intervals count layouts"
            )
        if len(self.looks) > 1:
            lines.append(f"until each verdict is decided: looked at after {', '.join(map(str, self.looks))} blocks")
        lines += [f"merged: {sentence}" for sentence in self.merged]
        lines += [f"left out to fit the budget: {sentence}" for sentence in self.left_out]
        lines += [f"not measured: {name} ({remedy})" for name, remedy in self.missing.items()]
        return "\n".join(lines)


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
    lacks = Lacks(made, known.values())
    left = {work: sum(lacks.least(work, block, known) for block in range(made.spec.blocks)) for work in made.workloads}
    minutes = sum(count * durations.of(work) for work, count in left.items()) / 60
    return made.model_copy(update={"to_measure": sum(left.values()), "expected_minutes": minutes})


def on_cluster(made: Plan) -> Plan:
    """Return a plan whose blocks are dealt out to the hosts of a cluster."""
    return counted(made.model_copy(update={"cluster": True}))


def past(made: Plan) -> dict[str, Trial]:
    """Return the trials of a plan, repeated blocks included, that its ledger holds; by key, in the order they ran."""
    if not made.ledger.exists():
        return {}
    blocks = range(2 * made.looks[-1])
    known = [record for record in store.records(made.ledger) if isinstance(record, Trial)]
    plans = [made.on(host) for host in {trial.host for trial in known}] if made.cluster else [made]
    wanted = {key for one in plans for work in made.workloads for at in blocks for key in one.keys(work, at)}
    return {trial.trial_key: trial for trial in known if trial.trial_key in wanted}


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


def looks(blocks: int, until_decided: bool) -> tuple[int, ...]:
    """Return the blocks after which verdicts are looked at."""
    times = LOOKS if until_decided else (1,)
    return tuple(dict.fromkeys(math.ceil(time * blocks) for time in times))


def layouts(spec: CampaignSpec) -> int:
    """Return how many layouts of every hakmem a study has when it ends at its last look."""
    return spec.layouts * looks(spec.blocks, spec.until_decided)[-1] // spec.blocks


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


class Lacks:
    """How many trials a block lacks, of those that are known; keys are hashed once."""

    def __init__(self, made: Plan, past: Iterable[Trial]) -> None:
        self._keys = functools.cache(lambda host, work, block: made.on(host).keys(work, block))
        self._hosts = dict.fromkeys([made.host, *(known.host for known in past)])

    def least(self, work: Workload, block: int, known: Container[str]) -> int:
        """Return how many it lacks on the host that has most of it."""
        return min(self.on(host, work, block, known) for host in self._hosts)

    def on(self, host: str, work: Workload, block: int, known: Container[str]) -> int:
        """Return how many it lacks on one host."""
        self._hosts[host] = None
        return sum(key not in known for key in self._keys(host, work, block))


def _find(spec: CampaignSpec, build: Build, works: Iterable[Workload]) -> tuple[list[Allocator], dict[str, str]]:
    """Find the allocators of a study and prove them; a peer that nobody named may be missing or broken."""
    found: list[Allocator] = []
    missing: dict[str, str] = {}
    for name in spec.allocators:
        if name != PEERS:
            one = _proven(allocators.find(name, build), build, works)
            found.append(allocators.lay_out(one, name, layouts(spec), spec.seed) if spec.layouts else one)
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
