"""Reports: checked parameters, the own interpreter, failures that are saved."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hakmem.errors import BadInput, BadParameter, MissingTool, ReportFailed
from hakmem.pages import document, report
from hakmem.study import CampaignSpec

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
        "import json, sys, ipykernel\nfrom hakmem.pages import report\nreport.own_kernel()",
        "transport = json.load(open(ipykernel.get_connection_file()))['transport']",
        "print('seen', sys.prefix, transport, value)",
    )
    output = report.render(source, {"value": 7}, tmp_path / "page.html")
    text = output.read_text()
    assert f"seen {sys.prefix} ipc 7" in text and "<h1" in text
    assert (tmp_path / "page.ipynb").is_file() and output == tmp_path / "page.html"


def test_an_interrupt_is_one_line_and_ends_the_kernel(tmp_path: Path) -> None:
    began = tmp_path / "began"
    cell = f"import os, pathlib, time\npathlib.Path({str(began)!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    source = notebook(tmp_path / "study.ipynb", cell)
    command = [sys.executable, "-m", "hakmem", "report", str(source), "--output", str(tmp_path / "page.html")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (began.exists() and began.read_text()) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.strip() == "interrupted; what was measured is kept, and the same command goes on from there"
    assert not Path(f"/proc/{began.read_text()}").exists()


def test_a_notebook_that_fails_is_saved_before_the_error(tmp_path: Path) -> None:
    source = notebook(tmp_path / "study.ipynb", "print('so far')", f"raise ValueError({EVIL!r})", "print('never')")
    with pytest.raises(ReportFailed, match=r"study\.ipynb failed in cell 3: ValueError") as caught:
        report.render(source, {}, tmp_path / "page.html")
    saved, text = (tmp_path / "page.ipynb").read_text(), (tmp_path / "page.html").read_text()
    assert "so far" in saved and "ValueError" in saved and str(tmp_path / "page.ipynb") in str(caught.value)
    head, _, _ = text.partition("<h1")
    assert (
        "Exception" not in head and "encountered" not in text
    )  # the step itself says it, and the page begins with its title
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


def test_a_page_too_large_is_refused(tmp_path: Path) -> None:
    big = new_output("stream", name="stdout", text="x" * (document.SIZE_LIMIT + 1))
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=[big])]), tmp_path / "big.ipynb")
    with pytest.raises(ReportFailed, match="MB are allowed"):
        report.html(tmp_path / "big.ipynb", tmp_path / "big.html")
