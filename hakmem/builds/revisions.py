"""The allocator at another revision, or with a patch: sources in a scratch worktree, built where all builds are.

``rev:GITREV`` is a commit of this repository, ``patch:FILE.diff`` the commit that is checked out with a patch applied
(what is not committed takes no part). The build is addressed by its sources, so that the same revision is built once.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hakmem import paths
from hakmem.builds.build import Build, Layouts
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, MissingTool

PREFIXES = ("rev:", "patch:")
GATES = "gates.def"


class Revision(BaseModel):
    """One built revision.

    Attributes
    ----------
    name : str
        What it is whatever moves later: ``rev:<commit>`` or ``patch:<file>@<hash of the patch>``.
    commit : str
        The commit it comes from, 12 hexadecimal digits.
    build : Build
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    commit: str
    build: Build

    @property
    def gates_def(self) -> Path:
        """The revision's own list of gates."""
        return self.build.path / GATES


def make(name: str, layouts: Layouts | None = None) -> Revision:
    """Build a revision, or find it built.

    Parameters
    ----------
    name : str
        ``rev:GITREV`` or ``patch:FILE.diff``.
    layouts : Layouts, optional
        Build its library in these layouts instead.

    Returns
    -------
    Revision

    Raises
    ------
    BadParameter
        No such commit or file, or the patch does not apply.
    MissingTool
        git is not installed, or this is no clone.
    BuildFailed
        The revision does not compile.
    """
    kind, _, what = name.partition(":")
    patch = Path(what).absolute() if kind == "patch" else None
    if patch is not None and not patch.is_file():
        raise BadParameter(f"{name}: there is no file {patch}")
    commit = _commit("HEAD" if patch else what, name)
    digest = hashlib.sha256(patch.read_bytes()).hexdigest()[:8] if patch else ""
    made = _built(name, commit, patch, digest, layouts)
    named = f"patch:{patch.name}@{digest}" if patch else f"rev:{commit[:12]}"
    return Revision(name=named, commit=commit[:12], build=made)


@lru_cache(maxsize=32)
def _built(name: str, commit: str, patch: Path | None, digest: str, layouts: Layouts | None) -> Build:
    """Build a commit with a patch of this content; a name may mean another one later, in the same session."""
    with _worktree(commit) as tree:
        if patch is not None:
            done = _git("apply", str(patch), at=tree)
            if done.returncode != 0:
                raise BadParameter(f"{name} does not apply to {commit[:12]}: {done.stderr.strip()}")
        native = tree / "native"
        if not (native / "src" / GATES).is_file():
            raise BadParameter(f"{name}: commit {commit[:12]} has no native/src/{GATES}, so no allocator to compare")
        made = compile_native(native=native, flavour="hakmem", layouts=layouts)
        kept = made.path / GATES
        if not kept.exists():
            whole = Path(shutil.copy(native / "src" / GATES, made.path / f"{GATES}.{os.getpid()}"))
            whole.rename(kept)  # nobody reads half of it
    return made


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a scratch folder, which is gone afterwards; the caller's tree is not touched."""
    with tempfile.TemporaryDirectory(prefix="hakmem-revision-") as scratch:
        tree = Path(scratch, "tree")
        done = _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        if done.returncode != 0:
            raise MissingTool(f"git cannot check out {commit[:12]}: {done.stderr.strip()}")
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _commit(revision: str, name: str) -> str:
    if not revision or revision.startswith("-"):
        raise BadParameter(f"{name!r} names no revision: rev:GITREV, such as rev:HEAD~1")
    done = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if done.returncode != 0:
        raise BadParameter(f"{name}: git knows no commit {revision!r} in {paths.root()}")
    return done.stdout.strip()


def _git(*args: str, at: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None:
        raise MissingTool("no program 'git' on the PATH: apt-get install git")
    return subprocess.run(["git", "-C", str(at or paths.root()), *args], capture_output=True, text=True)
