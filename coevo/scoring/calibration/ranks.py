"""Spearman's rank correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank; NaN where one side is constant."""
    ranks = []
    for values in (first, second):
        _, place, count = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place.ravel()])
    if ranks[0].std() == 0 or ranks[1].std() == 0:
        return math.nan
    return float(np.corrcoef(ranks)[0, 1])
