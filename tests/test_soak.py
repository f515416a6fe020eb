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

from hakmem import sample, soak, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.cli import app
from hakmem.errors import BadParameter, LedgerError, TrialFailed

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
    assert list(epochs.columns) == [*soak.COLUMNS, soak.SAMPLED]
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
    return table.assign(
        ops=5e6,
        rss_mb=rss_mb,
        lazyfree_mb=0.0,
        peak_rss_mb=rss_mb,
        stall_max_us=10.0,
        live_mb=rss_mb / 2,
        sampled_mb=rss_mb,
    )


@pytest.fixture(scope="module")
def ended(native: Build, tmp_path_factory: pytest.TempPathFactory) -> "soak.run.Outcome":
    arm = arms.make(allocators.find("system", native), {})
    csv = tmp_path_factory.mktemp("soak") / "e.csv"
    return soak.soak(native, arm, workload.parse(BRIEF), csv, lambda epochs: None)[0]


def test_live_bytes_and_the_view_from_outside_stand_beside_resident_memory(native: Build, tmp_path: Path) -> None:
    found, epochs, _ = soaked(native, tmp_path)
    assert ((epochs["live_mb"] > 0) & (epochs["live_mb"] < epochs["rss_mb"])).all()
    assert found.fragmentation_last is not None and 0 < found.fragmentation_last < 1
    if sample.use(1):
        seen = epochs[soak.SAMPLED].dropna()
        assert len(seen) >= soak.FEWEST and ((seen - epochs["rss_mb"].loc[seen.index]).abs() < 1).all()
        assert found.sampled_low is not None and found.sampled_low <= found.sampled_slope <= found.sampled_high  # type: ignore[operator]


@pytest.mark.parametrize("load", ["larson:threads=1,cycles=20000,blocks=50", "trace"])
def test_any_driver_and_any_trace_is_soaked_lap_after_lap(native: Build, tmp_path: Path, load: str) -> None:
    if load == "trace":
        made = CliRunner().invoke(app, ["trace", "make", "mixed", "cycles=20000", "-o", str(tmp_path / "t.trace")])
        assert made.exit_code == 0, made.output
        load = f"trace:{tmp_path}/t.trace"
    args = [
        "soak",
        "--minutes",
        "0.02",
        "--epoch-seconds",
        "0.05",
        "--workload",
        load,
        "--output",
        str(tmp_path),
        "--json",
    ]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)
    assert found["epochs"] >= soak.FEWEST and found["ops_per_s"] > 0 and found["slope_low"] <= found["slope_high"]
    assert found["syscalls_per_op"] is not None and found["stopped_early"] is False
    assert pd.read_parquet(Path(found["csv"]).with_suffix(".parquet"))["ops"].sum() > 0


def test_laps_are_of_drivers_only() -> None:
    for work in (workload.parse(BRIEF), workload.program(["true"], 1.0)):
        with pytest.raises(BadParameter, match="has no laps"):
            soak.lapped(work, 1, 0.1)


def test_a_short_soak_does_not_break_the_budget_of_system_calls(ended: "soak.run.Outcome") -> None:
    line = ended.line
    assert line is not None
    told = {"name": "hakmem", "version": "1", "build": "b", "gates": {}, "counters": {}, "timed": {"sys_mmap": 400}}
    own = soak.run.AllocatorLine.model_validate(told)

    def within(ops: int) -> bool | None:
        changed = line.model_copy(update={"ops": ops, "allocator": own})
        epochs = epochs_of(np.full(9, 2.0)).assign(ops=ops / 9)
        return soak.analyse("a", epochs, ended.model_copy(update={"line": changed})).within_syscall_budget

    assert (within(100_000), within(1_000_000), within(10_000_000)) == (None, False, True)


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


def test_an_arm_that_fails_costs_no_other_its_analysis(tmp_path: Path) -> None:
    """The second arm ends at once: what the first has shown is told all the same, and the failure too."""
    code = "import os, time\nif 'hakmem' in os.environ.get('LD_PRELOAD', ''): os._exit(3)\ntime.sleep(9)"
    args = ["soak", "--minutes", "0.02", "--output", str(tmp_path), "--json", "--arm", "system", "--arm", "hakmem"]
    done = CliRunner().invoke(app, [*args, "--", sys.executable, "-c", code])
    assert isinstance(done.exception, TrialFailed) and str(done.exception) == "hakmem: failed: exit status 3"
    well, bad = json.loads(done.stdout)
    assert (well["status"], well["drifts"]) == ("ok", False) and well["epochs"] >= soak.FEWEST
    assert (bad["status"], bad["drifts"]) == ("failed", None)


def test_a_full_disk_is_said_in_words(native: Build, tmp_path: Path) -> None:
    (tmp_path / "epochs.parquet").symlink_to("/dev/full")
    with pytest.raises(LedgerError, match=r"cannot write the epochs to .*epochs\.parquet: No space left on device"):
        soaked(native, tmp_path)
    assert len(pd.read_csv(tmp_path / "epochs.csv")) >= soak.FEWEST  # what the driver wrote stays
