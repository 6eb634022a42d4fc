"""What a model that thinks first has written: its reasoning, which nobody but the trainer sees, and its response.

    <think>
    language: German
    mood: sad
    </think>
    Guten Abend, ...

The marks are by default those of today's reasoning models, and ordinary text to any other. What the user sees is what
follows the last closing mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coevo.scoring.reasoning import parse
from coevo.text import blank, normalised
from coevo.types import Reasoning

MARKS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Thought:
    """A completion in its two parts."""

    reasoning: Reasoning
    """Its status says why there is none, if there is none."""
    response: str
    """What the user sees; empty where the thought never ended."""
    status: Literal["ok", "truncated", "empty"]
    """Of the response."""


def think(reasoning: str, response: str, marks: tuple[str, str] = MARKS) -> str:
    """The text that a model is taught to write."""
    return "\n".join(part for part in (marks[0], reasoning, marks[1], response) if part)


def split(text: str, sections: Sequence[str], status: str = "ok", marks: tuple[str, str] = MARKS) -> Thought:
    """Reads a completion.

    A thought that is opened and never closed is all there is: nothing of it is shown, so that a model that runs on is never
    mistaken for one that answers. A text without marks was not thought about: all of it is the response, and its reasoning
    is `empty`. Where the opening mark is empty, every text begins with its thought.

    Args:
        text: the completion.
        sections: names of the reasoning's sections, in their order.
        status: of its generation: `ok`, `truncated` or `empty`.
        marks: what opens and what closes a thought.
    """
    opening, closing = marks
    before, closed, after = text.rpartition(closing)
    if closed:
        head, _, thought = before.partition(opening) if opening else ("", "", before)
        # text before the mark is as wrong as text before the first section
        return _shown(parse(head + thought, sections), after, status)
    if opening in text:
        cut = status == "truncated"
        return Thought(Reasoning("", "truncated" if cut else "malformed", 0.0), "", "truncated" if cut else "empty")
    return _shown(Reasoning("", "empty", 0.0), text, status)


def _shown(reasoning: Reasoning, response: str, status: str) -> Thought:
    said = normalised(response)
    if status == "truncated":
        return Thought(reasoning, said, "truncated")
    return Thought(reasoning, said, "empty" if blank(said) else "ok")
