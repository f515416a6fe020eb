"""The command ``hakmem``: every job of the workbench from a terminal; with ``--json`` for programs.

Each command lives in a module that is imported when it is called: the help and the light commands need no pandas.
"""

import importlib
import sys
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from hakmem import console
from hakmem.errors import HakmemError

# What every wrong command line raises; Typer exports only a child of it.
UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)
COMMANDS = {
    "doctor": ("cli_look", "Say what makes figures unstable here, what is not installed, and whether allocators work."),
    "gates": ("cli_look", "List the ENV gates, or what every gate is under some settings."),
    "build": ("cli_look", "Compile the allocator and its drivers, or find them compiled."),
    "run": ("cli_measure", "Run one trial of each arm on each workload and print what it measured."),
    "sweep": ("cli_measure", "Sweep gates x allocators x workloads in blocks into a ledger."),
    "worker": ("cli_cluster", "Measure blocks for a sweep on another host."),
    "bench": ("cli_measure", "Measure hakmem's flavours beside every installed peer."),
    "own-cost": ("cli_measure", "Measure what the workbench costs the programs it measures."),
    "record": ("cli_trace", "Record what a program asks of malloc: one trace a process."),
    "trace": ("cli_trace", "Make, look at, draw and convert traces of allocations."),
    "soak": ("cli_soak", "Run one process for long: epochs, drift, percentiles, longest stall, system calls."),
    "residency": ("cli_residency", "Show which SuperSlabs and slabs of a process are resident, by class and fill."),
    "show": ("cli_ledger", "Show a ledger: figures and verdicts by workload and arm, or its rows."),
    "ledger": ("cli_ledger", "Work on ledgers as files."),
    "report": ("cli_report", "Execute a notebook and write it as one HTML file."),
    "reports": ("cli_report", "Execute every notebook, one at a time, and write the index of all reports."),
}


class Commands(TyperGroup):
    """Knows the names and first lines of the commands; a command that is called brings its module."""

    def __init__(self, **given: Any) -> None:
        """Take what Typer gives, and the names."""
        super().__init__(**given)
        self.commands = {name: TyperCommand(name, help=about) for name, (_, about) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called."""
        name, shown, rest = super().resolve_command(ctx, args)
        if shown is None or name is None:
            return name, shown, rest
        module = importlib.import_module(f"hakmem.commands.{COMMANDS[name][0]}")
        return name, typer.main.get_group(module.app).commands[name], rest


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Performance research on malloc.",
)


@app.callback()
def _group() -> None:
    """Make a group of commands of it."""


def main() -> None:
    """Run the command; every expected error is one line on standard error and its exit status."""
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        if message := error.format_message().rstrip("."):  # there is none where the help was shown
            known = error.ctx.command_path if error.ctx else "hakmem"
            console.complain(f"hakmem: {message[0].lower()}{message[1:]}: see {known} --help", style="red")
        sys.exit(error.exit_code)
    except HakmemError as error:
        console.complain(f"hakmem: {error}", style="red")
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a file that may not be written
        where = f": {error.filename}" if error.filename else ""
        console.complain(f"hakmem: {error.strerror or error}{where}", style="red")
        sys.exit(HakmemError.exit_code)
    except MemoryError as error:
        console.complain(f"hakmem: this machine has too little memory for that: {error}", style="red")
        sys.exit(HakmemError.exit_code)
