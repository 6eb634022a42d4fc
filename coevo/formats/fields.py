"""What the formats share: messages of a record, each told by who says it, and the fields beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from coevo.data.jsonstream import Refused, strict_decoder
from coevo.errors import DataError
from coevo.formats.conversation import Conversation, Row, joined
from coevo.text import blank, normalised
from coevo.types import Turn

Role = Literal["user", "agent", "system"]
ROLES: Mapping[str, Role] = {
    "user": "user", "assistant": "agent", "system": "system", "developer": "system", "human": "user", "gpt": "agent",
    "chatgpt": "agent", "bard": "agent", "bing": "agent", "model": "agent", "bot": "agent",
}  # fmt: skip
OTHER_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")
"""Messages of tools are no part of a role-play: they are left out and counted."""
SAID = ("role", "content")
"""Fields of a message: who says it, and what. ShareGPT's are `from` and `value`."""
_PARTS = ("text", "input_text", "output_text")

Said = tuple[Role, str] | str
"""Who says what; or why a message is left out."""


def listed(row: Row, key: str) -> list[Any]:
    """A field that holds a list, or its JSON, as a column of a table does.

    Raises:
        DataError: it holds something else.
    """
    value = row.value.get(key)
    if isinstance(value, str):
        try:
            value = strict_decoder().decode(value)
        except (json.JSONDecodeError, Refused, RecursionError):
            raise row.fault(key, value, "a list of messages, or its JSON", "correct the record") from None
    if not isinstance(value, list):
        raise row.fault(key, value, "a list of messages", "correct the record")
    return value


def said_of(row: Row, place: str, message: Any, keys: tuple[str, str]) -> Said:
    """Who says what in a message; or why it is left out.

    Raises:
        DataError: a role that is not known, or what is no text.
    """
    if isinstance(message, dict) and keys[0] not in message:
        keys = next((pair for pair in (SAID, ("from", "value")) if pair[0] in message), keys)
    who = message.get(keys[0]) if isinstance(message, dict) else None
    if isinstance(who, str) and who.casefold() in OTHER_ROLES:
        return "message of a tool"
    if not isinstance(who, str) or who.casefold() not in ROLES:
        raise row.fault(f"{place}.{keys[0]}", who, f"one of {', '.join(ROLES)}", "correct it")
    text = whole(row, f"{place}.{keys[1]}", message.get(keys[1]))
    return "empty message" if blank(text) else (ROLES[who.casefold()], normalised(text))


def whole(row: Row, place: str, value: Any) -> str:
    """A text, or the texts of a list of parts; empty where there is none. Null characters are taken out.

    Raises:
        DataError: something else, as a picture is.
    """
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        other = next((part.get("type") for part in value if part.get("type") not in _PARTS), None)
        if other is not None:
            raise row.fault(place, other, "parts of type text", "take pictures and sound out")
        texts = [part.get("text") for part in value]
        value = "\n".join(texts) if all(isinstance(text, str) for text in texts) else value
    if value is not None and not isinstance(value, str):
        raise row.fault(place, value, "a text", "correct it")
    return (value or "").replace("\0", "")


def conversation_of(row: Row, number: int, said: list[Said], system: str) -> Conversation:
    """A conversation of messages and of the fields beside them.

    A system message within the dialogue is left out: at the front of earlier turns it would tell them what came later.
    """
    kept = [one for one in said if not isinstance(one, str)]
    begin = next((place for place, (role, _) in enumerate(kept) if role != "system"), len(kept))
    turns = [Turn(role, text) for role, text in kept if role != "system"]
    late = len(kept) - begin - len(turns)
    own = next((row.value[key] for key in ("id", "conversation_id", "uuid") if row.value.get(key)), None)
    return Conversation(
        str(own) if isinstance(own, str | int) and not isinstance(own, bool) else f"{number:06}",
        joined(turns), row.place, "\n\n".join(filter(None, [system, *(text for _, text in kept[:begin])])),
        persona=text_of(row, "user_persona") or text_of(row, "persona"), character=character_of(row),
        left_out=(*(one for one in said if isinstance(one, str)), *["system message within the dialogue"] * late),
    )  # fmt: skip


def character_of(row: Row) -> str | Mapping[str, Any]:
    """Whom the agent plays, where a field says it.

    Raises:
        DataError: it is no text and no object that JSON can hold.
    """
    key = "agent_character" if "agent_character" in row.value else "character"
    value = row.value.get(key)
    if isinstance(value, dict):
        try:
            json.dumps(value, allow_nan=False)  # a table's cells may hold times, bytes and numbers that are none
        except (TypeError, ValueError, RecursionError):
            raise row.fault(key, value, "an object of texts, numbers and lists of them", "correct it") from None
        return value
    return text_of(row, key)


def text_of(row: Row, key: str) -> str:
    """A field that holds a text or is absent.

    Raises:
        DataError: it holds something else.
    """
    value = row.value.get(key)
    if value is not None and not isinstance(value, str):
        raise row.fault(key, value, "a text", "correct or remove it")
    return normalised((value or "").replace("\0", ""))


def cell(row: Row, column: str) -> Any:
    """A cell of a table.

    Raises:
        DataError: there is no such column.
    """
    if column not in row.value:
        raise DataError(f"{row.place}: has no column {column!r}; it has {', '.join(map(repr, row.value))}.")
    return row.value[column]
