"""One dialogue with a character: what was said, what the model is shown of it, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from coevo.cards import Card, Entry
from coevo.errors import DataError
from coevo.files import write_atomic
from coevo.formats import UNKNOWN, read_conversations
from coevo.text import blank, normalised
from coevo.types import Response, Scenario, Turn


class Speaker(Protocol):
    """Who speaks for the character."""

    name: str

    def say(self, x: Scenario, seed: int, on_text: Callable[[str], None] | None = None) -> Response:
        """The next message."""

    def prompt(self, x: Scenario) -> list[int]:
        """The tokens that it reads."""

    def count(self, text: str) -> int:
        """Tokens of a text."""

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""


@dataclass
class Talk:
    """A dialogue under way. It begins with the card's greeting, where it has one."""

    card: Card
    user: str = "User"
    """The user's name, for {{user}} and the chat's file."""
    persona: str = ""
    """Who the user is; the name alone if empty."""
    turns: list[Turn] = field(default_factory=list)
    draws: int = 0
    """Messages drawn so far, so that a retry draws another."""

    def begin(self) -> str:
        """Clears what was said, and the greeting."""
        greeting = self.card.greeting(self.user)
        self.turns = [Turn("agent", greeting)] if greeting else []
        return greeting

    def hear(self, text: str) -> None:
        """Takes the user's message; two in a row are one.

        Raises:
            DataError: a blank one, or text that UTF-8 cannot hold.
        """
        said = normalised(text.encode("utf-8", "replace").decode().replace("\0", ""))
        if blank(said):
            raise DataError("the message is empty; expected text.")
        if self.turns and self.turns[-1].role == "user":
            said = f"{self.turns.pop().text}\n\n{said}"
        self.turns.append(Turn("user", said))

    def answer(self, speaker: Speaker, on_text: Callable[[str], None] | None = None) -> Response:
        """The character's next message, kept unless it is empty.

        Raises:
            DataError: the user has said nothing, or even the last message alone is too long for the model.
        """
        x, _ = self.shown(speaker)
        self.draws += 1
        response = speaker.say(x, self.draws, on_text)
        if not blank(response.text):
            self.turns.append(Turn("agent", response.text))
        return response

    def shown(self, speaker: Speaker) -> tuple[Scenario, int]:
        """What the model is shown, and how many of the first messages it is not, as there is no room for them."""
        if not self.turns or self.turns[-1].role != "user":
            raise DataError("it is the user's turn; write something first.")
        for first in range(len(self.turns)):
            x = self._scenario(self.turns[first:], speaker)
            if len(speaker.prompt(x)) <= speaker.room:
                return x, first
        raise DataError(f"the character and the last message have more tokens than the model has room for, {speaker.room}.")

    def _scenario(self, turns: list[Turn], speaker: Speaker) -> Scenario:
        played = self.card.character(self.user, [turn.text for turn in self.turns], speaker.count)
        persona = self.persona or (self.user if self.user != "User" else UNKNOWN)
        return Scenario("chat", "Chat", "Chat", persona, played, tuple(turns), "")

    def lore(self, speaker: Speaker) -> list[Entry]:
        """What the lorebook adds at this point."""
        return self.card.lorebook.triggered([turn.text for turn in self.turns], speaker.count)

    def undo(self) -> bool:
        """Takes back the last message of the user and what came after; False if there is none."""
        places = [place for place, turn in enumerate(self.turns) if turn.role == "user"]
        if places:
            del self.turns[places[-1] :]
        return bool(places)

    def retract(self) -> bool:
        """Takes back the character's last answer, so that it can be drawn again; False if there is none."""
        answered = len(self.turns) > 1 and self.turns[-1].role == "agent"
        if answered:
            self.turns.pop()
        return answered

    def save(self, path: Path) -> None:
        """Writes the chat as SillyTavern does: a line of metadata, and a line a message."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        lines: list[dict[str, object]] = [
            {"user_name": self.user, "character_name": self.card.name, "create_date": now, "chat_metadata": {}}
        ]
        for turn in self.turns:
            mine = turn.role == "user"
            who = self.user if mine else self.card.name
            lines.append({"name": who, "is_user": mine, "is_system": False, "send_date": now, "mes": turn.text})
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def load(self, path: Path) -> None:
        """Goes on with a chat that was saved here or by SillyTavern.

        Raises:
            DataError: it is no such chat.
        """
        name, conversations = read_conversations(path)
        found = next(conversations, None)
        if name != "sillytavern" or found is None:
            raise DataError(f"{path}: is {name}; expected a chat that SillyTavern or coevo chat saved.")
        self.turns = list(found.turns)
        self.user = found.persona or self.user
