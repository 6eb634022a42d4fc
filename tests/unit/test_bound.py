"""B1 and B2 by hand, and B1 against the exact R-EMID of discrete worlds: where it holds, and where it does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo.errors import ScoreError
from coevo.maths.bound import emid_bound

LN2 = math.log(2)
divergences = st.floats(0, LN2)


def entropy(p):
    """Shannon's, nats, of each row: (..., K) to (...)."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def jsd(p, q):
    return max(entropy((p + q) / 2) - entropy(p) / 2 - entropy(q) / 2, 0.0)


def information(p_x, conditional):
    """I(X; Y) of p(x) and rows p(y|x)."""
    return entropy(p_x @ conditional) - p_x @ entropy(conditional)


class World:
    """Independent components u, c, d under P and Q, one reference conditional p(y|u,c,d), one model theta."""

    def __init__(self, p, q, reference, theta):
        self.p_z, self.q_z = p, q
        self.p, self.q = (np.einsum("u,c,d->ucd", *parts).ravel() for parts in (p, q))
        self.reference, self.theta = reference, theta

    def remid(self):
        remi = [information(x, self.theta) - information(x, self.reference) for x in (self.p, self.q)]
        return remi[0] - remi[1]

    def largest_entropy(self):
        return (entropy(self.reference) + entropy(self.theta)).max()

    def b1(self):
        context = {z: jsd(p, q) for z, p, q in zip("ucd", self.p_z, self.q_z, strict=True)}
        responses = [jsd(x @ self.theta, x @ self.reference) for x in (self.p, self.q)]
        return emid_bound(context, *responses, entropy=self.largest_entropy())


def random_world(generator):
    sizes, n_y = generator.integers(2, 4, size=3), int(generator.integers(2, 6))
    concentration = generator.choice([0.05, 0.2, 1.0, 3.0])
    p = [generator.dirichlet(np.full(n, concentration)) for n in sizes]
    q = [generator.dirichlet(np.full(len(x), concentration)) if generator.random() < 0.7 else x for x in p]
    reference, theta = generator.dirichlet(np.full(n_y, concentration), size=(2, int(np.prod(sizes))))
    share = generator.choice([0.0, generator.random()])
    return World(p, q, reference, share * reference + (1 - share) * theta)


def test_b1_by_hand():
    # D = .04, .09, .16 have the roots .2, .3, .4; sqrt(2/3) * 3 = 2.4495, so shares of 0.4899, 0.7348, 0.9798.
    # Delta = .0005 + .0011 = .0016 = .2^4, so 8 * .2 = 1.6. Together 3.8045
    bound = emid_bound({"u": 0.04, "c": 0.09, "d": 0.16}, 0.0005, 0.0011, entropy=3.0)
    assert bound.shares == pytest.approx({"u": math.sqrt(6) * 0.2, "c": math.sqrt(6) * 0.3, "d": math.sqrt(6) * 0.4})
    assert bound.response == pytest.approx(1.6)
    assert bound.value == pytest.approx(math.sqrt(6) * 0.9 + 1.6)
    assert bound.value == pytest.approx(3.8045, abs=5e-5)
    assert bound.largest == "d"


def test_b2_by_hand():
    # roots .2, .3, .1; fourth roots of .0016 and .0081 are .2 and .3: each by itself, not of their sum
    bound = emid_bound({"u": 0.04, "c": 0.09, "d": 0.01}, 0.0016, 0.0081)
    assert bound.shares == pytest.approx({"u": 0.2, "c": 0.3, "d": 0.1})
    assert bound.response == pytest.approx(0.5)
    assert bound.value == pytest.approx(1.1)
    assert bound.largest == "c"


def test_no_shift_no_bound():
    for h in (None, 4.0):
        bound = emid_bound({"u": 0, "c": 0, "d": 0}, 0, 0, entropy=h)
        assert (bound.value, bound.largest) == (0, None)


def test_among_equals_the_first_is_named():
    assert emid_bound({"d": 0.2, "c": 0.2, "u": 0.1}, 0, 0).largest == "c"


