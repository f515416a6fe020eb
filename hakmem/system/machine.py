"""What this host is, and what spoils figures on it.

`probe` reads the machine into a `Machine`: the provenance that stands beside every row. What cannot be read is
``"unknown"``, never left out. `checks` says in words what makes figures unstable, what each would change and how to
mend it; `missing_parts` does the same for optional programs and libraries.
"""

import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hakmem import __version__, paths
from hakmem.errors import BadParameter
from hakmem.system import kernel
from hakmem.system.kernel import UNKNOWN, Limit, Number

__all__ = ["UNKNOWN", "Finding", "Machine", "checks", "host_id", "load_average", "missing_parts", "probe"]


class Machine(BaseModel):
    """Provenance of one host. Sizes in MiB; text as the kernel gives it; ``"unknown"`` for what cannot be read.

    Attributes
    ----------
    host
        Identity under which rows are pooled: rows of two hosts never are.
    cpus, cpus_allowed
        CPUs that are online, and those this process may use.
    thp, thp_defrag
        Mode of transparent huge pages: ``always``, ``madvise`` or ``never``.
    aslr
        ``kernel.randomize_va_space``: 0 off, 1 without the heap, 2 full.
    governor, turbo, smt
        Frequency governors in use; ``on`` or ``off``.
    memory_limit_mib, cpu_quota
        Limits of the control group: MiB and CPUs, or ``"none"``.
    virtualisation
        ``none``, the kind of virtual machine, and whether in a container.
    perf_paranoid
        ``kernel.perf_event_paranoid``: above 2 no instruction counts without privileges.
    load
        Load average over one minute at the time of the probe.
    git_revision, git_dirty
        Commit of the checkout, and whether it has changes that are not committed.
    lock_hash
        First 16 hex digits of the SHA-256 of `requirements.lock`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str
    architecture: str
    cpu: str
    cpus: Number
    cpus_allowed: Number
    memory_mib: Number
    kernel: str
    libc: str
    page_size: Number
    thp: str
    thp_defrag: str
    aslr: Number
    governor: str
    turbo: str
    smt: str
    clocksource: str
    swap_mib: Number
    memory_limit_mib: Limit
    cpu_quota: Limit
    virtualisation: str
    perf_paranoid: Number
    smaps_rollup: bool
    load: Number
    compiler: str
    git_revision: str
    git_dirty: bool | Literal["unknown"]
    lock_hash: str
    python: str
    hakmem: str


class Finding(BaseModel):
    """One thing to know before measuring here.

    Attributes
    ----------
    subject
        What it is about.
    found
        What it is like here.
    effect
        What that changes in the figures.
    remedy
        The command or step that mends it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    subject: str
    found: str
    effect: str
    remedy: str


def probe(host: str | None = None, *, compiler: str | None = None, filesystem: Path = Path("/")) -> Machine:
    """Read what this host is.

    Parameters
    ----------
    host
        Identity to use instead of the computed one, see `host_id`.
    compiler
        C compiler whose version is recorded; default ``$CC``, else ``cc``.
    filesystem
        Where ``proc`` and ``sys`` are found.

    Returns
    -------
    Machine
        Never fails for something unreadable: that is ``"unknown"``.
    """
    proc, sys_ = filesystem / "proc", filesystem / "sys"
    cpu_dir, thp = sys_ / "devices/system/cpu", sys_ / "kernel/mm/transparent_hugepage"
    cpuinfo, meminfo = kernel.read(proc / "cpuinfo"), kernel.read(proc / "meminfo")
    memory_limit, cpu_quota = kernel.cgroup_limits(filesystem)
    revision = _output("git", "-C", str(paths.root()), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(paths.root()), "status", "--porcelain")
    return Machine(
        host=host_id(host),
        architecture=platform.machine(),
        cpu=kernel.field(cpuinfo, "model name", "Model", "CPU part"),
        cpus=os.cpu_count() or UNKNOWN,
        cpus_allowed=len(os.sched_getaffinity(0)),
        memory_mib=kernel.mib(kernel.field(meminfo, "MemTotal")),
        kernel=platform.release(),
        libc=" ".join(platform.libc_ver()).strip() or UNKNOWN,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        thp=kernel.chosen(kernel.read(thp / "enabled")),
        thp_defrag=kernel.chosen(kernel.read(thp / "defrag")),
        aslr=kernel.number(kernel.read(proc / "sys/kernel/randomize_va_space")),
        governor=kernel.distinct(cpu_dir.glob("cpu[0-9]*/cpufreq/scaling_governor")),
        turbo=kernel.turbo(cpu_dir),
        smt={"1": "on", "0": "off"}.get(kernel.read(cpu_dir / "smt/active"), UNKNOWN),
        clocksource=kernel.read(sys_ / "devices/system/clocksource/clocksource0/current_clocksource"),
        swap_mib=kernel.mib(kernel.field(meminfo, "SwapTotal")),
        memory_limit_mib=memory_limit,
        cpu_quota=cpu_quota,
        virtualisation=kernel.virtualisation(filesystem, cpuinfo),
        perf_paranoid=kernel.number(kernel.read(proc / "sys/kernel/perf_event_paranoid")),
        smaps_rollup=kernel.read(proc / "self/smaps_rollup") != UNKNOWN,
        load=load_average(filesystem),
        compiler=_output(*(compiler or os.environ.get("CC") or "cc").split(), "--version").split("\n")[0],
        git_revision=revision,
        git_dirty=UNKNOWN if UNKNOWN in (revision, changes) else bool(changes),
        lock_hash=_hash(paths.lock_file()),
        python=platform.python_version(),
        hakmem=__version__,
    )


