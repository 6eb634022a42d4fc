"""From conversations to scenarios: each turn of the agent's after one of the user's is a reference to be reached."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from typing import Any

from coevo.cards import Card
from coevo.data.jsonstream import Element
from coevo.data.sample import KEY_OF_ROLE, Sample
from coevo.errors import DataError
from coevo.formats.conversation import Conversation
from coevo.text import blank, folded, normalised
from coevo.types import Scenario

UNKNOWN = "unknown"
"""The persona where nothing says who the user is."""
_LABEL = re.compile(r"[^\w.\-]+")
_ABOUT = re.compile(
    r"(?P<mark>[#*>-]*) ?(?:the )?(?:user(?:'s|’s)? (?:persona|profile|description)|persona of the user|about the user)"
    r"\*{0,2}(?P<colon>[:：]?)\*{0,2}(?P<said>.*)",
    re.IGNORECASE,
)
"""A line of a system prompt, stripped, that says who the user is, or above what does."""


@dataclass
class Converted:
    """Scenarios, and what became of the rest."""

    scenarios: list[Scenario] = field(default_factory=list)
    conversations: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """What was not taken, by reason."""
    first: dict[str, str] = field(default_factory=dict)
    """Reason -> where it was seen first."""
    personas_read: int = 0
    """Conversations whose persona was read off the system prompt."""

    def leave(self, reason: str, place: str, n: int = 1) -> None:
        """Counts what is not taken."""
        if n:
            self.left_out[reason] += n
            self.first.setdefault(reason, place)

    @property
    def notes(self) -> list[str]:
        """What cannot be asked of these scenarios."""
        unknown = sum(x.persona == UNKNOWN for x in self.scenarios)
        read = f"{self.personas_read:,} personas were read off system prompts (user persona: …); look at some of them."
        notes = [read] if self.personas_read else []
        if not unknown:
            return notes
        return [
            *notes,
            f"{unknown:,} of {len(self.scenarios):,} scenarios do not say who the user is (persona {UNKNOWN!r}): what a "
            "model loses of the persona cannot be told, and no user shift be made of them. Give --persona.",
        ]


def convert(
    conversations: Iterable[Conversation],
    *,
    split: str = "IDTrain",
    persona: str = "",
    character: str | Mapping[str, Any] = "",
    per_conversation: int = 4,
    cards: Sequence[Card] = (),
) -> Converted:
    """Scenarios of conversations.

    Args:
        conversations: in order.
        split: of all scenarios, and their tag.
        persona: who the user is, where neither a conversation nor a line of its system prompt (`User persona: …`) says it.
        character: whom the agent plays, where neither a conversation nor its system prompt says it.
        per_conversation: at most so many of each, evenly spaced, the last turn always; neighbouring ones share nearly all.
        cards: whom the agent plays, by the name that a conversation gives its character; a single card is everybody's. Each
            scenario has what the card's lorebook tells of its last messages.

    Raises:
        DataError: nothing says whom the agent plays, or no conversation has a turn of the agent's after one of the user's.
    """
    found, names = Converted(), Counter[str]()
    for one in conversations:
        found.conversations += 1
        for reason, n in Counter(one.left_out).items():
            found.leave(reason, one.place, n)
        sheet = _card(one, cards)
        card = one.character or one.system or character
        if sheet is None and (not card or (isinstance(card, str) and blank(card))):
            raise DataError(
                f"{one.place}: nothing says whom the agent plays: neither a system prompt nor a field `character`. Give "
                "--character with a card or a text, for all such conversations."
            )
        stem = _LABEL.sub("-", one.name)[:120] or "chat"
        names[stem] += 1
        name = stem if names[stem] == 1 else f"{stem}~{names[stem]}"
        told = "" if one.persona else persona_in(one.system)
        found.personas_read += bool(told)
        if one.turns and one.turns[-1].role == "user":
            found.leave("last message of a user, which nobody answers", one.place)
        places = [i for i in range(1, len(one.turns)) if one.turns[i].role == "agent"]
        if not places:
            found.leave("conversation without an answer to a user", one.place)
        for place in _spaced(places[-1:] if one.last_alone else places, per_conversation, found, one.place):
            user, said = one.persona or told or persona or UNKNOWN, one.turns[:place]
            played = card if sheet is None else sheet.character(_called(one), [turn.text for turn in said])
            made = Scenario(f"{name}-{place:03}", split, split, user, played, said, one.turns[place].text)
            why = _unwritable(made)
            if why:
                found.leave(why, one.place)
            else:
                found.scenarios.append(made)
    if not found.scenarios:
        why = "".join(f"; {n:,} × {reason}, first at {found.first[reason]}" for reason, n in found.left_out.most_common(5))
        raise DataError(f"of {found.conversations} conversations none has an answer of the agent's to a user{why}.")
    return found


def persona_in(system: str) -> str:
    """What a system prompt says of the user after `User persona:`, or under a heading of that; empty where it does not."""
    lines = [line.strip() for line in system.splitlines()]
    for place, line in enumerate(lines):
        found = _ABOUT.fullmatch(line)
        if found and found["colon"] and not blank(found["said"]):
            return normalised(found["said"])
        if found and (found["colon"] or found["mark"]) and blank(found["said"]):
            below = dropwhile(blank, lines[place + 1 :])
            return "\n".join(takewhile(lambda one: not blank(one) and not one.startswith("#"), below))
    return ""


def _unwritable(x: Scenario) -> str:
    """What keeps a scenario from being written and read again, as half of a surrogate pair does; empty if nothing."""
    record = {
        "sample_ID": x.sample_id,
        "subset_tag": x.subset_tag,
        "user_persona": x.persona,
        "agent_character": x.character if isinstance(x.character, str) else dict(x.character),
        "dialogue_context": [{KEY_OF_ROLE[turn.role]: turn.text} for turn in x.dialogue],
        "agent_golden_response": x.reference,
    }
    sample = Sample("", Element(x.split, 0, record, 0, ""))
    if sample.scenario() is not None:
        return ""
    first = sample.problems[0]
    # without the value, so that equal faults are counted together
    return f"scenario whose {first.field} is not {first.message.partition('; expected ')[2]}"


def _card(one: Conversation, cards: Sequence[Card]) -> Card | None:
    """The card of a conversation's character.

    Raises:
        DataError: there are several, and none of this name.
    """
    if len(cards) <= 1:
        return cards[0] if cards else None
    name = one.character if isinstance(one.character, str) else str(one.character.get("name", ""))
    found = next(
        (card for card in cards if folded(name) and folded(name) in (folded(card.name), folded(card.nickname))), None
    )
    if found is None:
        known = ", ".join(card.name for card in cards[:5]) + (", …" if len(cards) > 5 else "")
        raise DataError(f"{one.place}: its character is called {name!r:.60}, and no card is; the cards are {known}.")
    return found


def _called(one: Conversation) -> str:
    """What {{user}} is in the card: the user's name where the format gives no more of the user than that."""
    return one.persona if one.persona and len(one.persona.split()) <= 3 else "the user"


def _spaced(places: Sequence[int], most: int, found: Converted, where: str) -> list[int]:
    """At most so many, evenly spaced, the last always."""
    if len(places) <= most:
        return list(places)
    found.leave(f"answer beyond {most} of a conversation (--per-conversation)", where, len(places) - most)
    return [places[len(places) - 1 - (len(places) * k) // most] for k in reversed(range(most))]
