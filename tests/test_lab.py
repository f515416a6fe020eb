"""JupyterLab as `make lab` starts it, in a real browser: the tour run to its verdict, the explorer moved."""

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from hakmem import paths

PATIENCE = 180
SHOWN = """
const found = [...document.querySelectorAll(arguments[0])].filter(e => e.closest('.jp-OutputArea-output'));
return found.map(e => e.tagName == 'IMG' ? [e.complete && e.naturalWidth > 100, e.alt] : e.textContent);
"""


@pytest.fixture(scope="module")
def lab(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The server that `make lab` starts, but with the browser of the tests and a home of its own."""
    browser.set_window_size(1400, 1000)  # a narrower toolbar hides the kernel's name
    steps = subprocess.run(["make", "--dry-run", "lab"], cwd=paths.root(), capture_output=True, text=True, check=True)
    home = tmp_path_factory.mktemp("lab")
    places = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "spaces"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    command = f"{steps.stdout.splitlines()[-1]} --no-browser --ServerApp.port=0"
    name, _, program = command.partition(" ")
    environment = {**os.environ, **places, **dict([name.split("=", 1)])}
    with (home / "log").open("w") as log:
        arguments = shlex.split(program)
        server = subprocess.Popen(arguments, cwd=paths.root(), env=environment, stdout=log, stderr=log)
    try:
        yield wait(lambda: next(map(description, (home / "RUNTIME").glob("jpserver-*.json")), None))
    finally:
        server.terminate()
        server.wait()


def description(file: Path) -> dict[str, Any] | None:
    """What a server says of itself; None while it still writes that."""
    text = file.read_text()
    return {**json.loads(text), "log": file.parents[1] / "log"} if text.endswith("}") else None


def wait(found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until something is found."""
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "not seen in time"
        time.sleep(0.2)
    return value


@pytest.fixture(scope="module")
def tour(lab: dict[str, Any], browser: Chrome) -> Iterator[Chrome]:
    """A copy of 00_start_here, smaller and with a ledger of its own, opened in JupyterLab and run to its end."""
    folder, study = paths.build() / f"test-lab-{uuid.uuid4().hex[:8]}", f"test-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    notebook = nbformat.read(paths.notebooks() / "00_start_here.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = cell.source.replace('"start_here"', f'"{study}"').replace("300_000", "20_000")
    nbformat.write(notebook, folder / "tour.ipynb")
    # A menu acts on the tab in front: in a workspace of its own it is the only one.
    own = f"lab/workspaces/tour/tree/{folder.relative_to(paths.root())}"
    browser.get(f"{lab['url']}{own}/tour.ipynb?token={lab['token']}")
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell"))
    wait(lambda: kernel(browser).startswith("Python 3"))
    browser.find_element(By.XPATH, "//li[contains(@class, 'lm-MenuBar-item')][.='Run']").click()
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, "[data-command='runmenu:run-all']"))[0].click()
    wait(lambda: browser.execute_script(SHOWN, "pre.command") or browser.execute_script(SHOWN, ".jp-mod-error pre"))
    yield browser
    browser.get("about:blank")
    shutil.rmtree(folder)
    (paths.runs() / f"{study}.jsonl").unlink(missing_ok=True)
    shutil.rmtree(paths.runs() / f"{study}.series", ignore_errors=True)


def explored(browser: Chrome) -> tuple[bool, str]:
    """Whether the explorer's chart is drawn, and what it says."""
    drawn, alt = browser.execute_script(SHOWN, ".explorer figure.chart img")[0]
    return drawn, alt


def kernel(browser: Chrome) -> str:
    """The kernel that the toolbar names."""
    named = browser.find_elements(By.CSS_SELECTOR, ".jp-KernelName")
    return named[0].text if named else ""


def test_the_lab_opens_with_the_tour_and_asks_nothing(lab: dict[str, Any], browser: Chrome) -> None:
    browser.get(f"{lab['url']}?token={lab['token']}")
    wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-MarkdownOutput h1"))
    assert browser.current_url.endswith("/lab/tree/notebooks/00_start_here.ipynb")
    wait(lambda: kernel(browser).startswith("Python 3"))
    settings = f"{lab['url']}lab/api/settings/@jupyterlab/apputils-extension:notification"
    asked = "const [url, done] = arguments; fetch(url).then(r => r.json()).then(s => done(s.schema.properties))"
    default = browser.execute_async_script(asked, settings)
    assert default["fetchNews"]["default"] == "false" and default["checkForUpdates"]["default"] is False
    time.sleep(2)  # the question came up about this soon
    assert not browser.find_elements(By.CSS_SELECTOR, ".jp-Notification-Toast, .Toastify__toast, .jp-Dialog")
    assert lab["hostname"] == "127.0.0.1" and len(lab["token"]) >= 32


def test_the_tour_runs_to_its_chart_and_its_verdict(tour: Chrome) -> None:
    assert tour.execute_script(SHOWN, ".jp-mod-error pre") == []
    [word] = tour.execute_script(SHOWN, ".banner .word")
    assert word.split()[-1] in ("GO", "NO-GO", "INCONCLUSIVE")
    pictures = tour.execute_script(SHOWN, "figure.chart img")
    assert len(pictures) == 4 and all(drawn and len(alt) > 40 for drawn, alt in pictures)  # the explorer's among them


def test_moving_the_explorer_redraws_its_chart(tour: Chrome) -> None:
    before = explored(tour)[1]
    assert before.startswith("mixed:ws=400: ") and "throughput" in before
    tour.execute_script(
        "document.querySelector('.explorer').scrollIntoView({block: 'center'})"
    )  # JupyterLab hides the rest
    wait(lambda: all(control.is_displayed() for control in tour.find_elements(By.CSS_SELECTOR, ".explorer select")), 30)
    workload, metric = tour.find_elements(By.CSS_SELECTOR, ".explorer select")
    Select(workload).select_by_index(1)
    Select(metric).select_by_visible_text("peak RSS")
    wait(lambda: explored(tour)[1].startswith("trace:") and "peak RSS" in explored(tour)[1], 30)
    boxes = tour.find_elements(By.CSS_SELECTOR, ".explorer input[type=checkbox]")
    assert "system" in explored(tour)[1]
    next(box for box in boxes if "system" in box.find_element(By.XPATH, "..").text).click()
    wait(lambda: "system" not in explored(tour)[1], 30)
    drawn, alt = explored(tour)
    assert drawn and "hakmem (A)" in alt
