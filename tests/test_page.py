"""What a page holds, and how it looks and behaves in a real browser: wide and narrow, light, dark and printed."""

import base64
import dataclasses
import gzip
import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from ledgers import rows, study
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe
from typer.testing import CliRunner

from hakmem import campaign, cli, paths, planning, plots, store, verdict
from hakmem.pages import document, page, report, shelf
from hakmem.studies import explorer
from hakmem.study import CampaignSpec
from hakmem.system import machine

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
CHARTS = 6
PANELS = 5 * 4 + 1
WORDS = ("GO", "NO-GO", "NEUTRAL", "INCONCLUSIVE", "NOT-APPLICABLE", document.FAILED)
screens = pytest.mark.parametrize("width", [360, 800, 1600])
schemes = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Rows of which one trial died, printing a script, and one was spoiled."""
    trials = study(blocks=3)
    dead = {"status": "failed", "exit_status": 134, "signal": 6, "ops_per_s": None, "stderr_tail": EVIL}
    trials[0] = trials[0].model_copy(update=dead)
    trials[1] = trials[1].model_copy(update={"spoiled": ("stolen CPU time 12 %",)})
    return rows(trials)


@pytest.fixture(scope="module")
def built(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part there is, made by the template from outputs as a kernel gives them."""
    folder = tmp_path_factory.mktemp("page")
    spec = CampaignSpec.checked({"workloads": "ramp", "allocators": "hakmem", "profile": "smoke"})
    plan = planning.plan(spec, ledger=folder / "study.jsonl")
    done = campaign.Done(ledger=plan.ledger, measured=1, reused=0, spoiled_blocks=1, stopped=EVIL)
    facts = machine.probe("bench-1").model_dump(mode="json")
    with store.Ledger(plan.ledger) as writer:
        writer.append(store.Provenance(id="p1", host="bench-1", started=table["started"][0], facts=facts))
    found, prices = verdict.lean(table), verdict.prices(table)
    charts = [plots.frontier(table, prices), plots.forest(table, found), plots.run_order(table), plots.phases(table)]
    parts: list[Any] = [page.plan(plan), page.banner(found), page.prices(prices), *charts, plots.syscalls(table)]
    parts += [explorer.Explorer(table), page.verdicts(found), page.threats(table, [plan], [done], found)]
    parts += [page.provenance(table, plan.ledger), page.findings_list(page.findings(table, plan.ledger))]
    parts += [page.downloads(table, "study"), page.rerun("20_lean_sweep", {"study": EVIL})]
    outputs = [new_output("display_data", data=bundle(part)) for part in parts]
    outputs += [new_output("stream", name="stderr", text=EVIL), new_output("stream", name="stdout", text=EVIL)]
    outputs += [new_output("execute_result", data={"text/plain": EVIL})]
    outputs += [new_output("error", ename="ValueError", evalue=EVIL, traceback=[EVIL])]
    cells = [new_markdown_cell("# A study\n\n## Parts"), new_code_cell(f"text = {EVIL!r}", outputs=outputs)]
    nbformat.write(new_notebook(cells=cells), folder / "study.ipynb")
    return report.html(folder / "study.ipynb", folder / "study.html")


def bundle(part: Any) -> dict[str, Any]:
    """What a kernel sends for an output."""
    return part._repr_mimebundle_() if hasattr(part, "_repr_mimebundle_") else {"text/html": part._repr_html_()}


# ---- its parts -------------------------------------------------------------------------------------------------------


def test_the_banner_gives_word_icon_rule_effect_and_interval(table: pd.DataFrame) -> None:
    found = verdict.lean(table)
    word, arm, shown = verdict.overall(found)
    text = page.banner(found).text
    for part in (word, verdict.ICONS[word], verdict.COLOURS[word], arm, shown.rule, f"{shown.effect.estimate:+.1f} %"):
        assert str(part) in text
    assert text.count('class="chip"') == len(found)


def test_a_crash_of_the_baseline_leaves_a_page() -> None:
    gone = {"status": "failed", "ops_per_s": None, "peak_rss_kb": None, "end_rss_kb": None, "phases": ()}
    table = rows([t.model_copy(update=gone) if t.role == "baseline" else t for t in study(blocks=3)])
    found = verdict.lean(table)
    assert {v.word for v in found} == {"INCONCLUSIVE"} and "not measured" in page.banner(found).text
    assert "was not measured beside the baseline" in page.prices(verdict.prices(table)).text


