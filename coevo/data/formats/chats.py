"""The formats that chat logs come in: each a function from a file's rows to conversations.

- `sharegpt`: `{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "system": …}`
- `openai`: `{"messages": [{"role": "user", "content": …}, …]}`, the content a text or a list of text parts
- `sillytavern`: a line of metadata, then `{"name": …, "is_user": …, "mes": …}`; a file is one conversation
- `coser`: `{"conversation": [{"dialogues": [{"character": …, "message": …}]}], "character_profiles": {…}}`
- `table`: CSV or Parquet with a message a row, by a mapping of columns
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any, Literal

from coevo.data.formats.conversation import Conversation, Row, joined
from coevo.errors import DataError
from coevo.text import blank, normalised
from coevo.types import Turn

Role = Literal["user", "agent", "system"]
SHAREGPT_ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "gpt": "agent", "assistant": "agent", "chatgpt": "agent", "bard": "agent",
    "model": "agent", "bot": "agent", "system": "system",
}  # fmt: skip
OPENAI_ROLES: dict[str, Role] = {"user": "user", "assistant": "agent", "system": "system", "developer": "system"}
OTHER_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")
"""Messages of tools are no part of a role-play: they are left out and counted."""
COLUMNS = ("conversation", "role", "content")
"""What a mapping of a table's columns names."""


