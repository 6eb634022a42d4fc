"""How much of its context a response carries: the estimates M1-M4 and what they are per response (D1-D3, A1).

One layout serves every estimate: a **design**, float64 of shape (N, K+1), in nats. A row holds one response under
K+1 contexts, its own first: `design[i, 0] = log q(y_i | x_i)` and `design[i, k] = log q(y_i | x_{i+s_k})`. So the mean
over a row's negatives runs over contexts, the method's "column"; with the context fixed and other responses as
negatives the term would be the same for all answers to one prompt and vanish when a group is centred.

Shape suffixes: N responses, K negatives. Everything here is numpy, pure and in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Agg = Literal["club", "l1out"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def full_design(matrix: ArrayLike) -> Floats:
    """The design of all pairs, from the method's matrix L[i, j] = log q(y_j | x_i) (row context, column response).

    Args:
        matrix: (N, N), nats.

    Returns:
        (N, N): row j is column j of the matrix, rolled so that L[j, j] comes first, then L[j+1, j], L[j+2, j], ...
    """
    matrix_nn = np.asarray(matrix, dtype=np.float64)
    assert matrix_nn.ndim == 2 and matrix_nn.shape[0] == matrix_nn.shape[1] >= 2, f"expected (N, N): {matrix_nn.shape}"
    n = len(matrix_nn)
    contexts = neighbours(n, np.arange(1, n))
    return matrix_nn[np.concatenate([np.arange(n)[:, None], contexts], axis=1), np.arange(n)[:, None]]


def circulant_offsets(n: int, k: int, seed: int) -> Ints:
    """The offsets s_1 < ... < s_K of a circulant design: distinct, none of them 0 (mod N).

    Args:
        n: responses on the circle, at least 2.
        k: negatives asked for; with k >= n - 1 all others are taken.
        seed: the same seed gives the same offsets.
    """
    assert n >= 2 and k >= 1, f"a design needs two contexts and one negative: n={n}, k={k}"
    if k >= n - 1:
        return np.arange(1, n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(np.arange(1, n), size=k, replace=False)).astype(np.int64)


def neighbours(n: int, offsets: ArrayLike) -> Ints:
    """Which contexts are the negatives of each response: (N, K), entry [i, k] = (i + s_k) mod N."""
    offsets_k = np.asarray(offsets, dtype=np.int64)
    assert offsets_k.ndim == 1 and np.all(offsets_k % n != 0), "an offset of 0 would make the positive a negative"
    return (np.arange(n, dtype=np.int64)[:, None] + offsets_k[None, :]) % n


def random_pairs(n: int, pairs: int, seed: int) -> Ints:
    """The released code's negatives: random pairs of a context and another's response, the same number for any N.

    Drawn without replacement, so that the mean over them is unbiased for M1 and is M1 where all pairs are drawn.

    Args:
        n: responses of a subset, at least 2.
        pairs: pairs asked for (the paper: 1,000 a subset); with pairs >= n (n - 1) all are taken.
        seed: the same seed gives the same pairs.

    Returns:
        (P, 2), P = min(pairs, n (n - 1)): rows of (context, response), distinct, never one's own; in ascending order, so
        that a context's pairs come together.
    """
    assert n >= 2 and pairs >= 1, f"a negative pair needs two responses: n={n}, pairs={pairs}"
    total = n * (n - 1)
    if pairs < total:
        places = np.sort(np.random.default_rng(seed).choice(total, size=pairs, replace=False))
    else:
        places = np.arange(total)
    contexts, others = np.divmod(places, n - 1)
    return np.stack([contexts, others + (others >= contexts)], axis=1).astype(np.int64)


def outside(design: ArrayLike, agg: Agg) -> Floats:
    """agg_j L(y_i | x_j) of D1: how likely each response is in the contexts of others, (N,), nats.

    Args:
        design: (N, K+1). A NaN negative is one that could not be scored and is left out of its row's aggregate; a row
            without any negative left gives NaN.
        agg: `club` is the mean (M1), `l1out` the log-mean-exp (M2).
    """
    design_nk = _design(design)
    negatives = design_nk[:, 1:]
    known = ~np.isnan(negatives)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        if agg == "club":
            return np.where(known, negatives, 0.0).sum(axis=1) / np.where(count > 0, count, np.nan)
        assert agg == "l1out", f"agg is club or l1out, found {agg!r}"
        return _log_sum_exp(np.where(known, negatives, -np.inf)) - np.log(np.where(count > 0, count, np.nan))


def pointwise(design: ArrayLike, agg: Agg) -> Floats:
    """D1: g(y_i; i) = L(y_i | x_i) - agg_j L(y_i | x_j), (N,), nats. A reply that would fit anyone scores about 0."""
    return _design(design)[:, 0] - outside(design, agg)


def club(design: ArrayLike) -> float:
    """M1, the contrastive upper bound of Cheng et al. 2020, in nats.

    With the exact density it is I + KL(p(x)p(y) || p(x,y)), not I.
    """
    return float(pointwise(design, "club").mean())


def club_pairs(own: ArrayLike, negatives: ArrayLike) -> float:
    """M1 over random pairs, as released: mean of the positives minus mean of the negatives, in the unit of both.

    Args:
        own: (N,), log q(y_i | x_i); the released code takes nats per token.
        negatives: (P,), log q(y_j | x_i) of the `random_pairs` (i, j), on the same scale. NaN on neither side: what could
            not be scored is left out, and counted, by the caller.
    """
    (own_n,), (negatives_p,) = _vectors(own), _vectors(negatives)
    assert len(own_n) and len(negatives_p), f"M1 contrasts two means: {len(own_n)} positives, {len(negatives_p)} negatives"
    assert not (np.isnan(own_n).any() or np.isnan(negatives_p).any()), "leave out what could not be scored"
    return float(own_n.mean() - negatives_p.mean())


def l1out(design: ArrayLike) -> float:
    """M2, the leave-one-out upper bound of Poole et al. 2019, in nats; over other contexts of the same response."""
    return float(pointwise(design, "l1out").mean())


def infonce(design: ArrayLike) -> float:
    """M3, the lower bound of Poole et al. 2019, in nats: the positive is in the mean, so it is at most log(K+1)."""
    design_nk = _design(design)
    assert not np.isnan(design_nk).any(), "InfoNCE is bounded by the number of contexts, so none may be missing"
    return float((design_nk[:, 0] - _log_sum_exp(design_nk) + np.log(design_nk.shape[1])).mean())


def learned_marginal(own: ArrayLike, marginal: ArrayLike) -> float:
    """M4 (ours), in nats: mean of log q(y_i | x_i) - log q(y_i | nothing); needs a scorer with context dropout.

    Args:
        own: (N,), log q(y_i | x_i).
        marginal: (N,), log q(y_i | nothing).
    """
    own_n, marginal_n = _vectors(own, marginal)
    return float((own_n - marginal_n).mean())


@dataclass(frozen=True, slots=True)
class Emi:
    """E1 and D3 per scenario, every array (N,) in nats; the means are the measures of the method.

    `likelihood_gap = remi + register_gap` holds for each scenario, whatever aggregate was used.
    """

    mi_response: Floats
    """g(y_theta, i; i); the mean is I(X; Y_theta)."""
    mi_reference: Floats
    """g(y*_i; i); the mean is I(X; Y*)."""
    remi: Floats
    """D2; the mean is R-EMI: what of the context the responses lost (negative) against the references."""
    register_gap: Floats
    """M's summands: the part of the likelihood gap that no context explains."""

    @property
    def likelihood_gap(self) -> Floats:
        """D3: log q(y_theta | x) - log q(y* | x) = R-EMI + M."""
        return self.remi + self.register_gap

    @property
    def means(self) -> dict[str, float]:
        """The five measures over all scenarios."""
        names = ("mi_response", "mi_reference", "remi", "register_gap", "likelihood_gap")
        return {name: float(getattr(self, name).mean()) for name in names}


