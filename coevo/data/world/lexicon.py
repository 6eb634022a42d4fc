"""The world's words: one YAML file per language, one for the characters, and the inventories read off them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

Pool = Literal["train", "test"]

LANGUAGES = ("en", "de", "es", "zh", "ja", "ko")
MANNERS = ("formal", "casual", "playful")
CALLINGS = ("nurse", "farmer", "student", "sailor", "baker", "teacher", "soldier", "musician")
TOPICS = (
    "sea",
    "home",
    "winter",
    "money",
    "friendship",
    "fear",
    "dreams",
    "music",
    "work",
    "love",
    "stars",
    "bread",
)
MOODS = ("worried", "cheerful", "sad", "curious")
REAL_CRAFTS = ("physicist", "painter", "explorer", "poet", "physician", "inventor", "queen", "composer")
FICTION_CRAFTS = ("wizard", "robot", "ghost", "captain", "dragon", "thief", "queen", "inventor")
CRAFTS = (*REAL_CRAFTS, *(craft for craft in FICTION_CRAFTS if craft not in REAL_CRAFTS))
"""Fourteen crafts: eight of real persons, eight of invented ones, of which two (queen, inventor) are shared."""
REAL_KIND = "history"
KINDS = ("Literature", "Film & Television", "Theater", "Gaming")
"""The paper's four kinds of fiction, which are also its subset tags of the character shift."""
LANGUAGE_OF_TAG = {"german": "de", "spanish": "es", "chinese": "zh", "japanese": "ja", "korean": "ko"}
"""Language of each subset tag of the user shift; every other tag is spoken in English."""

SLOTS = ("greeting", "address", "content", "catchphrase", "closing")
"""The slots of a reply, in their order."""
SLOT_ATTRIBUTE = {
    "greeting": "manner",
    "address": "calling",
    "content": "topic",
    "catchphrase": "craft",
    "closing": "mood",
}
"""The attribute that, with the language, decides each slot."""
ATTRIBUTE_VALUES: dict[str, tuple[str, ...]] = {
    "language": LANGUAGES,
    "manner": MANNERS,
    "calling": CALLINGS,
    "topic": TOPICS,
    "craft": CRAFTS,
    "mood": MOODS,
}
OTHER = "…"
"""The symbol, and its rendering, of a slot that holds nothing readable."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One phrase that a slot of the reply can hold."""

    text: str
    slot: str
    language: str
    value: str
    """The value of the slot's attribute that this phrase is right for, for example `nurse`."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One language's words, as its YAML file has them."""

    name: str
    """The language's English name, as a persona says it."""
    names: Mapping[Pool, tuple[str, ...]]
    cities: Mapping[Pool, tuple[str, ...]]
    reply: Mapping[str, Mapping[str, tuple[str, ...]]]
    """slot -> value -> its phrases."""
    opener: Mapping[str, tuple[str, ...]]
    mood: Mapping[str, tuple[str, ...]]
    question: Mapping[str, tuple[str, ...]]
    history: tuple[tuple[str, str], ...]
    """(user, agent) small talk; entry i means the same in every language and says nothing about any slot."""


@dataclass(frozen=True, slots=True)
class Character:
    """A person that the agent can play."""

    name: str
    craft: str
    kind: str
    """`history` for real persons, else one of KINDS."""
    work: str

    def as_object(self) -> dict[str, str]:
        """Return the object that a scenario's `agent_character` field holds."""
        return {"name": self.name, "craft": self.craft, "kind": self.kind, "work": self.work}


def _read_yaml(name: str) -> Any:
    return yaml.safe_load(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _variants(entry: Mapping[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    return {value: (text,) if isinstance(text, str) else tuple(text) for value, text in entry.items()}


def _read_lexicon(language: str) -> Lexicon:
    raw = _read_yaml(f"{language}.yaml")
    return Lexicon(
        name=raw["name"],
        names={"train": tuple(raw["names"]["train"]), "test": tuple(raw["names"]["test"])},
        cities={"train": tuple(raw["cities"]["train"]), "test": tuple(raw["cities"]["test"])},
        reply={slot: _variants(raw[slot]) for slot in SLOTS},
        opener=_variants(raw["opener"]),
        mood=_variants(raw["mood"]),
        question=_variants(raw["question"]),
        history=tuple((user, agent) for user, agent in raw["history"]),
    )


def _read_characters() -> dict[tuple[str, Pool], tuple[Character, ...]]:
    raw = _read_yaml("characters.yaml")
    by_kind = {REAL_KIND: raw["real"], **raw["fiction"]}
    pools: tuple[Pool, Pool] = ("train", "test")
    return {
        (kind, pool): tuple(
            Character(name, craft, kind, work) for craft, rows in crafts.items() for name, work in rows[pool]
        )
        for kind, crafts in by_kind.items()
        for pool in pools
    }


LEXICA: dict[str, Lexicon] = {language: _read_lexicon(language) for language in LANGUAGES}
CHARACTERS: dict[tuple[str, Pool], tuple[Character, ...]] = _read_characters()
"""(kind, pool) -> characters. Every craft of a kind has equally many, so that a uniform character has a uniform craft."""

PHRASES: tuple[Phrase, ...] = tuple(
    Phrase(text, slot, language, value)
    for slot in SLOTS
    for language in LANGUAGES
    for value, texts in LEXICA[language].reply[slot].items()
    for text in texts
)
"""Every phrase that a reply can hold; their texts are all distinct."""
PHRASE_OF_TEXT: dict[str, Phrase] = {phrase.text: phrase for phrase in PHRASES}
INVENTORY: dict[str, tuple[str, ...]] = {
    slot: tuple(phrase.text for phrase in PHRASES if phrase.slot == slot) for slot in SLOTS
}
"""slot -> all its phrases over all six languages, without OTHER; its length is V of the exact density."""
