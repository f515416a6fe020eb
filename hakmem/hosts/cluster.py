"""A study over many hosts: blocks are dealt out whole, one at a time a host; this process alone writes the ledger.

The scheduler lives here. Workers join it (`hakmem worker`, or one that is started for ``local``), and whoever is free
gets the next block, preferably the one that runs backwards what it has just run. Rows arrive while a block runs and are
durable at once. A worker that dies leaves a `lost` row for each trial of its block that it did not report, which
spoils the block, so that it is run again whole as a further one. Nothing is ever run again unseen.
"""

import contextlib
import queue
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from distributed import Client, Future, KilledWorker, Nanny, Scheduler, SchedulerPlugin, SpecCluster
from pydantic import TypeAdapter

from hakmem import planning, store
from hakmem.campaign import Done, Judge, Session
from hakmem.console import complain
from hakmem.errors import ClusterError
from hakmem.hosts.wire import BENCH, OFFER, QUIET, Address, Job, Offer, configure, offer, options
from hakmem.hosts.worker import Host
from hakmem.hosts.worker import block as run_block
from hakmem.planning import Plan
from hakmem.store import Ledger, Provenance, Trial
from hakmem.system import machine
from hakmem.workload import Workload

__all__ = ["run"]

ALONE_S = 600.0  # without a worker a study ends
GRACE_S = 3.0  # for the scheduler to say what became of the block of a worker that left
SENT: TypeAdapter[Provenance | Trial] = TypeAdapter(Provenance | Trial)


def run(made: Plan, where: Address, *, local: bool = False, quiet: bool = False, judge: Judge | None = None) -> Done:
    """Measure what the ledger does not hold yet on the workers that join; see `hakmem.campaign.run`.

    The budget counts what trials took on all hosts together.

    Parameters
    ----------
    made : Plan
        With `cluster`.
    where : Address
        Where to listen for workers.
    local : bool
        Start one worker, on this host.
    quiet : bool
        Show no progress.
    judge : callable, optional
        As for `hakmem.campaign.run`.

    Returns
    -------
    Done
        Ended early where no worker was there for ten minutes.

    Raises
    ------
    ClusterError
        The address cannot be listened at, or every host that joined would measure something else.
    LedgerError
        Another process writes the ledger, or it cannot be written.
    """
    configure()
    with Ledger(made.ledger) as ledger:
        session = _Dealer(made, ledger, quiet, judge)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="hakmem-cluster-") as scratch,
                _listening(where, local, session, scratch) as client,
            ):
                session.client = client
                return session.measure_all()
        finally:
            session.progress.close()


@contextlib.contextmanager
def _listening(where: Address, local: bool, session: "_Dealer", scratch: str) -> Iterator[Client]:
    """Run a scheduler, and for `local` a worker, until the end."""
    ways = options(where)
    mine = {"local_directory": scratch, "silence_logs": QUIET, "memory_limit": 0}
    here = {"name": session.plan.host, "nthreads": 1, "resources": BENCH, **mine, **ways}
    listens = {**ways, "host": where.host, "port": where.port, "protocol": where.url.partition("://")[0] + "://"}
    try:
        cluster = SpecCluster(
            scheduler={
                "cls": Scheduler,
                "options": {**listens, "dashboard": False, "plugins": (_Door(session.inbox),)},
            },
            workers={session.plan.host: {"cls": Nanny, "options": here | {"worker_class": Host}}} if local else {},
            security=where.security,
        )
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # distributed wraps what the kernel said
            cause = cause.__cause__
        raise ClusterError(f"cannot listen at {where.url}: {cause}") from error
    with cluster, Client(cluster, security=where.security) as client:
        client.set_metadata(OFFER, session.offer.model_dump_json())
        client.subscribe_topic(session.offer.session, lambda event: session.inbox.put(_Sent(*event[1])))
        if not local:
            complain(
                f"listening at {cluster.scheduler_address}; on each host: hakmem worker {cluster.scheduler_address}"
            )
        yield client


@dataclass(frozen=True)
class _Joined:
    name: str
    address: str


@dataclass(frozen=True)
class _Left:
    address: str


@dataclass(frozen=True)
class _Sent:
    record: str
    series: bytes | None


@dataclass(frozen=True)
class _Ended:
    future: Future[None]


class _Door(SchedulerPlugin):
    """Tells who comes and who goes."""

    name = "hakmem"

    def __init__(self, inbox: "queue.SimpleQueue[Any]") -> None:
        self._inbox = inbox

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Somebody joined; whoever does not offer the resource is not one of ours."""
        state = scheduler.workers[worker]
        if state.resources.keys() >= BENCH.keys():
            self._inbox.put(_Joined(str(state.name), worker))

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Somebody left."""
        self._inbox.put(_Left(worker))


