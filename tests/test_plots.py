"""Charts: what they say in words, that they survive thin data, and one visual language."""

import base64
import re
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from ledgers import ARMS, LEAN, WORKLOADS, rows, study, trial
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from hakmem import figure, plots, verdict
from hakmem.figure import FAMILIES, THEMES, Figure, Theme
from hakmem.store import Trial
from hakmem.traces.events import Shape

CHARTS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "frontier": plots.frontier,
    "forest": plots.forest,
    "run_order": plots.run_order,
    "phases": plots.phases,
    "syscalls": plots.syscalls,
}
TWO = ("mixed:ws=400", "ramp")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return rows([t for t in study(blocks=6) if t.workload in TWO])


@pytest.fixture(scope="module")
def charts(table: pd.DataFrame) -> dict[str, Figure]:
    return {name: draw(table) for name, draw in CHARTS.items()}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", list(CHARTS))
def test_every_chart_has_a_panel_a_workload_with_words_and_a_table(name: str, charts: dict[str, Figure]) -> None:
    chart = charts[name]
    assert [p.alt.split(":")[0].split(" ")[0] for p in chart.panels] == ["mixed", "ramp"]
    for panel in chart.panels:
        assert len(panel.alt) > 40 and panel.light.startswith("<svg") and panel.dark.startswith("<svg")
        assert THEMES[0].paper in panel.light and THEMES[1].paper in panel.dark
    assert set(chart.table["workload"]) == set(TWO) and chart.title and chart.note


@pytest.mark.parametrize("name", list(CHARTS))
def test_a_chart_is_emitted_as_figure_with_alt_caption_and_table(name: str, charts: dict[str, Figure]) -> None:
    text = charts[name].html()
    assert text.count("<img alt=") == 2 and 'alt=""' not in text
    assert text.count("<figcaption>") == 1 and "<details><summary>" in text and "<table" in text
    assert text.count("prefers-color-scheme: dark") == 2
    pictures = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    assert all(b"</svg>" in base64.b64decode(picture) for picture in pictures) and len(pictures) == 4
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", text)


def test_the_same_rows_give_the_same_picture(table: pd.DataFrame, charts: dict[str, Figure]) -> None:
    assert plots.frontier(table).panels == charts["frontier"].panels


def test_the_frontier_states_what_the_leanest_arm_takes(charts: dict[str, Figure]) -> None:
    chart = charts["frontier"]
    assert re.match(r"mixed:ws=400: DONTNEED 10 MB takes 33 to 8\.2\d MB at -\d\.\d % throughput", chart.panels[0].alt)
    assert "RSS left" not in chart.panels[0].alt and "log" in chart.note
    by_arm = chart.table[chart.table["workload"] == "mixed:ws=400"].set_index("arm")
    assert set(chart.table["dominated by"]) <= {"", *chart.table["arm"]}  # the names that the reader sees
    assert by_arm.loc["jemalloc", "dominated by"] == "mimalloc" and not by_arm.loc["jemalloc", "frontier"]
    assert (by_arm["MB low"] < by_arm["MB"]).all() and (by_arm["Mops/s high"] > by_arm["Mops/s"]).all()


def test_the_frontier_quotes_the_price(table: pd.DataFrame) -> None:
    chart = plots.frontier(table, verdict.prices(table))
    assert chart.title.startswith("What a megabyte costs: On ramp") and "% throughput" in chart.title


def test_the_forest_shows_every_arm_with_interval_and_band(table: pd.DataFrame) -> None:
    found = verdict.lean(table)
    chart = plots.forest(table, found)
    shown = chart.table[chart.table["workload"] == "ramp"].set_index("arm")
    assert len(shown) == len(ARMS) - 1 and (shown["neutral band %"] >= 1).all()
    (judged,) = [v for v in found if v.workload == "ramp" and v.arm == "hakmem LEAN DONTNEED 10 MB"]
    assert shown.loc["DONTNEED 10 MB", "low %"] == pytest.approx(judged.effect.low)
    assert "Neutral band" in chart.panels[0].alt and "slower" in chart.panels[0].alt


