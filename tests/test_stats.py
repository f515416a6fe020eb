"""Statistics with known answers: textbook figures, and coverage, error and power by seeded simulation."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sp

from hakmem import stats

SIMULATIONS = 2000


def test_an_interval_in_words() -> None:
    assert stats.Interval(1.24, -0.31, 2.68, 0.95, "t", 9).words() == "+1.2 % (-0.3 to +2.7)"
    assert stats.Interval(64, 60, 68, 0.95, "t", 9).words("KiB") == "+64.0 KiB (+60.0 to +68.0)"
    assert stats.t_interval([3.0]).words() == "+3.0 % (interval unbounded: too few blocks)"
    assert stats.t_interval([]).words() == "not measured"


def rows(values: dict[str, list[float]], metric: str = "ops_per_s", **columns: object) -> pd.DataFrame:
    """Ledger rows of one workload from one list of figures an arm (one a block); `A` and `A'` are the baselines."""
    roles = {stats.BASELINE: "baseline", stats.BASELINE2: "baseline2"}
    records = [
        {
            "host": "h",
            "workload": "w",
            "block": block,
            "arm": "base" if arm in roles else arm,
            "role": roles.get(arm, "arm"),
        }
        | {"status": "ok", "spoiled": (), metric: value}
        for arm, figures in values.items()
        for block, value in enumerate(figures)
    ]
    return pd.DataFrame(records).assign(**columns)


@pytest.mark.parametrize("blocks", [5, 10, 20, 40])
@pytest.mark.parametrize("shape", ["normal", "student-8"])
def test_intervals_cover_the_truth_as_often_as_they_say(blocks: int, shape: str) -> None:
    rng = np.random.default_rng(blocks)
    noise = rng.standard_normal if shape == "normal" else lambda size: rng.standard_t(8, size)
    data = 0.03 + 0.02 * noise((SIMULATIONS, blocks))
    found = [stats.t_interval(x) for x in data] if blocks < stats.BCA_FROM else None
    if found is None:  # the same BCa as `interval`, over all simulated studies at once
        level = stats.expanded(0.95, blocks)
        both = sp.bootstrap((data,), np.mean, axis=1, confidence_level=level, n_resamples=999, batch=50, rng=rng)
        low, high = both.confidence_interval
        one = stats.interval(data[0])
        assert one.method == "BCa" and one.low == pytest.approx(low[0], abs=0.002)
    else:
        low, high = np.array([i.low for i in found]), np.array([i.high for i in found])
        assert stats.interval(data[0]) == found[0]
    assert 0.93 <= np.mean((low <= 0.03) & (high >= 0.03)) <= 0.97


def test_t_interval_of_a_textbook_sample() -> None:
    found = stats.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.estimate, found.low, found.high) == pytest.approx((3.0, 1.0368, 4.9632), abs=1e-4)
    assert (found.method, found.n) == ("t", 5)


def test_one_block_has_no_known_width() -> None:
    found = stats.interval([0.1])
    assert found.low == -math.inf and found.high == math.inf and found.below(1.0) is None


def test_percent_undoes_the_logarithm() -> None:
    found = stats.Interval(math.log(1.1), math.log(0.5), math.log(2.0), 0.95, "t", 5).percent()
    assert (found.estimate, found.low, found.high) == pytest.approx((10.0, -50.0, 100.0))


def test_interval_of_equal_blocks_has_no_width() -> None:
    found = stats.interval(np.full(30, 0.25))
    assert (found.low, found.high) == (0.25, 0.25)


def test_permutation_is_exact_for_few_blocks() -> None:
    assert stats.permutation_p([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    assert stats.permutation_p([1.0, -1.0]) == 1.0
    rng = np.random.default_rng(3)
    x = 0.4 + rng.standard_normal(12)
    scipy_p = sp.permutation_test((x, np.zeros(12)), lambda a, b: np.mean(a - b), permutation_type="samples").pvalue
    assert stats.permutation_p(x) == pytest.approx(scipy_p)


def test_permutation_by_drawing_agrees_with_the_t_test_and_is_never_zero() -> None:
    x = 0.35 + np.random.default_rng(4).standard_normal(40)
    assert stats.permutation_p(x) == pytest.approx(sp.ttest_1samp(x, 0).pvalue, abs=0.01)
    assert stats.permutation_p(np.ones(40)) > 0


def test_permutation_errs_as_often_as_it_says_and_finds_what_is_there() -> None:
    data = np.random.default_rng(13).standard_normal((1000, 12))
    assert 0.03 <= np.mean([stats.permutation_p(x) <= 0.05 for x in data]) <= 0.065
    assert np.mean([stats.permutation_p(x + 1.2) <= 0.05 for x in data[:200]]) > 0.9


@pytest.mark.parametrize("n", [25, 26, 60])
@pytest.mark.parametrize("heavy", [False, True])
def test_bca_is_that_of_scipy(n: int, heavy: bool) -> None:
    rng = np.random.default_rng(n)
    x = rng.exponential(size=n) ** 2 if heavy else rng.normal(size=n)
    level = stats.expanded(0.9, n)
    known = sp.bootstrap((x,), np.mean, confidence_level=level, n_resamples=4999, rng=np.random.default_rng(1))
    found = stats.bca_interval(x, 0.9)
    assert [found.low, found.high] == pytest.approx([*known.confidence_interval], rel=1e-9)


def test_bca_takes_over_from_25_blocks() -> None:
    x = np.random.default_rng(14).standard_normal(25)
    assert [stats.interval(x[:n]).method for n in (2, 24, 25)] == ["t", "t", "BCa"]


def test_hodges_lehmann_finds_the_centre_of_skewed_outliers() -> None:
    rng = np.random.default_rng(15)
    x = 0.03 + 0.01 * rng.standard_normal((500, 20))
    x[:, :2] += rng.exponential(0.2, (500, 2))  # a tenth of the blocks is spoiled
    found = np.array([stats.hodges_lehmann(line) for line in x])
    assert abs(found.mean() - 0.03) < 0.004 < abs(x.mean() - 0.03)


def test_hodges_lehmann_ignores_one_wild_block() -> None:
    assert stats.hodges_lehmann([1.0, 2.0, 3.0]) == 2.0
    assert stats.hodges_lehmann([1.0, 5.0, 2.0, 6.0]) == 3.5
    assert abs(stats.hodges_lehmann([0.0, 0.1, -0.1, 0.05, 100.0])) < 0.3


def test_cv_of_a_known_sample() -> None:
    assert stats.cv([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert math.isnan(stats.cv([9.0]))


def holm(p: Sequence[float]) -> np.ndarray:
    """Adjusted p values, step by step from the smallest."""
    order, adjusted, largest = np.argsort(p), np.zeros(len(p)), 0.0
    for rank, at in enumerate(order):
        largest = adjusted[at] = max(largest, (len(p) - rank) * p[at])
    return np.minimum(adjusted, 1)


def test_holm_levels_of_a_textbook_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm_levels(p) == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4])


def test_holm_levels_decide_exactly_as_holm_does() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        p = rng.uniform(0, 0.1, size=5) ** 1.5
        assert ((p <= 1 - stats.holm_levels(p)) == (holm(p) <= 0.05)).all()


def test_alpha_spending_gives_the_published_boundaries() -> None:
    """Five equally spaced looks at two-sided 0.05: 4.877 3.357 2.680 2.290 2.031 (Lan-DeMets, O'Brien-Fleming-like)."""
    levels = stats.nominal_alphas([0.2, 0.4, 0.6, 0.8, 1.0])
    assert sp.norm.isf(np.array(levels) / 2) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.003)
    assert stats.spent_alpha(1.0) == pytest.approx(0.05)


