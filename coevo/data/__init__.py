"""Reading, making and shifting scenarios: file formats, the world, and the sources of shifts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from coevo.data import battery
from coevo.data.battery import Case
from coevo.data.rpgbench import CheckReport, Problem, check, load, read_rpgbench, split_names
from coevo.data.shifts import SOURCES, FileShifts, Shifts, WorldShifts
from coevo.data.world import battery as world_battery
from coevo.data.write import write_rpgbench
from coevo.types import Scenario

FORMATS: dict[str, Callable[..., Iterator[Scenario]]] = {"rpgbench": read_rpgbench}
"""Format -> reader (path, splits=None) -> scenarios."""

BATTERIES: dict[str, Callable[[Sequence[Scenario], int], list[Case]]] = {
    "world": world_battery.cases,
    "file": battery.cases,
}
"""data.kind -> maker of bad answers (scenarios, seed) -> one case a scenario, for the audit of a reward."""


def load_scenarios(path: str | Path, splits: Iterable[str] | None = None) -> list[Scenario]:
    """The scenarios of a file in the RPGBench layout, in its order.

    Args:
        path: a JSON file.
        splits: names of splits; None takes all.

    Raises:
        DataError: names file, line, sample and field of the first thing that is wrong.
    """
    return list(load(path, splits).scenarios)


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
    "load_scenarios",
    "read_rpgbench",
    "split_names",
    "write_rpgbench",
]
