"""Reading, making and shifting scenarios: file formats, the world, and the sources of shifts."""

from collections.abc import Callable, Iterator

from coevo.data.rpgbench import CheckReport, Problem, check, read_rpgbench, split_names, write_rpgbench
from coevo.data.shifts import SOURCES, FileShifts, Shifts, WorldShifts
from coevo.types import Scenario

FORMATS: dict[str, Callable[..., Iterator[Scenario]]] = {"rpgbench": read_rpgbench}
"""Format -> reader (path, splits=None) -> scenarios."""

__all__ = [
    "FORMATS",
    "SOURCES",
    "CheckReport",
    "FileShifts",
    "Problem",
    "Scenario",
    "Shifts",
    "WorldShifts",
    "check",
    "read_rpgbench",
    "split_names",
    "write_rpgbench",
]
