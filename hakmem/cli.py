"""The command ``hakmem``: every job of the workbench from a terminal; with ``--json`` for programs."""

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from hakmem import (
    allocators,
    arms,
    campaign,
    gates,
    machine,
    paths,
    report,
    run,
    stats,
    store,
    terminal,
    verdict,
    workload,
)
from hakmem.arms import SHORT
from hakmem.build import Build
from hakmem.build import build as compile_native
from hakmem.campaign import CampaignSpec
from hakmem.errors import BadParameter, HakmemError, LedgerError, TrialFailed
from hakmem.study import PEERS

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Performance research on malloc."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Profile = Annotated[str, typer.Option(help="Size of the trials: smoke, quick or full.")]
SPEED = (
    *(f"mixed:ws={slots}" for slots in (400, 8_000, 100_000, 1_000_000)),
    *("larson:threads=2", "pc", "churn:threads=2", "cross:threads=2", "big", "realloc", "battle"),
)


def main() -> None:
    """Run the command; every expected error is one line on standard error and its exit status."""
    try:
        app()
    except HakmemError as error:
        terminal.complain(f"hakmem: {error}", style="red")
        sys.exit(error.exit_code)


@app.command("gates")
def show_gates(
    settings: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE: show what a run with them sees.")] = None,
    as_json: Json = False,
) -> None:
    """List the ENV gates, or what every gate is under some settings."""
    known = gates.table()
    if settings:
        pairs = dict(_pair(text) for text in settings)
        effective = gates.effective({SHORT.get(name.upper(), name): value for name, value in pairs.items()})
        _print(effective, as_json, lambda: terminal.table(["gate", "value"], effective.items()))
        return
    rows = [(gate.env, gate.allowed_text, gate.default, gate.scope, gate.doc) for gate in known.gates]
    profiles = [
        (f"HAKMEM_PROFILE={profile.name}", " ".join(map("=".join, profile.settings.items())))
        for profile in known.profiles
    ]
    _print(
        known.model_dump(),
        as_json,
        lambda: terminal.table(["gate", "takes", "default", "scope", "meaning"], rows),
        lambda: terminal.table(["profile", "sets what is not set"], profiles),
        lambda: terminal.next_step("hakmem run --arm hakmem:LEAN=1,DECOMMIT=DONTNEED --workload ramp"),
    )


@app.command()
def build(
    cc: Annotated[str | None, typer.Option(help="C compiler; $CC or cc by default.")] = None,
    cflags: Annotated[str, typer.Option(help="Further compiler flags.")] = "",
    as_json: Json = False,
) -> None:
    """Compile the allocator and its drivers, or find them compiled."""
    made = compile_native(cc=cc, cflags_extra=cflags)
    _print(
        made.model_dump(mode="json"),
        as_json,
        lambda: terminal.table(["build", "compiler", "path"], [(made.build_id, made.compiler, made.path)]),
        lambda: terminal.table(["library"], [(library,) for library in made.libs.values()]),
        lambda: terminal.next_step("hakmem run --arm hakmem --workload mixed:ws=400"),
    )


@app.command("run")
def run_trials(
    arm: Annotated[list[str], typer.Option(help="hakmem:LEAN=1,DECOMMIT=OFF | lean:DONTNEED:10 | mimalloc | ...")],
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="mixed:ws=400 | ramp | ...")] = None,
    profile: Profile = "quick",
    timeout: Annotated[float | None, typer.Option(min=0.01, help="Seconds until a trial is killed.")] = None,
    as_json: Json = False,
) -> None:
    """Run one trial of each arm on each workload and print what it measured; nothing is recorded."""
    asked = [arms.parse(text) for text in arm]
    works = [workload.parse(text, _profile(profile)) for text in workloads or ["mixed:ws=400"]]
    made = compile_native()
    found = [arms.make(allocators.find(name, made), settings) for name, settings in asked]
    rows = []
    for work in works:
        for one in found:
            allocators.prove(one.allocator, made.driver(work.driver, one.allocator.flavour))
            outcome = run.trial(made, one, work, timeout_s=timeout)
            rows.append((_row(outcome, one, work, made), _command(made, one, work)))
    trials = [row for row, _ in rows]
    table = store.frame(trials)
    _print(
        [row.model_dump(mode="json") | {"command": command} for row, command in rows],
        as_json,
        lambda: terminal.trials(table),
        lambda: terminal.spoiled(trials),
        lambda: terminal.commands(command for _, command in rows),
        lambda: terminal.next_step(f"hakmem sweep --workload {works[0].text} --profile smoke"),
    )
    bad = [f"{row.arm} on {row.workload}: {row.status}: {_last_line(row)}" for row in trials if row.status != "ok"]
    if bad:
        raise TrialFailed("; ".join(bad))


