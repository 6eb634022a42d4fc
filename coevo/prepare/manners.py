"""Users who write otherwise: another language, dialect, mood or manner, written by a model and looked at by one.

A model says every message of the user again, and is then asked whether the last one still means what it meant. Scenarios
of which it says no, or that it could not write, are left out and counted: their references would answer something else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo.errors import ConfigError
from coevo.files import Journal
from coevo.judge.parse import Unreadable
from coevo.judge.session import Answer, Judge, Judgement, Session
from coevo.prompts import manner_messages, meaning_messages
from coevo.scoring.thinking import split
from coevo.text import blank, normalised, units
from coevo.types import Scenario, Turn

SPLIT = "OOD1Test"
ATTEMPTS = 1
LONGEST = 100
"""Characters of a manner."""
_QUOTES = re.compile(r'^(["“„«「])(.*)(["”“»」])$', re.DOTALL)


@dataclass(frozen=True)
class Written:
    """What came of one manner."""

    tag: str
    """Of the shifted scenarios: `user:` and the manner."""
    scenarios: list[Scenario]
    """Those whose query kept its meaning, by the model that was asked; each with its parent's reference."""
    left_out: Counter[str]
    """`meaning`: it did not; `unwritten`: a message came out empty or as it was; `unread`: no yes or no came."""

    def __str__(self) -> str:
        asked = len(self.scenarios) + self.left_out.total()
        lost = "".join(f", {n} {reason}" for reason, n in self.left_out.items())
        return f"{self.tag}: {len(self.scenarios)} of {asked} kept their meaning{lost}"


def tag_of(manner: str) -> str:
    """The subset's tag: `in German` becomes `user:in_german`.

    Raises:
        ConfigError: a manner without a word, or of more than a line.
    """
    if not any(map(str.isalnum, manner)) or len(manner.splitlines()) > 1 or len(manner) > LONGEST:
        raise ConfigError(
            f"--manner {manner[:LONGEST]!r}: expected a few words, as in 'in German' or 'angrily, and briefly'."
        )
    return "user:" + "_".join(units(manner))


def rewrite(
    parents: Sequence[Scenario],
    manner: str,
    judge: Judge,
    journal: Path,
    advance: Callable[[], None] = lambda: None,
) -> Written:
    """Shifted scenarios of one manner.

    Args:
        parents: in distribution.
        manner: how the user writes, to be read after "a user who writes".
        judge: the model that writes and looks.
        journal: where its answers are kept; the same call asks for none twice.
        advance: called for each message that is written, and for each scenario that is looked at.

    Raises:
        ConfigError: no manner.
        EndpointError: the model is out of reach.
        ScoreError: nothing of the first that it wrote can be read.
    """
    tag, left = tag_of(manner), Counter[str]()
    said = [(x, place) for x in parents for place, turn in enumerate(x.dialogue) if turn.role == "user"]
    with Journal(journal, shape=Answer) as kept:
        originals = [x.dialogue[place].text for x, place in said]
        session = Session(judge, _message, kept, ATTEMPTS)
        found = session.ask([manner_messages(manner, text) for text in originals], advance)
        messages = {
            (x.sample_id, place): text
            for (x, place), original, one in zip(said, originals, found, strict=True)
            if (text := _text(one)) not in ("", original)
        }
        made = [(x, shifted) for x in parents if (shifted := _shifted(x, tag, manner, messages))]
        left["unwritten"] = len(parents) - len(made)
        questions = [meaning_messages(x.query, shifted.query) for x, shifted in made]
        answers = Session(judge, _yes_or_no, kept, ATTEMPTS).ask(questions, advance) if questions else []
    scenarios = []
    for (_, shifted), answer in zip(made, answers, strict=True):
        if answer.status != "ok":
            left["unread"] += 1
        elif answer.verdict["same"]:
            scenarios.append(shifted)
        else:
            left["meaning"] += 1
    return Written(tag, scenarios, +left)


def _text(judgement: Judgement) -> str:
    return str(judgement.verdict["text"]) if judgement.status == "ok" else ""


def _shifted(x: Scenario, tag: str, manner: str, messages: dict[tuple[str, int], str]) -> Scenario | None:
    """The scenario with the user's messages said again; None if one of them was not."""
    turns = []
    for place, turn in enumerate(x.dialogue):
        text = messages.get((x.sample_id, place)) if turn.role == "user" else turn.text
        if text is None:
            return None
        turns.append(Turn(turn.role, text))
    return replace(
        x,
        sample_id=f"{x.sample_id}/{tag.partition(':')[2]}"[:200],
        split=SPLIT,
        subset_tag=tag,
        persona=f"{x.persona}\nThe user writes {manner}.",
        dialogue=tuple(turns),
        parent=x.sample_id,
        thought="",
    )


def _message(answer: str) -> dict[str, Any]:
    """The message that a model wrote, without its thought and without quotes around it."""
    text = normalised(split(answer, ()).response)
    quoted = _QUOTES.match(text)
    text = normalised(quoted[2]) if quoted and quoted[1] not in quoted[2] else text
    if blank(text):
        raise Unreadable("there is no message")
    return {"text": text}


def _yes_or_no(answer: str) -> dict[str, Any]:
    first = units(split(answer, ()).response)[:1]
    if first not in (["yes"], ["no"]):
        raise Unreadable("the first word is neither yes nor no")
    return {"same": first == ["yes"]}
