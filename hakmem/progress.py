"""Progress of a long measurement: a bar with an ETA where somebody watches, plain lines where nobody does.

A notebook that is executed without a screen hands its progress on instead: to the file that ``HAKMEM_PROGRESS`` names
it appends one JSON line a step, ``{"done": 3, "total": 96, "eta_s": 71.5, "what": "ramp: hakmem LEAN OFF", "repeats":
12}``, and one for what it waits for, ``{"waiting": "..."}``.
"""

import json
import os
import sys
import time
from typing import Protocol

from tqdm.auto import tqdm

FILE = "HAKMEM_PROGRESS"
LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Told after every step: `eta_s` seconds are left, `repeats` trials of the total repeat spoiled blocks."""

    def step(self, done: int, total: int, eta_s: float, what: str, repeats: int = 0) -> None:
        """Take note of one more step."""

    def wait(self, reason: str) -> None:
        """Take note of what nothing goes on for."""

    def close(self) -> None:
        """Leave the screen tidy."""


class Silent:
    """Nobody asked."""

    def step(self, done: int, total: int, eta_s: float, what: str, repeats: int = 0) -> None:
        """Say nothing."""

    def wait(self, reason: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """tqdm, in a terminal or in a notebook."""

    def __init__(self) -> None:
        layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}{postfix}]"
        self._bar = tqdm(total=1, unit="trials", bar_format=layout, dynamic_ncols=True, leave=True)

    def step(self, done: int, total: int, eta_s: float, what: str, repeats: int = 0) -> None:
        """Move the bar; the total may grow."""
        self._bar.total = total
        self._bar.n = done
        self._bar.unit = f"trials{again(repeats)}"
        self._bar.set_postfix_str(f"about {clock(eta_s)} left, {what}")

    def wait(self, reason: str) -> None:
        """Put the reason behind the bar."""
        self._bar.set_postfix_str(reason)

    def close(self) -> None:
        """Leave the bar where it is."""
        self._bar.close()


class Lines:
    """One line every ten seconds, on standard error."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._next = self._begin

    def step(self, done: int, total: int, eta_s: float, what: str, repeats: int = 0) -> None:
        """Write a line when it is due, and for the last step."""
        now = time.monotonic()
        if now >= self._next or done == total:
            elapsed = clock(now - self._begin)
            print(
                f"{done}/{total} trials{again(repeats)}, {elapsed} so far, about {clock(eta_s)} left, {what}",
                file=sys.stderr,
                flush=True,
            )
            self._next = now + LINE_EVERY_S

    def wait(self, reason: str) -> None:
        """Write a line."""
        print(reason, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing."""


class HandedOn:
    """JSON lines for whoever executes this process."""

    def __init__(self, path: str) -> None:
        self._path = path

    def step(self, done: int, total: int, eta_s: float, what: str, repeats: int = 0) -> None:
        """Append one line."""
        self._append({"done": done, "total": total, "eta_s": round(eta_s, 1), "what": what, "repeats": repeats})

    def wait(self, reason: str) -> None:
        """Append one line."""
        self._append({"waiting": reason})

    def close(self) -> None:
        """Do nothing."""

    def _append(self, told: dict[str, object]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def show(*, quiet: bool = False, here: bool = False) -> Progress:
    """Choose how progress is shown.

    Parameters
    ----------
    quiet : bool
        Not at all.
    here : bool
        By this process, though the environment names a file to hand it on to: for whoever reads that file.
    """
    if quiet:
        return Silent()
    if (path := os.environ.get(FILE)) and not here:
        return HandedOn(path)
    return Bar() if in_notebook() or sys.stderr.isatty() else Lines()


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    return type(sys.stdout).__module__.startswith("ipykernel")


def again(repeats: int) -> str:
    """Say why a total is larger than was planned."""
    return f" ({repeats} of them repeat spoiled blocks)" if repeats else ""


def clock(seconds: float) -> str:
    """Write a duration as ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
