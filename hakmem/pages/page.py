"""What notebooks show beside charts: banner, plan, threats, provenance, downloads, the command to run it again.

Whatever a measured program printed and whatever a user passed in is escaped here; what these functions return is
finished HTML.
"""

import base64
import gzip
import html
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import JsonValue

from hakmem import stats, store
from hakmem.campaign import Done
from hakmem.figure import spoken
from hakmem.planning import Plan
from hakmem.system import machine
from hakmem.table import table_html
from hakmem.verdict import COLOURS, ICONS, Verdict, Word, overall

__all__ = [
    "CARD",
    "Html",
    "banner",
    "beside",
    "chip",
    "downloads",
    "findings",
    "findings_list",
    "note",
    "plan",
    "prices",
    "provenance",
    "rerun",
    "statement",
    "table",
    "threats",
    "verdicts",
]

CARD = "application/vnd.hakmem.card+json"  # what an output tells the index of all reports: word and headline
ALLOCATOR_FACTS = ("version", "linkage", "library", "sha256")
NESTED = ["argv", "gates", "effective_gates", "phases", "syscalls", "counters", "extra", "spoiled"]
WORD = re.compile(r"(?!(?:true|false|null|NaN|Infinity)$)[A-Za-z][\w.:=,/+-]*")  # means itself on a command line
PLAIN_LIMIT = 600_000  # bytes of rows beyond which a download is compressed, so that the page stays small


