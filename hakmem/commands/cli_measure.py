"""Commands that measure."""

import math
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from hakmem import campaign, console, crosscheck, planning, run, sample, stats, store, workload
from hakmem.budget import fit
from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.commands import cli_cluster, terminal
from hakmem.errors import BadParameter, TrialFailed
from hakmem.progress import show
from hakmem.studies import own_cost
from hakmem.study import PEERS, CampaignSpec, ProgramSpec
from hakmem.system import machine, turn

app = typer.Typer()

SPEED = (
    *(f"mixed:ws={slots}" for slots in (400, 8_000, 100_000, 1_000_000)),
    *("larson:threads=2", "pc", "churn:threads=2", "cross:threads=2", "big", "realloc", "battle"),
)
SPEED_QUICK = ("mixed:ws=400", "mixed:ws=100000", "larson:threads=2", "pc")
BENCH_BLOCKS = {"smoke": 3, "quick": 10, "full": 15}
PER_CPU_SECOND = "ops_per_cpu_s"  # of drivers whose threads may have to share cores: what is compared there
LINKED = (*allocators.PROGRAMS[allocators.LINKED_SUFFIX], allocators.NULL)
UNLINKED = tuple(name for name in allocators.NAMES if name not in LINKED)


Command = Annotated[
    list[str] | None, typer.Argument(metavar="-- PROGRAM ...", help="A program of your own instead of workloads.")
]


