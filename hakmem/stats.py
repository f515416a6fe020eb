"""Statistics of a study: paired within blocks, replicated over blocks, never over samples inside one run.

Pure functions of arrays and of the ledger's rows; nothing here reads a file or a clock. Ratios live on the log scale,
where a gain and the loss that undoes it are equally far from 0; `Interval.percent` turns them into the figures people
read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # its parts are loaded when they are first used

Array = npt.NDArray[np.float64]

BASELINE, BASELINE2 = "A", "A'"
RESAMPLES = 4999
TAIL = 10  # resamples beyond an end of a bootstrap interval, or its ends are those of the resamples
BCA_FROM = 25  # below this many blocks BCa covers too little (83 % at 5, 93 % at 20); the t interval holds its level
EXACT_FLIPS = 15  # up to 2^15 sign patterns are enumerated, beyond they are drawn
POWER = 0.90
NOWHERE = 1e300  # beyond lies an end that a single block leaves open
TELLING = 1000.0  # percent, or KiB: an interval as wide tells nothing
POINT_COLUMNS = ("arm", "memory", "memory_low", "memory_high", "speed", "speed_low", "speed_high", "n")
SHARE_COLUMNS = ("share", "low", "high", "lead", "lead_low", "lead_high", "n")


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `n` counts blocks (or points of a series)."""

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: int

    def percent(self) -> Interval:
        """Return the same interval as a change in percent, for an interval of log ratios."""
        low, mid, high = (100.0 * math.expm1(min(x, 700.0)) for x in (self.low, self.estimate, self.high))
        return Interval(mid, low, high, self.level, self.method, self.n)

    def exp(self) -> Interval:
        """Return the same interval on the natural scale, for an interval of logs."""
        low, mid, high = (math.exp(min(x, 700.0)) for x in (self.low, self.estimate, self.high))
        return Interval(mid, low, high, self.level, self.method, self.n)

    def words(self, unit: str = "%") -> str:
        """Say ``+1.2 % (-0.3 to +2.7)``; the ends of an interval over too few blocks say nothing."""
        if math.isnan(self.estimate):
            return "not measured"
        bounded = self.high - self.low < TELLING
        ends = f"{self.low:+.1f} to {self.high:+.1f}" if bounded else "interval unbounded: too few blocks"
        return f"{self.estimate:+.1f} {unit} ({ends})"

    def below(self, line: float) -> bool | None:
        """Tell whether the interval lies below `line`; False where it lies above, None where it cannot be told."""
        return True if self.high < line else False if self.low > line else None


# ---- rows to paired figures ------------------------------------------------------------------------------------------


