"""The command that soaks."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.live import Live

from hakmem import console, paths, planning, soak, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import build as compile_native
from hakmem.commands import terminal
from hakmem.errors import BadParameter, TrialFailed
from hakmem.workload import Workload

app = typer.Typer()

EPOCHS = 60  # of a soak, where nobody says how long one is
LINE_EVERY_S = 10.0
DEFAULT = "soak:ws=400"


@app.command("soak")
def run_soak(
    minutes: Annotated[float, typer.Option(min=0.005, max=525_600, help="How long each arm runs.")] = 5,
    arm: Annotated[list[str] | None, typer.Option(help="As for run, one after another; hakmem by default.")] = None,
    load: Annotated[
        str, typer.Option("--workload", help="Or any other, trace:FILE too: it runs again and again, lap after lap.")
    ] = DEFAULT,
    epoch_seconds: Annotated[float | None, typer.Option(min=0.01, help="5, or a sixtieth of a short run.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the CSV and Parquet files; data/runs/soak.")] = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- PROGRAM ...", help="A program of your own: memory only.")
    ] = None,
    as_json: console.Json = False,
) -> None:
    """Run one process for long: epochs, drift, percentiles, longest stall, system calls; Ctrl-C ends it early."""
    seconds = 60 * minutes
    epoch_s = epoch_seconds or min(5.0, max(0.01, seconds / EPOCHS))
    if command and load != DEFAULT:
        raise BadParameter(f"give a workload or a program, not both: {load} and {command[0]}")
    work = workload.program(command, seconds) if command else _work(load, seconds, epoch_s)
    made = compile_native()
    asked = [arms.parse(text) for text in arm or ["hakmem"]]
    found = [arms.make(allocators.find(name, made), settings) for name, settings in asked]
    folder = output or paths.runs() / "soak"
    started = time.strftime("%Y%m%d-%H%M%S")
    analyses, failed = [], []
    for at, one in enumerate(found):
        planning.prove(one.allocator, made, work)
        csv = folder / f"{started}-{at}-{''.join(c if c.isalnum() else '-' for c in one.label)}.csv"
        with _Shown(one.label, seconds, quiet=as_json) as shown:
            outcome, epochs = soak.soak(made, one, work, csv.absolute(), shown.watch)
        analyses.append((soak.analyse(one.label, epochs, outcome), csv))
        if outcome.status != "ok":
            died = f"signal {outcome.exit.signal}" if outcome.exit.signal else f"exit status {outcome.exit.exit_status}"
            why = outcome.complaint or outcome.exit.stderr_tail.strip().rpartition("\n")[2] or died
            failed.append(f"{one.label}: {outcome.status}: {why}")
    same = f" -- {work.text}" if command else "" if load == DEFAULT else f" --workload {shlex.quote(load)}"
    console.emit(
        [analysis.model_dump(mode="json") | {"csv": str(csv)} for analysis, csv in analyses],
        as_json,
        lambda: terminal.soak(analysis for analysis, _ in analyses),
        lambda: [console.say(f"epochs: {csv} and .parquet") for _, csv in analyses],  # type: ignore[func-returns-value]
        lambda: console.next_step(f"hakmem soak --minutes 30 --arm hakmem --arm lean:OFF{same}"),
    )
    if failed:
        raise TrialFailed("; ".join(failed))


def _work(load: str, seconds: float, epoch_s: float) -> Workload:
    """Read a workload that runs for so long: the soak by its own means, others in laps as short as the profile has."""
    if workload.parse(load).driver == soak.DRIVER:
        return workload.parse(f"{load}{',' if ':' in load else ':'}seconds={seconds:g},epoch_seconds={epoch_s:g}")
    return soak.lapped(workload.parse(load, "smoke"), seconds, epoch_s)


class _Shown:
    """The last epochs as a table that is drawn anew, or a line now and then where nobody watches."""

    def __init__(self, label: str, seconds: float, *, quiet: bool) -> None:
        self._label, self._seconds, self._quiet = label, seconds, quiet
        self._live = Live(console=console.err, auto_refresh=False) if console.err.is_terminal and not quiet else None
        self._next = 0.0

    def watch(self, epochs: pd.DataFrame) -> None:
        """Show the epochs so far."""
        if self._live is not None:
            self._live.update(terminal.epochs(self._label, epochs, self._seconds), refresh=True)
        elif not self._quiet and len(epochs) and time.monotonic() >= self._next:
            last = epochs.iloc[-1]
            rate = f", {console.rate(last['ops_per_s'])} ops/s" if pd.notna(last["ops_per_s"]) else ""
            console.complain(
                f"{self._label}: {last['t_s']:.0f} of {self._seconds:.0f} s{rate}, {last['rss_mb']:.2f} MB resident"
            )
            self._next = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> "_Shown":  # noqa: D105
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        if self._live is not None:
            self._live.stop()
