"""The explorer: what it offers, what it draws, how it redraws, and what an exported page keeps of it."""

import pandas as pd
import pytest
from ledgers import rows, study

from hakmem.errors import BadParameter
from hakmem.studies.explorer import METRICS, Explorer, chart

THROUGHPUT, PEAK = METRICS[:2]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return rows(study(blocks=4))


def test_a_chart_orders_arms_and_says_which_is_best(table: pd.DataFrame) -> None:
    found = chart(table, "ramp", ["hakmem (A)", "DONTNEED 10 MB", "system"], PEAK)
    assert list(found.table["arm"]) == ["system", "DONTNEED 10 MB", "hakmem (A)"]  # a sixteenth, a quarter, the whole
    assert found.table["MiB"].tolist() == pytest.approx([165 * 0.06, 165 * 0.25, 165], rel=0.01)
    assert (found.table["95 % low"] < found.table["MiB"]).all() and (
        found.table["MiB"] < found.table["95 % high"]
    ).all()
    assert "ramp: system has the least peak RSS, 9.89 MiB, hakmem (A) 165" in found.panels[0].alt
    fastest = chart(table, "ramp", ["hakmem (A)", "system"], THROUGHPUT)
    assert fastest.table["arm"].iloc[0] == "hakmem (A)" and "most throughput" in fastest.panels[0].alt


def test_arms_that_noise_may_have_ordered_are_not_told_apart() -> None:
    noisy = rows(study(blocks=3, cv=0.3))
    said = chart(noisy, "ramp", ["hakmem (A)", "mimalloc", "jemalloc"], THROUGHPUT).panels[0].alt
    assert "are not told apart in throughput" in said and "has the most" not in said
    single = rows(study(blocks=1))
    assert "are not told apart" in chart(single, "ramp", ["hakmem (A)", "system"], PEAK).panels[0].alt


def test_the_second_baseline_is_never_the_better_arm(table: pd.DataFrame) -> None:
    faster = table.assign(mops=table["mops"].where(table["role"] != "baseline2", 2 * table["mops"]))
    found = chart(faster, "ramp", ["hakmem (A)", "hakmem (A')", "system"], THROUGHPUT)
    assert found.table["arm"].iloc[0] == "hakmem (A')" and "hakmem (A) has the most throughput" in found.panels[0].alt


def test_no_arm_is_a_sentence_and_no_workload_an_error(table: pd.DataFrame) -> None:
    assert "ramp has no peak RSS of these arms" in chart(table, "ramp", [], PEAK).html()
    with pytest.raises(
        BadParameter, match=r"no workload 'rampe' in these rows \(did you mean ramp\?\); they hold mixed"
    ):
        chart(table, "rampe", ["system"], PEAK)
    with pytest.raises(BadParameter, match="given no rows"):
        Explorer(table.iloc[:0])


def test_one_block_and_zeros_are_drawn_without_a_made_up_interval() -> None:
    single = rows(study(blocks=1, syscalls_per_op=0.0))
    found = chart(single, "ramp", ["hakmem (A)", "system"], next(m for m in METRICS if m.column == "syscalls_per_op"))
    assert found.table["calls an op"].tolist() == [0.0, 0.0] and found.table["blocks"].tolist() == [1, 1]
    assert "system calls 0 calls an op" in found.panels[0].alt


def test_only_metrics_that_were_measured_are_offered(table: pd.DataFrame) -> None:
    offered = [metric.column for _, metric in Explorer(table.assign(minflt=None)).metric.options]
    assert "mops" in offered and "minflt" not in offered


def test_moving_a_control_redraws_the_chart(table: pd.DataFrame) -> None:
    shown = Explorer(table)
    before = shown._chart.value
    assert "mixed:ws=400" in shown.figure.title and len(shown.figure.table) == 10
    shown.workload.value = "phases"
    assert "Throughput on phases" in shown.figure.title and shown._chart.value != before
    shown.metric.value = PEAK
    shown.arms[0].value = False
    assert "Peak RSS on phases" in shown._chart.value and len(shown.figure.table) == 9
    names = [box.description for box in shown.arms if box.value]
    assert shown._chart.value == chart(table, "phases", names, PEAK).html()


def test_a_page_keeps_the_chart_of_the_moment(table: pd.DataFrame) -> None:
    shown = Explorer(table)
    shown.workload.value = "ramp"
    bundle = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert shown.figure.html() in bundle["text/html"] and "make lab" in bundle["text/html"]
