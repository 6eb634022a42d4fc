"""Coefficients by hand and by their definitions; intervals by coverage, degenerate resamples and groups."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo.maths.correlation import coefficient, correlate

KINDS = ("pearson", "spearman", "kendall")
small = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12)


def by_definition(x, y, kind):
    """The textbook forms, one resample at a time; NaN for a constant vector."""
    if len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    if kind == "kendall":
        pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]
        untied = math.sqrt(sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs))
        return sum(a * b for a, b in pairs) / untied
    if kind == "spearman":
        x, y = ([sum(w < v for w in z) + (sum(w == v for w in z) + 1) / 2 for v in z] for z in (x, y))
    return np.corrcoef(x, y)[0, 1]


def correlated(n, rho, seed):
    x, noise = np.random.default_rng(seed).normal(size=(2, n))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def test_by_hand():
    # x = 1 2 3 4, y = 1 3 2 10. Means 2.5 and 4: products 4.5 + .5 - 1 + 9 = 13; squares 5 and 9+1+4+36 = 50.
    # Ranks of y: 1 3 2 4: squared rank differences 0 1 1 0, rho = 1 - 6*2/(4*15) = 0.8. One of six pairs is discordant:
    # tau = (5 - 1)/6
    x, y = [1, 2, 3, 4], [1, 3, 2, 10]
    assert coefficient(x, y, "pearson") == pytest.approx(13 / math.sqrt(250))
    assert coefficient(x, y, "spearman") == pytest.approx(0.8)
    assert coefficient(x, y, "kendall") == pytest.approx(2 / 3)


def test_ties_by_hand():
    # x = 1 1 2 3, y = 1 2 2 3. Mid-ranks 1.5 1.5 3 4 and 1 2.5 2.5 4, about 2.5: products 1.5 + 0 + 0 + 2.25 = 3.75,
    # squares 1 + 1 + .25 + 2.25 = 4.5 both. Pairs: (12) ties in x, (23) in y, the other four agree; five untied in each
    x, y = [1, 1, 2, 3], [1, 2, 2, 3]
    assert coefficient(x, y, "spearman") == pytest.approx(3.75 / 4.5)
    assert coefficient(x, y, "kendall") == pytest.approx(4 / 5)


@pytest.mark.parametrize("kind", KINDS)
@given(points=small)
def test_coefficients_are_those_of_the_definitions(kind, points):
    x, y = zip(*points, strict=True)
    assert coefficient(x, y, kind) == pytest.approx(by_definition(x, y, kind), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
@given(points=small, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_every_resample_is_that_of_the_drawn_points(kind, points, seed):
    # one resample: low = high = its coefficient, or a degenerate one
    x, y = np.array(points).T
    drawn = np.random.default_rng(seed).integers(0, len(x), size=(1, len(x)))[0]
    expected = by_definition(x[drawn].tolist(), y[drawn].tolist(), kind)
    result = correlate(x, y, kind, resamples=1, seed=seed)
    assert result.low == result.high == pytest.approx(expected, abs=1e-9) or (
        math.isnan(expected) and math.isnan(result.low) and result.degenerate == 1
    )


@pytest.mark.parametrize("kind", KINDS)
@given(points=small, scale=st.floats(1e-100, 1e100), shift=st.integers(-5, 5))
def test_symmetric_odd_and_blind_to_scale(kind, points, scale, shift):
    x, y = np.array(points, dtype=float).T
    value = coefficient(x, y, kind)
    same = {"abs": 1e-9, "nan_ok": True}
    assert coefficient(y, x, kind) == pytest.approx(value, **same)
    assert coefficient(-x, y, kind) == pytest.approx(-value, **same)
    assert coefficient(x[::-1], y[::-1], kind) == pytest.approx(value, **same)
    assert coefficient((x + shift) * scale, y, kind) == pytest.approx(value, **same)
    # ranks alone count for two of them
    if kind != "pearson":
        assert coefficient(np.exp(x), y**3, kind) == pytest.approx(value, **same)


@pytest.mark.parametrize("kind, truth", [("pearson", 0.6), ("spearman", 0.5819), ("kendall", 0.4097)])
def test_intervals_hold_the_truth_about_95_times_in_100(kind, truth):
    # Bivariate normal, rho = 0.6: Spearman's is (6/pi) asin(rho/2), Kendall's (2/pi) asin(rho). At N = 80 coverage is
    # 94 to 96 %; binomial standard error of 200 draws 1.6 %, so 88 % is 4 of them below 94.5 %
    assert truth == pytest.approx(
        {"pearson": 0.6, "spearman": 6 / math.pi * math.asin(0.3), "kendall": 2 / math.pi * math.asin(0.6)}[kind], abs=1e-4
    )
    covered = 0
    for seed in range(200):
        result = correlate(*correlated(80, 0.6, seed), kind, resamples=300, seed=seed)
        covered += result.low <= truth <= result.high
    assert 0.88 <= covered / 200 <= 0.995


def test_pearsons_interval_has_the_normal_width():
    # Fisher's z = atanh r has the standard error 1/sqrt(N - 3): N = 403, rho 0.5, width (1 - r^2) 2 * 1.96 / 20
    x, y = correlated(403, 0.5, 0)
    result = correlate(x, y, "pearson", resamples=3000)
    assert result.high - result.low == pytest.approx((1 - result.value**2) * 2 * 1.96 / 20, rel=0.12)


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_resamples_are_counted_and_left_out(kind):
    # x = 0 0 0 1: a resample without the last point is constant, (3/4)^4 = 0.316 of them; one with it alone, 1/256.
    # Of 4000: 0.3203 * 4000 = 1281, standard error sqrt(4000 * .32 * .68) = 29.5, four of them 118
    result = correlate([0, 0, 0, 1], [1, 2, 3, 4], kind, resamples=4000, seed=1)
    assert abs(result.degenerate - 1281) < 118
    assert -1 <= result.low <= result.value <= result.high <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_has_no_correlation(kind):
    # 0.1 is not a binary fraction: its mean over three is not 0.1, which must not pass for variance
    result = correlate([0.1, 0.1, 0.1], [1, 2, 3], kind, resamples=50)
    assert math.isnan(result.value) and math.isnan(result.low) and math.isnan(result.high)
    assert result.degenerate == 50
    assert result.to_dict() == {
        "kind": kind, "value": None, "low": None, "high": None, "n": 3, "resamples": 50, "degenerate": 50
    }  # fmt: skip


def test_the_same_seed_draws_the_same_resamples():
    x, y = correlated(30, 0.4, 0)
    assert correlate(x, y, "kendall", seed=3) == correlate(x, y, "kendall", seed=3)
    assert correlate(x, y, "kendall", seed=3).low != correlate(x, y, "kendall", seed=4).low
    # of two bits all three coefficients are phi = (n11 n00 - n10 n01)/sqrt(...), so if they share their resamples they
    # share their intervals
    first, second, third = (correlate(x > 0, y > 0.3, kind, seed=3) for kind in KINDS)
    for other in (second, third):
        assert (other.value, other.low, other.high) == pytest.approx((first.value, first.low, first.high))


def test_whole_groups_are_drawn():
    # every point three times: over points the interval is about sqrt(3) too narrow, over groups it is that of the
    # points once (the counts triple, which no coefficient sees)
    x, y = correlated(40, 0.5, 2)
    once = correlate(x, y, "pearson", seed=7)
    thrice = [np.repeat(values, 3) for values in (x, y)]
    grouped = correlate(*thrice, "pearson", seed=7, groups=np.repeat([f"model {i:02}" for i in range(40)], 3))
    assert (grouped.value, grouped.low, grouped.high) == pytest.approx((once.value, once.low, once.high))
    narrow = correlate(*thrice, "pearson", seed=7)
    assert (once.high - once.low) / (narrow.high - narrow.low) == pytest.approx(math.sqrt(3), rel=0.15)


def test_what_cannot_be_correlated_is_the_callers_to_leave_out():
    with pytest.raises(AssertionError, match="leave out"):
        coefficient([1, 2, math.nan], [1, 2, 3], "pearson")
    for x, y in (([1], [1]), ([1, 2, 3], [1, 2]), ([[1], [2], [3]], [[1], [2], [3]])):
        with pytest.raises(AssertionError, match="expected"):
            coefficient(x, y, "pearson")
    with pytest.raises(AssertionError, match="one group a point"):
        correlate([1, 2, 3], [1, 2, 3], "pearson", groups=[0, 1])