def test_run_order_marks_spoiled_and_failed_trials() -> None:
    trials = [t for t in study(blocks=6) if t.workload == "ramp"]
    trials[3] = trials[3].model_copy(update={"spoiled": ("stolen CPU time 12 %",)})
    trials[5] = trials[5].model_copy(update={"status": "timeout", "ops_per_s": None})
    chart = plots.run_order(rows(trials))
    assert f"{len(trials) - 2} good trials, 1 failed, 1 spoiled" in chart.panels[0].alt
    assert "stolen CPU time 12 %" in set(chart.table["spoiled"])


def test_a_trial_that_ran_once_is_held_against_nothing() -> None:
    twice = [t for t in study(blocks=2) if t.workload == "ramp"]
    alone = [trial("system", "peer", "ramp", 0, 5.0, 9.0), trial("system", "peer", "mixed:ws=400", 0, 5.0, 9.0)]
    drawn = plots.run_order(rows([t for t in twice if t.arm != "system"] + alone))
    shown = drawn.table.set_index("arm")["% of median"]
    assert set(drawn.table["workload"]) == {"ramp"} and pd.isna(shown["system"]) and shown.drop("system").notna().all()
    assert f"{len(shown) - 1} good trials" in drawn.panels[0].alt


def test_the_forest_names_a_single_arm() -> None:
    def said(speed: float) -> str:
        arms = [
            (*ARMS[0][:2], 1.0, 1.0, {}),
            (*ARMS[1][:2], 1.0, 1.0, {}),
            ("hakmem LEAN OFF", "arm", speed, 1.0, LEAN),
        ]
        return plots.forest(rows([t for t in study(blocks=8, arms=arms) if t.workload == "ramp"])).panels[0].alt

    assert said(0.8).startswith("ramp: OFF is slower than the baseline.")
    assert said(1.2).startswith("ramp: OFF is faster than the baseline.")
    assert said(1.0).startswith("ramp: OFF is not told apart from the baseline.")


def test_names_beside_lines_stand_apart_and_in_order() -> None:
    drawn: list[Axes] = []

    def draw(axes: Axes, _: Theme) -> str:
        axes.set(xlim=(0, 1), ylim=(0, 100))
        figure.write_ends(axes, [(1.0, y, f"line {y}", "#000000") for y in (50.0, 50.5, 51.0, 99.9, 100.0, 0.0)])
        drawn.append(axes)
        return "Lines."

    figure.panel(draw, 3, "Names")
    at = {note.get_text(): note.xy[1] for note in drawn[0].texts if isinstance(note, Annotation)}
    heights = [at[f"line {y}"] for y in (0.0, 50.0, 50.5, 51.0, 99.9, 100.0)]
    apart = np.diff(heights) * drawn[0].bbox.height
    assert (apart > 9).all() and min(heights) >= 0 and max(heights) <= 1
    assert heights[2] == pytest.approx(0.505, abs=0.02)  # the middle one of three stays where its line ends


def test_names_beside_points_cover_neither_each_other_nor_points() -> None:
    drawn: list[Axes] = []
    points = [(x, y, f"an arm {x} {y}", "#000000") for x in (1, 2, 99) for y in (1, 3, 50, 52, 99)]

    def draw(axes: Axes, theme: Theme) -> str:
        axes.set(xlim=(0, 100), ylim=(0, 100))
        figure.write_names(axes, points, theme)
        drawn.append(axes)
        return "Points."

    figure.panel(draw, 3.9, "Names")
    [axes] = drawn
    boxes = [Text.get_window_extent(note, figure.Sheet.of(axes).pen) for note in axes.texts]
    assert len(boxes) == len(points) and not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())
    spots = axes.transData.transform([point[:2] for point in points])
    assert not any(box.contains(*spot) for box in boxes for spot in spots)


@pytest.mark.parametrize(
    "title", ["Short", "A title that takes more than one line, since it says a lot about a little"]
)
@pytest.mark.parametrize("height", [1.5, 3.9])
@pytest.mark.parametrize("unit", [1e-4, 1, 31, 1e6])
def test_labels_have_just_the_room_they_need(unit: float, height: float, title: str) -> None:
    """Whatever ticks an axis gets once it has its size, no label leaves the sheet, and hardly any room is left over."""
    drawn: list[Axes] = []

    def draw(axes: Axes, _: Theme) -> str:
        axes.plot([0, 7.3 * unit, 100 * unit], [0.11 * unit, 0.9 * unit, 0.62 * unit])
        axes.set(xlabel="along", ylabel="in\ntwo lines")
        drawn.append(axes)
        return "A line."

    figure.panel(draw, height, title)
    [axes] = drawn
    sheet = figure.Sheet.of(axes)
    taken = axes.get_tightbbox(sheet.pen, for_layout_only=True)
    assert taken is not None
    assert [taken.x0, taken.y0] == pytest.approx([figure.PAD] * 2, abs=1.5)
    assert [taken.x1, taken.y1] == pytest.approx([sheet.figure.bbox.width - figure.PAD, sheet.top], abs=1.5)


