"""Advantages and returns against examples worked by hand, and against what they must be at both ends of λ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coevo.maths.advantages import explained_variance, gae, token_rewards


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, values and mask of completions of 5, 2, 1 and 0 tokens; what is masked holds numbers that must not count."""
    rng = np.random.default_rng(seed)
    mask = np.arange(5) < np.array([[5], [2], [1], [0]])
    return rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), mask


def test_gae_equals_the_example_worked_by_hand() -> None:
    # γ = λ = ½, r = (1, 0, 2), V = (½, 1, 1½), V = 0 after the end:
    #   δ₃ = 2 - 1½          = ½      A₃ = ½
    #   δ₂ = 0 + ½·1½ - 1    = -¼     A₂ = -¼ + ¼·½       = -⅛
    #   δ₁ = 1 + ½·1 - ½     = 1      A₁ = 1 + ¼·(-⅛)     = 31/32
    # and of the second, with one token, A = 3 - 1 = 2
    rewards, values = [[1, 0, 2], [3, 99, 99]], [[0.5, 1, 1.5], [1, 99, 99]]
    mask = [[True, True, True], [True, False, False]]
    advantages = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    np.testing.assert_allclose(advantages, [[31 / 32, -1 / 8, 1 / 2], [2, 0, 0]])
    # what the value head learns is A + V
    np.testing.assert_allclose((advantages + values)[0], [47 / 32, 7 / 8, 2])


def test_at_lambda_one_it_is_the_reward_to_go_less_the_value() -> None:
    rewards, values, mask = batch()
    to_go = np.cumsum((rewards * mask)[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(gae(rewards, values, mask, gamma=1, lam=1), (to_go - values) * mask, atol=1e-12)


def test_at_lambda_zero_it_is_one_steps_surprise() -> None:
    rewards, values, mask = batch()
    known = values * mask
    following = np.concatenate([known[:, 1:], np.zeros((4, 1))], axis=1)
    expected = (rewards + 0.9 * following - values) * mask
    np.testing.assert_allclose(gae(rewards, values, mask, gamma=0.9, lam=0), expected, atol=1e-12)


def test_values_that_are_right_leave_no_advantage() -> None:
    # V_t = r_t + γ V_{t+1} makes every δ zero, whatever λ
    rewards, _, mask = batch(1)
    values = gae(rewards, np.zeros_like(rewards), mask, gamma=0.8, lam=1)
    np.testing.assert_allclose(gae(rewards, values, mask, gamma=0.8, lam=0.6), 0, atol=1e-12)


def test_the_reward_is_at_the_last_token_and_the_divergence_at_each() -> None:
    mask = [[True, True, False], [False, False, False], [True, True, True]]
    log_ratio = [[0.2, -0.4, 9.0], [9.0, 9.0, 9.0], [1.0, 0.0, -1.0]]
    found = token_rewards([4.0, 7.0, 5.0], log_ratio, mask, kl=0.5)
    # -½·0.2 and -½·(-0.4) + 4; nothing for the empty one; -½, 0 and ½ + 5
    np.testing.assert_allclose(found, [[-0.1, 4.2, 0], [0, 0, 0], [-0.5, 0, 5.5]])


def test_padding_in_front_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="tokens come first"):
        gae([[0.0, 1.0]], [[0.0, 0.0]], [[False, True]], gamma=1, lam=1)


def test_explained_variance_of_perfect_constant_and_opposite_predictions() -> None:
    returns = [1.0, 2.0, 3.0, 6.0]
    assert explained_variance(returns, returns) == 1
    assert explained_variance(returns, [5.0] * 4) == pytest.approx(0)
    # Var(2 G) = 4 Var(G)
    assert explained_variance(returns, [-x for x in returns]) == pytest.approx(-3)
    assert math.isnan(explained_variance([2.0, 2.0], [1.0, 3.0])) and math.isnan(explained_variance([], []))
