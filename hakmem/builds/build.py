"""Native builds, addressed by what goes into them: the same sources, flags and compiler give the same directory.

A build lies in ``build/store/<id>/``; it is made in a scratch directory beside it and renamed when it is whole, so that
a directory under that name is always complete. A lock keeps two processes from making the same build twice.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hakmem import paths
from hakmem.errors import BuildFailed, MissingTool, did_you_mean

LAST_LINES = 25
LINKERS = "link"  # what lays code out anew


class Build(BaseModel):
    """One finished native build.

    Attributes
    ----------
    path : Path
        Its directory, with ``lib/`` and ``bin/``.
    build_id : str
        Content address: 12 hexadecimal digits.
    compiler : str
        First line of the compiler's ``--version``.
    libs, bins : dict of str to Path
        Libraries (``libhakmem.so``) and drivers (``bench_ramp_system``) by file name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path
    build_id: str
    compiler: str
    libs: dict[str, Path]
    bins: dict[str, Path]

    def driver(self, driver: str, flavour: str) -> Path:
        """Return the program of one driver for one allocator (``system``, ``mi``, ``hakmem``, ...).

        Raises
        ------
        MissingTool
            This build has no such program.
        """
        name = f"bench_{driver}_{flavour}"
        if name not in self.bins:
            raise MissingTool(
                f"the build {self.build_id} has no {name}{did_you_mean(name, self.bins)}: {self.path}/bin"
            )
        return self.bins[name]

    def launcher(self) -> Path:
        """Return the small program that runs other programs.

        Raises
        ------
        MissingTool
            This build has none.
        """
        if "launch" not in self.bins:
            raise MissingTool(f"the build {self.build_id} has no launcher: {self.path}/bin")
        return self.bins["launch"]


class Layouts(BaseModel):
    """One flavour's library, linked `count` times, its functions and the gaps between them as `seed` draws them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int
    seed: int
    flavour: str = "hakmem"

    def goals(self) -> list[str]:
        """Return what make is asked for."""
        return ["layouts", f"LAYOUTS={self.count}", f"LAYOUT_SEED={self.seed}", f"FLAVOURS={self.flavour}"]

    def libraries(self, made: Build) -> tuple[Path, ...]:
        """Return the libraries, one a layout, the same number always the same layout."""
        return tuple(made.libs[f"lib{self.flavour}.layout{at + 1}.so"] for at in range(self.count))


def build(
    *,
    cc: str | None = None,
    cflags_extra: str = "",
    native: Path | None = None,
    store: Path | None = None,
    flavour: str | None = None,
    layouts: Layouts | None = None,
) -> Build:
    """Compile the allocator and its drivers, or find them compiled already.

    Parameters
    ----------
    cc : str, optional
        The C compiler; ``$CC`` or ``cc`` by default.
    cflags_extra : str
        Further compiler flags, put behind those of the Makefile.
    native, store : Path, optional
        Source directory and the directory that holds the builds; those of the checkout by default.
    flavour : str, optional
        Make the libraries of this one, and no drivers.
    layouts : Layouts, optional
        Make these libraries, and nothing else.

    Returns
    -------
    Build

    Raises
    ------
    MissingTool
        There is no compiler or no make.
    BuildFailed
        The compiler failed, or the sources are older than layouts; the message ends with the last lines of make.
    """
    cc = cc or os.environ.get("CC") or "cc"
    native = native or paths.native()
    store = store or paths.build() / "store"
    for tool in (cc.split()[0], "make"):
        if shutil.which(tool) is None:
            raise MissingTool(f"no program {tool!r} on the PATH: apt-get install gcc make")
    compiler = _first_line([*cc.split(), "--version"])
    goals = layouts.goals() if layouts else ["libs", f"FLAVOURS={flavour}"] if flavour else []
    if layouts and not (native / LINKERS).is_dir():
        raise BuildFailed(
            f"these sources are older than layouts, they have no native/{LINKERS}: compare without --layouts"
        )
    build_id = _content_address(native, [cc, compiler, cflags_extra, _linkable_peer(cc), *goals])
    target = store / build_id
    if not target.is_dir():
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store / f".{build_id}.lock"):
            if not target.is_dir():
                _make(native, target, cc, cflags_extra, goals)
    return _finished(target, build_id, compiler)


def _make(native: Path, target: Path, cc: str, cflags_extra: str, goals: list[str]) -> None:
    """Run make into a scratch directory and give it its name when it is whole."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    command = ["make", "-C", str(native), f"-j{os.cpu_count() or 1}", f"OUT={scratch}", f"CC={cc}", *goals]
    if cflags_extra:
        command.append(f"CFLAGS_EXTRA={cflags_extra}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=_environment())
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).splitlines()[-LAST_LINES:]
            raise BuildFailed("\n".join([f"`{' '.join(command)}` failed with status {done.returncode}:", *lines]))
        (scratch / "build.log").write_text(done.stdout + done.stderr)
        scratch.chmod(0o755)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Return what a build may depend on: nothing of the caller's flags or preloads."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}


def _content_address(native: Path, more: list[str]) -> str:
    hashed = hashlib.sha256()
    for text in more:
        hashed.update(text.encode() + b"\0")
    for file in _sources(native):
        hashed.update(str(file.relative_to(native)).encode() + b"\0")
        hashed.update(hashlib.sha256(file.read_bytes()).digest())
    return hashed.hexdigest()[:12]


def _sources(native: Path) -> list[Path]:
    makefile = native / "Makefile"
    if not makefile.is_file():
        raise BuildFailed(f"no {makefile}: there is nothing to compile")
    tops = [native / name for name in ("src", "include", "bench", "launch", "record", LINKERS)]
    return [makefile, *sorted(file for top in tops for file in top.rglob("*") if file.is_file())]


def _linkable_peer(cc: str) -> str:
    """Find the mimalloc that the `_mi` drivers are linked against: installing it later makes another build."""
    name = _first_line([*cc.split(), "-print-file-name=libmimalloc.so"])
    return str(Path(name).resolve()) if os.path.isabs(name) else "none"


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=_environment())
    if done.returncode != 0:
        raise BuildFailed(f"`{' '.join(command)}` failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.partition("\n")[0].strip()


def _finished(path: Path, build_id: str, compiler: str) -> Build:
    libs, bins = ({file.name: file for file in sorted((path / part).glob("*"))} for part in ("lib", "bin"))
    return Build(path=path, build_id=build_id, compiler=compiler, libs=libs, bins=bins)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
