"""Estimates against closed forms (method section 2); the derivation stands beside each expected number."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo.maths.information import (
    circulant_offsets,
    club,
    club_pairs,
    component_remi,
    emi,
    full_design,
    infonce,
    l1out,
    learned_marginal,
    neighbours,
    outside,
    pointwise,
    random_pairs,
    remid,
)

seeds = st.integers(0, 2**32 - 1)


def random_design(seed, n=7, k=4):
    return np.random.default_rng(seed).normal(-20, 5, size=(n, k + 1))


def test_full_design_puts_the_positive_first_and_holds_a_response_per_row():
    # L[i, j] = 10 i + j: row j of the design is column j (units digit j), own context j first, then j+1, j+2 (mod 3)
    matrix = np.array([[0, 1, 2], [10, 11, 12], [20, 21, 22]])
    assert full_design(matrix).tolist() == [[0, 10, 20], [11, 21, 1], [22, 2, 12]]


def test_two_by_two_by_hand():
    # L = [[-1, -4], [-3, -2]]. Response 0: own -1, elsewhere L[1,0] = -3, D1 = 2. Response 1: own -2, elsewhere
    # L[0,1] = -4, D1 = 2. Mean 2 for both aggregates, as log-mean-exp of one number is that number.
    design = full_design([[-1.0, -4.0], [-3.0, -2.0]])
    assert club(design) == pytest.approx(2)
    assert l1out(design) == pytest.approx(2)
    # M3: L[i,i] - log((e^own + e^other)/2) = -log((1 + e^-2)/2), the same for both
    assert infonce(design) == pytest.approx(-np.log((1 + np.exp(-2)) / 2))


def test_the_negatives_run_over_contexts_not_over_other_responses():
    # response 1 is bland: equally likely (-1) in both contexts, so it carries nothing: D1 = 0. Over rows (other
    # responses in its context) it would have scored -1 - (-5) = 4.
    matrix = np.array([[-2.0, -1.0], [-5.0, -1.0]])
    assert pointwise(full_design(matrix), "club").tolist() == [3, 0]


def test_independent_is_zero():
    # q(y_j | x_i) = p(y_j): constant over contexts, so own equals any aggregate over contexts
    matrix = np.tile(np.random.default_rng(0).normal(-10, 3, size=8), (8, 1))
    design = full_design(matrix)
    for estimate in (club, l1out, infonce):
        assert estimate(design) == pytest.approx(0, abs=1e-12)
    assert learned_marginal(matrix[0], matrix[0]) == 0


def gaussian(rho, n, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=n)
    variance = 1 - rho**2
    # L[i, j] = log N(y_j; rho x_i, 1 - rho^2)
    matrix = -((y[None, :] - rho * x[:, None]) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance)
    marginal = -(y**2) / 2 - 0.5 * np.log(2 * np.pi)
    return full_design(matrix), np.diag(matrix), marginal


def over_draws(estimate, rho, n=200, draws=40):
    values = np.array([estimate(*gaussian(rho, n, seed)) for seed in range(draws)])
    return values.mean(), values.std(ddof=1) / np.sqrt(draws)


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_gaussian_club_is_rho_squared_over_one_minus_rho_squared(rho):
    # log q = -(y - rho x)^2 / (2 (1 - rho^2)) - c. E own = -1/2 - c. Elsewhere x' is independent of y, so that
    # E(y - rho x')^2 = 1 + rho^2 and E elsewhere = -(1 + rho^2) / (2 (1 - rho^2)) - c.
    # CLUB = (1 + rho^2) / (2 (1 - rho^2)) - 1/2 = rho^2 / (1 - rho^2). Unbiased, so within 4 standard errors.
    mean, error = over_draws(lambda design, own, marginal: club(design), rho)
    assert error < 0.1
    assert abs(mean - rho**2 / (1 - rho**2)) < 4 * error


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_gaussian_learned_marginal_is_the_mutual_information(rho):
    # M4 with the exact marginal is the sample mean of log p(y|x)/p(y), so I = -log(1-rho^2)/2 within 4 standard errors
    mean, error = over_draws(lambda design, own, marginal: learned_marginal(own, marginal), rho)
    assert error < 0.02
    assert abs(mean - -0.5 * np.log(1 - rho**2)) < 4 * error


def test_gaussian_bounds_bracket_the_mutual_information():
    # InfoNCE <= I <= L1Out <= CLUB in expectation (Jensen: log-mean-exp >= mean); rho = 0.8, I = 0.511
    rho = 0.8
    information = -0.5 * np.log(1 - rho**2)
    lower, lower_error = over_draws(lambda design, own, marginal: infonce(design), rho)
    upper, upper_error = over_draws(lambda design, own, marginal: l1out(design), rho)
    loose, _ = over_draws(lambda design, own, marginal: club(design), rho)
    assert lower < information + 4 * lower_error
    assert upper > information - 4 * upper_error
    assert upper < loose


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.5])
def test_binary_symmetric_channel(epsilon):
    # Every (x, y) pair counted as often as it occurs. E own = (1-e) log(1-e) + e log e; elsewhere x is uniform:
    # (log(1-e) + log e)/2. The difference is (1/2 - e) log((1-e)/e). Negatives here are both contexts, once each.
    right, wrong = np.log(1 - epsilon), np.log(epsilon)
    flips = round(100 * epsilon)
    rows = [[right, right, wrong]] * (100 - flips) + [[wrong, right, wrong]] * flips
    assert club(rows) == pytest.approx((0.5 - epsilon) * np.log((1 - epsilon) / epsilon), abs=1e-12)
    # L1Out over both contexts once each: log-mean-exp = log(1/2), the exact marginal, so it is I = log 2 - H(e)
    entropy = -(1 - epsilon) * right - epsilon * wrong
    assert l1out(rows) == pytest.approx(np.log(2) - entropy, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.5])
def test_binary_symmetric_channel_by_the_learned_marginal(epsilon):
    # every pair as often as it occurs, the marginal of y uniform: I = ln 2 - H(e), and 0 for e = 1/2
    flips = round(100 * epsilon)
    own = [np.log(1 - epsilon)] * (100 - flips) + [np.log(epsilon)] * flips
    entropy = -(1 - epsilon) * np.log(1 - epsilon) - epsilon * np.log(epsilon)
    assert learned_marginal(own, [np.log(0.5)] * 100) == pytest.approx(np.log(2) - entropy, abs=1e-12)


@given(seed=seeds, n=st.integers(2, 3))
@settings(max_examples=25, deadline=None)
def test_sandwich_in_expectation_exactly(seed, n):
    # A random joint p(x, y) of 2 x 3 values and its exact conditional. The expectation over n independent pairs is a sum
    # over all (2 * 3)^n samples, so nothing is left to chance: InfoNCE <= I, InfoNCE <= log n, I <= L1Out <= CLUB, and
    # CLUB = I + KL(p(x)p(y) || p(x,y)) for any n
    joint = np.random.default_rng(seed).dirichlet(np.full(6, 0.7)).reshape(2, 3) * 0.99 + 0.01 / 6
    p_x, p_y = joint.sum(axis=1), joint.sum(axis=0)
    conditional, pairs = np.log(joint / p_x[:, None]), [(x, y) for x in range(2) for y in range(3)]
    expected = dict.fromkeys((infonce, learned_marginal, l1out, club), 0.0)
    for sample in product(pairs, repeat=n):
        x, y = (list(values) for values in zip(*sample, strict=True))
        weight, matrix = np.prod(joint[x, y]), conditional[np.ix_(x, y)]
        for estimate in (infonce, l1out, club):
            expected[estimate] += weight * estimate(full_design(matrix))
        expected[learned_marginal] += weight * learned_marginal(np.diag(matrix), np.log(p_y[y]))
    information = (joint * np.log(joint / np.outer(p_x, p_y))).sum()
    reverse = (np.outer(p_x, p_y) * np.log(np.outer(p_x, p_y) / joint)).sum()
    assert expected[learned_marginal] == pytest.approx(information, abs=1e-10)
    assert expected[infonce] <= min(information, np.log(n)) + 1e-10
    assert information - 1e-10 <= expected[l1out] <= expected[club] + 1e-10
    assert expected[club] == pytest.approx(information + reverse, abs=1e-10)


@given(seed=seeds, shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_what_shifts_and_scales_do(seed, shift, scale):
    # A constant per response (a longer text, another language) leaves every estimate; nats to nats per token (one
    # length) scales M1 and M4 alone; log-mean-exp is no such linear thing: it scales only where the negatives agree
    design = random_design(seed)
    rows = shift * np.random.default_rng(seed).normal(size=(len(design), 1))
    for estimate in (club, l1out, infonce):
        assert estimate(design + rows) == pytest.approx(estimate(design), abs=1e-8)
    assert club(design * scale) == pytest.approx(scale * club(design), abs=1e-8)
    assert learned_marginal(*(scale * design[:, :2].T)) == pytest.approx(
        scale * learned_marginal(*design[:, :2].T), abs=1e-8
    )
    flat = np.concatenate([design[:, :1], np.repeat(design[:, 1:2], 3, axis=1)], axis=1)
    assert l1out(flat * scale) == pytest.approx(scale * l1out(flat), abs=1e-8)


@given(seed=seeds)
def test_the_estimates_of_one_response_are_ordered(seed):
    # Jensen: log-mean-exp >= mean, so D1 by L1Out <= D1 by CLUB. With g = D1 by L1Out, InfoNCE's summand is
    # -log((1 + K e^-g)/(K + 1)), which has the sign of g and is no further from 0
    design = random_design(seed)
    k = design.shape[1] - 1
    g = pointwise(design, "l1out")
    assert (g <= pointwise(design, "club") + 1e-9).all()
    summands = [infonce(row[None]) for row in design]
    np.testing.assert_allclose(summands, -np.log((1 + k * np.exp(-g)) / (k + 1)), atol=1e-9)
    assert (np.abs(summands) <= np.abs(g) + 1e-9).all() and (np.sign(summands) == np.sign(g)).all()


def test_infonce_saturates_at_log_n():
    # contexts that tell the responses apart entirely: the positive's share of the sum goes to 1, so the mean to log N
    matrix = np.where(np.eye(6, dtype=bool), 0.0, -1000.0)
    assert infonce(full_design(matrix)) == pytest.approx(np.log(6))
    assert club(full_design(matrix)) == pytest.approx(1000)


@given(seeds, st.floats(0.1, 300))
def test_infonce_is_at_most_log_n(seed, scale):
    design = np.random.default_rng(seed).normal(size=(5, 9)) * scale
    assert infonce(design) <= np.log(9) + 1e-9


@given(st.integers(2, 60), st.integers(1, 80), seeds)
def test_offsets_are_distinct_and_never_the_positive(n, k, seed):
    offsets = circulant_offsets(n, k, seed)
    assert len(offsets) == len(set(offsets.tolist())) == min(k, n - 1)
    assert offsets.min() >= 1 and offsets.max() <= n - 1
    assert offsets.tolist() == circulant_offsets(n, k, seed).tolist()
    contexts = neighbours(n, offsets)
    assert not (contexts == np.arange(n)[:, None]).any()
    # every context scores the same number of responses, K of them
    assert np.bincount(contexts.ravel(), minlength=n).tolist() == [len(offsets)] * n


@given(st.integers(2, 40), st.integers(1, 2000), seeds)
def test_random_pairs_are_distinct_and_never_ones_own(n, pairs, seed):
    drawn = random_pairs(n, pairs, seed)
    assert drawn.shape == (min(pairs, n * (n - 1)), 2) and drawn.min() >= 0 and drawn.max() < n
    assert len({(i, j) for i, j in drawn.tolist()}) == len(drawn)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert drawn.tolist() == sorted(random_pairs(n, pairs, seed).tolist())


def test_every_pair_is_drawn_alike():
    # 12 pairs of 4, 5 of them a draw: each in 5/12 of 3000 draws = 1250, standard error sqrt(3000 * 5/12 * 7/12) = 27
    counts = np.zeros((4, 4))
    for seed in range(3000):
        i, j = random_pairs(4, 5, seed).T
        counts[i, j] += 1
    assert np.abs(counts[~np.eye(4, dtype=bool)] - 1250).max() < 4 * 27


def test_club_of_all_pairs_is_club():
    # 1,000 pairs asked of 20 responses: all 380 are taken, so the mean of the negatives is that of the off-diagonal
    matrix = np.random.default_rng(0).normal(-20, 5, size=(20, 20))
    i, j = random_pairs(20, 1000, 0).T
    assert club_pairs(np.diag(matrix), matrix[i, j]) == pytest.approx(club(full_design(matrix)), abs=1e-10)


def test_club_of_random_pairs_is_unbiased_for_club():
    # 40 pairs of 870; the mean over 400 seeds is within 4 standard errors, and the spread is that of draws without
    # replacement: s^2/40 (1 - 40/870), within 15 % (4 standard errors of a standard deviation of 400 draws)
    matrix = np.random.default_rng(1).normal(-20, 5, size=(30, 30))
    values = []
    for seed in range(400):
        i, j = random_pairs(30, 40, seed).T
        values.append(club_pairs(np.diag(matrix), matrix[i, j]))
    off = matrix[~np.eye(30, dtype=bool)]
    spread = np.sqrt(off.var(ddof=1) / 40 * (1 - 40 / 870))
    assert abs(np.mean(values) - club(full_design(matrix))) < 4 * spread / np.sqrt(400)
    assert np.std(values) == pytest.approx(spread, rel=0.15)


def test_club_of_pairs_by_hand():
    # token means: (-1 - 3)/2 - (-4 - 5 - 6)/3 = -2 + 5 = 3
    assert club_pairs([-1, -3], [-4, -5, -6]) == 3
    with pytest.raises(AssertionError, match="leave out"):
        club_pairs([-1, -3], [-4, np.nan])
    with pytest.raises(AssertionError, match="2 positives, 0 negatives"):
        club_pairs([-1, -3], [])
    with pytest.raises(AssertionError, match="n=1"):
        random_pairs(1, 10, 0)


@pytest.mark.parametrize("agg", ["club", "l1out"])
@pytest.mark.parametrize("k", [3, 9])
def test_mean_of_d2_is_remi_exactly(agg, k):
    # the full design of 10 (K = 9) and a circulant one (K = 3): mean remi_i against I(Y_theta) - I(Y*), each by its
    # own estimate over the same design; M1 by its definition, means of diagonal and off-diagonal entries
    generator = np.random.default_rng(3)
    n = 10
    estimate = {"club": club, "l1out": l1out}[agg]
    contexts = np.concatenate([np.arange(n)[:, None], neighbours(n, circulant_offsets(n, k, 0))], axis=1)
    matrices = [generator.normal(-20, 5, size=(n, n)) for _ in range(2)]
    ours, reference = [matrix[contexts, np.arange(n)[:, None]] for matrix in matrices]
    result = emi(ours[:, 0], outside(ours, agg), reference[:, 0], outside(reference, agg))
    assert result.remi.mean() == pytest.approx(estimate(ours) - estimate(reference), abs=1e-12)
    assert result.means["remi"] == pytest.approx(result.means["mi_response"] - result.means["mi_reference"], abs=1e-12)
    if agg == "club" and k == n - 1:
        off = ~np.eye(n, dtype=bool)
        by_definition = [np.diag(matrix).mean() - matrix[off].mean() for matrix in matrices]
        assert result.remi.mean() == pytest.approx(by_definition[0] - by_definition[1], abs=1e-10)


@pytest.mark.parametrize("agg", ["club", "l1out"])
@given(seed=seeds)
def test_d3_likelihood_gap_is_remi_plus_register_gap(agg, seed):
    ours, reference = random_design(seed), random_design(seed + 1)
    result = emi(ours[:, 0], outside(ours, agg), reference[:, 0], outside(reference, agg))
    np.testing.assert_allclose(result.likelihood_gap, ours[:, 0] - reference[:, 0], atol=1e-9)
    assert result.means["likelihood_gap"] == pytest.approx(result.means["remi"] + result.means["register_gap"], abs=1e-9)


def test_an_error_shared_by_every_context_is_register_not_information():
    # y_theta is 7 nats less likely than y* in its own and in every other context (say, in the wrong language):
    # R-EMI = 0, M = -7
    reference = random_design(0)
    for agg in ("club", "l1out"):
        result = emi(reference[:, 0] - 7, outside(reference - 7, agg), reference[:, 0], outside(reference, agg))
        assert result.means["remi"] == pytest.approx(0, abs=1e-9)
        assert result.means["register_gap"] == pytest.approx(-7)


@given(seed=seeds)
def test_scenarios_and_negatives_may_come_in_any_order(seed):
    design = random_design(seed)
    generator = np.random.default_rng(seed)
    shuffled = design[generator.permutation(len(design))]
    columns = np.concatenate([[0], 1 + generator.permutation(design.shape[1] - 1)])
    for estimate in (club, l1out, infonce):
        assert estimate(shuffled[:, columns]) == pytest.approx(estimate(design), abs=1e-9)


@given(seed=seeds)
def test_remid_flips_its_sign_and_is_zero_against_itself(seed):
    generator = np.random.default_rng(seed)
    p, q = generator.normal(size=6), generator.normal(size=9)
    assert remid(p, q) == -remid(q, p)
    assert remid(p, p) == 0


@given(seed=seeds, shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_remid_is_blind_to_order_and_to_what_p_and_q_share(seed, shift, scale):
    generator = np.random.default_rng(seed)
    p, q = generator.normal(size=6), generator.normal(size=9)
    assert remid(generator.permutation(p), generator.permutation(q)) == pytest.approx(remid(p, q), abs=1e-12)
    assert remid(p + shift, q + shift) == pytest.approx(remid(p, q), abs=1e-10)
    assert remid(p * scale, q * scale) == pytest.approx(scale * remid(p, q), abs=1e-10)


@pytest.mark.parametrize("agg", ["club", "l1out"])
@given(seed=seeds)
def test_a_model_that_answers_as_the_reference_has_no_remi(agg, seed):
    # y_theta = y* in every scenario: R-EMI = M = 0 under any distribution, so R-EMID = 0 between any two
    design = random_design(seed)
    result = emi(design[:, 0], outside(design, agg), design[:, 0], outside(design, agg))
    assert result.means["remi"] == result.means["register_gap"] == 0
    # and swapping responses and references flips both
    other = random_design(seed + 1)
    forth = emi(other[:, 0], outside(other, agg), design[:, 0], outside(design, agg)).means
    back = emi(design[:, 0], outside(design, agg), other[:, 0], outside(other, agg)).means
    assert forth["remi"] == pytest.approx(-back["remi"], abs=1e-12)
    assert forth["register_gap"] == pytest.approx(-back["register_gap"], abs=1e-12)


def test_remid_is_positive_when_more_is_lost_under_the_shift():
    # R-EMI(P) = -1, R-EMI(Q) = -4: R-EMID = -1 - (-4) = 3
    assert remid([-1, -1], [-3, -5]) == 3


def test_component_remi_by_hand():
    # I_u(Y_theta) = -10 - (-11) = 1; I_u(Y*) = -5 - (-12) = 7; R-EMI_u = -6: the response no longer uses the persona
    assert component_remi([-10], [-11], [-5], [-12]).tolist() == [-6]


@given(seed=seeds)
@settings(max_examples=20)
def test_missing_negatives_are_left_out_of_the_aggregate(seed):
    # a design with one negative missing in every row is the design without that column
    design = random_design(seed)
    holed = design.copy()
    holed[:, 2] = np.nan
    for agg in ("club", "l1out"):
        np.testing.assert_allclose(pointwise(holed, agg), pointwise(np.delete(design, 2, axis=1), agg), atol=1e-9)


def test_a_row_without_negatives_has_no_number():
    for agg in ("club", "l1out"):
        assert np.isnan(outside([[-1.0, np.nan, np.nan]], agg)).all()


def test_l1out_is_stable_far_from_zero_and_for_the_impossible():
    # log-mean-exp of -5000, -5000 is -5000; of -inf, -inf (impossible elsewhere) it is -inf, and D1 is +inf
    assert pointwise([[-10.0, -5000.0, -5000.0]], "l1out").tolist() == [4990]
    assert pointwise([[-10.0, -np.inf, -np.inf]], "l1out").tolist() == [np.inf]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((3, 1)), np.zeros((0, 3))])
def test_shapes_are_asserted_at_entry(wrong):
    with pytest.raises(AssertionError, match="a design is"):
        club(wrong)
    with pytest.raises(AssertionError, match="expected"):
        full_design(np.zeros((2, 3)))
    with pytest.raises(AssertionError, match="vectors of one length"):
        learned_marginal([1.0], [1.0, 2.0])