def usable(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the rows that enter the estimates: trials that ended well and that nothing spoiled.

    Where an arm would be left with fewer than two such trials of a workload (a machine that is never quiet), the
    spoiled ones of that workload count after all: wide intervals tell more than none.
    """
    ended = rows["status"] == "ok"
    good = ended & ~spoiled(rows)
    if good.equals(ended):
        return rows[ended]
    arms = [rows[name] for name in ("host", "workload", "arm", "role")]
    fewest = good.groupby(arms).transform("sum").groupby(arms[:2]).transform("min")
    return rows[ended & (good | (fewest < 2))]


def spoiled(rows: pd.DataFrame) -> pd.Series:
    """Tell which trials something spoiled."""
    return rows["spoiled"].map(lambda reasons: reasons is not None and len(reasons) > 0).astype(bool)


def keys(rows: pd.DataFrame) -> pd.Series:
    """Name the arm of each row as `wide` does: its label, the two baselines `A` and `A'`."""
    return rows["arm"].mask(rows["role"] == "baseline", BASELINE).mask(rows["role"] == "baseline2", BASELINE2)


def wide(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Arrange rows as one line a block, one column an arm.

    Parameters
    ----------
    rows : DataFrame
        Trials of one workload.
    metric : str
        A positive column, such as `ops_per_s` or `peak_rss_mb`.

    Returns
    -------
    DataFrame
        Index (host, block, layout), where layout is -1 unless several were compared; columns are arm labels, the two
        baselines under `A` and `A'`. A missing trial is NaN.
    """
    good = usable(rows)
    good = good[good[metric].astype(float) > 0]
    block = [good["host"], good["block"]]
    # All arms of a block stand in one line, those that have no layouts too.
    layout = good["layout"].groupby(block).transform("max").fillna(-1).astype(int) if "layout" in good else -1
    keyed = pd.DataFrame(
        {
            "host": block[0],
            "block": block[1],
            "layout": layout,
            "arm": keys(good),
            "log": np.log(good[metric].astype(float)),
        }
    )
    return keyed.groupby(["host", "block", "layout", "arm"])["log"].mean().map(math.exp).unstack("arm")


def hosts_as_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """Make one study of what several hosts measured: their names joined, and a number of its own for each's blocks.

    Arms are then still compared within blocks only, hence within hosts: the host is a blocking factor, and no figure
    of one host ever meets one of another.
    """
    hosts = sorted(rows["host"].unique())
    if len(hosts) < 2:
        return rows
    return rows.assign(host=" + ".join(hosts), block=rows.groupby(["host", "block"], sort=False).ngroup())


def log_ratios(table: pd.DataFrame, arm: str, baseline: str = BASELINE) -> Array:
    """Take the log of arm over baseline, one figure for each block (or layout) that has both; `table` is of `wide`."""
    return over_layouts(_paired_logs(table, arm, baseline))


def _paired_logs(table: pd.DataFrame, arm: str, baseline: str) -> pd.Series:
    if arm not in table or baseline not in table:
        return pd.Series(dtype=float)
    ratio = (table[arm] / table[baseline]).dropna().astype(float)
    return pd.Series(np.log(ratio.to_numpy()), index=ratio.index)


def over_layouts(x: pd.Series) -> Array:
    """Take one figure for each layout, the mean of its blocks, where several were compared; else one for each block.

    A layout is drawn at random and kept for several blocks: it is the unit that intervals count, or the luck of a few
    layouts would pass for an effect.
    """
    if x.empty or (x.index.get_level_values("layout") < 0).any():
        return x.to_numpy(dtype=np.float64)
    return np.asarray(x.groupby(level=["host", "layout"]).mean().to_numpy(dtype=np.float64))


@dataclass(frozen=True)
class LayoutSpread:
    """How far the log ratio of an arm moves from layout to layout, beside its noise within one.

    `layout_sd` and `noise_sd` are standard deviations of the two, `p` the F test's of "layouts make no difference".
    """

    layouts: int
    layout_sd: float
    noise_sd: float
    p: float


def layout_spread(table: pd.DataFrame, arm: str, baseline: str = BASELINE) -> LayoutSpread | None:
    """Part the variance of an arm's log ratios into that of layouts and that of blocks within one layout.

    One-way random effects by the method of moments, unequal numbers of blocks allowed (Searle, Casella and McCulloch
    1992, 3.6). None without several layouts that have several blocks.
    """
    x = _paired_logs(table, arm, baseline)
    if x.empty or (x.index.get_level_values("layout") < 0).any():
        return None
    groups = x.groupby(level=["host", "layout"])
    n, k = groups.size().to_numpy(), groups.ngroups
    if k < 2 or x.size == k:
        return None
    within = float(((x - groups.transform("mean")) ** 2).sum()) / (x.size - k)
    between = float((n * (groups.mean() - x.mean()) ** 2).sum()) / (k - 1)
    size = (x.size - float((n**2).sum()) / x.size) / (k - 1)
    p = float(scipy.stats.f.sf(between / within, k - 1, x.size - k)) if within > 0 else 0.0
    return LayoutSpread(k, math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within), p)


# ---- intervals and tests ---------------------------------------------------------------------------------------------


