"""Two colleagues measured the same study on two machines, one of which is twice as fast as the other."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import ARMS, START, study
from typer.testing import CliRunner

from hakmem import paths, stats, store
from hakmem.commands.cli_ledger import app
from hakmem.errors import BadParameter, LedgerError
from hakmem.store import Ledger

FEW = [arm for arm in ARMS if arm[0] in ("hakmem", "hakmem LEAN DONTNEED 10 MB", "system")]
SPEEDS = {"fast": 1.0, "slow": 0.5}
BLOCKS = 6


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of ledgers: one a machine, and what `merge` makes of them with a trial that stands in both."""
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    for seed, (host, speed) in enumerate(SPEEDS.items()):
        with Ledger(tmp_path / f"{host}.jsonl") as ledger:
            for trial in study(BLOCKS, seed=seed, arms=FEW, host=host):
                key = f"{host}-{trial.trial_key}"
                pace = {"ops_per_s": (trial.ops_per_s or 0) * speed, "trial_key": key}
                ledger.append(trial.model_copy(update=pace), durable=False)
    both = store.records(tmp_path / "fast.jsonl")
    with Ledger(tmp_path / "slow.jsonl") as ledger:
        ledger.append(next(one for one in both if isinstance(one, store.Trial)), durable=False)
    call("ledger", "merge", "fast", "slow", "--into", "all")
    yield tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_hosts_have_tables_of_their_own(runs: Path) -> None:
    shown = call("show", "all")
    titles = [line.strip() for line in shown.splitlines() if " on fast" in line or " on slow" in line]
    assert titles == [
        f"{work} on {host}" for work in store.load(runs / "fast.jsonl")["workload"].unique() for host in SPEEDS
    ]
    with pytest.raises(LedgerError, match="no trials of host other: its hosts are fast, slow"):
        call("show", "all", "--host", "other")
    alone = call("show", "all", "--host", "slow")
    assert " on slow" not in alone and " on fast" not in alone
    for work, cell in store.load(runs / "slow.jsonl", host="slow").groupby("workload"):
        pace = cell.loc[cell["arm"] == "system", "mops"].median()
        assert f"{pace:.3g} M" in alone and f"{pace:.3g} M" in shown, work  # never a median over both machines


def test_exports_hold_every_row_with_its_host(runs: Path) -> None:
    csv, parquet = runs / "rows.csv", runs / "rows.parquet"
    told = json.loads(call("show", "all", "--csv", str(csv), "--parquet", str(parquet), "--json"))
    rows = store.load(runs / "all.jsonl", pool_hosts=True)
    assert len(told) == len(rows) == 2 * BLOCKS * 4 * len(FEW)  # the trial that stood in both counts once
    for table in (pd.DataFrame(told), pd.read_csv(csv), pd.read_parquet(parquet)):
        assert list(table.columns) == list(rows.columns)
        assert dict(table["host"].value_counts()) == dict(rows["host"].value_counts())
        assert np.allclose(table["ops_per_s"].astype(float).sort_values(), rows["ops_per_s"].sort_values())
    assert json.loads(pd.read_parquet(parquet)["gates"].iloc[0]) == rows["gates"].iloc[0]
    assert json.loads(pd.read_csv(csv)["phases"].iloc[0])[0]["name"] == "warm"


def test_hosts_are_blocks_never_pooled(runs: Path) -> None:
    """One machine says nothing of the other's arms: ratios are the same whether hosts stand apart or together."""
    rows = store.load(runs / "all.jsonl", pool_hosts=True)
    cell = rows[rows["workload"] == "ramp"]
    assert cell["host"].nunique() == 2
    together = stats.hosts_as_blocks(cell)
    assert together["host"].unique().tolist() == ["fast + slow"]
    assert together["block"].nunique() == 2 * BLOCKS
    apart = [stats.log_ratios(stats.wide(mine, "ops_per_s"), "system") for _, mine in cell.groupby("host")]
    joined = stats.log_ratios(stats.wide(together, "ops_per_s"), "system")
    assert np.allclose(np.sort(joined), np.sort(np.concatenate(apart)))
    assert abs(joined.mean()) < 2 * abs(math.log(0.8))  # a ratio over two machines would be off by a factor of two
    single = cell[cell["host"] == "fast"]
    assert stats.hosts_as_blocks(single) is single


def test_a_file_that_cannot_be_written_is_an_error(runs: Path) -> None:
    with pytest.raises(LedgerError, match="cannot write the rows to"):
        call("show", "all", "--csv", str(runs / "none" / "rows.csv"))


def test_baselines_have_tables_of_their_own(runs: Path) -> None:
    """A ledger in which two sessions had baselines of their own: neither arms nor baselines are pooled."""
    with Ledger(runs / "two.jsonl") as ledger:
        for baseline, pace in (("mimalloc", 1.0), ("system", 0.25)):
            arms = [(baseline, "baseline", 1.0, 1.0, {}), ("hakmem", "arm", 2.0, 0.5, {})]
            for trial in study(BLOCKS, arms=arms, provenance=baseline):
                mine = {"ops_per_s": (trial.ops_per_s or 0) * pace, "trial_key": f"{baseline}-{trial.trial_key}"}
                ledger.append(trial.model_copy(update=mine), durable=False)
    shown = call("show", "two")
    assert [line for line in shown.splitlines() if line.startswith("against ")] == [
        "against mimalloc:",
        "against system:",
    ]
    parts = dict(store.by_cohort(store.load(runs / "two.jsonl")))
    assert list(parts) == ["mimalloc", "system"]
    for part in parts.values():
        ratios = stats.log_ratios(stats.wide(part[part["workload"] == "ramp"], "ops_per_s"), "hakmem")
        assert len(ratios) == BLOCKS and np.allclose(ratios, math.log(2), atol=0.1)
    assert "against" not in call("show", "fast")


def test_show_judges_by_the_target_of_the_sweep(runs: Path) -> None:
    """An arm that names no target is held against the study's, as the sweep that measured it did."""
    off = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF"}
    arms = [("hakmem", "baseline", 1.0, 1.0, {}), ("hakmem LEAN OFF", "arm", 1.0, 0.5, off)]
    asked = {"study": "t", "started": START, "seed": 1, "blocks": BLOCKS, "workloads": (), "cluster": False}
    words = []
    for target in (5, 20):  # MB; the baseline of mixed:ws=400 takes 33 and the arm 16.5
        with Ledger(runs / f"target{target}.jsonl") as ledger:
            ledger.append(store.Plan(**asked, arms=("hakmem", "hakmem LEAN OFF"), spec={"target_mb": [target]}))
            for trial in study(BLOCKS, arms=arms):
                ledger.append(trial, durable=False)
        words.append(next(line for line in call("show", f"target{target}").splitlines() if "LEAN OFF" in line))
    assert "NEUTRAL" in words[0] and "GO" in words[1]


def test_a_file_that_is_no_ledger_is_told_in_one_line(runs: Path, tmp_path: Path) -> None:
    (notes := tmp_path / "notes.md").write_text("# Notes")
    allowed = f"{notes} is no ledger: give the name of a study in {runs} or a file NAME.jsonl$"
    with pytest.raises(BadParameter, match=allowed):
        call("show", str(notes))
    with pytest.raises(BadParameter, match=allowed):
        call("ledger", "merge", "fast", "slow", "--into", str(notes))
