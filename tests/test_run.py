import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from processes import children_named

from hakmem import run, store, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import MissingTool
from hakmem.run import Exit, execute, measure

SH = shutil.which("sh") or "/bin/sh"
SMALL = workload.parse("mixed:ws=50,cycles=20000", "smoke")


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def shell(script: str, timeout_s: float = 60, env: dict[str, str] | None = None) -> Exit:
    return execute([SH, "-c", script], env or run.environment({}), timeout_s=timeout_s)


def gone(pid: int) -> bool:
    """Tell whether a process has ended, waiting for it a while."""
    for _ in range(500):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def test_the_environment_is_made_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HAKMEM_SS_MEM_LEAN", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "1")
    done = execute(["/usr/bin/env"], run.environment({"HAKMEM_WARM_POOL": "0"}, padding=7), timeout_s=60)
    seen = dict(line.split("=", 1) for line in done.stdout_tail.splitlines())
    assert seen.keys() - {"PATH", "HOME", "LANG"} == {"HAKMEM_WARM_POOL", "TRIAL_PADDING"}
    assert seen["TRIAL_PADDING"] == "x" * 7


def test_padding_varies_by_block_and_seed_only() -> None:
    assert run.padding_of(1, 3) == run.padding_of(1, 3)
    assert len({run.padding_of(1, block) for block in range(50)}) > 40
    assert run.padding_of(1, 0) != run.padding_of(2, 0)


@pytest.mark.parametrize(
    ("script", "status", "exit_status", "died_of"),
    [("exit 0", "ok", 0, None), ("exit 3", "failed", 3, None), ("kill -SEGV $$", "killed", None, signal.SIGSEGV)],
)
def test_how_a_process_ends(script: str, status: str, exit_status: int | None, died_of: int | None) -> None:
    done = shell(script)
    assert (done.status, done.exit_status, done.signal) == (status, exit_status, died_of)


def test_a_program_that_is_not_there_is_a_failure_with_its_reason() -> None:
    done = execute(["/nonexistent/program"], run.environment({}), timeout_s=60)
    assert done.status == "failed"
    assert "/nonexistent/program" in done.stderr_tail


def test_no_shell_sees_the_arguments() -> None:
    done = execute(["/bin/echo", "$HOME; exit 3", "a  b"], run.environment({}), timeout_s=60)
    assert done.stdout_tail == "$HOME; exit 3 a  b\n"


def test_a_hanging_process_is_killed_with_its_children() -> None:
    done = shell("sleep 300 & echo $!; sleep 300", timeout_s=0.5)
    assert (done.status, done.signal) == ("timeout", signal.SIGKILL)
    assert gone(int(done.stdout_tail))


def test_a_child_left_behind_neither_delays_nor_survives() -> None:
    done = shell("sleep 300 & echo $!", timeout_s=250)
    assert (done.status, len(done.left_behind)) == ("ok", 1)
    assert gone(int(done.stdout_tail))


def test_endless_output_is_drained_and_bounded() -> None:
    done = shell("while :; do echo 0123456789012345678901234567890123456789; done; true", timeout_s=0.5)
    assert done.status == "timeout"
    assert 0 < len(done.stdout_tail) <= run.STDOUT_KEPT


def test_the_ends_of_long_streams_are_kept_and_any_bytes_survive() -> None:
    done = shell(
        r"head -c 3000000 /dev/zero | tr '\0' o; echo end; printf '\377\376bad' >&2; head -c 9000 /dev/zero >&2"
    )
    assert done.status == "ok"
    assert done.stdout_tail.endswith("oooend\n")
    assert len(done.stdout_tail) == run.STDOUT_KEPT
    assert len(done.stderr_tail) == run.STDERR_KEPT


def test_pinning_holds_for_the_child_and_is_undone_here() -> None:
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    done = execute(["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], run.environment({}), timeout_s=60, cpu=cpu)
    assert done.stdout_tail.split() == ["Cpus_allowed_list:", str(cpu)]
    assert os.sched_getaffinity(0) == allowed


def test_ticks_come_with_the_pid_while_the_child_runs() -> None:
    pids: list[int] = []
    execute(["/bin/sleep", "0.5"], run.environment({}), timeout_s=60, tick=pids.append, tick_s=0.02)
    assert len(pids) > 2
    assert len(set(pids)) == 1


def test_children_die_with_the_workbench() -> None:
    """The parent is killed by SIGKILL: nothing of its own can clean up."""
    code = (
        "from hakmem.run import execute, environment\n"
        "print('ready', flush=True)\n"
        "execute(['/bin/sleep', '300'], environment({}), timeout_s=300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    child = None
    while child is None:  # the launcher has become `sleep` once the death signal is set
        assert parent.poll() is None
        child = next(iter(children_named(parent.pid, "sleep")), None)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child.pid)


def test_an_interrupt_kills_the_child() -> None:
    seen: list[int] = []

    def interrupt(pid: int) -> None:
        seen.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(["/bin/sleep", "300"], run.environment({}), timeout_s=300, tick=interrupt, tick_s=0.05)
    assert gone(seen[0])


def test_a_missing_launcher_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="setpriv"):
        shell("true")


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("", "no JSON"),
        ("hello", "'hello'"),
        ('{"hakmem_bench":1}', "driver"),
        ('{"hakmem_bench":2}', "hakmem_bench"),
        ("[1, 2]", "DriverLine"),
        ('{"hakmem_bench":1', "no JSON"),
    ],
)
def test_garbage_is_told_apart(printed: str, complaint: str) -> None:
    outcome = measure(["/bin/echo", printed], run.environment({}), timeout_s=60)
    assert (outcome.status, outcome.line) == ("garbage", None)
    assert complaint in outcome.complaint


