"""One trial: one fresh process, measured by itself, watched from outside, judged when it ends.

The command runs without a shell, in its own session, with an environment made from scratch; it dies with the workbench
(a parent-death signal), and what it leaves running is killed when it ends, hangs or the workbench is interrupted.
Memory figures are those the child reads of itself: what the kernel tells a parent about a child includes the parent.
"""

import contextlib
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from hakmem.builds.arms import Arm
from hakmem.builds.build import Build
from hakmem.errors import MissingTool, TrialFailed
from hakmem.system import container, orphans
from hakmem.workload import Workload

STDOUT_KEPT = 1 << 18
STDERR_KEPT = 4096
PADDING = "TRIAL_PADDING"
PADDING_LIMIT = 4096
STOLEN_SHARE_LIMIT = 0.05
SWITCHES_PER_S_LIMIT = 50.0
MIN_SWITCHES = 20
PROGRAM_TIMEOUT_S = 3600.0  # nobody knows how long a program of the user's takes
LEAKS = ("HAKMEM_", "MALLOC_", "MIMALLOC_", "TCMALLOC_", "TBB_", "GLIBC_TUNABLES", "LD_PRELOAD", PADDING)


def _known(value: object) -> object:
    """Drivers write -1 for what the kernel does not say."""
    return None if value == -1 else value


