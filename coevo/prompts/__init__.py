"""Every prompt that coevo sends to a model: sets of Jinja texts, and the one class that renders them.

`templates/` holds the short ones, which the small base is taught, and the judge's; `templates/instruct/` those for
pretrained models. A recipe may give its own in their place (`prompts`). The RPM and the scorer read the same conversation,
so that the scorer's likelihood is of the very text the RPM answered.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Literal

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from coevo.errors import ConfigError
from coevo.types import Scenario

Role = Literal["rpm", "thinker", "scorer", "simulator", "reasoner"]
Part = Literal["u", "c", "d", "r"]
SetName = Literal["short", "instruct"]

ABSENT = "-"
"""The mark of absence that context dropout puts in place of a component (method M4)."""
ALL: frozenset[Part] = frozenset(("u", "c", "d"))
NOTHING: frozenset[Part] = frozenset()
NO_PERSONA: frozenset[Part] = frozenset(("u",))
NO_REASONING: frozenset[Part] = frozenset(("r",))
AGREED, NOT_AGREED = "Yes, all of it.", "No, not all of it."
"""What is stated of a candidate: that it has everything that the reasoning lists, or not."""

SCORED, COMPARED = "scores", "better"
"""The field of a judge's JSON object that holds the scores, or the better reply, by dimension."""

TODAY = datetime(2024, 7, 26)
"""The day that every template is told it is; Llama's own default. With the true one, likelihoods would change every day."""
MOST_PROMPT = 20_000
"""Characters of a text of a recipe's: more is no prompt, and would not fit into the record of a run."""
FIELDS: Mapping[str, tuple[str, ...]] = {
    "rpm": ("persona", "character"),
    "thinker": ("persona", "character"),
    "scorer": ("reasoning",),
    "simulator": ("persona", "character", "turns", "draft"),
    "reasoner": ("persona", "character", "turns"),
    "agreement": ("reasoning", "candidate"),
    "rewrite": ("way", "text", "speaker", "persona", "language"),
}
"""Name of a prompt that a recipe may replace -> the fields that its text may use."""
_SHOWN = {name: [field for field in fields if field != "turns" or name != "simulator"] for name, fields in FIELDS.items()}
"""Fields that must show; a simulator's turns may follow as messages, and a rewriting shows what its way is about."""
_WAYS = {"paraphrase": ["text"], "persona": ["text", "persona"], "translation": ["text", "language"]}


