"""Pages: checked parameters, own interpreter, saved failures, and one file that asks a real browser for nothing."""

import base64
import dataclasses
import gzip
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from ledgers import rows, study
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from hakmem import machine, page, plots, report, shelf, store, verdict
from hakmem.campaign import CampaignSpec
from hakmem.errors import BadInput, BadParameter, MissingTool, ReportFailed

EVIL = "<script>document.title='owned'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="chromium and chromedriver are not installed"
)


def notebook(path: Path, *cells: str, parameters: str = "value = 1") -> Path:
    """A notebook with a parameters cell and these code cells."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    made = new_notebook(cells=[new_markdown_cell("# A study"), first, *(new_code_cell(cell) for cell in cells)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return path


# ---- execution -------------------------------------------------------------------------------------------------------


def test_a_notebook_runs_in_this_interpreter_over_ipc(tmp_path: Path) -> None:
    source = notebook(
        tmp_path / "study.ipynb",
        "import json, sys, ipykernel\nfrom hakmem import report\nreport.own_kernel()",
        "transport = json.load(open(ipykernel.get_connection_file()))['transport']",
        "print('seen', sys.prefix, transport, value)",
    )
    output = report.render(source, {"value": 7}, tmp_path / "page.html")
    text = output.read_text()
    assert f"seen {sys.prefix} ipc 7" in text and "<h1" in text
    assert (tmp_path / "page.ipynb").is_file() and output == tmp_path / "page.html"


def test_a_notebook_that_fails_is_saved_before_the_error(tmp_path: Path) -> None:
    source = notebook(tmp_path / "study.ipynb", "print('so far')", f"raise ValueError({EVIL!r})", "print('never')")
    with pytest.raises(ReportFailed, match=r"study\.ipynb failed in cell 3: ValueError") as caught:
        report.render(source, {}, tmp_path / "page.html")
    saved, text = (tmp_path / "page.ipynb").read_text(), (tmp_path / "page.html").read_text()
    assert "so far" in saved and "ValueError" in saved and str(tmp_path / "page.ipynb") in str(caught.value)
    assert "so far" in text and "This step failed" in text and EVIL not in text and 'name": "never' not in saved


def test_parameters_that_are_not_declared_are_refused_before_anything_runs(tmp_path: Path) -> None:
    source = notebook(tmp_path / "study.ipynb", "open('ran', 'w')")
    with pytest.raises(BadParameter, match=r"no parameter 'valeu' \(did you mean value\?\); its parameters are value"):
        report.render(source, {"valeu": 7}, tmp_path / "page.html")
    assert not (tmp_path / "page.ipynb").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"decomit": "OFF"}, r"'decomit' \(did you mean decommit\?\)"),
        ({"decommit": ["MAYBE"]}, "HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE"),
        ({"blocks": "many"}, "blocks"),
        ({"workloads": ["mixd"]}, r"did you mean mixed\?"),
        ({"profile": "slow"}, "profile"),
    ],
)
def test_the_sweep_refuses_wrong_parameters_in_one_sentence(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        report.render("20_lean_sweep", given, tmp_path / "page.html")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_an_unknown_notebook_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"no notebook '20_lean_swep' \(did you mean 20_lean_sweep\?\)"):
        report.find("20_lean_swep")
    assert report.find("20_lean_sweep").name == "20_lean_sweep.ipynb"


def test_names_that_papermill_injected_must_be_parameters() -> None:
    cell = '# Parameters\ndecomit = "OFF"\nprofile = "smoke"\n'
    with pytest.raises(BadParameter, match=r"this notebook has no parameter 'decomit' \(did you mean decommit\?\)"):
        report.parameters({"In": ["", "x = 1", cell], "profile": "smoke", "decomit": "OFF"}, CampaignSpec)
    fine = report.parameters({"In": ["", "x = 1"], "x": 1, "profile": "smoke", "decommit": [False]}, CampaignSpec)
    assert fine.profile == "smoke" and fine.decommit == ("OFF",)  # YAML made OFF false


def test_another_interpreter_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(report.INTERPRETER, "/elsewhere")
    with pytest.raises(MissingTool, match="/elsewhere"):
        report.own_kernel()


# ---- what a page holds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    trials = study(blocks=6)
    dead = {"status": "failed", "exit_status": 134, "signal": 6, "ops_per_s": None, "stderr_tail": EVIL}
    trials[0] = trials[0].model_copy(update=dead)
    trials[1] = trials[1].model_copy(update={"spoiled": ("stolen CPU time 12 %",)})
    return rows(trials)


@pytest.fixture(scope="module")
def built(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part that needs no campaign, made by the template from outputs as a kernel gives them."""
    found, prices = verdict.lean(table), verdict.prices(table)
    charts = [plots.frontier(table, prices), plots.forest(table, found), plots.run_order(table), plots.phases(table)]
    parts = [page.banner(found), page.prices(prices), *charts, plots.syscalls(table), page.verdicts(found)]
    parts += [page.downloads(table, "study"), page.rerun("20_lean_sweep", {"study": EVIL})]
    outputs = [new_output("display_data", data={"text/html": part._repr_html_()}) for part in parts]
    outputs += [new_output("stream", name="stderr", text=EVIL), new_output("execute_result", data={"text/plain": EVIL})]
    outputs += [new_output("error", ename="ValueError", evalue=EVIL, traceback=[EVIL])]
    cells = [new_markdown_cell("# A study\n\n## Parts"), new_code_cell(f"text = {EVIL!r}", outputs=outputs)]
    executed = tmp_path_factory.mktemp("page") / "study.ipynb"
    nbformat.write(new_notebook(cells=cells), executed)
    return report.html(executed, executed.with_suffix(".html"))


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
    assert "no memory that could be told" in page.prices(verdict.prices(table)).text


