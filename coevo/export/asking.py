"""How an exported model is asked without coevo: the system text, and what the base's chat template needs besides.

coevo takes a chat template in one of several forms, and may end its prompt by a text of its own (see `coevo.lm.template`).
What of that others must do is found by trying: the plain template, with as little as possible beside it, must give coevo's
very prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from coevo.config.methods import Thinking
from coevo.errors import ConfigError
from coevo.lm.likelihood import render
from coevo.lm.template import SWITCHES
from coevo.loop.context import Policies, room
from coevo.prompts import TODAY, Prompts, Role
from coevo.types import Scenario, Turn

FORMAT_FILE = "prompt_format.json"
EXAMPLE = Scenario(
    "example", "Chat", "Chat", "Joe, a nurse.", "Ada Lovelace, a mathematician.", (Turn("user", "Who are you?"),), ""
)
_LONGER = replace(EXAMPLE, dialogue=(*EXAMPLE.dialogue, Turn("agent", "Ada."), Turn("user", "And then?")))
_GREETED = replace(EXAMPLE, dialogue=(Turn("agent", "Good day."), *EXAMPLE.dialogue))
TRIALS = {"question": EXAMPLE, "dialogue": _LONGER, "greeted": _GREETED}
"""The last one is begun by the agent."""
DATE = TODAY.strftime("%d %b %Y")
"""As Llama's templates write it."""
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Asking:
    """How a model is asked."""

    system: str
    """Jinja text of the system message, of `persona` and `character`."""
    in_user: bool
    """The system text stands at the head of the first user message, as the template takes no system message."""
    arguments: Mapping[str, Any]
    """Of apply_chat_template, beside the messages."""
    opening: str
    """What follows the template's prompt."""
    marks: tuple[str, str] | None
    """What opens and closes the thought that the model writes first; None if it writes none."""
    max_new_tokens: int
    """As many as the model was taught to write."""
    differs: str
    """Why this does not give the very prompt that the model was taught to read; empty where it does."""
    example: str
    """The prompt of `EXAMPLE`, as coevo renders it."""

    @classmethod
    def of(cls, policies: Policies) -> Asking:
        """Found by trying, on the run's own tokenizer."""
        recipe, prompts, tokenizer = policies.recipe, policies.prompts, policies.tokenizer
        method = recipe.method
        role: Role = "thinker" if isinstance(method, Thinking) else "rpm"
        wanted = _wanted(tokenizer, prompts, role)
        in_user, arguments, opening, differs = _plainly(tokenizer, prompts, role, wanted, recipe.template)
        return cls(
            system=dict(prompts.texts)[role],
            in_user=in_user,
            arguments=arguments,
            opening=opening,
            marks=method.marks if isinstance(method, Thinking) else None,
            max_new_tokens=room(recipe.limits, role),
            differs=differs,
            example=wanted["question"],
        )

    def messages_code(self) -> str:
        """Lines of Python that make `messages` of `persona`, `character` and `dialogue`."""
        lines = [
            "jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)",
            f"system = jinja.from_string({self.system!r}).render(persona=persona, character=character).strip()",
        ]
        if self.in_user:
            lines.append('messages = [{"role": "user", "content": system}, *dialogue]')
            joined = 'messages = [{"role": "user", "content": f"{system}\\n\\n{dialogue[0][\'content\']}"}, *dialogue[1:]]'
            lines += ['if dialogue[0]["role"] == "user":', f"    {joined}"]
        else:
            lines.append('messages = [{"role": "system", "content": system}, *dialogue]')
        return "\n".join(lines)

    def prompt_code(self) -> str:
        """Lines of Python that make `prompt` of `messages`."""
        given = "".join(f", {name}={value!r}" for name, value in self.arguments.items())
        after = f" + {self.opening!r}" if self.opening else ""
        return f"prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True{given}){after}"

    def reply_code(self) -> str:
        """What the user sees of `text`, in Python."""
        if self.marks is None:
            return "text"
        opens, closes = self.marks
        # a thought that never ends is all there is, and is not shown
        return f'text.rpartition({closes!r})[2].strip() if {closes!r} in text or {opens!r} not in text else ""'

    def to_json(self) -> str:
        """`prompt_format.json`: the same for programs in other languages."""
        record = {
            "system": self.system,
            "engine": "Jinja of persona and character, with trim_blocks and lstrip_blocks; the text is stripped",
            "system_in_first_user_message": self.in_user,
            "character": "a text; an object is written key: value; key: value, and a list in it one / two",
            "roles": {"user": "user", "agent": "assistant"},
            "template_arguments": dict(self.arguments),
            "after_template": self.opening,
            "thought": None if self.marks is None else {"opens": self.marks[0], "closes": self.marks[1]},
            "differs": self.differs or None,
            "example": {
                "persona": EXAMPLE.persona,
                "character": EXAMPLE.character,
                "dialogue": [{"role": "user", "content": EXAMPLE.dialogue[0].text}],
                "prompt": self.example,
            },
        }
        return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


