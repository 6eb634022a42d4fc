"""Scenarios that differ from a real one in exactly one component, for data whose law nobody knows.

Of real scenarios no two have one dialogue, so none differ in the persona or in the character alone. What can be had: x with
one component of another scenario in the place of its own. The reference of x, given there, is the answer of a responder that
mistakes this component and nothing else.

The other scenario, the donor, is of the same subset, so that the language stays, and the nearest with another value: for the
persona one with the same character, for the character one with the same user, for the dialogue one between the same two,
which makes it a real scenario up to the sayings on its cards. People are told apart by name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coevo.prompts import character_text
from coevo.types import Component, Scenario

_NAME_END = re.compile(r"[,.;:\n，。；：]")


@dataclass(frozen=True, slots=True)
class Swap:
    """A scenario with one component of another one's."""

    shown: Scenario
    """x but for the component. Its reference is still that of x, and so a wrong one."""
    donor: str
    """sample_id of whose component it has."""
    shared: int
    """How many of the other two components the donor shares by name, 0 to 2; a dialogue is never shared."""


def swap(x: Scenario, component: Component, others: Sequence[Scenario], rng: random.Random) -> Swap | None:
    """x with a component of the nearest scenario that has another value of it; of equally near ones any.

    Left out as donors are dialogues that show the query of x, or whose query x shows, as windows of one scene do, and
    whatever shows the reference.

    Args:
        x: a scenario with its reference.
        component: the one to swap.
        others: where donors are taken from: those of x's subset, x among them or not.
        rng: draws among equally near donors.

    Returns:
        The swap; None without any donor.
    """
    found: dict[int, list[Scenario]] = {}
    for other in others:
        if _differs(x, other, component) and x.reference.strip() not in _text(other, component):
            shared = sum(name(x, z) == name(other, z) for z in ("u", "c") if z != component)
            found.setdefault(shared, []).append(other)
    if not found:
        return None
    nearest = max(found)
    donor = rng.choice(found[nearest])
    sample_id = f"{x.sample_id} with {component} of {donor.sample_id}"
    if component == "u":
        shown = replace(x, sample_id=sample_id, persona=donor.persona)
    elif component == "c":
        shown = replace(x, sample_id=sample_id, character=donor.character)
    else:
        shown = replace(x, sample_id=sample_id, dialogue=donor.dialogue)
    return Swap(shown, donor.sample_id, nearest)


def name(x: Scenario, component: Component) -> str:
    """Who the user or the character is: the card's `name` if it is an object with one, else what comes before a comma, a
    stop, a colon or a line's end."""
    if component == "c" and isinstance(x.character, Mapping) and isinstance(x.character.get("name"), str):
        return str(x.character["name"]).strip().casefold()
    text = x.persona if component == "u" else character_text(x.character)
    return _NAME_END.split(text.strip(), maxsplit=1)[0].strip().casefold()


def _differs(x: Scenario, other: Scenario, component: Component) -> bool:
    if component != "d":
        return name(x, component) != name(other, component)
    return not (_shows(x, other.query) or _shows(other, x.query))


def _shows(x: Scenario, query: str) -> bool:
    return query.strip() in {turn.text.strip() for turn in x.dialogue}


def _text(x: Scenario, component: Component) -> str:
    if component == "d":
        return "\n".join(turn.text for turn in x.dialogue)
    return x.persona if component == "u" else character_text(x.character)