def t_interval(x: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of `x`, shape (n,); infinite for one block, whose width nobody knows."""
    x = np.asarray(x, dtype=float)
    if x.size < 2:
        mid = float(x[0]) if x.size else math.nan
        return Interval(mid, -math.inf, math.inf, level, "t", x.size)
    half = float(scipy.stats.t.ppf(0.5 + level / 2, x.size - 1)) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, level, "t", x.size)


def bca_interval(x: npt.ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 1) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean of `x`, shape (n,) (Efron 1987)."""
    x = np.asarray(x, dtype=float)
    if np.ptp(x) == 0:
        return Interval(float(x[0]), float(x[0]), float(x[0]), level, "BCa", x.size)
    means = np.sort(np.einsum("ij,j->i", _resamples(x.size, resamples, seed), x))
    below = (np.searchsorted(means, x.mean()) + np.searchsorted(means, x.mean(), side="right")) / 2
    bias = scipy.special.ndtri(below / resamples)
    apart = x - x.mean()  # the jackknife's means differ by as much, scaled
    bend = (apart**3).sum() / (apart**2).sum() ** 1.5 / 6
    tail = (1 - expanded(level, x.size)) / 2
    z = bias + scipy.special.ndtri([tail, 1 - tail])
    low, high = np.quantile(means, scipy.special.ndtr(bias + z / (1 - bend * z)))
    return Interval(float(x.mean()), float(low), float(high), level, "BCa", x.size)


@functools.lru_cache(maxsize=4)  # the arms of a study have as many blocks each
def _resamples(n: int, resamples: int, seed: int) -> Array:
    """Weights of n values in each resample with replacement, shape (resamples, n)."""
    drawn = np.random.default_rng(seed).integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n) / n


def expanded(level: float, n: int) -> float:
    """Find the level to ask of a bootstrap over n values so that it covers `level`.

    Resamples spread too little by sqrt((n-1)/n), and normal quantiles stand where t quantiles should (Hesterberg 2015,
    expanded percentile interval).
    """
    wide = float(scipy.stats.t.ppf(0.5 + level / 2, n - 1)) * math.sqrt(n / (n - 1))
    return float(2 * scipy.stats.norm.cdf(wide) - 1)


def interval(x: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Make the interval this workbench reports: t for few blocks, BCa from 25 on.

    An early look, or Holm's first of many arms, asks for a level that resamples do not reach: t again.
    """
    reached = (1 - level) / 2 * RESAMPLES >= TAIL
    return bca_interval(x, level) if np.size(x) >= BCA_FROM and reached else t_interval(x, level)


def permutation_p(x: npt.ArrayLike, draws: int = 20_000, seed: int = 1) -> float:
    """Two-sided p value of "the paired differences `x` are symmetric around 0", by flipping signs.

    Exact up to 15 blocks; beyond, Monte Carlo with the observed pattern counted in (so that p is never 0).
    """
    x = np.asarray(x, dtype=float)
    exact = x.size <= EXACT_FLIPS
    rounding = 1e-12 * float(np.abs(x).sum())  # of sums that are alike but for the order of their terms
    sums = np.einsum("ij,j->i", _flips(x.size, 0 if exact else draws, seed), x)  # `@` would wake a thread a core
    beyond = np.abs(sums) >= abs(x.sum()) - rounding
    return float(beyond.mean()) if exact else float((1 + beyond.sum()) / (1 + draws))


@functools.lru_cache(maxsize=4)  # the arms of a study have as many blocks each
def _flips(n: int, draws: int, seed: int) -> Array:
    """Patterns of signs, shape (patterns, n): so many drawn, or all of them for 0."""
    if draws:
        return np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, n))
    return np.asarray(1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), dtype=np.float64)


def hodges_lehmann(x: npt.ArrayLike) -> float:
    """Median of all pairwise means (Walsh averages) of `x`: a centre that one wild block does not move."""
    x = np.asarray(x, dtype=float)
    if x.size == 0:
        return math.nan
    i, j = np.triu_indices(x.size)
    return float(np.median((x[i] + x[j]) / 2))


def cv(x: npt.ArrayLike) -> float:
    """Coefficient of variation, as a fraction; NaN for fewer than two values."""
    x = np.asarray(x, dtype=float)
    return float(x.std(ddof=1) / x.mean()) if x.size > 1 else math.nan


def p_beyond(x: npt.ArrayLike, line: float) -> float:
    """Two-sided p value of "the mean of `x` is `line`" (t test); 1 where fewer than two blocks tell nothing."""
    x = np.asarray(x, dtype=float)
    if x.size < 2:
        return 1.0
    error = float(x.std(ddof=1)) / math.sqrt(x.size)
    if error == 0:
        return 1.0 if x.mean() == line else 0.0
    return float(2 * scipy.stats.t.sf(abs(float(x.mean()) - line) / error, x.size - 1))


def holm_levels(p: npt.ArrayLike, alpha: float = 0.05) -> Array:
    """Confidence level for each of several intervals so that deciding by them is Holm's procedure (Holm 1979).

    The smallest p is held against alpha/m, the next against alpha/(m-1), and so on; from the first that fails on, all
    keep its level.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    share = alpha / (p.size - np.arange(p.size))
    failed = np.flatnonzero(p[order] > share)
    if failed.size:
        share[failed[0] :] = share[failed[0]]
    levels = np.empty_like(p)
    levels[order] = 1 - share
    return levels


def noise_floor(table: pd.DataFrame) -> float:
    """A/A floor: |mean log ratio| of the second baseline to the first; NaN where A' was not measured."""
    x = log_ratios(table, BASELINE2)
    return abs(float(x.mean())) if x.size else math.nan


# ---- planning --------------------------------------------------------------------------------------------------------


def blocks_needed(
    sd: float, distance: float, alpha: float = 0.05, power: float = POWER, most: int = 100_000
) -> int | None:
    """Count the blocks after which a two-sided interval clears a line that decides, with the given power.

    Parameters
    ----------
    sd : float
        Standard deviation of the paired log ratios.
    distance : float
        Between the true effect and that line, on the log scale.
    alpha : float
        One minus the level of the interval.
    power : float
        Probability that the interval clears the line.
    most : int
        Bound on the answer.

    Returns
    -------
    int or None
        None where more than `most` blocks would be needed, which is to say: more blocks will not settle it.
    """
    if sd == 0 and distance != 0:
        return 2
    if not (math.isfinite(sd) and distance) or sd / abs(distance) > math.sqrt(most) / 3:
        return None
    effect = abs(distance) / sd

    def lacks(n: int) -> bool:
        return bool(scipy.stats.nct.sf(scipy.stats.t.ppf(1 - alpha / 2, n - 1), n - 1, effect * math.sqrt(n)) < power)

    n = max(2, math.ceil((float(scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power)) / effect) ** 2))
    while lacks(n):
        n += 1
    return n


