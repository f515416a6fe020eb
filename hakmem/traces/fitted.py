"""Generators fitted to what was measured: a fleet's published distribution, or a recorded trace."""

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hakmem.errors import BadTrace
from hakmem.traces import events, kernels, tables, trace
from hakmem.traces.generate import GENERATORS, PIECE, Endless, Generator, Stream, checked

LARGEST_SHARE = 16  # a size above a 16th of the heap is left out
LIFE_ONE = 2**22
LONGEST = 2**62
WHEEL = 1 << 16


@dataclass(frozen=True)
class Distribution:
    """A program's allocations by size.

    Attributes
    ----------
    sizes : array of int64
        Bytes, each once.
    rates : array of float64
        Allocations a second.
    live : array of float64
        Live objects on average.
    """

    sizes: npt.NDArray[np.int64]
    rates: npt.NDArray[np.float64]
    live: npt.NDArray[np.float64]


def read_distribution(path: Path) -> Distribution:
    """Read a table in the form of Fleetbench's: ``size, allocations a second, live objects``, one line a size.

    Raises
    ------
    BadTrace
        It cannot be read; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrace(f"cannot read the distribution {path}: {error}") from error
    rows: dict[int, tuple[float, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            size, rate, live = (float(field) for field in line.split(","))
        except ValueError as error:
            raise BadTrace(f"{path}, line {number}: {line!r} is no size, allocations a second, live objects") from error
        sane = size.is_integer() and 1 <= size <= events.MAX_SIZE and 0 < rate < 1e18 and 0 < live < 1e18
        if not sane or int(size) in rows:
            raise BadTrace(
                f"{path}, line {number}: {line!r}: sizes are whole numbers, each once, rates and counts above 0"
            )
        rows[int(size)] = (rate, live)
    if not rows:
        raise BadTrace(f"the distribution {path} is empty")
    sizes = np.array(sorted(rows), np.int64)
    return Distribution(sizes, *(np.array([rows[size][i] for size in sizes.tolist()]) for i in (0, 1)))


class Fleet(Endless):
    """A stationary birth-death process after a fleet's distribution, as Fleetbench publishes them for ten programs.

    Births of each size come at its rate; by Little's law a live block of it dies at rate / live. Live counts and rates
    are scaled so that the live bytes come to `heap`; sizes above a 16th of it are left out, and the header says what
    share they had. The trace starts with the live set of the steady state, in random order. Births are a Poisson
    process and lives exponential: the further births that a block sees are drawn from a geometric distribution, whose
    mean is the live count over the size's share of the births (births see time averages: Wolff, 1982).
    """

    version: ClassVar[int] = 2
    distribution: Annotated[Path, Field(description="CSV file: size, allocations a second, live objects")]
    heap: Annotated[int, Field(ge=2**16, le=2**40, description="live bytes on average")] = 64 << 20

    @cached_property
    def _fit(self) -> tuple[Distribution, float]:
        """Return what is kept of the distribution, and the scale of its counts."""
        given = read_distribution(self.distribution)
        kept = given.sizes <= self.heap // LARGEST_SHARE
        if not kept.any():
            raise BadTrace(f"{self.distribution}: all sizes are above a {LARGEST_SHARE}th of heap={self.heap}")
        rest = Distribution(given.sizes[kept], given.rates[kept], given.live[kept])
        return rest, self.heap / math.fsum((rest.sizes * rest.live).tolist())

    def expected(self) -> tuple[Distribution, npt.NDArray[np.float64]]:
        """Return the part of the distribution that is kept, and the mean number of live blocks of each size."""
        kept, scale = self._fit
        return kept, kept.live * scale

    def notes(self) -> dict[str, Any]:
        """Return what the header tells about the fit."""
        given, (kept, scale) = read_distribution(self.distribution), self._fit
        bytes_in_all = math.fsum((given.sizes * given.live).tolist())
        return {
            "distribution": self.distribution.name,
            "sha256": hashlib.sha256(self.distribution.read_bytes()).hexdigest(),
            "scale": scale,
            "sizes_left_out": len(given.sizes) - len(kept.sizes),
            "share_of_allocations_left_out": 1 - math.fsum(kept.rates.tolist()) / math.fsum(given.rates.tolist()),
            "share_of_bytes_left_out": 1 - math.fsum((kept.sizes * kept.live).tolist()) / bytes_in_all,
        }

    def stream(self) -> Stream:
        """Set the kernel up."""
        kept, mean = self.expected()
        rng = self.rng()
        weights = [max(1, int(rate * 2**40)) for rate in (kept.rates / kept.rates.max()).tolist()]
        births = tables.table(weights, list(range(len(weights))), [1] * len(weights))
        total = math.fsum(mean.tolist())
        slots = trace.fitting(int(total + 10 * math.sqrt(total)) + 64)
        start = np.repeat(np.arange(len(mean)), [_whole(number, rng) for number in mean.tolist()])
        kernels.shuffle(start, rng)
        s = np.array([0, slots, 0, -1, 0, 0], np.int64)
        given = (s, rng, births, start, kept.sizes, _lives(kept, mean), tables.exponential(kernels.EXPONENTIAL_CELLS))
        wheel = _wheel(slots, 2 << slots.bit_length())

        def fill(out: npt.NDArray[np.uint64]) -> int:
            made = int(kernels.fleet(out, *given, *wheel))
            if made < 0:
                raise BadTrace("fleet: ten standard deviations above the mean of the live blocks")
            return made

        return self.endless(fill, slots, start=len(start) + self.events // 10 if self.warm is None else len(start))


def _whole(mean: float, rng: npt.NDArray[np.uint64]) -> int:
    """Round up or down at random, so that the mean is kept."""
    return int(mean) + int(kernels.below(rng, 2**32) < (mean - int(mean)) * 2**32)


def _lives(kept: Distribution, mean: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return, by size, the mean of the exponential distribution that rounds down to the births a block sees (2^-22).

    Of a geometric distribution with mean m the tail is ``(m / (m + 1)) ** g``, so that mean is ``1 / log(1 + 1 / m)``.
    """
    with localcontext(prec=tables.PRECISION):
        total = sum(map(Decimal, kept.rates.tolist()))
        seen = [
            Decimal(live) * total / Decimal(rate) for live, rate in zip(mean.tolist(), kept.rates.tolist(), strict=True)
        ]
        return np.array([min(int(LIFE_ONE / (1 + 1 / m).ln()), LONGEST) for m in seen], np.int64)


