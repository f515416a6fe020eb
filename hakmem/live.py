"""The page that a process over hakmem shows of itself while it runs (`HAKMEM_STATS_LIVE`): read, found, sampled.

`docs/design.md`, "Statistics", says how the file is laid out; `hakmem.residency` decodes its words.
"""

import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hakmem.errors import BadParameter
from hakmem.residency import (
    PLACES,
    Residency,
    Words,
    cached_table,
    direct_kb,
    of_json,
    place_codes,
    resident_kb,
    units_table,
)
from hakmem.system import mappings

__all__ = ["Page", "Sampler", "find", "read"]


class Page:
    """The live page of one process; reading it asks nothing of the process.

    Parameters
    ----------
    path : Path
        The file ``hakmem.<pid>``.

    Raises
    ------
    BadParameter
        It cannot be read, or is no such page.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = self._bytes()
        try:
            self._head: dict[str, Any] = json.loads(data[: data.index(b"\0")])
            if self._head["hakmem_live"] != 1:
                raise BadParameter(
                    f"{path} is a page of version {self._head['hakmem_live']}; this hakmem reads version 1"
                )
            self._at: dict[str, int] = self._head["at"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadParameter(f"{path} is no live page of hakmem (HAKMEM_STATS_LIVE writes them)") from error
        if len(data) < self._whole(data):
            raise BadParameter(f"{path} is cut short: it has {len(data)} bytes and tells of {self._whole(data)}")
        self.pid = int(self._head["pid"])
        self.page = int(self._head["page"])
        self.sizes = np.array(self._head["sizes"], np.int64)
        self.octaves = np.array(self._head["octaves"], np.int64)

    def _bytes(self) -> bytes:
        try:
            with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                return bytes(data)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise BadParameter(f"{self.path} cannot be read: {reason}") from error

    def _per_superslab(self) -> int:
        return int(self._head["superslab_units"]) + int(self._head["head_words"])

    def _whole(self, data: bytes) -> int:
        """Bytes of a file that holds all it shows."""
        begin = self._at["words"]
        if len(data) < begin:
            return begin
        shown = struct.unpack_from("<Q", data, self._at["shown"])[0] // int(self._head["superslab_units"])
        return begin + int(shown) * self._per_superslab() * 8

    def alive(self) -> bool:
        """Tell whether its process runs: one with its number, its start time, and this very file mapped."""
        if mappings.start_ticks(self.pid) != self._head["start"]:
            return False
        try:
            inode = self.path.stat().st_ino
            return inode in mappings.files(self.pid).values()
        except OSError:
            return False  # removed at its exit
        except BadParameter:
            return True  # somebody else's: the start time has to do

    def words(self, data: bytes | None = None) -> Words:
        """Return the words of all known SuperSlabs, shape ``(superslabs, 2 + units of one)``."""
        data = self._bytes() if data is None else data
        per = self._per_superslab()
        shown = struct.unpack_from("<Q", data, self._at["shown"])[0] // int(self._head["superslab_units"])
        return np.frombuffer(data, "<u8", shown * per, self._at["words"]).reshape(shown, per)

    def counters(self) -> dict[str, int]:
        """Return the counters, summed over threads."""
        names, step = self._head["counters"], int(self._head["count_bytes"]) // 8
        for _ in range(100):  # while a thread ends its counts stand twice, and the sequence is odd
            data = self._bytes()
            before = struct.unpack_from("<Q", data, self._at["moving"])[0]
            table = np.frombuffer(data, "<u8", step * int(self._head["count_blocks"]), self._at["counts"])
            after = struct.unpack_from("<Q", self._bytes(), self._at["moving"])[0]
            if before == after and before % 2 == 0:
                break
            time.sleep(0.001)
        skip = self._at["first_count"] // 8
        sums = table.reshape(-1, step)[:, skip : skip + len(names)].sum(axis=0, dtype=np.uint64)
        return {name: int(value) for name, value in zip(names, sums, strict=True)}

    def resident_mb(self) -> npt.NDArray[np.float64]:
        """Return resident MiB by place, in the order of `PLACES`: what a sampler takes."""
        words = self.words()
        words = words[(words[:, 0] & np.uint64(7)) != 0]
        kb = resident_kb(words[:, 2:], self.page)
        return np.bincount(place_codes(words, self.octaves).ravel(), kb.ravel(), len(PLACES)) / 1024

    def metadata(self) -> pd.DataFrame:
        """Return the kinds of metadata with their size, and what of it is resident as the kernel tells."""
        data = self._bytes()
        count, records = struct.unpack_from("<Q", data, self._at["metadata"])[0], []
        for i in range(count):
            name, start, size = struct.unpack_from("<16sQQ", data, self._at["metadata"] + 8 + 32 * i)
            try:
                resident = mappings.resident(self.pid, start, size) / 1024
            except BadParameter:
                resident = float("nan")
            records.append((name.rstrip(b"\0").decode(), size / 1024, resident))
        table = pd.DataFrame(records, columns=["name", "kb", "resident_kb"])
        return table.groupby("name", sort=False, as_index=False).sum(min_count=1)

    def cached(self) -> pd.DataFrame | None:
        """Count the blocks in thread caches and in the depot, which the process itself counts nowhere else.

        Its memory is looked at as a debugger would; None where that is not allowed.
        """
        try:
            with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
                blocks = _Caches(memory.fileno(), self._head, len(self.sizes)).blocks()
        except (OSError, struct.error):  # not allowed, or gone meanwhile
            return None
        return cached_table(blocks, self.sizes, self.octaves)

    def residency(self) -> Residency:
        """Return everything that the page tells."""
        words, alive = self.words(), self.alive()
        return Residency(
            source=str(self.path),
            pid=self.pid,
            state="running" if alive else "left behind",
            build=self._head["build"],
            version=self._head["version"],
            gates=self._head["gates"],
            counters=self.counters(),
            units=units_table(np.arange(len(words)), words, self.sizes, self.octaves, self.page),
            direct_kb=direct_kb(words),
            cached=self.cached() if alive else None,
            metadata=self.metadata() if alive else pd.DataFrame(columns=["name", "kb", "resident_kb"]),
        )


class _Caches:
    """Finds the thread caches in another process's memory by the offsets that its page tells."""

    def __init__(self, fd: int, head: Mapping[str, Any], classes: int) -> None:
        self._fd, self._at, self._depot, self._classes = fd, head["caches"], head["depot"], classes

    def _take(self, address: int, form: str) -> Any:
        return struct.unpack("<" + form, os.pread(self._fd, struct.calcsize("<" + form), address))

    def blocks(self) -> dict[int, int]:
        found = dict.fromkeys(range(1, self._classes), 0)
        heap = self._take(self._at["made"], "Q")[0]
        while heap:
            for cls, count in self._of_thread(heap).items():
                found[cls] += count
            heap = self._take(heap + self._at["next"], "Q")[0]
        for cls in found:
            chains = self._take(self._depot["counts"] + cls * self._depot["step"], "I")[0]
            first = self._depot["chains"] + cls * self._depot["step"]
            found[cls] += sum(self._take(first + i * self._depot["chain_step"], "I")[0] for i in range(chains))
        return found

    def _of_thread(self, heap: int) -> dict[int, int]:
        at, many = self._at, self._classes
        tls = self._take(heap + at["tls"], "Q")[0]
        try:
            if not tls or self._take(tls + at["heap"], "Q")[0] != heap:
                return {}  # nobody's, or its thread has ended
            room = self._take(tls + at["room"], f"{many}i")
        except (OSError, struct.error):
            return {}
        cap = self._take(heap + at["cap"], f"{many}h")
        spare = [self._take(heap + at["spare"] + cls * at["spare_step"], "I")[0] for cls in range(many)]
        return {cls: max(0, cap[cls] - room[cls]) + spare[cls] for cls in range(1, many)}


