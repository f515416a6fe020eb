"""Ctrl-C is heard even where Python drops it."""

import os
import signal
import threading

import pytest

from hakmem.system import interrupts


class Careless:
    """Somebody presses Ctrl-C while it is destroyed."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_that_python_drops_is_raised_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    before = signal.getsignal(signal.SIGINT)
    with interrupts.heard() as check:
        check()
        Careless()  # nothing is raised here
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before and not told


def test_an_interrupt_still_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.heard():
        signal.raise_signal(signal.SIGINT)
    with interrupts.heard() as check:
        check()  # of an earlier one nothing is left


def test_other_threads_leave_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def elsewhere() -> None:
        with interrupts.heard() as check:
            check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
