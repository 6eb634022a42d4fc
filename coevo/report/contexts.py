"""The scenarios that answers were given to, which rows and rollouts name by their id alone.

They are in the run's pool, in the data file, or in the world, which is made again. One is shown only where what the row
has of it (persona, query, reference, or the prompt) is the same: data may have changed since.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.data import load_scenarios, world
from coevo.errors import DataError
from coevo.records import read_lines
from coevo.report import shapes
from coevo.report.read import REMOVE, Run
from coevo.scoring.summary import Row
from coevo.types import Scenario


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader needs of a scenario, as text."""

    persona: str
    character: str
    dialogue: tuple[tuple[str, str], ...]
    """Role and text of each turn; the last is the query."""
    reference: str


def contexts(run: Run) -> dict[str, Context]:
    """By sample_id, every scenario at hand; those that are not are shown without a character."""
    found = {x.sample_id: _of(x) for x in _scenarios(run.recipe.get("data"))}
    for path in sorted((run.path / "pool").glob("*.jsonl")):
        for line in read_lines(path, shapes.OBJECT, REMOVE):
            scenario = line.get("scenario")
            if isinstance(scenario, dict) and isinstance(scenario.get("sample_id"), str):
                found[scenario["sample_id"]] = _of_record(scenario)
    return found


def pool_table(run: Run) -> list[list[str]]:
    """How many turns of each subset are in the pool, by the iteration that they are kept in; the head first."""
    counts = {
        path.stem.removeprefix("iteration-"): Counter(
            str((line.get("scenario") or {}).get("subset_tag")) for line in read_lines(path, shapes.OBJECT, REMOVE)
        )
        for path in sorted((run.path / "pool").glob("iteration-*.jsonl"))
    }
    tags = list(dict.fromkeys(tag for found in counts.values() for tag in found))
    return [
        ["subset", *(f"iteration {name}" for name in counts)],
        *([t, *(str(c[t]) for c in counts.values())] for t in tags),
    ]


def context_of(row: Row, known: Mapping[str, Context]) -> Context | None:
    """An evaluated row's scenario, if it is the one that was answered."""
    found = known.get(row.sample_id)
    if found is None or found.persona != row.persona or not found.dialogue or found.dialogue[-1][1] != row.query:
        return None
    return found


def prompted(sample_id: str, prompt: str, known: Mapping[str, Context]) -> Context | None:
    """A rollout's scenario, if its prompt is made of it."""
    found = known.get(re.sub(r"#\d+$", "", sample_id))
    if found is None or not found.dialogue or not (found.persona in prompt and found.dialogue[-1][1] in prompt):
        return None
    return found


def character_text(character: Any) -> str:
    """A character as a reader reads it: an object as lines of its fields."""
    if isinstance(character, Mapping):
        return "\n".join(f"{name}: {value if isinstance(value, str) else _json(value)}" for name, value in character.items())
    return character if isinstance(character, str) else _json(character)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _of(scenario: Scenario) -> Context:
    dialogue = tuple((turn.role, turn.text) for turn in scenario.dialogue)
    return Context(scenario.persona, character_text(scenario.character), dialogue, scenario.reference)


def _of_record(scenario: Mapping[str, Any]) -> Context:
    turns = scenario.get("dialogue")
    dialogue = tuple((str(t.get("role")), str(t.get("text"))) for t in turns or [] if isinstance(t, dict))
    persona, reference = (str(scenario.get(name) or "") for name in ("persona", "reference"))
    return Context(persona, character_text(scenario.get("character")), dialogue, reference)


def _scenarios(data: Any) -> Iterator[Scenario]:
    """The recipe's scenarios, as `loop.material` makes or reads them; none where that cannot be."""
    if not isinstance(data, dict):
        return
    if data.get("kind") == "world":
        train, dev, test = (data.get(name) for name in ("train", "dev", "test"))
        if isinstance(train, int) and isinstance(dev, int) and isinstance(test, int):
            yield from world.generate("IDTrain", train + dev, seed=0)
            for split, tags in world.SPLITS.items():
                if split.endswith("Test"):
                    yield from world.generate(split, test * len(tags), seed=0)
    elif isinstance(data.get("path"), str) and Path(data["path"]).is_file():
        try:
            yield from load_scenarios(data["path"])
        except DataError:
            # the file is another one by now; the report does without
            return
