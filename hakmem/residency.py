"""Where hakmem's memory is at one moment, decoded from what a process shows while it runs or writes at its exit.

`docs/design.md`, "Statistics", says how the two files are laid out. All is decoded from the same words: one a unit of
64 KiB, two a SuperSlab.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hakmem.errors import BadParameter

__all__ = [
    "OCTAVES",
    "PLACES",
    "UNIT",
    "Residency",
    "Words",
    "cached_table",
    "direct_kb",
    "of_json",
    "place_codes",
    "resident_kb",
    "units_table",
]

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


def place_codes(words: Words, octaves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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


def resident_kb(units: Words, page: int) -> npt.NDArray[np.int64]:
    """Resident KiB of each unit, from its word; `page` in bytes."""
    return np.asarray(np.bitwise_count(units >> np.uint64(9) & np.uint64(0xFFFF)), np.int64) * (page // 1024)


def units_table(
    numbers: npt.NDArray[np.int64], words: Words, sizes: npt.NDArray[np.int64], octaves: Any, page: int
) -> Any:
    """Make the table of units; `words` has a row a SuperSlab, `numbers` says which ones they are."""
    mapped = (words[:, 0] & np.uint64(7)) != 0
    numbers, words = numbers[mapped], words[mapped]
    code, units = place_codes(words, octaves), words[:, 2:]
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
            "resident_kb": resident_kb(units, page).ravel(),
            "out_kb": out.ravel() / 1024,
        }
    ).astype({"place": "str"})


def direct_kb(words: Words) -> float:
    """KiB in direct mappings, as asked for, from the words of all SuperSlabs."""
    return int(words[(words[:, 0] & np.uint64(7)) == _SPAN, 1].sum()) / 1024


def cached_table(blocks: Mapping[int, int], sizes: Any, octaves: Any) -> pd.DataFrame:
    """Table of blocks in caches (place, size, blocks) from their number by class."""
    rows = [(OCTAVES[octaves[cls]], int(sizes[cls]), count) for cls, count in blocks.items() if count]
    return pd.DataFrame(rows, columns=["place", "size", "blocks"])


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
            units=units_table(np.array([row[0] for row in table], np.int64), words, sizes, octaves, inside["page"]),
            direct_kb=direct_kb(words),
            cached=cached_table({each["class"]: each["blocks_cached"] for each in classes}, sizes, octaves)
            if known
            else None,
            metadata=pd.DataFrame(metadata, columns=["name", "kb", "resident_kb"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise BadParameter(f"{source} holds no residency of hakmem (HAKMEM_STATS_JSON writes it)") from error
