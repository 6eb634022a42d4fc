"""Whether a base's chat template shows every role all that it is to read: tried before anything is trained or scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from coevo.errors import ConfigError
from coevo.lm.likelihood import render
from coevo.lm.template import opens_thought
from coevo.prompts import NOTHING, Part, Prompts, Role, judge_again
from coevo.scoring.thinking import MARKS
from coevo.types import Scenario, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_DIALOGUE: frozenset[Part] = frozenset(("d",))
_TURNS = [f"Zqturn{number:02}" for number in range(1, 14)]
_WHOLE = Scenario(
    "probe",
    "IDTrain",
    "IDTrain",
    persona="Zqpersona, who begins and ends here: Zqpersonaend.",
    character="Zqcard, who begins and ends here: Zqcardend.",
    dialogue=tuple(
        Turn("agent" if place % 2 else "user", f"{mark} says this: {mark}end.") for place, mark in enumerate(_TURNS)
    ),
    reference="Zqreference.",
    draft="Zqdraft. Zqdraftend.",
)
_REASONING = "language: Zqreasoning\nmood: Zqreasoningend"
_QUESTION = [{"role": "user", "content": "Zqquestion? Zqquestionend."}]

Prompt = tuple[list[dict[str, str]], tuple[str, ...]]
"""Messages of a role, and the marks that it must find in its prompt."""


def _of_scenario(prompts: Prompts, role: Role, *more: str, reasoning: str = "") -> Iterator[Prompt]:
    said = _TURNS[:-1] if role == "simulator" else _TURNS
    names = ("Zqpersona", "Zqcard", *said, *more)
    yield prompts.messages(role, _WHOLE, NOTHING, reasoning), (*names, *(f"{name}end" for name in names))
    yield prompts.messages(role, _WHOLE, _NO_DIALOGUE), ("Zqpersona", "Zqcard")
    if role == "simulator":
        first = replace(_WHOLE, dialogue=_WHOLE.dialogue[:1])
        yield prompts.messages(role, first), ("Zqpersona", "Zqcard", "Zqdraft")


ROLES: Mapping[str, Callable[[Prompts], Iterator[Prompt]]] = {
    "rpm": lambda prompts: _of_scenario(prompts, "rpm"),
    "thinker": lambda prompts: _of_scenario(prompts, "thinker"),
    "scorer": lambda prompts: _of_scenario(prompts, "scorer"),
    "scorer with reasoning": lambda prompts: _of_scenario(prompts, "scorer", "Zqreasoning", reasoning=_REASONING),
    "simulator": lambda prompts: _of_scenario(prompts, "simulator", "Zqdraft"),
    "reasoner": lambda prompts: _of_scenario(prompts, "reasoner"),
    "agreement": lambda prompts: iter(
        [(prompts.agreement_messages(_REASONING, "Zqanswer"), ("Zqreasoning", "Zqreasoningend", "Zqanswer"))]
    ),
    "judge": lambda _: iter(
        [
            (_QUESTION, ("Zqquestion", "Zqquestionend")),
            (judge_again(_QUESTION, "Zqanswer", "Zqfault"), ("Zqquestionend", "Zqanswer", "Zqfault")),
        ]
    ),
    "rewriter": lambda prompts: iter([(prompts.rewrite_messages("paraphrase", "Zqtext", speaker="user"), ("Zqtext",))]),
}
"""Name of a role -> the prompts that it gets, of a scenario made for this."""
RUN_ROLES = ("rpm", "thinker", "scorer", "scorer with reasoning", "simulator", "reasoner", "agreement")


def probe(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    roles: Sequence[str] = RUN_ROLES,
    marks: tuple[str, str] | None = None,
) -> None:
    """Renders every prompt of these roles, each part of which has a mark, and looks for the marks.

    Args:
        tokenizer: of the base.
        prompts: of the run.
        roles: names in `ROLES`.
        marks: what opens and closes the thought of a model that thinks first; None where none does.

    Raises:
        ConfigError: a role, what the template does with its messages, and the remedy.
    """
    for role in roles:
        for asked, wanted in ROLES[role](prompts):
            try:
                prompt = render(tokenizer, asked, thinks=role == "thinker")
            except ConfigError as error:
                raise ConfigError(f"role {role}: {error}") from error
            missing = [mark for mark in wanted if mark not in prompt]
            assert not missing, f"role {role}: prompt without {missing}"
            if role == "thinker" and marks is not None:
                _check_marks(opens_thought(prompt), marks)


def _check_marks(opened: str, marks: tuple[str, str]) -> None:
    if opened and marks[0]:
        raise ConfigError(
            f"role thinker: the base's chat template opens the thought itself, by {opened!r} at the prompt's end, and "
            f"method.marks={list(marks)} would open it twice. Set method.marks to an empty mark and the one that closes: "
            f"{['', MARKS[1]]}."
        )
