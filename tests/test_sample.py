import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from hakmem import run, sample
from hakmem.errors import LedgerError
from hakmem.sample import Sampler


def test_the_series_follows_a_child_that_grows(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.3); b = bytearray(b'x') * (64 << 20); time.sleep(0.3)"
    sampler = Sampler()
    done = run.execute([sys.executable, "-c", code], run.environment({}), timeout_s=120, tick=sampler.tick, tick_s=0.02)
    assert done.status == "ok"
    path = tmp_path / "runs" / "one.parquet"
    assert sampler.write(path)
    series = pd.read_parquet(path)
    assert list(series.columns) == ["t_s", "rss_kb"]
    assert series["t_s"].is_monotonic_increasing
    assert series["rss_kb"].max() - series["rss_kb"].iloc[0] > 60 << 10
    assert list(path.parent.iterdir()) == [path]


def test_a_child_that_is_gone_yields_no_sample(tmp_path: Path) -> None:
    sampler = Sampler()
    sampler.tick(2**22 + 1)
    assert sampler.rss_kb == []
    assert not sampler.write(tmp_path / "none.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_series_that_cannot_be_saved_is_an_error(tmp_path: Path) -> None:
    sampler = Sampler()
    sampler.tick(os.getpid())
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"one\.parquet"):
        sampler.write(tmp_path / "file" / "one.parquet")


def test_nothing_is_sampled_while_every_core_is_busy() -> None:
    cores = len(os.sched_getaffinity(0))
    assert not sample.use(cores)
    assert sample.use(cores - 1)
