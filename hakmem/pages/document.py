"""A page as a whole: its title, what an executed notebook says in one line, and the one file that asks for nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hakmem.pages.page import CARD, chip

if TYPE_CHECKING:
    from nbformat import NotebookNode  # takes a second, which `hakmem trace` need not wait

__all__ = ["FAILED", "SIZE_LIMIT", "TEMPLATES", "glance", "page", "said", "title"]

FAILED = "FAILED"  # stands where a verdict would, for a notebook that did not get there
SIZE_LIMIT = 5_000_000  # bytes of a page
TEMPLATES = Path(__file__).parents[1] / "templates"


def said(notebook: NotebookNode) -> Mapping[str, str]:
    """Return what an executed notebook says for its card: `word` and `headline`, empty where it judges nothing."""
    bundles = (output["data"] for output in _outputs(notebook) if "data" in output)
    return next((bundle[CARD] for bundle in bundles if CARD in bundle), {"word": "", "headline": ""})


def glance(notebook: NotebookNode) -> str:
    """Say the verdict, or what failed, in one line for the head of a page, with a link to where it is explained."""
    found, target = said(notebook), "verdict"
    for error in (output for output in _outputs(notebook) if output["output_type"] == "error"):
        found, target = {"word": FAILED, "headline": f"{error['ename']}: {error['evalue']}"}, "failed"
    if not found["word"]:
        return ""
    return f'<p class="glance"><a href="#{target}">{chip(found["word"])}</a> {html.escape(found["headline"])}</p>'


def title(notebook: NotebookNode) -> str:
    """Return the first heading of a notebook, empty where it has none."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def page(title: str, body: str) -> str:
    """Put finished HTML into a page of its own: one file that asks for nothing."""
    shell, style = ((TEMPLATES / "page" / name).read_text(encoding="utf-8") for name in ("document.html", "style.css"))
    return shell.format(title=html.escape(title), style=style, body=body)


def _outputs(notebook: NotebookNode) -> Iterable[NotebookNode]:
    return (output for cell in notebook.cells for output in cell.get("outputs", []))
