"""The index of all reports: a card each, failures among them, all read from the executed notebooks."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from hakmem import cli
from hakmem.errors import BadParameter, ReportFailed
from hakmem.pages import shelf

SHOW = """from hakmem.pages import page
page.Html('<picture><img alt="A <b>chart" src="data:,"></picture>', {"word": "GO", "headline": "saves <3> MB"})"""


def notebook(path: Path, *cells: str, title: str = "A study") -> str:
    first = new_code_cell('profile = "quick"', metadata={"tags": ["parameters"]})
    made = new_notebook(cells=[new_markdown_cell(f"# {title}\n\nIn words."), first, *map(new_code_cell, cells)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return str(path)


def test_a_notebook_that_fails_has_a_card_and_the_others_still_run(tmp_path: Path) -> None:
    names = [
        notebook(tmp_path / "10_bad.ipynb", "print('so far')", "raise ValueError('<no> luck')", title="Bad"),
        notebook(tmp_path / "20_good.ipynb", "print(profile)", SHOW, title="Does <it> pay?"),
    ]
    told: list[str] = []
    bad, good = shelf.fill(names, {"profile": "smoke", "unheard": 1}, told.append, tmp_path / "out")
    assert told == ["10_bad ...", "20_good ..."]
    assert bad.failed and "failed in cell 4: ValueError: <no> luck" in bad.headline and bad.page == "bad.html"
    assert not good.failed and (good.word, good.headline) == ("GO", "saves <3> MB") and good.page == "good.html"
    assert "so far" in (tmp_path / "out/bad.ipynb").read_text() and "smoke" in (tmp_path / "out/good.html").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", good.made)

    text = shelf.write([bad, good], tmp_path / "out/index.html").read_text()
    assert "2 studies: 1 FAILED, 1 GO." in text
    assert text.count('<li class="card">') == 2 and 'href="good.html"' in text and 'href="bad.html"' in text
    assert "! FAILED" in text and "✔ GO" in text and "saves &lt;3&gt; MB" in text and "Does &lt;it&gt; pay?" in text
    assert text.count("<picture>") == 1 and "<no>" not in text and "default-src 'none'" in text


def test_a_report_that_judges_nothing_has_a_card_without_a_word(tmp_path: Path) -> None:
    (card,) = shelf.fill([notebook(tmp_path / "quiet.ipynb", "1 + 1")], {}, str, tmp_path)
    assert (card.word, card.headline, card.thumbnail) == ("", "", "") and not card.failed
    assert "chip" not in shelf._card_html(card)


def test_an_unknown_notebook_is_refused_before_any_runs(tmp_path: Path) -> None:
    first = notebook(tmp_path / "first.ipynb", "1 + 1")
    with pytest.raises(BadParameter, match="no notebook 'second'"):
        shelf.fill([first, "second"], {}, str, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_the_status_of_a_failed_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hakmem.paths.reports", lambda: tmp_path / "reports")
    bad = notebook(tmp_path / "10_bad.ipynb", "raise ValueError('no')")
    good = notebook(tmp_path / "20_good.ipynb", SHOW)
    done = CliRunner().invoke(cli.app, ["reports", bad, good, "--profile", "smoke"])
    assert isinstance(done.exception, ReportFailed) and done.exception.exit_code == 7
    assert "1 of 2 notebooks failed: 10_bad" in str(done.exception)
    assert (tmp_path / "reports/index.html").read_text().count('<li class="card">') == 2
    assert CliRunner().invoke(cli.app, ["reports", good, "--profile", "smoke"]).exit_code == 0