@given(divergences, divergences, divergences, divergences, divergences, st.none() | st.floats(0, 100))
def test_the_value_is_the_sum_of_its_terms(u, c, d, response_p, response_q, h):
    bound = emid_bound({"u": u, "c": c, "d": d}, response_p, response_q, entropy=h)
    assert bound.value == pytest.approx(sum(bound.shares.values()) + bound.response)
    assert bound.largest is None or bound.shares[bound.largest] == max(bound.shares.values())


@given(st.lists(divergences, min_size=5, max_size=5), st.integers(0, 4), divergences, st.none() | st.floats(0.01, 100))
def test_monotone_in_each_divergence(values, place, other, h):
    low, high = ([*values[:place], value, *values[place + 1 :]] for value in sorted([values[place], other]))
    smaller, larger = (emid_bound(dict(zip("ucd", v, strict=False)), v[3], v[4], entropy=h) for v in (low, high))
    assert smaller.value <= larger.value
    if high[place] > low[place] + 1e-6:
        assert smaller.value < larger.value


@given(divergences, st.floats(0, 50), st.floats(0, 50))
def test_b1_grows_with_the_entropy_in_proportion(d, h, more):
    context = {"u": d, "c": 0.1, "d": 0.0}
    small, large = (emid_bound(context, 0.1, 0.1, entropy=value) for value in (h, h + more))
    assert large.value - small.value == pytest.approx(math.sqrt(2 / 3) * more * (math.sqrt(d) + math.sqrt(0.1)), abs=1e-9)


def test_b1_is_above_remid_in_random_worlds():
    # 2,500 small worlds from nearly deterministic to nearly uniform; R-EMID may be negative, so the ratio is signed
    generator = np.random.default_rng(0)
    worlds = [random_world(generator) for _ in range(2500)]
    ratios = np.array([world.remid() / max(world.b1().value, 1e-12) for world in worlds])
    assert ratios.max() <= 1
    # neither is a ratio of something to nothing: R-EMID reaches a sizeable part of B1 in some world
    assert ratios.max() > 0.1


def flipping(shift, n=4):
    """u is a bit, d uniform over n, c constant. u = 1: the reference says d, theta anything; u = 0: the reverse.

    Both marginals of responses are uniform, so Delta = 0; H = ln n. P(u=1) = (1 - shift)/2, Q(u=1) = (1 + shift)/2.
    R-EMI(P) = P(u=0) ln n - P(u=1) ln n = shift ln n, R-EMI(Q) = -shift ln n, R-EMID = 2 shift ln n.
    """
    p_u, any_, same = np.array([1 + shift, 1 - shift]) / 2, np.full((n, n), 1 / n), np.eye(n)
    rest = [np.ones(1), np.full(n, 1 / n)]
    return World([p_u, *rest], [p_u[::-1], *rest], np.vstack([any_, same]), np.vstack([same, any_]))


@pytest.mark.parametrize("shift", [0.05, 0.5, 1.0])
def test_b1_is_exceeded_where_one_component_shifts_and_marginals_agree(shift):
    # For a small shift D_u = shift^2/2, so B1 = sqrt(2/3) ln n shift/sqrt(2) = 0.577 shift ln n against 2 shift ln n;
    # the constant that holds is 2 sqrt(2): E_P h - E_Q h <= 2 TV max|h| and TV <= sqrt(2 D)
    world = flipping(shift)
    bound = world.b1()
    assert world.remid() == pytest.approx(2 * shift * math.log(4))
    assert bound.response == pytest.approx(0, abs=2e-3)  # 8 times the fourth root of rounding
    assert world.remid() > 2.9 * bound.value
    assert world.remid() <= 2 * math.sqrt(3) * bound.value * (1 + 1e-9)


def test_b1_is_exceeded_where_marginals_hide_a_shift_of_the_joint():
    # u and c are fair bits, equal under P and different under Q: D_u = D_c = 0. y = u; theta says u where u = c and
    # a fair bit elsewhere. R-EMI(P) = 0, R-EMI(Q) = -ln 2, R-EMID = ln 2; y is a fair bit everywhere: Delta = 0
    equal, different = np.array([0.5, 0, 0, 0.5]), np.array([0, 0.5, 0.5, 0])  # of (u, c) = 00, 01, 10, 11
    reference = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    theta = np.array([[1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1]])
    remi = [information(x, theta) - information(x, reference) for x in (equal, different)]
    assert remi[0] - remi[1] == pytest.approx(LN2)
    marginals = [x.reshape(2, 2).sum(axis=axis) for x in (equal, different) for axis in (0, 1)]
    marginals += [x @ conditional for x in (equal, different) for conditional in (theta, reference)]
    assert np.allclose(marginals, 0.5)
    assert emid_bound({"u": 0, "c": 0, "d": 0}, 0, 0, entropy=LN2).value == 0


