"""The recipes of docs/recipes.md: their commands run as they stand, in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hakmem import paths
from hakmem.builds import build

ROOT = paths.root()
TEXT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.*?)\n.*?^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without runs and reports, whose command `hakmem` is its own; the store of builds is shared."""
    copy = tmp_path_factory.mktemp("recipes") / "hakmem"
    for part in ("hakmem", "native", "docs", "notebooks"):  # with numba's caches
        shutil.copytree(ROOT / part, copy / part)
    for file in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / file, copy)
    build.build()
    (copy / "build").mkdir()
    (copy / "build/store").symlink_to(paths.build() / "store")
    program = copy / "bin/hakmem"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hakmem "$@"\n')
    program.chmod(0o755)
    return copy


def follow(recipe: str, checkout: Path) -> str:
    """Run a recipe's commands and return what they printed."""
    here = f"{checkout}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": here, "COLUMNS": "160"}
    command = ["bash", "-euo", "pipefail", "-c", RECIPES[recipe]]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def trials(printed: str) -> dict[str, list[str]]:
    """Cells of a table of trials by the name of the arm: workload, status, ops/s, peak, end, faults, calls an op."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if "  ok  " in line)
    return {arm: cells for arm, *cells in lines}


def test_there_are_three_recipes() -> None:
    assert list(RECIPES) == [f"Bring your own {what}" for what in ("workload", "allocator", "gate")]


def test_bring_your_own_workload(checkout: Path) -> None:
    printed = follow("Bring your own workload", checkout)
    assert "30000" in printed
    blocks = re.search(r"peak live\s+([\d,]+) bytes in ([\d,]+) blocks", printed)
    assert blocks is not None and int(blocks[2].replace(",", "")) > 30_000
    assert list(trials(printed)) == ["hakmem", "hakmem LEAN DONTNEED 10 MB", "system"]


def test_bring_your_own_allocator(checkout: Path) -> None:
    printed = follow("Bring your own allocator", checkout)
    bump, hakmem = trials(printed)
    assert bump.endswith("libbump.so") and hakmem == "hakmem", printed


def test_bring_your_own_gate(checkout: Path) -> None:
    printed = follow("Bring your own gate", checkout)
    assert re.search(r"HAKMEM_HUGE_MIN_MB\s+64", printed) and "HUGE_MIN_MB" in (checkout / "docs/gates.md").read_text()
    faults = {arm: int(cells[5]) for arm, cells in trials(printed).items()}
    assert list(faults) == ["hakmem", "hakmem HUGE_MIN_MB=64"]
    if "[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        assert faults["hakmem"] < faults["hakmem HUGE_MIN_MB=64"]
