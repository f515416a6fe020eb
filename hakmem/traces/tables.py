"""Sampling tables made of integers: the same draws on every machine, whatever its libm does.

Weights are computed in decimal arithmetic, whose exponential and logarithm are rounded correctly everywhere, and end as
integers; the kernels then only compare and shift. A draw picks a cell by Walker's alias method (as Vose, 1991, builds
the table) and then a whole number evenly from the cell.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hakmem.traces import events

PRECISION = 30
WEIGHT_ONE = Decimal(2**62)
EXACT_RANKS = 256
EXPONENTIAL_ONE = 2**58
RANKS_A_GROUP = 64  # beyond the exact ranks a group spans one 64th of its rank


class Table(NamedTuple):
    """A table to draw whole numbers from; all arrays have the shape ``(cells,)``.

    Attributes
    ----------
    threshold : array of uint64
        A cell is taken as it is if 32 random bits are below its threshold, else its alias is.
    alias : array of int64
    low, width : array of int64
        A cell stands for the numbers ``low .. low + width - 1``.
    """

    threshold: npt.NDArray[np.uint64]
    alias: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    width: npt.NDArray[np.int64]


def table(weights: Sequence[int], low: Sequence[int], width: Sequence[int]) -> Table:
    """Build a table; a cell's share is its integer weight over the sum of all, exact to 2^-32 of a cell."""
    count, total = len(weights), sum(weights)
    rest = [weight * count for weight in weights]
    threshold, alias = [2**32] * count, list(range(count))
    small = [cell for cell in range(count) if rest[cell] < total]
    large = [cell for cell in range(count) if rest[cell] >= total]
    while small and large:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = (rest[poor] << 32) // total, rich
        rest[rich] -= total - rest[poor]
        if rest[rich] < total:
            small.append(large.pop())
    arrays: tuple[Any, ...] = (np.array(alias), np.array(low), np.array(width))
    return Table(np.array(threshold, np.uint64), *(array.astype(np.int64) for array in arrays))


def even(low: int, high: int) -> Table:
    """Whole numbers from `low` to `high`, both included, all equally likely."""
    return table([1], [low], [high - low + 1])


def lognormal(median: int, sigma: float, low: int, high: int) -> Table:
    """Whole numbers whose logarithm is normally distributed, cut off outside ``low..high``.

    Parameters
    ----------
    median : int
        Of the distribution before it is cut off.
    sigma : float
        Standard deviation of the natural logarithm.
    low, high : int
        Smallest and largest number.
    """
    edges = events.bucket_lows().tolist()
    cells = [(max(a, low), min(b, high + 1)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    cells = [(a, b) for a, b in cells if a < b and b > 1]
    weights = []
    with localcontext(prec=PRECISION):
        centre, spread = Decimal(median).ln(), Decimal(repr(sigma))
        for a, b in cells:
            middle = Decimal(max(a, 1) + b - 1) / 2  # numbers a .. b-1: their mean
            z = (middle.ln() - centre) / spread
            weights.append(int((-z * z / 2).exp() * (b - a) / middle * WEIGHT_ONE))
    kept = [(weight, a, b - a) for weight, (a, b) in zip(weights, cells, strict=True) if weight]
    return table(*(list(column) for column in zip(*kept, strict=True)))


def zipf(count: int, exponent: float) -> Table:
    """Ranks ``0 .. count - 1``; rank r is drawn with a weight of ``(r + 1) ** -exponent``.

    The first 256 ranks are exact; beyond, ranks form groups of a 64th of their rank with one weight.
    """
    weights, low, width = [], [], []
    rank = 1
    with localcontext(prec=PRECISION):
        power = Decimal(repr(exponent))
        while rank <= count:
            span = 1 if rank <= EXACT_RANKS else min(rank // RANKS_A_GROUP, count + 1 - rank)
            middle = rank + Decimal(span - 1) / 2
            weights.append(max(1, int((-power * middle.ln()).exp() * span * WEIGHT_ONE)))
            low.append(rank - 1)
            width.append(span)
            rank += span
    return table(weights, low, width)


def exponential(cells: int) -> npt.NDArray[np.uint64]:
    """Edges of cells of equal probability of the exponential distribution with a mean of 1, in units of 2^-58.

    The last 64th of the distribution has none: it has no memory, whoever comes there begins anew.
    """
    with localcontext(prec=PRECISION):
        kept = range(cells - cells // 64 + 1)
        return np.array([int(-(1 - Decimal(cell) / cells).ln() * EXPONENTIAL_ONE) for cell in kept], np.uint64)
