"""A memory limit around one process: a cgroup of its own, as containers have, where this machine lets us make one."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hakmem.console import complain
from hakmem.errors import MissingTool

__all__ = ["entering", "limit", "why_not"]

PREFIX = "hakmem-"
LIMITS = {  # files of a group by version of the interface, those that may be missing last
    "cgroup2": ("memory.max", "memory.swap.max"),
    "cgroup": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
}
REMOVAL_S = 2.0  # the kernel lets go of a group some time after its last process


def why_not() -> str | None:
    """Say why no memory limit can be set here; None where one can."""
    try:
        with limit(64):
            return None
    except MissingTool as error:
        return str(error)


@contextlib.contextmanager
def limit(mebibytes: int) -> Iterator[Path]:
    """Make a memory cgroup and remove it afterwards; whoever exceeds it is killed by the kernel.

    Page cache and page tables count, as they do in a container. It is made below the caller's own group, so that the
    limits of that one hold too, or else beside it.

    Yields
    ------
    Path
        Its directory; see `entering`.

    Raises
    ------
    MissingTool
        No group can be made; the message says what the kernel answered.
    """
    answers = []
    for kind, parent in _parents():
        _sweep(parent)
        group = parent / f"{PREFIX}{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            answers.append(f"{parent}: {error.strerror}")
            continue
        try:
            _set(group, kind, mebibytes)
        except OSError as error:
            group.rmdir()
            answers.append(f"{parent}: {error.strerror}")
            continue
        try:
            yield group
        finally:
            _remove(group)
        return
    told = "; ".join(answers) or "no memory controller is mounted"
    raise MissingTool(f"no memory cgroup of {mebibytes} MB can be made here ({told}): run as root, outside a container")


def entering(group: Path) -> list[str]:
    """Return the beginning of a command line that runs the rest of it within a group."""
    return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def _parents() -> list[tuple[str, Path]]:
    """Where a group may be made: (interface, directory), the caller's own group first."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            path = own.get("" if kind == "cgroup2" else "memory", "/")
            mine = Path(mount, path.lstrip("/"))
            if mine.is_dir():
                found += [(kind, mine)] + ([(kind, mine.parent)] if path != "/" else [])
    return found


def _set(group: Path, kind: str, mebibytes: int) -> None:
    needed, perhaps = LIMITS[kind]
    if not (group / needed).exists():
        raise OSError(0, "the memory controller is not handed down")
    (group / needed).write_text(str(mebibytes << 20))
    with contextlib.suppress(OSError):  # no swap to limit
        if (group / perhaps).exists():
            (group / perhaps).write_text("0" if kind == "cgroup2" else str(mebibytes << 20))


def _sweep(parent: Path) -> None:
    """Remove the groups of makers that were killed before they could; the kernel keeps one that holds a process."""
    for group in parent.glob(f"{PREFIX}*"):
        maker = group.name.removeprefix(PREFIX)
        ours = maker.isdecimal()  # others may have groups of such names
        if ours and (maker == str(os.getpid()) or not Path("/proc", maker).exists()):
            with contextlib.suppress(OSError):
                group.rmdir()


def _remove(group: Path) -> None:
    deadline = time.monotonic() + REMOVAL_S
    while True:
        try:
            return group.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                return complain(f"left behind for the next measurement to remove: {group}: {error.strerror}")
            time.sleep(0.002)
