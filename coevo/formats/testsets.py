"""Shifted test sets of a team's own data, made without a model: what it has is divided so that nobody is on both sides.

- `character:held_out` (OOD2Test): characters of whom the training split holds nothing;
- `dialogue:long` (OOD3Test): the last turns of the longest conversations, none of which is trained on;
- `WordLevelComposition` (OOD3Test): the words of every message of an ID test shuffled, its reference kept;
- `character:anonymised` (OOD2Test): an ID test with the character's name hidden, where the character has a `name`.

Users who write otherwise need a model that rewrites them: `coevo.prepare.manners`.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from coevo.data.shifts import shuffled
from coevo.errors import DataError
from coevo.formats.divide import character_of, conversation_of
from coevo.text import unspaced
from coevo.types import Scenario, Turn

HELD_OUT, LONG, WORDS, ANONYMISED = "character:held_out", "dialogue:long", "WordLevelComposition", "character:anonymised"
FEWEST_CHARACTERS = 4
"""With fewer, holding one out would take more than a quarter of them."""
FEWEST_CONVERSATIONS = 10
HIDDEN = "[name]"
NAME_KEYS = ("name", "Name", "char_name", "nickname")
SHORTEST_NAME = 3
"""Letters of a part of a name that is hidden by itself: `de` and `of` stand everywhere. The whole name always is."""


@dataclass(frozen=True)
class TestSets:
    """Scenarios by split, and what was done in words."""

    scenarios: list[Scenario]
    """IDTrain, IDTest, OOD2Test, OOD3Test, in this order."""
    notes: list[str]
    """What could not be made, and why."""
    left_out: Counter[str]
    """Scenarios that are in no split any more, by reason."""


def divide(scenarios: Sequence[Scenario], *, test: float = 0.1, most: int = 100, seed: int = 0) -> TestSets:
    """Divides scenarios into training and test splits, in distribution and shifted.

    A conversation, of which several scenarios may be cut, is never divided: they share character, persona and all up to the
    user's first message.

    Args:
        scenarios: of any splits, whose names are lost; those that were made of others (with a parent) are left out.
        test: share of characters, and of conversations, that each test set takes.
        most: scenarios of one test set.
        seed: of every draw.

    Raises:
        DataError: fewer conversations than 10, or a share out of range.
    """
    if not 0 < test <= 0.4:
        raise DataError(f"test={test}: expected a share above 0 and at most 0.4, as several test sets take so much.")
    left, groups = Counter[str](), defaultdict[str, list[Scenario]](list)
    for x in scenarios:
        if x.parent is None:
            groups[conversation_of(x)].append(x)
        else:
            left["made of others already, and made again"] += 1
    if len(groups) < FEWEST_CONVERSATIONS:
        raise DataError(
            f"{len(groups)} conversations (of one character, user and first message each): too few to divide into training "
            f"and tests; expected at least {FEWEST_CONVERSATIONS}."
        )
    rng, notes = random.Random(f"coevo test sets/{seed}"), []
    rest = list(groups.values())
    away, rest, said = _characters(rest, test, rng)
    notes += said
    long, rest, said = _longest(rest, test)
    notes += said
    rng.shuffle(rest)
    count = max(1, round(test * len(rest)))
    home, train = rest[:count], rest[count:]
    tested = _at_most([x for group in home for x in group], most, rng, left, "IDTest")
    held = _at_most([x for group in away for x in group], most, rng, left, HELD_OUT)
    deep = _at_most([max(group, key=lambda x: len(x.dialogue)) for group in long], most, rng, left, LONG)
    left["earlier turns of the long conversations"] = sum(len(group) - 1 for group in long)
    hidden = [made for x in tested if (made := anonymised(x))]
    if not hidden:
        notes.append(f"{ANONYMISED}: none, as no ID test has a character with a `name` that its reference does without")
    out = [replace(x, split="IDTrain", subset_tag="IDTrain") for group in train for x in group]
    out += [replace(x, split="IDTest", subset_tag="IDTest") for x in tested]
    out += [replace(x, split="OOD2Test", subset_tag=HELD_OUT) for x in held] + hidden
    out += [replace(x, split="OOD3Test", subset_tag=LONG) for x in deep]
    out += [_with_shuffled_words(x, rng) for x in tested]
    return TestSets(out, notes, +left)


def _characters(
    groups: list[list[Scenario]], test: float, rng: random.Random
) -> tuple[list[list[Scenario]], list[list[Scenario]], list[str]]:
    """The conversations of some characters, and the others."""
    names = sorted({character_of(group[0]) for group in groups})
    if len(names) < FEWEST_CHARACTERS:
        said = f"{HELD_OUT}: none, as there are {len(names)} characters and at least {FEWEST_CHARACTERS} are needed"
        return [], groups, [said]
    chosen = set(rng.sample(names, max(1, round(test * len(names)))))
    inside = [character_of(group[0]) in chosen for group in groups]
    return (
        [group for group, away in zip(groups, inside, strict=True) if away],
        [group for group, away in zip(groups, inside, strict=True) if not away],
        [],
    )


def _longest(groups: list[list[Scenario]], test: float) -> tuple[list[list[Scenario]], list[list[Scenario]], list[str]]:
    """The longest conversations, longer than the middle one, and the others."""
    lengths = {id(group): max(len(x.dialogue) for x in group) for group in groups}
    middle = median(lengths.values())
    ranked = sorted(groups, key=lambda group: -lengths[id(group)])
    chosen = {id(group) for group in ranked[: max(1, round(test * len(groups)))] if lengths[id(group)] > middle}
    if not chosen:
        return [], groups, [f"{LONG}: none, as no conversation is longer than the middle one, {middle:g} messages"]
    return [g for g in groups if id(g) in chosen], [g for g in groups if id(g) not in chosen], []


def _at_most(scenarios: list[Scenario], most: int, rng: random.Random, left: Counter[str], where: str) -> list[Scenario]:
    if len(scenarios) <= most:
        return scenarios
    left[f"more than {most} of {where}"] += len(scenarios) - most
    names = {x.sample_id for x in rng.sample(scenarios, most)}
    return [x for x in scenarios if x.sample_id in names]


def _with_shuffled_words(x: Scenario, rng: random.Random) -> Scenario:
    turns = tuple(Turn(turn.role, shuffled(turn.text, rng)) for turn in x.dialogue)
    return _made_of(x, "OOD3Test", WORDS, dialogue=turns)


def _made_of(x: Scenario, split: str, tag: str, **changes: Any) -> Scenario:
    name = f"{x.sample_id}/{tag.rpartition(':')[2]}"
    # the file's own reasoning, and its other right answers, are of the parent
    return replace(x, sample_id=name, split=split, subset_tag=tag, parent=x.sample_id, thought="", **changes)


def anonymised(x: Scenario) -> Scenario | None:
    """The scenario with its character's name hidden; None if there is no name, or the reference says it.

    A reference that says the name could not be answered from what is left.
    """
    if not isinstance(x.character, Mapping):
        return None
    names = [str(x.character[key]) for key in NAME_KEYS if isinstance(x.character.get(key), str)]
    parts = (part for name in names for part in name.split() if len(part) >= SHORTEST_NAME)
    words = {word for word in (*names, *parts) if word.strip()}
    if not words:
        return None
    name = re.compile("|".join(map(_as_a_word, sorted(words, key=len, reverse=True))), re.IGNORECASE)
    if name.search(x.reference):
        return None
    turns = tuple(Turn(turn.role, name.sub(HIDDEN, turn.text)) for turn in x.dialogue)
    character = {key: _mapped(value, lambda text: name.sub(HIDDEN, text)) for key, value in x.character.items()}
    return _made_of(x, "OOD2Test", ANONYMISED, dialogue=turns, persona=name.sub(HIDDEN, x.persona), character=character)


def _as_a_word(word: str) -> str:
    """A pattern of a word by itself; scripts without spaces have no ends of words."""
    left, right = ("" if unspaced(end) else boundary for end, boundary in ((word[0], r"(?<!\w)"), (word[-1], r"(?!\w)")))
    return f"{left}{re.escape(word)}{right}"


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Every text in a value changed; the names of its fields stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list | tuple) else value
