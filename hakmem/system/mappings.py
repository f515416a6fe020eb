"""What the kernel tells of a process's memory, mapping by mapping (`smaps`) and page by page (`pagemap`)."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hakmem.errors import BadParameter

__all__ = ["PAGE", "Mapping", "files", "pages", "resident", "smaps", "start_ticks"]

PAGE = os.sysconf("SC_PAGE_SIZE")
OURS = np.uint64(
    1 << 63 | 1 << 56
)  # present and nobody else's: the page of zeros behind memory that was only read is not
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+) (\d+) *(.*)")


@dataclass(frozen=True)
class Mapping:
    """One mapping of a process.

    Attributes
    ----------
    start, end : int
        Addresses.
    path : str
        File, a name of the kernel's such as ``[heap]``, or empty.
    inode : int
        Of the file; 0 without one.
    rss_kb, anonymous_kb, lazyfree_kb : int
        Resident, of that without a file, of that lazily freed (KiB).
    """

    start: int
    end: int
    path: str
    inode: int
    rss_kb: int
    anonymous_kb: int
    lazyfree_kb: int


def smaps(pid: int) -> tuple[Mapping, ...]:
    """Return the mappings of a process, in the order of addresses.

    Raises
    ------
    BadParameter
        There is no such process, or it is somebody else's.
    """
    found: list[Mapping] = []
    head: re.Match[str] | None = None
    sizes: dict[str, int] = {}
    for line in [*_read(pid, "smaps").splitlines(), "0-0 ---p 0 00:00 0"]:
        if begun := _HEAD.match(line):
            if head:
                figures = [sizes.get(name, 0) for name in ("Rss", "Anonymous", "LazyFree")]
                found.append(Mapping(int(head[1], 16), int(head[2], 16), head[6], int(head[5]), *figures))
            head, sizes = begun, {}
        elif line.endswith(" kB"):
            name, _, value = line.removesuffix(" kB").partition(":")
            sizes[name] = int(value)
    return tuple(found)


def files(pid: int) -> dict[str, int]:
    """Return the inodes of the files that a process maps, by path; far cheaper than `smaps`.

    Raises
    ------
    BadParameter
        There is no such process, or it is somebody else's.
    """
    heads = map(_HEAD.match, _read(pid, "maps").splitlines())
    return {head[6]: int(head[5]) for head in heads if head and head[6].startswith("/")}


def pages(pid: int, start: int, end: int) -> npt.NDArray[np.bool_]:
    """Tell of each page of a range of addresses whether it is resident and this process's own.

    Parameters
    ----------
    pid : int
    start, end : int
        Addresses; the pages they cut are included.

    Returns
    -------
    ndarray of bool
        Shape ``(pages,)``.

    Raises
    ------
    BadParameter
        There is no such process, or the kernel does not let us look.
    """
    first, last = start // PAGE, -(-end // PAGE)
    try:
        with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
            words = np.frombuffer(os.pread(file.fileno(), 8 * (last - first), 8 * first), np.uint64)
    except OSError as error:
        raise _refused(pid, error) from error
    return np.asarray((words & OURS) == OURS)


def resident(pid: int, start: int, size: int) -> int:
    """Return the bytes of a range that are resident and this process's own."""
    return int(pages(pid, start, start + size).sum()) * PAGE


def start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])  # its name may hold blanks and brackets


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError as error:
        raise _refused(pid, error) from error


def _refused(pid: int, error: OSError) -> BadParameter:
    """Say why a process cannot be looked at; one that ends meanwhile is not there either."""
    if isinstance(error, FileNotFoundError | ProcessLookupError):
        return BadParameter(f"there is no process {pid}")
    return BadParameter(f"the memory of process {pid} cannot be looked at: {error.strerror}")