def spent_alpha(information: float, alpha: float = 0.05) -> float:
    """Two-sided error spent once a share (0..1] of the blocks is in; O'Brien-Fleming-like (Lan and DeMets 1983)."""
    return float(4 * scipy.stats.norm.sf(scipy.stats.norm.ppf(1 - alpha / 4) / math.sqrt(information)))


def nominal_alphas(looks: Sequence[float], alpha: float = 0.05, points: int = 601) -> list[float]:
    """Find the level of each of several looks at growing data so that all together err at most `alpha`.

    Parameters
    ----------
    looks : sequence of float
        Growing shares of the planned blocks, e.g. (0.25, 0.5, 1.0).

    Notes
    -----
    Follows the score process (a Brownian motion) from look to look and finds each boundary so that exactly the
    increment of `spent_alpha` crosses there (Armitage, McPherson and Rowe 1969).
    """
    if any(not 0 < t <= 1 for t in looks) or list(looks) != sorted(set(looks)):
        raise ValueError(f"looks must grow within (0, 1], given {list(looks)}")
    before, spent, levels = 0.0, 0.0, []
    grid, mass = (
        np.zeros(1),
        np.ones(1),
    )  # where the process stands among the studies that have not crossed, with weights

    def excess(edge: float, grid: Array, mass: Array, step: float, due: float) -> float:
        below, above = scipy.special.ndtr([(-edge - grid) / step, (grid - edge) / step])
        return float(mass @ (below + above)) - due

    for t in looks:
        step, due = math.sqrt(t - before), max(spent_alpha(t, alpha) - spent, 1e-15)
        edge = float(scipy.optimize.brentq(excess, 0.0, 9.0 * math.sqrt(t), args=(grid, mass, step, due)))
        levels.append(float(2 * scipy.stats.norm.sf(edge / math.sqrt(t))))
        fine = np.linspace(-edge, edge, points)
        weight = np.full(points, fine[1] - fine[0])
        weight[[0, -1]] /= 2
        mass = weight * (scipy.stats.norm.pdf((fine[:, None] - grid) / step) / step @ mass)
        grid, before, spent = fine, t, spent_alpha(t, alpha)
    return levels