def test_b1_is_exceeded_where_the_references_conditional_changes():
    # x a fair bit under both; the reference is a coin under P and x under Q, theta says x: R-EMI(P) = ln 2, R-EMI(Q) = 0;
    # nothing in x shifts and y is a fair bit everywhere, so every term of B1 is 0
    bit, same, coin = np.full(2, 0.5), np.eye(2), np.full((2, 2), 0.5)
    remi = [information(bit, same) - information(bit, reference) for reference in (coin, same)]
    assert remi[0] - remi[1] == pytest.approx(LN2)
    assert emid_bound({"u": 0, "c": 0, "d": 0}, jsd(bit @ same, bit @ coin), 0, entropy=LN2).value == 0


def test_b1_is_exceeded_by_deterministic_responses_of_large_support():
    # P is u = 0, Q is u = 1, d uniform over n, H = 0. u = 0: the reference always says 0, theta says d; u = 1: the
    # reverse. R-EMID = 2 ln n grows with n; B1 is at most 8 (2 ln 2)^(1/4) = 8.68, so n = 100 (9.21) is enough
    n = 100
    constant, same = np.tile(np.eye(n)[0], (n, 1)), np.eye(n)
    rest = [np.ones(1), np.full(n, 1 / n)]
    zero, one = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    world = World([zero, *rest], [one, *rest], np.vstack([constant, same]), np.vstack([same, constant]))
    assert world.remid() == pytest.approx(2 * math.log(n))
    assert world.remid() > 8 * (2 * LN2) ** 0.25 > world.b1().value


def test_what_does_hold_of_the_context_term():
    # R-EMID minus the marginals' entropy differences is E_Q h - E_P h with h = H(theta|x) - H(Y|x), so at most
    # 2 sqrt(2) H D_JS(P_X||Q_X)^1/2, and for independent components D_JS(P_X||Q_X) <= sum_z D_JS(P_z||Q_z)
    generator = np.random.default_rng(1)
    for world in (*(random_world(generator) for _ in range(500)), flipping(0.01), flipping(1.0)):
        marginals = [entropy(x @ world.theta) - entropy(x @ world.reference) for x in (world.p, world.q)]
        context_term = world.remid() - (marginals[0] - marginals[1])
        joint = jsd(world.p, world.q)
        assert context_term <= 2 * math.sqrt(2) * world.largest_entropy() * math.sqrt(joint) + 1e-9
        assert joint <= sum(jsd(p, q) for p, q in zip(world.p_z, world.q_z, strict=True)) + 1e-9


@pytest.mark.parametrize("value", [-0.01, 0.7, 1.0, math.nan])
def test_a_divergence_that_is_none_is_refused(value):
    with pytest.raises(ScoreError, match=r"the JSD of component c is .*in nats, 0 to ln 2"):
        emid_bound({"u": 0, "c": value, "d": 0}, 0, 0)
    with pytest.raises(ScoreError, match="responses on Q"):
        emid_bound({"u": 0, "c": 0, "d": 0}, 0, value)


def test_rounding_at_the_ends_is_not_an_error():
    assert emid_bound({"u": -1e-15, "c": 0, "d": 0}, 0, 0).value == 0
    assert emid_bound({"u": LN2 + 1e-15, "c": 0, "d": 0}, 0, 0).value == pytest.approx(math.sqrt(LN2))


def test_every_component_is_asked_for():
    with pytest.raises(ScoreError, match="components d, u were given; give one for each of u, c, d"):
        emid_bound({"u": 0.1, "d": 0.1}, 0, 0)
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ScoreError, match=r"the entropy is .*nats, 0 or more"):
            emid_bound({"u": 0, "c": 0, "d": 0}, 0, 0, entropy=wrong)