def test_the_headline_of_a_sweep_says_the_price(table: pd.DataFrame) -> None:
    found = verdict.lean(rows(study(blocks=8)))
    prices = verdict.prices(rows(study(blocks=8)))
    [price] = prices[(prices["arm"] == "hakmem LEAN DONTNEED 10 MB") & (prices["workload"] == "ramp")]["percent_per_mb"]
    card = page.banner(found, prices).card
    assert card is not None and card["headline"].startswith("A saved megabyte costs in throughput ")
    assert f", {price:.2g} % on ramp (+0.0" in card["headline"] and card["headline"] in page.banner(found, prices).text
    assert page.banner(found).card is not None and "megabyte" not in page.banner(found).text
    one = rows(study(blocks=1))
    unpriced = page.banner(verdict.lean(one), verdict.prices(one)).card
    assert unpriced is not None and unpriced["headline"].startswith("No saved megabyte has a price here")
    few = page.banner(verdict.lean(one)).text
    assert "; 1 block, " in few and "About 1 more block would settle it." in few


def test_threats_are_those_of_every_sweep(table: pd.DataFrame, tmp_path: Path) -> None:
    asked = {"workloads": "ramp", "allocators": "hakmem", "profile": "smoke"}
    first = planning.plan(CampaignSpec.checked(asked), ledger=tmp_path / "none.jsonl")
    second = first.model_copy(update={"missing": {"tcmalloc": "install it"}, "left_out": ("mimalloc: no time",)})
    calm = campaign.Done(ledger=first.ledger, measured=1, reused=0, spoiled_blocks=1, stopped=None)
    cut = calm.model_copy(update={"spoiled_blocks": 2, "stopped": "the budget of 2 min is spent"})
    text = page.threats(table.iloc[:0], [first, second], [calm, cut]).text
    assert f"A sweep of {second.trials} trials ended early: the budget of 2 min is spent." in text
    assert "trial was spoiled: 3;" in text and "tcmalloc. install it" in text and "mimalloc: no time" in text
    assert (
        text.count("Merged: ") == len(first.merged)
        and page.plan(first, second).text.count("<details>")
        == page.plan(first, second).text.count("<li>ramp</li>")
        == 2
    )


def test_findings_are_those_of_the_machine_that_measured(tmp_path: Path) -> None:
    trials, ledger = study(blocks=2), tmp_path / "study.jsonl"
    there = machine.probe("bench-1").model_dump(mode="json") | {"thp": "always", "swap_mib": 4321, "build": "b1"}
    with store.Ledger(ledger) as writer:
        for identity, facts in (("p1", there), ("p2", there | {"swap_mib": 9876})):
            writer.append(store.Provenance(id=identity, host="bench-1", started=trials[0].started, facts=facts))
    found = page.findings(rows(trials), ledger)
    assert [f for f in found if "4321" in f.found] and not [f for f in found if "9876" in f.found]
    assert found == machine.checks(machine.Machine.model_validate({k: v for k, v in there.items() if k != "build"}))


def test_a_command_in_a_finding_is_set_as_one_and_nothing_else_is_markup() -> None:
    found = machine.Finding(subject="load", found="<b>", effect="it is slow", remedy="stop what `top` shows")
    text = page.findings_list([found]).text
    assert "what <code>top</code> shows" in text and "&lt;b&gt;" in text and "`" not in text


def test_provenance_is_short_and_names_every_allocator(tmp_path: Path) -> None:
    trials, ledger = study(blocks=2), tmp_path / "study.jsonl"
    allocator = {"version": "2.0.9", "linkage": "preload", "library": "/usr/lib/libmimalloc.so", "sha256": "ab12"}
    facts = {"smaps_rollup": True, "allocators": {"mimalloc": allocator | {"layouts": []}}, "cpu": "A <fast> one"}
    with store.Ledger(ledger) as writer:
        writer.append(store.Provenance(id="p1", host="bench-1", started=trials[0].started, facts=facts))
    text = page.provenance(rows(trials), ledger).text
    assert "<dt>smaps rollup</dt><dd>yes</dd>" in text and "A &lt;fast&gt; one" in text and "layouts" not in text
    assert text.count("<tr>") == 2 and all(f"<td>{value}</td>" in text for value in ("mimalloc", *allocator.values()))


