"""`hakmem record` and `hakmem trace`, as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver import Chrome

from hakmem import paths
from hakmem.studies import portrait
from hakmem.traces import events, fitted, trace

HAKMEM = [sys.executable, "-m", "hakmem"]


def call(folder: Path, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*HAKMEM, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_make_look_convert_and_run(tmp_path: Path) -> None:
    made = call(tmp_path, "trace", "make", "server", "threads=2", "events=20k", "max=64KiB", "-o", "s.trace.zst")
    assert "events   " in made.stdout and re.search(r"live bytes, events +[▁-█ ]{20}", made.stdout)
    assert re.search(r"sizes \d+ B to \d+ KiB +[▁-█ ]{5}", made.stdout) and "workload trace:s.trace.zst" in made.stdout
    told = json.loads(call(tmp_path, "trace", "info", "s.trace.zst", "--json").stdout)
    assert sum(told["size_octaves"].values()) == told["ops"]["malloc"] and max(told["live_curve"]) <= told["peak_bytes"]
    assert told["events"] == 20_000 and told["origin"]["parameters"]["max"] == 65536 and told["threads"] == 2
    assert told == portrait.summary(trace.read(tmp_path / "s.trace.zst")) | {"file": "s.trace.zst"}
    call(tmp_path, "trace", "convert", "s.trace.zst", "s.trace")
    call(tmp_path, "trace", "convert", "s.trace", "t.trace.zst")
    assert (tmp_path / "t.trace.zst").read_bytes() == (tmp_path / "s.trace.zst").read_bytes()
    rows = json.loads(call(tmp_path, "run", "--arm", "hakmem", "--workload", "trace:s.trace", "--json").stdout)
    assert rows[0]["status"] == "ok" and rows[0]["ops"] == told["events"] - told["warm"]


def test_a_fleet_and_what_a_trace_teaches(tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text("16, 100, 50\n100, 30, 500\n2000, 1, 20\n")
    call(
        tmp_path,
        "trace",
        "make",
        "fleet",
        "--distribution",
        "fleet.csv",
        "--heap",
        "1MiB",
        "events=20000",
        "-o",
        "f.trace",
    )
    header = trace.read(tmp_path / "f.trace").header
    assert header.origin.parameters["heap"] == 2**20 and header.origin.notes["distribution"] == "fleet.csv"
    call(tmp_path, "trace", "make", "empirical", "--source", "f.trace", "events=5000", "-o", "e.trace")
    assert trace.read(tmp_path / "e.trace").header.events == 5000


def test_an_import_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("malloc,1,100\nfree,1\n")
    (tmp_path / "b").write_text("= Start\n@ x + 0x10 0x64\n= End\n")
    for source, generator in (("a.csv", "csv"), ("b", "mtrace")):
        call(tmp_path, "trace", "convert", source, "x.trace")
        assert trace.read(tmp_path / "x.trace").header.origin.generator == generator


def test_record_passes_output_and_status_on(tmp_path: Path) -> None:
    script = "print('said'); x = bytearray(777777); raise SystemExit(5)"
    done = call(tmp_path, "record", "-o", "my p.trace.zst", "--", sys.executable, "-I", "-S", "-c", script, status=5)
    assert done.stdout.startswith("said\n") and "peak live" in done.stdout
    assert done.stdout.endswith(" --workload 'trace:my p.trace.zst'\n")  # to be copied into a shell
    read = trace.read(tmp_path / "my p.trace.zst")
    assert read.header.origin.command == (sys.executable, "-I", "-S", "-c", script)
    assert ((read.events["size"] >= 777777) & (read.events["size"] < 777877)).sum() == 1


def test_record_leaves_options_to_the_program(tmp_path: Path) -> None:
    done = call(tmp_path, "record", "echo", "--json", "-o", "x")
    assert done.stdout.startswith("--json -o x\n") and (tmp_path / "echo.trace.zst").is_file()


def test_all_generators_are_listed_with_meanings(tmp_path: Path) -> None:
    listed = call(tmp_path, "trace", "list").stdout
    schemas = json.loads(call(tmp_path, "trace", "list", "--json").stdout)
    assert set(schemas) == set(fitted.ALL)
    for name, kind in fitted.ALL.items():
        assert re.search(rf"^ {name} ", listed, flags=re.MULTILINE)
        assert all(field.description for field in kind.model_fields.values()), name


def test_a_plot_is_one_page_with_alternative_texts(tmp_path: Path, browser: Chrome) -> None:
    call(tmp_path, "trace", "make", "larson", "events=20000", "blocks=100", "rounds=3", "-o", "l.trace")
    assert call(tmp_path, "trace", "plot", "l.trace", "-o", "l.html").stdout == "l.html\nnext: open l.html\n"
    browser.get(f"file://{quote(str(tmp_path / 'l.html'))}")
    pictures = browser.find_elements("css selector", "img")
    assert len(pictures) == 4
    for picture in pictures:
        assert int(picture.get_property("naturalWidth") or 0) > 100
        assert len(picture.get_attribute("alt") or "") > 60
    assert "generated by larson: 20,000 events, 2 thread(s)" in browser.page_source
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", browser.page_source)


def test_a_command_in_a_trace_cannot_put_script_into_a_page(tmp_path: Path) -> None:
    call(tmp_path, "record", "-o", "x.trace", "--", "echo", "<script>alert(1)</script>")
    call(tmp_path, "trace", "plot", "x.trace", "-o", "x.html")
    assert "<script" not in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["make", "mixt"], r"unknown generator 'mixt' \(did you mean mixed\?\)"),
        (["make", "mixed", "wss=4"], r"unknown parameter 'wss' \(did you mean ws\?\)"),
        (["make", "mixed", "ws"], "'ws' is no NAME=VALUE"),
        (["make", "mixed", "ws=²k"], "ws='²k': Input should be a valid integer"),
        (["make", "zipf", "live=1.5MiB"], "live='1.5MiB': Input should be a valid integer"),
        (["info", "none.trace"], "cannot read the trace none.trace: No such file or directory"),
        (["convert", "none.csv", "x.trace"], "cannot read the trace none.csv"),
        (
            ["convert", "none.csv", "x.trace", "--from", "tcmalloc"],
            "unknown format 'tcmalloc'; the formats are trace, csv",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    done = call(tmp_path, "trace", *words, status=2)
    assert re.search(said, done.stderr) and done.stderr.startswith("hakmem: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_is_too_much_for_this_machine_is_no_traceback(tmp_path: Path) -> None:
    origin = trace.Origin(kind="generated", generator="by hand")
    trace.write(tmp_path / "x.trace", np.array([(0, 0, 1, 0, 8)], events.EVENT), origin, slots=2**31)
    limited = ["sh", "-c", 'ulimit -v 8000000; exec "$@"', "sh", *HAKMEM, "trace", "info", str(tmp_path / "x.trace")]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("hakmem: this machine has too little memory for that: Unable to allocate 16.0 GiB")


# ---- the traces of this repository -----------------------------------------------------------------------------------


STORED = sorted(paths.traces().glob("*.trace.zst"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_stored_traces_are_whole_and_tell_their_command(path: Path) -> None:
    read = trace.read(path)
    assert read.header.origin.kind == "recorded" and read.header.origin.command
    assert read.header.origin.notes["frees_not_seen"] == 0
    assert path.stat().st_size < 700_000
    assert path.name in (paths.traces() / "README.md").read_text(encoding="utf-8")
