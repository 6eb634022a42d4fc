"""Dialogues that the agent begins, with its greeting: read, rendered by strict templates, shifted; others as before."""

from __future__ import annotations

import copy
import hashlib
import random
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from coevo.data import FileShifts, read_rpgbench, write_rpgbench
from coevo.lm.likelihood import render
from coevo.lm.loading import load_tokenizer
from coevo.prompts import INSTRUCT, SHORT, Role, judge_messages
from coevo.types import Scenario, Turn

_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}"
)
_GEMMA = (
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (PREFIX + m['content']) | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_SPLIT = "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}{% set ms = messages[1:] %}"
_SPLIT += "{% else %}{% set s = '' %}{% set ms = messages %}{% endif %}"
TEMPLATES = {
    "gemma 2": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}" + _ALTERNATE + _GEMMA.replace("PREFIX", "''"),
    "gemma 3": _SPLIT + "{% for m in ms %}" + _ALTERNATE + _GEMMA.replace("PREFIX", "(s if loop.first else '')"),
    "mistral": _SPLIT
    + "{% for m in ms %}"
    + _ALTERNATE
    + "{% if m['role'] == 'user' %}{{ '[INST] ' + (s if loop.last else '')"
    " + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
}
"""Of those that demand a user's message first, or have no system role, or fold it into the first or last user's turn."""
ROLES: tuple[Role, ...] = ("rpm", "thinker", "scorer", "simulator", "reasoner")
TALK = Scenario(
    "IDTrain-0", "IDTrain", "IDTrain", "Ann, a mason.", "Dora, a baker.",
    (Turn("user", "Good morning."), Turn("agent", "Good day to you."), Turn("user", "Do you bake?")), "Yes, I do.",
)  # fmt: skip
GREETED = replace(TALK, dialogue=(Turn("agent", "Welcome, stranger."), *TALK.dialogue))
FIRST = replace(TALK, dialogue=(Turn("agent", "Welcome, stranger."), Turn("user", "Do you bake?")))
REASONING = "It must be short."


def tokenizer_of(template: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(load_tokenizer(Path(str(resources.files("coevo.lm") / "builtin"))))
    if template:
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def prompts_of(template: str, x: Scenario) -> dict[str, str]:
    tokenizer = tokenizer_of(template)
    return {
        f"{name}/{role}": render(tokenizer, prompts.messages(role, x, reasoning=REASONING if role == "scorer" else ""))
        for name, prompts in (("short", SHORT), ("instruct", INSTRUCT))
        for role in ROLES
    }


# --- dialogues that the user begins are as before ----------------------------------------------------------------------

GOLDEN = {
    "": "f638db2d8df97a49da0c6c6af5a906ed29149a25625e1950d958f5672dd224b6",
    "gemma 2": "10c0dc38a87c1e881ee6fac6ba7dcf8440496b04afb2bcc3bb2abc54627e2485",
    "gemma 3": "10c0dc38a87c1e881ee6fac6ba7dcf8440496b04afb2bcc3bb2abc54627e2485",
    "mistral": "934c652c6e583438124f21e4977500a5dcb8a4d99f462b4015700583702cf52a",
    "chatml": "3cf23c824a8c754e0a157c1647738f379ddb4eabfc201739960e7e7cc972cb2a",
}
"""Template -> SHA-256 of the ten prompts of TALK, made with the code of commit 1510055^, which knew no greeting."""
GEMMA_2_RPM = (
    "<start_of_turn>user\n"
    "You play this character in a conversation: Dora, a baker.\n"
    "You talk to: Ann, a mason.\n"
    "Stay in character. Answer the last message as the character would, "
    "in the character's voice and in the user's language, with what the character says and nothing else.\n"
    "\n"
    "Good morning.<end_of_turn>\n"
    "<start_of_turn>model\n"
    "Good day to you.<end_of_turn>\n"
    "<start_of_turn>user\n"
    "Do you bake?<end_of_turn>\n"
    "<start_of_turn>model\n"
)
"""One of them as it was."""


@pytest.mark.parametrize("template", ["", *TEMPLATES])
def test_prompts_of_dialogues_that_the_user_begins_are_as_before_to_the_byte(template: str) -> None:
    made = prompts_of(template, TALK)
    assert hashlib.sha256("\0".join(made.values()).encode()).hexdigest() == GOLDEN[template]
    if template == "gemma 2":
        assert made["instruct/rpm"] == GEMMA_2_RPM


# --- dialogues that the agent begins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [GREETED, FIRST], ids=["four messages", "two messages"])
@pytest.mark.parametrize("template", ["", *TEMPLATES])
def test_every_role_reads_the_greeting_first_and_everything_after_it_in_order(template: str, x: Scenario) -> None:
    for role, prompt in prompts_of(template, x).items():
        said = x.dialogue[:-1] if role.endswith("simulator") else x.dialogue  # the last is the simulator's to write
        places = [prompt.index(turn.text) for turn in said]
        assert places == sorted(places), role
        assert all(prompt.count(turn.text) == 1 for turn in said), role
        assert x.persona in prompt and x.character in prompt, role
        assert (REASONING in prompt) == role.endswith("scorer")


def test_the_greeting_is_the_models_own_where_a_user_must_come_first() -> None:
    # Gemma 2 knows no system: what it would say becomes the user's first message, and the greeting is the model's answer
    prompt = prompts_of("gemma 2", FIRST)["instruct/rpm"]
    turns = [part.partition("\n")[0] for part in prompt.split("<start_of_turn>")[1:]]
    assert turns == ["user", "model", "user", "model"]
    assert "<start_of_turn>model\nWelcome, stranger.<end_of_turn>\n<start_of_turn>user\nDo you bake?<end_of_turn>" in prompt


def test_a_dropped_dialogue_drops_the_greeting_too() -> None:
    for prompts in (SHORT, INSTRUCT):
        for role in ROLES:
            shown = str(prompts.messages(role, GREETED, {"d"}))
            assert "Welcome" not in shown and "Good" not in shown, role


def test_a_simulator_answers_the_greeting() -> None:
    system, greeting = INSTRUCT.messages("simulator", FIRST)
    assert system["role"] == "system" and greeting == {"role": "user", "content": "Welcome, stranger."}
    assert "A: Welcome, stranger.\nNext message" in SHORT.messages("simulator", FIRST)[0]["content"]


def test_a_judge_reads_the_greeting() -> None:
    from coevo.config.rubric import load_rubric

    asked = judge_messages(load_rubric("coser"), GREETED, ["Yes."])[0]["content"]
    assert asked.index("Welcome, stranger.") < asked.index("Good morning.")


def test_a_greeted_scenario_is_written_and_read_again(tmp_path: Path) -> None:
    write_rpgbench(tmp_path / "x.json", [GREETED, replace(FIRST, sample_id="IDTrain-1")])
    assert [x.dialogue for x in read_rpgbench(tmp_path / "x.json")] == [GREETED.dialogue, FIRST.dialogue]


def test_shifts_of_a_file_keep_who_says_what() -> None:
    other = replace(TALK, sample_id="IDTrain-1", persona="Bo, a smith.")
    source = FileShifts([FIRST, other])
    for tag in source.tags:
        frame = source.frame(FIRST, tag, random.Random(0))
        made = source.finish(frame, "Bake you?", random.Random(0))
        assert isinstance(made, Scenario)
        assert [turn.role for turn in made.dialogue] == ["agent", "user"], tag
        words = sorted(made.dialogue[0].text.split())
        assert words == ["Welcome,", "stranger."], tag  # shuffled or not, none is lost
