"""What a value head is for: advantages and returns by generalised advantage estimation, and how well the head predicts.

Schulman et al. 2016 (arXiv 1506.02438, GAE) and 2017 (arXiv 1707.06347, PPO); the divergence in the reward as in Ziegler
et al. 2019 (arXiv 1909.08593). A state is a prompt with the tokens so far, an action is the next token, and the episode ends
with the completion.

Shape suffixes: B completions, T tokens, padding on the right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def token_rewards(final: ArrayLike, log_ratio: ArrayLike, mask: ArrayLike, kl: float) -> Floats:
    """Spreads a completion's reward over its tokens: the divergence at each, the reward itself at the last.

    r_t = -kl · (log π(a_t|s_t) - log π_ref(a_t|s_t)) + [t is the last token] · R (Ziegler et al. 2019, eq. 2).

    Args:
        final: (B,) rewards R of whole completions.
        log_ratio: (B, T) log π - log π_ref of the sampled tokens in nats.
        mask: (B, T) true on a completion's tokens, which come first.
        kl: weight of the divergence, in rewards per nat.

    Returns:
        (B, T), 0 where the mask is false. A completion without tokens has nowhere to put its reward, which is left out.
    """
    kept = _mask(mask)
    rewards = np.where(kept, -kl * np.asarray(log_ratio, dtype=np.float64), 0.0)
    lengths = kept.sum(axis=1)
    some = np.flatnonzero(lengths)
    rewards[some, lengths[some] - 1] += np.asarray(final, dtype=np.float64)[some]
    return rewards


def gae(rewards: ArrayLike, values: ArrayLike, mask: ArrayLike, gamma: float, lam: float) -> Floats:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), for episodes that end with their last token.

    A_t = δ_t + γ λ A_{t+1} with δ_t = r_t + γ V(s_{t+1}) - V(s_t), and V = A = 0 after the last token. The return that a
    value head learns is A + V. With λ = 1 the advantage is the discounted reward to go less V(s_t); with λ = 0 it is δ_t.

    Args:
        rewards: (B, T) reward of each token.
        values: (B, T) V(s_t), before the token is chosen, in units of the reward.
        mask: (B, T) true on a completion's tokens, which come first.
        gamma: discount from one token to the next, 0 to 1.
        lam: λ, 0 to 1; lower trusts the values more, which lowers variance and adds their bias.

    Returns:
        (B, T) advantages, 0 where the mask is false.

    Example:
        >>> gae([[0.0, 1.0]], [[0.5, 0.5]], [[True, True]], gamma=1.0, lam=0.5).tolist()
        [[0.25, 0.5]]
    """
    kept = _mask(mask)
    given = np.where(kept, np.asarray(rewards, dtype=np.float64), 0.0)
    predicted = np.where(kept, np.asarray(values, dtype=np.float64), 0.0)
    assert given.shape == predicted.shape == kept.shape, (given.shape, predicted.shape, kept.shape)
    advantages = np.zeros_like(given)
    later_value, later_advantage = np.zeros(len(given)), np.zeros(len(given))
    for t in reversed(range(given.shape[1])):
        delta = given[:, t] + gamma * later_value - predicted[:, t]
        later_advantage = np.where(kept[:, t], delta + gamma * lam * later_advantage, 0.0)
        later_value = predicted[:, t]
        advantages[:, t] = later_advantage
    return advantages


def explained_variance(returns: ArrayLike, values: ArrayLike) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect prediction, 0 for a constant, below 0 for worse than one.

    Args:
        returns: (N,) what came.
        values: (N,) what was predicted.

    Returns:
        NaN where the returns do not vary, since nothing is to be explained.
    """
    came, predicted = np.asarray(returns, dtype=np.float64), np.asarray(values, dtype=np.float64)
    spread = float(np.var(came)) if came.size else 0.0
    return 1.0 - float(np.var(came - predicted)) / spread if spread else float("nan")


def _mask(mask: ArrayLike) -> Bools:
    kept = np.asarray(mask, dtype=np.bool_)
    assert kept.ndim == 2, f"mask has shape {kept.shape}, expected (B, T)"
    assert not (kept[:, 1:] & ~kept[:, :-1]).any(), "a completion's tokens come first"
    return kept