def test_workloads_have_short_names() -> None:
    assert figure.spoken("trace:data/traces/gcc.trace.zst,repeat=10: so") == "trace:gcc: so"
    assert figure.spoken("mixed:ws=400,cycles=200000000") == "mixed:ws=400,cycles=200M"
    assert figure.spoken("trace:mine.trace, mixed:ws=400") == "trace:mine, mixed:ws=400"


def test_run_order_tells_a_trend() -> None:
    trials = [t for t in study(blocks=6, cv=0.002) if t.workload == "ramp"]
    tilted = [
        t.model_copy(update={"ops_per_s": t.ops_per_s * (1 + 0.002 * i)}) for i, t in enumerate(trials) if t.ops_per_s
    ]
    rises = "ramp: throughput rose by 10.0 % over the run (+9.6 to +10.5);"
    assert plots.run_order(rows(tilted)).panels[0].alt.startswith(rises)

    def said(blocks: int) -> str:
        return plots.run_order(rows([t for t in study(blocks=blocks, seed=5) if t.workload == "ramp"])).panels[0].alt

    assert said(6).startswith("ramp: no trend told apart from none (-") and "2 blocks cannot tell a trend" in said(2)


def test_a_trend_is_never_a_loss_of_more_than_all() -> None:
    """However steeply trials slow down, what is left is above nothing."""
    falling = [
        t.model_copy(update={"ops_per_s": t.ops_per_s * 0.5**t.block})
        for t in study(blocks=8, cv=0.002)
        if t.workload == "ramp" and t.ops_per_s
    ]
    assert "throughput fell by 99.2 % over the run (-99.2 to -99.2)" in plots.run_order(rows(falling)).panels[0].alt


def test_syscalls_say_how_far_from_the_budget(charts: dict[str, Figure]) -> None:
    assert "1,000 times under the budget" in charts["syscalls"].panels[0].alt
    quiet = plots.syscalls(rows([t for t in study(blocks=2, syscalls_per_op=0.0) if t.workload == "ramp"]))
    said = "No arm that counts its calls made any in the timed region of ramp."
    assert quiet.panels == () and said in quiet.note and said in quiet.html()
    assert set(quiet.table["calls/op"]) == {0.0}


@pytest.mark.parametrize("calls", [(0.0, 0.0, 5e-9), (0.0, 5e-9, 5e-9)])
def test_few_system_calls_in_some_trials_are_drawn(calls: tuple[float, ...]) -> None:
    """One call in 200 million operations lies far left of the budget; a bar reaches to it where the median is none."""
    told = [trial("hakmem", "baseline", "ramp", at, 5.0, 9.0, syscalls_per_op=one) for at, one in enumerate(calls)]
    panel = plots.syscalls(rows(told)).panels[0]
    assert "at most 5e-09 calls an op" in panel.alt


@pytest.mark.parametrize("name", list(CHARTS))
def test_charts_survive_one_block_and_an_arm_that_always_fails(name: str) -> None:
    trials = [t for t in study(blocks=1) if t.workload == "ramp"]
    dead = {"status": "failed", "ops_per_s": None, "peak_rss_kb": None, "end_rss_kb": None, "phases": ()}
    dead |= {"syscalls_per_op": None, "syscalls": None, "counters": None}
    trials[0] = trials[0].model_copy(update=dead)
    assert isinstance(CHARTS[name](rows(trials)).html(), str)


@pytest.mark.parametrize("name", list(CHARTS))
def test_charts_survive_rows_that_say_nothing(name: str) -> None:
    nothing = {"ops_per_s": None, "peak_rss_kb": None, "end_rss_kb": None, "phases": (), "syscalls_per_op": None}
    trials = [t.model_copy(update=nothing | {"status": "killed"}) for t in study(blocks=2) if t.workload == "ramp"]
    assert CHARTS[name](rows(trials)).panels == ()