def test_reasons_that_differ_in_figures_alone_are_one() -> None:
    reasons = [f"{n} other threads wanted to run on 2 core(s)" for n in (15, 18, 19)] + ["stolen CPU time 12 %"]
    assert list(page._common(reasons)) == [f"{reasons[0]} (the like 3 times)", "stolen CPU time 12 %"]


def test_rows_can_be_taken_away(table: pd.DataFrame) -> None:
    links = dict(
        re.findall(
            r'download="(study\.\w+(?:\.gz)?)" href="data:[^;]+;base64,([^"]+)"', page.downloads(table, "study").text
        )
    )
    contents = {name: base64.b64decode(data) for name, data in links.items()}
    plain = {
        name.removesuffix(".gz"): gzip.decompress(c) if name.endswith(".gz") else c for name, c in contents.items()
    }
    assert len(json.loads(plain["study.json"])) == len(table)
    assert plain["study.csv"].count(b"\n") == len(table) + 1 and b"stolen CPU time 12 %" in plain["study.csv"]


@pytest.mark.parametrize("path", sorted(paths.notebooks().glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_command_of_a_page_means_its_parameters(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(report, "render", lambda *given: made.append(given) or Path("page.html"))
    spec = report.MODELS[path.stem].checked({})
    given = spec.model_dump(mode="json")
    words = html.unescape(re.sub("<[^>]+>", "", page.rerun(path.stem, given).text))
    assert CliRunner().invoke(cli.app, shlex.split(words)[1:]).exit_code == 0
    [(notebook, read, _)] = made
    assert notebook == path.stem and read == {name: value for name, value in given.items() if value is not None}
    assert report.MODELS[path.stem].checked(read) == spec


@pytest.mark.parametrize("value", [EVIL, "true", "12", "[a, b]", " x ", "it's", {"LEAN": ["a b", 1]}, True, 0.5])
def test_odd_parameters_survive_the_command_line(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(report, "render", lambda *given: made.append(given) or Path("page.html"))
    words = html.unescape(re.sub("<[^>]+>", "", page.rerun("20_lean_sweep", {"study": value}).text))
    assert CliRunner().invoke(cli.app, shlex.split(words)[1:]).exit_code == 0
    assert made[0][1] == {"study": value}


def test_the_page_begins_with_its_verdict_or_its_failure(built: Path) -> None:
    head, _, rest = built.read_text().partition('class="glance"')  # a step of this one failed
    assert 'href="#failed"' in rest[:60] and "! FAILED" in rest[:300] and "<figure" not in head
    assert 'id="failed"' in rest and 'id="verdict"' in rest


def test_what_was_printed_is_escaped_and_the_page_is_small(built: Path) -> None:
    text = built.read_text()
    assert EVIL not in text and "<script" not in text and "<img src=x" not in text
    assert (
        text.count("&lt;script&gt;document.title") >= 6
    )  # the dead trial's, the parameter's, the streams', the error's
    assert len(text) < document.SIZE_LIMIT and not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_every_picture_has_words_and_every_chart_a_table(built: Path) -> None:
    text = built.read_text()
    images = re.findall(r"<img ([^>]*)>", text)
    assert len(images) == PANELS and all(re.search(r'alt="[^"]{40,}"', image) for image in images)
    assert text.count("<figure") == text.count("<figcaption>") == CHARTS
    tables = re.findall(r"The figures of this chart</summary>\s*<div [^>]*class=\"scroll\"[^>]*>\s*<table", text)
    assert len(tables) == CHARTS


# ---- in a real browser -----------------------------------------------------------------------------------------------


def asked(browser: Chrome) -> list[str]:
    """Addresses that were requested since the last question, other than the file itself and what it holds."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [address for address in addresses if not address.startswith(("file:", "data:", "chrome:", "about:"))]


@pytest.fixture
def screen(browser: Chrome, request: pytest.FixtureRequest) -> Any:
    """Give the browser a width, a colour scheme and a medium; afterwards it is as before."""

    def see(width: int, *, dark: bool = False, medium: str = "") -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": scheme})

    yield see
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def violations(browser: Chrome) -> list[str]:
    """What axe-core finds: contrast, heading order, landmarks, names of regions, and the rest of WCAG 2 A and AA."""
    browser.set_script_timeout(120)
    axe = Axe(browser)
    axe.inject()
    wanted = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}
    found = axe.run(options=wanted)
    assert {"color-contrast", "heading-order"} <= {rule["id"] for rule in found["passes"]}
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found["violations"] for node in rule["nodes"]]


def test_the_page_asks_a_browser_for_nothing(built: Path, browser: Chrome, tmp_path: Path) -> None:
    asked(browser)
    browser.get(built.as_uri())
    assert asked(browser) == [] and browser.title == "A study"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    loaded = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 100)")
    assert loaded == [True] * PANELS
    greedy = tmp_path / "greedy.html"  # the same instrument does see a request
    greedy.write_text('<img src="http://example.invalid/x.png">')
    browser.get(greedy.as_uri())
    assert asked(browser) == ["http://example.invalid/x.png"]


@screens
@schemes
def test_the_page_fits_and_reads_well(built: Path, browser: Chrome, screen: Any, width: int, dark: bool) -> None:
    screen(width, dark=dark)
    browser.get(built.as_uri())
    for opened in (False, True):  # code and tables hidden, then shown
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = arguments[0])", opened)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        beside = "return [...document.querySelectorAll('figcaption')].every(e => e.scrollWidth <= e.clientWidth)"
        assert browser.execute_script(beside)
    panel = browser.execute_script("return document.images[0].clientWidth")
    assert panel > {360: 320, 800: 600, 1600: 500}[width]
    shown = browser.execute_script("return document.images[0].currentSrc")
    paper = re.search(rb"fill: (#[0-9a-f]{6})", base64.b64decode(shown.split(",")[1]))
    assert paper is not None and paper[1] == (b"#12161c" if dark else b"#ffffff")


@schemes
def test_axe_finds_nothing_on_a_page(built: Path, browser: Chrome, screen: Any, dark: bool) -> None:
    screen(800, dark=dark)
    browser.get(built.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    # Rows like those above them are as readable: axe would look at each cell of hundreds.
    rest = "tbody tr:nth-child(n+4):not([class], [style], :has([class], [style]))"
    browser.execute_script("document.querySelectorAll(arguments[0]).forEach(row => row.remove())", rest)
    assert violations(browser) == []


def test_axe_sees_what_is_wrong(browser: Chrome, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    text = '<h2>First</h2><h4>Second</h4><p>fine</p><p style="color:#999;background:#fff">faint</p><img src="data:,">'
    bad.write_text(f"<!DOCTYPE html><html lang=en><title>Bad</title><main><h1>Title</h1>{text}</main></html>")
    browser.get(bad.as_uri())
    assert {line.split(":")[0] for line in violations(browser)} == {"color-contrast", "heading-order", "image-alt"}


def test_a_printed_page_has_its_tables_and_no_code(built: Path, browser: Chrome, screen: Any) -> None:
    hidden = (
        "return [...document.querySelectorAll(arguments[0])].map(e => e.checkVisibility({contentVisibilityAuto: true}))"
    )
    screen(800, dark=True)
    browser.get(built.as_uri())
    tables, code = "details:not(.code, .log) table", "details.code .highlight"
    assert set(browser.execute_script(hidden, tables)) == {False}
    screen(800, dark=True, medium="print")
    WebDriverWait(browser, 20).until(lambda _: set(browser.execute_script(hidden, tables)) == {True})
    assert set(browser.execute_script(hidden, code)) == {False}
    paper, image = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor, document.images[0].currentSrc]"
    )
    assert paper == "rgb(255, 255, 255)" and b"fill: #ffffff" in base64.b64decode(image.split(",")[1])


@pytest.fixture(scope="module")
def index(built: Path) -> Path:
    cards = [dataclasses.replace(shelf.card(built, built), word=word, headline=EVIL) for word in WORDS]
    return shelf.write(cards, built.with_name("index.html"))


@screens
@schemes
def test_the_index_of_all_reports_fits_and_reads_well(
    index: Path, browser: Chrome, screen: Any, width: int, dark: bool
) -> None:
    screen(width, dark=dark)
    asked(browser)
    browser.get(index.as_uri())
    assert asked(browser) == [] and browser.title == "hakmem: all reports"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.images.length") == len(WORDS)
    assert violations(browser) == []
    browser.find_element("css selector", ".card a").click()
    assert browser.current_url == index.with_name("study.html").as_uri()
