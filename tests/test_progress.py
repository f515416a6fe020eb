import json
from pathlib import Path

import pytest

from hakmem import progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3_725, "1:02:05"), (-3, "0:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_steps_are_handed_on_as_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "steps.jsonl"
    monkeypatch.setenv(progress.FILE, str(path))
    shown = progress.show()
    shown.step(1, 3, 12.34, "ramp: hakmem")
    shown.step(2, 4, 0, "ramp: system", repeats=1)
    shown.wait("until somebody has measured")
    shown.close()
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert steps[0] == {"done": 1, "total": 3, "eta_s": 12.3, "what": "ramp: hakmem", "repeats": 0}
    assert [(step["total"], step["repeats"]) for step in steps[:2]] == [(3, 0), (4, 1)]
    assert steps[2] == {"waiting": "until somebody has measured"}


def test_who_reads_the_file_shows_it_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(progress.FILE, str(tmp_path / "steps.jsonl"))
    progress.show(here=True).step(1, 1, 0, "ramp: hakmem")
    assert "1/1 trials" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_plain_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress.show()
    for done in range(1, 100):
        shown.step(done, 99, 99 - done, "ramp: hakmem")
    shown.wait("until somebody has measured")
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/99 trials, 0:00 so far, about 1:38 left, ramp: hakmem")
    assert lines[-2].startswith("99/99 trials")
    assert lines[-1] == "until somebody has measured"
    assert len(lines) < 10


def test_a_total_that_grew_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    progress.Lines().step(11, 11, 0, "ramp: hakmem", repeats=4)
    assert capsys.readouterr().err.startswith("11/11 trials (4 of them repeat spoiled blocks), 0:00 so far, ")


def test_a_bar_moves_and_its_total_may_grow(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress.Bar()
    shown.step(1, 2, 75, "ramp: hakmem")
    shown.step(3, 3, 0, "ramp: system", repeats=1)
    shown.close()
    said = capsys.readouterr().err
    assert "about 1:15 left, ramp: hakmem" in said
    assert "1/2 trials [" in said and "3/3 trials (1 of them repeat spoiled blocks) [" in said


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress.show(quiet=True)
    shown.step(1, 1, 0, "")
    shown.close()
    assert capsys.readouterr() == ("", "")
