"""Programs of the user's own: measured like a driver, by the small launcher."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from hakmem import paths, run, sample, store, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.cli import app
from hakmem.errors import BadParameter, TrialFailed
from hakmem.run import Outcome

HOLDS_50_MB = [sys.executable, "-c", "import time; held = b'x' * 50_000_000; time.sleep(0.4)"]

TELLS_ITS_ENVIRONMENT = "import os\nfor pair in os.environ.items(): print(*pair, sep='=')"


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def measured(native: Build, command: list[str], arm: str = "system", **options: object) -> Outcome:
    name, settings = arms.parse(arm)
    chosen = arms.make(allocators.find(name, native), settings)
    work = workload.program(command, options.pop("seconds", None))  # type: ignore[arg-type]
    return run.trial(native, chosen, work, **options)  # type: ignore[arg-type]


def test_memory_is_the_programs_own_not_the_workbenchs(native: Build) -> None:
    ballast = bytearray(b"x") * 200_000_000
    done = measured(native, ["true"])
    assert len(ballast) and done.line is not None
    assert 0 < done.line.peak_rss_kb < 20_000  # type: ignore[operator]
    held = measured(native, HOLDS_50_MB).line
    assert held is not None and held.peak_rss_kb is not None
    assert 50_000 < held.peak_rss_kb < 120_000
    assert held.ops == 1 and held.seconds >= 0.4 and held.ops_per_s == pytest.approx(1 / held.seconds, rel=1e-3)


@pytest.mark.parametrize(
    ("script", "status", "exit_status", "died_of"),
    [("exit 0", "ok", 0, None), ("echo why >&2; exit 3", "failed", 3, None), ("kill -SEGV $$", "killed", None, 11)],
)
def test_how_a_program_ends_is_told(
    native: Build, script: str, status: str, exit_status: int | None, died_of: int | None
) -> None:
    done = measured(native, ["sh", "-c", script], "hakmem")
    assert (done.status, done.exit.exit_status, done.exit.signal) == (status, exit_status, died_of)
    assert ("why" in done.exit.stderr_tail) == (status == "failed")


def test_a_hanging_program_is_killed_with_its_children(native: Build) -> None:
    done = measured(native, ["sh", "-c", "sleep 600 & wait"], timeout_s=0.5)
    assert done.status == "timeout" and "no end after 0.5 s" in done.complaint


def test_a_server_is_asked_to_end_and_has_no_time(native: Build) -> None:
    done = measured(native, ["sleep", "600"], seconds=0.3)
    assert done.status == "ok" and done.line is not None and done.line.peak_rss_kb
    work = workload.program(["sleep", "600"], 0.3)
    arm = arms.make(allocators.find("system", native), {})
    where = {"study": "s", "trial_key": "", "provenance": "", "host": "h", "block": 0, "position": 0, "order": 0}
    row = store.row(done, arm, work, native, **where)
    assert (row.ops, row.seconds, row.ops_per_s) == (None, None, None)
    assert row.argv[1:] == ("600",) and row.peak_rss_kb is not None


def test_gates_and_preload_reach_the_program_and_the_callers_do_not(
    native: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAKMEM_WARM_POOL", "0")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("OF_THE_USER", "kept")
    said = measured(native, [sys.executable, "-c", TELLS_ITS_ENVIRONMENT], "hakmem:LEAN=1,SS_OS_STATS=1")
    seen = dict(line.split("=", 1) for line in said.exit.stdout_tail.splitlines())
    assert seen["LD_PRELOAD"].endswith("libhakmem.so") and seen["OF_THE_USER"] == "kept"
    assert seen["HAKMEM_SS_MEM_LEAN"] == "1"
    assert not {"HAKMEM_WARM_POOL", "MALLOC_ARENA_MAX"} & seen.keys()
    assert "lean_decommit" in said.exit.stderr_tail  # hakmem itself speaks at exit


def test_rss_over_time_is_that_of_the_programs_children(native: Build) -> None:
    sampler = sample.Sampler(family=True)
    measured(native, ["sh", "-c", f'"{HOLDS_50_MB[0]}" -c "{HOLDS_50_MB[2]}"; true'], tick=sampler.tick)
    assert max(sampler.rss_kb) > 50_000


def test_what_cannot_be_preloaded_is_refused_before_it_runs(native: Build, tmp_path: Path) -> None:
    source = tmp_path / "still.c"
    source.write_text("int main(void) { return 0; }\n")
    still = tmp_path / "still"
    made = subprocess.run(["gcc", "-static", str(source), "-o", str(still)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("needs a static C library: sudo apt-get install libc6-dev")
    hakmem = allocators.find("hakmem", native)
    with pytest.raises(TrialFailed, match="linked statically"):
        allocators.prove_program(hakmem, still)
    allocators.prove_program(allocators.find("system", native), still)
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env sh\ntouch ran\n")
    script.chmod(0o755)
    allocators.prove_program(hakmem, script)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(BadParameter, match="cannot be put under"):
        allocators.prove_program(allocators.find("hakmem@linked", native), script)
    with pytest.raises(BadParameter, match="no program 'no-such-program'"):
        workload.program(["no-such-program"])


def call(*args: str) -> str:
    done = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_run_and_sweep_take_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    series = tmp_path / "series.parquet"
    rows = json.loads(
        call(
            "run", "--arm", "lean:DONTNEED:10", "--arm", "system", "--series", str(series), "--json", "--", *HOLDS_50_MB
        )
    )
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all(row["peak_rss_kb"] > 50_000 and row["ops"] == 1 for row in rows)
    again = subprocess.run(["sh", "-c", rows[0]["command"]], capture_output=True, check=True)
    assert again.returncode == 0
    assert set(pd.read_parquet(series)["arm"]) == {"hakmem LEAN DONTNEED 10 MB", "system"}
    sweep = ["sweep", "--allocator", "hakmem,system", "--decommit", "OFF", "--blocks", "2", "--", "sh", "-c", "exit 0"]
    shown = call(*sweep)
    assert "sh -c 'exit 0'" in shown and "hakmem LEAN OFF" in shown
    table = store.load(tmp_path / "program.jsonl")
    assert set(table["status"]) == {"ok"} and set(table["workload"]) == {"sh -c 'exit 0'"}
    assert set(table["role"]) == {"baseline", "baseline2", "arm", "peer"}
    assert json.loads(call("sweep", "--json", *sweep[1:]))["done"]["measured"] == 0
