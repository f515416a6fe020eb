import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hakmem import allocators, arms, soak, workload
from hakmem.build import Build
from hakmem.build import build as compile_native
from hakmem.cli import app

BRIEF = "soak:ws=100,seconds=0.5,epoch_seconds=0.02"


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def soaked(native: Build, folder: Path, arm: str = "hakmem") -> tuple[soak.Analysis, pd.DataFrame, Path]:
    name, settings = arms.parse(arm)
    chosen = arms.make(allocators.find(name, native), settings)
    csv = folder / "epochs.csv"
    outcome, epochs = soak.soak(native, chosen, workload.parse(BRIEF), csv, lambda epochs: None)
    return soak.analyse(chosen.label, epochs, outcome), epochs, csv


def test_a_soak_leaves_epochs_in_two_formats_and_an_analysis(native: Build, tmp_path: Path) -> None:
    found, epochs, csv = soaked(native, tmp_path)
    assert list(epochs.columns) == soak.COLUMNS
    pd.testing.assert_frame_equal(pd.read_parquet(csv.with_suffix(".parquet")), epochs)
    assert len(pd.read_csv(csv)) == len(epochs) == found.epochs >= soak.FEWEST
    assert found.status == "ok" and not found.stopped_early
    assert found.slowest_epoch <= found.p1 <= found.p10 <= found.p50  # type: ignore[operator]
    assert found.ops_per_s == pytest.approx(epochs["ops_per_s"].mean())
    assert found.stall_max_us == epochs["stall_max_us"].max() > 0
    assert found.syscalls_per_op is not None and found.within_syscall_budget is True
    assert soaked(native, tmp_path, "system")[0].syscalls_per_op is None  # who does not count has no zero


def epochs_of(rss_mb: "np.ndarray", rates: "np.ndarray | float" = 1e6) -> pd.DataFrame:
    table = pd.DataFrame({"epoch": range(len(rss_mb)), "t_s": 5.0 * np.arange(1, len(rss_mb) + 1), "ops_per_s": rates})
    return table.assign(ops=5e6, rss_mb=rss_mb, lazyfree_mb=0.0, peak_rss_mb=rss_mb, stall_max_us=10.0)[soak.COLUMNS]


@pytest.fixture(scope="module")
def ended(native: Build, tmp_path_factory: pytest.TempPathFactory) -> "soak.run.Outcome":
    arm = arms.make(allocators.find("system", native), {})
    csv = tmp_path_factory.mktemp("soak") / "e.csv"
    return soak.soak(native, arm, workload.parse(BRIEF), csv, lambda epochs: None)[0]


def test_drift_is_told_from_noise(ended: "soak.run.Outcome") -> None:
    noise = np.random.default_rng(3).normal(0, 0.01, 60)
    steady = soak.analyse("a", epochs_of(33 + noise), ended)
    assert steady.drifts is False
    leaking = soak.analyse("a", epochs_of(33 + noise + 0.05 * np.arange(60)), ended)
    assert leaking.drifts is True
    assert leaking.slope_kb_per_s == pytest.approx(1024 * 0.05 / 5, rel=0.02)
    assert leaking.slope_low < 1024 * 0.05 / 5 < leaking.slope_high  # type: ignore[operator]
    lazy = epochs_of(33 + 0.05 * np.arange(60)).assign(lazyfree_mb=0.05 * np.arange(60))
    assert soak.analyse("a", lazy, ended).drifts is False  # what the kernel may take at will is no leak


def test_tails_are_percentiles_of_epochs(ended: "soak.run.Outcome") -> None:
    found = soak.analyse("a", epochs_of(np.full(101, 2.0), np.arange(100, 201) * 1e6), ended)
    assert (found.p1, found.p10, found.p50, found.slowest_epoch) == (101e6, 110e6, 150e6, 100e6)
    few = soak.analyse("a", epochs_of(np.full(4, 2.0)), ended)
    assert (few.p1, few.cv_percent, few.drifts) == (None, None, None) and few.ops_per_s == 1e6


def interrupted(tmp_path: Path, *command: str) -> dict[str, object]:
    args = [sys.executable, "-m", "hakmem", "soak", "--minutes", "10", "--output", str(tmp_path), "--json"]
    process = subprocess.Popen(
        [*args, "--epoch-seconds", "0.02", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not enough(tmp_path) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (found,) = json.loads(out)
    return dict(found)


def enough(folder: Path) -> bool:
    return any(csv.read_text().count("\n") > soak.FEWEST + 2 for csv in folder.glob("*.csv"))


def test_ctrl_c_still_yields_the_analysis(tmp_path: Path) -> None:
    # Without the warm-up, which would take a tenth of the ten minutes.
    found = interrupted(tmp_path, "--arm", "hakmem:LEAN=1,DECOMMIT=OFF,BENCH_PREFAULT=0")
    assert found["stopped_early"] is True and found["status"] == "ok"
    assert found["epochs"] >= soak.FEWEST and found["p1"] and found["slope_kb_per_s"] is not None  # type: ignore[operator]
    assert len(pd.read_parquet(Path(str(found["csv"])).with_suffix(".parquet"))) == found["epochs"]


def test_a_program_is_soaked_by_its_memory(tmp_path: Path) -> None:
    code = "import time\nheld = []\nwhile True:\n    held.append(bytearray(1_000_000)); time.sleep(0.01)"
    args = ["soak", "--minutes", "0.05", "--output", str(tmp_path), "--json", "--arm", "system", "--", sys.executable]
    done = CliRunner().invoke(app, [*args, "-c", code], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["drifts"] is True and found["slope_kb_per_s"] > 1000
    assert found["ops_per_s"] is None and found["peak_rss_mb"] > 20 and os.path.exists(found["csv"])
