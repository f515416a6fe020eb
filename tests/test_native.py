"""The allocator as programs meet it: misuse is caught, real programs run unchanged, gates are read with care."""

import fcntl
import importlib.util
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hakmem import residency
from hakmem.system import container

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
OUT = ROOT / "build" / "native"
LIBRARY = OUT / "lib" / "libhakmem.so"
MISUSES = sorted((NATIVE / "test" / "misuse").glob("*.c"))
LEAN = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_TARGET_MB": "1"}
GATES = {
    "default": {},
    "lean-dontneed": {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED"},
    "lean-free": {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "FREE"},
    "lean-off": {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF"},
    "lean-whole-slabs": {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED", "HAKMEM_SS_PARTIAL_RELEASE": "0"},
    "lean-free-whole-slabs": {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": "FREE", "HAKMEM_SS_PARTIAL_RELEASE": "0"},
}
EXPECT = re.compile(r'// expect: (at once|by flush) "(.+)"\n')
ADDRESS = r": pointer (0x[0-9a-f]+|\(nil\)), (class \d+ B|no class)\n"


@pytest.fixture(scope="session", autouse=True)
def built() -> Iterator[None]:
    """Build libraries and misuse programs once; programs that abort leave no core file."""
    OUT.mkdir(parents=True, exist_ok=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with (OUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-C", str(NATIVE), f"OUT={OUT}", f"-j{os.cpu_count()}", "all", "misuse"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def environment(gates: dict[str, str], library: Path | None = LIBRARY) -> dict[str, str]:
    made = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", **gates}
    return made if library is None else {**made, "LD_PRELOAD": str(library)}


def run(
    command: list[str | Path],
    gates: dict[str, str],
    *,
    library: Path | None = LIBRARY,
    cwd: Path | None = None,
    text: str = "",
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    made = environment(gates, library)
    return subprocess.run(command, env=made, cwd=cwd, input=text, capture_output=True, text=True, timeout=timeout_s)


# ---- misuse ----


@pytest.mark.parametrize("gates", GATES.values(), ids=GATES.keys())
@pytest.mark.parametrize("source", MISUSES, ids=[source.stem for source in MISUSES])
def test_misuse_ends_with_one_line_and_sigabrt(source: Path, gates: dict[str, str]) -> None:
    expected = EXPECT.match(source.read_text())
    assert expected, f"{source} begins with no expectation"
    when, what = expected.groups()
    done = run([OUT / "test" / "misuse" / source.stem], gates)
    assert done.returncode == -6, f"ended with {done.returncode}, said {done.stdout!r} and {done.stderr!r}"
    assert re.fullmatch(f"hakmem: {what}{ADDRESS}", done.stderr)
    if when == "at once":
        assert done.stdout == "", "the program went on behind its bug"


def test_there_is_a_program_for_every_kind_of_misuse() -> None:
    assert len(MISUSES) >= 65


# ---- real programs ----

JSON = '{"numbers": [1, 2.5, -3e10], "nested": {"a": [true, false, null], "text": "\\u00e4\\n"}, "list": [' + (
    ", ".join(f'{{"id": {i}, "name": "item {i}"}}' for i in range(3000)) + "]}"
)
SQL = """
create table t(id integer primary key, name text, value real);
with recursive c(i) as (select 1 union all select i + 1 from c where i < 20000)
  insert into t select i, 'name ' || (i * 7919 % 1000), i * 0.5 from c;
create index by_name on t(name);
select name, count(*), sum(value) from t group by name order by 2 desc, 1 limit 20;
delete from t where id % 3 = 0;
vacuum;
select count(*), sum(length(name)) from t;
"""
PERL = "my %h; $h{$_ % 977} .= chr(65 + $_ % 26) x ($_ % 50) for 1 .. 40000; print map { length $h{$_} } sort keys %h"
BASH = """declare -A sizes
for i in $(seq 3000); do sizes[k$((i % 100))]+="x$i"; done
for k in "${!sizes[@]}"; do echo "$k ${#sizes[$k]}"; done | sort
"""
LUA = "local t = {} for i = 1, 50000 do t[#t + 1] = ('%d'):format(i):rep(i % 20) end print(#table.concat(t))"
NODE = """const a = [];
for (let i = 0; i < 50000; i++) a.push({i, s: 'x'.repeat(i % 100)});
console.log(JSON.stringify(a).length)
"""
TCL = "for {set i 0} {$i < 20000} {incr i} {lappend a([expr {$i % 97}]) [string repeat x [expr {$i % 50}]]}\n" + (
    "foreach k [lsort [array names a]] {puts [string length $a($k)]}\n"
)
CXX_SOURCE = """#include <map>
#include <string>
#include <vector>
std::map<std::string, std::vector<int>> f(int n) {
    std::map<std::string, std::vector<int>> m;
    for (int i = 0; i < n; i++) m[std::to_string(i)].push_back(i);
    return m;
}
"""
LINES = "".join(f"{i * 7919 % 10007} {i * 31 % 1009} line {i}\n" for i in range(60000))
C_SOURCE = "".join(f"int f{i}(int x) {{ return x < 2 ? x : f{i}(x - 1) + f{i}(x - 2) * {i}; }}\n" for i in range(25))
THREADS = """
import concurrent.futures, hashlib, json
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    work = lambda n: hashlib.sha256(json.dumps([list(range(n % 300))] * 20).encode()).hexdigest()
    print(hashlib.sha256("".join(pool.map(work, range(400))).encode()).hexdigest())
"""
PROGRAMS: dict[str, tuple[list[str], str]] = {
    "python3-json": ([sys.executable, "-m", "json.tool", "--sort-keys"], JSON),
    "python3-threads": ([sys.executable, "-c", THREADS], ""),
    "git": (["git", "-C", "repository", "log", "--stat", "--format=%H %an %s"], ""),
    "gcc": (["gcc", "-O2", "-x", "c", "-S", "-o", "-", "-"], C_SOURCE),
    "sqlite3": (["sqlite3", "data.db"], SQL),
    "perl": (["perl", "-e", PERL], ""),
    "bash": (["bash", "-c", BASH], ""),
    "lua": (["lua5.4", "-e", LUA], ""),
    "node": (["node", "-e", NODE], ""),
    "g++": (["g++", "-O1", "-x", "c++", "-S", "-o", "-", "-"], CXX_SOURCE),
    "ls": (
        ["ls", "-lan", "--time-style=+", "/usr/lib", "/usr/bin"],
        "",
    ),  # a library of it allocates before anybody else
    "sort": (["sort", "--parallel=4", "-S", "1M", "-k2"], LINES),
    "xz": (["sh", "-c", "xz -T2 -c | xz -dc"], LINES),
    "jq": (["jq", "-S", "[.list[] | {name, twice: (.id * 2)}] | group_by(.twice % 7) | map(length)"], JSON),
    "openssl": (["openssl", "dgst", "-sha3-256"], LINES),
    "tclsh": (["tclsh"], TCL),
}


def make_repository(where: Path) -> None:
    """Make a small repository with a history that is the same every time."""
    stamp = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    stamp |= {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
    git = ["git", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main"]
    where.mkdir()
    subprocess.run([*git, "init", "-q"], cwd=where, check=True)
    for i in range(12):
        (where / f"file{i % 4}").write_text("".join(f"line {i * k}\n" for k in range(200)))
        subprocess.run([*git, "add", "."], cwd=where, check=True)
        subprocess.run([*git, "commit", "-q", "-m", f"change {i}"], cwd=where, check=True, env={**os.environ, **stamp})


@pytest.mark.parametrize("gates", ["default", "lean-dontneed"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_real_programs_do_not_notice(name: str, gates: str, tmp_path: Path) -> None:
    command, text = PROGRAMS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    outputs = []
    for library in (None, LIBRARY):
        where = tmp_path / ("system" if library is None else "hakmem")
        where.mkdir()
        if name == "git":
            make_repository(where / "repository")
        done = run(list(command), GATES[gates], library=library, cwd=where, text=text)
        outputs.append((done.returncode, done.stdout, done.stderr))
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == 0 and outputs[0][1]


def redis_answers(gates: str, library: Path | None, where: Path) -> tuple[str, ...]:
    """Serve a benchmark and a session whose answers are known; shut down by command, without an error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    where.mkdir()
    address = ["127.0.0.1", "-p", port]
    serve = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", str(where)]
    load = ["redis-benchmark", "-h", *address, "-n", "1000", "-c", "20", "-r", "500", "-d", "300", "--csv"]
    client = ["redis-cli", "-h", *address]
    fill = "for i = 1, 20000 do redis.call('hset', 'h' .. i % 50, i, string.rep('x', i % 400)) end"
    sums = (
        "local n = 0 for i = 0, 49 do for _, v in ipairs(redis.call('hvals', 'h' .. i)) do n = n + #v end end return n"
    )
    session = [["flushall"], ["eval", fill, "0"], ["hlen", "h7"], ["hget", "h7", "1207"], ["set", "k", "y" * 100_000]]
    session += [["append", "k", "z"], ["strlen", "k"], ["lpush", "l", *map(str, range(500))], ["sort", "l", "desc"]]
    session += [["save"], ["debug", "reload"], ["eval", sums, "0"], ["unlink", "k"], ["flushall", "async"], ["dbsize"]]
    options = {"env": environment(GATES[gates], library), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([*serve, "--enable-debug-command", "local"], text=True, **options) as server:
        try:
            while subprocess.run([*client, "ping"], capture_output=True).stdout != b"PONG\n":
                assert server.poll() is None, server.communicate()[0]
                time.sleep(0.05)
            preloaded = str(LIBRARY) in Path(f"/proc/{server.pid}/maps").read_text()
            assert preloaded == (library is not None)
            served = subprocess.run(load, capture_output=True, text=True, timeout=100)
            assert served.returncode == 0 and '"LPUSH"' in served.stdout, served.stderr
            answers = tuple(run([*client, *command], {}, library=None).stdout for command in session)
            run([*client, "shutdown", "nosave"], {}, library=None)
            log, _ = server.communicate(timeout=60)
        finally:
            server.kill()
    assert server.returncode == 0, log
    return answers


@pytest.mark.parametrize("gates", ["default", "lean-dontneed"])
def test_redis_serves_its_benchmark(gates: str, tmp_path: Path) -> None:
    for program in ("redis-server", "redis-benchmark", "redis-cli"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    answers = redis_answers(gates, LIBRARY, tmp_path / "hakmem")
    assert answers == redis_answers(gates, None, tmp_path / "system")
    assert answers[2:4] == ("400\n", "x" * 7 + "\n") and answers[-1] == "0\n"


@pytest.mark.parametrize("gates", ["default", "lean-dontneed"])
def test_python_passes_its_own_tests(gates: str, tmp_path: Path) -> None:
    """Modules of the language's own suite that lean on threads, C types, processes, collections and big strings."""
    if importlib.util.find_spec("test.test_json") is None:
        pytest.skip("this python3 came without its tests")
    modules = [
        "test_json",
        "test_ctypes",
        "test_thread",
        "test_threading_local",
        "test_deque",
        "test_bytes",
        "test_set",
    ]
    done = run([sys.executable, "-m", "test", "-j2", *modules], GATES[gates], cwd=tmp_path)
    assert done.returncode == 0 and "Result: SUCCESS" in done.stdout, done.stdout + done.stderr


MULTIPROCESSING = """
import multiprocessing
def work(n): return sum(len(str(i)) for i in range(n)), [n] * (n % 100)
if __name__ == "__main__":
    for how in ("fork", "spawn"):
        with multiprocessing.get_context(how).Pool(3) as pool:
            print(sum(total + len(part) for total, part in pool.map(work, range(300))))
"""


@pytest.mark.parametrize("gates", ["default", "lean-dontneed"])
def test_processes_that_fork_and_spawn(gates: str, tmp_path: Path) -> None:
    script = tmp_path / "pools.py"
    script.write_text(MULTIPROCESSING)
    done, expected = (run([sys.executable, script], GATES[gates], library=library) for library in (LIBRARY, None))
    assert done.stdout.count("\n") == 2 and done.returncode == 0
    assert (done.stdout, done.stderr) == (expected.stdout, "")


@pytest.mark.parametrize("gates", ["default", "lean-dontneed"])
@pytest.mark.parametrize("name", ["python3-threads", "sqlite3", "perl", "lua", "git", "gcc", "g++"])
def test_real_programs_under_512_mb_of_addresses(name: str, gates: str, tmp_path: Path) -> None:
    command, text = PROGRAMS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if name == "git":
        make_repository(tmp_path / "repository")
    limited = ["sh", "-c", 'ulimit -v 524288 && exec "$@"', "sh", *command]
    done = run(limited, GATES[gates], cwd=tmp_path, text=text)
    assert done.returncode == 0 and done.stdout and not done.stderr, done.stderr


def test_a_program_may_map_for_itself_under_512_mb_of_addresses() -> None:
    script = "import mmap; m = mmap.mmap(-1, 180 << 20); m[-1] = 7; b = bytearray(60 << 20); print(m[-1], len(b))"
    limited = ["sh", "-c", 'ulimit -v 524288 && exec "$@"', "sh", sys.executable, "-c", script]
    done = run(limited, {})
    assert (done.stdout, done.stderr) == (f"7 {60 << 20}\n", "")


def test_the_preload_is_in_force() -> None:
    probe = "import ctypes; print(ctypes.CDLL(None).hakmem_check())"
    assert run([sys.executable, "-c", probe], {}).stdout == "1\n"


# What a valgrind says that does not know process_madvise; the allocator then does without it.
PROCESS_MADVISE = re.compile(r"--\d+-- WARNING: unhandled amd64-linux syscall: 440\n(--\d+-- .*\n){4}")


@pytest.mark.parametrize("name", ["test_early", "test_api"])
def test_valgrind_finds_nothing(name: str) -> None:
    """No wild access and no use of what was never set, in tests of one thread; valgrind's own malloc kept out."""
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind: sudo apt-get install valgrind")
    program = OUT / "test" / "plain" / name
    subprocess.run(["make", "-C", NATIVE, f"OUT={OUT}", program], check=True, capture_output=True)
    valgrind = ["valgrind", "-q", "--error-exitcode=9", "--soname-synonyms=somalloc=nouserintercepts"]
    done = run([*valgrind, program], GATES["lean-dontneed"], library=None, timeout_s=280)  # forty times as slow
    assert (done.returncode, PROCESS_MADVISE.sub("", done.stderr)) == (0, "")


# ---- gates ----


@pytest.mark.parametrize(
    ("gate", "value", "allowed"),
    [
        ("HAKMEM_SS_MEM_LEAN_DECOMMIT", "MAYBE", ("FREE", "DONTNEED", "OFF")),
        ("HAKMEM_SS_MEM_LEAN", "yes", ("0", "1")),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", "10x", ("1", "1048576")),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", "0", ("1", "1048576")),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", "99999999999999999999", ("1", "1048576")),
        ("HAKMEM_STATS_JSON", "stats.json", ("an absolute path", "descriptor")),
        ("HAKMEM_STATS_LIVE", "3", ("the absolute path of a directory",)),
        ("HAKMEM_STATS_LIVE", '/run/"', ("the absolute path of a directory",)),
        ("HAKMEM_PROFILE", "FASTEST", ("MIXED_TINYV3_C7_SAFE", "MIXED_TINYV3_C7_BALANCED")),
        ("HAKMEM_SS_MEM_LEAN", "", ("0", "1")),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", "-5", ("1", "1048576")),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", " 5", ("1", "1048576")),
        ("HAKMEM_SS_MEM_LEAN_DECOMMIT", "FREE DONTNEED", ("FREE", "DONTNEED", "OFF")),
    ],
)
def test_a_bad_gate_is_one_line_and_the_default(gate: str, value: str, allowed: tuple[str, ...]) -> None:
    done = run([OUT / "bin" / "bench_battle_system", "1000"], {gate: value})
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("hakmem: ")
    for word in (gate, value, *allowed):
        assert word in lines[0]


@pytest.mark.parametrize(
    "setting", ["HAKMEM_SS_MEM_LEAN=1\n\x1b[2J0", "HAKMEM_NO\rGATE=1", f"HAKMEM_WARM_POOL={'9' * 100_000}"]
)
def test_whatever_the_environment_holds_is_quoted_in_one_line(setting: str) -> None:
    name, value = setting.split("=")
    done = run([OUT / "bin" / "bench_battle_system", "1000"], {name: value})
    assert done.returncode == 0
    assert re.fullmatch(r"hakmem: [ -~]{20,390}\n", done.stderr)


def test_a_program_with_raised_privileges_gets_the_defaults(tmp_path: Path) -> None:
    """It must not write files, or say anything, where whoever started it wants."""
    program, written = tmp_path / "raised", tmp_path / "stats.json"
    shutil.copy(OUT / "bin" / "bench_battle_hakmem", program)
    if os.geteuid() != 0 or os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("needs root and a file system whose programs may raise privileges")
    gates = {
        **GATES["lean-dontneed"],
        "HAKMEM_STATS_JSON": str(written),
        "HAKMEM_STATS_LIVE": str(tmp_path),
        "HAKMEM_X": "1",
    }
    effective = []
    for mode in (0o755, 0o4755):
        os.chown(program, 65534, 65534)
        program.chmod(mode)
        done = run([program, "1000", "--json"], gates, library=None)
        assert done.returncode == 0
        effective.append(json.loads(done.stdout.splitlines()[-1])["allocator"]["gates"]["HAKMEM_SS_MEM_LEAN"])
        assert written.exists() == (mode == 0o755) == bool(done.stderr)
        written.unlink(missing_ok=True)
    assert effective == ["1", "0"]


def test_good_gates_are_silent() -> None:
    for gates in GATES.values():
        assert run([OUT / "bin" / "bench_battle_system", "1000"], gates).stderr == ""


# ---- the libraries ----


@pytest.mark.parametrize("flavour", ["hakmem", "hakmem_minimal", "hakmem_observe"])
def test_libraries_export_the_interface_and_nothing_else(flavour: str) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", OUT / "lib" / f"lib{flavour}.so"], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    family = """malloc calloc realloc reallocarray free free_sized free_aligned_sized aligned_alloc posix_memalign
        memalign valloc pvalloc malloc_usable_size malloc_trim mallinfo mallinfo2 malloc_info malloc_stats mallopt
        cfree __libc_malloc __libc_calloc __libc_realloc __libc_free __libc_memalign __libc_valloc __libc_pvalloc
        __posix_memalign hakmem_stats_json hakmem_version"""
    assert set(family.split()) <= exported
    rest = {name for name in exported - set(family.split()) if not re.match(r"hakmem_|ss_|g_ss_|_Zn|_Zd", name)}
    assert not rest, f"{flavour} exports names that may collide with a program's own"


WRAPPER = """
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef WRAP
extern void *__libc_malloc(size_t), __libc_free(void *);
static volatile int calls;
void *malloc(size_t n) { calls++; return __libc_malloc(n); }
void free(void *p) { __libc_free(p); }
#endif
int main(void) {
    char *p = strdup("text");
    p = realloc(p, 100000);
    free(p);
    free(calloc(100, 100));
    free(aligned_alloc(64, 640));
    int status = -1;
    if (!fork()) _exit(mallinfo().uordblks < 0);
    wait(&status);
    malloc_stats();
    printf("%d\\n", status);
}
"""


def compiled(where: Path, source: str, *flags: str | Path) -> Path:
    (where / "program.c").write_text(source)
    command = ["gcc", "-w", "-fno-builtin", *flags[:1], "program.c", "-o", "program", *flags[1:]]
    subprocess.run(command, cwd=where, check=True, capture_output=True)
    return where / "program"


@pytest.mark.parametrize("flavour", ["hakmem", "hakmem_minimal", "hakmem_observe"])
def test_a_program_may_wrap_malloc_by_the_names_that_glibc_gives_it(flavour: str, tmp_path: Path) -> None:
    """What it got from __libc_malloc and what calloc gave go back through its free; the figures are hakmem's."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    program = compiled(tmp_path, WRAPPER, "-DWRAP")
    done = run([program], {}, library=OUT / "lib" / f"lib{flavour}.so")
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert re.fullmatch(r"hakmem: \d+ bytes live, [1-9]\d+ resident, \d+ of metadata, \d+ SuperSlabs\n", done.stderr)


@pytest.mark.parametrize("how", ["-static", "-static-pie"])
def test_a_static_program_links_whatever_it_calls(how: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    try:
        compiled(tmp_path, "int main(void) { return 0; }", how)
    except subprocess.CalledProcessError:
        pytest.skip("no static C library is installed")
    done = run([compiled(tmp_path, WRAPPER, how, OUT / "lib" / "libhakmem.a")], {}, library=None)
    assert (done.returncode, done.stdout) == (0, "0\n") and done.stderr.startswith("hakmem: ")


@pytest.mark.parametrize("flavour", ["hakmem", "hakmem_minimal", "hakmem_observe"])
def test_libraries_may_come_late(flavour: str) -> None:
    """Their static thread-local storage fits into a running program, and threads from before can use them."""
    script = """
import concurrent.futures, ctypes, sys
def use(n):
    late.malloc.restype = ctypes.c_void_p
    late.free.argtypes = [ctypes.c_void_p]
    blocks = [late.malloc(size * n) for size in range(1, 5000, 7)]
    for block in blocks:
        late.free(block)
    return all(blocks) and late.hakmem_check()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(abs, range(100)))
    late = ctypes.CDLL(sys.argv[1])
    print(set(pool.map(use, range(1, 20))))
"""
    done = run([sys.executable, "-c", script, OUT / "lib" / f"lib{flavour}.so"], {}, library=None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{1}\n", "")


@pytest.mark.parametrize("flavour", ["hakmem", "hakmem_minimal", "hakmem_observe"])
def test_linked_drivers_carry_the_allocator_for_libc_too(flavour: str) -> None:
    """What libc allocates and the program frees (getline, strdup) must come from the same allocator."""
    program = OUT / "bin" / f"bench_random_mixed_{flavour}"
    listed = subprocess.run(["nm", "-D", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    exported = {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    assert {"malloc", "free", "calloc", "realloc"} <= exported


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: sudo apt-get install strace")
def test_the_background_thread_takes_its_name_without_proc(tmp_path: Path) -> None:
    """What a process opens of itself below /proc the kernel has to forget when it ends, and storms of forks waited."""
    log = tmp_path / "log"
    program = "import os, time; time.sleep(0.2); pid = os.fork(); [bytes(99) for _ in range(9999)]; pid and os.wait()"
    gates = {**LEAN, "HAKMEM_SS_LEAN_BACKGROUND_MS": "10"}
    traced = ["strace", "-f", "-o", str(log), "-E", f"LD_PRELOAD={LIBRARY}", sys.executable, "-c", program]
    assert run(traced, gates, library=None).returncode == 0
    text = log.read_text()
    assert text.count('prctl(PR_SET_NAME, "hakmem"') == 2  # the parent's and the child's
    assert "/comm" not in text


@pytest.mark.parametrize("decommit", ["DONTNEED", "FREE"])
@pytest.mark.parametrize("touched", [True, False])
def test_a_target_is_out_of_reach_because_of_memory_that_is_there(decommit: str, touched: bool) -> None:
    program = f"""
import ctypes
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
big = malloc(200 << 20)
ctypes.memset(big, 1, {200 << 20 if touched else 1})
blocks = [bytes(600) for _ in range(20_000)]
del blocks
"""
    gates = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_TARGET_MB": "100", "HAKMEM_SS_OS_STATS": "1"}
    done = run([sys.executable, "-c", program], {**gates, "HAKMEM_SS_MEM_LEAN_DECOMMIT": decommit})
    assert done.returncode == 0
    assert ("target of 100 MB is out of reach" in done.stderr) == touched
    assert ("target_unreachable=0" in done.stderr) != touched


def test_what_is_printed_at_exit_adds_up() -> None:
    done = run([sys.executable, "-c", "pass"], {"HAKMEM_TINY_MEM_DUMP": "1", "HAKMEM_SS_STATS_DUMP": "1"})
    first = next(line for line in done.stderr.splitlines() if line.startswith("[TINY_MEM_STATS] unified_cache="))
    parts = {name: int(value) for name, value in (word.split("=") for word in first.split()[1:])}
    assert list(parts) == ["unified_cache", "warm_pool", "page_box", "tls_mag", "policy_stats", "total"]
    assert parts.pop("total") == sum(parts.values()) and all(parts.values())
    rows = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("[SS_STATS]")]
    assert rows == ["class", *residency.OCTAVES]


# ---- memory pressure ----

FREED_THEN_MORE = """
import mmap, re
def lazy_kb():
    return int(re.search(r"LazyFree: +([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
blocks = [bytes(600) for _ in range(90_000)]
del blocks
before = lazy_kb()
more = mmap.mmap(-1, 60 << 20)
for at in range(0, len(more), 4096):
    more[at] = 1
print(before, lazy_kb())
"""


@pytest.mark.parametrize("decommit", ["FREE", "OFF"])
def test_lazily_freed_pages_are_there_for_whoever_needs_them(decommit: str) -> None:
    """60 MB more in a cgroup of 100 MB, after 57 MB were freed: the kernel finds them, or kills who kept them."""
    if why := container.why_not():
        pytest.skip(why)
    gates = {**LEAN, "HAKMEM_SS_MEM_LEAN_DECOMMIT": decommit, "HAKMEM_SS_LEAN_CPU_PERMILLE": "1000"}
    preloaded = ["/usr/bin/env", f"LD_PRELOAD={LIBRARY}", sys.executable, "-c", FREED_THEN_MORE]
    with container.limit(100) as group:
        done = run([*container.entering(group), *preloaded], gates, library=None)
    if decommit == "OFF":
        assert done.returncode == -9
        return
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before > 40_000
    assert after < before - 10_000  # as many as were needed
