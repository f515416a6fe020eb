"""Soaks with known answers: steady, drifting, failed, too short; and the presets as the allocator runs them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ledgers import rows as as_frame
from ledgers import trial
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from hakmem import epochs
from hakmem.builds import arms, gates
from hakmem.builds.arms import DECOMMIT, LEAN
from hakmem.errors import BadParameter
from hakmem.studies import soaks
from hakmem.studies.soaks import BALANCED, NAMES, SAFE, SoakSpec

WORK = "soak:ws=400,seconds=60,epoch_seconds=1"
OFF = {LEAN: "1", DECOMMIT: "OFF"}
ARMS = {"baseline": ("hakmem", {}), "baseline2": ("hakmem", {}), "arm": ("hakmem LEAN OFF", OFF)}


def soaked(folder: Path, slope_mb: dict[str, float] | None = None, count: int = 60, **changes: Any) -> pd.DataFrame:
    """One block of three soaks, of `count` epochs; memory grows by so many MiB from the first epoch to the last."""
    made = []
    (folder / "s.series").mkdir(exist_ok=True)
    for order, (role, (arm, settings)) in enumerate(ARMS.items()):
        rng = np.random.default_rng(order)
        grows = (slope_mb or {}).get(role, 0.0)
        rates = 100e6 * (1 + 0.02 * rng.standard_normal(count))
        resident = 2 + grows * np.linspace(0, 1, count) + 0.004 * rng.standard_normal(count)
        told = pd.DataFrame({"epoch": range(count), "t_s": np.arange(1.0, count + 1), "ops": rates, "ops_per_s": rates})
        told = told.assign(
            rss_mb=resident, lazyfree_mb=0.0, live_mb=1.0, peak_rss_mb=resident.max(), stall_max_us=900.0 + order
        )
        told[epochs.COLUMNS].to_parquet(folder / "s.series" / f"{role}.parquet")
        where = {"order": order, "gates": settings, "series": f"s.series/{role}.parquet", "trial_key": role}
        made.append(trial(arm, role, WORK, 0, 100, 2, **where, **changes))
    return as_frame(made)


@pytest.mark.parametrize(
    ("slope_mb", "changes", "word", "said"),
    [
        ({}, {}, "GO", "The memory of SAFE and of BALANCED holds still over 1 minute."),
        ({"baseline": 0.02, "arm": 0.03}, {}, "GO", "BALANCED: none of 1 soak drifts"),  # within 64 KB: not told
        ({"arm": 1.0}, {}, "NO-GO", "BALANCED: 1 of 1 soak drifts (memory moved by +0.8"),
        ({"baseline": 1.0}, {}, "INCONCLUSIVE", "SAFE: 1 of 2 soaks drifts"),  # one process of two
        ({}, {"count": 3}, "INCONCLUSIVE", "BALANCED: too few epochs to tell a drift."),
        ({}, {"status": "killed"}, "NO-GO", "3 of 3 soaks did not end well."),
        ({}, {"syscalls_per_op": 2e-3}, "NO-GO", "System calls: 0.002 an operation at most, the budget is 0.0001."),
    ],
)
def test_stability_is_judged_by_the_published_rule(
    tmp_path: Path, slope_mb: dict[str, float], changes: dict[str, Any], word: str, said: str
) -> None:
    found, sentences = soaks.judge(soaks.table(soaked(tmp_path, slope_mb, **changes), tmp_path / "s.jsonl"))
    assert found == word and any(said in sentence for sentence in sentences), sentences


def test_the_table_says_what_the_epochs_say(tmp_path: Path) -> None:
    rows = soaked(tmp_path, {"arm": 1.0})
    table = soaks.table(rows, tmp_path / "s.jsonl").set_index("preset")
    assert list(table.index) == list(NAMES.values())
    told = pd.read_parquet(tmp_path / "s.series" / "arm.parquet")
    line = table.loc["BALANCED"]
    assert line["p1 Mops/s"] == pytest.approx(np.percentile(told["ops_per_s"], 1) / 1e6)
    assert line["p1 of p50 %"] == pytest.approx(100 * line["p1 Mops/s"] / line["p50 Mops/s"])
    assert line["longest stall ms"] == pytest.approx(0.902)
    assert line["slope KB/min"] == pytest.approx(1024 * 60 / 59, rel=0.02) and line["low"] < line["slope KB/min"]
    assert abs(line["first to last %"]) < 3
    today = soaks.published(table.reset_index())
    assert today["cv", "SAFE 60 min"] == pytest.approx(2, rel=0.4)
    assert today["rss_drift", "both 60 min"] == pytest.approx(100 * (line["last MB"] / line["first MB"] - 1))


def test_charts_state_their_finding(tmp_path: Path) -> None:
    rows, ledger = soaked(tmp_path, {"arm": 1.0}), tmp_path / "s.jsonl"
    speed, memory = soaks.speed(rows, ledger), soaks.memory(rows, ledger)
    assert memory.panels[0].alt.startswith("Memory over time: 1 of 3 soaks drift")
    assert "BALANCED +1" in memory.panels[0].alt and "KB a minute" in memory.panels[0].alt
    assert "SAFE (A) CV 1." in speed.panels[0].alt or "SAFE (A) CV 2" in speed.panels[0].alt
    assert "Throughput (Mops/s)" in speed.panels[0].light and "Time (s)" in memory.panels[0].dark


def test_a_soak_that_left_no_epochs_is_a_line(tmp_path: Path) -> None:
    rows = soaked(tmp_path, status="killed")
    table = soaks.table(rows.assign(series=None), tmp_path / "s.jsonl")
    assert (table["epochs"] == 0).all() and table["Mops/s"].isna().all()
    assert soaks.judge(table)[0] == "NO-GO"
    assert soaks.speed(rows.assign(series=None), tmp_path / "s.jsonl").panels


def test_the_arms_are_the_presets() -> None:
    settled = [gates.effective(one) | {"HAKMEM_PROFILE": ""} for one in ({}, {**OFF})]
    named = [gates.effective({"HAKMEM_PROFILE": name}) | {"HAKMEM_PROFILE": ""} for name in (SAFE, BALANCED)]
    assert settled == named
    campaign = SoakSpec.checked({"minutes": 2}).campaign()
    swept = {LEAN: [str(x) for x in campaign.lean], DECOMMIT: list(campaign.decommit)}
    assert arms.product(swept)[0] == [{}, OFF]
    assert dict(soaks.presets().set_index("gate")["BALANCED"]) == OFF


def test_sizes_go_by_profile_and_wrong_ones_are_refused() -> None:
    smoke, full = SoakSpec.checked({"profile": "smoke"}), SoakSpec.checked({"profile": "full", "minutes": 60})
    assert smoke.campaign().workloads == ("soak:ws=400,seconds=20.0,epoch_seconds=0.333333",)
    assert full.campaign().workloads == ("soak:ws=400,seconds=3600.0,epoch_seconds=5.0",)
    assert full.budget_minutes >= 3 * 66
    with pytest.raises(BadParameter, match="minutes=0"):
        SoakSpec.checked({"minutes": 0})
    with pytest.raises(BadParameter, match="minutes='long'"):
        SoakSpec.checked({"minutes": "long"})
    with pytest.raises(BadParameter, match="unknown parameter 'minute' .did you mean minutes"):
        SoakSpec.checked({"minute": 5})


CELL = """
import os
import pandas as pd
from hakmem import epochs
from hakmem.builds import allocators, arms
from hakmem.builds.build import build
from hakmem.studies import soaks
if {page}:
    os.environ["HAKMEM_PROGRESS"] = os.devnull
arm = arms.make(allocators.find("hakmem", build()), {{}})
told = pd.DataFrame({{name: [5.0, 6, 7] for name in epochs.COLUMNS}}).assign(t_s=[1.0, 2, 3])
live = soaks.Live(every_s=0)
for count in (1, 2, 3):
    live(arm, told.head(count))
"""


def test_a_running_soak_is_one_chart_that_is_drawn_anew(tmp_path: Path) -> None:
    """In a kernel: the place of the first chart shows the last; a notebook made into a page shows none."""
    cells = [new_code_cell(CELL.format(page=page)) for page in (False, True)]
    done = NotebookClient(
        new_notebook(cells=cells), timeout=100, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    (shown,) = done.cells[0].outputs
    assert "3 s of this soak are over" in shown.data["text/html"] and "over 3 epochs" in shown.data["text/html"]
    assert done.cells[1].outputs == []
