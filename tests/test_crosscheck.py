import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hakmem import crosscheck, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.cli import app
from hakmem.errors import BadParameter

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: sudo apt-get install strace")
RAMP = workload.parse("ramp:n=20000,churn_ops=500", "smoke")


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def arm(native: Build, text: str) -> arms.Arm:
    name, settings = arms.parse(text)
    return arms.make(allocators.find(name, native), settings)


@needs_strace
@pytest.mark.parametrize("text", ["hakmem", "lean:DONTNEED:5", "lean:FREE:5", "hakmem@linked"])
def test_the_allocator_counts_what_strace_sees(native: Build, text: str) -> None:
    found = crosscheck.check(native, arm(native, text), RAMP)
    assert found.agrees, (found.counted, found.traced)
    if "lean" in text:
        assert found.traced["sys_madvise"] > 10


@needs_strace
def test_a_call_too_few_is_reported(native: Build) -> None:
    found = crosscheck.check(native, arm(native, "hakmem"), RAMP)
    wrong = found.model_copy(update={"counted": found.counted | {"sys_mmap": found.counted["sys_mmap"] + 1}})
    assert not wrong.agrees


def test_only_what_lies_between_the_marks_counts() -> None:
    log = "7 mmap(0) = 1\n7 getrusage(RUSAGE_SELF) = 0\n7 mmap(0) = 1\n8 process_madvise(5) = 3\n"
    log += "7 madvise(1) = 0\n7 getrusage(RUSAGE_SELF) = 0\n7 munmap(1) = 0\n"
    assert crosscheck.count(log) == {"sys_mmap": 1, "sys_madvise": 2}
    assert not crosscheck.count("7 mmap(0) = 1\n")


@pytest.mark.parametrize("text", ["system", "hakmem_minimal"])
def test_who_does_not_count_is_refused(native: Build, text: str) -> None:
    if shutil.which("strace") is None and text != "system":
        pytest.skip("needs strace: sudo apt-get install strace")
    with pytest.raises(BadParameter, match="does not count"):
        crosscheck.check(native, arm(native, text), RAMP)


def test_a_strace_that_may_not_trace_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strace").write_text(
        "#!/bin/sh\necho 'strace: ptrace(PTRACE_TRACEME): Operation not permitted' >&2; exit 1\n"
    )
    (tmp_path / "strace").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Operation not permitted" in str(crosscheck.why_not.__wrapped__())


@needs_strace
def test_the_command_holds_both_side_by_side() -> None:
    args = ["run", "--arm", "lean:DONTNEED:5", "--arm", "system", "--workload", RAMP.text, "--strace"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "strace sees" in done.stdout and "sys_madvise" in done.stdout
    (found,) = [row["strace"] for row in json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout) if row["strace"]]
    assert found["counted"] == found["traced"]
