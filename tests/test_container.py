"""A memory limit around a process: it lives within, is killed beyond, and nothing is left behind."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hakmem import workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import build
from hakmem.errors import MissingTool
from hakmem.run import trial
from hakmem.system import container

LACKS = container.why_not()
needs_cgroup = pytest.mark.skipif(LACKS is not None, reason=f"needs a memory cgroup: {LACKS}")


@needs_cgroup
@pytest.mark.parametrize(("burst", "status"), [(8, "ok"), (40, "killed")])
def test_a_burst_lives_within_the_limit_and_dies_beyond(burst: int, status: str) -> None:
    made = build()
    work = workload.parse(f"container:limit_mb=24,burst_mb={burst}", "smoke")
    arm = arms.make(allocators.find("system", made), {})
    done = trial(made, arm, work)
    assert done.status == status and (done.exit.signal == signal.SIGKILL) == (status == "killed")
    assert (done.line is not None) == (status == "ok")


@needs_cgroup
def test_the_group_holds_who_entered_it_and_is_removed() -> None:
    with container.limit(32) as group:
        command = [*container.entering(group), "/bin/cat", str(group / "cgroup.procs"), "/proc/self/stat"]
        read, write = os.pipe()
        pid = os.posix_spawn(command[0], command, {}, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
        os.close(write)
        with os.fdopen(read) as out:
            members, own = out.read().splitlines()
        os.waitpid(pid, 0)
        assert members == own.split()[0] == str(pid)
    assert not group.exists()


def test_groups_of_killed_makers_are_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    stale, mine, living, busy = (tmp_path / f"hakmem-{pid}" for pid in (ended.pid, os.getpid(), os.getppid(), "0"))
    others = tmp_path / "hakmem-tests.scope"
    for group in (stale, mine, living, busy, others):
        group.mkdir()
    (busy / "holds").touch()  # the kernel refuses as this folder does
    container._sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {living, busy, others}


def test_a_machine_without_a_controller_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_parents", lambda: [])
    with (
        pytest.raises(MissingTool, match="no memory cgroup of 64 MB can be made here .no memory controller is mounted"),
        container.limit(64),
    ):
        pass
    assert container.why_not() is not None
