"""Where shifted scenarios come from: one interface for the world, whose references are exact, and for real files.

A source makes a **frame** x' from an ID parent and a tag, with a blank final query for the simulator to write, and
**finishes** it with that query by giving it a reference. How the reference comes about is the source's `reference`:
`oracle` (drawn from the exact P(y*|x')) or `carry` (the parent's, for shifts that keep the meaning).
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

from coevo.data import thoughts, world
from coevo.data.world import Unreadable
from coevo.errors import DataError
from coevo.text import blank, folded, normalised, units
from coevo.types import SHIFT_OF_TAG, Scenario, Turn

COMMON = 0.05
"""Words that stand in more than this share of a file's queries say little of what one of them is about."""
FEWEST_NOTES = 2
"""Fewer words would say nothing: "Who are you?" is kept whole."""


class Shifts(Protocol):
    """What the loop asks of a source of shifted scenarios."""

    tags: tuple[str, ...]
    """The shifts that this source can make."""
    reference: Literal["oracle", "carry"]
    sections: tuple[str, ...]
    """Names of the sections of this source's own reasonings."""

    def frame(self, parent: Scenario, tag: str, rng: random.Random) -> Scenario:
        """Make x' with a blank final query and a blank reference; `parent` names the ID scenario."""
        ...

    def finish(self, frame: Scenario, query: str, rng: random.Random) -> Scenario | Unreadable:
        """Put the query into the frame and give it its reference, or say why it can have none."""
        ...

    def example(self, scenario: Scenario) -> Scenario:
        """A real scenario as the simulator's warm start shows it, so that its prompt is one of the loop's."""
        ...

    def reasoning(self, scenario: Scenario) -> str:
        """What a good response must contain, by this source's own rule, for the reasoner's cold start."""
        ...


class WorldShifts:
    """The world's shifts: all eleven tags, references by oracle."""

    tags: tuple[str, ...] = tuple(SHIFT_OF_TAG)
    reference: Literal["oracle", "carry"] = "oracle"
    sections: tuple[str, ...] = world.REASONING_SECTIONS

    def __init__(self, parents: Sequence[Scenario]) -> None:
        """Take the ID scenarios; the world needs none of them, since it makes each shift from its own words."""

    def frame(self, parent: Scenario, tag: str, rng: random.Random) -> Scenario:
        """See Shifts.frame and world.shift."""
        return world.frame(world.shift(parent, tag, rng))

    def finish(self, frame: Scenario, query: str, rng: random.Random) -> Scenario | Unreadable:
        """See Shifts.finish and world.with_query; a query that hides the shift asked for is refused."""
        made = world.with_query(frame, query, rng)
        if isinstance(made, Scenario) and not world.shows_shift(made):
            return Unreadable("shift", f"the query does not show {frame.subset_tag}")
        return made

    def example(self, scenario: Scenario) -> Scenario:
        """See Shifts.example: the simulator is free to ask, so nothing is added."""
        return scenario

    def reasoning(self, scenario: Scenario) -> str:
        """See Shifts.reasoning and world.oracle_reasoning."""
        return world.oracle_reasoning(scenario)


