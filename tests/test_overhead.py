"""What traces cost is measured on the real things; what the figures are is not asserted, except for instructions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadTrace, MissingTool, TrialFailed
from hakmem.progress import Silent
from hakmem.studies import overhead
from hakmem.traces import fitted

PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


class Counting(Silent):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def step(self, done: int, total: int, eta_s: float, what: str) -> None:
        self.steps.append((done, total))


@pytest.mark.parametrize("name", sorted(set(fitted.ALL) - {"fleet", "empirical"}))
def test_the_rate_of_a_generator(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "PASS_EVENTS", 20_000)
    few = {"live": 500} if name in ("lognormal", "zipf") else {}
    rate = overhead.generation(name, few, tmp_path)
    assert rate.generator == name and rate.made > 0 and rate.written > 0 and 0 <= rate.system <= 1
    assert rate.bound == (50 if name == "mixed" else 20)
    assert list(tmp_path.iterdir()) == []


def test_a_replay_adds_few_instructions_to_the_loop_it_imitates(native: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "COUNTED_CYCLES", 100_000)
    progress, arm = Counting(), arms.make(allocators.find("hakmem", native), {})
    found = overhead.replaying(native, arm, 100_000, 3, progress)
    assert found.allocator == "hakmem" and found.driver_ns > 0 and found.replay_ns > 0
    assert found.added_ns.n == 3 and found.added_ns.low <= found.added_ns.high
    assert progress.steps == [(1, 3), (2, 3), (3, 3)]
    if shutil.which("valgrind") is None:
        assert found.added_instructions is None
        pytest.skip("needs valgrind: sudo apt-get install valgrind")
    assert found.added_instructions is not None and 0 < found.added_instructions < 2


def test_what_recording_costs(native: Build) -> None:
    found = overhead.recorded(native, [*PYTHON, "x = [str(i) for i in range(5000)]"], 2, Counting())
    assert found.records > 1000 and found.wall.n == found.cpu.n == 2
    assert found.plain_s > 0 and found.recorded_s > 0 and found.wall.estimate > 0 and found.cpu.estimate > 0


def test_a_program_that_fails_has_no_cost(native: Build) -> None:
    with pytest.raises(TrialFailed, match="ended with status 3: because"):
        overhead.recorded(native, [*PYTHON, "raise SystemExit(print('because', file=__import__('sys').stderr) or 3)"],
                          2, Silent())  # fmt: skip
    with pytest.raises(MissingTool, match="no program 'no-such-program'"):
        overhead.recorded(native, ["no-such-program"], 2, Silent())


def test_the_commands(tmp_path: Path) -> None:
    def call(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "hakmem", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(call("record", "--cost", "2", "--json", "--", *PYTHON, "pass"))
    assert found["records"] > 100 and list(tmp_path.iterdir()) == []
    table = call("trace", "overhead", "--arm", "system", "--cycles", "100000", "--pairs", "2")
    assert "added, ns (95 %)" in table and " system " in table
    with pytest.raises(BadTrace, match="unknown generator"):
        overhead.generation("zip", {}, tmp_path)
