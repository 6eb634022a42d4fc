"""Every chat template that ships with the installed TRL, and small ones of strict habits, with each prompt of each role."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import trl
from transformers import PreTrainedTokenizerBase

from coevo.errors import ConfigError
from coevo.lm.likelihood import encode_pair, encode_response, render
from coevo.lm.loading import load_tokenizer
from coevo.lm.template import TODAY, end_of_turn, give_arguments
from coevo.prompts import INSTRUCT, SHORT
from coevo.scoring.probe import ROLES, probe
from coevo.types import Scenario, Turn
from tests.compat.families import BUILTIN

TRL = {
    path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(trl.__file__).parent.glob("chat_templates/*.jinja"))
}
PARTS = ("idefics3", "llava_next", "smolvlm")
"""Templates of models that see pictures, which take content as a list of parts alone."""
_TURN = "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"
_ASK = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
_EACH = "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASK
STRICT = {
    "no system role": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + _TURN
    + "{% endfor %}"
    + _ASK,
    "system folded into the first user turn": "{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{{ '<|' + m.role + '|>' + (s if loop.first else '') + m.content + '<|end|>' }}{% endfor %}" + _ASK,
    "roles alternate": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('alternate') }}{% endif %}" + _TURN + "{% endfor %}" + _ASK,
    "content trimmed": _EACH.replace("m.content", "m.content | trim"),
    "a date": "{{ '<|system|>Today is ' + strftime_now('%d %b %Y') + '<|end|>' }}" + _EACH,
    "thinking on by default": "{% for m in messages %}"
    + _TURN
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
    "system message only first": "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('first') }}{% endif %}" + _TURN + "{% endfor %}" + _ASK,
    "last message the user's": "{% if add_generation_prompt and messages[-1].role != 'user' %}{{ raise_exception('last') }}"
    "{% endif %}" + _EACH,
}
ALL = TRL | STRICT
_MARK = re.compile(r"<\|[^|<>{}'\"\s]+\|>|</?[a-z_]{3,}>|<｜[^｜]+｜>|\[/?[A-Z_]{3,}\]")
ANSWER = "Yes, I do."
TALK = Scenario(
    sample_id="talk",
    split="IDTest",
    subset_tag="IDTest",
    persona="Ann, a mason.",
    character="Dora, a baker.",
    dialogue=(Turn("user", "Good morning."), Turn("agent", "Good day to you."), Turn("user", "Do you bake?")),
    reference=ANSWER,
)


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The shipped tokenizer with a template, and with the template's marks as its special tokens."""
    tokenizer = copy.deepcopy(load_tokenizer(BUILTIN))
    tokenizer.chat_template = ALL[name]
    tokenizer.bos_token = "<|begin|>"
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(_MARK.findall(ALL[name])))})
    return tokenizer


def by_hand(tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
    """What the template itself makes of a question and its answer, without coevo."""
    asked = [{"role": "user", "content": "Do you?"}, {"role": "assistant", "content": answer}]
    return str(tokenizer.apply_chat_template(asked, tokenize=False, enable_thinking=False, thinking=False))


def bare(text: str) -> str:
    """Without thoughts and space, which a generation prompt and a finished turn may write in different ways."""
    return re.sub(r"\s|</?think>|\d{1,2}[ -]?\w{3}[ -]?\d{4}|\d{4}-\d\d-\d\d", "", text)


def fit(names):
    return [name for name in names if name.removesuffix("_training") not in PARTS]


@pytest.mark.parametrize("name", fit(ALL))
def test_every_text_of_every_role_survives(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for prompts in (SHORT, INSTRUCT):
        probe(tokenizer, prompts, tuple(ROLES))
        for role in ("rpm", "thinker", "scorer", "simulator", "reasoner"):
            messages = prompts.messages(role, TALK, reasoning="It must be short." if role == "scorer" else "")
            prompt = render(tokenizer, messages)
            assert all(message["content"] in prompt for message in messages), role
            assert all(text in prompt for text in (TALK.persona, TALK.character, TALK.dialogue[0].text)), role


@pytest.mark.parametrize("name", [name for name in TRL if name.removesuffix("_training") in PARTS])
def test_a_template_that_wants_content_in_parts_is_refused_by_name(name: str) -> None:
    tokenizer = tokenizer_of(name)
    with pytest.raises(ConfigError, match=r"role rpm: .*the base's chat template cannot be used for messages of"):
        probe(tokenizer, INSTRUCT, tuple(ROLES))


@pytest.mark.parametrize("name", fit(ALL))
def test_likelihoods_are_of_the_response_and_of_the_end_that_the_template_writes(name: str) -> None:
    tokenizer = tokenizer_of(name)
    whole = by_hand(tokenizer, ANSWER)
    before, found, after = whole.rpartition(ANSWER)
    assert found
    end = end_of_turn(tokenizer)
    marks = [mark for mark in _MARK.findall(after) if mark in tokenizer.all_special_tokens]
    assert end == (marks[0] if marks else None)
    if end is None:
        return
    tokenizer.eos_token = end
    prompt = render(tokenizer, [{"role": "user", "content": "Do you?"}])
    ids, response = encode_pair(tokenizer, prompt, ANSWER)
    assert tokenizer.decode(response[:-1]).strip() == ANSWER and response[-1] == tokenizer.convert_tokens_to_ids(end)
    assert response == encode_response(tokenizer, ANSWER)
    assert bare(prompt + ANSWER + end) == bare(before + ANSWER + end), "a response stands where the template writes it"
    assert ids == tokenizer(prompt, add_special_tokens=False)["input_ids"]


def test_the_date_is_the_same_on_every_day() -> None:
    prompt = render(tokenizer_of("a date"), [{"role": "user", "content": "Do you?"}])
    assert f"Today is {TODAY.strftime('%d %b %Y')}" in prompt


def test_a_users_arguments_reach_the_template_and_unknown_ones_are_refused() -> None:
    tokenizer = tokenizer_of("thinking on by default")
    asked = [{"role": "user", "content": "Do you?"}]
    assert "<think>" in render(tokenizer, asked)
    with pytest.raises(
        ConfigError, match=r"base\.template\.enable_thinkin: .*it reads enable_thinking\. Did you mean enable"
    ):
        give_arguments(tokenizer, {"enable_thinkin": True})
    for name in ("messages", "add_generation_prompt"):
        with pytest.raises(ConfigError, match="reads no such argument"):
            give_arguments(tokenizer, {name: True})
    other = tokenizer_of("thinking on by default")
    give_arguments(other, {"enable_thinking": True})
    assert "<think>" not in render(other, asked)


@pytest.mark.parametrize("name", [name for name in ALL if name not in PARTS])
def test_the_agents_greeting_may_come_first(name: str) -> None:
    tokenizer = tokenizer_of(name)
    try:
        render(tokenizer, INSTRUCT.messages("rpm", TALK))
    except ConfigError:
        pytest.skip("this template is refused for every dialogue")
    for dialogue in (TALK.dialogue, TALK.dialogue[2:]):
        greeted = replace(TALK, dialogue=(Turn("agent", "Welcome, stranger."), *dialogue))
        for role in ("rpm", "thinker", "scorer", "simulator", "reasoner"):
            prompt = render(tokenizer, INSTRUCT.messages(role, greeted), thinks=role == "thinker")
            texts = [turn.text for turn in (greeted.dialogue[:-1] if role == "simulator" else greeted.dialogue)]
            places = [prompt.index(text) for text in texts]
            assert places == sorted(places), role
