"""The one place that turns chat messages into what a base's own chat template takes, and checks that nothing is lost.

A template is a program that somebody else wrote. Some drop a system message, or one that stands alone; some raise an error
at one, or where roles do not alternate; some write today's date, draw random numbers, open a thought before the answer or
write nothing before it. So what a template does with each sequence of roles is learnt once, with texts made for that: the
first form of the messages in which it keeps every text is the one that is used. The shipped base's template takes
messages as they are. A template that fits in no form is refused, and so is a prompt that lacks the text of a message.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from coevo.errors import ConfigError
from coevo.nearest import did_you_mean
from coevo.prompts import TODAY

Messages = list[dict[str, str]]

ARGUMENTS = "coevo_template_arguments"
"""Attribute of a tokenizer: what a recipe gives its chat template beside the messages."""
_OURS = {"messages", "add_generation_prompt", "tools", "documents", "continue_final_message"}
"""Arguments that are no one's to give: they decide what is asked."""

SWITCHES = ("enable_thinking", "thinking")
"""Names of a switch for a thought before the answer: of Qwen, GLM and SmolLM; of DeepSeek and Granite."""
REMEDY = (
    "Use a base whose chat template shows every message, or set one in the base's files (chat_template.jinja, or "
    "chat_template in tokenizer_config.json)."
)
_THOUGHT = re.compile(r"\s*([<\[◁])(/?)([\w:|]*(?:think|thought|reason)[\w:|]*)([>\]▷])\s*", re.IGNORECASE)
_THOUGHTS_AT_END = re.compile(rf"(?:{_THOUGHT.pattern})+$", re.IGNORECASE)
_BREAKS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template can end in: its own refusals, and the faults of a program."""
_ODD = 'Ä É 中 "so" <b>&amp;</b> it\'s  two spaces\nand a line. ' + "On and on it goes, " * 100
"""In every text of a trial: what escaping, changes of case, tidying and cutting would alter."""


class _Unfit(Exception):
    """What a template does that cannot be used."""


@dataclass(frozen=True, slots=True)
class Way:
    """How messages of one sequence of roles go through a template."""

    form: int
    """Which of `_forms`."""
    opening: str
    """What is added to the template's prompt, so that an answer stands where the template itself puts it."""
    closing: str
    """What the template writes after an answer."""


def fill(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], *, thinks: bool = False) -> str:
    """Messages -> prompt text, up to where the answer begins, by the base's chat template.

    Args:
        tokenizer: of the base.
        messages: with `role` (system, user, assistant) and `content`, which are safe to render.
        thinks: the answer begins with a thought; else thinking is switched off, or an empty thought closed.

    Raises:
        ConfigError: the template takes these roles in no form, or the prompt lacks a message's text.
    """
    template = tokenizer.get_chat_template()
    way = _way(tokenizer, template, tuple(message["role"] for message in messages), thinks)
    try:
        text = _apply(tokenizer, template, _form(messages, way.form), thinks)
    except _Unfit as error:
        raise ConfigError(f"{_name(tokenizer)}: the base's chat template {error}. {REMEDY}") from error
    lost = _lost(messages, text)
    if lost is not None:
        raise ConfigError(
            f"{_name(tokenizer)}: the base's chat template drops or changes the text of a {lost['role']} message, "
            f"{lost['content'].strip()[:80]!r}, so the model would not see it. Take this text out of the data, or: {REMEDY}"
        )
    return text + way.opening


def give_arguments(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]) -> None:
    """Has further arguments given to the chat template whenever it renders.

    Raises:
        ConfigError: one that the template does not read, with those that it does; or a template that is no Jinja text.
    """
    template = tokenizer.get_chat_template()
    try:
        known = meta.find_undeclared_variables(_compile_jinja_template(template).environment.parse(template))
    except _BREAKS as error:
        line = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ConfigError(
            f"{_name(tokenizer)}: the base's chat template is no Jinja text ({line}{error}). Mend it in the base's files "
            "(chat_template.jinja, or chat_template in tokenizer_config.json), or take another base."
        ) from error
    known -= {*_OURS, *tokenizer.special_tokens_map, "strftime_now", "raise_exception"}
    for name in arguments:
        if name not in known:
            raise ConfigError(
                f"base.template.{name}: {_name(tokenizer)}: the base's chat template reads no such argument; it reads "
                f"{', '.join(sorted(known)) or 'none'}.{did_you_mean(name, known)}"
            )
    setattr(tokenizer, ARGUMENTS, dict(arguments))


