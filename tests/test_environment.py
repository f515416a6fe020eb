import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hakmem import environment, paths

ROOT = paths.root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


def locked() -> list[tuple[Requirement, int]]:
    """Every pinned package with the number of its hashes."""
    text = paths.lock_file().read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
    return [
        (Requirement(entry.split(" --hash=")[0]), len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
        for entry in entries
    ]


def test_the_conda_environment_is_up_to_date() -> None:
    written = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert written == environment.render(ROOT / "pyproject.toml"), "environment.yml is stale: run `make generated`"


def test_the_conda_environment_asks_for_what_the_project_asks_for() -> None:
    loaded = yaml.safe_load(environment.render(ROOT / "pyproject.toml"))
    assert loaded["name"] == "hakmem"
    *packages, pip = loaded["dependencies"]
    *from_pip, itself = pip["pip"]
    assert itself == "--editable ." and {Requirement(one).name for one in from_pip} == set(environment.PIP_ONLY)
    assert {"python>=3.11", "pip"} < set(packages)
    asked = {canonicalize_name(one.name): one.specifier for one in map(Requirement, [*packages, *from_pip])}
    for requirement in WANTED:
        assert asked[canonicalize_name(requirement.name)] == requirement.specifier


def test_a_new_dependency_changes_the_conda_environment(tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pyproject.write_text(
        text.replace("\ndependencies = [", '\ndependencies = [\n    "new_thing>=1,<2",', 1), encoding="utf-8"
    )
    assert "\n  - new-thing>=1,<2\n" in environment.render(pyproject)


def test_the_lock_holds_every_dependency_at_an_allowed_version() -> None:
    pins = [requirement for requirement, _ in locked()]
    for wanted in WANTED:
        versions = [
            next(iter(pin.specifier)).version
            for pin in pins
            if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        ]
        assert versions, f"{wanted} is not in requirements.lock: run `make lock`"
        assert all(wanted.specifier.contains(one) for one in versions), (
            f"{wanted} is locked at {versions}: run `make lock`"
        )


def test_every_locked_package_is_pinned_and_hashed() -> None:
    for requirement, hashes in locked():
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert hashes > 0, requirement


def test_the_lock_serves_both_architectures_and_every_python_from_the_oldest_on() -> None:
    assert str(PROJECT["requires-python"]) == ">=3.11"
    for requirement, _ in locked():
        for machine in ("x86_64", "aarch64"):
            marks = {"sys_platform": "linux", "platform_machine": machine, "platform_python_implementation": "CPython"}
            serves = [
                requirement.marker is None
                or requirement.marker.evaluate(
                    marks | {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.{patch}"}
                )
                for minor in range(11, 15)
                for patch in (0, 9)
            ]
            assert any(serves), requirement


def test_the_lock_names_no_index_no_host_and_no_path() -> None:
    text = paths.lock_file().read_text(encoding="utf-8")
    assert not re.search(r"://|index|find-links|^-|^#|/", text, flags=re.MULTILINE)


def test_this_environment_is_the_locked_one() -> None:
    for requirement, _ in locked():
        if requirement.name in {wanted.name for wanted in WANTED} and (
            requirement.marker is None or requirement.marker.evaluate()
        ):
            assert requirement.specifier.contains(version(requirement.name)), "run `make setup`"
