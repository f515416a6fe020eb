"""`environment.yml` for conda users, rendered from `pyproject.toml`; ``python -m hakmem.environment`` writes it."""

import tomllib
from pathlib import Path

from hakmem import paths

__all__ = ["render"]

PIP_ONLY = ("selenium-axe-python",)  # conda's channels may lack them


def render(pyproject: Path) -> str:
    """Render the conda environment that a `pyproject.toml` asks for.

    Parameters
    ----------
    pyproject
        The file that lists the dependencies; nothing else does.

    Returns
    -------
    str
        YAML text: Python, every dependency of every extra (what conda may lack from pip), and the project itself
        from the checkout.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    wanted = sorted(set(project["dependencies"]).union(*project["optional-dependencies"].values()))
    from_pip = [requirement for requirement in wanted if requirement.startswith(PIP_ONLY)]
    lines = [
        "# Generated from pyproject.toml by `make generated`; a test fails on drift.",
        f"name: {project['name']}",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python{project['requires-python']}",
        "  - pip",
        # Conda's names have dashes where Python's may have underscores.
        *(f"  - {requirement.replace('_', '-')}" for requirement in wanted if requirement not in from_pip),
        "  - pip:",
        *(f"      - {requirement}" for requirement in from_pip),
        "      - --editable .",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (paths.root() / "environment.yml").write_text(render(paths.root() / "pyproject.toml"), encoding="utf-8")
