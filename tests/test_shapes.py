"""Traces side by side: which are taken, how they are named, what is said of a difference."""

import numpy as np
import pandas as pd
import pytest
from ledgers import trial

from hakmem import stats
from hakmem.errors import BadParameter
from hakmem.store import frame
from hakmem.studies import shapes
from hakmem.studies.shapes import FAST, ShapesSpec


def test_short_traces_are_repeated_by_profile() -> None:
    spec = ShapesSpec.checked({"profile": "smoke"})
    assert spec.replayed()[-1] == "trace:data/traces/gcc.trace.zst,repeat=2"
    given = {"workloads": "gen:zipf trace:data/traces/lua.trace.zst trace:data/traces/gcc.trace.zst,repeat=3"}
    found = ShapesSpec.checked(given | {"repeat": 7}).replayed()
    lua, gcc = "trace:data/traces/lua.trace.zst,repeat=7", "trace:data/traces/gcc.trace.zst,repeat=3"
    assert found == ["gen:zipf", lua, gcc]


def test_by_default_all_generators_and_all_recorded_traces_are_compared() -> None:
    spec = ShapesSpec.checked({})
    assert sum(text.startswith("gen:") for text in spec.workloads) == 12
    recorded = [text for text in spec.workloads if text.startswith("trace:data/traces/")]
    assert {"git", "sqlite3", "node", "redis"} <= {text.split("/")[-1].split(".")[0] for text in recorded}
    campaign = spec.campaign()
    assert campaign.allocators[0] == spec.rebase().named() and FAST in campaign.allocators


def test_what_replays_no_trace_is_refused() -> None:
    with pytest.raises(BadParameter, match="'mixed:ws=400' replays no trace: trace, fleet, gen do"):
        ShapesSpec.checked({"workloads": ["mixed:ws=400"]})


@pytest.fixture(scope="module")
def zipf() -> shapes.Portrait:
    return shapes.portraits(["gen:zipf,events=20k,live=500"], "smoke")[0]


def measured(zipf: shapes.Portrait, ns: dict[str, float], kernel: dict[str, float]) -> pd.DataFrame:
    """Rows of ten blocks: the time of an operation of each arm, and what of it is the kernel's."""
    noise = np.random.default_rng(1).normal(1, 0.005, 10)
    return frame(
        [
            trial(arm, role, zipf.workload, block, 1000 / (ns[arm] * factor), 10, ops=1000,
                  sys_s=kernel[arm] * 1e-6, minflt=40 if kernel[arm] > 5 else 2)
            for block, factor in enumerate(noise)
            for arm, role in (("mimalloc", "baseline"), (FAST, "arm"))
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ns", "kernel", "said"),
    [
        ((10, 12), (1, 1), "mimalloc takes 2.0 ns more an operation, in its own code"),
        ((12, 10), (1, 1), "hakmem takes 2.0 ns more an operation, in its own code"),
        ((10, 20), (1, 9), "mimalloc takes 10.0 ns more an operation, most of it in the kernel: 40 page faults"),
        ((10, 10), (1, 9), "no difference is shown"),
    ],
)  # fmt: skip
def test_the_reason_is_where_the_time_goes(
    zipf: shapes.Portrait, ns: tuple[float, float], kernel: tuple[float, float], said: str
) -> None:
    by_arm = [dict(zip((FAST, "mimalloc"), pair, strict=True)) for pair in (ns, kernel)]
    rows = measured(zipf, *by_arm)
    assert len(stats.wide(rows, "ops_per_s")) == 10
    [found] = shapes.reasons(rows, [zipf], "mimalloc").to_dict("records")
    assert found["trace"] == "zipf live=500" and found["why"].startswith(said)
    fastest = min(by_arm[0], key=lambda arm: by_arm[0][arm])
    assert found["fastest"] == shapes.CALLED.get(fastest, fastest) or ns[0] == ns[1]


def test_the_charts_say_what_they_show(zipf: shapes.Portrait) -> None:
    drawn = shapes.looks([zipf])
    assert len(drawn.panels) == 4 and list(drawn.table["trace"]) == ["zipf live=500"]
    assert all("zipf" in panel.alt and "<svg" in panel.light for panel in drawn.panels)
    fast = shapes.speed(measured(zipf, {FAST: 10, "mimalloc": 20}, {FAST: 1, "mimalloc": 1}), "mimalloc")
    assert "on 1 of 1 traces" in fast.panels[0].alt and "zipf live=500 200 %" in fast.panels[0].alt