def test_names_from_outside_are_escaped() -> None:
    evil = "<script>alert(1)</script>"
    arms = [(evil, "arm", 0.9, 0.5, LEAN) if arm[0] == "hakmem LEAN OFF" else arm for arm in ARMS]
    table = rows([t for t in study(blocks=2, arms=arms) if t.workload == "ramp"])
    for draw in CHARTS.values():
        assert "<script" not in draw(table).html()


def test_colours_stand_out_on_both_papers_and_markers_differ() -> None:
    for look in FAMILIES.values():
        assert contrast(look.light, THEMES[0].paper) >= 3 and contrast(look.dark, THEMES[1].paper) >= 3
    for theme in THEMES:
        assert contrast(theme.ink, theme.paper) >= 7 and contrast(theme.quiet, theme.paper) >= 4.5
    for one, other in combinations(FAMILIES.values(), 2):
        assert one.marker != other.marker and one.light != other.light and one.dark != other.dark


def test_an_arm_looks_the_same_wherever_it_is() -> None:
    assert figure.family("hakmem_minimal", {}) == figure.family("hakmem", {}) == "hakmem"
    assert figure.family("hakmem", LEAN) == "LEAN DONTNEED"
    assert figure.family("hakmem", {"HAKMEM_SS_MEM_LEAN": "1"}) == "LEAN FREE"  # the gate's default
    assert figure.family("hakmem", {"HAKMEM_WARM_POOL": "0"}) == "gates"
    assert figure.family("preload:/x.so", {}) == "other"
    assert set(FAMILIES) >= {"system", "mimalloc", "jemalloc", "tcmalloc", "tbbmalloc"}


def test_charts_of_a_thousand_trials_share_their_rows() -> None:
    trials: list[Trial] = [trial("hakmem", "baseline", "mixed", b, 100.0 + b % 7, 33.0) for b in range(500)]
    trials += [trial("system", "peer", "mixed", b, 90.0 + b % 5, 2.0) for b in range(500)]
    chart = plots.forest(rows(trials))
    assert chart.table["blocks"].tolist() == [500] and len(WORKLOADS) == 4


def test_arms_of_one_kind_are_told_apart() -> None:
    """The gate at two values, Lean with two targets: one colour family each, every arm with a mark of its own."""
    gates = {"OFF": {"HAKMEM_SS_PREWARM": "OFF"}, "TOUCH": {"HAKMEM_SS_PREWARM": "TOUCH"}}
    arms = [*ARMS[:2], *((f"hakmem SS_PREWARM={value}", "arm", 1.0, 1.0, gate) for value, gate in gates.items())]
    arms += [(f"hakmem LEAN DONTNEED {mb} MB", "arm", 1.0, 1.0, LEAN) for mb in (4, 10)]
    looks = plots.looks_of(rows([t for t in study(blocks=1, arms=arms) if t.workload == "ramp"]))
    assert [looks[f"hakmem LEAN DONTNEED {mb} MB"].nth for mb in (4, 10)] == [0, 1]
    for theme in THEMES:
        marks = {key: (look.colour(theme), look.mark(theme)["fillstyle"]) for key, look in looks.items()}
        assert marks.pop("A'") == marks["A"] and len(set(marks.values())) == len(marks)
        assert all(contrast(colour, theme.paper) >= 3 for colour, _ in marks.values())


def test_a_target_below_the_floor_is_said_instead_of_times_over_the_budget() -> None:
    def said(back: bool) -> str:
        base = [trial("hakmem", "baseline", "ramp", block, 5.0, 160.0, syscalls_per_op=0.0) for block in range(2)]
        told = {"gates": LEAN, "syscalls_per_op": 0.0056, "counters": {"target_unreachable": 84}}
        left = 16.8 if back else 160.0
        lean = [trial("hakmem LEAN", "arm", "ramp", block, 5.0, left, **told) for block in range(2)]
        return plots.syscalls(rows([one.model_copy(update={"ops": 1_000_000}) for one in base + lean])).panels[0].alt

    floor = "ramp: a target of 10 MB is below the floor of 16.8 MB; what exceeds the budget gives pages back."
    assert said(back=True).startswith(floor)
    assert said(back=False).startswith("ramp: apart from pages given back, LEAN is 56 times over the budget.")


