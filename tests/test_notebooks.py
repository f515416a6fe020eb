"""Notebooks: thin and clean as committed; executed on real drivers, their output data asserted."""

import html
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import pytest

from hakmem import campaign, crosscheck, paths, planning, store, verdict
from hakmem.pages import report
from hakmem.studies import callgrind, pipeline, promotion, rebase, reserve, rss_tax, scorecard, shapes, soaks, start_up
from hakmem.study import CampaignSpec
from hakmem.system import container

NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))
TINY = {"workloads": ["mixed:ws=400,cycles=300000", "ramp:n=20000,churn_ops=500"], "blocks": 2, "profile": "smoke"}


@pytest.fixture
def study() -> Iterator[str]:
    """The name of a ledger of the test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    (paths.runs() / f"{name}.jsonl").unlink(missing_ok=True)
    shutil.rmtree(paths.runs() / f"{name}.series", ignore_errors=True)


def papermill_alone(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Execute 20_lean_sweep as somebody who knows nothing but papermill."""
    source = str(paths.notebooks() / "20_lean_sweep.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", source, str(output), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_thin_and_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.language_info.name == "python"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and all(cell.outputs == [] and cell.execution_count is None for cell in code)
    for cell in code:
        if cell is not tagged[0]:  # data, one parameter a line, as papermill wants it
            assert len(cell.source.splitlines()) <= 8
        assert not re.search(r"^\s*(async def|def|class)\b", cell.source, re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_knows_every_parameter(path: Path) -> None:
    model = report.MODELS[path.stem]
    assert set(papermill.inspect_notebook(str(path))) == set(model.model_fields)


def test_the_lean_sweep_measures_decides_and_resumes(study: str, tmp_path: Path) -> None:
    given = TINY | {
        "study": study,
        "decommit": ["DONTNEED", "OFF"],
        "target_mb": [8],
        "allocators": ["hakmem", "system"],
    }
    text = report.render("20_lean_sweep", given, tmp_path / "page.html").read_text()
    ledger = paths.runs() / f"{study}.jsonl"
    rows = store.load(ledger)
    arms = {"hakmem", "hakmem LEAN DONTNEED 8 MB", "hakmem LEAN OFF", "system"}
    assert set(rows["arm"]) == arms and set(rows["status"]) == {"ok"}
    assert rows.groupby(["workload", "arm", "role"])["block"].nunique().min() >= 2
    lean = rows[(rows["arm"] == "hakmem LEAN DONTNEED 8 MB") & rows["workload"].str.startswith("ramp")]
    base = rows[(rows["role"] == "baseline") & rows["workload"].str.startswith("ramp")]
    assert lean["end_rss_mb"].max() < base["end_rss_mb"].min()  # Lean gives back what the ramp has freed
    found = verdict.lean(rows, target_mb=8)
    assert len(found) == 4 and all(v.word in text and v.arm in text and v.effect.words() in text for v in found)
    assert (
        "What a megabyte costs here." in text
        and "56.8" in text
        and text.count('class="chart"') == 8
        and "hakmem report 20_lean_sweep -p study=" in text
        and "hakmem ahead by, points" in text
        and "The leanest setting for what can be spared" in text
    )
    assert "This step failed" not in text and "<h2" in text

    # Again, by papermill alone, whose YAML makes OFF false: nothing is measured twice, no arm is another one.
    lists = "decommit: [DONTNEED, OFF], target_mb: 8, allocators: [hakmem, system], blocks: 2"
    yaml = f"{{study: {study}, {lists}, workloads: {TINY['workloads']}}}"
    done = papermill_alone(tmp_path / "again.ipynb", "-p", "profile", "smoke", "-y", yaml)
    assert done.returncode == 0, done.stderr[-2000:]
    again = store.load(ledger)
    assert len(again[again["build"] == rows["build"].iloc[0]]) == len(rows) and set(again["arm"]) == arms


def test_a_gate_is_judged_beside_the_published_figure(study: str, tmp_path: Path) -> None:
    given = {"study": study, "workloads": ["mixed:ws=400"], "values": ["OFF", "TOUCH"], "gate": "SS_PREWARM"}
    given["counted"] = "mixed:ws=400"
    text = report.render("50_gate_ab", given | {"profile": "smoke"}, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["arm"]) == {"hakmem", "hakmem SS_PREWARM=OFF", "hakmem SS_PREWARM=TOUCH"}
    found = {v.arm: v for v in verdict.ab(rows)}
    touch = found["hakmem SS_PREWARM=TOUCH"]
    assert touch.bite and touch.memory and touch.memory.estimate > 100  # touched SuperSlabs are resident
    assert all(v.word in text and v.bite_words.split("→")[0].strip() in text for v in found.values())
    assert all(v.effect.words() in text for v in found.values())
    charts = 4 if callgrind.why_not() else 5
    assert "-0.46" in text and text.count('class="chart"') == charts and "This step failed" not in text


def test_the_tour_ends_with_a_chart_and_a_verdict(study: str, tmp_path: Path) -> None:
    given = {"study": study, "events": 20_000, "profile": "smoke"}
    text = report.render("00_start_here", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["status"]) == {"ok"} and {"hakmem", "system"} <= set(rows["allocator"])
    assert set(rows["workload"]) == {"mixed:ws=400", "trace:build/traces/tour-20000-1.trace"}
    word, sentences = rebase.judge(rebase.ratios(rows), "system", "Standard")
    assert word in text and sentences[0].split("(")[0] in html.unescape(text)
    assert text.count('class="chart"') == 3 and "This step failed" not in text


def test_what_a_start_costs(study: str, tmp_path: Path) -> None:
    given = {"study": study, "processes": 3, "bursts_mb": [8, 30], "container_mb": 24, "profile": "smoke"}
    text = report.render("55_start_up", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    started = rows[rows["workload"].str.startswith("start_up")]
    assert set(started["status"]) == {"ok"} and {start_up.OFF, start_up.TOUCH, "system"} <= set(started["arm"])
    word, sentences = start_up.judge(started)
    assert word in text and "(extrapolated from 3)" in sentences[2] and sentences[2] in html.unescape(text)
    assert text.count('class="chart"') == 4 and "32.88" in text and "This step failed" not in text
    held = rows[rows["workload"].str.startswith("container")]
    if container.why_not():
        assert held.empty and "no memory cgroup" in text
    else:
        assert set(held[held["workload"].str.contains("=8,")]["status"]) == {"ok"}
        assert set(held[held["workload"].str.contains("=30,")]["status"]) == {"killed"}


def test_empty_memory_is_priced_one_gate_at_a_time(study: str, tmp_path: Path) -> None:
    small = {"workloads": ["battle:n=20000"], "battle": "battle:n=100000", "profile": "smoke"}
    text = report.render("60_reserve_and_magazines", small | {"study": study}, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["status"]) == {"ok"}
    tried = rows[(rows["workload"] == "battle:n=20000") & (rows["role"] == "arm")]
    values = {
        (name, gates[f"HAKMEM_{name}"])
        for gates in tried["gates"]
        for name in reserve.GATES
        if f"HAKMEM_{name}" in gates
    }
    assert values == {(name, value) for name, swept in reserve.GATES.items() for value in swept}
    assert all(gates["HAKMEM_SS_MEM_LEAN_DECOMMIT"] == "DONTNEED" for gates in tried["gates"])
    held = rows[rows["workload"] == "battle:n=100000,census=1"]
    today = reserve.battle(held)
    divided = reserve.breakdown(held).set_index("arm").loc["hakmem"]
    assert divided[["data", *reserve.CATEGORIES]].sum() == pytest.approx(divided["peak"], abs=0.3)
    assert abs(divided["other"]) < 0.5  # MB that no part accounts for
    assert today[("expected_data", "1M x 16 B")] == pytest.approx(2.29, abs=0.01)  # a tenth of the published test
    spec = reserve.ReserveSpec.checked(small | {"study": study})
    found = {gate: campaign.rows(planning.plan(one)) for gate, one in spec.campaigns().items()}
    assert reserve.judge(reserve.trade(found))[1][0] in html.unescape(text)
    assert " of 9 settings surely gain" in text and "program baseline" in text and "This step failed" not in text


def test_every_megabyte_is_found(study: str, tmp_path: Path) -> None:
    given = {"study": study, "ws": 40000, "prefault": 0, "profile": "smoke", "blocks": 1}
    text = report.render("10_rss_tax", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["status"]) == {"ok"} and {"hakmem", "system", "hakmem SS_PREWARM=TOUCH"} <= set(rows["arm"])
    asked = campaign.rows(planning.plan(rss_tax.TaxSpec.checked(given).campaign()))  # as on the page: no gate's A/B
    word, sentences = rss_tax.judge(asked)
    assert word == "GO" and re.search(r"in \d+ trials with at least 10 MB live", sentences[0])
    touched = rss_tax.parts(rows).set_index("key").loc[["hakmem SS_PREWARM=TOUCH"]]
    assert (touched["empty slabs"] > 3).all()  # eight SuperSlabs, some of which nothing is in
    assert text.count('class="chart"') == 4 and sentences[1].split(":")[0] in text and "This step failed" not in text


def test_blocks_are_followed_through_the_stages(study: str, tmp_path: Path) -> None:
    given = {"study": study, "workloads": ["pc:cycles=100000"], "counted": ["mixed:ws=50"], "profile": "smoke"}
    text = report.render("70_free_pipeline", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    followed = rows[rows["workload"] == "pc:cycles=100000"]
    assert set(rows["status"]) == {"ok"} and set(followed["allocator"]) == {pipeline.BUILD}
    flows = pipeline.table(followed).set_index(["arm", "what"])["estimate"]
    for arm in (pipeline.BUILD, "DONTNEED 10 MB"):
        assert 0 < flows[arm, "misses"] < 100 and flows[arm, "reused"] + flows[arm, "returned"] == pytest.approx(1000)
    assert flows["DONTNEED 10 MB", "refill_depot"] == 0  # Lean keeps no chains at rest
    word, sentences = pipeline.judge(pipeline.table(followed), rows[rows["workload"] == "larson"])
    assert word in text and sentences[0] in html.unescape(text) and "published was +19 %" in text
    charts = 4 if callgrind.why_not() else 5
    assert text.count('class="chart"') == charts and "This step failed" not in text


def test_presets_are_weighed_on_both_builds(study: str, tmp_path: Path) -> None:
    tiny = {"workload": "mixed:ws=400,cycles=300000", "budget_cycles": 1_000_000, "tail_seconds": 0.2}
    given = tiny | {"study": study, "profile": "smoke"}
    text = report.render("25_balanced_promotion", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["status"]) == {"ok"} and set(rows["allocator"]) == {"hakmem_minimal", "hakmem"}
    assert {gates.get("HAKMEM_SS_MEM_LEAN_DECOMMIT") for gates in rows["gates"]} == {None, "OFF"}
    calls = promotion.budget(rows[rows["workload"] == "mixed:ws=400,cycles=1000000"])
    assert set(calls["preset"]) == set(soaks.NAMES.values()) and (calls["operations"] == 1_000_000).all()
    assert len(promotion.tails(rows, paths.runs() / f"{study}.jsonl")) == 2 * 3
    short = rows[rows["workload"] == tiny["workload"]]
    found = {name: short[short["allocator"] == build] for name, build in promotion.BUILDS.items()}
    assert ", ".join(f"{name} {one.words()}" for name, one in promotion.memory(found).items()) in text
    assert text.count("<td>strace</td>") == (0 if crosscheck.why_not() else 2)  # FAST's calls, of each preset
    assert "Throughput, BALANCED against SAFE: FAST " in text and "56.8" in text
    assert text.count('class="chart"') == 4 and "This step failed" not in text


def test_soaks_are_held_to_the_published_rule(study: str, tmp_path: Path) -> None:
    given = {"study": study, "minutes": 0.02, "profile": "smoke"}
    text = report.render("30_soak", given, tmp_path / "page.html").read_text()
    ledger = paths.runs() / f"{study}.jsonl"
    rows = store.load(ledger)
    assert set(rows["status"]) == {"ok"} and set(rows["role"]) == set(soaks.NAMES)
    table = soaks.table(rows, ledger)
    assert (table["epochs"] >= 50).all() and (table["p1 Mops/s"] <= table["p50 Mops/s"]).all()
    word, sentences = soaks.judge(table)
    assert word in text and all(one in html.unescape(text) for one in sentences) and "5.38" in text  # published
    assert all(f"<td>{value:.4g}</td>" in text for value in table["CV %"])
    assert text.count('class="chart"') == 3 and "This step failed" not in text


def test_the_scorecard_reads_what_the_studies_measured(study: str, tmp_path: Path) -> None:
    tiny = {
        "study": study,
        "workloads": "mixed:ws=400",
        "allocators": "hakmem",
        "target_mb": 10,
        "decommit": "DONTNEED",
    }
    campaign.run(planning.plan(CampaignSpec.checked(tiny | {"profile": "smoke"})), quiet=True)
    text = report.render(
        "90_scorecard", {"sweep": study, "rebase": f"{study}-none", "soak": f"{study}-none"}, tmp_path / "page.html"
    ).read_text()
    table = scorecard.card(scorecard.load({"sweep": paths.runs() / f"{study}.jsonl", "rebase": tmp_path / "none"}))
    newest = scorecard.latest(table).set_index("target")
    assert newest.loc["peak RSS, speed first", "verdict"] == "GO"
    assert (newest["verdict"] == "NOT-APPLICABLE").sum() == len(rebase.MILESTONES) + 1  # and the soaks
    assert (
        all(one in html.unescape(text) for one in scorecard.judge(table)[1])
        and "a trend needs two" in text
        and "32.88" in text
    )


def test_hakmem_is_held_to_its_peer(study: str, tmp_path: Path) -> None:
    given = {"study": study, "workloads": ["mixed:ws=400,cycles=200000", "pc:cycles=50000"], "peer": "system"}
    given["counted"] = "mixed:ws=400"
    text = report.render("40_rebase", given | {"profile": "smoke"}, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["linkage"]) == {"preload", "none"} and set(rows["status"]) == {"ok"}
    table = rebase.ratios(rows)
    shares = table[table["peer"] == "system"]
    assert len(shares) == 2 * 3 and (shares["percent"] > 0).all()
    word, sentences = rebase.judge(table, "system")
    assert word in text and all(one in html.unescape(text) for one in sentences) and "120.5" in text  # published
    fast = table[table["build"] == "FAST"]
    spans = [rebase.span(*line) for line in zip(fast["percent"], fast["low"], fast["high"], strict=True)]
    assert all(f"<td>{one}</td>" in text for one in spans)
    if lacks := callgrind.why_not():
        assert html.escape(lacks) in text and text.count('class="chart"') == 2
    else:
        assert "takes the fewest instructions" in text and text.count('class="chart"') == 3
    assert "This step failed" not in text


def test_shapes_are_drawn_and_the_winner_explained(study: str, tmp_path: Path) -> None:
    works = ["gen:zipf,events=60k,live=500", "gen:producer_consumer,events=60k", "trace:data/traces/lua.trace.zst"]
    given = {"study": study, "workloads": works, "peer": "system", "profile": "smoke"}
    text = report.render("80_traces", given, tmp_path / "page.html").read_text()
    rows = store.load(paths.runs() / f"{study}.jsonl")
    assert set(rows["workload"]) == {*works[:2], f"{works[2]},repeat=2"} and set(rows["status"]) == {"ok"}
    traces = shapes.portraits([*works[:2], f"{works[2]},repeat=2"], "smoke")
    assert [one.name for one in traces] == ["zipf live=500", "producer_consumer", "lua"]
    assert traces[1].summary["cross_thread_share"] == 1 and traces[0].summary["peak_blocks"] == 500
    why = shapes.reasons(rows, traces, "system")
    assert list(why["trace"]) == [one.name for one in traces] and (why["ns, hakmem"] > 0).all()
    assert all(html.escape(one) in text for one in why["why"])
    word, sentences = rebase.judge(rebase.ratios(rows), "system")
    assert word in text and sentences[0].split("(")[0] in html.unescape(text)
    assert text.count('class="chart"') == 3 and "lua" in text and "This step failed" not in text


def test_papermill_alone_refuses_a_parameter_that_is_mistyped(study: str, tmp_path: Path) -> None:
    done = papermill_alone(tmp_path / "out.ipynb", "-p", "study", study, "-p", "decomit", "OFF")
    assert done.returncode != 0
    assert "this notebook has no parameter 'decomit' (did you mean decommit?)" in done.stderr
    assert not (paths.runs() / f"{study}.jsonl").exists()
