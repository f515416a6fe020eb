import io
import math

import pytest
from ledgers import rows as as_frame
from ledgers import study, trial
from rich.console import Console

from hakmem import console, verdict
from hakmem.commands import terminal


@pytest.mark.parametrize(
    ("ops", "text"),
    [(115.4e6, "115 M"), (4_300, "4.3 k"), (201, "201"), (1_234e6, "1234 M"), (0.5, "0.5"), (math.nan, "")],
)
def test_rates_have_units(ops: float, text: str) -> None:
    assert console.rate(ops) == text


@pytest.mark.parametrize(
    ("figure", "text"), [(None, ""), (math.nan, ""), (0, "0"), (1.2345, "1.23"), (163.4, "163"), (12345.6, "12346")]
)
def test_figures_have_three_digits(figure: float | None, text: str) -> None:
    assert console.number(figure) == text


@pytest.mark.parametrize("width", [80, 160])
def test_a_study_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = as_frame(study())
    wide = Console(width=width, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "out", wide)
    terminal.study(rows, verdict.lean(rows))
    shown = wide.export_text()
    assert max(map(len, shown.splitlines())) <= width
    assert "hakmem LEAN DONTNEED 10 MB " in shown and "hakmem (A')" in shown
    assert ("syscalls/op" in shown) == (width == 160)
    assert shown.index("hakmem (A)") < shown.index("hakmem LEAN") < shown.index("mimalloc")


def test_a_verdict_shows_all_that_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Console(width=400, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "out", wide)
    rows = as_frame(study())
    found = [one for one in verdict.lean(rows) if one.workload == "ramp" and one.memory is not None]
    terminal.study(rows[rows["workload"] == "ramp"], found)
    lines = wide.export_text().splitlines()
    for one in found:
        (line,) = [line for line in lines if line.startswith(f"{one.icon} {one.word} {one.arm}: ")]
        assert one.rule in line and one.because in line and one.effect.words() in line and one.bite_words in line
        assert f"noise floor {one.floor:.2g} %" in line and f"; {one.blocks} blocks" in line
        assert one.blocks_needed is None or f", {one.blocks_needed} more needed" in line
    assert len(found) > 2


@pytest.mark.parametrize("width", [80, 160])
def test_a_program_of_ones_own_has_a_time_and_no_rate(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [("system", "baseline", 4e-7), ("hakmem", "arm", 5e-7)]
    held = [trial(arm, role, "program:sort", block, mops, 33.0, ops=1) for arm, role, mops in arms for block in (0, 1)]
    held.append(trial("hakmem", "arm", "program:sort", 2, 5e-7, 33.0, ops=1, status="timeout", ops_per_s=None))
    wide = Console(width=width, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "out", wide)
    terminal.study(as_frame(held), [])
    shown = wide.export_text()
    assert " time " in shown and " speed to A (95 %) " in shown and "ops/s" not in shown
    assert "2.5 s" in shown and "2 s" in shown and "1.25 (1.25..1.25)" in shown
    terminal.study(as_frame(study(blocks=2)), [])
    assert "ops/s" in (shown := wide.export_text()) and " time " not in shown


def test_what_a_program_printed_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "out", wide)
    console.table(["arm"], [["[red]not markup[/red]"]], title="a [b] title")
    console.say("[bold]nor this[/bold]")
    shown = wide.export_text()
    assert "[red]not markup[/red]" in shown and "[bold]nor this[/bold]" in shown and "a [b] title" in shown
