import subprocess
import sys
from pathlib import Path

import pytest

from hakmem.builds import allocators
from hakmem.builds import build as module
from hakmem.builds.build import build
from hakmem.errors import BuildFailed, MissingTool

MAKEFILE = """
all:
\t@mkdir -p $(OUT)/lib $(OUT)/bin
\techo built >> {log}
\t$(CC) $(CFLAGS_EXTRA) -shared -fPIC src/a.c -o $(OUT)/lib/liba.so
\t$(CC) $(CFLAGS_EXTRA) bench/b.c -o $(OUT)/bin/bench_b_system
"""


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """A small native tree; every make leaves a line in ``log``."""
    tree = tmp_path / "native"
    for folder in ("src", "include", "bench"):
        (tree / folder).mkdir(parents=True)
    (tree / "Makefile").write_text(MAKEFILE.format(log=tmp_path / "log"))
    (tree / "src" / "a.c").write_text("int a(void) { return 1; }\n")
    (tree / "bench" / "b.c").write_text("int main(void) { return 0; }\n")
    return tree


def builds(native: Path) -> int:
    log = native.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_same_content_is_built_once(native: Path) -> None:
    first = build(native=native, store=native.parent / "store")
    second = build(native=native, store=native.parent / "store")
    assert first == second
    assert builds(native) == 1
    assert first.path.name == first.build_id
    assert list(first.libs) == ["liba.so"]
    assert subprocess.run([first.driver("b", "system")]).returncode == 0


@pytest.mark.parametrize("changed", ["src/a.c", "include/new.h", "bench/b.c", "Makefile"])
def test_any_changed_source_is_another_build(native: Path, changed: str) -> None:
    store = native.parent / "store"
    before = build(native=native, store=store)
    file = native / changed
    file.write_text((file.read_text() if file.exists() else "") + "\n")
    after = build(native=native, store=store)
    assert after.build_id != before.build_id
    assert before.path.is_dir()


def test_flags_and_compiler_are_part_of_the_address(native: Path) -> None:
    store = native.parent / "store"
    plain = build(native=native, store=store)
    flagged = build(native=native, store=store, cflags_extra="-O1 -DX=1")
    other = build(native=native, store=store, cc="gcc -m64" if plain.compiler else "gcc")
    assert len({plain.build_id, flagged.build_id, other.build_id}) == 3


def test_the_callers_flags_do_not_leak_in(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS_EXTRA", "--no-such-flag")
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent.so")
    assert build(native=native, store=native.parent / "store").libs


def test_a_failed_build_shows_the_compiler_and_leaves_nothing(native: Path) -> None:
    (native / "src" / "a.c").write_text("int a(void) { return undeclared_thing; }\n")
    store = native.parent / "store"
    with pytest.raises(BuildFailed, match="undeclared_thing"):
        build(native=native, store=store)
    assert [entry.name for entry in store.iterdir() if not entry.name.endswith(".lock")] == []
    (native / "src" / "a.c").write_text("int a(void) { return 1; }\n")
    assert build(native=native, store=store).path.is_dir()


def test_missing_tools_and_sources_are_named(native: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="no-such-cc"):
        build(cc="no-such-cc", native=native, store=tmp_path / "store")
    (native / "Makefile").unlink()
    with pytest.raises(BuildFailed, match="Makefile"):
        build(native=native, store=tmp_path / "store")


def test_an_unknown_driver_is_suggested(native: Path) -> None:
    made = build(native=native, store=native.parent / "store")
    with pytest.raises(MissingTool, match="did you mean bench_b_system"):
        made.driver("b", "sistem")


def test_two_builders_build_once(native: Path) -> None:
    store = native.parent / "store"
    code = (
        "import sys; from pathlib import Path; from hakmem.builds.build import build\n"
        "print(build(native=Path(sys.argv[1]), store=Path(sys.argv[2])).path)"
    )
    command = [sys.executable, "-c", code, str(native), str(store)]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate()[0].strip() for process in racing}
    assert all(process.returncode == 0 for process in racing)
    assert len(paths) == 1
    assert builds(native) == 1


def test_layouts_hold_the_same_code_elsewhere() -> None:
    wanted = module.Layouts(count=2, seed=5)
    one, two = wanted.libraries(build(layouts=wanted))
    first, second = code_of(one), code_of(two)
    assert set(first) == set(second) and len(first) > 50
    assert list(first) != list(second)
    within_line = [sorted(at % 64 for at in found.values()) for found in (first, second)]
    assert within_line[0] != within_line[1] and len(set(within_line[0])) > 3
    elsewhere = module.Layouts(count=2, seed=6)
    other = [list(code_of(library)) for library in elsewhere.libraries(build(layouts=elsewhere))]
    assert list(first) not in other and list(second) not in other
    for library in (one, two):
        allocators.prove(allocators.find(f"preload:{library}", build()), build().driver("ramp", "system"))


def code_of(library: Path) -> dict[str, int]:
    """Address of every function of the allocator, in the order of addresses."""
    told = subprocess.run(["nm", "-n", library], capture_output=True, text=True, check=True).stdout
    found = [line.split() for line in told.splitlines()]
    laid_out = [(name, int(at, 16)) for at, kind, name in (f for f in found if len(f) == 3) if kind in "tT"]
    compilers = ("_init", "_fini", "frame_dummy", "__do_global_dtors_aux", "deregister_tm_clones", "register_tm_clones")
    return {name: at for name, at in laid_out if name not in compilers}


def test_sources_without_layouts_say_so(native: Path) -> None:
    with pytest.raises(BuildFailed, match="older than layouts"):
        build(native=native, store=native.parent / "store", layouts=module.Layouts(count=2, seed=1))


def test_the_real_build_holds_what_the_contract_says() -> None:
    made = build()
    assert {f"libhakmem{flavour}.so" for flavour in ("", "_minimal", "_observe")} <= made.libs.keys()
    drivers = ("random_mixed", "larson", "battle", "ramp", "phases", "soak")
    flavours = ("hakmem", "hakmem_minimal", "hakmem_observe", "system")
    assert {f"bench_{driver}_{flavour}" for driver in drivers for flavour in flavours} <= made.bins.keys()
    assert (made.path / "build.log").is_file()
    assert module.build() == made
