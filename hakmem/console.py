"""Output for people and programs that every command shares: lines, tables, hints, JSON."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hakmem.errors import BadParameter

PIPED_WIDTH = 160
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Profile = Annotated[str, typer.Option(help="Size of the trials: smoke, quick or full.")]

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(highlight=False, stderr=True)


def say(text: str) -> None:
    """Print a line as it is."""
    out.print(text, markup=False, soft_wrap=True)


def complain(text: str, style: str = "") -> None:
    """Print a line on standard error."""
    err.print(text, style=style, markup=False, soft_wrap=True)


def next_step(command: str) -> None:
    """Suggest what to do next."""
    out.print(f"next: {command}", style="dim", markup=False, soft_wrap=True)


def commands(lines: Iterable[str]) -> None:
    """Print shell commands."""
    out.print("\n".join(f"$ {line}" for line in lines), style="dim", markup=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Iterable[object]], title: str | None = None) -> None:
    """Print a table."""
    out.print(drawn(columns, rows, title))


def drawn(columns: Sequence[str], rows: Iterable[Iterable[object]], title: str | None = None) -> Table:
    """Return a table without frames; the first column is never broken."""
    made = Table(
        title=title and escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def number(value: float | None) -> str:
    """Write a figure with three digits; nothing for what was not measured."""
    return "" if value is None or math.isnan(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def rate(value: float) -> str:
    """Write operations a second with three digits: ``115 M``, ``4.3 k``."""
    if math.isnan(value):
        return ""
    scale, unit = next(((scale, unit) for scale, unit in ((1e6, " M"), (1e3, " k")) if value >= scale), (1, ""))
    return f"{value / scale:.3g}{unit}" if value < 999.5e6 else f"{value / scale:.0f}{unit}"


def emit(data: object, as_json: bool, *tables: Any) -> None:
    """Print JSON, or call what prints the tables."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=1, default=str, allow_nan=False) + "\n")
        return
    for table in tables:
        table()


def pair(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadParameter(f"{text!r} is no NAME=VALUE")
    return name.strip(), value.strip()