@app.command()
def sweep(
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="Several may be given.")] = None,
    lean: Annotated[list[str] | None, typer.Option(help="0, 1")] = None,
    decommit: Annotated[list[str] | None, typer.Option(help="FREE, DONTNEED, OFF")] = None,
    target_mb: Annotated[list[str] | None, typer.Option(help="MiB")] = None,
    gate: Annotated[list[str] | None, typer.Option(help="Any other gate: NAME=VALUE,VALUE,...")] = None,
    allocator: Annotated[list[str] | None, typer.Option(help="The first is the baseline; 'peers': all found.")] = None,
    blocks: Annotated[int | None, typer.Option(help="By profile: 2, 5, 10.")] = None,
    budget_minutes: Annotated[float | None, typer.Option(help="By profile: 0.4, 3.5, 22.")] = None,
    profile: Profile = "quick",
    seed: Annotated[int | None, typer.Option(help="Of the order of the trials.")] = None,
    study: Annotated[str | None, typer.Option(help="Names the ledger data/runs/STUDY.jsonl.")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what would be measured, and how long it takes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sweep gates x allocators x workloads in blocks into a ledger; what it holds already is not measured again."""
    swept = {name: value.split(",") for name, value in map(_pair, gate or [])}
    asked = {
        "workloads": workloads,
        "lean": _split(lean),
        "decommit": _split(decommit),
        "target_mb": _split(target_mb),
        "gates": swept or None,
        "allocators": _split(allocator),
    }
    rest = {"blocks": blocks, "budget_minutes": budget_minutes, "profile": profile, "seed": seed, "study": study}
    made = campaign.plan(CampaignSpec.checked({k: v for k, v in (asked | rest).items() if v is not None}))
    if plan_only:
        whole = made.model_dump(mode="json", exclude={"build": {"libs", "bins"}})
        _print(
            whole, as_json, lambda: terminal.plan(made), lambda: terminal.next_step("the same command without --plan")
        )
        return
    done = _measure(made, as_json)
    rows = campaign.rows(made)
    judged = verdict.lean(rows, min(made.spec.target_mb))
    _print(
        {"done": done.model_dump(mode="json"), "verdicts": [one.model_dump(mode="json") for one in judged]},
        as_json,
        lambda: terminal.study(rows, judged),
        lambda: terminal.say(_ended(done)),
        lambda: terminal.next_step(
            f"hakmem show {made.spec.study}, or hakmem report 20_lean_sweep --profile {made.spec.profile}"
        ),
    )


@app.command()
def show(
    study: Annotated[str | None, typer.Argument(help="A study or a ledger file; none lists the studies.")] = None,
    host: Annotated[str | None, typer.Option(help="Rows of this host.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Rows of older builds and other sizes too.")] = False,
    trials: Annotated[bool, typer.Option("--trials", help="One line a trial instead of one an arm.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show a ledger: figures and verdicts by workload and arm, or its rows."""
    if study is None:
        known = [_ledger_line(path) for path in sorted(paths.runs().glob("*.jsonl"))]
        columns = ["study", "trials", "hosts", "last"]
        lines = [tuple(line[name] for name in columns) for line in known]
        _print(
            known,
            as_json,
            lambda: terminal.table(columns, lines),
            lambda: terminal.next_step("hakmem show STUDY, or hakmem sweep"),
        )
        return
    path = Path(study) if study.endswith(".jsonl") else paths.runs() / f"{study}.jsonl"
    rows = store.load(path, host=host)
    rows = rows if everything else store.newest(rows)
    if rows.empty:
        raise LedgerError(f"{path} holds no trials" + (f" of host {host}" if host else ""))
    if csv is not None:
        rows.map(lambda cell: json.dumps(cell) if isinstance(cell, dict | list | tuple) else cell).to_csv(
            csv, index=False
        )
    if parquet is not None:
        rows.map(lambda cell: json.dumps(cell) if isinstance(cell, dict | list | tuple) else cell).to_parquet(parquet)
    judged = verdict.lean(rows)
    _print(
        json.loads(rows.to_json(orient="records", date_format="iso")),
        as_json,
        (lambda: terminal.trials(rows)) if trials else (lambda: terminal.study(rows, judged)),
        lambda: terminal.torn(rows),
        lambda: terminal.next_step("hakmem report 20_lean_sweep"),
    )


@app.command("report")
def make_report(
    notebook: Annotated[str, typer.Argument(help="Name of a notebook: 20_lean_sweep.")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="key=value; a list as [a, b].")] = None,
    profile: Annotated[str | None, typer.Option(help="The same as -p profile=...")] = None,
    output: Annotated[Path | None, typer.Option(help="The HTML file; reports/ by default.")] = None,
    as_json: Json = False,
) -> None:
    """Execute a notebook and write it as one HTML file that needs no network."""
    given = {name: _value(text) for name, text in map(_pair, parameter or [])}
    given |= {"profile": profile} if profile else {}
    name = Path(notebook).stem.lstrip("0123456789").lstrip("_") or "report"
    page = report.render(notebook, given, output or paths.reports() / f"{name}.html")
    _print({"report": str(page)}, as_json, lambda: terminal.say(str(page)), lambda: terminal.next_step(f"open {page}"))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what makes figures unstable on this machine, what is not installed, and whether every allocator works."""
    here = machine.probe()
    findings = [*machine.checks(here), *machine.missing_parts()]
    states = _states(compile_native())
    columns = ["subject", "found", "what it changes", "remedy"]
    _print(
        {
            "machine": here.model_dump(mode="json"),
            "findings": [finding.model_dump(mode="json") for finding in findings],
            "allocators": states,
        },
        as_json,
        lambda: terminal.table(["machine", ""], here.model_dump().items()),
        lambda: terminal.table(columns, [tuple(finding.model_dump().values()) for finding in findings]),
        lambda: terminal.table(
            ["allocator", "version", "library", "state"], [tuple(state.values()) for state in states]
        ),
        lambda: terminal.next_step("hakmem run --arm hakmem --arm mimalloc, or hakmem sweep --profile smoke"),
    )


@app.command()
def bench(
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="By default all of the speed list.")] = None,
    peer: Annotated[str, typer.Option(help="Ratios are to this one, named beforehand.")] = "mimalloc",
    blocks: Annotated[int | None, typer.Option(help="Interleaved blocks; 15, or 3 for smoke.")] = None,
    profile: Profile = "quick",
    linked: Annotated[bool, typer.Option(help="Directly linked programs only.")] = False,
    as_json: Json = False,
) -> None:
    """Measure hakmem's flavours beside every installed peer, interleaved: throughput, ratio with interval, memory."""
    allocators.check(peer)
    suffix = allocators.LINKED_SUFFIX if linked else ""
    names = [peer, "hakmem_minimal", "hakmem"]
    spec = CampaignSpec.checked(
        {
            "study": "bench_linked" if linked else "bench",
            "workloads": workloads or list(SPEED),
            "lean": 0,
            "decommit": "FREE",
            "target_mb": 10,
            "allocators": [name + suffix for name in names] if linked else [*names, "system", PEERS],
            "blocks": blocks or (3 if profile == "smoke" else 15),
            "budget_minutes": 600,
            "profile": profile,
        }
    )
    made = campaign.plan(spec)
    _measure(made, as_json)
    rows = campaign.rows(made)
    found = [_bench_line(cell, one, work, made) for work, cell in _cells(rows, made) for one in made.arms]
    found = [line for line in found if line]
    _print(
        found,
        as_json,
        lambda: terminal.bench(found, peer + suffix),
        lambda: terminal.next_step("hakmem bench --linked"),
    )


