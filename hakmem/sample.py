"""RSS over time of a running child, read from outside: `/proc/<pid>/statm` costs 4 us a sample.

The samples are for the shape of the curve; peaks and phase ends are read by the child itself. Nothing is sampled while
a trial uses every core, since the sampler would take a share of one.
"""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hakmem.errors import LedgerError
from hakmem.system.orphans import descendants

PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class Sampler:
    """Collects one child's RSS; `tick` is what `hakmem.run.execute` calls.

    Parameters
    ----------
    family : bool
        Take the sum over the child's descendants, without the child, which is then a launcher.

    Attributes
    ----------
    t_s : list of float
        Seconds since the sampler was made (just before the child).
    rss_kb : list of int
        Resident memory, KiB.
    """

    def __init__(self, *, family: bool = False) -> None:
        self._family = family
        self._begin = time.monotonic()
        self.t_s: list[float] = []
        self.rss_kb: list[int] = []

    def tick(self, pid: int) -> None:
        """Take one sample; a child that has just ended yields none."""
        pages = sum(map(_resident_pages, descendants(pid))) if self._family else _resident_pages(pid)
        if pages:
            self.t_s.append(time.monotonic() - self._begin)
            self.rss_kb.append(pages * PAGE_KB)

    def write(self, path: Path) -> bool:
        """Save the series as Parquet (columns ``t_s``, ``rss_kb``); False when there is nothing to save.

        Raises
        ------
        LedgerError
            The file cannot be written.
        """
        if not self.t_s:
            return False
        write(pa.table({"t_s": pa.array(self.t_s, pa.float64()), "rss_kb": pa.array(self.rss_kb, pa.int64())}), path)
        return True


def write(series: pa.Table, path: Path) -> None:
    """Save a series as Parquet, whole or not at all.

    Raises
    ------
    LedgerError
        The file cannot be written.
    """
    scratch = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(series, scratch, compression="zstd")
        scratch.replace(path)
    except OSError as error:
        raise LedgerError(f"cannot write the series {path}: {error.strerror or error}") from error


def _resident_pages(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            fields = file.read(128).split()
    except OSError:
        return 0
    return int(fields[1]) if len(fields) > 1 else 0


def use(threads: int) -> bool:
    """Say whether a trial of so many busy threads leaves a core free for the sampler."""
    return threads < len(os.sched_getaffinity(0))
