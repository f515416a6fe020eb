import subprocess
from pathlib import Path

import pytest

from hakmem.builds import allocators
from hakmem.builds.allocators import Peer, find, prove
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, MissingTool, TrialFailed

BUMP = """
#include <stddef.h>
#include <string.h>
static char arena[64 << 20] __attribute__((aligned(16)));
static size_t used;
void *malloc(size_t n) { size_t at = __atomic_fetch_add(&used, (n + 31) & ~15ul, __ATOMIC_RELAXED) + 16;
  if (at + n > sizeof arena) return 0; *(size_t *)(arena + at - 16) = n; return arena + at; }
void free(void *p) { (void)p; }
void *calloc(size_t a, size_t b) { return malloc(a * b); }
void *realloc(void *p, size_t n) { void *q = malloc(n);
  if (p && q) { size_t old = ((size_t *)p)[-2]; memcpy(q, p, old < n ? old : n); } return q; }
"""


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def library(folder: Path, source: str) -> Path:
    (folder / "own.c").write_text(source)
    made = folder / "libown.so"
    command = ["cc", "-O2", "-fno-builtin", "-shared", "-fPIC", str(folder / "own.c"), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


@pytest.mark.parametrize("name", [*allocators.FLAVOURS, "system", *allocators.installed_peers(), "hakmem@linked"])
def test_every_allocator_here_is_found_versioned_and_at_work(native: Build, name: str) -> None:
    found = find(name, native)
    assert found.version not in ("", "unknown")
    assert found.label == name
    assert found.is_hakmem == name.startswith("hakmem")
    prove(found, native.driver("random_mixed", found.flavour))
    prove(found, native.driver("larson", found.flavour))


def test_the_system_is_neither_preloaded_nor_linked(native: Build) -> None:
    found = find("system", native)
    assert (found.linkage, found.library, found.version.split()[0]) == ("none", None, "glibc")
    assert len(found.sha256) == 16


def test_linked_peers_are_proven_too(native: Build) -> None:
    if "bench_random_mixed_mi" not in native.bins:
        pytest.skip("needs libmimalloc: sudo apt-get install libmimalloc-dev")
    found = find("mimalloc@linked", native)
    assert (found.linkage, found.flavour) == ("linked", "mi")
    prove(found, native.driver("random_mixed", "mi"))
    with pytest.raises(TrialFailed, match="libmimalloc"):
        prove(found, native.driver("random_mixed", "system"))


def test_the_inlined_fast_path_is_linked_and_has_programs_of_its_own(native: Build) -> None:
    found = find("hakmem_minimal@inline", native)
    assert (found.linkage, found.flavour, found.label) == ("linked", "hakmem_minimal_inline", "hakmem_minimal@inline")
    prove(found, native.driver("random_mixed", found.flavour))
    with pytest.raises(MissingTool, match="bench_larson_hakmem_minimal_inline"):
        native.driver("larson", found.flavour)


def test_an_allocator_of_ones_own(native: Build, tmp_path: Path) -> None:
    own = library(tmp_path, BUMP)
    found = find(f"preload:{own}", native)
    assert found.library == own
    prove(found, native.driver("random_mixed", "system"))


def test_a_library_built_anew_is_another_and_proven_anew(native: Build, tmp_path: Path) -> None:
    """In one session, as in an open notebook: rows of what it was are not taken for its own."""
    name, program = f"preload:{library(tmp_path, BUMP)}", native.driver("random_mixed", "system")
    before = find(name, native)
    prove(before, program)
    library(tmp_path, "int nothing;")
    after = find(name, native)
    assert (before.library, before.label) == (after.library, after.label) and before.sha256 != after.sha256
    with pytest.raises(TrialFailed, match=r"malloc is bound to .*libc"):
        prove(after, program)


def test_a_library_without_malloc_is_no_allocator(native: Build, tmp_path: Path) -> None:
    found = find(f"preload:{library(tmp_path, 'int nothing;')}", native)
    with pytest.raises(TrialFailed, match=r"malloc is bound to .*libc"):
        prove(found, native.driver("random_mixed", "system"))


def test_a_file_that_cannot_be_loaded_is_no_allocator(native: Build, tmp_path: Path) -> None:
    own = tmp_path / "libown.so"
    own.write_text("no library")
    with pytest.raises(TrialFailed):
        prove(find(f"preload:{own}", native), native.driver("random_mixed", "system"))


def test_a_library_that_crashes_programs_is_no_allocator(native: Build, tmp_path: Path) -> None:
    crash = "__attribute__((constructor)) static void now(void) { __builtin_trap(); }"
    found = find(f"preload:{library(tmp_path, crash)}", native)
    with pytest.raises(TrialFailed, match="status -"):
        prove(found, native.driver("random_mixed", "system"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hakmen", "did you mean hakmem"),
        ("system@linked", "no linked drivers"),
        ("mimalloc@inline", "no inline drivers: @inline goes with hakmem, hakmem_minimal"),
        ("preload:relative.so", "absolute path"),
        ("preload:/nonexistent/lib.so", "/nonexistent/lib.so is no file"),
    ],
)
def test_bad_names_are_refused(native: Build, name: str, said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        find(name, native)


def test_a_path_that_the_loader_would_split_is_refused(native: Build, tmp_path: Path) -> None:
    own = tmp_path / "my lib.so"
    own.touch()
    with pytest.raises(BadParameter, match="blanks"):
        find(f"preload:{own}", native)


def test_a_missing_peer_comes_with_its_remedy(native: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(allocators.PEERS, "mimalloc", Peer(("libsurely_not_installed.so",), "libmimalloc-dev"))
    with pytest.raises(MissingTool, match="apt-get install libmimalloc-dev"):
        find("mimalloc", native)
    assert "mimalloc" not in allocators.installed_peers()
    assert allocators.missing_peers()["mimalloc"] == "apt-get install libmimalloc-dev"


def test_debug_variants_are_not_taken_for_the_library() -> None:
    same = allocators._is_version_of
    assert same("libtcmalloc_minimal.so.4.5.10", "libtcmalloc_minimal.so")
    assert not same("libtcmalloc_minimal_debug.so.4", "libtcmalloc_minimal.so")
    assert not same("libtcmalloc_minimal.so.bak", "libtcmalloc_minimal.so")


def test_a_peer_outside_the_loaders_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libfresh.so.3").touch()
    monkeypatch.setattr(allocators, "COMMON_DIRECTORIES", (str(tmp_path),))
    assert allocators._library(Peer(("libabsent.so", "libfresh.so"), "x")) == tmp_path / "libfresh.so.3"
