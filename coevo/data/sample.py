"""One sample of the RPGBench layout: its problems in words, or the Scenario that it is."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from coevo.data.jsonstream import Element, clipped, has_surrogate, is_label, json_type
from coevo.text import blank, folded, normalised
from coevo.types import PLAIN_SHIFTS, SHIFT_OF_TAG, Scenario, Turn

ROLE_OF_KEY: dict[str, Literal["user", "agent"]] = {"user_query": "user", "agent_response": "agent"}
KEY_OF_ROLE = {role: key for key, role in ROLE_OF_KEY.items()}
DEEPEST = 20
"""Levels of an agent_character object."""
_TAG_OF_FOLDED = {folded(tag): tag for tag in (*SHIFT_OF_TAG, *PLAIN_SHIFTS)}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one sample, or with the file."""

    place: str
    """`file:line: split, sample index (sample_ID), field`."""
    field: str
    """The field without indices, to count by; `file` for what stops the reading."""
    message: str
    """Value, what was expected, remedy."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class Sample:
    """One element under inspection: gathers its problems, and makes the Scenario if there are none."""

    def __init__(self, path: str, element: Element) -> None:
        self._path, self._element = path, element
        self._sample_id: str | None = None
        self.problems: list[Problem] = []
        self._line_ends: list[int] | None = None
        self._messages: list[int] = []

    def scenario(self) -> Scenario | None:
        """Return the scenario, or None with `problems` filled."""
        raw = self._element.value
        if not isinstance(raw, dict):
            self._add("", raw, "an object with the fields of a sample", "list its fields by name")
            return None
        self._sample_id = raw.get("sample_ID") if isinstance(raw.get("sample_ID"), str) else None
        sample_id = self._label(raw, "sample_ID", "give each sample its own name")
        tag = self._tag(raw)
        persona = self._text(raw, "user_persona", "write who the user is")
        reference = self._text(raw, "agent_golden_response", "a sample without a reference cannot be scored: remove it")
        character = self._character(raw)
        turns = self._dialogue(raw)
        parent = raw.get("parent_ID")
        if parent is not None and (not isinstance(parent, str) or not is_label(parent) or parent == sample_id):
            self._add("parent_ID", parent, "the sample_ID of the parent", "correct or remove the field")
        # null is how some writers leave an optional field empty
        has_thought = raw.get("SThought") is not None
        thought = self._text(raw, "SThought", "write the reasoning, or remove the field") if has_thought else ""
        alternatives = self._alternatives(raw)
        if self.problems:
            return None
        optional: dict[str, Any] = {
            "parent": parent,
            "thought": normalised(thought),
            "alternatives": tuple(map(normalised, alternatives)),
        }
        said = normalised(reference)
        return Scenario(sample_id, self._element.key, tag, persona, character, turns, said, **optional)

    def duplicate(self) -> Problem:
        """Return the problem of a sample_ID that came before."""
        return self._problem(
            "sample_ID",
            f"is {clipped(self._sample_id)}, which an earlier sample has; expected a unique name; rename or remove one",
        )

    def _alternatives(self, raw: Mapping[str, Any]) -> tuple[str, ...]:
        key, texts = "agent_alternatives", raw.get("agent_alternatives")
        if texts is None:
            return ()
        if not isinstance(texts, list) or any(not isinstance(text, str) or blank(text) for text in texts):
            self._add(key, texts, "a list of non-empty texts", "write other right responses, or remove the field")
            return ()
        for text in texts:
            self._encodable(key, text)
        return tuple(texts)

    def _label(self, raw: Mapping[str, Any], key: str, remedy: str) -> str:
        value = self._text(raw, key, remedy)
        if value and not has_surrogate(value) and not is_label(value):
            self._add(key, value, "one line of at most 200 characters", remedy)
        return value

    def _tag(self, raw: Mapping[str, Any]) -> str:
        tag = self._label(raw, "subset_tag", "the subset's name, or the split's for in-distribution samples")
        head, colon, name = tag.partition(":")
        own = folded(head) in PLAIN_SHIFTS if colon else False
        known = f"{folded(head)}:{name}" if own else _TAG_OF_FOLDED.get(folded(tag), tag)
        if known != tag:
            expected = f"{known!r}, as a tag of another spelling is read as in-distribution"
            self._add("subset_tag", tag, expected, "correct it")
        return tag

    def _text(self, raw: Mapping[str, Any], key: str, remedy: str) -> str:
        value = raw.get(key)
        if not isinstance(value, str) or blank(value):
            self._add(key, value, "non-empty text", remedy, missing=key not in raw)
            return ""
        self._encodable(key, value)
        return value

    def _encodable(self, where: str, text: str) -> None:
        if has_surrogate(text):
            self._add(where, text, "text that UTF-8 can hold", "remove the half of a surrogate pair (\\ud8…)")
        if "\0" in text:
            self._add(where, text, "text without the null character", "remove \\u0000")

    def _character(self, raw: Mapping[str, Any]) -> str | dict[str, Any]:
        key, value = "agent_character", raw.get("agent_character")
        if isinstance(value, dict) and _depth(value) > DEEPEST:
            self._add(key, type(value)(), f"an object of at most {DEEPEST} levels", "flatten it")
            return ""
        if (isinstance(value, str) and not blank(value)) or (isinstance(value, dict) and value):
            # JSON escapes the null character, and a backslash that is text with another one
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            self._encodable(key, text if isinstance(value, str) else text.replace(r"\\", "").replace(r"\u0000", "\0"))
            return value
        self._add(key, value, "non-empty text or an object", "write whom the agent plays", missing=key not in raw)
        return ""

    def _dialogue(self, raw: Mapping[str, Any]) -> tuple[Turn, ...]:
        key, messages = "dialogue_context", raw.get("dialogue_context")
        if not isinstance(messages, list) or not messages:
            expected = "a non-empty list of messages"
            self._add(key, messages, expected, "end it with a user_query", missing=key not in raw)
            return ()
        turns = [self._turn(i, message) for i, message in enumerate(messages)]
        roles = [turn.role if turn else None for turn in turns]
        for i in range(1, len(roles)):
            if roles[i] is not None and roles[i] == roles[i - 1]:
                other = "agent" if roles[i] == "user" else "user"
                expected = f"a message of the {other}, as message {i - 1} is of the {roles[i]} too"
                self._add(f"{key}[{i}]", messages[i], expected, "join the two or add the missing one")
        if roles[-1] == "agent":
            where = f"{key}[{len(messages) - 1}]"
            expected = "the user's query as the last message"
            self._add(where, messages[-1], expected, "move this text to agent_golden_response or remove it")
        return tuple(turn for turn in turns if turn)

    def _turn(self, i: int, message: Any) -> Turn | None:
        where = f"dialogue_context[{i}]"
        keys = [key for key in ROLE_OF_KEY if isinstance(message, dict) and key in message]
        if len(keys) != 1:
            self._add(where, message, "an object with one of user_query and agent_response", "correct its fields")
            return None
        text = message[keys[0]]
        if not isinstance(text, str) or blank(text):
            self._add(f"{where}.{keys[0]}", text, "non-empty text", "write the message or remove the sample")
        else:
            self._encodable(f"{where}.{keys[0]}", text)
        return Turn(ROLE_OF_KEY[keys[0]], normalised(text) if isinstance(text, str) else "")

    def _add(self, where: str, value: Any, expected: str, remedy: str, missing: bool = False) -> None:
        if missing:
            found = "is missing"
        else:
            found = f"is {clipped(value)} ({json_type(value)})"
        self.problems.append(self._problem(where, f"{found}; expected {expected}; {remedy}"))

    def _problem(self, where: str, message: str) -> Problem:
        element = self._element
        name = f" ({clipped(self._sample_id)})" if self._sample_id is not None else ""
        line = self._line(where)
        place = f"{self._path}{f':{line}' if line else ''}: split {element.key!r}, sample {element.index}{name}"
        return Problem(f"{place}, field {where}" if where else place, re.sub(r"\[\d+\]", "", where), message)

    def _line(self, where: str) -> int:
        """Find the line of a field, or of the sample's beginning if it lacks the field."""
        key, _, rest = where.partition("[")
        raw = self._element.raw
        if self._line_ends is None:
            # once a sample, which may have a problem in each of thousands of messages
            self._line_ends = [found.start() for found in re.finditer("\n", raw)]
            self._messages = [found.start() for found in re.finditer(rf'"(?:{"|".join(ROLE_OF_KEY)})"', raw)]
        message = int(rest.partition("]")[0]) if rest else len(self._messages)
        if message < len(self._messages):
            start = self._messages[message]
        else:
            start = raw.find(f'"{key}"') if key else 0
        return self._element.line + bisect.bisect_left(self._line_ends, max(start, 0))


def _depth(value: Any) -> int:
    """Levels of nesting, found without recursion; stops counting once there are too many."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST + 1:
        depth += 1
        below = [list(item.values()) if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in below for item in items]
    return depth - 1
