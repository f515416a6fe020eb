import inspect
import re

import pytest

from hakmem import errors
from hakmem.errors import BadGate, HakmemError, did_you_mean

LEAVES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, HakmemError) and cls is not HakmemError
]


def drawn() -> dict[str, tuple[int, int | None]]:
    """Depth and exit status of every class in the tree of the module's docstring."""
    tree = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)\s+(\d+)?", line):
            tree[found[2]] = (len(found[1]) // 4, int(found[3]) if found[3] else None)
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    tree = drawn()
    assert set(tree) == {"HakmemError", *(cls.__name__ for cls in LEAVES)}
    for cls in [HakmemError, *LEAVES]:
        depth, status = tree[cls.__name__]
        assert depth == cls.__mro__.index(HakmemError)
        assert cls.exit_code == status if status is not None else cls.exit_code == cls.__mro__[1].exit_code


def test_exit_statuses_tell_the_branches_apart_and_are_no_success() -> None:
    branches = [HakmemError, *(cls for cls in LEAVES if cls.__mro__[1] is HakmemError)]
    statuses = [cls.exit_code for cls in branches]
    assert len(set(statuses)) == len(statuses)
    assert 0 not in statuses


def test_a_bad_gate_is_caught_as_bad_input() -> None:
    with pytest.raises(errors.BadInput, match="no such gate"):
        raise BadGate("no such gate")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("decomit", " (did you mean decommit?)"),
        ("DECOMMIT", " (did you mean decommit?)"),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_a_typo_finds_the_name_that_was_meant(given: str, hint: str) -> None:
    assert did_you_mean(given, ["decommit", "target_mb", "lean"]) == hint