def _wheel(slots: int, places: int) -> tuple[npt.NDArray[np.int32], ...]:
    """Return an empty wheel of deaths for so many blocks, and the free slots."""
    return (
        np.full(places, -1, np.int32),
        np.full((slots, 2), -1, np.int32),
        np.arange(slots, dtype=np.int32)[::-1].copy(),
    )


class Empirical(Endless):
    """Sizes and lifetimes drawn together from the joint histogram of a recorded trace, as many events as asked for.

    Lifetimes count allocations of the whole program, as those of the histogram do; blocks that never died there never
    die here. Order in time beyond that, and threads, are lost.
    """

    source: Annotated[Path, Field(description="trace to learn from")]

    def stream(self) -> Stream:
        """Set the kernel up."""
        learned = trace.read(self.source)
        joint = events.shape(learned.events, learned.header.slots, points=1).joint
        if not joint.any():
            raise BadTrace(f"{self.source} allocates nothing")
        size, life = np.nonzero(joint)
        lows = events.bucket_lows()
        widths = np.diff(lows)
        counts = joint[size, life]
        cells = tables.table(counts.tolist(), lows[size].tolist(), widths[size].tolist())
        dies = life < events.BUCKETS
        ends = np.where(dies, life, 0)
        lives = np.stack([lows[ends], np.where(dies, widths[ends], 0)], axis=1)
        share = counts / counts.sum()
        lasting = math.fsum((share * np.where(dies, lives[:, 0] + lives[:, 1] / 2, self.events)).tolist())
        slots = trace.fitting(
            min(self.events, int(3 * lasting) + 10_000) + PIECE
        )  # the last piece may run over the end
        s, rng = np.array([0, slots, 0, -1, 0], np.int64), self.rng()
        wheel = _wheel(slots, WHEEL)

        def fill(out: npt.NDArray[np.uint64]) -> int:
            made = int(kernels.empirical(out, s, rng, cells, lives, *wheel))
            if made < len(out):
                raise BadTrace(f"empirical: more than {slots} live blocks, three times what was expected")
            return made

        return self.endless(fill, slots)


ALL: dict[str, type[Generator]] = {**GENERATORS, "empirical": Empirical, "fleet": Fleet}


def generator(name: str, parameters: dict[str, Any]) -> tuple[Generator, dict[str, Any]]:
    """Check the parameters of any generator; return it, and notes for the header.

    Raises
    ------
    BadTrace
        As `hakmem.traces.generate.checked` does.
    """
    of = checked(name, parameters, ALL)
    return of, of.notes() if isinstance(of, Fleet) else {}
