"""Epochs: what a long run was like, a line every few seconds, as the driver writes them or memory is sampled."""

import io
from pathlib import Path

import pandas as pd

__all__ = ["COLUMNS", "SAMPLED", "Growing", "read"]

COLUMNS = ["epoch", "t_s", "ops", "ops_per_s", "rss_mb", "lazyfree_mb", "peak_rss_mb", "stall_max_us", "live_mb"]
SAMPLED = "sampled_mb"  # what was seen from outside: the median of an epoch


def read(csv: Path) -> pd.DataFrame:
    """Return the whole lines of a file that a driver writes; the last one may be half written.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`: number, seconds since the start, operations and operations a second, MiB, microseconds; NaN
        for what the driver does not know.
    """
    whole = csv.read_text().rpartition("\n")[0]
    return pd.read_csv(io.StringIO(whole)).astype(dict.fromkeys(COLUMNS[1:], "float64"))


class Growing:
    """A file of epochs that a driver is writing."""

    def __init__(self, csv: Path) -> None:
        self._csv, self._size = csv, 0

    def grows(self) -> bool:
        """Tell whether there is a further epoch since the last look; the first line names the columns."""
        before, self._size = self._size, self._csv.stat().st_size if self._csv.exists() else 0
        return self._size > before > 0
