"""The allocators an arm can name: hakmem's flavours, the system's, and peers that are found, versioned and proven.

A name is one of `NAMES` or ``preload:/path/lib.so``. Peers and hakmem are preloaded under the plain driver programs, so
that all arms have the same linkage; ``@linked`` behind a name picks the programs that are linked against it instead,
``@inline`` those that have its fast path in their own code (`native/include/hakmem_inline.h`).
"""

import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from hakmem.builds import gates, revisions
from hakmem.builds.build import Build, Layouts
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, MissingTool, TrialFailed, did_you_mean

FLAVOURS = ("hakmem", "hakmem_minimal", "hakmem_observe")


class Peer(NamedTuple):
    """How a peer is found: file names of its library, best first, and the package that brings it."""

    libraries: tuple[str, ...]
    package: str


PEERS = {
    "mimalloc": Peer(("libmimalloc.so",), "libmimalloc-dev"),
    "jemalloc": Peer(("libjemalloc.so",), "libjemalloc-dev"),
    "tcmalloc": Peer(("libtcmalloc_minimal.so", "libtcmalloc.so"), "libgoogle-perftools-dev"),
    "tbbmalloc": Peer(("libtbbmalloc_proxy.so",), "libtbbmalloc2"),
}
NULL = "null"  # no allocator: the loop of random_mixed over a bump pointer, which is what the others are beside
NAMES = (*FLAVOURS, "system", *PEERS, NULL)
LINKED_SUFFIX, INLINE_SUFFIX = "@linked", "@inline"
PROGRAMS = {  # which allocators have drivers of their own, and the flavour these are called by
    LINKED_SUFFIX: {**{flavour: flavour for flavour in FLAVOURS}, "mimalloc": "mi"},
    INLINE_SUFFIX: {flavour: f"{flavour}_inline" for flavour in ("hakmem", "hakmem_minimal")},
}
COMMON_DIRECTORIES = ("/usr/local/lib", "/usr/lib64", "/usr/lib", "/lib")
PROBED = ("malloc", "free", "calloc", "realloc")


class Allocator(BaseModel):
    """One allocator on this machine.

    Attributes
    ----------
    name : str
        As asked for, without ``@linked`` or ``@inline``.
    linkage : {"preload", "linked", "none"}
        How it gets under the driver.
    library : Path or None
        The real file, for ``preload``.
    flavour : str
        Suffix of the driver programs to run: ``system`` for preloading.
    version : str
        Package version, or what the file name says, or the native build.
    sha256 : str
        First 16 hexadecimal digits of the library's hash; ``""`` without a library.
    layouts : tuple of Path
        The same library with its functions laid out otherwise, one file a layout; empty where that plays no part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    linkage: Literal["preload", "linked", "none"]
    library: Path | None
    flavour: str
    version: str
    sha256: str = ""
    layouts: tuple[Path, ...] = ()

    @property
    def is_hakmem(self) -> bool:
        """Whether the gates mean anything to it."""
        return self.name in FLAVOURS or self.name.startswith(revisions.PREFIXES)

    def gates(self) -> gates.Table:
        """Return the gates it knows: of another revision, that revision's own."""
        if self.name.startswith(revisions.PREFIXES) and self.library is not None:
            return gates.table(self.library.parent.parent / revisions.GATES)
        return gates.table()

    def laid_out(self, number: int) -> "Allocator":
        """Return it in one of its layouts, or as it is where it has none."""
        if not self.layouts:
            return self
        library = self.layouts[number % len(self.layouts)]
        return self.model_copy(update={"library": library, "sha256": _sha256(library)})

    @property
    def label(self) -> str:
        """The name with what tells it from others of that name."""
        return self.name + next((how for how, named in PROGRAMS.items() if named.get(self.name) == self.flavour), "")


def suffix_of(name: str) -> str:
    """Return the ``@linked`` or ``@inline`` that a name ends with, or nothing."""
    return next((how for how in PROGRAMS if name.endswith(how)), "")