@dataclass
class _Flight:
    """A block that a host is at work on."""

    host: str
    address: str
    work: Workload
    block: int
    positions: tuple[int, ...]
    future: Future[None]
    since: datetime
    left_at: float | None = None


class _Dealer(Session):
    """Deals out blocks and takes in rows.

    `hosts` holds the addresses of the workers by host, `flights` what is under way, `owners` which host has (or had)
    a block.
    """

    client: Client

    def __init__(self, made: Plan, ledger: Ledger, quiet: bool, judge: Judge | None) -> None:
        super().__init__(made, ledger, quiet, judge)
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.offer: Offer = offer(made, f"hakmem-{uuid.uuid4().hex}")
        self.hosts: dict[str, str] = {}
        self.flights: dict[str, _Flight] = {}
        self.owners = {(known.workload, known.block): known.host for known in ledger.trials}
        self.refused: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self.looked: set[tuple[str, int]] = set()
        self.stopped: str | None = None
        self.alone_since: float | None = None

    def go_through(self) -> Done:
        """Deal until all is measured, the budget is spent, or nobody is there."""
        while (self.deal() or self.flights or self.look_again()) and not (self.stopped and not self.flights):
            if not self.hosts and not self.flights:
                self.wait_for_a_host()
            with contextlib.suppress(queue.Empty):
                self.take_in(self.inbox.get(timeout=0.5))
            for flight in [one for one in self.flights.values() if one.left_at is not None]:
                if time.monotonic() > (flight.left_at or 0) + GRACE_S:
                    self.lose(flight)
        return self.done(self.stopped)

    def deal(self) -> bool:
        """Give every free host a block; tell whether any is left to be measured."""
        waiting = self.waiting()
        for host, address in self.hosts.items():
            if host in self.flights or not waiting or self.stopped:
                continue
            work, block = min(waiting, key=lambda one: self.distance(host, *one))
            if self.too_dear(work, block):
                break
            self.fly(host, address, work, block)
            waiting.remove((work, block))
        return bool(waiting) and not self.stopped

    def waiting(self) -> list[tuple[Workload, int]]:
        """Return the blocks that nobody has measured or is measuring: planned ones first, then repetitions."""
        flying = {(flight.work.text, flight.block) for flight in self.flights.values()}

        def missing(ranges: dict[str, range]) -> list[tuple[Workload, int]]:
            numbered = [(at, work) for work in self.plan.workloads for at in ranges[work.text]]
            ordered = sorted(numbered, key=lambda one: one[0])
            return [(w, at) for at, w in ordered if (w.text, at) not in flying and self.lacks(w, at)]

        planned = missing({text: range(goal) for text, goal in self.goal.items()})
        if planned or self.flights or self.look_due():
            return planned
        most = self.most
        return missing({work.text: range(most, most + self.repeats(work)) for work in self.plan.workloads})

    def look_due(self) -> list[Workload]:
        """Return the workloads whose verdicts are to be looked at before more is decided."""
        several = len(self.plan.looks) > 1
        return [w for w in self.plan.workloads if several and (w.text, self.goal[w.text]) not in self.looked]

    def look_again(self) -> bool:
        """Look at the verdicts that are due; tell whether anything is left to be measured."""
        for work in self.look_due():
            self.looked.add((work.text, self.goal[work.text]))
            self.look(work)
        return bool(self.waiting()) or bool(self.look_due())

    def distance(self, host: str, work: Workload, block: int) -> tuple[int, int]:
        """Say how well a block suits a host: begun there, the other half of a pair, a new pair, anything."""
        lacks = self.find_lacks.on(host, work, block, self.ledger.keys)
        partner = self.owners.get((work.text, block ^ 1))
        suits = 0 if lacks < len(self.plan.arms) else 1 if partner == host else 2 if partner is None else 3
        return suits, block

    def too_dear(self, work: Workload, block: int) -> bool:
        """Tell whether a block would cost more than the budget leaves, what is under way included."""
        ahead = [(flight.work, len(flight.positions)) for flight in self.flights.values()]
        needs = sum(count * self.durations.of(one) for one, count in [*ahead, (work, self.lacks(work, block))])
        if block > 0 and self.durations.spent_s + needs > 60 * self.plan.spec.budget_minutes:
            self.stopped = f"the budget of {self.plan.spec.budget_minutes:g} min is spent"
        return self.stopped is not None

    def fly(self, host: str, address: str, work: Workload, block: int) -> None:
        """Send a block to a host."""
        keys = self.plan.on(host).keys(work, block)
        positions = tuple(at for at, key in enumerate(keys) if key not in self.ledger.keys)
        job = Job(offer=self.offer, workload=work.text, block=block, positions=positions)
        future = self.client.submit(
            run_block,
            job.model_dump_json(),
            key=f"{self.offer.session}-{uuid.uuid4().hex}",
            workers=[address],
            allow_other_workers=False,
            resources=BENCH,
            retries=0,
            pure=False,
        )
        self.flights[host] = _Flight(host, address, work, block, positions, future, datetime.now(UTC))
        self.owners[work.text, block] = host
        future.add_done_callback(lambda ended: self.inbox.put(_Ended(ended)))

    def take_in(self, what: _Joined | _Left | _Sent | _Ended) -> None:
        """Take note of what happened."""
        match what:
            case _Joined(name, address):
                self.welcome(name, address)
            case _Left(address):
                self.hosts = {host: at for host, at in self.hosts.items() if at != address}
                for flight in self.flights.values():
                    if flight.address == address:
                        flight.left_at = time.monotonic()
            case _Sent(record, series):
                self.record(SENT.validate_json(record), series)
            case _Ended(future):
                ended = next((one for one in self.flights.values() if one.future is future), None)
                if ended is not None:
                    self.land(ended)
        self.hands = max(1, len(self.hosts))

    def welcome(self, name: str, address: str) -> None:
        """Let a host take part."""
        if machine.host_id(name) == name and name not in self.refused:
            self.hosts[name], self.alone_since = address, None
            self.progress.wait(f"{name} joined: {len(self.hosts)} host(s)")

    def record(self, made: Provenance | Trial, series: bytes | None) -> None:
        """Write what a worker sent: where its rows come from, or a row with its series."""
        if isinstance(made, Provenance):
            if self.origins.get(made.host) != made.id:
                self.origins[made.host] = made.id
                if not self.provenance:
                    self.ledger.append(planning.intention(self.plan))
                    self.provenance = made.id
                self.ledger.append(made)
            return
        if series is not None and made.series is not None:
            file = self.plan.ledger.parent / made.series
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(series)
        if made.trial_key not in self.ledger.keys:
            self.take(made.model_copy(update={"order": len(self.ledger.trials)}))

    def land(self, flight: _Flight) -> None:
        """End a block that was measured, lost with its worker, or refused by it."""
        error = flight.future.exception() if flight.future.status == "error" else None
        if isinstance(error, KilledWorker | ConnectionAbortedError) or flight.future.status == "cancelled":
            self.lose(flight)
            return
        del self.flights[flight.host]
        if error is not None:
            self.refused[flight.host] = str(error)
            self.hosts.pop(flight.host, None)
            complain(f"host {flight.host} gets no further blocks: {error}")

    def lose(self, flight: _Flight) -> None:
        """Leave a row for each trial that a lost worker did not report."""
        del self.flights[flight.host]
        flight.future.cancel()
        self.hosts = {host: at for host, at in self.hosts.items() if at != flight.address}
        plan, why = self.plan.on(flight.host), f"its worker on {flight.host} was lost"
        keys, order = plan.keys(flight.work, flight.block), plan.order(flight.work, flight.block)
        unreported = [at for at in flight.positions if keys[at] not in self.ledger.keys]
        complain(f"{why} in block {flight.block} of {flight.work.text}: the block is run again whole")
        for position in unreported:
            self.take(
                store.lost(
                    order[position],
                    flight.work,
                    plan.build,
                    why,
                    started=flight.since,
                    study=plan.spec.study,
                    trial_key=keys[position],
                    cohort=plan.cohort(),
                    provenance=self.origins.get(flight.host, ""),
                    host=flight.host,
                    block=flight.block,
                    position=position,
                    order=len(self.ledger.trials),
                )
            )

    def wait_for_a_host(self) -> None:
        """Say once what is waited for; end after ten minutes.

        Raises
        ------
        ClusterError
            Every host was refused.
        """
        if self.refused:
            raise ClusterError("; ".join(self.refused.values()))
        if self.alone_since is None:
            self.alone_since = time.monotonic()
            self.progress.wait(f"waiting for a worker, {ALONE_S / 60:.0f} min at most")
        elif time.monotonic() > self.alone_since + ALONE_S:
            self.stopped = f"no worker was there for {ALONE_S / 60:.0f} min"
