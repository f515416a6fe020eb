"""Units: the largest one that a figure fills."""

import pytest

from hakmem import units


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0 B"), (37.5, "37.5 B"), (1023, "1,023 B"), (3 * 2**20, "3 MiB"), (5 * 2**30, "5 GiB")]
)
def test_bytes(value: float, said: str) -> None:
    assert units.words(value, units.BYTES) == said


@pytest.mark.parametrize(("value", "said"), [(999, "999"), (3000, "3k"), (2.5e6, "2.5M"), (1e9, "1G")])
def test_counts(value: float, said: str) -> None:
    assert units.words(value, units.COUNTS) == said


@pytest.mark.parametrize(("value", "unit"), [(37.5, "ops/s"), (1e3, "kops/s"), (115e6, "Mops/s"), (0, "ops/s")])
def test_rates(value: float, unit: str) -> None:
    assert units.fitting(value, units.RATES)[1] == unit
