"""The command that shows where a process's memory is."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from hakmem import console, live, residency
from hakmem.errors import BadParameter
from hakmem.figure import Figure
from hakmem.pages import document
from hakmem.residency import Residency
from hakmem.studies import atlas

app = typer.Typer()
EACH_S = 0.05  # between samples
SUFFIXES = (".html", ".svg")


@app.command("residency")
def show_residency(
    target: Annotated[str, typer.Argument(metavar="PID|FILE", help="A process, its live page, or its statistics.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Draw it: FILE.html or FILE.svg.")] = None,
    seconds: Annotated[float, typer.Option(min=0, max=86_400, help="Watch a process for so long.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="SuperSlabs drawn in the terminal.")] = atlas.ROWS,
    as_json: console.Json = False,
) -> None:
    """Show which SuperSlabs and slabs of a process are resident, by class and fill.

    A process shows itself while it runs over hakmem with HAKMEM_STATS_LIVE=/a/directory; HAKMEM_STATS_JSON=/a/file
    writes the same at its exit.
    """
    if output is not None and output.suffix not in SUFFIXES:
        raise BadParameter(f"{output} ends in none of {', '.join(SUFFIXES)}, which are what can be drawn")
    if seconds and not target.isdigit():
        raise BadParameter(f"--seconds watches a process; {target} is not the number of one")
    if seconds:
        _watch(int(target), seconds, output, as_json)
        return
    found = live.read(target)
    if output is not None:
        _draw([atlas.slabs(found)], output, f"Residency of process {found.pid}")
    console.emit(found.dump(), as_json, lambda: _tell(found, rows), lambda: _next(found, output))


def _tell(found: Residency, rows: int) -> None:
    words = {"running": "runs", "ended": "had ended", "left behind": "died and left this behind"}
    console.say(f"process {found.pid} {words[found.state]}; hakmem {found.version} ({found.build}); {found.source}")
    cells = [
        (
            place,
            int(line["slabs"]),
            *(f"{line[name]:.2f}" for name in ("resident_mb", "out_mb")),
            _mb(line["cached_mb"]),
            f"{100 * line['fill']:.0f}",
        )
        for place, line in found.places().iterrows()
    ]
    console.table(["place", "slabs", "resident MB", "out MB", "in caches MB", "fill %"], cells)
    console.table(
        ["metadata", "KB", "resident KB"],
        [
            (line["name"], f"{line['kb']:.0f}", console.number(line["resident_kb"]))
            for line in found.metadata.to_dict("records")
        ],
    )
    for line in atlas.lines(found, rows):
        console.say(line)


def _mb(value: float) -> str:
    return "" if value != value else f"{value:.2f}"


def _next(found: Residency, output: Path | None) -> None:
    if output is not None:
        console.say(str(output))
    elif found.state == "running":
        console.next_step(f"hakmem residency {found.pid} --seconds 10 -o residency.html")
    else:
        console.next_step(f"hakmem residency {found.source} -o residency.html")


def _watch(pid: int, seconds: float, output: Path | None, as_json: bool) -> None:
    """Sample a running process until the time is over or it ends."""
    page = live.find(pid)
    sampler = live.Sampler(page.path.parent)
    last, begin = page.residency(), time.monotonic()
    with tqdm(desc=f"process {pid}", total=seconds, unit=" s", disable=None, delay=1, file=sys.stderr) as bar:
        while (now := time.monotonic() - begin) < seconds and page.alive():
            sampler.tick(pid)
            bar.update(round(now, 1) - bar.n)
            time.sleep(EACH_S)
    samples = sampler.frame()
    if output is not None:
        _draw([atlas.over_time(samples, f"process {pid}"), atlas.slabs(last)], output, f"Residency of process {pid}")
    held = [place for place in residency.PLACES if len(samples) and samples[place].max() > 0]
    console.emit(
        samples[["t_s", *held]].to_dict("records"),
        as_json,
        lambda: console.table(
            ["place", "first MB", "peak MB", "last MB"],
            [(p, *(f"{x:.2f}" for x in (samples[p].iloc[0], samples[p].max(), samples[p].iloc[-1]))) for p in held],
        ),
        lambda: console.say(f"{len(samples)} samples" + (f"; {output}" if output else "")),
    )


def _draw(figures: list[Figure], output: Path, title: str) -> None:
    """Write charts: a page that needs no network, or the first chart's first panel alone."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".svg":
        output.write_text(figures[0].panels[0].light, encoding="utf-8")
        return
    body = "".join(figure.html() for figure in figures)
    output.write_text(document.page(title, body), encoding="utf-8")
