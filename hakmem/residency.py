"""Where hakmem's memory is: read from the page of a running process, from its statistics at exit, or sampled over time.

`docs/design.md`, "Statistics", says how the two files are laid out. All is decoded from the same words: one a unit of
64 KiB, two a SuperSlab.
"""

import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hakmem import mappings
from hakmem.errors import BadParameter

__all__ = ["PLACES", "Page", "Residency", "Sampler", "find", "of_json", "read"]

OCTAVES = (*(f"C{c}" for c in range(8)), "M")
PLACES = (*OCTAVES, "large", "direct", "warm pool", "free slabs", "kept", "decommitted")
UNIT = 1 << 16
_CLEAN, _DIRTY, _UNITS, _SPAN, _TAIL = 1, 2, 3, 4, 5  # kinds of a SuperSlab
_SLAB, _RUN, _RUN_TAIL = 2, 3, 4  # states of a unit
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Residency:
    """Where memory is at one moment.

    Attributes
    ----------
    source : str
        File it was read from.
    pid : int
    state : str
        ``running``, ``ended`` (written at its exit) or ``left behind`` (of a process that died).
    build, version : str
    gates : dict
    counters : dict
    units : DataFrame
        One row a unit of every SuperSlab that is mapped: superslab, unit (its number in it), place (of `PLACES`), size
        (of a block, bytes; 0 where there are none), resident_kb, out_kb (in blocks that are not in the slab; of
        larger blocks what was asked for).
    direct_kb : float
        In direct mappings, as asked for.
    cached : DataFrame or None
        Blocks in thread caches: place, size, blocks; None where they cannot be told.
    metadata : DataFrame
        name, kb, resident_kb of each kind.
    """

    source: str
    pid: int
    state: str
    build: str
    version: str
    gates: dict[str, str]
    counters: dict[str, int]
    units: pd.DataFrame
    direct_kb: float
    cached: pd.DataFrame | None
    metadata: pd.DataFrame

    def places(self) -> pd.DataFrame:
        """Sum up by place.

        Returns
        -------
        DataFrame
            Index `PLACES`, without those that hold nothing: slabs, resident_mb, out_mb (blocks not in their slab), fill
            (share of the slabs' bytes that is out), cached_mb (NaN where unknown).
        """
        found = self.units.groupby("place").agg(
            slabs=("unit", "size"), resident_mb=("resident_kb", "sum"), out_mb=("out_kb", "sum")
        )
        if "direct" in found.index:
            found.loc["direct", "out_mb"] = self.direct_kb
        found[["resident_mb", "out_mb"]] /= 1024
        found["fill"] = found["out_mb"] * 2**20 / (found["slabs"] * UNIT)
        found["cached_mb"] = np.nan
        if self.cached is not None:
            mb = self.cached["blocks"] * self.cached["size"] / 2**20
            found["cached_mb"] = mb.groupby(self.cached["place"]).sum().reindex(found.index).fillna(0.0)
        return found.reindex([place for place in PLACES if place in found.index])

    def dump(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        places = self.places().reset_index()
        return {
            **{"source": self.source, "pid": self.pid, "state": self.state, "build": self.build},
            **{"version": self.version, "gates": self.gates, "counters": self.counters},
            "places": _plain(places),
            "metadata": _plain(self.metadata),
            "units": _plain(self.units),
        }


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


# ---- words -----------------------------------------------------------------------------------------------------------


def _place_codes(words: Words, octaves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Index into `PLACES` of every unit of SuperSlabs; shape as `words` without the two of the head."""
    kind, used = words[:, :1] & np.uint64(7), words[:, :1] >> np.uint64(32)
    units = words[:, 2:]
    state, cls = units & np.uint64(7), (units >> np.uint64(3) & np.uint64(63)).astype(np.int64)
    in_use = used >> np.arange(units.shape[1], dtype=np.uint64) & np.uint64(1)
    at = {place: code for code, place in enumerate(PLACES)}
    code = np.where(state == _SLAB, octaves[cls], at["warm pool"])
    code = np.where((state == _RUN) | (state == _RUN_TAIL), at["large"], code)
    code = np.where(in_use == 0, at["free slabs"], code)
    for of, place in ((_CLEAN, "decommitted"), (_DIRTY, "kept"), (_SPAN, "direct"), (_TAIL, "direct")):
        code = np.where(kind == of, at[place], code)
    return code


def _resident_kb(units: Words, page: int) -> npt.NDArray[np.int64]:
    return np.asarray(np.bitwise_count(units >> np.uint64(9) & np.uint64(0xFFFF)), np.int64) * (page // 1024)


def _units(numbers: npt.NDArray[np.int64], words: Words, sizes: npt.NDArray[np.int64], octaves: Any, page: int) -> Any:
    """Make the table of units; `words` has a row a SuperSlab, `numbers` says which ones they are."""
    mapped = (words[:, 0] & np.uint64(7)) != 0
    numbers, words = numbers[mapped], words[mapped]
    code, units = _place_codes(words, octaves), words[:, 2:]
    slab, large = code < len(OCTAVES), code == PLACES.index("large")
    blocks, slack = (
        (units >> np.uint64(at) & np.uint64(0xFFFF)).astype(np.int64) for at in (25, 41)
    )  # the second is a run's slack only in its first unit
    size = np.where(slab, sizes[(units >> np.uint64(3) & np.uint64(63)).astype(np.int64)], 0)
    run = UNIT - np.where((units & np.uint64(7)) == _RUN, slack, 0)
    out = np.where(slab, blocks * size, np.where(large, run, 0))
    count = words.shape[1] - 2
    return pd.DataFrame(
        {
            "superslab": np.repeat(numbers, count),
            "unit": np.tile(np.arange(count), len(numbers)),
            "place": np.array(PLACES)[code.ravel()],
            "size": size.ravel(),
            "resident_kb": _resident_kb(units, page).ravel(),
            "out_kb": out.ravel() / 1024,
        }
    ).astype({"place": "str"})


def _direct_kb(words: Words) -> float:
    return int(words[(words[:, 0] & np.uint64(7)) == _SPAN, 1].sum()) / 1024


def _cached_table(blocks: Mapping[int, int], sizes: Any, octaves: Any) -> pd.DataFrame:
    rows = [(OCTAVES[octaves[cls]], int(sizes[cls]), count) for cls, count in blocks.items() if count]
    return pd.DataFrame(rows, columns=["place", "size", "blocks"])


# ---- the page of a running process -----------------------------------------------------------------------------------


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
        per = int(self._head["superslab_units"]) + int(self._head["head_words"])
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
        kb = _resident_kb(words[:, 2:], self.page)
        return np.bincount(_place_codes(words, self.octaves).ravel(), kb.ravel(), len(PLACES)) / 1024

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
        except OSError:
            return None
        return _cached_table(blocks, self.sizes, self.octaves)

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
            units=_units(np.arange(len(words)), words, self.sizes, self.octaves, self.page),
            direct_kb=_direct_kb(words),
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
            pending = self._take(tls + at["pending"], f"{many}Q") if at["pending"] else (at["poison"],) * many
        except (OSError, struct.error):
            return {}
        cap = self._take(heap + at["cap"], f"{many}h")
        spare = [self._take(heap + at["spare"] + cls * at["spare_step"], "I")[0] for cls in range(many)]
        return {
            cls: max(0, cap[cls] - room[cls]) + spare[cls] + (pending[cls] != at["poison"]) for cls in range(1, many)
        }


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


# ---- the statistics at exit ------------------------------------------------------------------------------------------


def of_json(told: Mapping[str, Any], source: str, state: str = "ended") -> Residency:
    """Decode what `HAKMEM_STATS_JSON` writes at exit, or a driver's line with the member ``residency``.

    Raises
    ------
    BadParameter
        It is nothing of the kind.
    """
    try:
        inside = told["residency"]
        classes = inside["classes"]
        sizes, octaves = np.zeros(64, np.int64), np.zeros(64, np.int64)
        for each in classes:
            sizes[each["class"]], octaves[each["class"]] = each["size"], each["octave"]
        table = inside["map"]
        width = 2 + inside["superslab"] // UNIT
        words = np.array([row[1:] for row in table], np.uint64).reshape(len(table), width)
        known = all("blocks_cached" in each for each in classes)
        metadata = [(name, kind["bytes"] / 1024, kind["resident"] / 1024) for name, kind in inside["metadata"].items()]
        return Residency(
            source=source,
            pid=int(told.get("pid", 0)),
            state=state,
            build=told.get("build", ""),
            version=told.get("version", ""),
            gates=told.get("gates", {}),
            counters=told.get("counters", {}),
            units=_units(np.array([row[0] for row in table], np.int64), words, sizes, octaves, inside["page"]),
            direct_kb=_direct_kb(words),
            cached=_cached_table({each["class"]: each["blocks_cached"] for each in classes}, sizes, octaves)
            if known
            else None,
            metadata=pd.DataFrame(metadata, columns=["name", "kb", "resident_kb"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadParameter(f"{source} holds no residency of hakmem (HAKMEM_STATS_JSON writes it)") from error


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
