"""Ctrl-C that is not lost: where nothing can be raised, as in a destructor, Python drops a KeyboardInterrupt."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def heard() -> Iterator[Callable[[], None]]:
    """Remember meanwhile that somebody pressed Ctrl-C.

    Yields
    ------
    callable
        Raises KeyboardInterrupt if somebody did, wherever the first one went. Outside the main thread, which alone
        gets signals, it never does.
    """
    asked, before, report = False, signal.getsignal(signal.SIGINT), sys.unraisablehook

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if callable(before):
            before(number, frame)

    def dropped(what: Any) -> None:
        if what.exc_type is not KeyboardInterrupt:
            report(what)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield check
        return
    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = dropped
    try:
        yield check
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, before)
