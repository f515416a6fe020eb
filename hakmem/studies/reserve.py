"""What keeping empty memory at hand costs and brings: reserve, thread caches, SuperSlab size, partial release.

Every setting is compared with the default by itself, under Lean, where these gates matter. The published rule: a leaner
setting is accepted where the fatter one gains less than 5 % of throughput.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from pydantic import Field

from hakmem import reference, stats
from hakmem.figure import FAMILIES, Figure, Theme, panel, whiskers, write_figure
from hakmem.stats import BASELINE
from hakmem.study import STUDY, CampaignSpec, GateSpec, Parameters
from hakmem.verdict import Word

__all__ = ["HERE", "ReserveSpec", "battle", "breakdown", "breakdown_chart", "judge", "trade", "trade_chart"]

RULE = 5.0  # percent of throughput
RULES = {True: "keep the default", False: "worth it", None: "undecided"}  # a gain that is surely below it
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
        same = self.shared() | {"workloads": self.workloads}
        return {
            gate: GateSpec.checked({**same, "gate": gate, "values": values, "under": under}).campaign()
            for gate, values in GATES.items()
        }

    def beside_peers(self) -> CampaignSpec:
        """Return the battle test, with a census: hakmem speed-first and Lean, the system's allocator, the peers."""
        battle = f"{self.battle}{',' if ':' in self.battle else ':'}census=1"
        lean = {"decommit": self.decommit, "target_mb": self.target_mb}
        return CampaignSpec.checked({**self.shared(), **lean, "workloads": battle})