@pytest.mark.parametrize("title", ["W" * 90, "mmmm " * 30, "ramp: i l i l " * 12, "Short"])
def test_a_title_is_as_wide_as_its_panel_at_most(title: str) -> None:
    drawn: list[figure.Sheet] = []

    def draw(axes: Axes, _: Theme) -> str:
        drawn.append(figure.Sheet.of(axes))
        return "Nothing."

    figure.panel(draw, 2.5, title.strip())
    [sheet] = drawn
    [text] = sheet.figure.texts
    box = text.get_window_extent(sheet.pen)
    assert box.x1 <= sheet.figure.bbox.width - figure.PAD + 0.5 and box.y1 <= sheet.figure.bbox.height
    assert text.get_text().replace("\n", "").replace(" ", "") == title.replace(" ", "")


def test_whiskers_end_in_an_arrow_where_they_are_cut_and_a_single_block_has_none() -> None:
    drawn: list[Axes] = []

    def draw(axes: Axes, _: Theme) -> str:
        low, high = [-1.0, -50.0, -np.inf], [1.0, 2.0, np.inf]
        figure.whiskers(axes, range(3), low, high, ["#111111", "#222222", "#333333"], (-10, 10))
        drawn.append(axes)
        return "Bars."

    figure.panel(draw, 2.5, "Bars")
    bars, *ends = drawn[0].collections
    segments = [path.vertices[:, 0].tolist() for path in bars.get_paths()]  # type: ignore[index]
    assert segments == [[-1.0, 1.0], [-10.0, 2.0]]
    assert sorted(tuple(map(float, at)) for end in ends for at in end.get_offsets()) == [  # type: ignore[union-attr]
        (-10.0, 1.0),
        (-1.0, 0.0),
        (1.0, 0.0),
        (2.0, 1.0),
    ]


def test_a_chart_without_pictures_is_a_sentence() -> None:
    text = Figure("A chart.", "Bars are intervals.", (), pd.DataFrame(), "Nothing was <measured>.").html()
    assert text == '<p class="chart"><strong>A chart.</strong> Nothing was &lt;measured&gt;.</p>'


def test_slow_operations_are_told_in_operations_a_second() -> None:
    slow = [trial("hakmem", "baseline", "big", block, 3.75e-5, 9.0) for block in range(2)]
    chart = plots.frontier(rows(slow))
    assert "37.5 ops/s" in chart.panels[0].alt and "Throughput (ops/s)" in chart.panels[0].light
    assert "<td>37.5</td>" in chart.html() and "ops/s low" in chart.html() and "Mops/s" not in chart.html()


@pytest.mark.parametrize(("size", "unit"), [(37, "B"), (37 * 2**10, "KiB"), (37 * 2**20, "MiB")])
def test_live_memory_is_told_in_a_unit_that_fits(size: int, unit: str) -> None:
    at, live, blocks = np.arange(1, 4), np.array([0, size, size]), np.array([0, 1, 1])
    none = np.zeros(2, dtype=np.int64)
    shape = Shape(np.array([0, 1]), none, none, none.reshape(1, 2), at, live, blocks, size, 1, 0, 0)
    chart = plots.live_curve(shape, "one block")
    assert chart.panels[0].alt.startswith(f"one block: at most 37 {unit} in 1 blocks are live at once")
    assert f"Live memory ({unit})" in chart.panels[0].light and f"live {unit}" in chart.table


def test_a_frontier_of_allocators_alone_says_who_is_beaten() -> None:
    found = rows([one for one in study(blocks=6) if one.workload == "ramp" and one.role != "arm"])
    said = plots.frontier(found).panels[0].alt
    assert said.startswith("ramp: jemalloc and tcmalloc are surely beaten. ")
    alone = plots.frontier(found[found["role"] == "baseline"]).panels[0].alt
    assert alone.startswith("ramp: no arm is surely beaten. ")


def test_figures_stay_with_their_units_in_titles() -> None:
    drawn: list[str] = []

    def draw(axes: Axes, _: Theme) -> str:
        drawn.extend(text.get_text() for text in figure.Sheet.of(axes).figure.texts)
        return "Nothing."

    for words in range(1, 16):
        figure.panel(draw, 2.5, "word " * words + "12.5 MB or 30 %")
    assert all("\nMB" not in text and "\n%" not in text for text in drawn)
