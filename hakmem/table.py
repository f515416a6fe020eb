"""A table on a page: figures as people read them, in units that fit."""

import html
import math
from typing import Any

import numpy as np
import pandas as pd

from hakmem import units
from hakmem.units import RATE

__all__ = ["table_html"]

VAST = 1e15  # beyond lies an end of an interval that too few blocks leave open


def table_html(table: pd.DataFrame, label: str) -> str:
    """Write a frame as an escaped HTML table that scrolls by itself where the screen is narrow."""
    table = _fitted(table)
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in table.columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _fitted(table: pd.DataFrame) -> pd.DataFrame:
    """Give throughput, held in Mops/s, in the largest unit of which each figure is at least a tenth."""
    names = [name for name in table.columns if RATE in str(name) and pd.api.types.is_numeric_dtype(table[name])]
    rates = table[names].abs()
    least = rates[(rates > 0) & (rates < VAST)].min().min()
    scale, unit = units.fitting(1e7 * least, units.RATES)
    if unit == RATE or not least > 0:
        return table
    told = table[names] * (1e6 / scale)
    return table.assign(**told).rename(columns={name: name.replace(RATE, unit) for name in names})


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float) and abs(value) > VAST:
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int | np.integer) or (isinstance(value, float) and abs(value) >= 999.95):
        return f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