def _lost(messages: Sequence[Mapping[str, str]], prompt: str) -> Mapping[str, str] | None:
    """The first message whose text the prompt lacks. Two that say the same must both be there, so turns are looked for in
    their order; a system message may stand anywhere."""
    end = 0
    for message in messages:
        text = message["content"].strip()
        place = prompt.find(text, 0 if message["role"] == "system" else end)
        if place < 0:
            return message
        if message["role"] != "system":
            end = place + len(text)
    return None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that the chat template writes after an answer, which need not be the tokenizer's `eos_token`.

    None if it writes no such token, or takes no message of a user; then something else will refuse it.
    """
    try:
        closing = _way(tokenizer, tokenizer.get_chat_template(), ("user",), False).closing.lstrip()
    except ConfigError:
        return None
    known = {*tokenizer.all_special_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    return max((token for token in known if token and closing.startswith(token)), key=len, default=None)


def opens_thought(prompt: str) -> str:
    """The mark with which a prompt ends that opens a thought for the model; empty if it opens none."""
    thought = _THOUGHTS_AT_END.search(prompt)
    return thought[0].strip() if thought and not thought[2] else ""


def date_stamp(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """`template_date`, where the chat template asks which day it is: what results made with it are to record."""
    return {"template_date": TODAY.date().isoformat()} if "strftime_now" in tokenizer.get_chat_template() else {}


# --- forms of messages ------------------------------------------------------------------------------------------------


def _forms(messages: Sequence[Mapping[str, str]]) -> Iterator[Messages]:
    """The messages as they are, and then in forms that stricter templates take. A text is moved or joined, never changed."""
    as_they_are = [{"role": message["role"], "content": message["content"]} for message in messages]
    yield as_they_are
    # into the first message, not beside the user's text: there, a user could write what only coevo may
    system = [message for message in as_they_are if message["role"] == "system"]
    led = [*_joined(system), *(message for message in as_they_are if message["role"] != "system")]
    yield led
    in_turn = _joined(led)
    yield in_turn
    yield _joined([{**message, "role": message["role"].replace("system", "user")} for message in in_turn])


def _form(messages: Sequence[Mapping[str, str]], which: int) -> Messages:
    return next(form for place, form in enumerate(_forms(messages)) if place == which)


def _joined(messages: Messages) -> Messages:
    """Neighbours of one role as one message."""
    joined: Messages = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


# --- what a template does ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _way(tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...], thinks: bool) -> Way:
    texts = [f"Zq{place}x begins. {_ODD} Zq{place}x ends." for place in range(len(roles))]
    asked = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    faults: dict[str, None] = {}
    tried: list[Messages] = []
    for form, messages in enumerate(_forms(asked)):
        if messages in tried:
            continue
        tried.append(messages)
        try:
            prompt = _steady(tokenizer, template, messages, thinks)
            _check_texts(prompt, asked, led=form > 0)
            answer = f"Zqax begins. {_ODD} Zqax ends."
            opening, end = _answered(tokenizer, template, messages, prompt, answer, thinks)
            _check_constant(tokenizer, template, messages, thinks, (opening, end))
            return Way(form, opening, end)
        except _Unfit as fault:
            faults[str(fault)] = None
    raise ConfigError(
        f"{_name(tokenizer)}: the base's chat template cannot be used for messages of {_roles(asked)}. "
        f"It {'; in another form, it '.join(faults)}. {REMEDY}"
    )


def _apply(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: Messages, thinks: bool, generation: bool = True
) -> str:
    """Render by a template that knows but one date, with thinking on or off where it has a switch."""
    try:
        _compile_jinja_template(template).environment.globals["strftime_now"] = TODAY.strftime
        return str(
            tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=generation,
                **_switches(template, thinks) | getattr(tokenizer, ARGUMENTS, {}),
            )
        )
    except _BREAKS as error:
        raise _Unfit(f"refuses messages of {_roles(messages)} ({type(error).__name__}: {error})") from error


@lru_cache(maxsize=64)
def _switches(template: str, thinks: bool) -> dict[str, Any]:
    return {name: thinks for name in SWITCHES if re.search(rf"\b{name}\b", template)}


def _steady(tokenizer: PreTrainedTokenizerBase, template: str, messages: Messages, thinks: bool) -> str:
    """The prompt, if it is the same in every process."""
    before = random.getstate()
    prompt = _apply(tokenizer, template, messages, thinks)
    drawn = random.getstate() != before
    random.setstate(before)
    if drawn:
        raise _Unfit("draws random numbers, so that no two prompts are alike")
    if re.search(r" at 0x[0-9a-f]{6,}", prompt):
        raise _Unfit("writes a memory address, which is another in every process")
    return prompt


def _check_texts(prompt: str, asked: Messages, led: bool) -> None:
    """Every text whole, the turns in their order, and each told by what stands before it."""
    end = 0
    system = set()
    for number, message in enumerate(asked, start=1):
        text = message["content"]
        place = prompt.find(text, 0 if message["role"] == "system" else end)
        if place < 0:
            raise _Unfit(f"{_loss(prompt, text)} the {message['role']} message, number {number} of {_roles(asked)}")
        if message["role"] == "system":
            system.add(prompt[max(0, place - 6) : place])
        else:
            end = place + len(text)
    if not led and len(system) > 1:
        raise _Unfit("writes a later system message as another thing than the first")


def _check_constant(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: Messages, thinks: bool, learnt: tuple[str, str]
) -> None:
    """What stands around an answer must be the template's own, not of the texts, or a trial's would be in every prompt."""
    short = [{**message, "content": f"Zq{place}y."} for place, message in enumerate(messages)]
    prompt = _apply(tokenizer, template, short, thinks)
    if _answered(tokenizer, template, short, prompt, "Zqay.", thinks) != learnt:
        raise _Unfit("writes beside an answer what depends on the answer or on other messages, or writes a text twice")


def _loss(prompt: str, text: str) -> str:
    if text in prompt:
        return "puts in another order than it was said in"
    known = any(part.lower() in prompt.lower() for part in (text[:6], text[-11:]))
    return "changes or cuts the text of" if known else "drops"


def _roles(messages: Messages) -> str:
    roles = [message["role"] for message in messages]
    return ", ".join(roles if len(roles) < 9 else [*roles[:4], "...", *roles[-3:]])


def _answered(
    tokenizer: PreTrainedTokenizerBase, template: str, messages: Messages, prompt: str, answer: str, thinks: bool
) -> tuple[str, str]:
    """What must be added to the prompt for an answer to stand where the template writes it, and what it writes after it."""
    answered = [*messages, {"role": "assistant", "content": answer}]
    whole = _apply(tokenizer, template, answered, thinks, generation=False)
    before, found, end = whole.rpartition(answer)
    if not found:
        raise _Unfit("drops or changes the text of an assistant message")
    _check_turns(whole, answered)
    if thinks:  # The thought is the answer's own: what opens it or leaves it away is all right.
        before = _THOUGHTS_AT_END.sub("", before)
        if _THOUGHTS_AT_END.sub("", prompt).rstrip() == before.rstrip():
            return "", end
    if before.startswith(prompt):
        # a space before a word belongs to the word's own token
        return before[len(prompt) :].rstrip(" "), end
    if before.rstrip() == prompt.rstrip():
        return "", end
    return _closed(before, prompt), end


def _closed(before: str, prompt: str) -> str:
    """What ends a thought that the generation prompt opens and that a finished answer does not have before it.

    Nothing where the prompt has ended it already: answers are then taught and scored after an empty thought, as asked for.
    """
    common = before.rstrip()
    rest = prompt[len(common) :]
    if prompt.startswith(common) and _THOUGHTS_AT_END.fullmatch(rest) and _THOUGHT.findall(rest)[-1][1]:
        return ""
    thought = _THOUGHT.fullmatch(rest)
    if not prompt.startswith(common) or not thought or thought[2]:
        raise _Unfit(
            f"asks for an answer after {prompt[-40:]!r} and writes one after {before[-40:]!r}, so that a response would be "
            "taught and scored where the model never writes it"
        )
    return ("\n" if prompt.endswith("\n") else "\n\n") + f"{thought[1]}/{thought[3]}{thought[4]}\n\n"


def _check_turns(whole: str, answered: Messages) -> None:
    """What stands before a user's message and before an assistant's must differ, or nobody could tell who speaks."""
    between: dict[str, set[str]] = {"user": set(), "assistant": set(), "system": set()}
    end = None
    for message in answered:
        place = whole.find(message["content"], end or 0)
        if end is not None and place >= end:
            between[message["role"]].add(whole[end:place])
        if place >= 0:  # A system message may stand anywhere.
            end = place + len(message["content"])
    if between["user"] & between["assistant"]:
        raise _Unfit("does not tell the user's messages from the assistant's")


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "base")
