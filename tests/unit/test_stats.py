"""Intervals: coverage, determinism, pairing; the derivation stands beside each expected number."""

import math

import numpy as np
import pytest

from coevo.maths import stats
from coevo.maths.stats import (
    Measure,
    bootstrap,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_stratified,
    mean_draws,
    run_multipliers,
    stratum_seed,
    wilson,
)


def test_width_of_a_mean_is_the_normal_one():
    # standard error of the mean of N = 400 standard normals: s/20; the 95 % interval is 2 * 1.96 s/20 wide. With 4,000
    # resamples a 2.5 % quantile is known to about 3 %, so 10 % covers it.
    values = np.random.default_rng(0).normal(size=400)
    result = bootstrap_mean(values, 4000, 1)
    assert result.value == pytest.approx(values.mean())
    assert result.high - result.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_interval_covers_the_truth_about_95_times_in_100():
    # 300 samples of 50 standard normals; percentile intervals at N = 50 cover about 94 %. Binomial standard error
    # sqrt(.94*.06/300) = 1.4 %, so 4 of them: 88 % to 99.6 %
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        result = bootstrap_mean(generator.normal(size=50), 400, 2)
        covered += result.low <= 0 <= result.high
    assert 0.88 <= covered / 300 <= 0.996


def test_one_value_has_an_interval_without_width():
    assert bootstrap_mean([3.0, 3.0, 3.0], 100, 0) == Measure(3, 3, 3)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, 500, 7) == bootstrap_mean(values, 500, 7)
    assert bootstrap_mean(values, 500, 7) != bootstrap_mean(values, 500, 8)


def test_memory_chunks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(0).normal(size=31)
    whole = mean_draws(values, 100, 5)
    monkeypatch.setattr(stats, "_CHUNK", 31 * 16 * 7)
    np.testing.assert_array_equal(mean_draws(values, 100, 5), whole)


def test_models_in_one_matrix_share_their_indices():
    # the second model is the first plus 1 everywhere: paired, their difference is 1 in every draw
    first = np.random.default_rng(0).normal(size=40)
    draws = mean_draws(np.stack([first, first + 1], axis=1), 200, 3)
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 1)
    np.testing.assert_allclose(draws[:, 0], mean_draws(first, 200, 3), atol=1e-12)


def test_any_statistic_of_indices():
    # the median of five equal-or-larger values: every draw is one of the values
    values = np.array([1.0, 2.0, 3.0, 10.0, 20.0])
    draws = bootstrap(lambda indices: np.median(values[indices], axis=1), 5, 300, 0)
    assert draws.shape == (300,)
    assert set(draws) <= set(values)


def test_difference_resamples_each_subset_on_its_own():
    # var(mean p - mean q) = (s_p^2 + s_q^2)/N with N = 200 each: width 2 * 1.96 * sqrt((1 + 4)/200), within 10 %.
    # Even P against itself has a width: two draws of it differ; only the value is 0.
    generator = np.random.default_rng(4)
    p, q = generator.normal(0, 1, 200), generator.normal(3, 2, 200)
    result = bootstrap_difference(p, q, 4000, 0)
    expected = 2 * 1.96 * np.sqrt((p.var() + q.var()) / 200)
    assert result.value == pytest.approx(p.mean() - q.mean())
    assert result.high - result.low == pytest.approx(expected, rel=0.1)
    same = bootstrap_difference(p, p, 1000, 0)
    assert same.value == 0
    assert same.low < 0 < same.high


def test_mean_over_subsets_weighs_subsets_alike_and_keeps_their_variances():
    # subsets of 10 and 1000 with means 0 and 1: the unweighted mean is 1/2. Variance of it: (v1/10 + v2/1000)/4.
    generator = np.random.default_rng(5)
    small, large = generator.normal(size=10), generator.normal(size=1000)
    small, large = small - small.mean(), large - large.mean() + 1
    result = bootstrap_stratified([small, large], 4000, 0)
    assert result.value == pytest.approx(0.5)
    expected = 2 * 1.96 * np.sqrt((small.var() / 10 + large.var() / 1000) / 4)
    assert result.high - result.low == pytest.approx(expected, rel=0.12)


def test_seeds_of_strata_differ_by_name_only():
    assert stratum_seed(1, "german") == stratum_seed(1, "german")
    assert stratum_seed(1, "german") != stratum_seed(1, "korean")
    assert stratum_seed(1, "german") != stratum_seed(2, "german")


def test_unscored_values_are_the_callers_to_leave_out():
    with pytest.raises(AssertionError, match="leave out"):
        mean_draws([1.0, np.nan], 10, 0)
    with pytest.raises(AssertionError, match="nothing to resample"):
        mean_draws(np.array([]), 10, 0)


def test_intervals_overlap():
    assert Measure(1, 0, 2).overlaps(Measure(2, 2, 3))
    assert not Measure(1, 0, 2).overlaps(Measure(3, 2.1, 4))


def test_runs_are_drawn_by_students_t():
    # 97.5 % points of t: 4.303 of 2 degrees and 2.776 of 4; in 100,000 draws a quantile is known to 2 and 1 %
    for runs, point in ((3, 4.3027), (5, 2.7764)):
        x = np.random.default_rng(runs).normal(size=runs)
        draws = run_multipliers(runs, 100_000, 1) @ (x - x.mean())
        assert np.quantile(draws, 0.975) == pytest.approx(point * x.std(ddof=1) / math.sqrt(runs), rel=0.04)
    np.testing.assert_array_equal(run_multipliers(1, 4, 0), np.zeros((4, 1)))


def test_wilson_has_a_width_where_every_trial_succeeds():
    # all of n: p = 1, centre (1 + z²/2n)/(1 + z²/n), half z²/2n/(1 + z²/n), so low = 1/(1 + z²/n) = n/(n + z²)
    z2 = 1.959964**2
    every = wilson(192, 192)
    assert (every.value, every.high) == (1.0, 1.0) and every.low == pytest.approx(192 / (192 + z2))
    none = wilson(0, 192)
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(z2 / (192 + z2))
    # half of ten: centre ½, half = z/(1 + z²/10) · √(¼/10 + z²/400) = z/2 · 1/√(10 + z²)
    half = wilson(5, 10)
    assert half.high - 0.5 == pytest.approx(math.sqrt(z2) / 2 / math.sqrt(10 + z2)) and half.high + half.low == 1.0


def test_wilson_covers_the_truth_about_95_times_in_100():
    # p = 0.97 of 192: with at least 92 of 100 expected cover (coverage of a discrete law swings about its level), 4,000
    # draws have a standard error of 0.4 %
    draws = np.random.default_rng(0).binomial(192, 0.97, size=4000)
    covered = np.mean([(interval := wilson(int(k), 192)).low <= 0.97 <= interval.high for k in draws])
    assert 0.92 < covered < 0.98
