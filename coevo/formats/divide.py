"""Training and test splits of scenarios, with nobody on both sides."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from coevo.errors import DataError
from coevo.text import folded
from coevo.types import Scenario

By = Literal["character", "user", "conversation"]
LORE = ("lore", "further lore")
"""Fields that a card's lorebook fills in at one turn and not at another."""
FEWEST = 5
"""Groups; with fewer a test set says more of one group than of the model."""


@dataclass(frozen=True)
class Split:
    """Scenarios of IDTrain and of IDTest."""

    train: list[Scenario]
    test: list[Scenario]
    shared: list[str]
    """Names of test scenarios whose query and reference a training scenario has too."""


def split_by(scenarios: Sequence[Scenario], by: By = "character", *, test: float = 0.1, seed: int = 0) -> Split:
    """Divides scenarios so that no group is on both sides.

    Args:
        scenarios: of any splits, whose names are lost.
        by: what a group shares. By `conversation`, all that begins alike counts as one: nobody can tell them apart.
        test: share of the groups that are tests.
        seed: of the draw.

    Raises:
        DataError: fewer than 5 groups, or a share out of range.
    """
    if not 0 < test < 1:
        raise DataError(f"test={test}: expected a share of the {by}s above 0 and below 1.")
    groups: dict[str, list[Scenario]] = defaultdict(list)
    for x in scenarios:
        groups[KEYS[by](x)].append(x)
    if len(groups) < FEWEST:
        raise DataError(
            f"{len(scenarios)} scenarios have {len(groups)} different {by}s: too few to hold some out; expected at least "
            f"{FEWEST}. Divide by something else ({', '.join(key for key in KEYS if key != by)}), or give more data."
        )
    names = sorted(groups)
    count = min(len(names) - 1, max(1, round(test * len(names))))
    away = set(random.Random(f"coevo split/{by}/{seed}").sample(names, count))
    sides: tuple[list[Scenario], list[Scenario]] = ([], [])
    for name, group in groups.items():
        split = "IDTest" if name in away else "IDTrain"
        sides[name in away].extend(replace(x, split=split, subset_tag=split) for x in group)
    train, tests = sides
    taught = {_said(x) for x in train}
    return Split(train, tests, [x.sample_id for x in tests if _said(x) in taught])


def character_of(x: Scenario) -> str:
    """Whom the agent plays: a card's name where it has one. What a lorebook tells at one turn is no part of it."""
    if isinstance(x.character, str):
        return folded(x.character)
    name = x.character.get("name")
    if isinstance(name, str) and folded(name):
        return folded(name)
    return _stable({key: value for key, value in x.character.items() if key not in LORE})


def conversation_of(x: Scenario) -> str:
    """Character, persona, and all that was said up to the user's first message: a greeting alone begins many."""
    first = next((place for place, turn in enumerate(x.dialogue) if turn.role == "user"), 0)
    return "\0".join((character_of(x), folded(x.persona), *(turn.text for turn in x.dialogue[: first + 1])))


KEYS: Mapping[By, Callable[[Scenario], str]] = {
    "character": character_of,
    "user": lambda x: folded(x.persona),
    "conversation": conversation_of,
}
"""What a group shares -> the key of a scenario's group."""


def _stable(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _said(x: Scenario) -> tuple[str, str]:
    return folded(x.query), folded(x.reference)
