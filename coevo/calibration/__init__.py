"""Estimates against exact truth, on the world: how far M1 to M4, R-EMI, R-EMID, B1 and A1 can be trusted.

`bracket`, `coverage`, `bounds` and `attribution` need no model: their densities are exact. `learned` sets a trained scorer
beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.calibration.attribution import attribution
from coevo.calibration.bounds import bounds
from coevo.calibration.bracket import bracket
from coevo.calibration.cache import Cache
from coevo.calibration.coverage import coverage
from coevo.calibration.settings import QUICK, Result, Settings, Tick

if TYPE_CHECKING:
    from coevo.scoring.evaluate import Scores

__all__ = ["QUICK", "Settings", "calibrate"]

PARTS: dict[str, Callable[[Settings, Cache, Tick], Result]] = {
    "bracket": bracket,
    "coverage": coverage,
    "bounds": bounds,
    "attribution": attribution,
}
"""What needs no scorer."""


def calibrate(
    out: Path, settings: Settings, scorer: Scores | None = None, tick: Callable[[str, int, int], None] | None = None
) -> Result:
    """Computes every part; what takes long is kept in `out` and not computed again.

    Args:
        out: a folder that is new, empty, or of a calibration with the same settings.
        settings: sizes and seed.
        scorer: a learned scorer to judge as well.
        tick: told the part, and how many of its units are done.

    Returns:
        Settings, parts by name, and the verdicts of all parts.

    Raises:
        ConfigError: the folder is taken.
        ScoreError: the scorer cannot score a text.
    """
    cache = Cache(out, settings)

    def told(name: str) -> Tick:
        return lambda done, total: tick(name, done, total) if tick else None

    parts = {name: compute(settings, cache, told(name)) for name, compute in PARTS.items()}
    if scorer is not None:
        # the one part that needs torch
        from coevo.calibration.learned import learned

        parts["learned"] = learned(scorer, settings, cache, told("learned"))
    verdicts = [line for part in parts.values() for line in part["verdicts"]]
    return {"settings": settings.to_dict(), **parts, "verdicts": verdicts}