@app.command("run")
def run_trials(
    arm: Annotated[list[str], typer.Option(help="hakmem:LEAN=1,DECOMMIT=OFF | lean:DONTNEED:10 | mimalloc | ...")],
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="mixed:ws=400 | ramp | ...")] = None,
    profile: console.Profile = "quick",
    timeout: Annotated[float | None, typer.Option(min=0.01, help="Seconds until a trial is killed.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.01, help="Ask your program to end (SIGTERM) after so.")] = None,
    series: Annotated[Path | None, typer.Option(help="Write RSS over time to this Parquet file.")] = None,
    strace: Annotated[
        bool, typer.Option("--strace", help="Hold hakmem's count of system calls against strace, in a further run.")
    ] = False,
    command: Command = None,
    as_json: console.Json = False,
) -> None:
    """Run one trial of each arm on each workload and print what it measured; nothing is recorded.

    A program of your own is measured the same way: hakmem run --arm lean:DONTNEED:10 --arm system -- python3 job.py
    """
    asked = [arms.parse(text) for text in arm]
    if command and workloads:
        raise BadParameter(f"give workloads or a program, not both: {workloads[0]} and {command[0]}")
    if seconds and not command:
        raise BadParameter("--seconds goes with a program; workloads have sizes of their own")
    size = workload.profile(profile)
    own = [workload.program(command, seconds)] if command else []
    works = own or [workload.parse(name, size) for name in workload.names(workloads or ["mixed:ws=400"])]
    made = compile_native()
    found = [arms.make(allocators.find(name, made), settings) for name, settings in asked]
    rows = []
    samples: dict[tuple[str, str], sample.Sampler] = {}
    for work in works:
        for one in found:
            planning.prove(one.allocator, made, work)
            sampler = samples[one.label, work.text] = sample.Sampler(family=work.program)
            tick = sampler.tick if sample.use(work.threads) else None
            with turn.taken():
                outcome = run.trial(made, one, work, timeout_s=timeout, tick=tick)
            rows.append((_row(outcome, one, work, made), _command(made, one, work)))
    if series is not None:
        _write_series(series, samples)
    pairs = [(one, work) for work in works for one in found]
    checks = [crosscheck.check(made, *pair) if strace and pair[0].allocator.is_hakmem else None for pair in pairs]
    trials = [row for row, _ in rows]
    table = store.frame(trials)
    console.emit(
        [
            row.model_dump(mode="json") | {"command": command, "strace": check.model_dump() if check else None}
            for (row, command), check in zip(rows, checks, strict=True)
        ],
        as_json,
        lambda: terminal.trials(table),
        lambda: terminal.spoiled(trials),
        lambda: terminal.system_calls([check for check in checks if check]),
        lambda: console.commands(command for _, command in rows),
        lambda: console.next_step(f"hakmem sweep {'--' if command else '--profile smoke --workload'} {works[0].text}"),
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
    budget: Annotated[str | None, typer.Option(help="90s, 3m or 1h: as many arms and blocks as fit.")] = None,
    profile: console.Profile = "quick",
    seed: Annotated[int | None, typer.Option(help="Of the order of the trials.")] = None,
    study: Annotated[str | None, typer.Option(help="Names the ledger data/runs/STUDY.jsonl.")] = None,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Add blocks until each verdict is decided or the budget is spent.")
    ] = False,
    layouts: Annotated[
        int | None, typer.Option(help="Link every hakmem so many times, laid out otherwise: two blocks each, or more.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Deal blocks out to workers: local, tcp://127.0.0.1:PORT or tls://HOST:PORT.")
    ] = None,
    tls_ca: cli_cluster.Ca = None,
    tls_cert: cli_cluster.Cert = None,
    tls_key: cli_cluster.Key = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show what would be measured, and how long it takes.")
    ] = False,
    command: Command = None,
    as_json: console.Json = False,
) -> None:
    """Sweep gates x allocators x workloads in blocks into a ledger; what it holds already is not measured again.

    Over a program of your own, wall time is the cost: hakmem sweep --target-mb 64 -- python3 job.py
    """
    swept = {name: value.split(",") for name, value in map(console.pair, gate or [])}
    asked = {
        "workloads": workloads,
        "lean": _split(lean),
        "decommit": _split(decommit),
        "target_mb": _split(target_mb),
        "gates": swept or None,
        "allocators": _split(allocator),
    }
    rest = {"blocks": blocks, "budget_minutes": budget_minutes, "profile": profile, "seed": seed, "study": study}
    rest |= {"until_decided": until_decided, "layouts": layouts}
    if layouts and layouts > 0 and not blocks:
        rest["blocks"] = 2 * layouts
    if command and workloads:
        raise BadParameter(f"give workloads or a program, not both: {workloads[0]} and {command[0]}")
    said = {name: value for name, value in {**asked, **rest, "command": command or None}.items() if value is not None}
    spec = (ProgramSpec if command else CampaignSpec).checked(said)
    if budget and (blocks or budget_minutes):
        raise BadParameter("--budget chooses the blocks: it goes without --blocks and --budget-minutes")
    within = _seconds(budget) if budget else None
    measures = cli_cluster.measures(cluster, tls_ca, tls_cert, tls_key)
    made = planning.plan(spec)
    made = fit(made, within) if within else made
    made = planning.on_cluster(made) if cluster else made
    if plan_only:
        whole = made.model_dump(mode="json", exclude={"build": {"libs", "bins"}})
        console.emit(
            whole, as_json, lambda: terminal.plan(made), lambda: console.next_step("the same command without --plan")
        )
        return
    done = _measure(made, as_json, measures)
    rows = campaign.rows(made)
    judged = campaign.verdicts(made, rows)
    console.emit(
        {"done": done.model_dump(mode="json"), "verdicts": [one.model_dump(mode="json") for one in judged]},
        as_json,
        lambda: terminal.study(rows, judged),
        lambda: console.say(_ended(done)),
        lambda: console.next_step(
            f"hakmem show {made.spec.study}"
            + ("" if command else f", or hakmem report 20_lean_sweep --profile {made.spec.profile}")
        ),
    )