def test_findings_are_those_of_the_machine_that_measured(tmp_path: Path) -> None:
    trials, ledger = study(blocks=2), tmp_path / "study.jsonl"
    there = machine.probe("bench-1").model_dump(mode="json") | {"thp": "always", "swap_mib": 4321, "build": "b1"}
    with store.Ledger(ledger) as writer:
        for identity, facts in (("p1", there), ("p2", there | {"swap_mib": 9876})):
            writer.append(store.Provenance(id=identity, host="bench-1", started=trials[0].started, facts=facts))
    found = page.findings(rows(trials), ledger)
    assert [f for f in found if "4321" in f.found] and not [f for f in found if "9876" in f.found]
    assert found == machine.checks(machine.Machine.model_validate({k: v for k, v in there.items() if k != "build"}))


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


def test_the_page_is_small_and_whatever_was_printed_is_escaped(built: Path) -> None:
    text = built.read_text()
    assert EVIL not in text and "&lt;script&gt;document.title" in text and "<script" not in text
    assert len(text) < page.SIZE_LIMIT
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_every_picture_has_words_and_every_chart_a_table(built: Path) -> None:
    text = built.read_text()
    images = re.findall(r"<img ([^>]*)>", text)
    assert len(images) == 5 * 4 and all(re.search(r'alt="[^"]{40,}"', image) for image in images)
    assert text.count("<figure") == text.count("<figcaption>") == 5
    assert (
        len(re.findall(r"The figures of this chart</summary>\s*<div [^>]*class=\"scroll\"[^>]*>\s*<table", text)) == 5
    )


def test_a_page_too_large_is_refused(tmp_path: Path) -> None:
    big = new_output("stream", name="stdout", text="x" * (page.SIZE_LIMIT + 1))
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=[big])]), tmp_path / "big.ipynb")
    with pytest.raises(ReportFailed, match="MB are allowed"):
        report.html(tmp_path / "big.ipynb", tmp_path / "big.html")


# ---- in a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def asked(driver: webdriver.Chrome) -> list[str]:
    """Addresses that were requested, other than the file itself and what it holds."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    addresses = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [address for address in addresses if not address.startswith(("file:", "data:", "chrome:"))]


def resize(driver: webdriver.Chrome, width: int, *, dark: bool = False) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


FAINT = """
const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
const part = v => v <= 10.31 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4;
const lum = c => { const [r, g, b] = rgb(c).map(part);
                   return .2126 * r + .7152 * g + .0722 * b; };
const paper = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
                     const p = rgb(c); if (p.length === 3 || p[3] > 0) return c; } return 'rgb(255,255,255)'; };
document.querySelectorAll('details').forEach(d => d.open = true);
const faint = [];
for (const e of document.querySelectorAll('main *')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
  const [a, b] = [lum(getComputedStyle(e).color), lum(paper(e))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) faint.push(e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40));
}
return faint;
"""


@needs_browser
def test_the_page_asks_a_browser_for_nothing(built: Path, browser: webdriver.Chrome, tmp_path: Path) -> None:
    browser.get(built.as_uri())
    assert asked(browser) == [] and browser.title == "study"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    loaded = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 100)")
    assert loaded == [True] * 20
    greedy = tmp_path / "greedy.html"  # the same instrument does see a request
    greedy.write_text('<img src="http://example.invalid/x.png">')
    browser.get(greedy.as_uri())
    assert asked(browser) == ["http://example.invalid/x.png"]


@needs_browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_reads_well(built: Path, browser: webdriver.Chrome, width: int, dark: bool) -> None:
    resize(browser, width, dark=dark)
    browser.get(built.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(FAINT) == []
    levels = browser.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    panel = browser.execute_script("return document.images[0].clientWidth")
    assert panel > (330 if width == 390 else 500)
    shown = browser.execute_script("return document.images[0].currentSrc")
    paper = re.search(rb"fill: (#[0-9a-f]{6})", base64.b64decode(shown.split(",")[1]))
    assert paper is not None and paper[1] == (b"#12161c" if dark else b"#ffffff")


@needs_browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_the_index_of_all_reports_fits_and_reads_well(
    built: Path, browser: webdriver.Chrome, width: int, dark: bool
) -> None:
    words = ("GO", "NO-GO", "NEUTRAL", "INCONCLUSIVE", "NOT-APPLICABLE", page.FAILED)
    cards = [dataclasses.replace(shelf.card(built, built), word=word, headline=EVIL) for word in words]
    index = shelf.write(cards, built.with_name("index.html"))
    resize(browser, width, dark=dark)
    browser.get(index.as_uri())
    assert asked(browser) == [] and browser.title == "hakmem: all reports"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.images.length") == len(words)
    assert browser.execute_script(FAINT) == []
    browser.find_element("css selector", ".card a").click()
    assert browser.current_url == built.as_uri()