def find(name: str, build: Build) -> Allocator:
    """Find an allocator by its name.

    Parameters
    ----------
    name : str
        One of `NAMES`, with or without ``@linked`` or ``@inline``, ``preload:/path/lib.so``, ``rev:GITREV`` or
        ``patch:FILE.diff``.
    build : Build
        The native build that holds hakmem's libraries and the drivers.

    Returns
    -------
    Allocator

    Raises
    ------
    BadParameter
        There is no allocator of that name, or it cannot be linked.
    MissingTool
        It is not installed; the message names the command that installs it.
    """
    check(name)
    suffix = suffix_of(name)
    bare = name.removesuffix(suffix)
    if suffix:
        return _linked(bare, PROGRAMS[suffix][bare], build)
    if bare == "system":
        libc = _loaded_libc()
        version = os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
        return Allocator(
            name=bare, linkage="none", library=None, flavour="system", version=version, sha256=_sha256(libc)
        )
    if bare == NULL:
        version = f"build {build.build_id}"
        return Allocator(name=bare, linkage="none", library=None, flavour=NULL, version=version)
    library: Path | None
    if bare.startswith(revisions.PREFIXES):
        other = revisions.make(bare)
        library = other.build.libs["libhakmem.so"]
        bare, version = other.name, f"{other.commit} build {other.build.build_id}"
    elif bare in FLAVOURS:
        library = build.libs.get(f"lib{bare}.so")
        if library is None:
            raise MissingTool(f"the build {build.path} has no lib{bare}.so: its sources are incomplete")
        version = f"build {build.build_id}"
    elif bare in PEERS:
        library = _library(PEERS[bare])
        if library is None:
            raise MissingTool(f"{bare} is not installed: {install_command(bare)}")
        version = _version(library)
    else:
        library = _own_library(bare)
        version = _version(library)
    return Allocator(
        name=bare, linkage="preload", library=library, flavour="system", version=version, sha256=_sha256(library)
    )


def lay_out(allocator: Allocator, asked_for: str, count: int, seed: int) -> Allocator:
    """Build a hakmem in several layouts; what is not hakmem's stays as it is.

    Parameters
    ----------
    allocator : Allocator
    asked_for : str
        The name it was found by.
    count, seed : int
        How many layouts, and what they are drawn by; those of different code are drawn independently.

    Raises
    ------
    BadParameter
        It is linked into the drivers, which have one layout.
    BuildFailed
        Its sources are older than layouts.
    """
    if not allocator.is_hakmem:
        return allocator
    if allocator.linkage == "linked":
        raise BadParameter(
            f"{allocator.label} has one layout: several are made of libraries that are preloaded, as {allocator.name},"
            " rev:GITREV and patch:FILE.diff are"
        )
    drawn = random.Random(f"layouts {seed} {allocator.name} {allocator.version}").getrandbits(32)
    if asked_for.startswith(revisions.PREFIXES):
        wanted = Layouts(count=count, seed=drawn)
        made = revisions.make(asked_for, wanted).build
    else:
        wanted = Layouts(count=count, seed=drawn, flavour=allocator.name)
        made = compile_native(layouts=wanted)
    return allocator.model_copy(update={"layouts": wanted.libraries(made)})


def check(name: str) -> None:
    """Refuse a name that no machine could have an allocator for.

    Raises
    ------
    BadParameter
        The message lists the names.
    """
    suffix = suffix_of(name)
    bare = name.removesuffix(suffix)
    if bare not in NAMES and not bare.startswith(("preload:", *revisions.PREFIXES)):
        raise BadParameter(
            f"unknown allocator {name!r}{did_you_mean(bare, NAMES)}; allocators are {', '.join(NAMES)}"
            ", preload:/path/lib.so, rev:GITREV and patch:FILE.diff"
        )
    if suffix and bare not in PROGRAMS[suffix]:
        raise BadParameter(f"{bare} has no {suffix[1:]} drivers: {suffix} goes with {', '.join(PROGRAMS[suffix])}")


def installed_peers() -> tuple[str, ...]:
    """Return the names of the peers that are installed here, in the order of `PEERS`."""
    return tuple(name for name, peer in PEERS.items() if _library(peer) is not None)


def missing_peers() -> dict[str, str]:
    """Return the peers that are not installed, each with the command that installs it."""
    here = installed_peers()
    return {name: install_command(name) for name in PEERS if name not in here}


def install_command(name: str) -> str:
    """Return the command that installs a peer."""
    return f"apt-get install {PEERS[name].package}"


