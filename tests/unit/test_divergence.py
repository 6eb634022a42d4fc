"""The representation JSD against closed forms, and its null against calibration; derivations beside the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo.errors import ScoreError
from coevo.maths import divergence
from coevo.maths.divergence import Divergence, representation_jsd

seeds = st.integers(0, 2**32 - 1)


def raw(x, y):
    return representation_jsd(x, y, permutations=1).raw


def shannon(p):
    return -sum(value * np.log(value) for value in p if value > 0)


def classical_jsd(p, q):
    return shannon((p + q) / 2) - shannon(p) / 2 - shannon(q) / 2


def by_definition(x, y):
    """D from the D x D covariances, without a Gram matrix."""

    def covariance(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.mean([np.outer(row, row) for row in unit], axis=0)

    def entropy(matrix):
        return shannon(np.linalg.eigvalsh(matrix))

    c_x, c_y = covariance(x), covariance(y)
    return entropy((c_x + c_y) / 2) - entropy(c_x) / 2 - entropy(c_y) / 2


def one_hot(counts):
    return np.repeat(np.eye(len(counts)), counts, axis=0)


def test_identical_samples_are_at_zero():
    x = np.random.default_rng(0).normal(size=(20, 7))
    result = representation_jsd(x, x[::-1], permutations=50)
    assert result.raw == pytest.approx(0, abs=1e-12)
    # the null's divisions split the pairs of equal rows, so all of them lie above: p = (1 + 50) / 51
    assert result.p_value == 1
    assert result.corrected == 0


def test_a_constant_embedding_is_no_evidence():
    # every C is the same rank-one matrix: all entropies are 0, in the null too, so every division ties but for rounding
    result = representation_jsd(np.ones((5, 3)), 2 * np.ones((8, 3)))
    assert result.to_dict() == pytest.approx(
        {"raw": 0, "null_mean": 0, "null_high": 0, "p_value": 1, "corrected": 0}, abs=1e-12
    )


def test_orthogonal_embeddings_give_the_classical_jsd_whatever_the_sizes():
    # One-hot rows: f f^T is diagonal, so C = diag(p) with p the shares of the categories; its eigenvalues are p and S is
    # Shannon's entropy. Shares (1/2, 1/4, 1/4, 0) of 8 rows and (0, 1/3, 1/3, 1/3) of 3; the mixture weighs 1/2 each.
    p, q = np.array([1 / 2, 1 / 4, 1 / 4, 0]), np.array([0, 1 / 3, 1 / 3, 1 / 3])
    assert raw(one_hot([4, 2, 2, 0]), one_hot([0, 1, 1, 1])) == pytest.approx(classical_jsd(p, q), abs=1e-12)


def test_disjoint_is_ln_2():
    # orthogonal supports: the mixture's eigenvalues are those of both, halved: S = ln 2 + S_x/2 + S_y/2
    assert raw(one_hot([3, 5, 0, 0]), one_hot([0, 0, 2, 1])) == pytest.approx(np.log(2), abs=1e-12)


def test_two_directions_by_hand():
    # x all along e1, y all at angle t to it: S_x = S_y = 0; the mixture of two pure states with overlap cos t has the
    # eigenvalues (1 +- cos t)/2. t = 60 degrees: 3/4 and 1/4, so D = (3/4) ln(4/3) + (1/4) ln 4 = 0.5623
    x, y = np.tile([1.0, 0.0], (4, 1)), np.tile([0.5, np.sqrt(0.75)], (9, 1))
    assert raw(x, y) == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4), abs=1e-12)


@pytest.mark.parametrize("n, m, d", [(6, 6, 40), (9, 4, 40), (9, 4, 11), (9, 4, 7), (12, 12, 3), (30, 5, 3)])
def test_gram_and_covariance_routes_agree(n, m, d):
    # sizes on both sides of D for the samples and for their union, against the covariances of the definition, and for
    # a shuffled division as the null uses it
    generator = np.random.default_rng(d)
    x, y = generator.normal(0.3, 1, size=(n, d)), generator.normal(-0.2, 2, size=(m, d))
    assert raw(x, y) == pytest.approx(by_definition(x, y), abs=1e-10)
    unit = np.concatenate([x, y]) / np.linalg.norm(np.concatenate([x, y]), axis=1, keepdims=True)
    order = generator.permutation(n + m)
    divided = divergence._Divisions(unit, n).jsd(order)
    assert divided == pytest.approx(by_definition(unit[order[:n]], unit[order[n:]]), abs=1e-10)


def test_the_null_is_that_of_permuted_rows():
    # the seeded divisions, each by the definition
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(7, 4)), generator.normal(1, 1, size=(5, 4))
    result = representation_jsd(x, y, permutations=20, seed=9)
    rows, shuffle = np.concatenate([x, y]), np.random.default_rng(9)
    orders = [shuffle.permutation(12) for _ in range(20)]
    null = np.array([by_definition(rows[order[:7]], rows[order[7:]]) for order in orders])
    assert result.null_mean == pytest.approx(null.mean(), abs=1e-10)
    assert result.null_high == pytest.approx(np.quantile(null, 0.95), abs=1e-10)
    assert result.p_value == pytest.approx((1 + (null >= result.raw).sum()) / 21)
    assert result.corrected == pytest.approx(max(result.raw - null.mean(), 0), abs=1e-10)


def test_repeated_texts_need_no_larger_matrices():
    # 50 distinct embeddings of 200 numbers in 400 rows span 50 dimensions
    rows = np.random.default_rng(0).normal(size=(50, 200))
    pooled = rows[np.arange(400) % 50]
    assert divergence._spanned(pooled).shape == (400, 50)


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_symmetric_and_blind_to_order_length_and_rotation(seed, scale):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(8, 5)), generator.normal(size=(11, 5))
    value = raw(x, y)
    rotation = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    assert 0 <= value <= np.log(2)
    assert raw(y, x) == pytest.approx(value, abs=1e-10)
    assert raw(generator.permutation(x), generator.permutation(y)) == pytest.approx(value, abs=1e-10)
    assert raw(x * scale, y * generator.uniform(0.1, 10, size=(11, 1))) == pytest.approx(value, abs=1e-10)
    assert raw(x @ rotation, y @ rotation) == pytest.approx(value, abs=1e-10)
    # repeating a whole sample leaves C as it is
    assert raw(np.concatenate([x, x, x]), y) == pytest.approx(value, abs=1e-10)


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_never_above_the_classical_jsd_of_the_same_counts(seed):
    # p -> C_p is linear, positive and keeps the trace, and such a map brings no two states further apart
    generator = np.random.default_rng(seed)
    k = int(generator.integers(2, 7))
    embeddings = generator.normal(size=(k, int(generator.integers(1, 6))))
    first, second = generator.integers(0, k, size=12), generator.integers(0, k, size=25)
    shares = [np.bincount(sample, minlength=k) / len(sample) for sample in (first, second)]
    assert raw(embeddings[first], embeddings[second]) <= classical_jsd(*shares) + 1e-10


@pytest.mark.parametrize("n, m", [(40, 40), (20, 60)])
def test_samples_of_one_distribution_lie_within_the_null(n, m):
    # raw is exchangeable with its permutations, so it exceeds their 95 % quantile in about 5 of 100 draws. Its mean over
    # draws is the null's, within 4 standard errors; what clipping at 0 leaves of it is small beside the raw value
    generator = np.random.default_rng(n)
    results = []
    for seed in range(100):
        x, y = generator.normal(0.5, 1, size=(n, 12)), generator.normal(0.5, 1, size=(m, 12))
        results.append(representation_jsd(x, y, permutations=60, seed=seed))
    assert sum(result.raw <= result.null_high for result in results) >= 90
    freed = np.array([result.raw - result.null_mean for result in results])
    assert abs(freed.mean()) < 4 * freed.std() / np.sqrt(100)
    assert np.mean([result.corrected for result in results]) < 0.1 * np.mean([result.raw for result in results])


def test_a_shift_is_found_and_its_corrected_size_is_near_the_truth():
    # 20 orthogonal categories, P uniform, Q with .07 on ten and .03 on ten: D = 0.0210 exactly. With 100 rows each the
    # raw value is about (20-1)/8 * (1/100 + 1/100) = 0.048 too large; raw - null_mean is within 4 standard errors of D.
    p, q = np.full(20, 0.05), np.repeat([0.07, 0.03], 10)
    truth = classical_jsd(p, q)
    generator = np.random.default_rng(3)
    results = []
    for seed in range(60):
        x, y = (np.eye(20)[generator.choice(20, size=100, p=shares)] for shares in (p, q))
        results.append(representation_jsd(x, y, permutations=40, seed=seed))
    freed = np.array([result.raw - result.null_mean for result in results])
    assert np.mean([result.raw for result in results]) > 3 * truth
    assert abs(freed.mean() - truth) < 4 * freed.std() / np.sqrt(60)
    far = representation_jsd(one_hot([30, 30, 0]), one_hot([0, 0, 40]), permutations=99)
    assert far.p_value == 1 / 100
    assert far.raw > far.null_high


def test_deterministic_by_seed():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(10, 4)), generator.normal(size=(12, 4))
    assert representation_jsd(x, y, seed=5) == representation_jsd(x, y, seed=5)
    assert representation_jsd(x, y, seed=5).null_mean != representation_jsd(x, y, seed=6).null_mean


def test_as_json_names_every_number():
    result = Divergence(raw=0.3, null_mean=0.1, null_high=0.15, p_value=0.01)
    assert result.to_dict() == {"raw": 0.3, "null_mean": 0.1, "null_high": 0.15, "p_value": 0.01, "corrected": 0.3 - 0.1}


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_a_row_without_a_direction_is_named(wrong):
    x, y = np.ones((4, 3)), np.ones((5, 3))
    y[2] = wrong
    with pytest.raises(ScoreError, match=r"row 2 of the second sample \(1 of 5 rows\).*could not be embedded"):
        representation_jsd(x, y)


def test_two_embedders_do_not_mix():
    with pytest.raises(ScoreError, match="3 numbers and the second's 4; make both with one embedder"):
        representation_jsd(np.ones((4, 3)), np.ones((5, 4)))


def test_shapes_are_asserted_at_entry():
    with pytest.raises(AssertionError, match="N >= 2"):
        representation_jsd(np.ones((1, 3)), np.ones((5, 3)))
    with pytest.raises(AssertionError, match="needs a permutation"):
        representation_jsd(np.ones((2, 3)), np.ones((5, 3)), permutations=0)
