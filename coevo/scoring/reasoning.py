"""Reading a reasoning: named sections, one after another, and how much of that form a text has (R3 structure).

A section is its name at the beginning of a line, a colon, and a body that may go on over further lines. The first
section's name is also the mark at which a reasoning begins: a text without it is no reasoning, whatever else it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from coevo.types import Reasoning


def compose(bodies: Mapping[str, str]) -> str:
    """The text of a reasoning from its sections' bodies, in their order; runs of white space become one space."""
    return "\n".join(f"{name}: {' '.join(body.split())}" for name, body in bodies.items())


def parse(text: str, sections: Sequence[str], status: str = "ok") -> Reasoning:
    """Reads what a reasoner wrote.

    A section is right if its name occurs once, after those that come before it, with a body that has a letter or a digit:
    a heading alone is worth nothing. The structure is the share of right sections, with every repetition and any text
    before the first name counted as one more that is wrong. White space is never part of the result, so padding with it
    changes nothing.

    Args:
        text: the completion, or a part of it.
        sections: the names expected, in their order.
        status: of its generation: `ok`, `truncated` or `empty`.

    Returns:
        A `Reasoning`; its text is empty unless every section is right and nothing else is there.
    """
    if status == "truncated":
        return Reasoning("", "truncated", 0.0)
    if status == "empty" or not text.strip():
        return Reasoning("", "empty", 0.0)
    found = read_sections(text, sections)
    preamble = text[: _pattern(tuple(sections)).search(text).start()] if found else text  # type: ignore[union-attr]
    counts = Counter(name for name, _ in found)
    bodies: dict[str, str] = {}
    place = -1
    for name, body in found:
        if counts[name] == 1 and sections.index(name) > place and _says_something(body):
            bodies[name] = body
            place = sections.index(name)
    n_extra = sum(count - 1 for count in counts.values()) + bool(preamble.strip())
    structure = len(bodies) / (len(sections) + n_extra)
    if len(bodies) < len(sections) or n_extra:
        return Reasoning("", "malformed", structure)
    return Reasoning(compose(bodies))


def read_sections(text: str, sections: Sequence[str]) -> list[tuple[str, str]]:
    """The (name, body) pairs of a text in its order, right or not; what stands before the first name is in none."""
    marks = list(_pattern(tuple(sections)).finditer(text))
    starts = [*(mark.start() for mark in marks), len(text)]
    return [(mark[1], text[mark.end() : end].strip()) for mark, end in zip(marks, starts[1:], strict=True)]


def _says_something(body: str) -> bool:
    return any(character.isalnum() for character in body)


@lru_cache(maxsize=16)
def _pattern(sections: tuple[str, ...]) -> re.Pattern[str]:
    # the longest name first, so that one that begins another is not taken for it
    names = "|".join(map(re.escape, sorted(sections, key=len, reverse=True)))
    return re.compile(rf"^[ \t]*({names})[ \t]*:", re.MULTILINE)
