"""What a measured process leaves running is found, named and killed; what is not its own is left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from hakmem import run
from hakmem.run import Exit, execute
from hakmem.system import orphans

FLEES = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(300)
    os._exit(0)
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.005)
if sys.argv[2] == "hang":
    time.sleep(300)
"""


def flees(file: Path, then: str, timeout_s: float) -> Exit:
    return execute([sys.executable, "-c", FLEES, str(file), then], run.environment({}), timeout_s=timeout_s)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_a_double_fork_into_another_session_is_found(tmp_path: Path) -> None:
    done = flees(tmp_path / "pid", "end", 60)
    assert done.status == "ok" and len(done.left_behind) == 1 and done.left_behind[0].startswith("python")
    assert gone(int((tmp_path / "pid").read_text()))
    (reason,) = [one for one in run.spoiled_reasons(done, None) if "running" in one]
    assert reason == f"left 1 process(es) running, killed: {done.left_behind[0]}"


def test_a_hanging_process_takes_along_what_fled_from_it(tmp_path: Path) -> None:
    done = flees(tmp_path / "pid", "hang", 1.5)
    assert (done.status, done.left_behind) == ("timeout", ())
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_forgot_its_environment_is_known_by_its_session() -> None:
    done = execute(["/bin/sh", "-c", "env -i sleep 300 & echo $!; sleep 0.2"], run.environment({}), timeout_s=60)
    assert len(done.left_behind) == 1 and gone(int(done.stdout_tail))


def test_no_process_is_left_a_zombie(tmp_path: Path) -> None:
    before = orphans.children(os.getpid())
    execute(["/bin/sh", "-c", "setsid sh -c 'sleep 0.05 & sleep 0.05' & sleep 0.3"], run.environment({}), timeout_s=60)
    flees(tmp_path / "pid", "end", 60)
    assert orphans.children(os.getpid()) == before


def test_what_others_start_meanwhile_is_left_alone() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(pid: int) -> None:
        if not started:
            started.append(subprocess.Popen(["sleep", "300"], start_new_session=True))

    done = execute(["/bin/sleep", "0.3"], run.environment({}), timeout_s=60, tick=start, tick_s=0.02)
    assert done.left_behind == () and started[0].poll() is None
    started[0].send_signal(signal.SIGKILL)
    assert started[0].wait() == -signal.SIGKILL


def test_descendants_are_all_generations() -> None:
    family = subprocess.Popen(["sh", "-c", "sh -c 'sleep 300 & wait' & wait"], start_new_session=True)
    while len(found := orphans.descendants(family.pid)) < 2:
        time.sleep(0.005)
    assert {psutil.Process(pid).name() for pid in found} <= {"sh", "sleep"} and family.pid not in found
    os.killpg(family.pid, signal.SIGKILL)
    family.wait()
