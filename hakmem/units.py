"""The unit that fits a figure: bytes, operations a second and counts, each with its units, the largest first."""

from collections.abc import Sequence

__all__ = ["BYTES", "COUNTS", "RATE", "RATES", "Unit", "fitting", "words"]

Unit = tuple[float, str]  # how many of the smallest one it is, and its name

BYTES: Sequence[Unit] = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
COUNTS: Sequence[Unit] = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
RATE = "Mops/s"  # in which the ledger's rows and all tables hold throughput
RATES: Sequence[Unit] = ((1e6, RATE), (1e3, "kops/s"), (1, "ops/s"))


def fitting(value: float, units: Sequence[Unit]) -> Unit:
    """Return the largest unit that is not larger than `value`, else the smallest."""
    return next((unit for unit in units if value >= unit[0]), units[-1])


def words(value: float, units: Sequence[Unit]) -> str:
    """Say 3145728 in `BYTES` as `3 MiB`, 3000 in `COUNTS` as `3k`."""
    scale, unit = fitting(value, units)
    figure = value / scale
    return f"{figure:{'.3g' if figure < 999.5 else ',.0f'}}{'' if units is COUNTS else ' '}{unit}"
