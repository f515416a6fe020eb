import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hakmem.build import build as compile_native


def hakmem(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hakmem", *map(str, arguments)], capture_output=True, text=True)


def test_a_running_process_is_shown_watched_and_drawn(tmp_path: Path) -> None:
    program = str(compile_native().driver("soak", "hakmem"))
    gates = {"HAKMEM_STATS_LIVE": str(tmp_path)}
    with subprocess.Popen([program, "--seconds=200", "--ws=5000"], env=gates, stdout=subprocess.DEVNULL) as child:
        try:
            while not list(tmp_path.iterdir()):
                time.sleep(0.02)
            shown = hakmem("residency", child.pid)
            assert shown.returncode == 0 and f"process {child.pid} runs; hakmem" in shown.stdout, shown.stderr
            assert "unit records" in shown.stdout and "    0  " in shown.stdout and "█" in shown.stdout
            watched = hakmem("residency", child.pid, "--seconds", "0.5", "-o", tmp_path / "w.html", "--json")
            samples = json.loads(watched.stdout)
            assert len(samples) >= 3 and samples[-1]["C6"] > 0
            assert (tmp_path / "w.html").read_text().count("<figure") == 2
            assert hakmem("residency", child.pid, "-o", tmp_path / "m.svg").returncode == 0
            assert (tmp_path / "m.svg").read_text().startswith("<svg")
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/etc/passwd"], "/etc/passwd is neither a live page nor statistics at exit of hakmem"),
        (["/etc/passwd", "-o", "x.pdf"], "x.pdf ends in none of .html, .svg"),
        (["/etc/passwd", "--seconds", "1"], "--seconds watches a process; /etc/passwd is not the number of one"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments: list[str], says: str) -> None:
    done = hakmem("residency", *arguments)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
