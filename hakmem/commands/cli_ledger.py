"""Commands that read ledgers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from hakmem import campaign, console, paths, planning, store, verdict
from hakmem.commands import terminal
from hakmem.errors import BadParameter, LedgerError

app = typer.Typer()


@app.command()
def show(
    study: Annotated[str | None, typer.Argument(help="A study or a ledger file; none lists the studies.")] = None,
    host: Annotated[str | None, typer.Option(help="Rows of this host.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Rows of older builds and other sizes too.")] = False,
    trials: Annotated[bool, typer.Option("--trials", help="One line a trial instead of one an arm.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the rows to this file.")] = None,
    as_json: console.Json = False,
) -> None:
    """Show a ledger: figures and verdicts by workload and arm, or its rows.

    Hosts are never pooled, nor are sessions of different arms: each has a table of its own.
    """
    if study is None:
        known = [_ledger_line(path) for path in sorted(paths.runs().glob("*.jsonl"))]
        columns = ["study", "trials", "hosts", "last"]
        lines = [tuple(line[name] for name in columns) for line in known]
        console.emit(
            known,
            as_json,
            lambda: console.table(columns, lines),
            lambda: console.next_step("hakmem show STUDY, or hakmem sweep"),
        )
        return
    path = _path(study)
    rows = store.load(path, pool_hosts=True)
    hosts = sorted(rows["host"].unique())
    if not hosts:
        raise LedgerError(f"{path} holds no trials")
    if host and host not in hosts:
        raise LedgerError(f"{path} holds no trials of host {host}: its hosts are {', '.join(hosts)}")
    rows = rows[rows["host"] == host] if host else rows
    rows = rows if everything else store.newest(rows)
    _export(rows, csv, parquet)
    plans = [record for record in store.records(path) if isinstance(record, store.Plan)]
    parts = [(part, _judged(part, baseline, plans)) for baseline, part in store.by_cohort(rows)]
    console.emit(
        json.loads(rows.to_json(orient="records", date_format="iso")),
        as_json,
        (lambda: terminal.trials(rows)) if trials else (lambda: terminal.studies(parts)),
        lambda: terminal.torn(rows),
        lambda: console.next_step("hakmem report 20_lean_sweep"),
    )


ledger = typer.Typer(no_args_is_help=True, help="Work on ledgers as files.")
app.add_typer(ledger, name="ledger")


@ledger.command()
def merge(
    sources: Annotated[list[str], typer.Argument(help="Studies or ledger files.")],
    into: Annotated[str, typer.Option(help="The new study or ledger file.")],
    as_json: console.Json = False,
) -> None:
    """Join colleagues' ledgers into a new one; hosts are not pooled, and the sources stay as they are."""
    if len(sources) < 2:
        raise BadParameter(f"two ledgers or more are merged, given {sources[0]}")
    made = store.merge([_path(source) for source in sources], _path(into))
    told = f"{made.path}: {made.trials} trials of {', '.join(made.hosts)}; {made.twice} stood in more than one source"
    console.emit(
        made.model_dump(mode="json"),
        as_json,
        lambda: console.say(told),
        lambda: console.next_step(f"hakmem show {into} --host {made.hosts[0] if made.hosts else 'HOST'}"),
    )


def _judged(rows: pd.DataFrame, baseline: str, plans: Sequence[store.Plan]) -> list[verdict.Verdict]:
    """Judge rows as the last session with their arms did: what it looked at often is judged as strictly as then."""
    labels = set(rows["arm"])
    plan = next((one for one in reversed(plans) if one.arms[:1] == (baseline,) and labels <= set(one.arms)), None)
    asked = plan.spec if plan else {}
    targets = asked.get("target_mb")
    target = min(map(float, targets)) if isinstance(targets, list) else 10.0  # type: ignore[arg-type]
    when = planning.looks(plan.blocks, bool(asked.get("until_decided"))) if plan else (1,)
    together = plan is not None and plan.cluster
    return campaign.judged(rows, when, lambda table, alpha: verdict.judge(table, target, alpha), together=together)


def _export(rows: pd.DataFrame, csv: Path | None, parquet: Path | None) -> None:
    """Write rows to files, one line a trial; what a cell holds of lists and mappings is JSON there."""
    flat = rows.map(lambda cell: json.dumps(cell) if isinstance(cell, dict | list | tuple) else cell)
    try:
        if csv is not None:
            flat.to_csv(csv, index=False)
        if parquet is not None:
            flat.to_parquet(parquet)
    except OSError as error:
        raise LedgerError(
            f"cannot write the rows to {error.filename or csv or parquet}: {error.strerror or error}"
        ) from error


def _path(study: str) -> Path:
    """Return the ledger of a study, or the file that was given."""
    if study.endswith(".jsonl"):
        return Path(study)
    path = paths.runs() / f"{study}.jsonl"
    if not path.exists() and Path(study).is_file():
        allowed = f"the name of a study in {paths.runs()} or a file NAME.jsonl"
        raise BadParameter(f"{study} is no ledger: give {allowed}")
    return path


def _ledger_line(path: Path) -> dict[str, Any]:
    rows = store.load(path, pool_hosts=True)
    last = "" if rows.empty else rows["started"].max().strftime("%Y-%m-%d %H:%M")
    return {"study": path.stem, "trials": len(rows), "hosts": rows["host"].nunique(), "last": last}
