"""One exception tree; the message of every leaf is one sentence that names what was given, what is allowed and where.

::

    HakmemError                1   anything hakmem itself refuses or cannot do
    ├── BadInput               2   what was asked for makes no sense
    │   ├── BadGate                an unknown gate, or a value the gate does not take
    │   ├── BadParameter           any other parameter: arm, workload, allocator, notebook, option
    │   └── BadTrace               a trace that is damaged, truncated, foreign or newer, or cannot be made
    ├── MissingTool            3   a program, library or checkout that is needed is not here
    ├── BuildFailed            4   the native build failed
    ├── TrialFailed            5   a trial that had to succeed did not
    ├── LedgerError            6   a ledger that cannot be read, written or pooled
    ├── ReportFailed           7   a notebook failed; what it reached is saved
    └── ClusterError           8   a cluster that cannot be formed or joined

The number is the exit status of the command `hakmem`; it is part of the interface.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BadGate",
    "BadInput",
    "BadParameter",
    "BadTrace",
    "BuildFailed",
    "ClusterError",
    "HakmemError",
    "LedgerError",
    "MissingTool",
    "ReportFailed",
    "TrialFailed",
    "did_you_mean",
]


class HakmemError(Exception):
    """Root of every error that hakmem raises on purpose."""

    exit_code = 1


class BadInput(HakmemError):
    """What was asked for makes no sense; nothing was run."""

    exit_code = 2


class BadGate(BadInput):
    """An unknown gate, or a value the gate does not take."""


class BadParameter(BadInput):
    """A parameter other than a gate: arm, workload, allocator, notebook, option."""


class BadTrace(BadInput):
    """A trace that is damaged, truncated, foreign, newer than this hakmem, or that cannot be made as asked."""


class MissingTool(HakmemError):
    """A program, library or checkout that is needed is not on this machine."""

    exit_code = 3


class BuildFailed(HakmemError):
    """The native build failed; the message carries the end of the compiler's output."""

    exit_code = 4


class TrialFailed(HakmemError):
    """A trial that had to succeed did not (a failed trial of a study is a row, not an error)."""

    exit_code = 5


class LedgerError(HakmemError):
    """A ledger that cannot be read, written or pooled."""

    exit_code = 6


class ReportFailed(HakmemError):
    """A notebook failed while it was executed; what it reached is saved."""

    exit_code = 7


class ClusterError(HakmemError):
    """A cluster that cannot be formed, or that this host cannot join."""

    exit_code = 8


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a mistyped one.

    Parameters
    ----------
    given
        What was typed.
    known
        The names that would have been right.

    Returns
    -------
    str
        ``" (did you mean X?)"`` to be put behind the name, or ``""`` where nothing is close.
    """
    by_case = {name.casefold(): name for name in known}
    close = get_close_matches(given.casefold(), by_case, n=1, cutoff=0.6)
    return f" (did you mean {by_case[close[0]]}?)" if close else ""