def prove(allocator: Allocator, program: Path) -> None:
    """Make sure that the allocator serves a program: the loader binds its malloc and free to the right file.

    The loader is asked to tell every binding (``LD_DEBUG``) while the program prints its help; a linked hakmem is part
    of the program and says in every trial's result line that it is at work.

    Raises
    ------
    TrialFailed
        The loader bound malloc elsewhere, or did not load the library; the message says where.
    """
    if allocator.name == NULL or (allocator.linkage == "linked" and allocator.is_hakmem):
        return
    if allocator.linkage == "none":
        expected = str(_loaded_libc().resolve())
    elif allocator.linkage == "linked":
        expected = PEERS[allocator.name].libraries[0]
    else:
        expected = str(Path(str(allocator.library)).resolve())
    bound = _bindings(program, allocator.library, allocator.sha256)
    for symbol, file in ((symbol, bound[symbol]) for symbol in PROBED if symbol in bound):
        if expected not in (str(Path(file).resolve()), Path(file).name.partition(".so")[0] + ".so"):
            raise TrialFailed(
                f"{allocator.label} is not at work under {program.name}: {symbol} is bound to {file}, not to {expected}"
            )


def prove_program(allocator: Allocator, program: Path) -> None:
    """Make sure that an allocator can be put under a program of the user's; the program is not run.

    The loader is asked to list what it would load (``LD_TRACE_LOADED_OBJECTS``). Whether the program then calls the
    allocator is its own affair: one that brings its own malloc does not.

    Raises
    ------
    BadParameter
        The allocator is linked into the drivers, so that no other program can have it.
    TrialFailed
        The program is linked statically, or set-user-id, or the loader does not take the library.
    """
    if allocator.linkage == "linked" or allocator.name == NULL:
        raise BadParameter(f"{allocator.label} cannot be put under {program}: name one that is preloaded, or system")
    if allocator.library is None:
        return
    binary = _interpreter(program)
    mode = binary.stat().st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID) and os.geteuid() != 0:
        raise TrialFailed(f"{program} runs as another user, so the loader preloads nothing under it")
    if not _is_dynamic(binary):
        raise TrialFailed(f"{program} is linked statically: no allocator can be preloaded under it")
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LD_TRACE_LOADED_OBJECTS": "1",
        "LD_PRELOAD": str(allocator.library),
    }
    done = subprocess.run([binary], env=env, capture_output=True, text=True, errors="replace", timeout=60)
    if str(allocator.library) not in done.stdout or "cannot be preloaded" in done.stderr:
        raise TrialFailed(f"the loader does not put {allocator.library} under {program}: {done.stderr.strip()[:300]}")


def _interpreter(program: Path, depth: int = 4) -> Path:
    """Return the binary that a script names in its first line; a binary is its own."""
    with program.open("rb") as file:
        first = file.readline(4096)
    if not first.startswith(b"#!") or depth == 0:
        return program.resolve()
    words = first[2:].decode(errors="replace").split()
    named = [word for word in words if not word.startswith("-") and "=" not in word]
    script = named[1] if named and Path(named[0]).name == "env" and len(named) > 1 else next(iter(named), "")
    found = shutil.which(script)
    if found is None:
        raise TrialFailed(f"{program} names the interpreter {script!r}, which is not here")
    return _interpreter(Path(found), depth - 1)


def _is_dynamic(binary: Path) -> bool:
    """Whether an ELF file asks for a loader (a program header of type PT_INTERP)."""
    with binary.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        offset, size, count = (int.from_bytes(head[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58)))
        file.seek(offset)
        table = file.read(size * count)
    return any(int.from_bytes(table[at : at + 4], "little") == 3 for at in range(0, len(table), size))


