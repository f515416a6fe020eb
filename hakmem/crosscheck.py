"""The allocator's count of its own system calls against what strace sees, in an untimed run of its own.

A driver reads its resource usage where the timed region begins and ends, which strace sees too: between the first and
the last ``getrusage`` of the process both count the same calls.
"""

import functools
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hakmem import run
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.errors import BadParameter, MissingTool, TrialFailed
from hakmem.run import DriverLine
from hakmem.system import turn
from hakmem.workload import Workload

MARK = "getrusage"
KINDS = {  # as strace names them: as the allocator counts them
    "mmap": "sys_mmap",
    "munmap": "sys_munmap",
    "mprotect": "sys_mprotect",
    "madvise": "sys_madvise",
    "process_madvise": "sys_madvise",
    "mremap": "sys_mremap",
}
SLOWER = 20  # how much longer a run may take that is traced


class Check(BaseModel):
    """System calls of one run by kind: counted by the allocator, and seen by strace over the same region."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arm: str
    workload: str
    counted: dict[str, int]
    traced: dict[str, int]

    @property
    def agrees(self) -> bool:
        """Whether both saw the same."""
        return self.counted == self.traced


@functools.cache
def why_not() -> str | None:
    """Say why calls cannot be traced here; None where they can."""
    if not shutil.which("strace"):
        return "no program 'strace' on the PATH: apt-get install strace"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace programs here: {tried.stderr.strip()[:200]}" if tried.returncode else None


def check(build: Build, arm: Arm, work: Workload) -> Check:
    """Run a workload once under strace and compare.

    Parameters
    ----------
    build : Build
    arm : Arm
        A hakmem that counts (Standard or OBSERVE).
    work : Workload
        Of a driver.

    Returns
    -------
    Check

    Raises
    ------
    BadParameter
        The arm counts nothing, or the workload is no driver's.
    MissingTool
        strace is not installed.
    TrialFailed
        The traced run failed.
    """
    if work.program:
        raise BadParameter(f"{work.text} tells no counts that strace could be held against; a driver does")
    if not arm.allocator.is_hakmem:
        raise BadParameter(f"{arm.label} does not count its system calls: only hakmem does")
    seen, line = traced(build, arm, work)
    if line.allocator is None or not line.allocator.timed:
        raise BadParameter(f"{arm.label} does not count its system calls: its build leaves the counters out")
    names = sorted(set(KINDS.values()))
    counted = {name: line.allocator.timed.get(name, 0) for name in names}
    return Check(arm=arm.label, workload=work.text, counted=counted, traced={name: seen[name] for name in names})


def traced(build: Build, arm: Arm, work: Workload) -> tuple[Counter[str], DriverLine]:
    """Run a driver once under strace.

    Returns
    -------
    tuple
        The system calls of the timed region, by the allocator's names; what the driver told.

    Raises
    ------
    MissingTool
        strace is not installed, or may not trace.
    TrialFailed
        The traced run failed.
    """
    if lacks := why_not():
        raise MissingTool(lacks)
    with tempfile.TemporaryDirectory(prefix="hakmem-strace-") as scratch:
        log = Path(scratch, "calls")
        env = run.environment(arm.gates, arm.allocator.library)
        preload = ["-E", f"LD_PRELOAD={env.pop('LD_PRELOAD')}"] if "LD_PRELOAD" in env else []
        strace = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", f"trace={','.join((*KINDS, MARK))}", "-o", str(log)]
        program = str(build.driver(work.driver, arm.allocator.flavour))
        with turn.taken():
            done = run.execute([*strace, *preload, program, *work.args], env, timeout_s=60 + SLOWER * work.expected_s)
        line, complaint = run.parse_line(done.stdout_tail)
        if done.status != "ok" or line is None:
            raise TrialFailed(f"{arm.label} under strace: {done.status}: {done.stderr_tail.strip() or complaint}")
        return count(log.read_text(errors="replace")), line


def count(log: str) -> Counter[str]:
    """Count the calls of a log of strace between the first and the last mark, by the allocator's names."""
    calls = [line.split(maxsplit=1)[-1].partition("(")[0] for line in log.splitlines()]
    marks = [at for at, name in enumerate(calls) if name == MARK]
    inside = calls[marks[0] : marks[-1]] if marks else []
    return Counter(KINDS[name] for name in inside if name in KINDS)