Kilobytes = Annotated[int | None, BeforeValidator(_known)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PhaseLine(_Part):
    """Memory at a phase mark of a driver (KiB), and seconds since its start."""

    name: str
    t_s: float
    rss_kb: Kilobytes = None
    lazyfree_kb: Kilobytes = None
    anon_kb: Kilobytes = None
    peak_rss_kb: Kilobytes = None


class TimedLine(_Part):
    """Resources of the timed region."""

    user_s: float
    sys_s: float
    minflt: int
    majflt: int
    nvcsw: int
    nivcsw: int


class AllocatorLine(_Part):
    """What an allocator says about itself."""

    name: str
    version: str
    build: str
    gates: dict[str, str]
    counters: dict[str, int]
    timed: dict[str, int]


class DriverLine(_Part):
    """The last line a driver prints with ``--json``."""

    hakmem_bench: Literal[1]
    driver: str
    args: dict[str, JsonValue]
    ops: int = Field(ge=0)
    seconds: float = Field(ge=0)
    ops_per_s: float = Field(ge=0)
    peak_rss_kb: Kilobytes
    start_rss_kb: Kilobytes
    phases: tuple[PhaseLine, ...]
    timed: TimedLine
    extra: dict[str, JsonValue] = {}
    allocator: AllocatorLine | None


class Exit(BaseModel):
    """How one process ended (seconds).

    `steal_s` was stolen from its core, or from the machine if not pinned; `busy` is how many other threads wanted to
    run when it began; None where the kernel is silent. `left_behind` names the processes that it left running, which
    were killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    started: datetime
    status: Literal["ok", "failed", "timeout", "killed"]
    exit_status: int | None
    signal: int | None
    stdout_tail: str
    stderr_tail: str
    wall_s: float
    user_s: float
    sys_s: float
    nivcsw: int
    steal_s: float | None
    busy: int | None
    cpu: int | None
    left_behind: tuple[str, ...] = ()


class Outcome(BaseModel):
    """One judged trial: the process, what its driver said, and what spoils it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    exit: Exit
    status: Literal["ok", "failed", "timeout", "killed", "garbage"]
    complaint: str
    line: DriverLine | None
    spoiled: tuple[str, ...]


def environment(
    gates: Mapping[str, str], preload: Path | None = None, padding: int = 0, *, inherit: bool = False
) -> dict[str, str]:
    """Make the whole environment of a trial; nothing of the caller's settings of allocators leaks in.

    Parameters
    ----------
    gates : mapping
        ``HAKMEM_*`` variables, canonical.
    preload : Path, optional
        Library for ``LD_PRELOAD``.
    padding : int
        Bytes of a variable that only shifts the stack, so that no arm keeps a lucky alignment.
    inherit : bool
        Keep the rest of the caller's environment, which a program of the user's may need.
    """
    path = os.environ.get("PATH", os.defpath)
    made = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    if inherit:
        made = {name: value for name, value in os.environ.items() if not name.startswith(LEAKS)}
    made |= gates
    if preload is not None:
        made["LD_PRELOAD"] = str(preload)
    made[PADDING] = "x" * padding
    return made


def padding_of(seed: int, block: int) -> int:
    """Return the bytes of environment padding of a block: the same for all its arms, different from block to block."""
    return random.Random(f"padding {seed} {block}").randrange(PADDING_LIMIT)


def measuring_cpu() -> int | None:
    """Choose the core that trials are pinned to: the last one allowed, or None where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1] if len(allowed) > 1 else None


def trial(
    build: Build,
    arm: Arm,
    work: Workload,
    *,
    timeout_s: float | None = None,
    padding: int = 0,
    tick: Callable[[int], None] | None = None,
) -> Outcome:
    """Run one trial of an arm on a workload; nothing is written.

    Parameters
    ----------
    build : Build
        Holds the driver programs.
    arm : Arm
    work : Workload
        Single-threaded ones are pinned to a core; a program of the user's is not, and is run by the small launcher.
    timeout_s : float, optional
        By default twenty times what the workload should take, and half a minute; an hour for a program.
    padding : int
        Bytes of environment padding, see `padding_of`.
    tick : callable, optional
        See `execute`.

    Returns
    -------
    Outcome
    """
    if work.program:
        env = environment(arm.gates, arm.allocator.library, padding, inherit=True)
        return _program(build, env, work, timeout_s or PROGRAM_TIMEOUT_S, tick)
    program = build.driver(work.driver, arm.allocator.flavour)
    with container.limit(work.memory_mb) if work.memory_mb else contextlib.nullcontext() as group:
        return measure(
            [str(program), *work.args],
            environment(arm.gates, arm.allocator.library, padding),
            timeout_s=timeout_s or 30 + 20 * work.expected_s,
            cpu=measuring_cpu() if work.threads == 1 else None,
            tick=tick,
            tick_s=min(0.1, max(0.02, work.expected_s / 50)),
            speaks=arm.allocator.is_hakmem,
            group=group,
        )


def unwatched(build: Build, arm: Arm, work: Workload, *, padding: int = 0) -> DriverLine:
    """Run a driver as `trial` does, but look at nothing until it has ended: what trials are held against.

    Returns
    -------
    DriverLine
        What the driver said.

    Raises
    ------
    TrialFailed
        It said nothing of use.
    """
    env = environment(arm.gates, arm.allocator.library, padding)
    plain = {name: value for name, value in env.items() if name != "LD_PRELOAD"}
    argv = [*_launcher(env), str(build.driver(work.driver, arm.allocator.flavour)), *work.args]
    with tempfile.TemporaryFile() as out, _pinned(measuring_cpu() if work.threads == 1 else None) as settle:
        process = subprocess.Popen(
            argv,
            env=plain,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a session of its own is a share of the processor of its own
        )
        try:
            settle()
            process.wait()
        finally:
            process.kill()  # of an interrupt: its session is its own, which no terminal ends
            process.wait()
        out.seek(0)
        line, complaint = parse_line(out.read().decode(errors="replace"))
    if line is None or not line.ops_per_s:
        raise TrialFailed(f"{arm.label} on {work.text}: {complaint or 'no operations a second'}")
    return line


def _program(
    build: Build, env: Mapping[str, str], work: Workload, timeout_s: float, tick: Callable[[int], None] | None
) -> Outcome:
    """Run a program under the launcher, which writes the result line of a driver to a descriptor of its own."""
    plain = {name: value for name, value in env.items() if name != "LD_PRELOAD"}
    with open(os.memfd_create("report"), "rb") as report:
        argv = [str(build.launcher()), f"--report={report.fileno()}"]
        argv += [f"--preload={env['LD_PRELOAD']}"] if "LD_PRELOAD" in env else []
        argv += [f"--seconds={work.seconds:g}"] if work.seconds else []
        command = [*argv, "--", *work.args]
        done = execute(command, plain, timeout_s=timeout_s, tick=tick, pass_fds=(report.fileno(),))
        report.seek(0)
        told = report.read().decode()
    line, complaint = parse_line(told) if done.status == "ok" else (None, "")
    if "cannot be preloaded" in done.stderr_tail:
        done = done.model_copy(update={"status": "failed"})
        complaint = f"the loader ignored LD_PRELOAD={env.get('LD_PRELOAD', '')}"
    elif done.status == "timeout":
        complaint = f"no end after {timeout_s:g} s: killed with all its children"
    status = "garbage" if done.status == "ok" and line is None else done.status
    return Outcome(exit=done, status=status, complaint=complaint, line=line, spoiled=spoiled_reasons(done, line))


def measure(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    cpu: int | None = None,
    tick: Callable[[int], None] | None = None,
    tick_s: float = 0.05,
    speaks: bool = False,
    group: Path | None = None,
) -> Outcome:
    """Run a driver and judge what it said.

    Parameters
    ----------
    argv, env, timeout_s, cpu, tick, tick_s, group
        As for `execute`; gates in `env` must be those that the allocator says it ran with.
    speaks : bool
        The allocator must tell about itself, as hakmem does.

    Returns
    -------
    Outcome
    """
    done = execute(argv, env, timeout_s=timeout_s, cpu=cpu, tick=tick, tick_s=tick_s, group=group)
    line, complaint = None, ""
    status: Literal["ok", "failed", "timeout", "killed", "garbage"] = done.status
    if done.status == "ok":
        line, complaint = parse_line(done.stdout_tail)
        if line is None:
            status = "garbage"
        elif ignored := _ignored(env, line.allocator, done.stderr_tail, speaks):
            status, complaint = "failed", ignored
    elif done.status == "timeout":
        complaint = f"no end after {timeout_s:g} s: killed with all its children"
    return Outcome(exit=done, status=status, complaint=complaint, line=line, spoiled=spoiled_reasons(done, line))


def execute(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    cpu: int | None = None,
    tick: Callable[[int], None] | None = None,
    tick_s: float = 0.05,
    pass_fds: Sequence[int] = (),
    group: Path | None = None,
) -> Exit:
    """Run one command to its end, its death or its timeout.

    Parameters
    ----------
    argv : sequence of str
        Absolute program and arguments; no shell sees them.
    env : mapping
        The whole environment.
    timeout_s : float
        After so many seconds the whole process group is killed.
    cpu : int, optional
        Core to pin the child to; the workbench keeps off it meanwhile.
    tick : callable, optional
        Called with the child's pid every `tick_s` seconds while it runs.
    pass_fds : sequence of int
        Descriptors that the child inherits.
    group : Path, optional
        A cgroup that the child enters, see `hakmem.system.container`.

    Returns
    -------
    Exit

    Raises
    ------
    MissingTool
        setpriv(1) of util-linux is not installed.
    """
    out, err = _Tail(STDOUT_KEPT), _Tail(STDERR_KEPT)
    busy, stolen = busy_threads(), steal_s(cpu)
    started, begin = datetime.now(UTC), time.monotonic()
    left_behind: tuple[str, ...] = ()
    with orphans.adopted(PADDING) as family, _pinned(cpu) as settle:
        process = subprocess.Popen(
            (container.entering(group) if group else []) + _launcher(env) + list(argv),
            env={name: value for name, value in env.items() if name != "LD_PRELOAD"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
        try:
            settle()
            in_time = _watch(process, {process.stdout: out, process.stderr: err}, begin + timeout_s, tick, tick_s)
            if in_time:
                left_behind = family.names(process.pid)
        finally:
            # The child is not yet reaped: its group id cannot have been given to anybody else.
            os.killpg(process.pid, signal.SIGKILL)
            _, code, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
            family.end(process.pid)
            for pipe, tail in ((process.stdout, out), (process.stderr, err)):
                _drain(pipe, tail)
    stolen_after = steal_s(cpu)
    died_of = -process.returncode if process.returncode < 0 else None
    return Exit(
        started=started,
        status="timeout" if not in_time else "killed" if died_of else "failed" if process.returncode else "ok",
        exit_status=process.returncode if died_of is None else None,
        signal=died_of,
        stdout_tail=out.text(),
        stderr_tail=err.text(),
        wall_s=time.monotonic() - begin,
        user_s=usage.ru_utime,
        sys_s=usage.ru_stime,
        nivcsw=usage.ru_nivcsw,
        steal_s=None if stolen is None or stolen_after is None else max(0.0, stolen_after - stolen),
        busy=busy,
        cpu=cpu,
        left_behind=left_behind,
    )


def parse_line(stdout: str) -> tuple[DriverLine | None, str]:
    """Read the driver's JSON line, which is the last one; None and what is wrong with it otherwise."""
    last = stdout.rstrip("\n").rpartition("\n")[2]
    try:
        return DriverLine.model_validate(json.loads(last)), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"the driver's JSON line: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except ValueError:
        return None, f"the last line on stdout is no JSON: {last[:200]!r}"


def spoiled_reasons(done: Exit, line: DriverLine | None) -> tuple[str, ...]:
    """Say why the figures of a trial should not be trusted; empty when nothing speaks against them."""
    reasons = []
    if done.steal_s is not None and done.steal_s > STOLEN_SHARE_LIMIT * done.wall_s and done.steal_s > 0.02:
        share = 100 * done.steal_s / done.wall_s
        reasons.append(f"stolen CPU time {share:.1f} % (limit {100 * STOLEN_SHARE_LIMIT:.0f} %)")
    switches, seconds = (line.timed.nivcsw, line.seconds) if line else (done.nivcsw, done.wall_s)
    if switches >= MIN_SWITCHES and switches > SWITCHES_PER_S_LIMIT * seconds:
        rate = switches / max(seconds, 1e-3)
        reasons.append(f"{rate:.0f} involuntary context switches a second (limit {SWITCHES_PER_S_LIMIT:.0f})")
    if done.left_behind:
        reasons.append(f"left {len(done.left_behind)} process(es) running, killed: {', '.join(done.left_behind)}")
    cores = len(os.sched_getaffinity(0))
    if done.busy is not None and done.busy >= 2 * cores:
        reasons.append(f"{done.busy} other threads wanted to run on {cores} core(s) when the trial began")
    return tuple(reasons)


def steal_s(cpu: int | None) -> float | None:
    """Return the CPU time stolen by the hypervisor from one core, or from all, since boot (s); None if untold."""
    name = "cpu" if cpu is None else f"cpu{cpu}"
    try:
        for line in Path("/proc/stat").read_text().splitlines():
            fields = line.split()
            if fields and fields[0] == name and len(fields) > 8:
                return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None
    return None


def busy_threads() -> int | None:
    """Count the threads of the machine that run or want to, without the caller; None if the kernel is silent."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return None


def _ignored(env: Mapping[str, str], allocator: AllocatorLine | None, stderr: str, speaks: bool) -> str:
    """Name what was asked of the child and did not happen: a preload the loader dropped, a gate that did not take."""
    if "cannot be preloaded" in stderr:
        return f"the loader ignored LD_PRELOAD={env.get('LD_PRELOAD', '')}"
    if speaks and allocator is None:
        return "hakmem is not at work: the driver found no hakmem_stats_json"
    for name, asked in env.items():
        runs_with = allocator.gates.get(name) if allocator else None
        if name.startswith("HAKMEM_") and runs_with is not None and runs_with != asked:
            return f"{name}={asked} was asked for, but the allocator runs with {runs_with}"
    return ""


def _launcher(env: Mapping[str, str]) -> list[str]:
    """Set the parent-death signal, and keep LD_PRELOAD away from the launchers themselves."""
    if shutil.which("setpriv") is None:
        raise MissingTool("no program 'setpriv' on the PATH: apt-get install util-linux")
    launcher = ["setpriv", "--pdeathsig", "KILL", "--"]
    return [*launcher, "env", f"LD_PRELOAD={env['LD_PRELOAD']}"] if "LD_PRELOAD" in env else launcher


def _watch(
    process: subprocess.Popen[bytes],
    tails: Mapping[Any, "_Tail"],
    deadline: float,
    tick: Callable[[int], None] | None,
    tick_s: float,
) -> bool:
    """Read what the child writes until it ends; False when the deadline came first."""
    next_tick = time.monotonic() + tick_s
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            for pipe, tail in tails.items():
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, tail)
            while (now := time.monotonic()) < deadline:
                if tick is not None and now >= next_tick:
                    tick(process.pid)
                    next_tick = max(next_tick + tick_s, now)
                until = min(deadline, next_tick) if tick is not None else deadline
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    if key.fileobj == pidfd:
                        return True
                    if not key.data.take(key.fd):
                        selector.unregister(key.fileobj)
        return False
    finally:
        os.close(pidfd)


class _Tail:
    """The last bytes of a stream; a child that prints without end costs no memory."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._bytes = bytearray()

    def take(self, fd: int) -> bool:
        """Read once; False at the end of the stream or when nothing is there."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        self._bytes += data
        del self._bytes[: -self._kept]
        return bool(data)

    def text(self) -> str:
        return self._bytes.decode(errors="replace")


def _drain(pipe: Any, tail: _Tail) -> None:
    for _ in range(64):  # a grandchild that left the group may go on writing: take what a pipe can hold, no more
        if not tail.take(pipe.fileno()):
            break
    pipe.close()


@contextlib.contextmanager
def _pinned(cpu: int | None) -> Iterator[Callable[[], None]]:
    """Let a child inherit one core; the yielded function then moves this thread off that core until the end."""
    if cpu is None:
        yield lambda: None
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield lambda: os.sched_setaffinity(0, allowed - {cpu} or allowed)
    finally:
        os.sched_setaffinity(0, allowed)
