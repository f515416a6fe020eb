"""One host of a cluster: it measures whole blocks, one at a time, and sends each row as soon as there is one.

A worker serves one session: before it joins, it makes sure that it would measure the same thing as everybody else, down
to the bytes of the allocators.
"""

import asyncio
import contextlib
import functools
import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client, Worker, get_worker
from distributed.comm.core import FatalCommClosedError

from hakmem import campaign, planning
from hakmem.builds.build import build as compile_native
from hakmem.console import complain
from hakmem.errors import ClusterError
from hakmem.hosts.wire import BENCH, OFFER, Address, Job, Offer, configure, identity, options, versions
from hakmem.planning import Plan
from hakmem.store import Provenance
from hakmem.study import CampaignSpec, ProgramSpec
from hakmem.system import machine, orphans, turn

__all__ = ["PATIENCE_S", "Host", "block", "serve"]

PATIENCE_S = 120.0  # for a planner to be there: it may be compiling first
JOIN_S = 30.0  # for a planner that has been there a moment ago
Send = Callable[[str, bytes | None], None]


def serve(where: Address, host: str | None = None) -> str:
    """Measure for a planner until it has all it wants.

    Parameters
    ----------
    where : Address
        Where the planner's scheduler listens.
    host : str, optional
        Identity of this host, see `hakmem.system.machine.host_id`.

    Returns
    -------
    str
        The identity under which it measured.

    Raises
    ------
    ClusterError
        Nobody listens there, one side does not trust the other's certificate, this host differs from the planner's, or
        another worker has its identity.
    HakmemError
        Something that is to be measured is not here.
    """
    name = machine.host_id(host)
    configure()
    complain(f"looking for the sweep at {where.url}, {PATIENCE_S:.0f} s at most")
    try:
        offered = asyncio.run(_offered(where))
    except KeyboardInterrupt:
        warnings.simplefilter("ignore", RuntimeWarning)  # of a client that is still looking nobody waits for the end
        raise
    _ready(offered.model_dump_json(), name)
    with tempfile.TemporaryDirectory(prefix="hakmem-worker-") as scratch:
        asyncio.run(_work(where, name, scratch))
    return name


async def _offered(where: Address) -> Offer:
    """Ask the scheduler what is to be measured."""
    try:
        async with Client(where.url, security=where.security, asynchronous=True, timeout=PATIENCE_S) as client:
            for _ in range(50):  # a scheduler listens a moment before it has an offer
                if told := await client.get_metadata(OFFER, default=None):
                    return Offer.model_validate_json(told)
                await asyncio.sleep(0.1)
    except FatalCommClosedError as error:
        raise ClusterError(
            f"{where.url} and this host do not trust each other, both need a certificate of one authority: {error}"
        ) from error
    except OSError as error:
        raise ClusterError(
            f"nobody listens at {where.url}: start `hakmem sweep --cluster {where.url}` first"
        ) from error
    raise ClusterError(f"what listens at {where.url} is no `hakmem sweep --cluster`")


class Host(Worker):
    """A worker that lets go of its block when it has to end: nobody waits for that any more."""

    leaving = False

    async def close(self, *args: Any, **ways: Any) -> Any:
        """End; what is being measured is killed, and nothing is said of it."""
        self.leaving = True
        ending = asyncio.ensure_future(super().close(*args, **ways))
        while not ending.done():
            for pid in orphans.children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.wait([ending], timeout=0.05)
        return await ending

    def send(self, session: str, record: str, series: bytes | None) -> None:
        """Send a record under the session's topic.

        Raises
        ------
        ConnectionAbortedError
            The worker is about to end: its block is lost, and a row made now would be that of a killed process.
        """
        if self.leaving:
            raise ConnectionAbortedError(f"the worker on {self.name} had to end")
        self.log_event(session, (record, series))


async def _work(where: Address, name: str, scratch: str) -> None:
    try:
        ways = {"name": name, "nthreads": 1, "resources": BENCH, "memory_limit": 0, **options(where)}
        async with Host(where.url, local_directory=scratch, death_timeout=JOIN_S, **ways) as worker:
            complain(f"{name} measures for {where.url}; it ends with the study, or by Ctrl-C")
            await worker.finished()
    except TimeoutError as error:
        raise ClusterError(f"the sweep at {where.url} ended while this host made ready for it") from error
    except RuntimeError as error:
        why = str(error.__cause__ or error)
        taken = f"a worker of host {name} is there already, and a host has one"
        raise ClusterError(f"cannot join {where.url}: {taken if 'name taken' in why else why}") from error


def block(text: str) -> None:
    """Run what a job asks for; called by the scheduler, in the worker's only thread.

    Records (JSON) and series (Parquet) are sent while the block runs, under the session's topic.
    """
    job, worker = Job.model_validate_json(text), get_worker()
    assert isinstance(worker, Host)
    _measure(job, str(worker.name), functools.partial(worker.send, job.offer.session))


def _measure(job: Job, host: str, send: Send) -> None:
    planned, origin = _ready(job.offer.model_dump_json(), host)
    work = next(one for one in planned.workloads if one.text == job.workload)
    send(origin.model_dump_json(), None)
    with tempfile.TemporaryDirectory(prefix="hakmem-block-") as scratch, turn.taken():
        made = planned.model_copy(update={"ledger": Path(scratch, job.offer.ledger)})
        for position in job.positions:
            trial = campaign.measure(made, work, job.block, position, origin.id)
            series = Path(scratch, trial.series).read_bytes() if trial.series else None
            send(trial.model_dump_json(), series)


@functools.lru_cache(maxsize=1)
def _ready(offered: str, host: str) -> tuple[Plan, Provenance]:
    """Lay out the study on this host, once a session; refuse where anything differs.

    Raises
    ------
    ClusterError
        What differs, here and there.
    HakmemError
        An allocator, a trace or a program is not here.
    """
    offer = Offer.model_validate_json(offered)
    native = compile_native()
    differs = identity(native).differs(offer.identity)
    if not differs:
        kind = ProgramSpec if "command" in offer.spec else CampaignSpec
        nowhere = Path(os.devnull, offer.ledger)  # rows are the planner's
        made = planning.plan(kind.checked(offer.spec), build=native, ledger=nowhere, host=host)
        made = made.model_copy(update={"arms": tuple(arm for arm in made.arms if arm.label in offer.arms)})
        ours, theirs = versions(made), offer.allocators
        here = {name: ours.get(name, "not") for name in theirs}
        differs = [f"{name} {here[name]} here, {theirs[name]} there" for name in theirs if here[name] != theirs[name]]
    if differs:
        raise ClusterError(
            f"host {host} would measure something else: {'; '.join(differs)};"
            " check out the same revision and install the same packages"
        )
    return made, campaign.origin(made)