def test_looking_again_and_again_errs_as_often_as_promised() -> None:
    rng = np.random.default_rng(6)
    blocks = np.array([10, 15, 20, 30, 40])
    sums = np.cumsum(rng.standard_normal((20_000, 40)), axis=1)[:, blocks - 1] / np.sqrt(blocks)
    spending = (np.abs(sums) > sp.norm.isf(np.array(stats.nominal_alphas(blocks / 40)) / 2)).any(axis=1).mean()
    naive = (np.abs(sums) > 1.96).any(axis=1).mean()
    assert 0.045 <= spending <= 0.055 and naive > 0.10


def test_looks_that_do_not_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="looks must grow"):
        stats.nominal_alphas([0.5, 0.5])


def test_blocks_needed_gives_the_promised_power() -> None:
    sd, distance = 0.03 * math.sqrt(2), 0.02  # CV 3 % on both sides; a true 3 % against a margin of 1 %
    n = stats.blocks_needed(sd, distance)
    assert n == 50
    x = 0.03 + sd * np.random.default_rng(7).standard_normal((4000, n))
    low = x.mean(1) - sp.t.ppf(0.975, n - 1) * x.std(1, ddof=1) / math.sqrt(n)
    assert 0.88 <= np.mean(low > 0.01) <= 0.92


def test_blocks_that_cannot_settle_it_are_not_counted() -> None:
    assert stats.blocks_needed(0.04, 0.0) is None
    assert stats.blocks_needed(0.04, 1e-9) is None
    assert stats.blocks_needed(0.0, 0.01) == 2


