"""Commands that look around: gates, builds, this machine."""

from typing import Annotated

import typer

from hakmem import console
from hakmem.builds import allocators, gates
from hakmem.builds.arms import SHORT
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import HakmemError
from hakmem.system import machine

app = typer.Typer()


@app.command("gates")
def show_gates(
    settings: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE: show what a run with them sees.")] = None,
    as_json: console.Json = False,
) -> None:
    """List the ENV gates, or what every gate is under some settings."""
    known = gates.table()
    if settings:
        pairs = dict(console.pair(text) for text in settings)
        effective = gates.effective({SHORT.get(name.upper(), name): value for name, value in pairs.items()})
        console.emit(effective, as_json, lambda: console.table(["gate", "value"], effective.items()))
        return
    rows = [(gate.env, gate.allowed_text, gate.default, gate.scope, gate.doc) for gate in known.gates]
    profiles = [
        (f"HAKMEM_PROFILE={profile.name}", " ".join(map("=".join, profile.settings.items())))
        for profile in known.profiles
    ]
    console.emit(
        known.model_dump(),
        as_json,
        lambda: console.table(["gate", "takes", "default", "scope", "meaning"], rows),
        lambda: console.table(["profile", "sets what is not set"], profiles),
        lambda: console.next_step("hakmem run --arm hakmem:LEAN=1,DECOMMIT=DONTNEED --workload ramp"),
    )


@app.command()
def build(
    cc: Annotated[str | None, typer.Option(help="C compiler; $CC or cc by default.")] = None,
    cflags: Annotated[str, typer.Option(help="Further compiler flags.")] = "",
    as_json: console.Json = False,
) -> None:
    """Compile the allocator and its drivers, or find them compiled."""
    made = compile_native(cc=cc, cflags_extra=cflags)
    console.emit(
        made.model_dump(mode="json"),
        as_json,
        lambda: console.table(["build", "compiler", "path"], [(made.build_id, made.compiler, made.path)]),
        lambda: console.table(["library"], [(library,) for library in made.libs.values()]),
        lambda: console.next_step("hakmem run --arm hakmem --workload mixed:ws=400"),
    )


@app.command()
def doctor(as_json: console.Json = False) -> None:
    """Say what makes figures unstable here, what is not installed, and whether allocators work."""
    here = machine.probe()
    findings = [*machine.checks(here), *machine.missing_parts()]
    states = _states(compile_native())
    columns = ["subject", "found", "what it changes", "remedy"]
    console.emit(
        {
            "machine": here.model_dump(mode="json"),
            "findings": [finding.model_dump(mode="json") for finding in findings],
            "allocators": states,
        },
        as_json,
        lambda: console.table(["machine", ""], here.model_dump().items()),
        lambda: console.table(columns, [tuple(finding.model_dump().values()) for finding in findings]),
        lambda: console.table(
            ["allocator", "version", "library", "state"], [tuple(state.values()) for state in states]
        ),
        lambda: console.next_step("hakmem run --arm hakmem --arm mimalloc, or hakmem sweep --profile smoke"),
    )


def _states(made: Build) -> list[dict[str, str]]:
    """Return every allocator with its version, its library and whether it is at work under a driver."""
    states = []
    for name in allocators.NAMES:
        version = library = ""
        state = "works"
        try:
            found = allocators.find(name, made)
            version, library = found.version, str(found.library or "")
            allocators.prove(found, made.driver("random_mixed", found.flavour))
        except HakmemError as error:
            state = str(error)
        states.append({"name": name, "version": version, "library": library, "state": state})
    return states
