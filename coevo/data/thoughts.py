"""A plain reasoning of a real scenario, cut from its own text, for cold starts of files that have none (`SThought`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coevo.types import Scenario

SECTIONS = ("user", "character", "dialogue")
MOST_WORDS = {"user": 12, "character": 12, "dialogue": 24}
"""Words that each section has at most."""
MOST_CHARACTERS = 160
"""The same in characters, for languages that put no space between words."""
_SENTENCE = re.compile(r"[^.!?。！？…]+[.!?。！？…]*")


def extract(scenario: Scenario) -> str:
    """The reasoning by rule, from x alone (never the reference): whom to answer, as whom, and what.

    - user: the first sentence of the persona;
    - character: the first two fields of a card that is an object, the first sentence of one that is text;
    - dialogue: the last question of the query, or its last sentence if it asks none;

    each cut to `MOST_WORDS` and `MOST_CHARACTERS`. One without a letter or a digit falls back on the whole of its source.
    """
    character = scenario.character
    if isinstance(character, Mapping):
        card = "; ".join(f"{key}: {value}" for key, value in list(character.items())[:2] if isinstance(value, str | int))
        whole = " ".join(map(str, character.values()))
    else:
        card, whole = _sentences(character)[0], character
    sentences = _sentences(scenario.query)
    asked = [sentence for sentence in sentences if sentence.rstrip().endswith(("?", "？"))]
    sources = {
        "user": (_sentences(scenario.persona)[0], scenario.persona),
        "character": (card, whole),
        "dialogue": ((asked or sentences)[-1], scenario.query),
    }
    return "\n".join(f"{name}: {_cut(*texts, MOST_WORDS[name])}" for name, texts in sources.items())


def _sentences(text: str) -> list[str]:
    """The sentences that say something; the whole text if none does."""
    found = [part.strip() for part in _SENTENCE.findall(text)]
    return [part for part in found if any(map(str.isalnum, part))] or [text]


def _cut(text: str, otherwise: str, most: int) -> str:
    chosen = text if any(map(str.isalnum, text)) else otherwise
    return " ".join(chosen.split()[:most])[:MOST_CHARACTERS]