def test_theil_sen_of_a_line_with_outliers() -> None:
    t = np.arange(50.0)
    y = 1000 + 2.0 * t
    y[::10] += 5000
    found = stats.theil_sen(t, y)
    assert found.estimate == pytest.approx(2.0, abs=0.01) and found.low <= 2.0 <= found.high


def test_theil_sen_covers_the_slope_and_a_steady_run_seldom_drifts() -> None:
    rng, t = np.random.default_rng(16), np.arange(60.0)
    found = [stats.theil_sen(t, 0.5 * t + 20 * rng.standard_normal(60)) for _ in range(400)]
    assert 0.92 <= np.mean([one.low <= 0.5 <= one.high for one in found]) <= 0.98
    steady = [stats.drift(t, 8000 + 20 * rng.standard_normal(60)).is_zero for _ in range(400)]
    assert np.mean(steady) >= 0.92


def test_drift_is_zero_for_noise_and_not_for_a_leak() -> None:
    rng, t = np.random.default_rng(8), np.arange(0.0, 300.0, 5.0)
    steady = stats.drift(t, 33_000 + rng.normal(0, 30, t.size))
    leak = stats.drift(t, 33_000 + 4 * t + rng.normal(0, 30, t.size))
    assert steady.is_zero and not leak.is_zero
    assert leak.slope.estimate == pytest.approx(4, abs=0.2) and leak.change_kb == pytest.approx(960, abs=60)


def test_a_small_step_is_no_drift_and_a_big_one_is() -> None:
    assert stats.Drift(stats.t_interval([-1.0, 1.0]), 2000, 2060).is_zero
    assert not stats.Drift(stats.t_interval([-1.0, 1.0]), 2000, 2100).is_zero
    assert stats.Drift(stats.t_interval([-1.0, 1.0]), 200_000, 201_900).is_zero


def test_rows_are_paired_within_their_block_and_bad_trials_stay_out() -> None:
    table = rows({"A": [100.0, 200.0, 300.0, 50.0], "lean": [90.0, 180.0, 270.0, 50.0]})
    table.loc[(table["arm"] == "lean") & (table["block"] == 3), "status"] = "timeout"
    assert stats.log_ratios(stats.wide(table, "ops_per_s"), "lean") == pytest.approx([math.log(0.9)] * 3)
    table.at[0, "spoiled"] = ("stolen CPU time 12 %",)
    assert stats.log_ratios(stats.wide(table, "ops_per_s"), "lean").size == 2
    table["spoiled"] = [("stolen CPU time 12 %",)] * len(table)  # never quiet: better these than none
    assert stats.log_ratios(stats.wide(table, "ops_per_s"), "lean").size == 3
    assert stats.log_ratios(stats.wide(table, "ops_per_s"), "nobody").size == 0


def test_noise_floor_is_the_difference_of_the_two_baselines() -> None:
    table = rows({"A": [100.0, 100.0], "A'": [102.0, 102.0]})
    assert stats.noise_floor(stats.wide(table, "ops_per_s")) == pytest.approx(math.log(1.02))
    assert math.isnan(stats.noise_floor(stats.wide(rows({"A": [1.0]}), "ops_per_s")))


def laid_out(rng: np.random.Generator, layouts: int, blocks: int, sd: float) -> pd.Series:
    """Log ratios of code that makes no difference, where each of two codes is moved by its layout (sd) and noise."""
    index = pd.MultiIndex.from_tuples(
        [("h", layout * blocks + block, layout) for layout in range(layouts) for block in range(blocks)],
        names=["host", "block", "layout"],
    )
    moved = sd * (rng.standard_normal(layouts) - rng.standard_normal(layouts))
    return pd.Series(np.repeat(moved, blocks) + 0.01 * rng.standard_normal(layouts * blocks), index=index)


def test_a_null_change_is_called_an_effect_over_one_layout_and_not_over_several() -> None:
    rng = np.random.default_rng(11)
    single = [stats.interval(laid_out(rng, 1, 20, 0.02)) for _ in range(300)]
    plain = np.mean([found.low <= 0 <= found.high for found in single])
    several = [stats.interval(stats.over_layouts(laid_out(rng, 10, 2, 0.02))) for _ in range(300)]
    assert plain < 0.35 and np.mean([found.low <= 0 <= found.high for found in several]) >= 0.92
    assert {found.n for found in several} == {10}


