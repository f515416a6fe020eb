import io
import math

import pytest
from ledgers import rows as as_frame
from ledgers import study
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


def test_what_a_program_printed_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(console, "out", wide)
    console.table(["arm"], [["[red]not markup[/red]"]], title="a [b] title")
    console.say("[bold]nor this[/bold]")
    shown = wide.export_text()
    assert "[red]not markup[/red]" in shown and "[bold]nor this[/bold]" in shown and "a [b] title" in shown