@dataclass(frozen=True)
class Html:
    """A finished piece of a page; the one that holds the verdict also says what its card in the index shows."""

    text: str
    card: Mapping[str, str] | None = None

    def _repr_html_(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        return {"text/html": self.text} | ({CARD: dict(self.card)} if self.card else {})


def _esc(value: object) -> str:
    return html.escape(str(value))


def chip(word: str) -> str:
    """Show a verdict's word with its colour and icon, or any other word as one that stops whoever reads it."""
    colours, icons = ({str(known): look for known, look in looks.items()} for looks in (COLOURS, ICONS))
    colour, icon = colours.get(word, COLOURS["NO-GO"]), icons.get(word, "!")
    return f'<span class="chip" style="background:{colour};color:#fff">{icon} {_esc(word)}</span>'


# ---- verdicts --------------------------------------------------------------------------------------------------------


def banner(found: Sequence[Verdict], prices: pd.DataFrame | None = None) -> Html:
    """Show the study's verdict at a glance: the best arm in words, then every arm on every workload.

    With `prices` (of `verdict.prices`) the headline is what a saved megabyte costs.
    """
    if not found:
        return Html('<div class="failed"><p>No arm to judge: the study holds the baseline and peers only.</p></div>')
    word, arm, shown = overall(found)
    counts = Counter(v.word for v in found if v.arm == arm)
    tally = ", ".join(f"{w} on {_plural(n, 'workload')}" for w, n in counts.items())
    change = f"{shown.effect.words()}, memory {shown.memory.estimate:+.0f} %" if shown.memory else shown.effect.words()
    more = f" About {_plural(shown.blocks_needed, 'more block')} would settle it." if shown.blocks_needed else ""
    sentences = [
        _priced(prices),
        f"{arm}: {tally}.",
        f"On {shown.workload}: {shown.rule}; {shown.because}.",
        f"Throughput {change}; {_plural(shown.blocks, 'block')}, noise floor {_floor(shown)}.{more}",
    ]
    headline = sentences[0] or f"{arm} on {shown.workload}: throughput {change}"
    return Html(statement(word, sentences).text + _matrix(found), {"word": word, "headline": headline})


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _priced(prices: pd.DataFrame | None) -> str:
    """Say what a megabyte costs on each workload, the leanest arm's price; empty where nobody asked for prices."""
    if prices is None:
        return ""
    if (known := prices.dropna(subset="percent_per_mb")).empty:
        return "No saved megabyte has a price here: nothing is surely saved, or the blocks are too few to tell."
    told = []
    for line in _leanest(known).to_dict("records"):
        sure = line["low"] > 0 or line["high"] < 0
        costs = f"{line['percent_per_mb']:.2g} %" if sure else "nothing measurable"
        told.append(f"{costs} on {line['workload']} ({line['low']:+.2g} to {line['high']:+.2g})")
    return f"A saved megabyte costs in throughput {', '.join(told)}."


def _leanest(prices: pd.DataFrame) -> pd.DataFrame:
    """Select the arm of each workload that saves most."""
    return prices.sort_values("saved_mb", ascending=False).drop_duplicates("workload").sort_index()


def statement(word: Word, sentences: Sequence[str]) -> Html:
    """Show a verdict that is put in words: the finding first, then what it rests on."""
    finding, *rest = [_esc(sentence) for sentence in sentences if sentence]
    text = (
        f'<div class="banner" style="background:{COLOURS[word]};color:#fff;border-radius:10px;padding:1rem 1.2rem">'
        f'<div class="word" style="font-size:1.6rem;font-weight:700">{ICONS[word]} {word}</div>'
        f"<p><strong>{finding}</strong></p>{''.join(f'<p>{line}</p>' for line in rest)}</div>"
    )
    return Html(text, {"word": word, "headline": sentences[0]})


def table(rows: pd.DataFrame, label: str) -> Html:
    """Show a table under a caption that says what it holds, and in which unit."""
    return Html(table_html(rows, label).replace("<thead>", f"<caption>{_esc(label)}</caption>\n<thead>", 1))


def note(text: str) -> Html:
    """Say one thing in plain words."""
    return Html(f"<p>{_esc(text)}</p>")


def _floor(verdict: Verdict) -> str:
    return "not measured" if pd.isna(verdict.floor) else f"{float(f'{verdict.floor:.2g}'):g} %"


def _matrix(found: Sequence[Verdict]) -> str:
    workloads, arms = dict.fromkeys(v.workload for v in found), sorted({v.arm for v in found})
    cells = {(v.arm, v.workload): f"{chip(v.word)}<small>{v.effect.words()}</small>" for v in found}
    head = "".join(f'<th scope="col">{_esc(workload)}</th>' for workload in workloads)
    body = "".join(
        f'<tr><th scope="row">{_esc(arm)}</th>'
        + "".join(f"<td>{cells.get((arm, workload), '–')}</td>" for workload in workloads)
        + "</tr>"
        for arm in arms
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Verdicts"><table class="matrix">'
        "<caption>Throughput against the baseline, with its interval</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def verdicts(found: Sequence[Verdict]) -> Html:
    """List every verdict with its rule, effect, interval, floor and blocks, and whether the gates bit."""
    table = pd.DataFrame(
        {
            "workload": v.workload,
            "arm": v.arm,
            "verdict": f"{v.icon} {v.word}",
            "rule": v.rule,
            "because": v.because,
            "throughput": v.effect.words(),
            "level": f"{100 * v.effect.level:.3g} % {v.effect.method}",
            "memory": f"{v.memory.estimate:+.1f} %" if v.memory else None,
            "floor": _floor(v),
            "blocks": v.blocks,
            "still needed": "" if v.blocks_needed is None else v.blocks_needed,
            "did the gates bite?": f"NO: {v.bite_words}" if v.bite is False else v.bite_words,
        }
        for v in found
    )
    return Html(table_html(table, "Every verdict"))


def beside(table: pd.DataFrame) -> Html:
    """Show published figures beside today's, as `reference.beside` gives them, and what each of today's is one of."""
    shown = table.assign(metric=table["metric"].str.replace("_", " ").str.replace("rss", "RSS"))
    shown = shown[["metric", "setting", "published", "today", "ratio", "unit", "here"]]
    names = {"setting": "published for", "ratio": "today / published", "here": "today's is of"}
    return Html(table_html(shown.rename(columns=names), "Published figures beside today's"))


def prices(table: pd.DataFrame) -> Html:
    """Say what a megabyte costs, one sentence a workload for its leanest arm, then the table for all arms."""
    items = "".join(f"<li>{_esc(sentence)}</li>" for sentence in _leanest(table)["sentence"])
    every = table_html(table.drop(columns="sentence"), "What a megabyte costs, every arm")
    return Html(f"<ul>{items}</ul><details><summary>Every arm's price</summary>{every}</details>")


# ---- plan, threats, provenance ---------------------------------------------------------------------------------------


def plan(*made: Plan) -> Html:
    """Show what will be measured before it is: arms, blocks, expected time, what was merged and what is missing."""
    return Html("".join(map(_sweep, made)))


def _sweep(made: Plan) -> str:
    asked = ", ".join(spoken(work.text) for work in made.workloads)
    lines = "".join(f"<li>{_esc(line)}</li>" for line in (asked, *made.summary().splitlines()))
    arms = table_html(made.frame(), "The arms")
    return f"<ul>{lines}</ul><details><summary>The {len(made.arms)} arms</summary>{arms}</details>"


def threats(rows: pd.DataFrame, plans: Sequence[Plan], dones: Sequence[Done], found: Sequence[Verdict] = ()) -> Html:
    """List what weakens the figures: failed, spoiled, unmeasured, gates that did not bite, machine settings."""
    items = list(_rows_threats(rows))
    for made, done in zip(plans, dones, strict=True):
        if done.stopped:
            items.append(f"A sweep of {made.trials} trials ended early: {_esc(done.stopped)}.")
    if again := sum(done.spoiled_blocks for done in dones):
        items.append(f"Blocks run once more because a trial was spoiled: {again}; both are kept.")
    if names := ", ".join(dict.fromkeys(f"{v.arm} on {v.workload}" for v in found if v.bite is False)):
        items.append(f"Gates that changed no counter and no byte: {_esc(names)}.")
    items += [f"Left out to fit the budget: {_esc(sentence)}" for made in plans for sentence in made.left_out]
    items += [f"Not measured: {_esc(n)}. {_esc(remedy)}" for made in plans for n, remedy in made.missing.items()]
    items += [_finding(one) for ledger in {made.ledger for made in plans} for one in findings(rows, ledger)]
    items += [f"Merged: {_esc(sentence)}" for made in plans for sentence in made.merged]
    inside = "".join(f"<li>{item}</li>" for item in dict.fromkeys(items)) or "<li>None found.</li>"
    return Html(f"<ul>{inside}</ul>")


def findings_list(found: Sequence[machine.Finding]) -> Html:
    """Say what about a machine spoils figures, as `machine.checks` gives it."""
    if not found:
        return Html("<p>Nothing found that makes figures unstable.</p>")
    return Html(f"<ul>{''.join(f'<li>{_finding(one)}</li>' for one in found)}</ul>")


def _finding(found: machine.Finding) -> str:
    rest = _esc(f": {found.found}. It matters because {found.effect}. Remedy: {found.remedy}")
    return f"<strong>{_esc(found.subject)}</strong>" + re.sub(r"`([^`]+)`", r"<code>\1</code>", rest)


def findings(rows: pd.DataFrame, ledger: Path) -> list[machine.Finding]:
    """Tell what was unquiet about the machine when the rows were measured; of several sessions the last word counts."""
    found: dict[str, machine.Finding] = {}
    for record in _sessions(rows, ledger):
        facts = {name: value for name, value in record.facts.items() if name in machine.Machine.model_fields}
        found |= {finding.subject: finding for finding in machine.checks(machine.Machine.model_validate(facts))}
    return list(found.values())


def _sessions(rows: pd.DataFrame, ledger: Path) -> list[store.Provenance]:
    """Provenance records of these rows, in the order of the ledger; none where nothing was measured."""
    wanted = set(rows["provenance"])
    return [record for key, record in store.provenance(ledger).items() if key in wanted] if wanted else []


def _rows_threats(rows: pd.DataFrame) -> Iterable[str]:
    bad = rows[rows["status"] != "ok"]
    for row in bad.head(20).to_dict("records"):
        tail = str(row["stderr_tail"]).strip()
        said = f"<details><summary>What it printed</summary><pre>{_esc(tail)}</pre></details>" if tail else ""
        where = f"{row['arm']} on {row['workload']}, block {row['block']}"
        ends = {"exit": row["exit_status"], "signal": row["signal"]}
        how = ", ".join(f"{name} {value:g}" for name, value in ends.items() if pd.notna(value))
        yield _esc(f"{str(row['status']).capitalize()}: {where}{how and f' ({how})'}.") + said
    if len(bad) > 20:
        yield f"and {len(bad) - 20} more trials that failed."
    spoiled = rows[stats.spoiled(rows)]
    if len(spoiled):
        common = "; ".join(_common([str(reason) for reasons in spoiled["spoiled"] for reason in reasons]))
        counted = len(spoiled.index.intersection(stats.usable(rows).index))
        fate = f"{counted} of them count all the same, since too few quiet ones remain" if counted else "not counted"
        yield _esc(f"Spoiled trials: {len(spoiled)} of {len(rows)}, {fate}. Reasons: {common}.")
    blocks = rows.loc[rows["status"] == "ok", "block"].nunique()
    if blocks < 5:
        yield f"Only {_plural(blocks, 'block')}: intervals are wide. PROFILE=quick or full measures more."


def _common(reasons: Sequence[str]) -> Iterable[str]:
    """Give the commonest reasons, those that differ in their figures alone counted as one."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"\d[\d.,]*", "0", reason), []).append(reason)
    for alike in sorted(kinds.values(), key=len, reverse=True)[:5]:
        yield alike[0] + (f" (the like {len(alike)} times)" if len(alike) > 1 else "")


def provenance(rows: pd.DataFrame, ledger: Path) -> Html:
    """Tell where the rows come from: machine, compiler, revision, settings; several sessions are told apart."""
    served: dict[str, dict[str, JsonValue]] = {}
    facts: dict[str, list[str]] = {"host": [], "measured": []}
    for record in _sessions(rows, ledger):
        facts["host"].append(record.host)
        facts["measured"].append(f"{record.started:%Y-%m-%d %H:%M} UTC")
        facts_of_it = dict(record.facts)
        for label, allocator in _mapping(facts_of_it.pop("allocators", None)).items():
            known = {name: value for name, value in _mapping(allocator).items() if name in ALLOCATOR_FACTS}
            served[f"{label} {known}"] = {"arm": label, **known}
        for name, value in _flat(facts_of_it):
            facts.setdefault(name.replace("_", " "), []).append(value)
    terms = "".join(f"<dt>{_esc(n)}</dt><dd>{_esc('; '.join(dict.fromkeys(v)))}</dd>" for n, v in facts.items())
    table = table_html(pd.DataFrame(list(served.values())), "The allocators") if served else ""
    return Html(f'<dl class="facts">{terms}</dl>{table}')


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _flat(facts: Mapping[str, JsonValue], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list):
            yield prefix + name, ", ".join(map(str, value))
        elif isinstance(value, bool):
            yield prefix + name, "yes" if value else "no"
        else:
            yield prefix + name, str(value)


# ---- to take away ----------------------------------------------------------------------------------------------------


def downloads(rows: pd.DataFrame, study: str) -> Html:
    """Link to the rows themselves, held in the page: flat CSV, and JSON with every field."""
    flat = rows.drop(columns=NESTED).assign(spoiled=rows["spoiled"].map("; ".join))
    csv = flat.to_csv(index=False).encode()
    whole = rows.to_json(orient="records", date_format="iso").encode()
    links = ", ".join(
        _link(f"{study}.{kind}", mime, content)
        for kind, mime, content in (("csv", "text/csv", csv), ("json", "application/json", whole))
    )
    return Html(f"<p>The {len(rows)} rows behind this page: {links}.</p>")


def _link(name: str, mime: str, content: bytes) -> str:
    if len(content) > PLAIN_LIMIT:
        name, mime, content = f"{name}.gz", "application/gzip", gzip.compress(content, mtime=0)
    data = base64.b64encode(content).decode()
    return (
        f'<a download="{_esc(name)}" href="data:{mime};base64,{data}">{_esc(name)}</a> ({len(content) / 1024:.0f} KiB)'
    )


def rerun(notebook: str, parameters: Mapping[str, object]) -> Html:
    """Give the exact command that makes this page again from the same ledger, or measures what it lacks."""
    given = [f"-p {shlex.quote(f'{name}={_spelt(value)}')}" for name, value in parameters.items() if value is not None]
    command = " ".join([f"hakmem report {notebook}", *given])
    return Html(f'<pre class="command" tabindex="0">{_esc(command)}</pre>')


def _spelt(value: object) -> str:
    """Write a parameter as `hakmem report -p` reads it: JSON, or a word that is no JSON."""
    return value if isinstance(value, str) and WORD.fullmatch(value) else json.dumps(value)