def _plainly(
    tokenizer: Any, prompts: Prompts, role: Role, wanted: Mapping[str, str], given: Mapping[str, Any]
) -> tuple[bool, dict[str, Any], str, str]:
    """The form, the arguments and the ending with which the plain template gives coevo's prompts, and why none does."""
    dated = "strftime_now" in tokenizer.get_chat_template()
    greeted = [name for name in wanted if TRIALS[name] is _GREETED]
    for names in (list(wanted), [name for name in wanted if name not in greeted]):
        found: list[tuple[bool, dict[str, Any], str]] = []
        for in_user, arguments in _ways(tokenizer, given, role == "thinker", dated):
            ending = _ending(tokenizer, prompts, role, {name: wanted[name] for name in names}, in_user, arguments)
            found += [] if ending is None else [(in_user, arguments, ending)]
        if not found:
            continue
        best = min(found, key=lambda one: len(one[2]))
        if dated and best[1].get("date_string") != DATE:
            return *best, f"the base's chat template writes today's date, where coevo writes {DATE}"
        return *best, "" if len(names) == len(TRIALS) else "a dialogue that the agent begins is put in another form"
    return False, dict(given), "", "the base's chat template alone does not give it"


def _ending(
    tokenizer: Any, prompts: Prompts, role: Role, wanted: Mapping[str, str], in_user: bool, arguments: Mapping[str, Any]
) -> str | None:
    """What coevo writes after the plain template's prompts, if it is the same after all and nothing else differs."""
    endings = set()
    for name, full in wanted.items():
        text = _template(tokenizer, _told(prompts.messages(role, TRIALS[name]), in_user), arguments)
        if text is None or not full.startswith(text):
            return None
        endings.add(full[len(text) :])
    return endings.pop() if len(endings) == 1 else None


def _wanted(tokenizer: Any, prompts: Prompts, role: Role) -> dict[str, str]:
    """Name of a trial -> coevo's prompt; without one that the template takes in no form."""
    found = {}
    for name, x in TRIALS.items():
        with suppress(ConfigError):
            found[name] = render(tokenizer, prompts.messages(role, x), thinks=role == "thinker")
    return found


def _ways(tokenizer: Any, given: Mapping[str, Any], thinks: bool, dated: bool) -> Iterator[tuple[bool, dict[str, Any]]]:
    """What may be tried, the plainest first."""
    template = tokenizer.get_chat_template()
    switches = {name: thinks for name in SWITCHES if re.search(rf"\b{name}\b", template)}
    sets: list[dict[str, Any]] = [dict(given), {**switches, **given}]
    if dated and _takes_date(tokenizer):
        sets = [{**one, "date_string": DATE} for one in sets]
    for in_user in (False, True):
        for arguments in sets:
            yield in_user, arguments


def _takes_date(tokenizer: Any) -> bool:
    """Whether a `date_string` stands in every place of the date. The clock that the template is shown here is coevo's own,
    so that the same prompt alone would prove nothing."""
    shown = _template(tokenizer, [{"role": "user", "content": "Zq"}], {"date_string": "Zqday"})
    return shown is not None and "Zqday" in shown and not any(form in shown for form in (DATE, TODAY.date().isoformat()))


def _told(messages: Messages, in_user: bool) -> Messages:
    """As `messages_code` makes them."""
    if not in_user:
        return messages
    system, first, *rest = messages
    if first["role"] == "user":
        return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]
    return [{**system, "role": "user"}, first, *rest]


def _template(tokenizer: Any, messages: Messages, arguments: Mapping[str, Any]) -> str | None:
    """The prompt by the template as it is; None where it refuses."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **arguments))
    except Exception:  # noqa: BLE001  # a template's own refusal
        return None
