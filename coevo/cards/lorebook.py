"""Lorebooks: what a character's world adds to a prompt when it is spoken of (Character Card V2 and V3, SillyTavern's too).

Rules, by the specifications: an entry is in if it is enabled, and constant or one of its keys stands in the last
`scan_depth` messages; a selective one also needs a secondary key (SillyTavern's logic decides which). With recursive
scanning the content of entries that are in is looked through as well. Over the token budget, entries of low priority go
first. What is left stands in the order of `insertion_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex  # type: ignore[import-untyped]

from coevo.errors import DataError

SCAN_DEPTH = 2
"""Messages looked through where a book does not say how many; SillyTavern's default."""
MATCH_S = 0.1
"""Longest search of one regular expression; one that runs longer does not match."""
MOST_ENTRIES = 10_000
LOGIC: dict[int, Literal["any", "not all", "not any", "all"]] = {0: "any", 1: "not all", 2: "not any", 3: "all"}
"""SillyTavern's `selectiveLogic`: what the secondary keys must do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that is told when it is spoken of."""

    keys: tuple[str, ...]
    content: str
    name: str = ""
    secondary: tuple[str, ...] = ()
    """Looked at where the entry is selective; empty otherwise."""
    logic: Literal["any", "not all", "not any", "all"] = "any"
    constant: bool = False
    enabled: bool = True
    case_sensitive: bool = False
    patterns: bool = False
    """Whether the keys are regular expressions."""
    order: int = 100
    priority: int = 0
    before: bool = True
    """Whether it stands before the character's own description."""


@dataclass(frozen=True, slots=True)
class Lorebook:
    """The entries of a card, and how they are looked for."""

    entries: tuple[Entry, ...] = ()
    scan_depth: int = SCAN_DEPTH
    token_budget: int | None = None
    recursive: bool = False

    def triggered(self, messages: Sequence[str], count: Callable[[str], int] = len) -> list[Entry]:
        """The entries that a dialogue calls for, in their order.

        Args:
            messages: of user and character, the last one last.
            count: tokens of a text, for the budget; characters by default, which is far too strict: give a tokenizer's.
        """
        heard = list(messages[-self.scan_depth :]) if self.scan_depth else []
        found: dict[int, Entry] = {}
        while True:
            text = "\n".join(heard)
            new = {i: e for i, e in enumerate(self.entries) if i not in found and e.enabled and _called(e, text)}
            found |= new
            if not new or not self.recursive:
                break
            # each entry comes in once, so books that call each other come to an end
            heard += [entry.content for entry in new.values()]
        return self._within(list(found.values()), count)

    def _within(self, entries: list[Entry], count: Callable[[str], int]) -> list[Entry]:
        if self.token_budget is not None:
            spent, kept = 0, []
            for entry in sorted(entries, key=lambda e: (not e.constant, -e.priority, e.order)):
                spent += (size := count(entry.content))
                if spent > self.token_budget:
                    spent -= size
                else:
                    kept.append(entry)
            entries = kept
        return sorted(entries, key=lambda e: e.order)


def _called(entry: Entry, text: str) -> bool:
    if entry.constant:
        return True
    if not any(_stands(key, entry, text) for key in entry.keys):
        return False
    if not entry.secondary:
        return True
    hits = [_stands(key, entry, text) for key in entry.secondary]
    return {"any": any(hits), "all": all(hits), "not any": not any(hits), "not all": not all(hits)}[entry.logic]


def _stands(key: str, entry: Entry, text: str) -> bool:
    if not entry.patterns:
        return bool(key) and (key in text if entry.case_sensitive else key.casefold() in text.casefold())
    try:
        return regex.search(_bare(key), text, 0 if entry.case_sensitive else regex.IGNORECASE, timeout=MATCH_S) is not None
    except TimeoutError:
        return False


def _bare(key: str) -> str:
    """A pattern without the slashes of JavaScript."""
    found = regex.fullmatch(r"/(.*)/[a-z]*", key, regex.DOTALL)
    return str(found[1]) if found else key


def parse_lorebook(raw: Any, place: str) -> Lorebook:
    """A `character_book` of a card, or SillyTavern's own world file, whose entries are an object.

    Raises:
        DataError: names entry and field of what is wrong.
    """
    if not isinstance(raw, Mapping):
        raise _fault(place, "", raw, "an object")
    entries = raw.get("entries", [])
    entries = list(entries.values()) if isinstance(entries, Mapping) else entries
    if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        raise _fault(place, "entries", type(entries).__name__, f"a list of at most {MOST_ENTRIES:,} entries")
    return Lorebook(
        tuple(_entry(entry, f"{place}.entries[{i}]") for i, entry in enumerate(entries)),
        _number(raw, "scan_depth", place, SCAN_DEPTH) or 0,
        _number(raw, "token_budget", place, None),
        _flag(raw, "recursive_scanning", place, default=False),
    )


def _entry(raw: Any, place: str) -> Entry:
    if not isinstance(raw, Mapping):
        raise _fault(place, "", raw, "an object")
    tavern = "key" in raw
    more = found if isinstance(found := raw.get("extensions"), Mapping) else {}
    secondary = _texts(raw, "keysecondary" if tavern else "secondary_keys", place)
    logic = raw.get("selectiveLogic", more.get("selectiveLogic", 0))
    if logic not in LOGIC or isinstance(logic, bool):
        raise _fault(place, "selectiveLogic", logic, "0 to 3")
    patterns = _flag(raw, "use_regex", place, default=False)
    keys = _texts(raw, "key" if tavern else "keys", place)
    for key in (*keys, *secondary) if patterns else ():
        try:
            regex.compile(_bare(key))
        except regex.error as error:
            raise _fault(place, "keys", key, f"a regular expression ({error})") from None
    sensitive = raw.get("caseSensitive") if tavern else raw.get("case_sensitive")
    return Entry(
        keys,
        _text(raw, "content", place),
        str(raw.get("name") or raw.get("comment") or ""),
        secondary if _flag(raw, "selective", place, default=False) else (),
        LOGIC[logic],
        _flag(raw, "constant", place, default=False),
        not _flag(raw, "disable", place, default=False) if tavern else _flag(raw, "enabled", place, default=True),
        bool(sensitive),
        patterns,
        _number(raw, "order" if tavern else "insertion_order", place, 100) or 0,
        _number(raw, "priority", place, 0) or 0,
        raw.get("position") not in ("after_char", 1),
    )


def _texts(raw: Mapping[str, Any], field: str, place: str) -> tuple[str, ...]:
    value = raw.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise _fault(place, field, value, "a list of texts")
    return tuple(key.strip() for key in value if key.strip())


def _text(raw: Mapping[str, Any], field: str, place: str) -> str:
    value = raw.get(field)
    if value is not None and not isinstance(value, str):
        raise _fault(place, field, value, "a text")
    return value or ""


def _flag(raw: Mapping[str, Any], field: str, place: str, *, default: bool) -> bool:
    value = raw.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _fault(place, field, value, "true or false")
    return value


def _number(raw: Mapping[str, Any], field: str, place: str, default: int | None) -> int | None:
    value = raw.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _fault(place, field, value, "a number")
    return int(value)


def _fault(place: str, field: str, value: Any, expected: str) -> DataError:
    return DataError(f"{place}{f'.{field}' if field else ''}: is {value!r:.80}; expected {expected}; correct the card.")
