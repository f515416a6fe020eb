"""Commands about traces: record a program, make, look at, draw and convert traces."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from hakmem import console, paths, units
from hakmem.builds import allocators, arms
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter
from hakmem.pages import document
from hakmem.progress import show
from hakmem.stats import Interval
from hakmem.studies import overhead, portrait
from hakmem.traces import events, fitted, generate, imports, recording, trace
from hakmem.traces.events import Told

app = typer.Typer()
traces = typer.Typer(no_args_is_help=True, help="Make, look at, draw and convert traces of allocations.")
app.add_typer(traces, name="trace")

File = Annotated[Path, typer.Argument(help="A trace, plain or compressed (.zst).")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="NAME.trace.zst here by default; ends in .zst: compressed.")
]
Page = Annotated[Path | None, typer.Option("--output", "-o", help="The HTML file; in reports/ by default.")]


@app.command("record", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def record(
    command: Annotated[list[str], typer.Argument(help="-- PROGRAM ARGS")],
    output: Output = None,
    cost: Annotated[
        int | None,
        typer.Option(min=2, help="Keep no trace: so many pairs of runs tell what recording costs."),
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Record what a program asks of malloc: one trace a process, and a summary; its exit status is passed on."""
    if cost is not None:
        _show_cost(command, cost, as_json)
        return
    target = output or Path(f"{Path(command[0]).name}.trace.zst")
    done = recording.record(compile_native(), command, target)
    told = [_summary(trace.read(path)) for path in done.traces]
    console.emit(
        {"status": done.status, "traces": told},
        as_json,
        lambda: _show(told[0]),
        lambda: _show_all(told) if len(told) > 1 else None,
        lambda: console.next_step(_replayed(target)),
    )
    if done.status:
        raise typer.Exit(done.status if done.status > 0 else 128 - done.status)


@traces.command("make")
def make(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(fitted.ALL)}.")],
    parameters: Annotated[list[str] | None, typer.Argument(help="parameter=value; 64MiB and 20M are numbers.")] = None,
    output: Output = None,
    distribution: Annotated[Path | None, typer.Option(help="Of fleet: size, allocations/s, live objects.")] = None,
    heap: Annotated[str | None, typer.Option(help="Of fleet: live bytes, such as 64MiB.")] = None,
    source: Annotated[Path | None, typer.Option(help="Of empirical: the trace to learn from.")] = None,
    as_json: console.Json = False,
) -> None:
    """Generate a trace; the same parameters give the same bytes everywhere."""
    given: dict[str, Any] = {key: generate.quantity(value) for key, value in map(console.pair, parameters or [])}
    options = {"distribution": distribution, "heap": heap and generate.quantity(heap), "source": source}
    given |= {key: value for key, value in options.items() if value is not None}
    of, notes = fitted.generator(name, given)
    target = output or Path(f"{name}.trace.zst")
    with _bar("generate", " events") as told:
        generate.make(name, of, target, told, notes)
    summed = _summary(trace.read(target, verify=False))
    console.emit(
        summed,
        as_json,
        lambda: _show(summed),
        lambda: console.next_step(_replayed(target)),
    )


@traces.command("speed")
def speed(
    names: Annotated[list[str] | None, typer.Argument(help="Generators; by default all of them.")] = None,
    distribution: Annotated[Path | None, typer.Option(help="Of fleet; left out without it.")] = None,
    source: Annotated[Path | None, typer.Option(help="Of empirical; left out without it.")] = None,
    as_json: console.Json = False,
) -> None:
    """Measure how fast traces are made: millions of events a second of one core, compilation apart."""
    needed: dict[str, dict[str, Any]] = {"fleet": {"distribution": distribution}, "empirical": {"source": source}}
    known = [name for name in fitted.ALL if all(needed.get(name, {"": True}).values())]
    rates, folder = [], paths.build() / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    with _bar("speed", " generators") as told:
        for done, name in enumerate(names or known, 1):
            rates.append(overhead.generation(name, needed.get(name, {}), folder))
            told(done, len(names or known))
    columns = ["generator", "made, M/s", "asked for", "written to a file, M/s", "time of it in the kernel"]
    rows = [
        (one.generator, f"{one.made:.0f}", f"{one.bound:g}", f"{one.written:.0f}", f"{100 * one.system:.0f} %")
        for one in rates
    ]
    console.emit([asdict(one) for one in rates], as_json, lambda: console.table(columns, rows))


