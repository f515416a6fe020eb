"""What the kernel tells in `/proc` and `/sys`; what cannot be read is ``"unknown"``."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

__all__ = [
    "UNKNOWN",
    "Limit",
    "Number",
    "cgroup_limits",
    "chosen",
    "distinct",
    "field",
    "mib",
    "number",
    "read",
    "turbo",
    "virtualisation",
]

UNKNOWN: Literal["unknown"] = "unknown"
Number = int | float | Literal["unknown"]
Limit = int | float | Literal["unknown", "none"]


def read(path: Path) -> str:
    """Return the stripped text of a small file, or ``"unknown"``."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def number(text: str) -> Number:
    """Return the number that a text is."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return UNKNOWN


def field(text: str, *names: str) -> str:
    """Return the value of the first ``name: value`` line found for any of the names."""
    for name in names:
        if found := re.search(rf"^{name}\s*:\s*(.+)$", text, flags=re.MULTILINE):
            return found[1].strip()
    return UNKNOWN


def mib(text: str) -> Number:
    """Return whole MiB of a text like ``16384 kB``."""
    value = number(text.removesuffix(" kB"))
    return value if isinstance(value, str) else int(value) // 1024


def chosen(text: str) -> str:
    """Return the word in brackets: ``always [madvise] never``."""
    found = re.search(r"\[(\S+)\]", text)
    return found[1] if found else UNKNOWN


def distinct(files: Iterable[Path]) -> str:
    """Return the different contents of some files."""
    return ", ".join(sorted({read(file) for file in files})) or UNKNOWN


def turbo(cpu_dir: Path) -> str:
    """Return whether the clock may rise above its base: ``on`` or ``off``."""
    no_turbo, boost = read(cpu_dir / "intel_pstate/no_turbo"), read(cpu_dir / "cpufreq/boost")
    return {"0": "on", "1": "off"}.get(no_turbo) or {"1": "on", "0": "off"}.get(boost, UNKNOWN)


def cgroup_limits(filesystem: Path) -> tuple[Limit, Limit]:
    """Return the memory limit (MiB) and the CPU quota (CPUs) of this process's control group, version 2 or 1."""
    groups = {}
    for line in read(filesystem / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        groups.update({controller: path.lstrip("/") for controller in controllers.split(",")})
    base = filesystem / "sys/fs/cgroup"
    if (base / "cgroup.controllers").exists():
        whole = base / groups.get("", "")
        # The root group has no such files, and no limits.
        return _tightest(base, whole, _memory_max) or "none", _tightest(base, whole, _cpu_max) or "none"
    memory, cpu = base / "memory", base / "cpu"
    return (
        _tightest(memory, memory / groups.get("memory", ""), _memory_limit) or UNKNOWN,
        _tightest(cpu, cpu / groups.get("cpu", ""), _cpu_quota) or UNKNOWN,
    )


def _tightest(top: Path, group: Path, limit_of: Callable[[Path], Limit]) -> Limit | None:
    """Return the smallest limit from a group up to the top, which is where a container sees its own."""
    above = [folder for folder in group.parents if folder.is_relative_to(top)]
    limits = [limit_of(folder) for folder in (group, *above)]
    numbers = [limit for limit in limits if not isinstance(limit, str)]
    return min(numbers) if numbers else "none" if "none" in limits else None


def _memory_max(folder: Path) -> Limit:
    return _limit(read(folder / "memory.max"), 1 << 20)


def _cpu_max(folder: Path) -> Limit:
    quota, _, period = read(folder / "cpu.max").partition(" ")
    return _limit(quota, number(period))


def _memory_limit(folder: Path) -> Limit:
    return _limit(read(folder / "memory.limit_in_bytes"), 1 << 20)


def _cpu_quota(folder: Path) -> Limit:
    return _limit(read(folder / "cpu.cfs_quota_us"), number(read(folder / "cpu.cfs_period_us")))


def _limit(text: str, unit: Number) -> Limit:
    """Return a control group's limit in a unit; version 1 writes "no limit" as -1 or as almost 2^63."""
    value = number(text)
    if text == "max" or (not isinstance(value, str) and not 0 <= value < 1 << 62):
        return "none"
    return UNKNOWN if isinstance(value, str) or isinstance(unit, str) else round(value / unit, 2)


def virtualisation(filesystem: Path, cpuinfo: str) -> str:
    """Name the virtual machine and the container this runs in, ``"none"`` for neither."""
    if cpuinfo == UNKNOWN:
        return UNKNOWN
    kinds = []
    hypervisor = read(filesystem / "sys/hypervisor/type")
    vendor = read(filesystem / "sys/class/dmi/id/sys_vendor")
    flagged = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, flags=re.MULTILINE) is not None
    if hypervisor != UNKNOWN:
        kinds.append(hypervisor)
    elif flagged or (filesystem / "proc/device-tree/hypervisor").exists():
        kinds.append("virtual machine" + (f" ({vendor})" if vendor != UNKNOWN else ""))
    if any((filesystem / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
        kinds.append("container")
    return ", ".join(kinds) or "none"
