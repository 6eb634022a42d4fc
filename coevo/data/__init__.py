"""Reading, making and shifting scenarios: file formats, the world, and the sources of shifts."""

from collections.abc import Callable, Iterator, Sequence

from coevo.data import battery
from coevo.data.battery import Case
from coevo.data.rpgbench import CheckReport, Problem, check, read_rpgbench, split_names, write_rpgbench
from coevo.data.shifts import SOURCES, FileShifts, Shifts, WorldShifts
from coevo.data.world import battery as world_battery
from coevo.types import Scenario

FORMATS: dict[str, Callable[..., Iterator[Scenario]]] = {"rpgbench": read_rpgbench}
"""Format -> reader (path, splits=None) -> scenarios."""

BATTERIES: dict[str, Callable[[Sequence[Scenario], int], list[Case]]] = {
    "world": world_battery.cases,
    "file": battery.cases,
}
"""data.kind -> maker of bad answers (scenarios, seed) -> one case a scenario, for the audit of a reward."""

__all__ = [
    "BATTERIES",
    "FORMATS",
    "SOURCES",
    "Case",
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