class FileShifts:
    """Shifts that can be made of real files without a model; the parent's reference is carried.

    - `user`: the persona of another parent; the simulator says the parent's query in that user's way. The reference stays
      right as far as it answers the query rather than the person.
    - `WordLevelComposition`: the same user; the words of every message are shuffled, the written query's too.

    The frame's draft is the parent's query in notes: its words without the file's commonest, in small letters. A simulator
    that is shown whole messages, and taught to write what it is shown, copies: its warm start's loss falls to 0.01 nats per
    token, and a user shift is then somebody else's words under another name.

    Character shifts and longer dialogues change what a good reply is, so they are not offered under `carry`. No parser
    knows what a query means here: the loop's gate `carry` refuses a query under which the reference became less likely.
    """

    tags: tuple[str, ...] = ("user", "WordLevelComposition")
    reference: Literal["oracle", "carry"] = "carry"
    sections: tuple[str, ...] = thoughts.SECTIONS

    def __init__(self, parents: Sequence[Scenario]) -> None:
        """Take the ID scenarios that personas and references come from.

        Raises:
            DataError: no parents.
        """
        self._parents = {parent.sample_id: parent for parent in parents}
        self._personas = {persona: folded(persona) for persona in sorted({parent.persona for parent in parents})}
        if not self._parents:
            raise DataError("0 ID samples to make shifts of; expected at least one")
        seen = Counter(unit for parent in parents for unit in set(units(parent.query)))
        self._common = {unit for unit, count in seen.items() if count > COMMON * len(parents)}

    def frame(self, parent: Scenario, tag: str, rng: random.Random) -> Scenario:
        """See Shifts.frame.

        Raises:
            DataError: unknown tag, a parent that the source was not given, or a user shift where all have one persona.
        """
        _known_tag(tag, self.tags)
        self._parent(parent.sample_id)
        persona, history = parent.persona, parent.dialogue[:-1]
        if tag == "user":
            own = folded(parent.persona)
            others = [other for other, plain in self._personas.items() if plain != own]
            if not others:
                raise DataError(one_persona(len(self._parents), parent.persona))
            persona = rng.choice(others)
        else:
            history = tuple(Turn(turn.role, shuffled(turn.text, rng)) for turn in history)
        return replace(
            parent,
            sample_id=f"{parent.sample_id}/{tag}-{rng.getrandbits(32):08x}",
            split="Shifted",
            subset_tag=tag,
            persona=persona,
            dialogue=(*history, Turn("user", "")),
            reference="",
            draft=self._notes(parent.query),
            # the file's own reasoning is about the parent
            thought="",
            parent=parent.sample_id,
        )

    def finish(self, frame: Scenario, query: str, rng: random.Random) -> Scenario | Unreadable:
        """See Shifts.finish; only a blank query is refused.

        Raises:
            DataError: the frame's parent is not among the source's.
        """
        if blank(query):
            return Unreadable("empty", "the query is blank; expected text")
        parent = self._parent(frame.parent)
        said = normalised(query) if frame.subset_tag == "user" else shuffled(query, rng)
        turns = (*frame.dialogue[:-1], Turn("user", said))
        return replace(frame, dialogue=turns, reference=parent.reference)

    def example(self, scenario: Scenario) -> Scenario:
        """See Shifts.example: a real query, to be written from notes of it."""
        return replace(scenario, draft=self._notes(scenario.query))

    def reasoning(self, scenario: Scenario) -> str:
        """See Shifts.reasoning: the file's own (`SThought`) where it has one, else one cut from the scenario by rule."""
        return scenario.thought or thoughts.extract(scenario)

    def _notes(self, query: str) -> str:
        said = units(query)
        telling = [unit for unit in said if unit not in self._common]
        return " ".join(telling if len(telling) >= FEWEST_NOTES else said)

    def _parent(self, sample_id: str | None) -> Scenario:
        if sample_id is None or sample_id not in self._parents:
            raise DataError(
                f"parent {sample_id!r} is not one of the {len(self._parents)} ID samples that this source was made with; "
                "give it the same ID file"
            )
        return self._parents[sample_id]


SOURCES: dict[str, type[WorldShifts | FileShifts]] = {"world": WorldShifts, "file": FileShifts}
"""name -> class; each is made with the ID parents."""


def one_persona(samples: int, persona: str) -> str:
    """Why no user shift can be made of samples that all have one persona, and what to do."""
    return (
        f"all {samples:,} ID samples have one user_persona ({persona[:40]!r}), and a user shift takes another sample's; "
        "write who each user is, or leave `user` out of loop.shifts"
    )


def _known_tag(tag: str, tags: Sequence[str]) -> None:
    if tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=1, cutoff=0)
        raise DataError(f"unknown shift tag {tag!r}; expected one of {', '.join(tags)}; nearest: {near[0]}")


def shuffled(text: str, rng: random.Random) -> str:
    """A text's words in another order."""
    words = text.split()
    return " ".join(rng.sample(words, len(words)))
