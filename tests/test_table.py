"""Tables: figures as people read them."""

import numpy as np
import pandas as pd
import pytest

from hakmem.table import table_html


def cells(*values: object, name: str = "a") -> list[str]:
    text = table_html(pd.DataFrame({name: pd.Series(values)}), "label")
    return [part.split("</td>")[0] for part in text.split("<td>")[1:]]


def test_missing_figures_are_a_dash_and_text_is_escaped() -> None:
    text = table_html(pd.DataFrame({"a": [1.5, float("nan")], "b": ["<b>", None]}), 'a "label"')
    assert "–" in text and "&lt;b&gt;" in text and "<b>" not in text and "a &quot;label&quot;" in text


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234567, "1,234,567"), (np.int64(4096), "4,096"), (12345678.9, "12,345,679"), (999.96, "1,000"), (0.5, "0.5")]
    + [(5e-9, "5e-09"), (1e300, "∞"), (-1e300, "-∞"), (True, "yes"), ("2026", "2026"), (123.456, "123.5")],
)
def test_figures_have_thousands_separators_and_four_digits(value: object, said: str) -> None:
    assert cells(value) == [said]


@pytest.mark.parametrize(
    ("mops", "unit", "said"),
    [
        ([118.2, 20.0], "Mops/s", ["118.2", "20"]),
        ([0.25, 118.2], "Mops/s", ["0.25", "118.2"]),
        ([0.0375, 0.004], "kops/s", ["37.5", "4"]),
        ([3.75e-5, 118.2], "ops/s", ["37.5", "118,200,000"]),
        ([None, 3.75e-5], "ops/s", ["–", "37.5"]),
        ([None, None], "Mops/s", ["–", "–"]),
    ],
)
def test_throughput_has_the_unit_that_fits_its_column(mops: list[float], unit: str, said: list[str]) -> None:
    text = table_html(pd.DataFrame({"Mops/s low": pd.Series(mops, dtype=float)}), "label")
    assert f">{unit} low</th>" in text and cells(*pd.Series(mops, dtype=float), name="Mops/s low") == said
