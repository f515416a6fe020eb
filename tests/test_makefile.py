import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hakmem import paths

ROOT = paths.root()
TARGETS = {"setup", "build", "native", "report", "test", "bench", "lab", "lint", "clean", "help"}


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_help_lists_every_target_with_a_line_of_its_own() -> None:
    shown = dict(re.findall(r"^  (\w+) +(\S.*)$", make("help").stdout, flags=re.MULTILINE))
    assert set(shown) >= TARGETS
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony
    assert set(shown) == set(phony[1].split())
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", sorted(TARGETS - {"help", "clean"}))
@pytest.mark.parametrize("elsewhere", [("SYSTEM=Darwin", "CPU=arm64"), ("SYSTEM=Linux", "CPU=riscv64")])
def test_other_systems_get_one_clear_sentence(target: str, elsewhere: tuple[str, str]) -> None:
    found = make(target, *elsewhere)
    assert found.returncode == 2
    system, cpu = (word.split("=")[1] for word in elsewhere)
    says = f"hakmem runs on Linux on x86-64 or aarch64 only, and this is {system} on {cpu}"
    assert found.stdout == ""
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {says}\.  Stop\.\n", found.stderr)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The files that `make setup` reads, in a place without an environment."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('[ "$2" != "${2#import sys}" ] && echo "hakmem needs Python 3.11 or later" >&2; exit 1', "3.11 or later"),
        ('case "$2" in "import sys"*) exit 0;; *) exit 1;; esac', "install it with  sudo apt-get install python3-venv"),
    ],
    ids=["old python", "no venv module"],
)
def test_setup_says_what_the_machine_lacks(bare: Path, script: str, says: str) -> None:
    python = bare / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    found = make("setup", f"PYTHON={python}", folder=bare)
    assert found.returncode == 2
    assert says in found.stderr
    assert not (bare / ".venv").exists()


def test_setup_says_that_there_is_no_python(bare: Path) -> None:
    found = make("setup", "PYTHON=no-such-python", folder=bare)
    assert found.returncode == 2
    assert found.stderr.startswith("there is no no-such-python on this machine: install it with")


def test_native_says_that_there_is_no_compiler() -> None:
    found = make("native", "CC=no-such-compiler -O3")
    assert found.returncode == 2
    assert found.stderr.startswith("there is no C compiler no-such-compiler on this machine: install it with")


def test_the_version_check_refuses_an_old_python() -> None:
    recipe = re.search(r"-c '(import sys;.*?)'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert recipe
    code = recipe[1].replace("$(PYTHON)", "python3")
    for version, status in (((3, 10, 9), "is 3.10: name another"), ((3, 11, 0), None), ((4, 0, 0), None)):
        caught = None
        try:
            exec(code.replace("sys.version_info", repr(version)), {})  # noqa: S102
        except SystemExit as stop:
            caught = str(stop)
        assert (caught is None) == (status is None)
        assert status is None or status in str(caught)


def test_setup_does_nothing_the_second_time_and_runs_again_when_the_lock_changes(bare: Path) -> None:
    stamp = bare / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    assert make("--question", "setup", folder=bare).returncode == 0
    stamp_time = stamp.stat().st_mtime
    lock = bare / "requirements.lock"
    lock.touch()
    os.utime(lock, (stamp_time + 10, stamp_time + 10))
    assert make("--question", "setup", folder=bare).returncode == 1


def test_the_jobs_do_all_they_need() -> None:
    native, store = f"-C native OUT={ROOT}/build/native", "-m hakmem build"
    for target in ("report", "reports", "test", "bench", "lab"):
        steps = make("--dry-run", "--always-make", target).stdout
        assert "--require-hashes -r requirements.lock" in steps
        assert (native in steps, store in steps) == ((True, False) if target == "test" else (False, True))


def test_the_profile_reaches_the_jobs() -> None:
    assert "report 20_lean_sweep --profile smoke" in make("--dry-run", "report", "PROFILE=smoke").stdout
    assert "bench --profile smoke" in make("--dry-run", "bench", "PROFILE=smoke").stdout
    assert "--profile quick" in make("--dry-run", "report").stdout


def test_the_lab_listens_on_loopback_with_its_token_on() -> None:
    [lab] = [step for step in make("--dry-run", "lab").stdout.splitlines() if "jupyter" in step and "lab" in step]
    assert "--ServerApp.ip=127.0.0.1" in lab
    assert not re.search(r"token|password|disable", lab)