def test_a_timeout_says_so() -> None:
    outcome = measure(["/bin/sleep", "300"], run.environment({}), timeout_s=0.3)
    assert outcome.status == "timeout"
    assert "0.3 s" in outcome.complaint


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ("sleep 300", "timeout", "no end after 0.5 s"),
        ("echo ouch >&2; kill -ABRT $$", "killed", "ouch"),
        ("echo ouch >&2; exit 7", "failed", "ouch"),
        ("head -c 100000 /dev/urandom", "garbage", "no JSON"),
        ("setsid sleep 300 & echo '{}'", "garbage", "hakmem_bench"),
    ],
)
def test_whatever_a_child_does_is_a_row_with_a_status(native: Build, script: str, status: str, told: str) -> None:
    outcome = measure([SH, "-c", script], run.environment({}), timeout_s=0.5)
    arm = arms.make(allocators.find("system", native), {})
    where = {"study": "s", "trial_key": "k", "provenance": "p", "host": "h", "block": 0, "position": 0, "order": 0}
    row = store.row(outcome, arm, SMALL, native, **where)
    assert row.status == status and told in row.stderr_tail and row.ops is None and row.peak_rss_kb is None
    assert any("running, killed" in reason for reason in row.spoiled) == ("setsid" in script)
    assert store.Trial.model_validate_json(row.model_dump_json()) == row


def test_a_real_trial_of_the_system_allocator(native: Build) -> None:
    arm = arms.make(allocators.find("system", native), {})
    outcome = run.trial(native, arm, SMALL)
    assert outcome.status == "ok", outcome
    line = outcome.line
    assert line is not None
    assert (line.driver, line.ops, line.args["ws"]) == ("random_mixed", 20000, 50)
    assert line.ops_per_s > 0
    assert line.allocator is None
    assert line.peak_rss_kb and line.start_rss_kb and line.peak_rss_kb >= line.start_rss_kb > 0
    assert [phase.name for phase in line.phases][-1] == "done"
    assert outcome.exit.cpu == run.measuring_cpu()


@pytest.mark.parametrize("name", ["hakmem", "hakmem_minimal", "hakmem_observe", "hakmem@linked"])
def test_hakmem_speaks_for_itself_and_the_gates_take(native: Build, name: str) -> None:
    _, gates = arms.parse("lean:DONTNEED:20")
    outcome = run.trial(native, arms.make(allocators.find(name, native), gates), SMALL)
    assert outcome.status == "ok", outcome
    assert outcome.line and outcome.line.allocator
    assert gates.items() <= outcome.line.allocator.gates.items()


def test_a_gate_that_does_not_take_is_a_failure(native: Build) -> None:
    arm = arms.make(allocators.find("hakmem", native), {})
    wrong = arm.model_copy(update={"gates": {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "MAYBE"}})
    outcome = run.trial(native, wrong, SMALL)
    assert outcome.status == "failed"
    assert "HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE" in outcome.complaint


def test_a_preload_that_the_loader_drops_is_a_failure(native: Build, tmp_path: Path) -> None:
    broken = tmp_path / "libbroken.so"
    broken.write_text("no library")
    argv = [str(native.driver("random_mixed", "system")), *SMALL.args]
    outcome = measure(argv, run.environment({}, broken), timeout_s=60)
    assert outcome.status == "failed"
    assert str(broken) in outcome.complaint


def test_hakmem_that_is_not_there_is_a_failure(native: Build) -> None:
    argv = [str(native.driver("random_mixed", "system")), *SMALL.args]
    outcome = measure(argv, run.environment({}), timeout_s=60, speaks=True)
    assert outcome.status == "failed"
    assert "not at work" in outcome.complaint


def test_what_the_kernel_does_not_say_is_unknown(native: Build) -> None:
    arm = arms.make(allocators.find("system", native), {})
    said = run.trial(native, arm, SMALL).exit.stdout_tail.rstrip().rpartition("\n")[2]
    line, complaint = run.parse_line(said.replace('"lazyfree_kb":0', '"lazyfree_kb":-1'))
    assert line is not None, complaint
    assert {phase.lazyfree_kb for phase in line.phases} == {None}


def ended(**changes: object) -> Exit:
    plain = {"started": datetime.now(UTC), "status": "ok", "exit_status": 0, "signal": None, "stdout_tail": ""}
    plain |= {"stderr_tail": "", "wall_s": 1.0, "user_s": 1.0, "sys_s": 0.0, "nivcsw": 0, "steal_s": 0.0}
    return Exit.model_validate(plain | {"busy": 0, "cpu": 0} | changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"steal_s": 0.2}, "stolen"), ({"nivcsw": 500}, "switches"), ({"busy": 1000}, "threads")],
)
def test_what_spoils_a_trial_is_said(changes: dict[str, object], word: str) -> None:
    (reason,) = run.spoiled_reasons(ended(**changes), None)
    assert word in reason


def test_a_calm_trial_is_not_spoiled() -> None:
    assert run.spoiled_reasons(ended(nivcsw=5, steal_s=None, busy=None), None) == ()


def test_an_interrupt_of_an_unwatched_run_leaves_nothing_behind() -> None:
    code = (
        "from hakmem import run, workload; from hakmem.builds import allocators, arms, build\n"
        "made = build.build(); arm = arms.make(allocators.find('hakmem', made), {})\n"
        "run.unwatched(made, arm, workload.parse('mixed:ws=50,cycles=20000000000'))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        while not (drivers := children_named(process.pid, "bench_")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT and not drivers[0].is_running()
