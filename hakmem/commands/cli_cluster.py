"""Commands of a study over many hosts."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from hakmem import campaign, console, planning
from hakmem.errors import BadParameter, MissingTool

app = typer.Typer()

Measures = Callable[[planning.Plan], campaign.Done]
Ca = Annotated[Path | None, typer.Option("--tls-ca", help="Certificate authority of the cluster (PEM).")]
Cert = Annotated[Path | None, typer.Option("--tls-cert", help="Certificate of this host (PEM).")]
Key = Annotated[Path | None, typer.Option("--tls-key", help="Key of this host's certificate (PEM).")]


def measures(cluster: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> Measures:
    """Choose what measures a plan: this process, or the workers of a cluster.

    Raises
    ------
    BadParameter
        No such address, one that would be open to everybody, or TLS without its files.
    MissingTool
        dask.distributed is not installed.
    """
    if cluster is None:
        if ca or cert or key:
            raise BadParameter("--tls-ca, --tls-cert and --tls-key go with --cluster tls://HOST:PORT")
        return campaign.run
    wire = _part("wire")
    where = wire.address(cluster, ca, cert, key)
    return functools.partial(_part("cluster").run, where=where, local=cluster == wire.LOCAL)


@app.command()
def worker(
    address: Annotated[str, typer.Argument(help="Where the sweep listens: tcp://127.0.0.1:PORT or tls://HOST:PORT.")],
    host: Annotated[str | None, typer.Option(help="Identity of this host; by default its name and a hash.")] = None,
    tls_ca: Ca = None,
    tls_cert: Cert = None,
    tls_key: Key = None,
) -> None:
    """Measure blocks for a sweep on another host, until it has all it wants."""
    where = _part("wire").address(address, tls_ca, tls_cert, tls_key)
    name = _part("worker").serve(where, host)
    console.say(f"{name} is done: the sweep has ended")


def _part(name: str) -> ModuleType:
    """Load what needs dask.distributed, an extra that no other command asks for."""
    try:
        return importlib.import_module(f"hakmem.hosts.{name}")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("hakmem"):
            raise
        raise MissingTool(
            f"no module {error.name!r}: a cluster needs the extra `cluster`, `make setup` installs it"
        ) from error