def host_id(host: str | None = None) -> str:
    """Return the identity under which rows are pooled.

    Parameters
    ----------
    host
        A chosen identity: 1 to 64 letters, digits, dots, dashes or underscores. Default: the host name and a hash of
        what makes the machine (machine id, processor, number of CPUs, memory), so that a changed machine is another.

    Raises
    ------
    BadParameter
        If the chosen identity has other characters.
    """
    if host is not None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", host):
            raise BadParameter(f"host {host!r} is not allowed: it takes 1 to 64 letters, digits, dots, dashes or _")
        return host
    memory = kernel.mib(kernel.field(kernel.read(Path("/proc/meminfo")), "MemTotal"))
    made_of = (
        kernel.read(Path("/etc/machine-id")),
        kernel.field(kernel.read(Path("/proc/cpuinfo")), "model name", "Model", "CPU part"),
        os.cpu_count(),
        # Kernels reserve a little more or less from boot to boot: whole GiB.
        memory if memory == UNKNOWN else round(memory / 1024),
    )
    name = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:48] or "host"
    return f"{name}-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:8]}"


def load_average(filesystem: Path = Path("/")) -> Number:
    """Return the load average over one minute (runnable threads), or ``"unknown"``."""
    return kernel.number(kernel.read(filesystem / "proc/loadavg").split(" ")[0])


def checks(machine: Machine) -> list[Finding]:
    """Say what makes figures unstable on a machine.

    Parameters
    ----------
    machine
        As `probe` read it.

    Returns
    -------
    list of Finding
        The worst first; empty where nothing is wrong.
    """
    rules = (_check_sharing, _check_clock, _check_memory, _check_observation)
    return [finding for rule in rules for finding in rule(machine)]


def _finding(subject: str, found: object, effect: str, remedy: str) -> Finding:
    return Finding(subject=subject, found=str(found), effect=effect, remedy=remedy)


def _above(value: Limit, limit: float) -> bool:
    return not isinstance(value, str) and value > limit


def _check_sharing(machine: Machine) -> Iterable[Finding]:
    """Tell who else uses the processor."""
    if not isinstance(machine.cpus_allowed, str) and _above(machine.load, 0.5 * machine.cpus_allowed):
        effect = (
            "other programs take the CPU and the caches: throughput falls and spreads, trials are flagged as spoiled"
        )
        yield _finding(
            "load", f"{machine.load} on {machine.cpus_allowed} CPUs", effect, "stop what `top` shows, or wait"
        )
    if machine.virtualisation not in ("none", "container", UNKNOWN):
        effect = "neighbours on the same hardware take time and cache unseen: throughput drifts by the minute"
        remedy = "use more blocks (pairing cancels slow drift), or bare metal for absolute figures"
        yield _finding("virtualisation", machine.virtualisation, effect, remedy)
    if not _above(machine.cpus_allowed, 3) and machine.cpus_allowed != UNKNOWN:
        effect = "the workbench and the kernel share a core with the measured program; threads of a workload queue"
        remedy = "believe single-threaded workloads only, or give more CPUs"
        yield _finding("few cores", f"{machine.cpus_allowed} CPUs", effect, remedy)
    if machine.cpu_quota not in ("none", UNKNOWN):
        effect = (
            "the kernel stops the program whenever the quota of a period is used up: stalls of tens of milliseconds"
        )
        remedy = "lift the limit of the container (docker: leave out --cpus), pin it to CPUs instead (--cpuset-cpus)"
        yield _finding("CPU quota", f"{machine.cpu_quota} CPUs", effect, remedy)
    if machine.smt == "on":
        effect = "a busy sibling thread halves a core: throughput depends on where the scheduler puts others"
        yield _finding("SMT", "on", effect, "echo off | sudo tee /sys/devices/system/cpu/smt/control")


def _check_clock(machine: Machine) -> Iterable[Finding]:
    """Tell how steadily the processor ticks and how time is read."""
    if machine.governor not in ("performance", UNKNOWN):
        effect = "the clock rises only under load: short trials start slow, the first trial of a block slowest"
        yield _finding("governor", machine.governor, effect, "sudo cpupower frequency-set -g performance")
    if machine.turbo == "on":
        effect = "the clock depends on temperature and on the other cores: throughput falls as the machine warms up"
        remedy = (
            "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo, or"
            " echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
        )
        yield _finding("turbo", "on", effect, remedy)
    if machine.clocksource in ("hpet", "acpi_pm", "jiffies", "refined-jiffies"):
        effect = "reading the clock is slow or coarse: epochs and stalls are blurred"
        remedy = "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"
        yield _finding("clock source", machine.clocksource, effect, remedy)


