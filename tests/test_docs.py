"""What the documents promise: links that lead somewhere, targets and commands that exist, a page for each notebook."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hakmem import cli, paths
from hakmem.pages import report

ROOT = paths.root()
FOLDERS = ("docs", "native", "data")
DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
MAKEFILES = "".join((ROOT / folder / "Makefile").read_text(encoding="utf-8") for folder in (".", "native"))
TARGETS = set(re.findall(r"^([a-z-]+):.*##", MAKEFILES, re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_targets_and_commands_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    code = re.findall(r"(?:`|^ {4})(make|hakmem) ([a-z][a-z-]*)(?=[\s`])", text, re.MULTILINE)
    for program, first in code:
        assert first in (TARGETS if program == "make" else cli.COMMANDS), f"{program} {first}"


@pytest.mark.parametrize("notebook", sorted(paths.notebooks().glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_notebook_has_a_page_in_plain_words(notebook: Path) -> None:
    listed = (ROOT / "docs/studies/README.md").read_text(encoding="utf-8")
    page = re.search(rf"\[{notebook.stem}\]\(([^)]+)\)", listed)
    assert page is not None and (ROOT / "docs/studies" / page[1]).is_file()


REPORTS = sorted(
    {
        command
        for path in DOCUMENTS
        for command in re.findall(r"(?:`|^ {4})(hakmem report \S.*?)(?:`|\s+#.*|$)", path.read_text(), re.MULTILINE)
    }
)
ABSENT = ("mine.trace", "HUGE_MIN_MB", "FOLDER/", "libbump")  # files and a gate that the reader makes


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_that_a_document_names_takes_its_parameters(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(notebook: str, given: Mapping[str, object], _: Path) -> Path:
        if not any(word in command for word in ABSENT) and notebook != "NOTEBOOK":
            report.check(report.find(notebook), given)
        return Path("page.html")

    monkeypatch.setattr(report, "render", check)
    done = CliRunner().invoke(cli.app, shlex.split(command.removesuffix(" ..."))[1:])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