# ---- drift -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """How memory moves while the work stays the same: slope in KiB/s, medians of the first and the last window."""

    slope: Interval
    first_kb: float
    last_kb: float

    @property
    def is_zero(self) -> bool:
        """The slope's interval includes 0, and the last window differs from the first by at most max(1 %, 64 KiB)."""
        return self.slope.low <= 0 <= self.slope.high and self.windows_agree

    @property
    def windows_agree(self) -> bool:
        """Tell whether the last window differs from the first by at most max(1 %, 64 KiB)."""
        return abs(self.last_kb - self.first_kb) <= max(0.01 * self.first_kb, 64)

    @property
    def change_kb(self) -> float:
        """Last window less the first, in KiB."""
        return self.last_kb - self.first_kb


def theil_sen(t: npt.ArrayLike, y: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Median of all pairwise slopes of y over t, with Sen's interval (Sen 1968)."""
    t, y = np.asarray(t, dtype=float), np.asarray(y, dtype=float)
    if t.size < 2:
        raise ValueError(f"a slope needs at least two points, given {t.size}")
    found = scipy.stats.theilslopes(y, t, alpha=level)
    return Interval(float(found[0]), float(found[2]), float(found[3]), level, "Theil-Sen", t.size)


def drift(t_s: npt.ArrayLike, rss_kb: npt.ArrayLike, level: float = 0.95, window: float = 0.2) -> Drift:
    """Drift of one long run: points (seconds, KiB); the windows are the first and the last fifth."""
    t, y = np.asarray(t_s, dtype=float), np.asarray(rss_kb, dtype=float)
    k = max(1, round(window * t.size))
    return Drift(theil_sen(t, y, level), float(np.median(y[:k])), float(np.median(y[-k:])))


def pooled_drift(drifts: Sequence[Drift], level: float = 0.95) -> Drift:
    """Drift of an arm from several trials: t interval of the trials' slopes (a trial is the unit)."""
    slope = t_interval([d.slope.estimate for d in drifts], level)
    return Drift(slope, float(np.median([d.first_kb for d in drifts])), float(np.median([d.last_kb for d in drifts])))


# ---- memory against speed --------------------------------------------------------------------------------------------


def frontier(rows: pd.DataFrame, memory: str, speed: str = "mops", level: float = 0.95) -> pd.DataFrame:
    """Every arm of one workload as a point with a joint error cross, and where it stands against the others.

    Parameters
    ----------
    rows : DataFrame
        Trials of one workload on one host.
    memory, speed : str
        Columns; memory is better low, speed better high.

    Returns
    -------
    DataFrame
        Index arm; columns memory, memory_low, memory_high, speed, speed_low, speed_high, n, frontier, dominated_by. The
        cross holds jointly at `level` (each side at 1 - (1 - level)/2, Bonferroni). `frontier`: no other point is as
        good in both. `dominated_by`: an arm at least as good in both, and better beyond the crosses in one; else an
        empty string.
    """
    side = 1 - (1 - level) / 2
    low_is_better, high_is_better = wide(rows, memory), wide(rows, speed)
    records = []
    for arm in low_is_better.columns.intersection(high_is_better.columns):
        m = interval(over_layouts(np.log(low_is_better[arm].dropna())), side).exp()
        s = interval(over_layouts(np.log(high_is_better[arm].dropna())), side).exp()
        records.append(
            {"arm": arm, "memory": m.estimate, "memory_low": m.low, "memory_high": m.high}
            | {"speed": s.estimate, "speed_low": s.low, "speed_high": s.high, "n": s.n}
        )
    points = pd.DataFrame(records, columns=POINT_COLUMNS).set_index("arm")
    better, surely = _dominance(points)
    fastest = np.where(surely, points["speed"], -np.inf).argmax(axis=1) if len(points) else []
    beaten = np.where(surely.any(axis=1), points.index.astype(object)[fastest], "")
    return points.assign(frontier=~np.any(better, axis=1), dominated_by=beaten)


def _dominance(points: pd.DataFrame) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which points (columns) are at least as good in both as which (lines) and better in one: at all, surely."""
    m, m_low, m_high, s, s_low, s_high = (points[c].to_numpy(float) for c in POINT_COLUMNS[1:7])
    as_good = (m <= m[:, None]) & (s >= s[:, None])
    better = as_good & ((m < m[:, None]) | (s > s[:, None]))
    return better, better & ((m_high < m_low[:, None]) | (s_low > s_high[:, None]))


def hypervolume(memory: npt.ArrayLike, speed: npt.ArrayLike, most_memory: float) -> float:
    """Area of (memory x speed) that some point dominates, up to `most_memory` (Zitzler and Thiele 1998)."""
    order = np.argsort(memory, kind="stable")
    m = np.minimum(np.asarray(memory, dtype=float)[order], most_memory)
    s = np.maximum.accumulate(np.asarray(speed, dtype=float)[order])
    return float(np.sum(np.diff(np.append(m, most_memory)) * s))


def dominated_share(rows: pd.DataFrame, memory: str, speed: str = "mops", level: float = 0.95) -> pd.DataFrame:
    """Share of the rectangle memory x speed that the arms of each allocator dominate together, in percent.

    The rectangle reaches from nothing to the largest memory and the largest speed of any arm: 100 % would be that speed
    in no memory.

    Parameters
    ----------
    rows : DataFrame
        Trials of one workload.
    memory, speed : str
        Columns; memory is better low, speed better high.

    Returns
    -------
    DataFrame
        Index allocator, that of the baseline first; columns share, low, high; lead, lead_low, lead_high (how far the
        first allocator is ahead of this one, in points); n. Empty where no block has every arm.

    Notes
    -----
    An area of the arms' geometric means, not a mean of areas, in which the allocator with most arms would gain by
    noise. Intervals are those of the jackknife's pseudo-values over blocks (Tukey 1958), paired for the lead.
    """
    m, s = wide(rows, memory), wide(rows, speed)
    arms = [arm for arm in m.columns.intersection(s.columns) if arm != BASELINE2]
    logs = pd.concat([m[arms], s[arms]], axis=1, keys=(memory, speed)).dropna().map(math.log)
    if logs.empty:
        return pd.DataFrame(columns=SHARE_COLUMNS, index=pd.Index([], name="allocator"))
    ranked = rows.assign(key=keys(rows)).sort_values("role", key=lambda role: role != "baseline", kind="stable")
    owner = dict(zip(ranked["key"], ranked["allocator"], strict=True))
    owned = {name: [n for n, arm in enumerate(arms) if owner[arm] == name] for name in dict.fromkeys(owner.values())}
    mine = {name: at for name, at in owned.items() if at}

    def shares(means: Array) -> list[float]:
        m, s = np.exp(means).reshape(2, -1)
        return [100 * hypervolume(m[at], s[at], m.max()) / (m.max() * s.max()) for at in mine.values()]

    x = np.stack([over_layouts(logs[column]) for column in logs], axis=1)
    n = len(x)
    whole = np.array([shares(x.mean(axis=0))])
    without = [shares(np.delete(x, block, axis=0).mean(axis=0)) for block in range(n)] if n > 1 else whole
    pseudo = n * whole - (n - 1) * np.array(without)
    records = []
    for of in pseudo.T:
        share, lead = interval(of, level), interval(pseudo[:, 0] - of, level)
        records.append((share.estimate, share.low, share.high, lead.estimate, lead.low, lead.high, n))
    return pd.DataFrame(records, columns=SHARE_COLUMNS, index=pd.Index(mine, name="allocator"))


def price_of_a_megabyte(
    rows: pd.DataFrame, arm: str, memory: str, speed: str = "ops_per_s", level: float = 0.95
) -> Interval | None:
    """Price a saved MiB in percent of the baseline's throughput, paired by block; a negative price pays.

    What is lost over all blocks by what is saved over all: a mean of each block's price would be drawn up by blocks
    that happen to save little. The interval is that of the jackknife's pseudo-values over blocks (Tukey 1958). None
    where `arm` saves nothing that could be told from noise (the interval of the saving touches 0), since a price of
    nothing is no price.
    """
    m, s = wide(rows, memory), wide(rows, speed)
    if any(name not in table for table in (m, s) for name in (arm, BASELINE)):
        return None
    both = {"saved": m[BASELINE] - m[arm], "lost": 100 * (1 - s[arm] / s[BASELINE])}
    paired = pd.concat(both, axis=1).dropna()
    saved, lost = over_layouts(paired["saved"]), over_layouts(paired["lost"])
    n = saved.size
    if n < 2 or t_interval(saved, level).low <= 0:
        return None
    without = [np.delete(lost, block).mean() / np.delete(saved, block).mean() for block in range(n)]
    return interval(n * lost.mean() / saved.mean() - (n - 1) * np.array(without), level)
