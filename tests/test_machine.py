import hashlib
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from hakmem import paths
from hakmem.errors import BadParameter
from hakmem.system import machine
from hakmem.system.machine import UNKNOWN, Machine

QUIET = Machine(
    host="bench-1",
    architecture="x86_64",
    cpu="some processor",
    cpus=16,
    cpus_allowed=16,
    memory_mib=65536,
    kernel="6.1.0",
    libc="glibc 2.36",
    page_size=4096,
    thp="madvise",
    thp_defrag="madvise",
    aslr=2,
    governor="performance",
    turbo="off",
    smt="off",
    clocksource="tsc",
    swap_mib=0,
    memory_limit_mib="none",
    cpu_quota="none",
    virtualisation="none",
    perf_paranoid=2,
    smaps_rollup=True,
    load=0.1,
    compiler="cc 12",
    git_revision="0" * 40,
    git_dirty=False,
    lock_hash="0" * 16,
    python="3.11.7",
    hakmem="0.1.0",
)

LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast CPU @ 3.0 GHz\nflags\t\t: fpu sse2\n",
    "proc/meminfo": "MemTotal:       16384000 kB\nSwapTotal:       2097152 kB\n",
    "proc/loadavg": "1.50 0.75 0.20 2/345 6789\n",
    "proc/self/cgroup": "0::/user.slice/session.scope\n",
    "proc/self/smaps_rollup": "Rss: 4 kB\n",
    "proc/sys/kernel/randomize_va_space": "2\n",
    "proc/sys/kernel/perf_event_paranoid": "4\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer [defer+madvise] madvise never\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
    "sys/devices/system/cpu/smt/active": "1\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/user.slice/memory.max": "268435456\n",
    "sys/fs/cgroup/user.slice/session.scope/memory.max": "max\n",
    "sys/fs/cgroup/user.slice/session.scope/cpu.max": "150000 100000\n",
}


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_agrees_with_other_sources() -> None:
    found = machine.probe()
    assert found.cpus == psutil.cpu_count()
    assert found.cpus_allowed == len(psutil.Process().cpu_affinity() or [])
    assert found.memory_mib == psutil.virtual_memory().total >> 20
    assert found.swap_mib == psutil.swap_memory().total >> 20
    assert found.page_size == os.sysconf("SC_PAGE_SIZE")
    assert found.kernel == os.uname().release
    assert found.lock_hash == hashlib.sha256(paths.lock_file().read_bytes()).hexdigest()[:16]
    assert found.compiler == subprocess.check_output(["cc", "--version"], text=True).splitlines()[0]


def test_a_laptop_is_read_from_its_files(tmp_path: Path) -> None:
    found = machine.probe(filesystem=lay_out(tmp_path, LAPTOP))
    assert found.cpu == "Fast CPU @ 3.0 GHz"
    assert (found.memory_mib, found.swap_mib) == (16000, 2048)
    assert (found.thp, found.thp_defrag) == ("always", "defer+madvise")
    assert (found.aslr, found.perf_paranoid, found.load) == (2, 4, 1.5)
    assert (found.governor, found.turbo, found.smt) == ("performance, powersave", "on", "on")
    assert (found.memory_limit_mib, found.cpu_quota) == (256, 1.5)
    assert (found.clocksource, found.virtualisation, found.smaps_rollup) == ("hpet", "none", True)