def test_effect_and_layout_spread_are_told_apart() -> None:
    rng = np.random.default_rng(12)

    def spread(x: pd.Series) -> stats.LayoutSpread | None:
        return stats.layout_spread(pd.DataFrame({"A": 1.0, "arm": np.exp(x)}), "arm")

    x = laid_out(rng, 200, 4, 0.02) + 0.05
    found, calm = spread(x), spread(laid_out(rng, 200, 4, 0.0))
    assert found is not None and found.layouts == 200 and found.p < 1e-6
    assert found.layout_sd == pytest.approx(0.02 * math.sqrt(2), rel=0.15)
    assert found.noise_sd == pytest.approx(0.01, rel=0.1)
    assert stats.interval(stats.over_layouts(x)).estimate == pytest.approx(0.05, abs=0.005)
    assert calm is not None and calm.layout_sd < 0.004 and calm.p > 0.01
    assert spread(laid_out(rng, 20, 1, 0.02)) is None  # one block a layout cannot tell


def test_arms_without_layouts_are_paired_with_those_that_have_some() -> None:
    table = rows({"A": [100.0, 100.0, 110.0, 110.0], "peer": [50.0, 50.0, 50.0, 50.0]})
    table["layout"] = (table["block"] // 2).where(table["arm"] != "peer").astype(float)
    assert stats.log_ratios(stats.wide(table, "ops_per_s"), "peer") == pytest.approx(np.log([50 / 100, 50 / 110]))
    assert stats.log_ratios(stats.wide(table.assign(layout=np.nan), "ops_per_s"), "peer").size == 4


def points(**arms: tuple[float, float]) -> pd.DataFrame:
    wobble = np.array([0.99, 1.0, 1.01, 1.0, 1.0])
    memory = rows({arm: list(m * wobble) for arm, (m, _) in arms.items()}, "peak_rss_mb")
    speed = rows({arm: list(s * wobble) for arm, (_, s) in arms.items()}, "mops")
    return memory.assign(mops=speed["mops"])


def test_frontier_and_dominated_arms() -> None:
    found = stats.frontier(points(A=(33, 100), lean=(9, 95), fat=(40, 90), near=(33.1, 99.9)), "peak_rss_mb")
    assert found["frontier"].to_dict() == {"A": True, "lean": True, "fat": False, "near": False}
    assert found.loc["fat", "dominated_by"] == "A"
    assert found.loc["near", "dominated_by"] == ""  # behind, but not beyond the error crosses
    assert (found["memory_low"] < found["memory"]).all() and (found["speed_high"] > found["speed"]).all()


def test_crosses_of_the_frontier_hold_jointly() -> None:
    """Memory and throughput of one arm are both inside its cross in 95 % of cases, though they vary together."""
    rng, arms, blocks = np.random.default_rng(17), 400, 8
    shared = rng.standard_normal((arms, blocks))
    noise = [0.03 * (0.6 * shared + 0.8 * rng.standard_normal((arms, blocks))) for _ in range(2)]
    names = [f"arm {n}" for n in range(arms)]
    memory = rows({name: list(20 * np.exp(noise[0][n])) for n, name in enumerate(names)}, "peak_rss_mb")
    speed = rows({name: list(100 * np.exp(noise[1][n])) for n, name in enumerate(names)}, "mops")
    found = stats.frontier(memory.assign(mops=speed["mops"]), "peak_rss_mb")
    inside = (found["memory_low"] <= 20) & (found["memory_high"] >= 20)
    inside &= (found["speed_low"] <= 100) & (found["speed_high"] >= 100)
    assert 0.93 <= inside.mean() <= 0.985


def test_hypervolume_of_two_corners() -> None:
    assert stats.hypervolume([1.0, 2.0], [1.0, 3.0], most_memory=4.0) == pytest.approx(1 * 1 + 2 * 3)
    assert stats.hypervolume([2.0, 1.0, 3.0], [3.0, 1.0, 2.0], most_memory=4.0) == pytest.approx(7.0)
    assert stats.hypervolume([5.0], [1.0], most_memory=4.0) == 0.0


OWNERS = {"A": "hakmem", "A'": "hakmem", "lean": "hakmem", "near": "hakmem", "mi": "mimalloc", "fat": "system"}


def owned(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(allocator=stats.keys(table).map(OWNERS))


def test_shares_of_the_rectangle_that_allocators_dominate() -> None:
    """The corner is (40 MB, 100): hakmem's steps are 30 wide at 80 and 10 at 100, mimalloc's 20 at 90."""
    table = owned(points(A=(30, 100), lean=(10, 80), mi=(20, 90), fat=(40, 50)))
    found = stats.dominated_share(table, "peak_rss_mb")
    assert list(found.index) == ["hakmem", "mimalloc", "system"]
    assert found["share"].to_numpy() == pytest.approx([100 * (20 * 80 + 10 * 100) / 4000, 45, 0])
    assert found["lead"].to_numpy() == pytest.approx(found["share"].iloc[0] - found["share"].to_numpy(), abs=1e-9)
    assert set(found["n"]) == {5} and (found["high"] - found["low"]).max() < 1e-6  # what all share cancels out
    one = stats.dominated_share(table[table["block"] == 1], "peak_rss_mb")
    assert one["share"].iloc[0] == pytest.approx(65) and one["n"].iloc[0] == 1 and math.isinf(one["high"].iloc[0])
    last = table[(table["block"] > 1) | (table["arm"] != "mi")]
    assert set(stats.dominated_share(last, "peak_rss_mb")["n"]) == {3}  # blocks that have every arm
    assert stats.dominated_share(table[table["block"] < 0], "peak_rss_mb").empty


def test_many_alike_arms_do_not_gain_by_noise() -> None:
    rng, centre = np.random.default_rng(3), {"A": (30, 100), "lean": (10, 97), "near": (10, 97), "mi": (10, 97)}
    truth = 100 * (20 * 97) / 3000

    def noisy() -> pd.DataFrame:
        slow = 0.05 * rng.standard_normal(8)  # what a block does to all its arms

        def figures(of: int, common: np.ndarray | float) -> dict[str, list[float]]:
            return {arm: list(xy[of] * np.exp(common + 0.02 * rng.standard_normal(8))) for arm, xy in centre.items()}

        memory, speed = rows(figures(0, 0.0), "peak_rss_mb"), rows(figures(1, slow), "mops")
        return owned(memory.assign(mops=speed["mops"]))

    found = [stats.dominated_share(noisy(), "peak_rss_mb") for _ in range(120)]
    hakmem = [one.loc["hakmem"] for one in found]
    assert np.mean([one["low"] <= truth <= one["high"] for one in hakmem]) >= 0.9
    assert np.mean([one["share"] for one in hakmem]) == pytest.approx(truth, abs=0.6)
    leads = [one.loc["mimalloc"] for one in found]
    assert np.mean([one["lead_low"] > 0 for one in leads]) <= 0.08


def test_price_of_a_megabyte() -> None:
    table = points(A=(30, 100), lean=(10, 90), same=(30, 90))
    price = stats.price_of_a_megabyte(table, "lean", "peak_rss_mb", "mops")
    assert price is not None and price.estimate == pytest.approx(0.5, rel=0.02) and price.low <= 0.5 <= price.high
    assert stats.price_of_a_megabyte(table, "same", "peak_rss_mb", "mops") is None


def test_a_price_is_not_drawn_up_by_blocks_that_save_little() -> None:
    """5 MB for 2 %, with savings that vary by 40 %: a mean of the blocks' prices says 0.56 % a MB."""
    rng, found = np.random.default_rng(2), []
    for _ in range(150):
        saved, lost = 5 + 2 * rng.standard_normal(8), 2 + rng.standard_normal(8)
        memory = rows({"A": [50.0] * 8, "lean": list(50 - saved)}, "peak_rss_mb")
        speed = rows({"A": [100.0] * 8, "lean": list(100 - lost)}, "mops")
        price = stats.price_of_a_megabyte(memory.assign(mops=speed["mops"]), "lean", "peak_rss_mb", "mops")
        if price is not None:
            found.append(price)
    assert len(found) > 120 and np.mean([one.estimate for one in found]) == pytest.approx(0.4, abs=0.02)
    assert np.mean([one.low <= 0.4 <= one.high for one in found]) >= 0.9


@pytest.mark.parametrize("level", [1 - 1.5e-5, 1 - 1e-6])
def test_a_level_beyond_the_resamples_is_not_asked_of_the_bootstrap(level: float) -> None:
    """An early look of `--until-decided`, at a tail of which 4999 resamples have nothing."""
    x = np.array([0.0] * 29 + [1e-3])
    found = stats.interval(x, level)
    assert found.low < found.estimate < found.high
    assert (found.low, found.high) == (stats.t_interval(x, level).low, stats.t_interval(x, level).high)
    assert stats.interval(x, 0.95).method == "BCa"


def test_sums_that_are_alike_but_for_rounding_count_as_alike() -> None:
    assert sum([0.1, 0.2, -0.3]) != 0  # though it is 0: every pattern of signs is as far from it
    assert stats.permutation_p([0.3, -0.1, -0.2, 0.7, -0.7]) == 1.0
    assert stats.permutation_p([0.1, 0.2, -0.3, 0.6, -0.6]) == 1.0
