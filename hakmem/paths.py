"""Where things are: the checkout, what is built into it, what is measured into it.

hakmem works on a checkout (it compiles `native/` and runs `notebooks/`), so every path hangs from the project root: the
checkout this package lies in, so that code and sources are of one revision; else the one around the working directory.
"""

from pathlib import Path

from hakmem.errors import MissingTool

__all__ = [
    "build",
    "gates_def",
    "lock_file",
    "native",
    "notebooks",
    "reference",
    "reports",
    "root",
    "runs",
    "traces",
]

_MARK = Path("native", "src", "gates.def")


def root() -> Path:
    """Return the project root.

    Returns
    -------
    Path
        Absolute directory of the checkout.

    Raises
    ------
    MissingTool
        If there is no checkout around the package or the working directory.
    """
    here = Path.cwd()
    for candidate in (Path(__file__).resolve().parent.parent, here, *here.parents):
        if (candidate / _MARK).is_file():
            return candidate
    raise MissingTool(f"no checkout of hakmem around {here}: clone the repository and run hakmem inside it")


def native() -> Path:
    """Return the sources of the allocator."""
    return root() / "native"


def gates_def() -> Path:
    """Return the one file that lists the gates."""
    return root() / _MARK


def notebooks() -> Path:
    """Return the directory of the notebooks."""
    return root() / "notebooks"


def build() -> Path:
    """Return the directory of everything compiled (not committed, may be removed at any time)."""
    return root() / "build"


def reports() -> Path:
    """Return the directory of the executed notebooks and HTML pages (not committed)."""
    return root() / "reports"


def runs() -> Path:
    """Return the directory of the ledgers (append-only, not committed)."""
    return root() / "data" / "runs"


def traces() -> Path:
    """Return the directory of the recorded traces (committed)."""
    return root() / "data" / "traces"


def reference() -> Path:
    """Return the directory of the published figures that studies compare with (committed)."""
    return root() / "data" / "reference"


def lock_file() -> Path:
    """Return the pinned dependencies of the workbench."""
    return root() / "requirements.lock"
