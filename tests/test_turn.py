import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hakmem import paths
from hakmem.errors import HakmemError
from hakmem.system import turn

HOLD = """
import sys
from hakmem.system import turn
with turn.taken():
    print("has it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[str]":
    """Another process that has the turn, until its standard input is closed."""
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path))
    return start()


def start() -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "has it\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.communicate(timeout=60)


def wait_in_a_thread(name: str, told: "queue.Queue[str]") -> threading.Thread:
    def take() -> None:
        with turn.taken(told.put):
            told.put(name)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread


def test_who_waits_is_told_for_whom_and_comes_next(holds: "subprocess.Popen[str]") -> None:
    told: queue.Queue[str] = queue.Queue()
    thread = wait_in_a_thread("mine", told)
    said = told.get(timeout=60)
    assert said.startswith(f"waiting until process {holds.pid} (") and "one measurement at a time" in said
    assert told.empty()
    end(holds)
    assert told.get(timeout=60) == "mine"
    thread.join(60)


def test_a_killed_process_gives_its_turn_back(holds: "subprocess.Popen[str]") -> None:
    holds.kill()
    holds.communicate()
    told: queue.Queue[str] = queue.Queue()
    wait_in_a_thread("mine", told).join(60)
    assert told.get_nowait() == "mine"  # nothing was said of waiting


def test_who_has_just_measured_queues_behind_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path))
    told: queue.Queue[str] = queue.Queue()
    with turn.taken():
        thread = wait_in_a_thread("theirs", told)
        assert "waiting" in told.get(timeout=60)
    with turn.taken(told.put):
        told.put("mine again")
    thread.join(60)
    order = [said for said in iter(told.get_nowait, "mine again") if "waiting" not in said]
    assert order == ["theirs"]


def test_the_files_serve_every_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path))
    before = os.umask(0o077)
    try:
        with turn.taken():
            pass
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {
        turn.QUEUE: "0o644",
        turn.MEASURING: "0o644",
    }


def test_a_lock_that_cannot_be_opened_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path / "none"))
    with pytest.raises(HakmemError, match="cannot take turns .*none.*WORKBENCH_LOCK_DIR"), turn.taken():
        pass
    (tmp_path / turn.QUEUE).symlink_to(tmp_path / "elsewhere")  # somebody else's trap
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path))
    with pytest.raises(HakmemError, match="cannot take turns"), turn.taken():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_command_waits_for_another(holds: "subprocess.Popen[str]") -> None:
    """Two commands on one host: the second says what it waits for and measures when the first has ended."""
    command = [sys.executable, "-m", "hakmem", "run", "--arm", "system", "--workload", "mixed:cycles=1000", "--json"]
    second = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=paths.root(), env=dict(os.environ)
    )
    assert second.stderr is not None
    assert f"waiting until process {holds.pid}" in second.stderr.readline()
    assert second.poll() is None
    end(holds)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and '"status": "ok"' in out
