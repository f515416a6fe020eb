import json
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hakmem import cli
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter


def hakmem(*arguments: object) -> str:
    """Run the command in this process: its imports are most of what it takes."""
    done = CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_running_process_is_shown_watched_and_drawn(tmp_path: Path) -> None:
    program = str(compile_native().driver("soak", "hakmem"))
    gates = {"HAKMEM_STATS_LIVE": str(tmp_path)}
    with subprocess.Popen([program, "--seconds=200", "--ws=5000"], env=gates, stdout=subprocess.DEVNULL) as child:
        try:
            while not (tmp_path / f"hakmem.{child.pid}").exists():
                time.sleep(0.02)
            shown = hakmem("residency", child.pid)
            assert f"process {child.pid} runs; hakmem" in shown
            assert "unit records" in shown and "    0  " in shown and "█" in shown
            watched = hakmem("residency", child.pid, "--seconds", "0.5", "-o", tmp_path / "w.html", "--json")
            samples = json.loads(watched)
            assert len(samples) >= 3 and samples[-1]["C6"] > 0
            assert (tmp_path / "w.html").read_text().count("<figure") == 2
            assert str(tmp_path / "m.svg") in hakmem("residency", child.pid, "-o", tmp_path / "m.svg")
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
    with pytest.raises(BadParameter, match=says):
        hakmem("residency", *arguments)
