"""Every prompt that coevo sends to a model: Jinja files under `templates/`, and the one function that renders them.

The RPM and the scorer read the same conversation, so that the scorer's likelihood is of the very text the RPM answered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, Literal

import jinja2

from coevo.types import Scenario

Role = Literal["rpm", "thinker", "scorer", "simulator", "reasoner"]
Component = Literal["u", "c", "d", "r"]

ABSENT = "-"
"""The mark of absence that context dropout puts in place of a component (method M4)."""
ALL: frozenset[Component] = frozenset(("u", "c", "d"))
NOTHING: frozenset[Component] = frozenset()
NO_PERSONA: frozenset[Component] = frozenset(("u",))
NO_REASONING: frozenset[Component] = frozenset(("r",))
AGREED, NOT_AGREED = "Yes, all of it.", "No, not all of it."
"""What is stated of a candidate: that it has everything that the reasoning lists, or not."""

SCORED, COMPARED = "scores", "better"
"""The field of a judge's JSON object that holds the scores, or the better reply, by dimension."""


def messages(
    role: Role, scenario: Scenario, drop: Collection[Component] = NOTHING, reasoning: str = ""
) -> list[dict[str, str]]:
    """Chat messages that ask `role` for its next text, with the components in `drop` replaced by the mark of absence.

    For the RPM and the scorer that text is the agent's response; for the thinker, an RPM that thinks first, it is its
    reasoning and then the response; for the simulator it is the user's final query, which is
    therefore not shown; for the reasoner it is what a good response must contain.

    A reasoning has a message of its own, the last, in which no user can write. It says something of every component, so
    it is shown only where none is dropped: a reasoning beside a dropped component would leak it (A1). That message left
    out is its mark of absence, so a scorer without reasoning reads the very prompt of one whose reasoning is dropped.

    Args:
        role: who is asked.
        scenario: x = (u, c, d).
        drop: components that the reader must not see: persona `u`, character `c`, dialogue `d`, reasoning `r`.
        reasoning: r, for the scorer; empty for none.
    """
    seen = {
        "persona": ABSENT if "u" in drop else scenario.persona,
        "character": ABSENT if "c" in drop else character_text(scenario.character),
    }
    if role == "simulator":
        history = [] if "d" in drop else scenario.dialogue[:-1]
        return [{"role": "system", "content": _render("simulator", seen | {"turns": history, "draft": scenario.draft})}]
    if role == "reasoner":
        history = () if "d" in drop else scenario.dialogue
        return [{"role": "system", "content": _render("reasoner", seen | {"turns": history})}]
    system = {"role": "system", "content": _render("thinker" if role == "thinker" else "rpm", seen)}
    if "d" in drop:
        return [system, {"role": "user", "content": ABSENT}]
    names = {"user": "user", "agent": "assistant"}
    dialogue = [{"role": names[turn.role], "content": turn.text} for turn in scenario.dialogue]
    if not reasoning or drop:
        return [system, *dialogue]
    return [system, *dialogue, {"role": "system", "content": _render("scorer", {"reasoning": reasoning})}]


def agreement_messages(reasoning: str, candidate: str) -> list[dict[str, str]]:
    """Chat messages that ask whether a candidate response has all that a reasoning lists; see `AGREED`."""
    fields = {"reasoning": reasoning, "candidate": candidate}
    return [{"role": "system", "content": _render("agreement", fields)}]


def rewrite_messages(way: str, text: str, *, speaker: str, persona: str = "", language: str = "") -> list[dict[str, str]]:
    """Chat messages that ask for a text anew, for augmentation.

    Args:
        way: `paraphrase`, `persona` or `translation`.
        text: what a speaker said.
        speaker: `user` or `agent`.
        persona: who the user now is; for `persona`.
        language: English name of the new language; for `translation`.
    """
    fields = {"way": way, "text": text, "speaker": speaker, "persona": persona, "language": language}
    return [{"role": "user", "content": _render("rewrite", fields)}]


def judge_messages(rubric: Any, scenario: Scenario, replies: Sequence[str]) -> list[dict[str, str]]:
    """Chat messages that ask a judge to score one reply, or to compare two, by a rubric.

    One message of the user's, since not every chat template takes a system message. What is judged stands between lines
    with a mark that is a hash of it, so that no reply can write one and so step out of its place.

    Args:
        rubric: its `scale`, `dimensions`, `anchors` and `shows_reference`.
        scenario: x, whose reference is shown only if the rubric says so.
        replies: one, or two, which are then A and B in this order.
    """
    character = character_text(scenario.character)
    seen = {
        "persona": scenario.persona,
        "character": character,
        "turns": scenario.dialogue,
        "reference": scenario.reference,
        "replies": list(replies),
    }
    texts = [scenario.persona, character, *(turn.text for turn in scenario.dialogue), scenario.reference, *replies]
    mark = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    pair = len(replies) == 2
    asked = {"rubric": rubric, "mark": mark, "pair": pair, "field": COMPARED if pair else SCORED}
    return [{"role": "user", "content": _render("judge", asked | seen)}]


def judge_again(messages: Sequence[dict[str, str]], answer: str, fault: str) -> list[dict[str, str]]:
    """The same question once more, after an answer that could not be read."""
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": _render("judge_again", {"fault": fault})},
    ]


def character_text(character: Any) -> str:
    """A character card as one text: a string as it is, an object as `key: value` sentences in the file's order."""
    if isinstance(character, str):
        return character
    return "; ".join(f"{key}: {_value_text(value)}" for key, value in character.items())


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " / ".join(_value_text(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("coevo.prompts", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )


def _render(name: str, fields: dict[str, Any]) -> str:
    return _environment().get_template(f"{name}.j2").render(**fields).strip()