def sharegpt(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """ShareGPT's."""
    for number, row in enumerate(rows):
        messages = _messages(row, "conversations")
        said = [_said(row, f"conversations[{i}]", m, ("from", "value"), SHAREGPT_ROLES) for i, m in enumerate(messages)]
        yield _conversation(row, number, said, _optional(row, "system") or _optional(row, "system_prompt"))


def openai(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """OpenAI's."""
    for number, row in enumerate(rows):
        messages = _messages(row, "messages")
        said = [_said(row, f"messages[{i}]", m, ("role", "content"), OPENAI_ROLES) for i, m in enumerate(messages)]
        yield _conversation(row, number, said, "")


def sillytavern(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """SillyTavern's; lines of the program (`is_system`) are left out."""
    head = next(rows)
    turns, left = [], []
    for row in rows:
        if "mes" not in row.value and "chat_metadata" in row.value:
            continue
        text = row.value.get("mes")
        if not isinstance(text, str):
            raise row.fault("mes", text, "a text", "correct the line")
        if row.value.get("is_system"):
            left.append("message of the program")
        elif blank(text):
            left.append("empty message")
        else:
            turns.append(Turn("user" if row.value.get("is_user") else "agent", normalised(text)))
    names = {key: head.value.get(key) for key in ("character_name", "user_name", "create_date")}
    name = "-".join(str(part) for part in (names["character_name"], names["create_date"]) if part) or "chat"
    yield Conversation(
        name, joined(turns), head.place, persona=_text(names["user_name"]), character=_text(names["character_name"]),
        left_out=tuple(left),
    )  # fmt: skip


def coser(rows: Iterator[Row], options: Mapping[str, str]) -> Iterator[Conversation]:
    """CoSER's: the agent plays `character=NAME`, or who speaks most beside the first speaker; all others are the user."""
    number = 0
    for row in rows:
        profiles = row.value.get("character_profiles") or {}
        scenes = _messages(row, "conversation")
        for place, scene in enumerate(scenes):
            lines = scene.get("dialogues") if isinstance(scene, dict) else None
            if not isinstance(lines, list):
                raise row.fault(f"conversation[{place}].dialogues", lines, "a list of messages", "correct the record")
            said = [_line(row, f"conversation[{place}].dialogues[{i}]", line) for i, line in enumerate(lines)]
            found = _played(said, options.get("character", ""))
            if found is not None:
                yield _scene(row, number, scene, said, found, profiles if isinstance(profiles, dict) else {})
            number += 1


def table(rows: Iterator[Row], options: Mapping[str, str]) -> Iterator[Conversation]:
    """A message a row; rows of one conversation stand together."""
    missing = [name for name in COLUMNS if name not in options]
    if missing:
        raise DataError(f"a table needs columns={','.join(f'{n}:COLUMN' for n in COLUMNS)}; {', '.join(missing)} not given.")
    seen: set[str] = set()
    for number, (key, part) in enumerate(groupby(rows, lambda row: str(_cell(row, options["conversation"])))):
        some = list(part)
        if key in seen:
            raise DataError(f"{some[0].place}: conversation {key!r} began above; sort the rows by conversation.")
        seen.add(key)
        said = []
        for row in some:
            message = {"role": _cell(row, options["role"]), "content": _cell(row, options["content"])}
            said.append(_said(row, options["content"], message, ("role", "content"), OPENAI_ROLES | SHAREGPT_ROLES))
        yield _conversation(Row(some[0].place, {"id": key}), number, said, "")


READERS: dict[str, Callable[[Iterator[Row], Mapping[str, str]], Iterator[Conversation]]] = {
    "sharegpt": sharegpt,
    "openai": openai,
    "sillytavern": sillytavern,
    "coser": coser,
    "table": table,
}
"""Format -> reader (rows, options) -> conversations."""


def recognised(row: Row) -> str:
    """The format of a file by its first record.

    Raises:
        DataError: it is none of these; lists what was seen.
    """
    value = row.value
    if "conversations" in value:
        return "sharegpt"
    if "messages" in value:
        return "openai"
    if {"user_name", "character_name"} <= value.keys() or "chat_metadata" in value:
        return "sillytavern"
    if "conversation" in value and ("character_profiles" in value or "book" in value):
        return "coser"
    seen = ", ".join(map(repr, list(value)[:8])) or "no field"
    raise DataError(
        f"{row.place}: no format is known by its fields ({seen}). Known: sharegpt (conversations), openai (messages), "
        "sillytavern (user_name, character_name), coser (conversation, character_profiles), rpgbench (a split's name -> "
        "list), or a table with --columns conversation:…,role:…,content:…."
    )


def _messages(row: Row, key: str) -> list[Any]:
    value = row.value.get(key)
    if isinstance(value, str):  # a column of JSON
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row.value[key]
    if not isinstance(value, list):
        raise row.fault(key, value, "a list of messages", "correct the record")
    return value


Said = tuple[Role, str] | str
"""Who says what; or why a message is left out."""


def _said(row: Row, place: str, message: Any, keys: tuple[str, str], roles: Mapping[str, Role]) -> Said:
    who = message.get(keys[0]) if isinstance(message, dict) else None
    if isinstance(who, str) and who.casefold() in OTHER_ROLES:
        return "message of a tool"
    if not isinstance(who, str) or who.casefold() not in roles:
        raise row.fault(f"{place}.{keys[0]}", who, f"one of {', '.join(roles)}", "correct it")
    text = _content(row, f"{place}.{keys[1]}", message.get(keys[1]))
    return "empty message" if blank(text) else (roles[who.casefold()], normalised(text))


def _content(row: Row, place: str, value: Any) -> str:
    """A text, or the texts of a list of parts."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        other = next(
            (part.get("type") for part in value if part.get("type") not in ("text", "input_text", "output_text")), None
        )
        if other is not None:
            raise row.fault(place, other, "parts of type text", "take pictures and sound out")
        value = "\n".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise row.fault(place, value, "a text", "correct it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise row.fault(place, value, "text that UTF-8 can hold", "remove the half of a surrogate pair") from None
    return value.replace("\0", "")


def _conversation(row: Row, number: int, said: list[Said], system: str) -> Conversation:
    kept = [one for one in said if not isinstance(one, str)]
    first = [text for role, text in kept if role == "system"]
    turns = [Turn(role, text) for role, text in kept if role != "system"]  # type: ignore[arg-type]
    own = row.value.get("id") or row.value.get("conversation_id") or row.value.get("uuid")
    name = str(own) if isinstance(own, str | int) and not isinstance(own, bool) else f"{number:06}"
    return Conversation(
        name, joined(turns), row.place, "\n\n".join(filter(None, [system, *first])),
        persona=_optional(row, "user_persona") or _optional(row, "persona"),
        character=_character(row), left_out=tuple(one for one in said if isinstance(one, str)),
    )  # fmt: skip


def _character(row: Row) -> str | dict[str, Any]:
    value = row.value.get("agent_character", row.value.get("character", ""))
    return value if isinstance(value, str | dict) else ""


def _optional(row: Row, key: str) -> str:
    value = row.value.get(key)
    if value is not None and not isinstance(value, str):
        raise row.fault(key, value, "a text", "correct or remove it")
    return normalised(value or "")


def _text(value: Any) -> str:
    return normalised(value) if isinstance(value, str) else ""


def _cell(row: Row, column: str) -> Any:
    if column not in row.value:
        raise DataError(f"{row.place}: has no column {column!r}; it has {', '.join(map(repr, row.value))}.")
    return row.value[column]


def _line(row: Row, place: str, line: Any) -> tuple[str, str]:
    who, text = (line.get("character"), line.get("message")) if isinstance(line, dict) else (None, None)
    if not isinstance(who, str) or not isinstance(text, str):
        raise row.fault(place, line, "an object with character and message", "correct the record")
    return who, normalised(_content(row, place, text))


def _played(said: list[tuple[str, str]], asked: str) -> str | None:
    counts = Counter(who for who, _ in said if who != "Environment")
    if asked:
        return asked if asked in counts else None
    others = [who for who, _ in counts.most_common() if who != said[0][0]] if said else []
    return others[0] if others else None


def _scene(
    row: Row, number: int, scene: Mapping[str, Any], said: list[tuple[str, str]], played: str, profiles: Mapping[str, Any]
) -> Conversation:
    turns = [
        Turn("agent", text) if who == played else Turn("user", f"{who}: {text}") for who, text in said if not blank(text)
    ]
    told = [f"{who}: {profiles[who]}" for who in dict.fromkeys(who for who, _ in said) if who != played and who in profiles]
    setting = _text(scene.get("scenario"))
    card = {
        "name": played,
        "profile": _text(profiles.get(played)),
        "scenario": setting,
        "book": _text(row.value.get("book")),
    }
    return Conversation(
        f"{number:06}", joined(turns), row.place,
        persona="\n".join(told) or ", ".join(dict.fromkeys(who for who, _ in said if who != played)),
        character={key: value for key, value in card.items() if value},
        left_out=("empty message",) * sum(blank(text) for _, text in said),
    )  # fmt: skip


def read(
    rows: Iterator[Row], format_: str = "", options: Mapping[str, str] | None = None
) -> tuple[str, Iterator[Conversation]]:
    """The format, named or recognised by the first record, and the conversations.

    Raises:
        DataError: no record, or of no format that is known.
    """
    first = next(rows, None)
    if first is None:
        raise DataError("there is no record; expected conversations.")
    name = format_ or ("table" if options and "role" in options else recognised(first))
    return name, READERS[name](chain([first], rows), options or {})
