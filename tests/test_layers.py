import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hakmem import paths

ROOT = paths.root()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = SETTINGS["tool"]["importlinter"]["contracts"]
LAYERS = {each["containers"][0]: each["layers"][::-1] for each in CONTRACTS}  # bottom to top

# Which rooms' headers each room of the allocator may include: leaves know nothing but base and diag, and from the
# kernel up each room knows those below it. `large` stands beside `slab`, which knows nothing of it; `census` and `dump`
# only read.
LEAVES = {
    "base": set(),
    "diag": {"base"},
    "gates": {"base", "diag"},
    "stats": {"base", "diag"},
    "policy": {"base", "diag"},
    "classes": {"base"},
}
ALLOWED = dict(LEAVES)
ROOMS = ("os", "live", "lean", "unit", "superslab", "span", "depot", "misuse", "slab", "large")
ROOMS += ("heap", "background", "tcache", "census", "dump", "api")
for room in ROOMS:
    ALLOWED[room] = set(ALLOWED)
PUBLIC = {"../include/hakmem.h", "../include/hakmem_inline.h", "gates.def"}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copy_of_the_package(folder: Path) -> Path:
    shutil.copytree(ROOT / "hakmem", folder / "hakmem", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "hakmem"


def includes(source: str) -> list[str]:
    """Names in quotes that a C source includes, comments left out."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', code, flags=re.MULTILINE)


def upward(room: str, source: str) -> list[str]:
    """Includes that a room may not have."""
    allowed = {f"{name}.h" for name in ALLOWED[room] | {room}} | PUBLIC
    return [name for name in includes(source) if name not in allowed]


def test_each_module_imports_only_those_below_it() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    "line",
    [
        "from hakmem import stats",
        "def late() -> None:\n    from hakmem import stats",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hakmem import stats",
    ],
    ids=["plain", "late", "type checking"],
)
def test_an_upward_import_is_caught_however_it_hides(tmp_path: Path, line: str) -> None:
    package = copy_of_the_package(tmp_path)
    with (package / "paths.py").open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    found = lint(tmp_path)
    assert found.returncode == 1
    assert "hakmem.paths -> hakmem.stats" in found.stdout


def test_a_module_without_a_place_in_the_order_is_caught(tmp_path: Path) -> None:
    (copy_of_the_package(tmp_path) / "util.py").touch()
    found = lint(tmp_path)
    assert found.returncode == 1
    assert "hakmem.util" in found.stdout


def test_the_design_draws_the_order_that_is_held() -> None:
    drawing = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("```")[1]
    drawn = [found[1] for line in drawing.splitlines() if (found := re.match(r".{50}((?:  ){1,2}[a-z_]+)/? +\S", line))]
    order = [(name, LAYERS.get(f"hakmem.{name}", [])) for name in LAYERS["hakmem"]]
    assert drawn == [line for name, inside in order for line in (f"  {name}", *(f"    {each}" for each in inside))]


@pytest.mark.parametrize("source", sorted((ROOT / "native" / "src").glob("*.[ch]")), ids=lambda source: source.name)
def test_each_room_of_the_allocator_includes_only_those_below_it(source: Path) -> None:
    assert source.stem in ALLOWED, f"{source.name} has no place in the order of the rooms: give it one in this test"
    assert upward(source.stem, source.read_text(encoding="utf-8")) == []


def test_drivers_and_the_public_header_know_nothing_of_the_inside() -> None:
    for source in (ROOT / "native" / "bench").glob("*.[ch]"):
        inside = set(includes(source.read_text(encoding="utf-8"))) - {
            "bench.h",
            "epochs.h",
            "options.h",
            "process.h",
            "say.h",
            "trace_reader.h",
            "../src/gates.def",
            "../include/hakmem.h",
        }
        assert not inside, source.name
    assert includes((ROOT / "native" / "include" / "hakmem.h").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("os", '#include "superslab.h"\n', ["superslab.h"]),
        ("os", '#  include "slab.h" /* why */\n', ["slab.h"]),
        ("slab", '#include "large.h"\n', ["large.h"]),
        ("policy", '#include "os.h"\n', ["os.h"]),
        ("stats", '#include "gates.h"\n', ["gates.h"]),
        ("tcache", '/* #include "api.h" */ // #include "api.h"\n#include "slab.h"\n#include <api.h>\n', []),
        ("api", '#include "../src/other.c"\n', ["../src/other.c"]),
    ],
)
def test_an_upward_include_is_caught(room: str, source: str, found: list[str]) -> None:
    assert upward(room, source) == found
