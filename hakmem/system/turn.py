"""One measurement at a time on a host, whoever asks: two commands, two users or two workers take turns.

The turn is an advisory lock on a file that all users of the host share. Who waits for it holds a second one, the queue,
so that a command which takes turn after turn lets the waiting one in between. The kernel lets go of both when a process
dies. ``WORKBENCH_LOCK_DIR`` names another directory for the two files, and so another company to take turns with.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hakmem.console import complain
from hakmem.errors import HakmemError
from hakmem.system import kernel

DIRECTORY = "WORKBENCH_LOCK_DIR"  # no gate: the allocator complains of an unknown HAKMEM_ variable
SHARED = Path("/tmp")  # written by everybody, wherever Linux runs
QUEUE, MEASURING = "hakmem-queue.lock", "hakmem-measuring.lock"


@contextmanager
def taken(tell: Callable[[str], None] = complain) -> Iterator[None]:
    """Hold this host's turn to measure; not reentrant.

    Parameters
    ----------
    tell : callable
        Called with one sentence if somebody else is measuring, before waiting for it to end.

    Raises
    ------
    HakmemError
        The files of the lock cannot be opened.
    """
    folder = directory()
    queue, turn = _opened(folder / QUEUE), _opened(folder / MEASURING)
    try:
        try:
            fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting until {holder(folder / MEASURING)} has measured: one measurement at a time on a host")
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX)
        os.close(queue)
        queue = -1
        yield
    finally:
        os.close(turn)
        if queue >= 0:
            os.close(queue)


def directory() -> Path:
    """Return where the files of the lock are."""
    return Path(os.environ.get(DIRECTORY) or SHARED)


def holder(path: Path) -> str:
    """Name the process that holds a lock, as the kernel tells it: ``process 4711 (hakmem sweep)``."""
    inode = f":{path.stat().st_ino}"
    for line in kernel.read(Path("/proc/locks")).splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(inode):
            command = kernel.read(Path("/proc", words[4], "cmdline")).replace("\0", " ").strip()
            return f"process {words[4]} ({command[:80]})" if command != kernel.UNKNOWN else f"process {words[4]}"
    return "another process"


def _opened(path: Path) -> int:
    """Open a file of the lock for reading, which is all a lock needs and what another user's file allows."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with suppress(FileExistsError):
            made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(made, 0o644)  # whatever the umask: other users take turns with us
            return made
        return os.open(path, flags)
    except OSError as error:
        raise HakmemError(
            f"cannot take turns with others who measure on this host: {path}: {error.strerror};"
            f" {DIRECTORY} names another directory"
        ) from error