@app.command()
def bench(
    workloads: Annotated[list[str] | None, typer.Option("--workload", help="By default those of the profile.")] = None,
    peer: Annotated[str, typer.Option(help="Ratios are to this one, named beforehand.")] = "mimalloc",
    blocks: Annotated[int | None, typer.Option(help="Interleaved blocks; 3 for smoke, 10 for quick, else 15.")] = None,
    profile: console.Profile = "quick",
    linked: Annotated[bool, typer.Option("--linked", help="Directly linked programs only.")] = False,
    inline: Annotated[
        bool, typer.Option("--inline", help="Programs that have malloc and free in their own code, linked.")
    ] = False,
    as_json: console.Json = False,
) -> None:
    """Measure hakmem's flavours beside every installed peer, interleaved: throughput, ratio with interval, memory.

    Quick takes about five minutes and says what it leaves out; the mixed workloads show the loop without allocator, and
    with --inline are held to it as well.
    """
    linked |= inline
    against = peer + allocators.LINKED_SUFFIX * linked
    allocators.check(against)
    size = workload.profile(profile)
    suffix = allocators.INLINE_SUFFIX if inline else allocators.LINKED_SUFFIX * linked
    ours = [name + suffix for name in ("hakmem_minimal", "hakmem")]
    speed = [work for work in (SPEED_QUICK if size == "quick" else SPEED) if not inline or work.startswith("mixed")]
    works = workloads or speed
    if inline and (others := [work for work in works if not work.startswith("mixed")]):
        raise BadParameter(f"--workload {others[0]}: only mixed has programs with malloc and free in their own code")
    count = blocks or BENCH_BLOCKS[size]
    # A ledger has one baseline: another peer, and the loop without allocator, have ledgers of their own.
    study = "bench" + suffix.replace("@", "_") + f"_{peer}" * (peer != "mimalloc")
    asked: dict[str, object] = {
        "study": study,
        "workloads": works,
        "lean": 0,
        "decommit": "FREE",
        "target_mb": 10,
        "allocators": [against, *ours] if linked else [against, *ours, "system", PEERS],
        "blocks": count,
        "budget_minutes": 5 if size == "quick" and not (workloads or blocks) else 600,
        "profile": size,
    }
    plans = [planning.plan(CampaignSpec.checked(asked))]
    if mixed := [work for work in works if work.startswith("mixed")]:
        # Its baseline runs twice a block, as every one does.
        loop = {
            "study": f"{study}_loop",
            "workloads": mixed,
            "allocators": [allocators.NULL, *ours] if inline else [allocators.NULL],
            "blocks": count if inline else math.ceil(count / 2),
        }
        plans.append(planning.plan(CampaignSpec.checked(asked | loop)))
    ended = [_measure(made, as_json) for made in plans]
    found = []
    for made in plans:
        rows = campaign.rows(made)
        told = zip(rows["extra"], rows["ops_per_s"], strict=True)
        rows["speed"] = [extra.get(PER_CPU_SECOND, ops_per_s) for extra, ops_per_s in told]
        lines = [_bench_line(cell, one, work, made) for work, cell in _cells(rows, made) for one in made.arms]
        to = made.arms[0].label if inline else against
        found += [line | {"to": to} for line in lines if line]
    left_out = [f"{name} ({how})" for name, how in plans[0].missing.items()]
    left_out += [] if workloads else [f"{work} (hakmem bench --profile full)" for work in SPEED if work not in works]
    left_out += [f"{name} (no linked programs)" for name in UNLINKED if linked]
    left_out += [f"blocks ({done.stopped})" for done in ended if done.stopped]
    console.emit(
        found,
        as_json,
        lambda: terminal.bench(found),
        lambda: console.say(f"left out: {', '.join(left_out) or 'nothing'}"),
        lambda: console.next_step(
            "hakmem report 40_rebase" if inline else "hakmem bench --inline" if linked else "hakmem bench --linked"
        ),
    )


@app.command("own-cost")
def show_own_cost(
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of trials, with the workbench and without.")] = 40,
    arm: Annotated[str, typer.Option(help="As for run.")] = "hakmem",
    work: Annotated[str, typer.Option("--workload", help="Of a driver.")] = "mixed:ws=400",
    profile: console.Profile = "quick",
    as_json: console.Json = False,
) -> None:
    """Measure what the workbench costs the programs it measures: with it and without, in pairs."""
    name, settings = arms.parse(arm)
    asked = workload.parse(work, workload.profile(profile))
    made = compile_native()
    progress = show(quiet=as_json)
    try:
        found = own_cost.measure(made, arms.make(allocators.find(name, made), settings), asked, pairs, progress)
    finally:
        progress.close()
    console.emit(
        found.model_dump(mode="json") | {"within": found.within, "sentence": found.sentence()},
        as_json,
        lambda: console.say(found.sentence()),
        lambda: console.say(f"{found.samples} samples of memory were taken from outside"),
        lambda: console.next_step(
            "hakmem sweep" if found.within else f"hakmem own-cost --pairs {max(2 * pairs, found.pairs_needed or 0)}"
        ),
    )