def emi(own: ArrayLike, outside: ArrayLike, reference_own: ArrayLike, reference_outside: ArrayLike) -> Emi:
    """R-EMI (E1) and the register gap (M of D3), per scenario.

    Args:
        own: (N,), log q(y_theta,i | x_i).
        outside: (N,), the same response elsewhere: `outside(design, agg)`, or log q(y_theta,i | nothing) for M4.
        reference_own: (N,), log q(y*_i | x_i).
        reference_outside: (N,), the reference elsewhere, under the very contexts of `outside`.
    """
    own_n, outside_n, reference_own_n, reference_outside_n = _vectors(own, outside, reference_own, reference_outside)
    mi_response, mi_reference = own_n - outside_n, reference_own_n - reference_outside_n
    return Emi(mi_response, mi_reference, mi_response - mi_reference, outside_n - reference_outside_n)


def component_remi(own: ArrayLike, without: ArrayLike, reference_own: ArrayLike, reference_without: ArrayLike) -> Floats:
    """A1 (ours), per scenario (N,), nats: how much of one component z of the context the responses no longer use.

    Args:
        own: (N,), log q(y_theta,i | x_i), without reasoning, which would leak z.
        without: (N,), log q(y_theta,i | x_i without z).
        reference_own: (N,), log q(y*_i | x_i).
        reference_without: (N,), log q(y*_i | x_i without z).

    Returns:
        The summands of R-EMI_z = I_z(Y_theta) - I_z(Y*).
    """
    return emi(own, without, reference_own, reference_without).remi


def remid(remi_p: ArrayLike, remi_q: ArrayLike) -> float:
    """E2: R-EMID(P, Q) = R-EMI(P) - R-EMI(Q), nats; positive if the model loses more of the context under Q.

    Args:
        remi_p: (N_p,), D2 of the scenarios of P, in distribution.
        remi_q: (N_q,), D2 of the scenarios of Q, shifted.
    """
    return float(np.asarray(remi_p, dtype=np.float64).mean() - np.asarray(remi_q, dtype=np.float64).mean())


def _design(design: ArrayLike) -> Floats:
    design_nk = np.asarray(design, dtype=np.float64)
    assert design_nk.ndim == 2 and design_nk.shape[0] >= 1 and design_nk.shape[1] >= 2, (
        f"a design is (N, K+1), positive first, with K >= 1: {design_nk.shape}"
    )
    return design_nk


def _vectors(*vectors: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    assert all(array.ndim == 1 and array.shape == arrays[0].shape for array in arrays), (
        f"expected vectors of one length: {[array.shape for array in arrays]}"
    )
    return arrays


def _log_sum_exp(values: Floats) -> Floats:
    top = values.max(axis=1)
    # a row of -inf (impossible everywhere) has the log-sum -inf, not NaN
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - shift[:, None]).sum(axis=1)) + shift