@lru_cache(maxsize=256)
def _bindings(program: Path, library: Path | None, _sha256: str) -> dict[str, str]:
    """Ask the loader which file each of the program's allocation functions is bound to."""
    env = {"PATH": os.environ.get("PATH", os.defpath), "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}
    if library is not None:
        env["LD_PRELOAD"] = str(library)
    try:
        done = subprocess.run(
            [program, "--help"], env=env, capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrialFailed(f"cannot start {program} with LD_PRELOAD={library}: {error}") from error
    told = re.findall(rf"binding file {re.escape(str(program))} \[0\] to (.+?) \[0\]: .*`(\w+)'", done.stderr)
    bound = {symbol: file for file, symbol in told if symbol in PROBED}
    if done.returncode != 0 or "malloc" not in bound:
        last = done.stderr.strip().rpartition("\n")[2][:300]
        raise TrialFailed(f"{program.name} with LD_PRELOAD={library}: status {done.returncode}, no proof: {last}")
    return bound


def _linked(name: str, flavour: str, build: Build) -> Allocator:
    if not any(program.endswith(f"_{flavour}") for program in build.bins):
        raise MissingTool(f"the build has no drivers linked with {name}: {install_command(name)}, then build again")
    if name in FLAVOURS:
        return Allocator(name=name, linkage="linked", library=None, flavour=flavour, version=f"build {build.build_id}")
    library = _library(PEERS[name])
    version = _version(library) if library else "unknown"
    return Allocator(
        name=name,
        linkage="linked",
        library=None,
        flavour=flavour,
        version=version,
        sha256=_sha256(library) if library else "",
    )


def _own_library(name: str) -> Path:
    path = Path(name.removeprefix("preload:"))
    if not path.is_absolute() or not path.is_file():
        raise BadParameter(f"{name}: {path} is no file; it takes the absolute path of a shared library")
    if re.search(r"[\s:]", str(path)):
        raise BadParameter(f"{name}: LD_PRELOAD cannot name a path with blanks or colons; link or copy it elsewhere")
    return path.resolve()


@lru_cache(maxsize=8)
def _library(peer: Peer) -> Path | None:
    """Find a peer's library where the loader looks, then in the common directories."""
    known = _loader_cache()
    for name in peer.libraries:
        candidates = [Path(path) for file, path in known if _is_version_of(file, name)]
        folders = [folder for top in COMMON_DIRECTORIES for folder in (Path(top), *_multiarch(top))]
        candidates += [file for folder in folders for file in sorted(folder.glob(f"{name}*"), reverse=True)]
        for candidate in candidates:
            if _is_version_of(candidate.name, name) and candidate.is_file():
                return candidate.resolve()
    return None


def _is_version_of(file: str, library: str) -> bool:
    """``libx.so``, ``libx.so.2`` and ``libx.so.2.1`` are libx.so; ``libx_debug.so`` is not."""
    return re.fullmatch(re.escape(library) + r"(\.[0-9.]+)?", file) is not None


def _multiarch(top: str) -> Iterable[Path]:
    return sorted(Path(top).glob(f"{os.uname().machine}-linux-*"))


def _loader_cache() -> list[tuple[str, str]]:
    """Return (soname, path) pairs of the loader's cache for this architecture."""
    ldconfig = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if ldconfig is None:
        return []
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, errors="replace").stdout
    tag = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(os.uname().machine, "")
    return [
        (found[1], found[3])
        for found in re.finditer(r"^\s*(\S+) \(([^)]*)\) => (.+)$", listing, flags=re.MULTILINE)
        if tag in found[2]
    ]


@lru_cache(maxsize=64)
def _version(library: Path) -> str:
    """Return the version of the package that owns a library, else what its file name says."""
    if shutil.which("dpkg-query"):
        asked = [str(library), str(library).removeprefix("/usr")]
        owner = subprocess.run(["dpkg-query", "-S", *asked], capture_output=True, text=True).stdout.partition(": ")[0]
        if owner:
            show = ["dpkg-query", "-W", "-f=${Version}", owner.split(",")[0]]
            if version := subprocess.run(show, capture_output=True, text=True).stdout.strip():
                return version
    return library.name.partition(".so.")[2] or "unknown"


def _sha256(library: Path) -> str:
    found = library.stat()  # a library of the user's may be built anew while a notebook is open
    return _hashed(library, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=64)
def _hashed(library: Path, _modified_ns: int, _size: int) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _loaded_libc() -> Path:
    """Find the C library this process runs with; children run with the same."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if re.fullmatch(r"libc(-[0-9.]+)?\.so(\.6)?", Path(path).name):
            return Path(path)
    raise MissingTool("no shared C library in this process: hakmem measures under glibc")
