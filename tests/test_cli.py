import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from hakmem import paths, store
from hakmem.builds import allocators
from hakmem.cli import COMMANDS, app, main
from hakmem.errors import BadParameter

TINY = ["--workload", "mixed:ws=50,cycles=20000", "--profile", "smoke"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ledgers go to a folder of their own."""
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    return tmp_path


def call(*args: str) -> str:
    """Run a command that must succeed; return what it prints."""
    done = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_gates_are_listed_and_a_setting_explained() -> None:
    listed = call("gates")
    assert "HAKMEM_SS_MEM_LEAN_DECOMMIT" in listed and "FREE or DONTNEED or OFF" in listed
    assert "MIXED_TINYV3_C7_BALANCED" in listed
    assert "next: hakmem run" in listed
    data = json.loads(call("gates", "--json"))
    assert {gate["name"] for gate in data["gates"]} >= {"SS_MEM_LEAN", "PROFILE"}
    seen = json.loads(call("gates", "PROFILE=MIXED_TINYV3_C7_BALANCED", "target_mb=20", "--json"))
    assert (seen["HAKMEM_SS_MEM_LEAN"], seen["HAKMEM_SS_MEM_LEAN_DECOMMIT"]) == ("1", "OFF")
    assert seen["HAKMEM_SS_MEM_LEAN_TARGET_MB"] == "20"


def test_build_tells_where() -> None:
    data = json.loads(call("build", "--json"))
    assert Path(data["path"], "lib", "libhakmem.so").is_file()
    assert data["build_id"] in call("build")


def test_run_measures_arms_side_by_side_and_shows_commands_that_work() -> None:
    shown = call("run", "--arm", "lean:DONTNEED:10", "--arm", "system", *TINY)
    assert "hakmem LEAN DONTNEED 10 MB" in shown and "next: hakmem sweep" in shown
    rows = json.loads(call("run", "--arm", "lean:DONTNEED:10", "--arm", "system", *TINY, "--json"))
    assert [row["arm"] for row in rows] == ["hakmem LEAN DONTNEED 10 MB", "system"]
    assert all(row["status"] == "ok" and row["ops"] == 20000 for row in rows)
    again = subprocess.run(["sh", "-c", rows[0]["command"]], capture_output=True, text=True, check=True)
    said = json.loads(again.stdout.splitlines()[-1])
    assert said["allocator"]["gates"]["HAKMEM_SS_MEM_LEAN_DECOMMIT"] == "DONTNEED"


def test_the_main_job_from_the_terminal(runs: Path) -> None:
    """Plan, sweep, reuse, show and export."""
    sweep = [
        "sweep",
        *TINY,
        "--allocator",
        "hakmem,system",
        "--decommit",
        "OFF",
        "--target-mb",
        "10,30",
        "--blocks",
        "2",
    ]
    sweep += ["--gate", "WARM_POOL=0,2", "--study", "tiny"]
    planned = call(*sweep, "--plan")
    assert "6 arms x 1 workloads x 2 blocks: 12 trials" in planned
    assert list(runs.iterdir()) == []
    shown = call(*sweep)
    assert "hakmem LEAN OFF WARM_POOL=0" in shown and "hakmem (A')" in shown
    assert "next: hakmem show tiny" in shown
    assert json.loads(call(*sweep, "--json"))["done"]["measured"] == 0
    assert "tiny" in call("show")
    assert json.loads(call("show", "--json"))[0]["study"] == "tiny"
    table = call("show", "tiny")
    assert "mixed:ws=50" in table and "hakmem LEAN OFF" in table
    csv, parquet = runs / "rows.csv", runs / "rows.parquet"
    rows = json.loads(call("show", "tiny", "--csv", str(csv), "--parquet", str(parquet), "--json"))
    assert len(rows) == len(store.load(runs / "tiny.jsonl")) >= 12
    assert len(pd.read_csv(csv)) == len(pd.read_parquet(parquet)) == len(rows)
    assert json.loads(pd.read_parquet(parquet)["gates"].iloc[0]) in [row["gates"] for row in rows]
    again = json.loads(call("ledger", "merge", "tiny", "tiny", "--into", "both", "--json"))
    assert (
        again["trials"]
        == again["twice"]
        == len(store.load(runs / "both.jsonl"))
        == len(store.load(runs / "tiny.jsonl"))
    )
    assert call("show", "tiny", "--trials").count("mixed:ws=50") == len(rows)


def test_bench_holds_every_allocator_to_the_named_peer(runs: Path) -> None:
    peers = allocators.installed_peers()
    if not peers:
        pytest.skip("needs a peer: sudo apt-get install libmimalloc-dev")
    bench = ["bench", *TINY, "--peer", peers[0], "--blocks", "2"]
    lines = json.loads(call(*bench, "--json"))
    names = {"hakmem", "hakmem_minimal", "system", "null", *peers}
    assert {line["arm"] for line in lines} == names
    assert {line["linkage"] for line in lines} == {"preload", "none"}
    for line in lines:
        assert (line["ratio"] is None) == (line["arm"] in (peers[0], "null") or line["blocks"] < 2)
        assert line["mops"] > 0 and line["peak_rss_mb"] > 0
    shown = call(*bench)
    assert f"to {peers[0]} (95 %)" in shown and "$ LD_PRELOAD=" in shown
    assert "bench_random_mixed_null --ws=50" in shown and "left out: " in shown
    ledger = "bench" if peers[0] == "mimalloc" else f"bench_{peers[0]}"
    assert set(store.load(runs / f"{ledger}.jsonl").query("role == 'baseline'")["arm"]) == {peers[0]}  # and no other
    assert set(store.load(runs / f"{ledger}_loop.jsonl")["arm"]) == {"null"}


def test_bench_compares_operations_per_cpu_second_where_the_driver_tells_them(runs: Path) -> None:
    work = "cross:threads=2,cycles=20000"
    lines = json.loads(
        call("bench", "--workload", work, "--profile", "smoke", "--peer", "system", "--blocks", "2", "--json")
    )
    rows = store.load(runs / "bench_system.jsonl")
    for line in lines:
        mine = rows[(rows["arm"] == line["arm"]) & (rows["role"] != "baseline2") & (rows["status"] == "ok")]
        assert line["per"] == "CPU s"
        assert line["mops"] == pytest.approx(mine["extra"].map(lambda extra: extra["ops_per_cpu_s"]).median() / 1e6)


def test_bench_holds_the_inlined_fast_path_to_the_linked_peer_and_to_the_loop(runs: Path) -> None:
    if "mimalloc" not in allocators.installed_peers():
        pytest.skip("needs linked programs of a peer: sudo apt-get install libmimalloc-dev")
    lines = json.loads(call("bench", *TINY, "--inline", "--blocks", "2", "--json"))
    ours = {"hakmem@inline", "hakmem_minimal@inline"}
    assert {line["to"] for line in lines} == {"mimalloc@linked", "null"}
    for to in ("mimalloc@linked", "null"):
        mine = [line for line in lines if line["to"] == to]
        assert {line["arm"] for line in mine} == {to, *ours}
        assert {line["arm"] for line in mine if line["ratio"] is not None} == ours
        assert {Path(line["command"].split()[0]).name.removeprefix("bench_random_mixed_") for line in mine} == {
            {"mimalloc@linked": "mi", "null": "null"}[to],
            "hakmem_inline",
            "hakmem_minimal_inline",
        }
    with pytest.raises(BadParameter, match="only mixed has programs"):
        call("bench", "--inline", "--workload", "ramp")


def test_the_help_lists_every_command_and_imports_none() -> None:
    modules = {module for module, _ in COMMANDS.values()}
    apps = {name: typer.main.get_group(importlib.import_module(f"hakmem.commands.{name}").app) for name in modules}
    assert {command for group in apps.values() for command in group.commands} == set(COMMANDS)
    for name, (module, line) in COMMANDS.items():
        said = " ".join(str(apps[module].commands[name].help).split("\n\n")[0].split())
        assert said.startswith(line.removesuffix(".")), name
    code = (
        "import sys; from hakmem import cli; sys.argv = ['hakmem', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(*sorted({'pandas', 'scipy', 'matplotlib', 'papermill'} & set(sys.modules)), file=sys.stderr)"
    )
    for command in (["--help"], ["gates"], ["build", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "", command


def test_the_help_keeps_brackets() -> None:
    assert "a list as [a, b]" in call("report", "--help")


def test_the_help_tells_what_an_option_writes() -> None:
    assert "The HTML file" in call("trace", "plot", "--help") and ".zst" in call("trace", "make", "--help")
    assert "--no-linked" not in call("bench", "--help")


def test_doctor_tells_machine_findings_and_allocators() -> None:
    data = json.loads(call("doctor", "--json"))
    assert data["machine"]["kernel"] == os.uname().release
    states = {state["name"]: state["state"] for state in data["allocators"]}
    assert states["hakmem"] == states["system"] == "works"
    assert "allocator" in call("doctor")


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (("run", "--arm", "hakmen"), 2, "did you mean hakmem"),
        (("run", "--arm", "hakmem:LEAN=2"), 2, "HAKMEM_SS_MEM_LEAN=2 is not allowed: it takes 0 or 1"),
        (("run", "--arm", "system", *TINY, "--profile", "quik"), 2, "unknown profile 'quik'"),
        (("run", "--arm", "system", "--workload", "idle:idle_ms=9000", "--timeout", "0.2"), 5, "no end after 0.2 s"),
        (("sweep", "--gate", "NOPE=1"), 2, "unknown gate 'NOPE'"),
        (("sweep", "--gate", "WARM_POOL"), 2, "'WARM_POOL' is no NAME=VALUE"),
        (("sweep", "--budget", "3x"), 2, "a duration is written 90s, 3m or 1h"),
        (("sweep", "--budget", "3m", "--blocks", "3"), 2, "goes without --blocks"),
        (("ledger", "merge", "one", "--into", "all"), 2, "two ledgers or more"),
        (("soak", "--arm", "system", "--", "no-such-program"), 2, "no program 'no-such-program'"),
        (("run", "--arm", "system", "--workload", "ramp", "--", "true"), 2, "not both"),
        (("show", "never_measured"), 6, "no ledger"),
        (("report", "20_lean_swep"), 2, "did you mean 20_lean_sweep"),
        (("report", "20_lean_sweep", "-p", "decomit=OFF"), 2, "did you mean decommit"),
        (("report", "20_lean_sweep", "-p", "decommit=[OFF, MAYBE]"), 2, "HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE"),
        (
            ("trace", "make", "mixed", "cycles=1000", "-o", "/dev/null/x/y.trace"),
            1,
            "hakmem: Not a directory: /dev/null/x",
        ),
        (("rum",), 2, "hakmem: no such command 'rum'. Did you mean 'run'?: see "),
        (("run",), 2, "hakmem: missing option '--arm': see "),
        (("run", "--arn", "system"), 2, "hakmem: no such option: --arn (Possible options: --arm): see "),
        (("own-cost", "--pairs", "1"), 2, "hakmem: invalid value for '--pairs': "),
        (("trace", "nope"), 2, "trace --help"),
        (("sweep", "--study", "a/b"), 2, "study='a/b': it names a file: letters, digits, '_', '.', '-', at most 64"),
        (("sweep", "--layouts", "-1"), 2, "hakmem: parameter layouts=-1: Input should be greater than or equal to 0"),
        (("build", "--cc", "no-such-cc"), 3, "no-such-cc"),
        (("build", "--cflags=-DNOPE=1 --no-such-flag"), 4, "no-such-flag"),
    ],
)
def test_errors_are_words_and_a_status(
    args: tuple[str, ...], status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hakmem", *args])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().err
    assert end.value.code == status, printed
    assert said in printed
    assert [line.startswith("hakmem: ") for line in printed.splitlines()].count(True) == 1


@pytest.mark.parametrize("group", [(), ("trace",), ("ledger",)])
def test_a_group_that_is_called_alone_shows_its_help(
    group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hakmem", *group])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2 and "hakmem: " not in said.err and "Commands" in said.out + said.err


def test_an_error_of_the_command_is_one_line_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-m", "hakmem", "run", "--arm", "hakmen"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hakmem: unknown allocator 'hakmen'")
    assert done.stderr.count("\n") == 1


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hakmem import cli, paths\n"
        "runs = Path(sys.argv.pop(1)); paths.runs = lambda: runs; cli.main()"
    )
    sweep = ["sweep", *TINY, "--allocator", "hakmem", "--study", "long", "--blocks", "5000", "--budget-minutes", "60"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), *sweep], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ledger = tmp_path / "long.jsonl"
    while not (ledger.exists() and ledger.read_bytes().count(b'"trial"') >= 2) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said and "Traceback" not in said
    assert len(store.load(ledger)) >= 2
