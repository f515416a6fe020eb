"""What the two sides of a cluster agree on: where they meet, how that is secured, and what is measured.

Only text crosses the wire: a job is JSON, and so are the records that come back. dask.distributed itself pickles the
call that carries a job, so whoever reaches a scheduler or a worker can run code there. Hence everything listens on
loopback, or speaks TLS with certificates on both sides; listening openly is refused.
"""

import functools
import hashlib
import ipaddress
import logging
import socket
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import dask
from distributed.security import Security
from pydantic import BaseModel, ConfigDict, JsonValue

from hakmem import __version__
from hakmem.builds import allocators
from hakmem.builds.build import Build
from hakmem.errors import BadParameter
from hakmem.planning import Plan
from hakmem.study import PEERS
from hakmem.system import kernel, machine

__all__ = [
    "BENCH",
    "LOCAL",
    "OFFER",
    "QUIET",
    "Address",
    "Identity",
    "Job",
    "Offer",
    "address",
    "configure",
    "identity",
    "offer",
    "options",
    "versions",
]

LOCAL = "local"
BENCH = {"bench": 1}  # what a block needs of a worker, and all that one has
OFFER = "hakmem-offer"  # key of the scheduler's metadata
QUIET = logging.CRITICAL
SETTINGS: dict[str, Any] = {  # a block that fails is never run again unseen, and nothing disturbs what is measured
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.diagnostics.nvml": False,
}


class Address(NamedTuple):
    """Where a scheduler listens: `url`, the host alone, and how it is secured (TLS, or None on loopback)."""

    url: str
    host: str
    port: int
    security: Security | None


class Identity(BaseModel):
    """What must be the same on every host, or its figures belong to another study."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hakmem: str
    sources: str
    revision: str
    build: str
    python: str
    distributed: str

    def differs(self, theirs: "Identity") -> list[str]:
        """Say in which ways another identity differs."""
        ours, others = self.model_dump(), theirs.model_dump()
        return [f"{name} {ours[name]} here, {others[name]} there" for name in ours if ours[name] != others[name]]


class Offer(BaseModel):
    """What the planner's side has to measure, of `spec` only these arms: one offer a session."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    session: str
    identity: Identity
    spec: dict[str, JsonValue]
    ledger: str
    arms: tuple[str, ...]
    allocators: dict[str, str]


class Job(BaseModel):
    """One block for one host: the positions that are to be run, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    offer: Offer
    workload: str
    block: int
    positions: tuple[int, ...]


def configure() -> None:
    """Set dask.distributed to what measuring needs; hakmem says what is to be said."""
    dask.config.set(SETTINGS)
    logging.getLogger("distributed").setLevel(QUIET)


def address(text: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> Address:
    """Read where a cluster meets, and make sure that nobody else can walk in.

    Parameters
    ----------
    text : str
        ``tcp://host:port`` on loopback, else ``tls://host:port``; ``local`` for workers of this host alone.
    ca, cert, key : Path, optional
        Certificate authority, certificate and key for TLS; what is left out stands in distributed's own settings.

    Raises
    ------
    BadParameter
        No such address, one that would be open to everybody, or TLS without its files.
    """
    if text == LOCAL:
        text = "tcp://127.0.0.1:0"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    whole = parts.scheme in ("tcp", "tls") and parts.hostname and port is not None
    if not whole or parts.path or parts.query or parts.username:
        raise BadParameter(f"cluster {text!r}: it takes {LOCAL}, tcp://127.0.0.1:PORT or tls://HOST:PORT")
    host = str(parts.hostname)
    given = [path for path in (ca, cert, key) if path is not None]
    if parts.scheme == "tcp":
        if given:
            raise BadParameter(f"cluster {text}: certificates go with tls://, tcp:// is not encrypted")
        if not _loopback(host):
            raise BadParameter(
                f"cluster {text} would be open to everybody who reaches it, and whoever does can run programs:"
                " use tls:// with --tls-ca, --tls-cert and --tls-key, or an address of loopback such as 127.0.0.1"
            )
        return Address(text, host, int(port or 0), None)
    return Address(text, host, int(port or 0), _security(text, ca, cert, key))


def _loopback(host: str) -> bool:
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise BadParameter(f"cluster: no address of host {host!r}: {error.strerror}") from error
    return all(ipaddress.ip_address(one).is_loopback for one in found)


def options(where: Address) -> dict[str, Any]:
    """Return how a scheduler and its workers listen: on loopback alone, unless TLS guards them; never for browsers."""
    alone = where.host if _loopback(where.host) else None
    return {"host": alone, "security": where.security, "dashboard_address": "127.0.0.1:0"}


def _security(text: str, ca: Path | None, cert: Path | None, key: Path | None) -> Security:
    """Make distributed's own Security of one pair of files for every role, over its configured ones."""
    for file in (ca, cert, key):
        if file is not None and not file.is_file():
            raise BadParameter(f"cluster {text}: no file {file}")
    roles = ("scheduler", "worker", "client")
    said = (
        {"tls_ca_file": ca} | {f"tls_{role}_cert": cert for role in roles} | {f"tls_{role}_key": key for role in roles}
    )
    made = Security(require_encryption=True, **{name: str(path) for name, path in said.items() if path is not None})
    lacking = [name for name in said if getattr(made, name) is None]
    if lacking:
        raise BadParameter(
            f"cluster {text}: TLS needs --tls-ca, --tls-cert and --tls-key, or distributed's settings: no {lacking[0]}"
        )
    return made


@functools.cache
def _sources() -> str:
    """Hash the workbench itself: what measures and judges."""
    hashed = hashlib.sha256()
    top = Path(__file__).parents[1]
    for file in sorted(top.rglob("*.py")):
        hashed.update(str(file.relative_to(top)).encode() + b"\0" + file.read_bytes())
    return hashed.hexdigest()[:12]


def identity(build: Build) -> Identity:
    """Say what this host would measure with."""
    return Identity(
        hakmem=__version__,
        sources=_sources(),
        revision=machine.probe().git_revision,
        build=build.build_id,
        python=".".join(map(str, sys.version_info[:3])),
        distributed=version("distributed"),
    )


def offer(made: Plan, session: str) -> Offer:
    """Make the offer of a plan: its peers by name, so that every host measures the same ones."""
    found = tuple(arm.allocator.label for arm in made.arms if arm.allocator.name in allocators.PEERS)
    names = [one for name in made.spec.allocators for one in (found if name == PEERS else (name,))]
    return Offer(
        session=session,
        identity=identity(made.build),
        spec=made.spec.model_copy(update={"allocators": tuple(dict.fromkeys(names))}).model_dump(mode="json"),
        ledger=made.ledger.name,
        arms=tuple(arm.label for arm in made.arms),
        allocators=versions(made),
    )


def versions(made: Plan) -> dict[str, str]:
    """Return the allocators of a plan with version and hash, by label."""
    return {a.label: f"{a.version} {a.sha256 or kernel.UNKNOWN}" for a in (arm.allocator for arm in made.arms)}
