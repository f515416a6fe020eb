"""Processes that a measured one leaves behind: adopted, named and killed, whatever session they fled to.

While a trial runs the workbench is the reaper of its descendants (``PR_SET_CHILD_SUBREAPER``): a process whose parent
ends becomes its child, and no double fork hides it.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SET_CHILD_SUBREAPER, GET_CHILD_SUBREAPER = 36, 37  # of prctl(2)
PATIENCE_S = 2.0  # for the kernel to end what was killed


class Orphans:
    """What the descendants of one measured process left to this one.

    Parameters
    ----------
    mark : str
        A variable of the trial's environment, which children inherit: nobody else's processes are touched.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{mark}=".encode()
        self._before = children(os.getpid())

    def names(self, leader: int) -> tuple[str, ...]:
        """Name the processes that run on though `leader` has ended."""
        adopted = self._adopted(leader)
        family = adopted.union(*(descendants(pid) for pid in adopted))
        return tuple(_comm(pid) for pid in sorted(family) if _runs(pid))

    def end(self, leader: int) -> None:
        """Kill and reap what is left of a process that has ended and been reaped.

        Only children of this process are killed, whose numbers nobody else can have before they are reaped; what a
        killed one leaves behind is a child in the next round.
        """
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            adopted = self._adopted(leader)
            for pid in adopted:
                os.kill(pid, signal.SIGKILL)
            for pid in children(os.getpid()) - self._before:
                if _session(pid) != os.getsid(0):  # what others start in this process stays in its session
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
            if not adopted:
                return
            time.sleep(0.002)

    def _adopted(self, leader: int) -> set[int]:
        """Find the children of this process that came from the measured one and have not ended."""
        others = children(os.getpid()) - self._before - {leader}
        return {pid for pid in others if _runs(pid) and self._ours(pid, leader)}

    def _ours(self, pid: int, leader: int) -> bool:
        return _session(pid) == leader or self._mark in _read(pid, "environ")


@contextmanager
def adopted(mark: str) -> Iterator[Orphans]:
    """Adopt what the children started meanwhile leave behind."""
    libc = ctypes.CDLL(None)
    was = ctypes.c_int(0)
    libc.prctl(GET_CHILD_SUBREAPER, ctypes.byref(was), 0, 0, 0)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield Orphans(mark)
    finally:
        libc.prctl(SET_CHILD_SUBREAPER, was.value, 0, 0, 0)


def children(pid: int) -> set[int]:
    """Return the children of a process, those that have ended but are not reaped among them."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in task.read_text().split())
    return found


def descendants(pid: int) -> set[int]:
    """Return the children of a process, their children, and so on."""
    found, ahead = set[int](), [pid]
    while ahead:
        further = children(ahead.pop()) - found
        found |= further
        ahead += further
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _comm(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip() or str(pid)


def _stat(pid: int) -> list[bytes]:
    """Return the fields of stat behind the name, which may hold blanks: state, parent, group, session, ..."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _runs(pid: int) -> bool:
    return (_stat(pid) or [b""])[0] not in (b"", b"Z", b"X")


def _session(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if len(fields) > 3 else -1
