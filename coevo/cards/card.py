"""Character cards as SillyTavern and its kin write them: versions 1, 2 and 3, and RPBench's profiles.

What of a card goes into a prompt: description, personality, scenario, example messages and the two kinds of instructions,
with `{{char}}` and `{{user}}` filled in. `creator_notes` never do: they are for whoever picks a card.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo.cards.lorebook import Lorebook, parse_lorebook
from coevo.errors import DataError
from coevo.text import blank, normalised

VERSIONS = ("chara_card_v2", "chara_card_v3")
TEXTS = (
    "name", "description", "personality", "scenario", "first_mes", "mes_example", "system_prompt",
    "post_history_instructions", "nickname", "creator_notes",
)  # fmt: skip
LONGEST_NAME = 200
_MACRO = re.compile(r"\{\{\s*(char|user|original)\s*\}\}|<(bot|char|user)>|\{\{//.*?\}\}", re.IGNORECASE | re.DOTALL)
_START = re.compile(r"\s*<START>\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """A character. Texts are as the card has them, macros and all."""

    name: str
    description: str = ""
    personality: str = ""
    scenario: str = ""
    first_mes: str = ""
    mes_example: str = ""
    system_prompt: str = ""
    post_history_instructions: str = ""
    nickname: str = ""
    creator_notes: str = ""
    """For whoever picks the card; never in a prompt."""
    greetings: tuple[str, ...] = ()
    """Other first messages."""
    lorebook: Lorebook = field(default_factory=Lorebook)
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The card as it was read, unknown fields and all; what is written back."""

    def filled(self, text: str, user: str) -> str:
        """A text of the card with its macros; what stands in a name is no macro."""
        names = {"char": self.nickname or self.name, "bot": self.nickname or self.name, "user": user, "original": ""}
        return normalised(_MACRO.sub(lambda found: names.get((found[1] or found[2] or "").casefold(), ""), text))

    def greeting(self, user: str, which: int = 0) -> str:
        """The first message; empty where the card has none."""
        texts = (self.first_mes, *self.greetings)
        return self.filled(texts[which], user) if which < len(texts) else ""

    def character(self, user: str, messages: Sequence[str] = (), count: Callable[[str], int] = len) -> dict[str, str]:
        """Whom the agent plays, as a scenario holds it; with what the lorebook tells of what is spoken of.

        Args:
            user: the user's name.
            messages: of the dialogue so far, for the lorebook.
            count: tokens of a text, for its budget.
        """
        lore = self.lorebook.triggered(messages, count)
        parts = {
            "name": self.name,
            "instructions": self.system_prompt,
            "lore": "\n".join(entry.content for entry in lore if entry.before),
            "description": self.description,
            "personality": self.personality,
            "scenario": self.scenario,
            "further lore": "\n".join(entry.content for entry in lore if not entry.before),
            "example messages": _START.sub("\n***\n", self.mes_example),
            "above all": self.post_history_instructions,
        }
        filled = {key: self.filled(text, user) for key, text in parts.items()}
        return {key: text for key, text in filled.items() if not blank(text)}


def parse_card(raw: Any, place: str) -> Card:
    """A card of any version.

    Raises:
        DataError: it is none, or a field is of another type than its specification says.
    """
    if not isinstance(raw, Mapping):
        raise _fault(place, raw, "an object with the fields of a character card")
    if "npc_profile" in raw:
        return _profile(raw, place)
    version = raw.get("spec")
    data = raw.get("data") if version in VERSIONS else raw
    where = f"{place}, data" if version in VERSIONS else place
    if version is not None and version not in VERSIONS:
        raise _fault(f"{place}, spec", version, f"one of {', '.join(VERSIONS)}, or no spec (version 1)")
    if not isinstance(data, Mapping):
        raise _fault(where, data, "an object with the card's fields")
    if "name" not in data or not {"description", "personality", "first_mes"} & data.keys():
        seen = ", ".join(map(repr, list(data)[:8])) or "no field"
        raise DataError(f"{where}: has {seen}; expected a character card: name, description, personality, first_mes, …")
    texts = {name: _text(data, name, where) for name in TEXTS}
    if blank(texts["name"]) or len(texts["name"]) > LONGEST_NAME or "\n" in texts["name"].strip():
        raise _fault(f"{where}, name", texts["name"], f"a name of one line, at most {LONGEST_NAME} characters")
    greetings = data.get("alternate_greetings") or []
    if not isinstance(greetings, list) or not all(isinstance(text, str) for text in greetings):
        raise _fault(f"{where}, alternate_greetings", greetings, "a list of texts")
    book = data.get("character_book")
    lorebook = Lorebook() if book is None else parse_lorebook(book, f"{where}, character_book")
    return Card(**texts, greetings=tuple(greetings), lorebook=lorebook, raw=raw)


def _profile(raw: Mapping[str, Any], place: str) -> Card:
    """RPBench's: a profile with its first line, or a scene's."""
    own = raw["npc_profile"]
    if not isinstance(own, Mapping):
        raise _fault(f"{place}, npc_profile", own, "an object")
    where = f"{place}, npc_profile"
    name = _text(own, "name_text", where) or _text(own, "name", where)
    if blank(name):
        raise _fault(f"{where}, name_text", name, "a name")
    written = ("definition_text", "long_definition_text", "description", "title")
    told = list(dict.fromkeys(text for key in written if not blank(text := _text(own, key, where))))
    further = ("age", "interests", "communication_style", "background")
    told += [f"{key.replace('_', ' ')}: {text}" for key in further if (text := _text(own, key, where))]
    first = raw.get("conversation") or [{}]
    said = first[0].get("sentences", []) if isinstance(first, list) and isinstance(first[0], Mapping) else []
    greeting = "\n".join(text for text in said if isinstance(text, str)) if isinstance(said, list) else ""
    short = _text(own, "personality", where) or _text(own, "short_definition_text", where)
    background = raw.get("background")
    return Card(
        normalised(name), "\n".join(told), short, _text(raw, "background", place) if isinstance(background, str) else "",
        greeting, raw=raw,
    )  # fmt: skip


def _text(data: Mapping[str, Any], name: str, place: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _fault(f"{place}, {name}", value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _fault(f"{place}, {name}", value, "text that UTF-8 can hold") from None
    return value.replace("\0", "")


def _fault(place: str, value: Any, expected: str) -> DataError:
    return DataError(f"{place}: is {value!r:.80}; expected {expected}; correct the card.")
