"""95 % intervals by the bootstrap over scenarios: deterministic by seed, paired where indices are shared.

A scenario is the unit that is resampled; rows of a circulant design share contexts, which the interval does not count.
Percentile intervals: what is bootstrapped here are means and sums of means, for which they are first-order exact.

Runs (seeds) are too few for the bootstrap: of three, its interval reaches from the smallest to the largest at most, which
holds the truth in 75 % of cases. What they vary is drawn by Student's t instead: `run_multipliers` and `student`.

Shape suffixes: R resamples, N scenarios, S runs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_CHUNK = 4_000_000
"""Numbers gathered at once, so that memory stays flat in the number of scenarios (32 MB)."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A value with its 95 % interval, in the unit of the value."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Measure) -> bool:
        """Whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high

    def to_dict(self) -> dict[str, float]:
        """As in every JSON file."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def to_markdown(self) -> str:
        """Two digits after the point: `1.09 [0.21, 2.41]`."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    __str__ = to_markdown
    _repr_html_ = to_markdown


def stratum_seed(seed: int, *names: str) -> list[int]:
    """A seed for one named stratum, the same on every machine: strata are resampled independently of each other."""
    return [seed, *(zlib.crc32(name.encode()) for name in names)]


def bootstrap(
    statistic: Callable[[Ints], Floats], size: int, resamples: int, seed: int | Sequence[int]
) -> NDArray[np.float64]:
    """Draws of any statistic of resampled scenarios.

    Several measures or models are paired by being computed in one `statistic`, or by the same size and seed: the index
    arrays are then the same.

    Args:
        statistic: from indices (R', N) into the scenarios to values (R', ...), for any number R' of rows.
        size: N, how many scenarios there are.
        resamples: R.
        seed: the draws are a function of size, resamples and seed alone.

    Returns:
        (R, ...), the draws.
    """
    assert size >= 1 and resamples >= 1, f"nothing to resample: size={size}, resamples={resamples}"
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // (size * 16))
    parts = []
    for start in range(0, resamples, rows):
        # one call of the generator fills row after row, so the chunk's size does not change the draws
        indices = generator.integers(0, size, size=(min(rows, resamples - start), size), dtype=np.int64)
        parts.append(np.asarray(statistic(indices), dtype=np.float64))
    return np.concatenate(parts)


def mean_draws(values: ArrayLike, resamples: int, seed: int | Sequence[int]) -> Floats:
    """Draws of the mean; the columns of a matrix (several measures or models of one scenario) share their indices.

    Args:
        values: (N,) or (N, M), without NaN: what could not be scored is left out, and counted, by the caller.

    Returns:
        (R,) or (R, M).
    """
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim in (1, 2) and not np.isnan(array).any(), "leave out what could not be scored before resampling"
    return bootstrap(lambda indices: array[indices].mean(axis=1), len(array), resamples, seed)


def interval(value: float, draws: ArrayLike) -> Measure:
    """The percentile interval of a value, from draws (R,)."""
    draws_r = np.asarray(draws, dtype=np.float64)
    assert draws_r.ndim == 1, f"draws of one number are (R,): {draws_r.shape}"
    low, high = np.quantile(draws_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(float(value), float(low), float(high))


def bootstrap_mean(values: ArrayLike, resamples: int, seed: int | Sequence[int]) -> Measure:
    """The mean of (N,) values with its interval."""
    array = np.asarray(values, dtype=np.float64)
    assert array.ndim == 1, f"expected (N,): {array.shape}"
    return interval(array.mean(), mean_draws(array, resamples, seed))


def bootstrap_difference(first: ArrayLike, second: ArrayLike, resamples: int, seed: int) -> Measure:
    """mean(first) - mean(second) of two independent subsets, each resampled on its own (R-EMID: ID minus shifted)."""
    first_n, second_n = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    draws = mean_draws(first_n, resamples, [seed, 0]) - mean_draws(second_n, resamples, [seed, 1])
    return interval(first_n.mean() - second_n.mean(), draws)


def bootstrap_stratified(subsets: Sequence[ArrayLike], resamples: int, seed: int) -> Measure:
    """The unweighted mean over subsets' means, each subset resampled on its own."""
    arrays = [np.asarray(subset, dtype=np.float64) for subset in subsets]
    assert arrays, "a mean over subsets needs a subset"
    draws = [mean_draws(array, resamples, [seed, place]) for place, array in enumerate(arrays)]
    return interval(float(np.mean([array.mean() for array in arrays])), np.mean(draws, axis=0))


def run_multipliers(runs: int, resamples: int, seed: int | Sequence[int]) -> Floats:
    """(R, S) multipliers c: mean(x) + c (x - mean(x)) is distributed as mean(x) + s / sqrt(S) * t.

    t is Student's with S - 1 degrees of freedom and s the deviation of (S,) values x, so the 95 % interval is the t test's.
    Whatever is measured of the same runs shares the multipliers, so that differences are paired by run. With one run there
    is nothing to draw: all are 0.
    """
    if runs < 2:
        return np.zeros((resamples, runs))
    generator = np.random.default_rng(seed)
    # c (x - mean) has the variance sum (x - mean)^2 = (S - 1) s^2 for standard normals c
    normal_rs = generator.normal(size=(resamples, runs)) / math.sqrt(runs * (runs - 1))
    return normal_rs * np.sqrt((runs - 1) / generator.chisquare(runs - 1, size=(resamples, 1)))


def student(freedom: int, resamples: int, seed: int | Sequence[int]) -> Floats:
    """(R,) draws of Student's t."""
    return np.random.default_rng(seed).standard_t(freedom, size=resamples)


def wilson(successes: int, trials: int) -> Measure:
    """A share with Wilson's score interval, which, unlike the bootstrap's, has a width where all trials succeed."""
    assert 0 <= successes <= trials and trials, f"no share of {successes} out of {trials}"
    share, z2 = successes / trials, _Z**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # where none or all succeed, the limit on that side is the share itself, which rounding would miss
    return Measure(share, centre - half if successes else 0.0, centre + half if successes < trials else 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the family-wise error rate holds whatever the tests' dependence.

    The k-th smallest of m is multiplied by m - k + 1 and is at least what the smaller ones became; at most 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