def _row(outcome: run.Outcome, arm: arms.Arm, work: workload.Workload, made: Build) -> store.Trial:
    where = {"study": "run", "trial_key": "", "provenance": "", "host": machine.host_id()}
    return store.row(outcome, arm, work, made, **where, block=0, position=0, order=0)


def _last_line(trial: store.Trial) -> str:
    why = f"signal {trial.signal}" if trial.signal else f"exit status {trial.exit_status}"
    return trial.stderr_tail.strip().rpartition("\n")[2] or why


def _command(made: Build, arm: arms.Arm, work: workload.Workload) -> str:
    """Write a trial as a shell command."""
    program = made.driver(work.driver, arm.allocator.flavour)
    preload = {"LD_PRELOAD": str(arm.allocator.library)} if arm.allocator.library else {}
    settings = [f"{name}={shlex.quote(value)}" for name, value in {**arm.gates, **preload}.items()]
    return " ".join([*settings, shlex.quote(_short(program)), *work.args])


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _measure(made: campaign.Plan, as_json: bool) -> campaign.Done:
    """Show the plan, then run it; Ctrl-C leaves a ledger that the same command goes on with."""
    if not as_json:
        terminal.plan(made)
    try:
        return campaign.run(made)
    except KeyboardInterrupt:
        terminal.complain(f"interrupted; {made.ledger} keeps what was measured, the same command goes on from there")
        raise typer.Exit(130) from None