@dataclass(frozen=True)
class Prompts:
    """The texts of one run's prompts, and where in a chat they stand."""

    texts: tuple[tuple[str, str], ...]
    """(name of `FIELDS`, Jinja text), all of them."""
    asked_by: Literal["system", "user"]
    """Who says a prompt of one message: the system, as the small base was taught, or the user, whom a chat model answers."""
    own: tuple[str, ...] = ()
    """Names of those that the recipe gives."""

    @property
    def stamp(self) -> str:
        """Hash of the texts, for lineage and scores; empty for the short ones, whose results were never stamped with any."""
        if (self.texts, self.asked_by) == (SHORT.texts, SHORT.asked_by):
            return ""
        return hashlib.sha256(json.dumps([self.texts, self.asked_by], ensure_ascii=False).encode()).hexdigest()

    def messages(
        self, role: Role, scenario: Scenario, drop: Collection[Part] = NOTHING, reasoning: str = ""
    ) -> list[dict[str, str]]:
        """Chat messages that ask `role` for its next text, with the components in `drop` replaced by the mark of absence.

        For the RPM and the scorer that text is the agent's response; for the thinker, an RPM that thinks first, it is its
        reasoning and then the response; for the simulator it is the user's final query, which is
        therefore not shown; for the reasoner it is what a good response must contain.

        A reasoning has a message of its own, the last, in which no user can write. It says something of every component, so
        it is shown only where none is dropped: a reasoning beside a dropped component would leak it (A1). That message left
        out is its mark of absence, so a scorer without reasoning reads the very prompt of one whose reasoning is dropped.

        A simulator whose text shows no `turns` sits in the user's seat: the turns follow as messages, the agent's as the
        `user` messages that it answers and the user's as its own, so that its next message is the user's next turn.

        Args:
            role: who is asked.
            scenario: x = (u, c, d).
            drop: components that the reader must not see: persona `u`, character `c`, dialogue `d`, reasoning `r`.
            reasoning: r, for the scorer; empty for none.
        """
        seen: dict[str, Any] = {
            "persona": ABSENT if "u" in drop else scenario.persona,
            "character": ABSENT if "c" in drop else character_text(scenario.character),
        }
        if role == "simulator":
            return self._simulator(scenario, seen, drop)
        if role == "reasoner":
            history = () if "d" in drop else scenario.dialogue
            return self._alone("reasoner", seen | {"turns": history})
        system = {"role": "system", "content": self._render("thinker" if role == "thinker" else "rpm", seen)}
        if "d" in drop:
            return [system, {"role": "user", "content": ABSENT}]
        names = {"user": "user", "agent": "assistant"}
        dialogue = [{"role": names[turn.role], "content": turn.text} for turn in scenario.dialogue]
        if not reasoning or drop:
            return [system, *dialogue]
        return [system, *dialogue, {"role": "system", "content": self._render("scorer", {"reasoning": reasoning})}]

    def _simulator(self, scenario: Scenario, seen: dict[str, Any], drop: Collection[Part]) -> list[dict[str, str]]:
        history = [] if "d" in drop else scenario.dialogue[:-1]
        fields = seen | {"turns": history, "draft": scenario.draft}
        if not history or "turns" in _variables(dict(self.texts)["simulator"]):
            return self._alone("simulator", fields)
        seats = {"user": "assistant", "agent": "user"}
        turns = [{"role": seats[turn.role], "content": turn.text} for turn in history]
        return [{"role": "system", "content": self._render("simulator", fields)}, *turns]

    def agreement_messages(self, reasoning: str, candidate: str) -> list[dict[str, str]]:
        """Chat messages that ask whether a candidate response has all that a reasoning lists; see `AGREED`."""
        return self._alone("agreement", {"reasoning": reasoning, "candidate": candidate})

    def rewrite_messages(
        self, way: str, text: str, *, speaker: str, persona: str = "", language: str = ""
    ) -> list[dict[str, str]]:
        """Chat messages that ask for a text anew, for augmentation.

        Args:
            way: `paraphrase`, `persona` or `translation`.
            text: what a speaker said.
            speaker: `user` or `agent`.
            persona: who the user now is; for `persona`.
            language: English name of the new language; for `translation`.
        """
        fields = {"way": way, "text": text, "speaker": speaker, "persona": persona, "language": language}
        return [{"role": "user", "content": self._render("rewrite", fields)}]

    def _alone(self, name: str, fields: Mapping[str, Any]) -> list[dict[str, str]]:
        return [{"role": self.asked_by, "content": self._render(name, fields)}]

    def _render(self, name: str, fields: Mapping[str, Any]) -> str:
        try:
            return _compiled(dict(self.texts)[name]).render(**fields).strip()
        except Exception as error:  # a user's program: whatever it ends in on these very texts
            seen = "; ".join(f"{field}: {str(value)[:40]!r}" for field, value in fields.items() if isinstance(value, str))
            raise ConfigError(
                f"prompts.{name}: {_where(error)}{type(error).__name__}: {error}, with {seen}. "
                "Mend the prompt, and start a new run."
            ) from error


def named(name: SetName) -> Prompts:
    """One of the sets that ship with coevo."""
    return {"short": SHORT, "instruct": INSTRUCT}[name]


def replaced(prompts: Prompts, own: Mapping[str, str]) -> Prompts:
    """A set with some of its texts replaced, each of which is tried.

    Raises:
        ValueError: names the prompt, the line where there is one, what is wrong, and what is expected.
    """
    for name, text in own.items():
        _try(name, text)
    return Prompts(tuple((dict(prompts.texts) | dict(own)).items()), prompts.asked_by, tuple(own))