def find(pid: int) -> Page:
    """Find the page of a running process.

    Raises
    ------
    BadParameter
        There is no such process, or it shows no page.
    """
    for path in mappings.files(pid):
        if path.endswith(f"/hakmem.{pid}"):
            return Page(Path(path))
    raise BadParameter(
        f"process {pid} shows no page: start it with HAKMEM_STATS_LIVE=/a/directory, over hakmem but not its FAST build"
    )


def read(target: str) -> Residency:
    """Read the residency of a process by its number, or of a file: a live page, or statistics written at exit.

    Raises
    ------
    BadParameter
        It is none of these.
    """
    if target.isdigit():
        return find(int(target)).residency()
    path = Path(target)
    try:
        with path.open("rb") as file:
            begin = file.read(24)
    except OSError as error:
        raise BadParameter(f"{target} is neither the number of a process nor a file: {error.strerror}") from error
    if begin.startswith(b'{"hakmem_live":'):
        return Page(path).residency()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadParameter(f"{target} is neither a live page nor statistics at exit of hakmem") from error
    return of_json(told, str(path))


# ---- over time -------------------------------------------------------------------------------------------------------


class Sampler:
    """Collects the residency by place of a running child; `tick` is what `hakmem.run.execute` calls.

    Parameters
    ----------
    folder : Path
        What the child has as ``HAKMEM_STATS_LIVE``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._page: Page | None = None
        self._begin = time.monotonic()
        self._t_s: list[float] = []
        self._rows: list[npt.NDArray[np.float64]] = []

    def tick(self, pid: int) -> None:
        """Take one sample; a child that has no page yet, or none any more, yields none."""
        try:
            self._page = self._page or Page(self._folder / f"hakmem.{pid}")
            row = self._page.resident_mb()
        except BadParameter:
            return
        self._t_s.append(time.monotonic() - self._begin)
        self._rows.append(row)

    def frame(self) -> pd.DataFrame:
        """Return the samples: t_s (seconds since the sampler was made) and resident MiB of each of `PLACES`."""
        table = pd.DataFrame(np.array(self._rows).reshape(-1, len(PLACES)), columns=list(PLACES))
        table.insert(0, "t_s", self._t_s)
        return table
