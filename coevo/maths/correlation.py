"""Pearson's, Spearman's and Kendall's correlation with 95 % bootstrap intervals: how well one measure follows another.

A resample is a vector of counts, how often each point was drawn, and every coefficient is a weighted sum of them; so all
resamples are a few matrix products and no point is ever copied. Percentile intervals: of 400 bivariate normal samples they
held the truth in 93 to 98 % at N >= 50, whatever the coefficient; at N = 12 and 20 Pearson's held it in 90 %, the others in
94 to 98 %.

Shape suffixes: R resamples, N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coevo.maths.stats import bootstrap, interval

Kind = Literal["pearson", "spearman", "kendall"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A coefficient, -1 to 1, with its 95 % percentile interval; NaN where x or y is constant, which has none."""

    kind: Kind
    value: float
    low: float
    high: float
    n: int
    """Points."""
    resamples: int
    degenerate: int
    """Resamples in which x or y was constant: they have no coefficient, so the interval is of the others."""

    def to_dict(self) -> dict[str, Any]:
        """As in a result file; None for a number that there is not."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def coefficient(x: ArrayLike, y: ArrayLike, kind: Kind) -> float:
    """One coefficient of (N,) x and (N,) y: Pearson's r, Spearman's rho with mid-ranks for ties, or Kendall's tau-b.

    NaN where x or y is constant.
    """
    x_n, y_n = _points(x, y)
    return float(_statistic(x_n, y_n, kind)(np.ones((1, len(x_n))))[0])


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rho alone, see `coefficient`."""
    return coefficient(x, y, "spearman")


def correlate(
    x: ArrayLike,
    y: ArrayLike,
    kind: Kind,
    *,
    resamples: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> Correlation:
    """A coefficient with its interval; two calls of one seed and as many points (or groups) draw the same resamples.

    Time grows as R N^2 and memory as N^2, but for Pearson's as R N.

    Args:
        x: (N,), N >= 2, finite: what could not be measured is left out, and counted, by the caller.
        y: (N,), the same points.
        kind: `pearson`, `spearman` (mid-ranks for ties) or `kendall` (tau-b).
        resamples: R.
        seed: fixes the resamples.
        groups: (N,) labels. Whole groups are drawn, as points of one group (one model under several shifts, say) are not
            independent: with 11 groups of 11 whose means vary as much as their points, intervals over points held the truth
            in 71 % of 400 draws and intervals over groups in 87 %; with 30 groups of 5, 81 and 93 %. None takes every point
            as independent.
    """
    x_n, y_n = _points(x, y)
    labels = np.arange(len(x_n)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    assert labels.shape == x_n.shape, f"one group a point: {labels.shape}, {x_n.shape}"
    statistic = _statistic(x_n, y_n, kind)
    size = int(labels.max()) + 1
    draws = bootstrap(lambda indices: statistic(_counts(indices, size)[:, labels]), size, resamples, seed)
    known = draws[~np.isnan(draws)]
    found = interval(coefficient(x_n, y_n, kind), known if len(known) else np.array([math.nan]))
    return Correlation(kind, found.value, found.low, found.high, len(x_n), resamples, resamples - len(known))


def _points(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    x_n, y_n = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    assert x_n.ndim == 1 and x_n.shape == y_n.shape and len(x_n) >= 2, f"expected (N,) twice: {x_n.shape}, {y_n.shape}"
    assert np.isfinite(x_n).all() and np.isfinite(y_n).all(), "leave out what could not be measured before correlating"
    return x_n, y_n


def _counts(indices: Ints, size: int) -> Floats:
    """How often each of `size` things was drawn: (R, size)."""
    flat = indices + size * np.arange(len(indices))[:, None]
    return np.bincount(flat.ravel(), minlength=size * len(indices)).reshape(-1, size).astype(np.float64)


def _statistic(x: Floats, y: Floats, kind: Kind) -> Callable[[Floats], Floats]:
    """The coefficient as a function of counts (R, N): (R,), NaN where x or y is constant among what was drawn."""
    of_counts = {"pearson": _pearson, "spearman": _spearman, "kendall": _kendall}[kind](x, y)

    def statistic(counts: Floats) -> Floats:
        constant = _is_constant(x, counts) | _is_constant(y, counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(constant, np.nan, np.clip(of_counts(counts), -1.0, 1.0))

    return statistic


def _is_constant(values: Floats, counts: Floats) -> NDArray[np.bool_]:
    drawn = counts > 0
    return np.where(drawn, values, -np.inf).max(axis=1) == np.where(drawn, values, np.inf).min(axis=1)


def _pearson(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    return lambda counts: _weighted_pearson(x, y, counts)


def _spearman(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    # points below minus points above, over a resample, are twice its mid-rank minus a constant
    above_x, above_y = _signs(x), _signs(y)
    return lambda counts: _weighted_pearson(counts @ above_x, counts @ above_y, counts)


def _kendall(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    above_x, above_y = _signs(x), _signs(y)
    pairs = [above_x * above_y, above_x**2, above_y**2]

    def of_counts(counts: Floats) -> Floats:
        concordance, untied_x, untied_y = [((counts @ pair) * counts).sum(axis=1) for pair in pairs]
        return concordance / np.sqrt(untied_x * untied_y)

    return of_counts


def _signs(values: Floats) -> Floats:
    """(N, N): 1 in row i and column j where point j lies above point i, -1 where below, 0 where they tie."""
    return np.sign(values[None, :] - values[:, None])


def _weighted_pearson(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Pearson's r of x and y, each (N,) or (R, N), by counts (R, N)."""
    x_rn, y_rn = _centred(x, counts), _centred(y, counts)
    covariance = (counts * x_rn * y_rn).sum(axis=1)
    return covariance / np.sqrt((counts * x_rn**2).sum(axis=1) * (counts * y_rn**2).sum(axis=1))


def _centred(values: Floats, counts: Floats) -> Floats:
    centred = values - (counts * values).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    # of the size of 1, so that squares neither overflow nor vanish
    return centred / np.where(counts > 0, np.abs(centred), 0.0).max(axis=1, keepdims=True)
