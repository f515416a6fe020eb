"""All reports on one shelf: every notebook executed, one card each, one page that links them.

A card is read from the executed notebook, never from memory: whatever can be opened can be shown, whenever it was made.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import papermill

from hakmem import paths
from hakmem.errors import HakmemError
from hakmem.pages import document, report
from hakmem.pages.document import FAILED
from hakmem.pages.page import chip

__all__ = ["Card", "card", "fill", "write"]

PICTURE = re.compile(r"<picture>.*?</picture>", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """What the index shows of one report.

    `word` is its verdict (or FAILED, or an empty string where the report judges nothing), `headline` its figure in
    words, `thumbnail` the first chart as HTML, `made` when it was executed, `page` the file to open ("" where none is).
    """

    notebook: str
    title: str
    word: str
    headline: str
    thumbnail: str
    made: str
    page: str

    @property
    def failed(self) -> bool:
        """Whether the notebook failed."""
        return self.word == FAILED

    def summary(self) -> dict[str, str]:
        """Return everything but the picture."""
        return {name: value for name, value in asdict(self).items() if name != "thumbnail"}


def fill(
    notebooks: Iterable[str], given: Mapping[str, object], tell: Callable[[str], None], folder: Path | None = None
) -> list[Card]:
    """Execute notebooks one after another; one that fails leaves its saved state and a card that says so.

    Parameters
    ----------
    notebooks : iterable of str
        Names in `notebooks/`, or files.
    given : mapping
        Parameters; each notebook gets those that it declares.
    tell : callable
        Told of each notebook before it starts.
    folder : Path, optional
        Where the pages go; `reports/` by default.

    Raises
    ------
    BadParameter
        There is no such notebook; nothing was run.
    """
    cards = []
    for source in [report.find(name) for name in notebooks]:
        output = (folder or paths.reports()) / report.output_of(source).name
        tell(f"{source.stem} ...")
        try:
            declared = papermill.inspect_notebook(str(source))
            report.render(source, {name: value for name, value in given.items() if name in declared}, output)
        except Exception as error:  # a dead kernel or a full disk too: the others still run
            cards.append(card(source, output, str(error) if isinstance(error, HakmemError) else repr(error)))
        else:
            cards.append(card(source, output))
    return cards


def card(source: Path, output: Path, failure: str | None = None) -> Card:
    """Read the card of a report from its executed notebook.

    Parameters
    ----------
    source : Path
        The notebook as committed: its title stands for what was not executed.
    output : Path
        The page; the executed notebook stands beside it.
    failure : str, optional
        Why it failed.
    """
    executed = output.with_suffix(".ipynb")
    notebook = nbformat.read(executed if executed.is_file() else source, as_version=4)  # type: ignore[no-untyped-call]
    said = document.said(notebook) if failure is None else {"word": FAILED, "headline": failure}
    outputs = (out for cell in notebook.cells for out in cell.get("outputs", []))
    pictures = (PICTURE.search(out.get("data", {}).get("text/html", "")) for out in outputs)
    ended = notebook.metadata.get("papermill", {}).get("end_time")
    return Card(
        notebook=source.stem,
        title=document.title(notebook) or source.stem,
        word=said["word"],
        headline=said["headline"],
        thumbnail=next((found[0] for found in pictures if found), ""),
        made=f"{datetime.fromisoformat(ended):%Y-%m-%d %H:%M} UTC" if ended else "",
        page=output.name if output.is_file() else "",
    )


def write(cards: Iterable[Card], output: Path | None = None) -> Path:
    """Write the page of all cards, `reports/index.html` by default."""
    output = output or paths.reports() / "index.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    shown = list(cards)
    body = f'<p>{_says(shown)}</p>\n<ul class="cards">\n{"".join(map(_card_html, shown))}</ul>'
    output.write_text(document.page("hakmem: all reports", body), encoding="utf-8")
    return output


def _says(cards: Sequence[Card]) -> str:
    words = Counter(card.word for card in cards if card.word)
    tally = ", ".join(f"{n} {word}" for word, n in words.most_common())
    studies = f"{len(cards)} {'study' if len(cards) == 1 else 'studies'}"
    return f"{studies}{tally and f': {tally}'}. Each page is one file, and begins with its verdict."


def _card_html(shown: Card) -> str:
    title = html.escape(shown.title)
    heading = f'<a href="{html.escape(shown.page)}">{title}</a>' if shown.page else title
    picture = shown.thumbnail and f'<div class="thumbnail">{shown.thumbnail}</div>'
    made = f"<small>{html.escape(' · '.join(filter(None, (shown.notebook, shown.made))))}</small>"
    return (
        f'<li class="card"><h2>{heading}</h2>{chip(shown.word) if shown.word else ""}'
        f"<p>{html.escape(shown.headline)}</p>{picture}{made}</li>\n"
    )