def test_what_cannot_be_read_is_unknown_and_never_left_out(tmp_path: Path) -> None:
    found = machine.probe(filesystem=tmp_path, compiler="no-such-compiler")
    unread = {name for name, value in found.model_dump().items() if value == UNKNOWN}
    assert unread >= {
        *("cpu", "memory_mib", "thp", "thp_defrag", "aslr", "governor", "turbo", "smt", "clocksource", "swap_mib"),
        *("memory_limit_mib", "cpu_quota", "virtualisation", "perf_paranoid", "load", "compiler"),
    }
    assert found.smaps_rollup is False


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, 0),
        (
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
                "sys/fs/cgroup/memory.max": "67108864\n",
                "sys/fs/cgroup/cpu.max": "max 100000\n",
            },
            (64, "none"),
        ),
        # Version 1, and a container that sees its own group at the top.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n",
                "sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us": "100000\n",
            },
            (64, 0.5),
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0,
        ),
    ],
    ids=["v2 at the root", "v2 seen from a container", "v1 with limits", "v1 without limits"],
)
def test_limits_of_the_control_group(tmp_path: Path, files: dict[str, str], limits: object) -> None:
    found = machine.probe(filesystem=lay_out(tmp_path, files))
    assert (found.memory_limit_mib, found.cpu_quota) == (limits or ("none", "none"))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"proc/cpuinfo": "flags\t: fpu hypervisor\n"}, "virtual machine"),
        ({"proc/cpuinfo": "flags : hypervisor\n", "sys/class/dmi/id/sys_vendor": "QEMU\n"}, "virtual machine (QEMU)"),
        ({"proc/cpuinfo": "flags : fpu\n", "sys/hypervisor/type": "xen\n", ".dockerenv": ""}, "xen, container"),
        (
            {"proc/cpuinfo": "CPU part : 0xd0c\n", "proc/device-tree/hypervisor/compatible": "linux,kvm"},
            "virtual machine",
        ),
        ({"proc/cpuinfo": "flags : fpu\n", "run/.containerenv": ""}, "container"),
    ],
)
def test_virtual_machines_and_containers_are_seen(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    assert machine.probe(filesystem=lay_out(tmp_path, files)).virtualisation == kind


@pytest.mark.parametrize(("boost", "turbo"), [("1", "on"), ("0", "off")])
def test_turbo_of_other_processors(tmp_path: Path, boost: str, turbo: str) -> None:
    files = {"sys/devices/system/cpu/cpufreq/boost": boost}
    assert machine.probe(filesystem=lay_out(tmp_path, files)).turbo == turbo


def test_revision_and_dirty_flag_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    outside = machine.probe()
    assert (outside.git_revision, outside.git_dirty, outside.lock_hash) == (UNKNOWN, UNKNOWN, UNKNOWN)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    clean = machine.probe()
    assert clean.git_revision == subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert clean.git_dirty is False
    (tmp_path / "new.c").touch()
    assert machine.probe().git_dirty is True


def test_the_host_is_the_same_every_time_and_may_be_chosen() -> None:
    assert machine.host_id() == machine.host_id() == machine.probe().host
    assert machine.probe("worker-2").host == "worker-2"
    for bad in ("", "two words", "a/b", "x" * 65, "line\n"):
        with pytest.raises(BadParameter, match="is not allowed: it takes 1 to 64"):
            machine.host_id(bad)


def test_a_quiet_machine_has_nothing_to_say() -> None:
    assert machine.checks(QUIET) == []


@pytest.mark.parametrize(
    ("change", "subject", "remedy"),
    [
        ({"load": 8.5}, "load", "top"),
        ({"virtualisation": "virtual machine"}, "virtualisation", "more blocks"),
        ({"cpus_allowed": 2}, "few cores", "more CPUs"),
        ({"cpu_quota": 1.5}, "CPU quota", "--cpus"),
        ({"smt": "on"}, "SMT", "smt/control"),
        ({"governor": "powersave"}, "governor", "cpupower frequency-set -g performance"),
        ({"turbo": "on"}, "turbo", "no_turbo"),
        ({"clocksource": "hpet"}, "clock source", "tsc"),
        ({"thp": "always"}, "huge pages", "echo madvise"),
        ({"thp": "never"}, "huge pages", "echo madvise"),
        ({"swap_mib": 2048}, "swap", "swapoff"),
        ({"memory_limit_mib": 64}, "memory limit", "--memory"),
        ({"aslr": 0}, "ASLR", "randomize_va_space=2"),
        ({"perf_paranoid": 4}, "permissions", "perf_event_paranoid=2"),
        ({"smaps_rollup": False}, "smaps_rollup", "CONFIG_PROC_PAGE_MONITOR"),
        ({"git_dirty": True}, "checkout", "git commit"),
        ({"governor": UNKNOWN, "turbo": UNKNOWN}, "not readable", "accept"),
    ],
)
def test_each_disturbance_is_found_and_has_a_remedy(change: dict[str, object], subject: str, remedy: str) -> None:
    (finding,) = machine.checks(QUIET.model_copy(update=change))
    assert finding.subject == subject
    assert remedy in finding.remedy
    assert finding.effect
    shown = [str(value) for value in change.values() if not isinstance(value, bool) and value != 0]
    assert all(value in finding.found for value in shown) or finding.subject == "not readable"


def test_unreadable_values_disturb_nothing_but_are_listed() -> None:
    blind = {name: UNKNOWN for name in Machine.model_fields if name not in ("host", "smaps_rollup")}
    (finding,) = machine.checks(QUIET.model_copy(update=blind))
    assert finding.found == ", ".join(blind)


def test_missing_parts_come_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = {finding.subject: finding.remedy for finding in machine.missing_parts(tmp_path)}
    assert missing["libmimalloc.so"] == "sudo apt-get install libmimalloc-dev"
    assert missing["chromedriver"] == "sudo apt-get install chromium-driver"
    lay_out(tmp_path, {"usr/lib/aarch64-linux-gnu/libmimalloc.so.2.0": "", "chromedriver": ""})
    (tmp_path / "chromedriver").chmod(0o755)
    assert missing.keys() - {finding.subject for finding in machine.missing_parts(tmp_path)} == {
        "libmimalloc.so",
        "chromedriver",
    }


def test_continuous_integration_installs_every_optional_part() -> None:
    script = (paths.root() / ".ci" / "run").read_text(encoding="utf-8")
    for _, package, _ in machine._PARTS:
        assert package in script.split()