def trade(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare each setting with the default of its gate, paired within blocks.

    Parameters
    ----------
    found : mapping of gate to DataFrame
        Trials of each gate's sweep.

    Returns
    -------
    DataFrame
        Columns workload, gate, value, gain %, low %, high % (throughput; Holm's levels over all comparisons, 95 %
        together), peak_mb, left_mb (change in MiB of the peak and of what is left at the end), blocks, rule: ``keep the
        default`` (the whole interval is below +5 %), ``worth it`` (above), else ``undecided``.
    """
    records, gains = [], []
    for gate, rows in found.items():
        for workload, cell in rows.groupby("workload", sort=False):
            speed, peak, left = (stats.wide(cell, m) for m in ("ops_per_s", "peak_rss_mb", "end_rss_less_lazyfree_mb"))
            for line in cell[cell["role"] == "arm"].drop_duplicates("arm").to_dict("records"):
                arm, x = str(line["arm"]), stats.log_ratios(speed, str(line["arm"]))
                if not x.size:
                    continue
                gains.append(x)
                records.append(
                    {"workload": str(workload), "gate": gate, "value": line["gates"][f"HAKMEM_{gate}"]}
                    | {"peak_mb": float((peak[arm] - peak[BASELINE]).mean())}
                    | {"left_mb": float((left[arm] - left[BASELINE]).mean()), "blocks": x.size}
                )
    levels = stats.holm_levels([stats.p_beyond(x, math.log1p(RULE / 100)) for x in gains])
    for record, x, level in zip(records, gains, levels, strict=True):
        gain = stats.interval(x, level).percent()
        record |= {"gain %": gain.estimate, "low %": gain.low, "high %": gain.high, "rule": RULES[gain.below(RULE)]}
    columns = ["workload", "gate", "value", "gain %", "low %", "high %", "peak_mb", "left_mb", "blocks", "rule"]
    return pd.DataFrame(records, columns=columns)


def judge(table: pd.DataFrame) -> tuple[Word, list[str]]:
    """Judge the defaults by the published rule.

    Returns
    -------
    tuple
        GO where no other setting surely gains 5 %, NO-GO where one does, INCONCLUSIVE where intervals are too wide.
    """
    if table.empty:
        return "INCONCLUSIVE", ["No setting was measured beside its default."]
    worth, open_ = table[table["rule"] == "worth it"], table[table["rule"] == "undecided"]
    word: Word = "NO-GO" if len(worth) else "INCONCLUSIVE" if len(open_) else "GO"
    best = table.loc[[int(np.argmax(table["gain %"]))]].to_dict("records")[0]
    memory = f"{best['peak_mb'] + 0.0:+.2g} MB of peak and {best['left_mb'] + 0.0:+.2g} MB left at the end"
    gain = f"{best['gate']}={best['value']}, by {best['gain %']:+.1f} % on {best['workload']} for {memory}"
    return word, [
        f"{len(worth) or 'None'} of {len(table)} settings surely gain{'s' * (len(worth) < 2)} over {RULE:g} % of "
        f"throughput, {len(open_) or 'none'} may yet; most is gained with {gain}.",
        *(f"{w['gate']}={w['value']} is worth it on {w['workload']}." for w in worth.to_dict("records")),
        f"The rule: a leaner default stays where the fatter setting gains less than {RULE:g} % of throughput.",
    ]


# ---- the battle test -------------------------------------------------------------------------------------------------

DATA, REST = "data", "allocator as a whole"
CATEGORIES = ("reserved superslabs", "fragmentation", "program baseline", "slab metadata", "TLS", "other")
COLOURS = dict(
    zip(
        (DATA, *CATEGORIES, REST),
        ("hakmem", "LEAN DONTNEED", "LEAN FREE", "system", "gates", "mimalloc", "jemalloc", "tcmalloc"),
        strict=True,
    )
)
PUBLISHED, SPEED_FIRST = "published", "hakmem"
HERE = {"hakmem": "hakmem, all defaults", "1M x 16 B": "what the driver holds"}  # what stands for the published ones


def battle(rows: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """Measure the battle test in the published categories (MiB)."""
    good = stats.usable(rows)
    found = breakdown(rows).set_index("arm")
    of_hakmem = found.reindex([SPEED_FIRST])
    mine = {name: _median(of_hakmem[name]) for name in (DATA, *CATEGORIES)}
    return {
        ("peak_rss", "hakmem"): _median(good.loc[good["role"] == "baseline", "peak_rss_mb"]),
        ("peak_rss", "mimalloc"): _median(good.loc[good["allocator"] == "mimalloc", "peak_rss_mb"]),
        ("expected_data", "1M x 16 B"): mine[DATA],
        **{("overhead_of_30.6_peak", name): mine[name] for name in CATEGORIES},
    }


def breakdown(rows: pd.DataFrame) -> pd.DataFrame:
    """Divide the peak of the battle test into the published categories.

    Parameters
    ----------
    rows : DataFrame
        Trials of the battle test.

    Returns
    -------
    DataFrame
        One row an arm (MiB, medians over trials): arm, peak, low, high (95 %), data (counted by the driver), program
        baseline (read before anything is allocated), and what the allocator's own census says when all blocks are
        held: reserved superslabs (empty memory that is resident), fragmentation (pages of slabs and runs beyond their
        blocks), slab metadata, TLS (blocks in thread caches, and the caches). `other` is the rest. Where there is no
        census, the rest stands under one name.
    """
    good = stats.usable(rows)
    records = []
    for arm, mine in good[good["role"] != "baseline2"].groupby("arm", sort=False):
        lines = pd.DataFrame([_parts(line) for line in mine.to_dict("records")])
        peak = stats.t_interval(mine["peak_rss_mb"])
        records.append({"arm": str(arm), "peak": peak.estimate, "low": peak.low, "high": peak.high, **lines.median()})
    records.sort(key=lambda line: (not line["arm"].startswith(SPEED_FIRST), line["arm"] != SPEED_FIRST, line["peak"]))
    return pd.DataFrame(records, columns=["arm", "peak", "low", "high", *COLOURS])


def _parts(line: Mapping[Any, Any]) -> dict[str, float]:
    """Categories of one trial, MiB."""
    peak, census = line["peak_rss_kb"] * 1024.0, line["extra"].get("residency")
    told = {DATA: line["extra"]["live_kb"] * 1024.0, "program baseline": line["start_rss_kb"] * 1024.0}
    if census is None:
        told[REST] = peak - sum(told.values())
    else:
        of = {
            name: sum(one[name] for one in census["classes"])
            for name in ("bytes_resident", "bytes_live", "bytes_cached")
        }
        large, metadata = census["large"], {name: one["resident"] for name, one in census["metadata"].items()}
        heaps = metadata.pop("thread heaps", 0)
        told |= {
            "reserved superslabs": census["superslabs"]["kept_resident"]
            + census["free_slabs"]["resident"]
            + census["warm_pool"]["resident"],
            "fragmentation": of["bytes_resident"]
            - of["bytes_live"]
            - of["bytes_cached"]
            + large["resident"]
            - large["bytes"],
            "slab metadata": float(sum(metadata.values())),
            "TLS": of["bytes_cached"] + heaps,
        }
        told["other"] = peak - sum(told.values())
    return {name: value / 2**20 for name, value in told.items()}


def breakdown_chart(rows: pd.DataFrame) -> Figure:
    """Draw the peak of the battle test in the published categories, beside the published one and the peers."""
    found = breakdown(rows)
    published = {"arm": PUBLISHED, DATA: reference.figure("battle", "expected_data", "1M x 16 B")}
    published |= {name: reference.figure("battle", "overhead_of_30.6_peak", name) for name in CATEGORIES}
    shown = pd.concat([pd.DataFrame([published]), found], ignore_index=True)[["arm", "peak", "low", "high", *COLOURS]]
    peaks = found.set_index("arm")["peak"]
    title = "The peak of a million small blocks"
    if {SPEED_FIRST, "mimalloc"} <= set(peaks.index):
        gap = peaks[SPEED_FIRST] - peaks["mimalloc"]
        title = (
            f"hakmem's peak is {abs(gap):.1f} MB {'over' if gap > 0 else 'under'} mimalloc's; published was 7.8 over"
        )
    note = (
        "Data is what the program asked for; the program's own memory is read before it allocates. hakmem tells where "
        "the rest is; of the other allocators it stands in one piece. Medians of the parts, lines are 95 % intervals "
        "of the whole."
    )
    drawn = (panel(_breakdown_drawing(shown), 2.3 + 0.32 * len(shown), title),)
    return Figure("Where the peak goes.", note, drawn, shown)


def _breakdown_drawing(shown: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    lines = shown.to_dict("records")[::-1]

    def draw(axes: Axes, theme: Theme) -> str:
        used = [name for name in COLOURS if shown[name].notna().any()]
        for y, line in enumerate(lines):
            done = 0.0
            for name in used:
                width = float(np.nan_to_num(line[name]))
                axes.barh(y, max(0.0, width), left=done, height=0.62, color=FAMILIES[COLOURS[name]].on(theme))
                done += max(0.0, width)
            end = whole = done
            if np.isfinite(line["peak"]):
                reach = 0.9 * line["peak"], 1.1 * line["peak"]
                whiskers(axes, y, line["low"], line["high"], theme.ink, reach)
                end, whole = max(done, min(np.nan_to_num(line["high"]), reach[1])), line["peak"]
            write_figure(axes, end, y, f"{whole:.1f}")
        axes.set_yticks(range(len(lines)), [line["arm"] for line in lines])
        axes.set_xlim(0, 1.16 * max(shown["peak"].max(), 30.6))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Peak RSS (MiB)")
        handles = [Patch(color=FAMILIES[COLOURS[name]].on(theme), label=name) for name in used]
        style: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.5, 1.0), "frameon": False, "fontsize": 8}
        axes.legend(handles=handles, ncols=2, **style)
        words = []
        for line in reversed(lines):
            parts = ", ".join(f"{name} {line[name]:.2g}" for name in used if np.isfinite(line[name]))
            words.append(f"{line['arm']}: {parts} MB")
        return "; ".join(words) + "."

    return draw


# ---- gains against memory --------------------------------------------------------------------------------------------


def trade_chart(table: pd.DataFrame) -> Figure:
    """Draw what each setting gains in speed against its gate's default, with the line of the rule and the memory."""
    panels = []
    for workload, cell in table.groupby("workload", sort=False):
        worth = cell[cell["rule"] == "worth it"]
        names = ", ".join(f"{gate}={value}" for gate, value in zip(worth["gate"], worth["value"], strict=True))
        says = f"worth more than {RULE:g} %: {names}" if names else f"no setting surely gains {RULE:g} %"
        panels.append(panel(_trade_drawing(cell), 1.5 + 0.36 * len(cell), f"{workload}: {says}"))
    note = (
        "Throughput of each setting against the default of its gate, under Lean, paired within blocks, with intervals "
        "of 95 % for all together (Holm's; cut where blocks are few). Right of the line a setting gains more than the "
        "rule asks. Below each name stands what it takes: the change of the peak and of what is left at the end."
    )
    return Figure("What empty memory brings.", note, tuple(panels), table)


def _change(mb: float) -> str:
    return f"{mb:+.1f}" if abs(mb) >= 0.05 else "±0"


def _trade_drawing(cell: pd.DataFrame) -> Callable[[Axes, Theme], str]:
    lines = cell.to_dict("records")[::-1]
    room = max(25.0, 1.2 * float(cell["gain %"].abs().max()))

    def draw(axes: Axes, theme: Theme) -> str:
        axes.axvspan(-room, RULE, color=theme.band, zorder=0)
        axes.axvline(0, color=theme.quiet, lw=1)
        axes.axvline(RULE, color=theme.ink, lw=1.2, ls="--")
        for y, line in enumerate(lines):
            whiskers(axes, y, line["low %"], line["high %"], FAMILIES["gates"].on(theme), (-room, room))
            axes.plot(line["gain %"], y, **FAMILIES["gates"].mark(theme))
        names = [
            f"{line['gate'].removeprefix('SS_').removeprefix('TINY_')}={line['value']}\n"
            f"peak {_change(line['peak_mb'])}, left {_change(line['left_mb'])} MB"
            for line in lines
        ]
        axes.set_yticks(range(len(lines)), names, fontsize=8)
        axes.set_xlim(-room, room)
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Throughput against the gate's default (%)")
        words = (
            f"{line['gate']}={line['value']} {line['gain %']:+.1f} % for {line['peak_mb']:+.1f} MB" for line in lines
        )
        return "; ".join(words) + "."

    return draw


def _median(values: pd.Series | list[float]) -> float | None:
    found = float(np.median(np.asarray(values, dtype=float))) if len(values) else math.nan
    return found if math.isfinite(found) else None
