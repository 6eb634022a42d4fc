"""The formats that chat logs come in: each a function from a file's rows to conversations.

- `sharegpt`: `{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "system": …}`
- `openai`: `{"messages": [{"role": "user", "content": …}, …]}`, the content a text or a list of text parts; the list may be
  called `conversation` too, as WildChat and LMSYS call it
- `sillytavern`: a line of metadata, then `{"name": …, "is_user": …, "mes": …}`; a file is one conversation
- `rpgbench`: a sample of the RPGBench layout a line, without the object of splits around them
- `coser`: `{"conversation": [{"dialogues": [{"character": …, "message": …}]}], "character_profiles": {…}}`
- `table`: CSV or Parquet with a message a row, by a mapping of columns
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any

from coevo.data.jsonstream import Element
from coevo.data.sample import Sample
from coevo.errors import DataError
from coevo.formats.conversation import Conversation, Row, joined
from coevo.formats.fields import SAID, Said, cell, conversation_of, listed, said_of, text_of, whole
from coevo.text import blank, normalised
from coevo.types import Turn

COLUMNS = ("conversation", "role", "content")
"""What a mapping of a table's columns names."""


def sharegpt(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """ShareGPT's."""
    for number, row in enumerate(rows):
        said = _messages(row, "conversations", ("from", "value"))
        yield conversation_of(row, number, said, text_of(row, "system") or text_of(row, "system_prompt"))


def openai(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """OpenAI's."""
    for number, row in enumerate(rows):
        key = "messages" if "messages" in row.value or "conversation" not in row.value else "conversation"
        yield conversation_of(row, number, _messages(row, key, SAID), text_of(row, "system"))


def _messages(row: Row, key: str, keys: tuple[str, str]) -> list[Said]:
    return [said_of(row, f"{key}[{place}]", message, keys) for place, message in enumerate(listed(row, key))]


NO_NAME = "unused"
"""What SillyTavern of 2025 and later writes for both names in the first line; the true ones are in the messages."""


def sillytavern(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """SillyTavern's; lines of the program (`is_system`) are left out."""
    first = next(rows)
    head = {} if "mes" in first.value else first.value
    names: dict[str, Counter[str]] = {"user": Counter(), "agent": Counter()}
    turns, left = [], []
    for row in rows if head else chain([first], rows):
        if "mes" not in row.value and "chat_metadata" in row.value:
            continue
        text = whole(row, "mes", row.value.get("mes"))
        user, system = (_flag(row, key) for key in ("is_user", "is_system"))
        if system:
            left.append("message of the program")
        elif blank(text):
            left.append("empty message")
        else:
            turns.append(Turn("user" if user else "agent", normalised(text)))
            names[turns[-1].role][text_of(row, "name")] += 1
    user_name, character = (
        _name(first, head, key, names[who]) for key, who in (("user_name", "user"), ("character_name", "agent"))
    )
    date = head.get("create_date")
    name = "-".join(str(part) for part in (character, date) if part and isinstance(part, str | int)) or "chat"
    yield Conversation(name, joined(turns), first.place, persona=user_name, character=character, left_out=tuple(left))


def _flag(row: Row, key: str) -> bool:
    value = row.value.get(key)
    if value not in (None, True, False):  # 0 and 1 are written too
        raise row.fault(key, value, "true or false", "correct the line")
    return bool(value)


def _name(first: Row, head: Mapping[str, Any], key: str, said: Counter[str]) -> str:
    """A name of the first line, or else the one that most messages bear."""
    name = text_of(first, key) if head else ""
    return name if name not in ("", NO_NAME) else next((one for one, _ in said.most_common() if one), "")


def coser(rows: Iterator[Row], options: Mapping[str, str]) -> Iterator[Conversation]:
    """CoSER's: the agent plays `character=NAME`, or who speaks most beside the first speaker; all others are the user."""
    number, asked = 0, options.get("character", "")
    for row in rows:
        profiles = row.value.get("character_profiles") or {}
        if not isinstance(profiles, dict):
            raise row.fault("character_profiles", profiles, "an object of texts by name", "correct the record")
        for place, scene in enumerate(listed(row, "conversation")):
            lines = scene.get("dialogues") if isinstance(scene, dict) else None
            if not isinstance(lines, list):
                raise row.fault(f"conversation[{place}].dialogues", lines, "a list of messages", "correct the record")
            said = [_line(row, f"conversation[{place}].dialogues[{i}]", line) for i, line in enumerate(lines)]
            found = _played(said, asked)
            if found is None:
                why = f"conversation in which {asked} says nothing" if asked else "conversation of less than two speakers"
                yield Conversation(f"{number:06}", (), row.place, character="nobody", left_out=(why,))
            else:
                yield _scene(row, number, scene, said, found, profiles)
            number += 1


def rpgbench(rows: Iterator[Row], _: Mapping[str, str]) -> Iterator[Conversation]:
    """Samples of the RPGBench layout, one a line; only the golden response is a reference."""
    for number, row in enumerate(rows):
        sample = Sample(row.place, Element("of a line each", number, row.value, 0, ""))
        x = sample.scenario()
        if x is None:
            raise DataError(str(sample.problems[0]))
        left = tuple(
            f"field {key} of a sample" for key in ("SThought", "parent_ID", "agent_alternatives") if key in row.value
        )
        yield Conversation(
            x.sample_id, (*x.dialogue, Turn("agent", x.reference)), row.place, persona=x.persona, character=x.character,
            left_out=(*left, *(["shift of a subset_tag"] if x.shift != "id" else [])), last_alone=True,
        )  # fmt: skip


def table(rows: Iterator[Row], options: Mapping[str, str]) -> Iterator[Conversation]:
    """A message a row; rows of one conversation stand together."""
    missing = [name for name in COLUMNS if name not in options]
    if missing:
        raise DataError(f"a table needs columns={','.join(f'{n}:COLUMN' for n in COLUMNS)}; {', '.join(missing)} not given.")
    seen: set[str] = set()
    for number, (key, part) in enumerate(groupby(rows, lambda row: _key(row, options["conversation"]))):
        some = list(part)
        if key in seen:
            raise DataError(f"{some[0].place}: conversation {key!r} began above; sort the rows by conversation.")
        seen.add(key)
        said = []
        for row in some:
            message = {"role": cell(row, options["role"]), "content": cell(row, options["content"])}
            said.append(said_of(row, options["content"], message, SAID))
        yield conversation_of(Row(some[0].place, {"id": key}), number, said, "")


def _key(row: Row, column: str) -> str:
    value = cell(row, column)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.fault(column, value, "the conversation's name or number", "fill the cell")
    return str(value)


READERS: dict[str, Callable[[Iterator[Row], Mapping[str, str]], Iterator[Conversation]]] = {
    "sharegpt": sharegpt,
    "openai": openai,
    "sillytavern": sillytavern,
    "coser": coser,
    "rpgbench": rpgbench,
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
    if {"user_name", "character_name"} <= value.keys() or "chat_metadata" in value or {"mes", "is_user"} <= value.keys():
        return "sillytavern"
    if {"sample_ID", "dialogue_context"} <= value.keys():
        return "rpgbench"
    if "conversation" in value and ("character_profiles" in value or "book" in value):
        return "coser"
    messages = value.get("conversation")
    if isinstance(messages, list) and messages and isinstance(messages[0], dict) and "role" in messages[0]:
        return "openai"
    seen = ", ".join(map(repr, list(value)[:8])) or "no field"
    raise DataError(
        f"{row.place}: no format is known by its fields ({seen}). Known: sharegpt (conversations), openai (messages), "
        "sillytavern (user_name, character_name), coser (conversation, character_profiles), rpgbench (sample_ID, "
        "dialogue_context), or a table with --columns conversation:…,role:…,content:…."
    )


def _line(row: Row, place: str, line: Any) -> tuple[str, str]:
    who, text = (line.get("character"), line.get("message")) if isinstance(line, dict) else (None, None)
    if not isinstance(who, str) or not isinstance(text, str):
        raise row.fault(place, line, "an object with character and message", "correct the record")
    return who, normalised(whole(row, place, text))


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
    told_of = {
        "profile": whole(row, f"character_profiles.{played}", profiles.get(played)),
        "scenario": whole(row, "scenario", scene.get("scenario")),
        "book": text_of(row, "book"),
    }
    card = {"name": played} | {key: normalised(text) for key, text in told_of.items()}
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
    if format_ and format_ not in READERS:
        raise DataError(f"no format is called {format_!r:.60}; expected one of {', '.join(READERS)}.")
    name = format_ or ("table" if options and "role" in options else recognised(first))
    return name, READERS[name](chain([first], rows), options or {})