def _row(outcome: run.Outcome, arm: arms.Arm, work: workload.Workload, made: Build) -> store.Trial:
    where = {"study": "run", "trial_key": "", "provenance": "", "host": machine.host_id()}
    return store.row(outcome, arm, work, made, **where, block=0, position=0, order=0)


def _write_series(path: Path, samples: dict[tuple[str, str], sample.Sampler]) -> None:
    tables = [
        pd.DataFrame({"arm": arm, "workload": work, "t_s": taken.t_s, "rss_kb": taken.rss_kb})
        for (arm, work), taken in samples.items()
    ]
    pd.concat(tables).to_parquet(path, index=False)


def _last_line(trial: store.Trial) -> str:
    why = f"signal {trial.signal}" if trial.signal else f"exit status {trial.exit_status}"
    return trial.stderr_tail.strip().rpartition("\n")[2] or why


def _command(made: Build, arm: arms.Arm, work: workload.Workload) -> str:
    """Write a trial as a shell command."""
    argv = work.args
    if not work.program:
        argv = (_short(made.driver(work.driver, arm.allocator.flavour)), *work.args)
    preload = {"LD_PRELOAD": str(arm.allocator.library)} if arm.allocator.library else {}
    settings = [f"{name}={shlex.quote(value)}" for name, value in {**arm.gates, **preload}.items()]
    note = [f" # within a memory cgroup of {work.memory_mb} MB"] if work.memory_mb else []
    return " ".join([*settings, shlex.join(argv), *note])


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _measure(made: planning.Plan, as_json: bool, measures: cli_cluster.Measures = campaign.run) -> campaign.Done:
    """Show the plan, then run it; Ctrl-C leaves a ledger that the same command goes on with."""
    if not as_json:
        terminal.plan(made)
    try:
        return measures(made)
    except KeyboardInterrupt:
        console.complain(f"interrupted; {made.ledger} keeps what was measured, the same command goes on from there")
        raise typer.Exit(130) from None


def _cells(rows: pd.DataFrame, made: planning.Plan) -> Iterable[tuple[workload.Workload, pd.DataFrame]]:
    return [(work, rows[rows["workload"] == work.text]) for work in made.workloads]


def _bench_line(cell: pd.DataFrame, arm: arms.Arm, work: workload.Workload, made: planning.Plan) -> dict[str, Any]:
    """Return one arm's figures on one workload; empty for the second baseline and for what was not measured."""
    mine = cell[(cell["arm"] == arm.label) & (cell["role"] == arm.role) & (cell["status"] == "ok")]
    if arm.role == "baseline2" or mine.empty:
        return {}
    ratios = stats.log_ratios(stats.wide(cell, "speed"), stats.BASELINE if arm.role == "baseline" else arm.label)
    found = stats.interval(ratios).exp() if ratios.size > 1 and arm.role != "baseline" else None
    return {
        "workload": work.text,
        "arm": arm.label,
        "version": arm.allocator.version,
        "linkage": arm.allocator.linkage,
        "mops": float(mine["speed"].median()) / 1e6,
        "per": "CPU s" if any(PER_CPU_SECOND in extra for extra in mine["extra"]) else "s",
        "spread_percent": 100 * stats.cv(mine["speed"].astype(float)) if len(mine) > 1 else None,
        "ratio": found.estimate if found else None,
        "ratio_low": found.low if found else None,
        "ratio_high": found.high if found else None,
        "blocks": len(ratios),
        "peak_rss_mb": float(mine["peak_rss_mb"].median()),
        "command": _command(made.build, arm, work),
    }


def _ended(done: campaign.Done) -> str:
    parts = [f"measured {done.measured} trials, {done.reused} were in {done.ledger}"]
    if done.spoiled_blocks:
        why = f"`hakmem show {done.ledger.stem} --trials` says by what, `hakmem doctor` what to do about it"
        parts.append(f"{done.spoiled_blocks} block(s) were spoiled ({why})")
    parts += [f"ended early: {done.stopped}"] if done.stopped else []
    parts += done.undecided
    return "; ".join(parts)


def _seconds(text: str) -> float:
    """Read a duration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)", text.strip())
    if found is None or float(found[1]) == 0:
        raise BadParameter(f"--budget {text}: a duration is written 90s, 3m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _split(texts: list[str] | None) -> list[str] | None:
    return [part for text in texts for part in text.split(",")] if texts else None
