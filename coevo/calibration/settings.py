"""How much a calibration draws, and the records that its parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Result = dict[str, Any]
"""Of one part: plain JSON."""
Tick = Callable[[int, int], None]
"""Told how many units of a part are done, of how many."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a calibration. The defaults take some ten minutes of one core without a scorer."""

    seed: int = 0
    sizes: tuple[int, ...] = (50, 100, 200, 500, 1000, 2000)
    """N of the exact density's grid."""
    negatives: tuple[int, ...] = (4, 16, 64, 256)
    """K of the grid, beside N - 1."""
    grid_draws: int = 10
    """Draws for each N of the grid."""
    main_size: int = 1000
    """N at which the span and the nearer estimate are judged."""
    main_draws: int = 100
    coverage_sizes: tuple[int, ...] = (50, 200)
    """Scenarios of a subset, where intervals are judged."""
    coverage_negatives: tuple[int, ...] = (4, 16)
    coverage_draws: int = 400
    resamples: int = 1000
    """Bootstrap draws of every interval."""
    random_responders: int = 100
    """For the bound."""
    scenarios: int = 48
    """Of each subset, for the learned scorer."""
    k: int = 8
    """Negatives of the learned scorer, from the subset and from the pool."""

    def to_dict(self) -> dict[str, Any]:
        """For the result, and to tell whether a part that is there answers the same question."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


QUICK = Settings(
    sizes=(50, 200, 1000),
    negatives=(4, 16),
    grid_draws=3,
    main_draws=20,
    coverage_sizes=(50,),
    coverage_negatives=(4,),
    coverage_draws=100,
    resamples=400,
    random_responders=10,
    scenarios=8,
    k=4,
)
"""The same in about two minutes; the figures are too coarse to judge by."""


def verdict(line: str, wanted: str, found: str, holds: bool) -> dict[str, Any]:
    """One line that a calibration judges: what is claimed, what is asked, what was seen."""
    return {"line": line, "wanted": wanted, "found": found, "holds": bool(holds)}


NAMES = {"club": "M1 CLUB", "l1out": "M2 L1Out", "infonce": "M3 InfoNCE", "middle": "(M2 + M3)/2", "learned_marginal": "M4"}
"""An estimate's key in a result -> its name."""
