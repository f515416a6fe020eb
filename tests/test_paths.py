from pathlib import Path

import pytest

from hakmem import paths
from hakmem.errors import MissingTool

HERE = Path(__file__).resolve().parent.parent


def test_the_root_is_this_checkout_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.root() == HERE


def test_everything_hangs_from_the_root() -> None:
    for place in (
        paths.native,
        paths.gates_def,
        paths.notebooks,
        paths.build,
        paths.reports,
        paths.runs,
        paths.traces,
        paths.reference,
        paths.lock_file,
    ):
        assert place().is_relative_to(HERE)
    assert paths.gates_def().is_file()
    assert paths.lock_file().is_file()
    assert (paths.reference() / "user_figures.csv").is_file()


def test_an_installed_package_takes_the_checkout_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "hakmem" / "paths.py"))
    checkout = tmp_path / "checkout"
    (checkout / "native" / "src").mkdir(parents=True)
    (checkout / "native" / "src" / "gates.def").touch()
    (checkout / "notebooks").mkdir()
    monkeypatch.chdir(checkout / "notebooks")
    assert paths.root() == checkout


def test_no_checkout_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "hakmem" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingTool, match=f"no checkout of hakmem around {tmp_path}: clone"):
        paths.root()
