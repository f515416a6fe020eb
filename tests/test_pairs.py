"""Two sides in turns: who runs when, who waits, and what is told."""

from pathlib import Path

import pytest

from hakmem.pairs import in_turns
from hakmem.progress import Silent
from hakmem.system import turn


class Told(Silent):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str]] = []
        self.left: list[float] = []

    def step(self, done: int, total: int, eta_s: float, what: str) -> None:
        self.steps.append((done, total, what))
        self.left.append(eta_s)


def test_the_order_changes_from_pair_to_pair_and_the_result_does_not() -> None:
    ran, told = [], Told()

    def side(name: str, pair: int) -> str:
        ran.append(name)
        return f"{name}{pair}"

    found = in_turns(lambda pair: side("a", pair), lambda pair: side("b", pair), 3, told, "a and b")
    assert found == [("a0", "b0"), ("a1", "b1"), ("a2", "b2")]
    assert "".join(ran) == "baabba"
    assert told.steps == [(1, 3, "a and b"), (2, 3, "a and b"), (3, 3, "a and b")]
    assert told.left[0] >= 0 and told.left[-1] == 0


def test_the_host_is_held_while_they_run_and_free_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(turn.DIRECTORY, str(tmp_path))
    held = []

    def fails(_: int) -> None:
        held.append(turn.holder(tmp_path / turn.MEASURING))
        raise RuntimeError("no figure")

    with pytest.raises(RuntimeError, match="no figure"):
        in_turns(fails, fails, 2, Silent(), "w")
    assert held[0].startswith("process ")
    assert turn.holder(tmp_path / turn.MEASURING) == "another process"