@traces.command("overhead")
def show_overhead(
    allocator: Annotated[
        list[str] | None, typer.Option("--arm", help="As for run; system and hakmem by default.")
    ] = None,
    cycles: Annotated[int, typer.Option(min=100_000, help="Of mixed, in one run.")] = 5_000_000,
    pairs: Annotated[int, typer.Option(min=2, help="Of a run of the driver and a replay.")] = 15,
    as_json: console.Json = False,
) -> None:
    """Measure what a replay of mixed costs over the driver's own loop, in pairs."""
    made, progress = compile_native(), show(quiet=as_json)
    asked = [arms.parse(text) for text in allocator or ["system", "hakmem"]]
    try:
        found = [
            overhead.replaying(made, arms.make(allocators.find(name, made), gates), cycles, pairs, progress)
            for name, gates in asked
        ]
    finally:
        progress.close()
    columns = ["allocator", "driver, ns", "replay, ns", "added, ns (95 %)", "added instructions", "allowed, ns"]
    rows = [
        (one.allocator, f"{one.driver_ns:.2f}", f"{one.replay_ns:.2f}", _span(one.added_ns))
        + ("needs valgrind" if one.added_instructions is None else f"{one.added_instructions:.2f}",)
        + (f"{overhead.REPLAY_BOUND}",)
        for one in found
    ]
    console.emit([asdict(one) for one in found], as_json, lambda: console.table(columns, rows))


@traces.command("list")
def list_generators(as_json: console.Json = False) -> None:
    """List the generators with their parameters."""
    rows = []
    for name, kind in fitted.ALL.items():
        about = (kind.__doc__ or "").partition("\n")[0]
        rows.append((name, "", "", about))
        rows += [
            ("", field, "" if one.is_required() else str(one.default), one.description or "")
            for field, one in kind.model_fields.items()
        ]
    data = {name: kind.model_json_schema() for name, kind in fitted.ALL.items()}
    console.emit(data, as_json, lambda: console.table(["generator", "parameter", "default", "meaning"], rows))


@traces.command("info")
def info(file: File, as_json: console.Json = False) -> None:
    """Check a trace and sum it up."""
    told = _summary(trace.read(file))
    console.emit(told, as_json, lambda: _show(told), lambda: console.next_step(f"hakmem trace plot {quote(str(file))}"))


@traces.command("plot")
def plot(file: File, output: Page = None, as_json: console.Json = False) -> None:
    """Draw a trace into one HTML page: live bytes, sizes, lifetimes, frees across threads."""
    drawn = portrait.charts(trace.read(file))
    target = output or paths.reports() / f"{file.name.partition('.')[0]}_trace.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(document.page(drawn.title, drawn.html()), encoding="utf-8")
    console.emit(
        {"page": str(target)},
        as_json,
        lambda: console.say(str(target)),
        lambda: console.next_step(f"open {quote(str(target))}"),
    )


@traces.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="A trace of hakmem, mtrace's text, or CSV: op,id,size,thread,time.")],
    target: Annotated[Path, typer.Argument(help="Ends in .zst: compressed.")],
    form: Annotated[str | None, typer.Option("--from", help="trace, csv or mtrace; else what it looks like.")] = None,
) -> None:
    """Compress or unpack a trace, or import another tool's."""
    known = ("trace", *imports.FORMATS)
    if form is not None and form not in known:
        raise BadParameter(f"unknown format {form!r}; the formats are {', '.join(known)}")
    if form == "trace" or (form is None and trace.is_trace(source)):
        with _bar("convert", "B") as told:
            trace.copy(source, target, told)
    else:
        imports.convert(source, target, form)
    console.say(str(target))


