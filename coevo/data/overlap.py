"""Copies of one sample in two places, whatever they are called: a test that was trained on measures memory.

Two samples are copies if they have, in letters and digits alone (so without case, punctuation, white space and width),

- the same persona, character and dialogue, or
- the same dialogue and reference, of `SHORTEST` letters and digits or more.

A persona, a character or a query that two samples share does not make them copies: splits share those by design.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coevo.text import folded
from coevo.types import Scenario

SHORTEST = 40
"""Letters and digits of dialogue and reference below which two people may well have said the same."""
LISTED = 3
"""Pairs of copies that a message names."""


@dataclass(frozen=True, slots=True)
class Imprint:
    """A sample's name, and hashes of what makes another one its copy."""

    sample_id: str
    keys: tuple[bytes, ...]


Pair = tuple[str, str]
"""sample_ids of a sample and of the one that it is a copy of."""


def imprint(x: Scenario, exact: bool = False) -> Imprint:
    """What a sample is compared by.

    Args:
        x: the sample.
        exact: its reference is drawn from few, as the world's are, so that dialogue and reference may agree by chance: only
            persona, character and dialogue count.
    """
    dialogue = [folded(turn.text) for turn in x.dialogue]
    keys = [_hash(folded(x.persona), folded(_card(x.character)), *dialogue)]
    reference = folded(x.reference)
    if not exact and reference and sum(map(len, dialogue)) + len(reference) >= SHORTEST:
        keys.append(_hash(*dialogue, reference))
    return Imprint(x.sample_id, tuple(keys))


def copies(some: Iterable[Imprint], of: Iterable[Imprint]) -> list[Pair]:
    """Those of `some` that are copies of one of `of`, each with the first such one."""
    names: dict[bytes, str] = {}
    for one in of:
        for key in one.keys:
            names.setdefault(key, one.sample_id)
    found = ((one, next((key for key in one.keys if key in names), None)) for one in some)
    return [(one.sample_id, names[key]) for one, key in found if key is not None]


def listed(pairs: Iterable[Pair]) -> str:
    """The first few pairs, for a message."""
    every = list(pairs)
    more = ", …" if len(every) > LISTED else ""
    return ", ".join(f"{one} is {other}" for one, other in every[:LISTED]) + more


def _hash(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _card(value: Any) -> str:
    """A character's texts with the names of their fields, whatever it is made of."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_card(part)}" for key, part in value.items())
    return " ".join(map(_card, value)) if isinstance(value, list | tuple) else str(value)