def _check_memory(machine: Machine) -> Iterable[Finding]:
    """Tell what distorts resident memory."""
    thp = "/sys/kernel/mm/transparent_hugepage/enabled"
    if machine.thp == "always":
        effect = "one touch makes 2 MiB resident: RSS is rounded up for every allocator that does not decline"
        yield _finding("huge pages", "always", effect, f"echo madvise | sudo tee {thp}")
    if machine.thp == "never":
        effect = "gates that ask for huge pages cannot bite"
        yield _finding("huge pages", "never", effect, f"echo madvise | sudo tee {thp}")
    if _above(machine.swap_mib, 0):
        effect = "pages may leave RSS without being freed when memory is short: RSS reads too low"
        yield _finding("swap", f"{machine.swap_mib} MiB", effect, "sudo swapoff -a")
    if machine.memory_limit_mib not in ("none", UNKNOWN):
        effect = "trials that grow beyond it are killed, and near it MADV_FREE pages are reclaimed early"
        remedy = "lift the limit of the container (docker: leave out --memory)"
        yield _finding("memory limit", f"{machine.memory_limit_mib} MiB", effect, remedy)
    if machine.aslr == 0:
        effect = "every trial has the same address layout: its luck is not averaged out over the blocks"
        yield _finding("ASLR", "off", effect, "sudo sysctl kernel.randomize_va_space=2")


def _check_observation(machine: Machine) -> Iterable[Finding]:
    """Tell what cannot be seen from here."""
    if _above(machine.perf_paranoid, 2):
        effect = "instructions an operation cannot be counted"
        remedy = "sudo sysctl kernel.perf_event_paranoid=2"
        yield _finding("permissions", f"perf_event_paranoid {machine.perf_paranoid}", effect, remedy)
    if not machine.smaps_rollup:
        effect = "memory given back lazily (MADV_FREE) cannot be told from memory in use"
        yield _finding("smaps_rollup", "not readable", effect, "a kernel from 4.14 on with CONFIG_PROC_PAGE_MONITOR")
    if machine.git_dirty is True:
        effect = "the figures cannot be traced to a revision"
        yield _finding("checkout", "changes not committed", effect, "git commit, then measure")
    unread = [name for name, value in machine.model_dump().items() if value == UNKNOWN]
    if unread:
        effect = "their influence cannot be ruled out; rows say unknown"
        yield _finding("not readable", ", ".join(unread), effect, "run on bare metal, or accept it")


_PARTS = (
    # program or library, package, what for
    ("libmimalloc.so*", "libmimalloc-dev", "mimalloc as a peer"),
    ("libjemalloc.so*", "libjemalloc-dev", "jemalloc as a peer"),
    ("libtcmalloc.so*", "libgoogle-perftools-dev", "tcmalloc as a peer"),
    ("libtbbmalloc_proxy.so*", "libtbbmalloc2", "tbbmalloc as a peer"),
    ("valgrind", "valgrind", "the C tests under memcheck"),
    ("clang", "clang", "a second compiler for the C tests"),
    ("strace", "strace", "the cross-check of system calls an operation"),
    ("chromium", "chromium", "the tests that open a report in a browser"),
    ("chromedriver", "chromium-driver", "the tests that open a report in a browser"),
    ("sqlite3", "sqlite3", "the tests that preload the allocator under it"),
    ("perl", "perl", "the tests that preload the allocator under it"),
    ("lua5.4", "lua5.4", "the tests that preload the allocator under it"),
    ("redis-server", "redis-server", "the tests that preload the allocator under it"),
)


def missing_parts(filesystem: Path = Path("/")) -> list[Finding]:
    """List the optional programs and libraries that are not installed.

    Parameters
    ----------
    filesystem
        Where libraries are looked for; programs are looked for on ``PATH``.

    Returns
    -------
    list of Finding
        One for each missing part, with the command that installs it.
    """
    folders = ("lib", "usr/lib", "usr/local/lib", "lib/*-linux-gnu", "usr/lib/*-linux-gnu", "lib64", "usr/lib64")
    missing = []
    for part, package, purpose in _PARTS:
        if ".so" in part:
            here = any(True for folder in folders for _ in filesystem.glob(f"{folder}/{part}"))
        else:
            here = shutil.which(part) is not None
        if not here:
            remedy = f"sudo apt-get install {package}"
            missing.append(_finding(part.rstrip("*"), "not installed", f"without it: no {purpose}", remedy))
    return missing


def _output(*command: str) -> str:
    """Return what a command prints, ``"unknown"`` if it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return done.stdout.strip()


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return UNKNOWN