def _replayed(file: Path) -> str:
    return f"hakmem run --arm hakmem --arm system --workload {quote(f'trace:{file}')}"


def _show_all(told: list[dict[str, Any]]) -> None:
    columns = ["trace", "events", "peak live, bytes", "command"]
    counts = [(one["file"], f"{one['events']:,}", f"{one['peak_bytes']:,}", one["origin"]["command"]) for one in told]
    console.table(columns, [(*row, " ".join(command)) for *row, command in counts])


def _show_cost(command: list[str], pairs: int, as_json: bool) -> None:
    made, progress = compile_native(), show(quiet=as_json)
    try:
        found = overhead.recorded(made, command, pairs, progress)
    finally:
        progress.close()
    rows = [
        ("wall time", f"{found.plain_s:.3f} s plain, {found.recorded_s:.3f} s recorded: {_span(found.wall)} times"),
        ("CPU time", f"{_span(found.cpu)} times"),
        ("allowed", f"{overhead.RECORD_BOUND:g} times"),
        ("records", f"{found.records:,} in a run"),
    ]
    console.emit(asdict(found), as_json, lambda: console.table([command[0], ""], rows))


def _span(of: Interval) -> str:
    return f"{of.estimate:.2f} ({of.low:.2f} to {of.high:.2f})"


@contextmanager
def _bar(stage: str, unit: str) -> Iterator[Told]:
    """Show progress with what is left, on a terminal and once it has taken a second."""
    with tqdm(desc=stage, unit=unit, unit_scale=True, disable=None, delay=1, file=sys.stderr) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told


def _summary(of: trace.Trace) -> dict[str, Any]:
    with _bar("look", " events") as told:
        return portrait.summary(of, events.shape(of.events, of.header.slots, told=told))


def _show(told: dict[str, Any]) -> None:
    """Print a summary as a table of two columns."""
    origin = told["origin"]
    version = f" (version {origin['version']})" if origin["version"] > 1 else ""
    made_by = " ".join(origin["command"]) or f"{origin['generator']}{version} {_plain(origin['parameters'])}"
    rows = [
        ("file", told["file"]),
        (origin["kind"], made_by),
        ("events", f"{told['events']:,} ({told['warm']:,} of them warm-up)"),
        ("operations", _plain({name: count for name, count in told["ops"].items() if count})),
        ("threads, slots", f"{told['threads']}, {told['slots']:,}"),
        ("peak live", f"{told['peak_bytes']:,} bytes in {told['peak_blocks']:,} blocks"),
        ("live at the end", f"{told['end_bytes']:,} bytes"),
        ("live bytes, events", portrait.bars(told["live_curve"])),
        ("sizes (bytes)", _plain(told["size_quantiles"])),
        (f"sizes {_octaves(told['size_octaves'])}", portrait.bars(list(told["size_octaves"].values()))),
        ("lifetimes (allocations)", _plain(told["lifetime_quantiles"])),
        ("frees by another thread", f"{100 * told['cross_thread_share']:.3g} %"),
        ("never freed", f"{100 * told['never_freed_share']:.3g} % of the blocks"),
        ("notes", _plain(origin["notes"])),
        ("sha256", told["sha256"]),
    ]
    console.table(["trace", ""], [row for row in rows if row[1]])


def _octaves(counts: dict[str, int]) -> str:
    """Name what a histogram spans: its octaves, one character each."""
    lows = [int(low) for low in counts]
    return " to ".join(units.words(end, units.BYTES) for end in (lows[0], 2 * max(1, lows[-1]))) if lows else ""


def _plain(values: dict[str, Any]) -> str:
    said = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in values.items()}
    return " ".join(f"{name}={value}" for name, value in said.items())
