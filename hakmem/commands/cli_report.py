"""The commands that make pages."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hakmem import console, paths
from hakmem.errors import ReportFailed
from hakmem.pages import report, shelf
from hakmem.workload import profile as checked_profile

app = typer.Typer()


@app.command("report")
def make_report(
    notebook: Annotated[str, typer.Argument(help="Name of a notebook: 20_lean_sweep.")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help=r"key=value; a list as \[a, b].")] = None,
    profile: Annotated[str | None, typer.Option(help="The same as -p profile=...")] = None,
    output: Annotated[Path | None, typer.Option(help="The HTML file; reports/ by default.")] = None,
    as_json: console.Json = False,
) -> None:
    """Execute a notebook and write it as one HTML file that needs no network."""
    given = {name: _value(text) for name, text in map(console.pair, parameter or [])}
    given |= {"profile": profile} if profile else {}
    page = report.render(notebook, given, output or report.output_of(notebook))
    console.emit(
        {"report": str(page)},
        as_json,
        lambda: console.say(str(page)),
        lambda: console.next_step(f"open {page}"),
    )


@app.command("reports")
def make_reports(
    notebooks: Annotated[list[str] | None, typer.Argument(help="All of notebooks/ by default.")] = None,
    profile: console.Profile = "quick",
    as_json: console.Json = False,
) -> None:
    """Execute every notebook, one at a time, and write the index of all reports; one that fails stops no other."""
    names = notebooks or [path.stem for path in sorted(paths.notebooks().glob("*.ipynb"))]
    cards = shelf.fill(names, {"profile": checked_profile(profile)}, console.say)
    index = shelf.write(cards)
    console.emit(
        {"index": str(index), "cards": [card.summary() for card in cards]},
        as_json,
        lambda: console.table(["report", "verdict", "finding"], [(c.title, c.word, c.headline) for c in cards]),
        lambda: console.next_step(f"open {index}"),
    )
    if failed := [card.notebook for card in cards if card.failed]:
        raise ReportFailed(f"{len(failed)} of {len(cards)} notebooks failed: {', '.join(failed)}; {index} shows all")


def _value(text: str) -> object:
    """Read a parameter as JSON, ``[a, b]`` as a list of words, and all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text[1:-1].split(",")] if text[:1] + text[-1:] == "[]" else text