def _try(name: str, text: str) -> None:
    """Renders a text with a mark in each of its fields, and looks for the marks."""
    if len(text) > MOST_PROMPT:
        raise ValueError(f"{name}: has {len(text):,} characters; expected a prompt, of at most {MOST_PROMPT:,}")
    fields = FIELDS[name]
    known = "fields are " + ", ".join(f"{{{{ {field} }}}}" for field in fields)
    marks: dict[str, Any] = {field: f"Zq{field}" for field in fields}
    if "turns" in marks:
        marks["turns"] = ({"role": "user", "text": "Zqturns"},)
    for way, wanted in _WAYS.items() if name == "rewrite" else [("", _SHOWN[name])]:
        try:
            foreign = sorted(_variables(text) - set(fields))
            before = random.getstate()
            shown = _compiled(text).render(**marks | {"way": way} if way else marks)
            drawn = random.getstate() != before
        except Exception as error:  # noqa: BLE001  # a user's program: whatever it ends in
            what = error.message if isinstance(error, jinja2.TemplateSyntaxError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{name}: {_where(error)}{what}; expected a Jinja text, whose {known}") from None
        if foreign:
            line = next(n for n, row in enumerate(text.splitlines(), 1) if re.search(rf"\b{re.escape(foreign[0])}\b", row))
            raise ValueError(f"{name}: line {line}: no field {foreign[0]!r}; {known}")
        if drawn:
            raise ValueError(f"{name}: draws random numbers, so that no two runs would read the same")
        missing = " and ".join(f"{{{{ {field} }}}}" for field in wanted if f"Zq{field}" not in shown)
        if missing:
            where = f" where way is {way!r}" if way else ""
            raise ValueError(
                f"{name}: does not show {missing}{where}, so that the model would never see it; write it where it belongs"
            )


def _where(error: Exception) -> str:
    """The line of a text at which rendering it ended, if that is known."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f"line {lines[-1]}: " if lines else ""


def chat_messages(scenario: Scenario) -> list[dict[str, str]]:
    """The messages by which a pretrained chat model is asked to answer a scenario, as `coevo.generate` asks it."""
    return INSTRUCT.messages("rpm", scenario)


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
    mark = _mark(*texts)
    pair = len(replies) == 2
    asked = {"rubric": rubric, "mark": mark, "pair": pair, "field": COMPARED if pair else SCORED}
    return [{"role": "user", "content": _compiled(_shipped("judge")).render(**asked | seen).strip()}]


def _mark(*texts: str) -> str:
    """A hash of what is shown, that no text of it can hold."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def manner_messages(manner: str, text: str) -> list[dict[str, str]]:
    """Chat messages that ask for a user's message in another language, dialect, mood or manner."""
    return [{"role": "user", "content": _compiled(_shipped("manner")).render(manner=manner, text=text).strip()}]


def meaning_messages(first: str, second: str) -> list[dict[str, str]]:
    """Chat messages that ask whether two messages mean the same; the mark is a hash, which neither can write."""
    text = _compiled(_shipped("meaning")).render(mark=_mark(first, second), first=first, second=second)
    return [{"role": "user", "content": text.strip()}]


def judge_again(messages: Sequence[dict[str, str]], answer: str, fault: str) -> list[dict[str, str]]:
    """The same question once more, after an answer that could not be read."""
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": _compiled(_shipped("judge_again")).render(fault=fault).strip()},
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
    # a recipe's texts come from others, so none of them may call or change anything
    return ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )


@cache
def _compiled(text: str) -> jinja2.Template:
    return _environment().from_string(text)


@cache
def _variables(text: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(_environment().parse(text)))


@cache
def _shipped(name: str) -> str:
    return resources.files(__name__).joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


SHORT = Prompts(tuple((name, _shipped(name)) for name in FIELDS), "system")
"""What the small base was taught: as few words as will do."""
INSTRUCT = Prompts(tuple((name, _shipped(name if name == "rewrite" else f"instruct/{name}")) for name in FIELDS), "user")
"""Instructions for a pretrained chat model."""
