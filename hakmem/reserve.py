"""What keeping empty memory at hand costs and brings: reserve, thread caches, SuperSlab size, partial release.

Every setting is compared with the default by itself, under Lean, where these gates matter. The published rule: a leaner
setting is accepted where the fatter one gains less than 5 % of throughput.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from pydantic import Field

from hakmem import stats
from hakmem.stats import BASELINE
from hakmem.study import STUDY, CampaignSpec, GateSpec, Parameters
from hakmem.verdict import Word

__all__ = ["ReserveSpec", "battle", "judge", "trade"]

RULE = 5.0  # percent of throughput
GATES: dict[str, tuple[str, ...]] = {
    "SS_EMPTY_RESERVE": ("1", "2", "ADAPTIVE"),
    "TINY_MAG_LEVELS": ("1",),
    "TINY_MAG_SCALE_PCT": ("25", "400"),
    "SS_SIZE_KB": ("1024", "512"),
    "SS_PARTIAL_RELEASE": ("0",),
}


class ReserveSpec(Parameters):
    """The gates of empty memory, one at a time under Lean, and the battle test beside the peers."""

    study: str = Field(default="reserve", pattern=STUDY)
    workloads: tuple[str, ...] = ("battle", "phases")
    decommit: str = "DONTNEED"
    target_mb: int = Field(default=10, ge=1)
    battle: str = "battle"

    def campaigns(self) -> dict[str, CampaignSpec]:
        """Return one sweep a gate, by its name; all share the ledger."""
        under = {"LEAN": 1, "DECOMMIT": self.decommit, "TARGET_MB": self.target_mb}
        same = self.model_dump(include={"study", "workloads", "blocks", "budget_minutes", "profile", "seed"})
        return {
            gate: GateSpec.checked({**same, "gate": gate, "values": values, "under": under}).campaign()
            for gate, values in GATES.items()
        }

    def beside_peers(self) -> CampaignSpec:
        """Return the battle test: hakmem speed-first and Lean, the system's allocator, the peers."""
        same = self.model_dump(include={"study", "blocks", "budget_minutes", "profile", "seed", "target_mb"})
        return CampaignSpec.checked({**same, "decommit": self.decommit, "workloads": self.battle})


def trade(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare each setting with the default of its gate, paired within blocks.

    Parameters
    ----------
    found : mapping of gate to DataFrame
        Trials of each gate's sweep.

    Returns
    -------
    DataFrame
        Columns workload, gate, value, gain %, low %, high % (throughput, 95 %), peak_mb, left_mb (change in MiB of the
        peak and of what is left at the end), blocks, rule: ``keep the default`` (the whole interval is below +5 %),
        ``worth it`` (above), else ``undecided``.
    """
    records = []
    for gate, rows in found.items():
        for workload, cell in rows.groupby("workload", sort=False):
            speed, peak, left = (stats.wide(cell, m) for m in ("ops_per_s", "peak_rss_mb", "end_rss_less_lazyfree_mb"))
            for line in cell[cell["role"] == "arm"].drop_duplicates("arm").to_dict("records"):
                arm, x = str(line["arm"]), stats.log_ratios(speed, str(line["arm"]))
                if not x.size:
                    continue
                gain = stats.interval(x).percent()
                rule = {True: "keep the default", False: "worth it", None: "undecided"}[gain.below(RULE)]
                records.append(
                    {"workload": str(workload), "gate": gate, "value": line["gates"][f"HAKMEM_{gate}"]}
                    | {"gain %": gain.estimate, "low %": gain.low, "high %": gain.high}
                    | {"peak_mb": float((peak[arm] - peak[BASELINE]).mean())}
                    | {"left_mb": float((left[arm] - left[BASELINE]).mean()), "blocks": x.size, "rule": rule}
                )
    return pd.DataFrame(records)


def judge(table: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge the defaults by the published rule.

    Returns
    -------
    tuple
        GO where no other setting surely gains 5 %, NO-GO where one does, INCONCLUSIVE where intervals are too wide.
    """
    worth, open_ = table[table["rule"] == "worth it"], table[table["rule"] == "undecided"]
    word: Word = "NO-GO" if len(worth) else "INCONCLUSIVE" if len(open_) else "GO"
    best = table.loc[[int(np.argmax(table["gain %"]))]].to_dict("records")[0]
    memory = f"{best['peak_mb']:+.1f} MB of peak and {best['left_mb']:+.1f} MB left at the end"
    gain = f"{best['gain %']:+.1f} % on {best['workload']} for {memory}"
    return word, [
        f"Of {len(table)} comparisons {len(worth)} gain over {RULE:g} %, {len(open_)} are open: "
        f"most gains {best['gate']}={best['value']} ({gain}).",
        *(f"{w['gate']}={w['value']} is worth it on {w['workload']}." for w in worth.to_dict("records")),
        f"The rule: a leaner default stays where the fatter setting gains less than {RULE:g} % of throughput.",
    ]


def battle(rows: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Measure the battle test in the published categories (MiB).

    Data are counted by the driver, the program by itself before it allocates; the rest of the peak is what the
    allocator adds.
    """
    good = stats.usable(rows)
    speed_first = good[good["role"] == "baseline"]
    mimalloc = good[good["allocator"] == "mimalloc"]
    data = [extra["live_kb"] / 1024 for extra in speed_first["extra"]]
    return {
        ("peak_rss", "hakmem"): _median(speed_first["peak_rss_mb"]),
        ("peak_rss", "mimalloc"): _median(mimalloc["peak_rss_mb"]),
        ("expected_data", "1M x 16 B"): _median(data),
        ("overhead_of_30.6_peak", "program baseline"): _median(speed_first["start_rss_kb"] / 1024),
    }


def _median(values: pd.Series | list[float]) -> float | None:
    found = float(np.median(np.asarray(values, dtype=float))) if len(values) else math.nan
    return found if math.isfinite(found) else None
