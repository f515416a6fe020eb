import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hakmem import paths, store
from hakmem.builds import allocators, arms, gates, revisions
from hakmem.builds.build import build as compile_native
from hakmem.cli import app
from hakmem.errors import BadGate, BadParameter

if subprocess.run(["git", "-C", paths.root(), "rev-parse", "HEAD"], capture_output=True).returncode != 0:
    pytest.skip("needs a clone with its history", allow_module_level=True)
TINY = ["--workload", "mixed:ws=50,cycles=20000", "--profile", "smoke"]


def git(*args: str) -> str:
    return subprocess.run(["git", "-C", paths.root(), *args], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch to the commit checked out: another default of a gate, which only its own gates.def tells."""
    folder = tmp_path_factory.mktemp("patch")
    text = git("show", "HEAD:native/src/gates.def")
    changed, count = re.subn(r'(SS_MEM_LEAN_TARGET_MB, *INT, *)"10"', r'\1"12"', text)
    assert count == 1
    for side, content in (("a", text), ("b", changed)):
        (folder / side / "native" / "src").mkdir(parents=True)
        (folder / side / "native" / "src" / "gates.def").write_text(content)
    differs = ["git", "diff", "--no-index", "--no-prefix", "a", "b"]
    told = subprocess.run(differs, cwd=folder, capture_output=True, text=True).stdout
    file = folder / "twelve.diff"
    file.write_text(told)
    return file


def test_a_patch_is_an_arm_with_its_own_gates(patch: Path) -> None:
    name, settings = arms.parse(f"patch:{patch}:LEAN=1")
    found = allocators.find(name, compile_native())
    assert found.is_hakmem and found.name.startswith("patch:twelve.diff@") and found.linkage == "preload"
    assert found.gates().gate("SS_MEM_LEAN_TARGET_MB").default == "12"
    assert gates.table().gate("SS_MEM_LEAN_TARGET_MB").default == "10"
    arm = arms.make(found, settings)
    assert arm.label.endswith("LEAN FREE 12 MB")
    assert "hakmem-revision" not in git("worktree", "list")
    assert allocators.find(name, compile_native()) == found
    run = ["run", "--arm", "hakmem:LEAN=1", "--arm", f"patch:{patch}:LEAN=1", *TINY, "--json"]
    done = CliRunner().invoke(app, run, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    here, there = json.loads(done.stdout)
    assert here["effective_gates"]["HAKMEM_SS_MEM_LEAN_TARGET_MB"] == "10"
    assert there["effective_gates"]["HAKMEM_SS_MEM_LEAN_TARGET_MB"] == "12"  # the patched library itself says so
    assert there["version"] == found.version != here["version"]
    text = patch.read_text()
    try:
        patch.write_text(text.replace('"12"', '"13"'))
        again = allocators.find(name, compile_native())
    finally:
        patch.write_text(text)
    assert again.gates().gate("SS_MEM_LEAN_TARGET_MB").default == "13"  # the file was edited in the same session
    assert again.name != found.name and again.version != found.version


def test_a_revision_is_named_by_its_commit_and_swept_like_any_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    commit = git("rev-parse", "HEAD")[:12]
    sweep = ["sweep", "--allocator", f"hakmem,rev:{commit[:10]}", "--lean", "0", "--blocks", "2", *TINY, "--json"]
    done = CliRunner().invoke(app, sweep, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["arm"] == f"rev:{commit}" and verdict["blocks"] >= 1


def test_a_change_without_effect_is_compared_over_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    never_called = paths.native() / "test" / "never_called.diff"
    sweep = ["sweep", "--allocator", f"hakmem,patch:{never_called}", "--lean", "0", *TINY, "--json"]
    sweep += ["--layouts", "2", "--until-decided"]
    done = CliRunner().invoke(app, sweep, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["arm"].startswith("patch:never_called.diff@")
    assert verdict["layouts"] == verdict["effect"]["n"] >= 2 and verdict["layout_spread"] >= 0
    rows = store.load(tmp_path / "lean_sweep.jsonl")
    planned = rows[rows["block"] < 16]  # four times the blocks asked for: what is added is laid out anew, too
    assert (planned["layout"] == planned["block"] // 2).all() and planned["block"].max() >= 3
    facts = next(iter(store.provenance(tmp_path / "lean_sweep.jsonl").values())).facts
    ours, theirs = facts["allocators"].values()  # type: ignore[union-attr]
    libraries = [Path(path).read_bytes() for one in (ours, theirs) for path in one["layouts"]]  # type: ignore[index]
    assert len(set(libraries)) == len(libraries) == 16
    plain = CliRunner().invoke(app, ["sweep", "--allocator", "hakmem", "--layouts", "2", *TINY])
    assert "layouts=2 compares code, and hakmem is one" in str(plain.exception)


def functions(library: Path) -> dict[str, tuple[int, list[str]]]:
    """Where each function of a library begins, and its instructions, without what only says where things are."""
    listing = ["objdump", "-d", "--no-show-raw-insn", "--section=.text", str(library)]
    told = subprocess.run(listing, capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    names: dict[int, list[str]] = {}  # objdump tells one name of each function, and malloc is __libc_malloc, too
    for at, _, name in re.findall(r"^([0-9a-f]+) (\w) (\w+)", exported, re.MULTILINE):
        names.setdefault(int(at, 16), []).append(name)
    found = {}
    for at, name, body in re.findall(r"^([0-9a-f]+) <([^>]+)>:\n((?:.+\n)*)", told, re.MULTILINE):
        code = [line.split("\t", 1)[1].strip() for line in body.splitlines() if "\t" in line]
        code = [re.sub(r"-?0x[0-9a-f]+\(%rip\)( +# [0-9a-f]+ <\w+@@.*)?", "(%rip)", line) for line in code]
        code = [re.sub(r"\b[0-9a-f]+ (?=<)", "", line) for line in code if not re.search(r"\bnop|xchg +%ax,%ax", line)]
        for each in (name, *names.get(int(at, 16), [])):
            found[each] = int(at, 16), code
    return found


@pytest.mark.skipif(os.uname().machine != "x86_64" or not shutil.which("objdump"), reason="reads x86-64 with objdump")
def test_the_null_change_moves_hot_functions_and_changes_no_instruction() -> None:
    """Of the two patches that `docs/decisions/010-layouts.md` compares, one has a function more that nobody calls."""
    patches = [paths.native() / "test" / name for name in ("dead_code.diff", "dead_code_gone.diff")]
    made = [revisions.make(f"patch:{patch}").build.libs["libhakmem.so"] for patch in patches]
    with_it, without = (functions(library) for library in made)
    assert with_it.keys() - without.keys() == {"hak_never_called_either"} and without.keys() < with_it.keys()
    assert {name: code for name, (_, code) in without.items()} == {name: with_it[name][1] for name in without}
    assert not [line for _, code in with_it.values() for line in code if "hak_never_called" in line]
    for name in ("malloc", "free"):
        assert with_it[name][0] % 64 != without[name][0] % 64 and len(without[name][1]) > 15


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("rev:no-such-revision", BadParameter, "git knows no commit 'no-such-revision'"),
        ("rev:", BadParameter, "names no revision"),
        ("rev:--help", BadParameter, "names no revision"),
        ("patch:/no/such.diff", BadParameter, "there is no file /no/such.diff"),
        ("rev:HEAD:NO_SUCH_GATE=1", BadGate, "unknown gate 'NO_SUCH_GATE'"),
        ("rev:HEAD:LEAN=7", BadGate, "HAKMEM_SS_MEM_LEAN=7 is not allowed"),
    ],
)
def test_what_is_wrong_is_named(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        arms.parse(text)


def test_a_patch_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.diff"
    bad.write_text("--- native/src/gates.def\n+++ native/src/gates.def\n@@ -1 +1 @@\n-never there\n+nor this\n")
    with pytest.raises(BadParameter, match="does not apply"):
        revisions.make(f"patch:{bad}")
    assert "hakmem-revision" not in git("worktree", "list")