def _cells(rows: pd.DataFrame, made: campaign.Plan) -> Iterable[tuple[workload.Workload, pd.DataFrame]]:
    return [(work, rows[rows["workload"] == work.text]) for work in made.workloads]


def _bench_line(cell: pd.DataFrame, arm: arms.Arm, work: workload.Workload, made: campaign.Plan) -> dict[str, Any]:
    """Return one arm's figures on one workload; empty for the second baseline and for what was not measured."""
    mine = cell[(cell["arm"] == arm.label) & (cell["role"] == arm.role) & (cell["status"] == "ok")]
    if arm.role == "baseline2" or mine.empty:
        return {}
    ratios = stats.log_ratios(stats.wide(cell, "ops_per_s"), stats.BASELINE if arm.role == "baseline" else arm.label)
    found = stats.interval(ratios).exp() if ratios.size > 1 and arm.role != "baseline" else None
    return {
        "workload": work.text,
        "arm": arm.label,
        "version": arm.allocator.version,
        "linkage": arm.allocator.linkage,
        "mops": float(mine["mops"].median()),
        "spread_percent": 100 * stats.cv(mine["mops"]) if len(mine) > 1 else None,
        "ratio": found.estimate if found else None,
        "ratio_low": found.low if found else None,
        "ratio_high": found.high if found else None,
        "blocks": len(ratios),
        "peak_rss_mb": float(mine["peak_rss_mb"].median()),
        "command": _command(made.build, arm, work),
    }


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


def _ledger_line(path: Path) -> dict[str, Any]:
    rows = store.load(path, pool_hosts=True)
    last = "" if rows.empty else rows["started"].max().strftime("%Y-%m-%d %H:%M")
    return {"study": path.stem, "trials": len(rows), "hosts": rows["host"].nunique(), "last": last}


def _ended(done: campaign.Done) -> str:
    parts = [f"measured {done.measured} trials, {done.reused} were in {done.ledger}"]
    parts += [f"{done.spoiled_blocks} block(s) were spoiled"] if done.spoiled_blocks else []
    parts += [f"ended early: {done.stopped}"] if done.stopped else []
    return "; ".join(parts)


def _profile(name: str) -> workload.Profile:
    for known in workload.TRIAL_S:
        if name == known:
            return known
    raise BadParameter(f"unknown profile {name!r}; the profiles are {', '.join(workload.TRIAL_S)}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadParameter(f"{text!r} is no NAME=VALUE")
    return name.strip(), value.strip()


def _value(text: str) -> object:
    """Read a parameter as JSON, ``[a, b]`` as a list of words, and all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text[1:-1].split(",")] if text[:1] + text[-1:] == "[]" else text


def _split(texts: list[str] | None) -> list[str] | None:
    return [part for text in texts for part in text.split(",")] if texts else None


def _print(data: object, as_json: bool, *tables: Any) -> None:
    """Print JSON, or call what prints the tables."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=1, default=str, allow_nan=False) + "\n")
        return
    for table in tables:
        table()
