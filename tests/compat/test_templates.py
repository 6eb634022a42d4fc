"""Chat templates: the habits of the families that people use, rewritten in the shipped tokenizer's marks.

Each is given the prompts that it must get: system text where the template shows it, an answer where the template itself
writes one, the same on every day. What cannot be shown is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from coevo import cli
from coevo.errors import ConfigError
from coevo.lm.likelihood import encode_pair, render
from coevo.lm.loading import load_tokenizer
from coevo.lm.template import date_stamp
from coevo.prompts import SHORT
from coevo.scoring.probe import ROLES, RUN_ROLES, probe
from coevo.types import Scenario, Turn
from tests.compat.families import make_base

BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))
SHIPPED = (BUILTIN / "chat_template.jinja").read_text(encoding="utf-8")
X = Scenario("x", "IDTest", "IDTest", "Ann", "Ada", (Turn("user", "Hi."), Turn("agent", "Ho."), Turn("user", "So?")), "Yes.")

_EACH = "{% for message in messages %}"
_TURN = "{{ '<|' + message.role.replace('assistant', 'agent') + '|>' + message.content + '<|end|>' }}"
_ASK = "{% if add_generation_prompt %}{{ '<|agent|>' }}{% endif %}"
_ALTERNATE = (
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
PLAIN = _EACH + _TURN + "{% endfor %}" + _ASK
QWEN25 = "{% if messages[0].role != 'system' %}{{ '<|system|>You are helpful.<|end|>' }}{% endif %}" + PLAIN
LLAMA32 = (
    "{% set date = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}{{ '<|system|>Today: ' + date + '\n\n' + system + '<|end|>' }}" + PLAIN
)
GEMMA2 = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + (
    _EACH + _ALTERNATE + _TURN.replace("message.content", "message.content | trim") + "{% endfor %}" + _ASK
)
GEMMA3 = (
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for message in rest %}"
    + _ALTERNATE
    + _TURN.replace("message.content", "(first if loop.first else '') + message.content")
    + "{% endfor %}"
    + _ASK
)
MISTRAL = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set rest = messages[1:] if system else messages %}{% for message in rest %}"
    + _ALTERNATE
    + "{% if message.role == 'user' %}{{ '<|user|>' + (system + '\n\n' if system and loop.last else '') + message.content "
    "+ '<|agent|>' }}{% else %}{{ ' ' + message.content + '<|end|>' }}{% endif %}{% endfor %}"
)
PHI3_MINI = (
    _EACH + "{% if message.role == 'user' %}{{ '<|user|>\n' + message.content + '<|end|>\n<|agent|>\n' }}"
    "{% elif message.role == 'assistant' %}{{ message.content + '<|end|>\n' }}{% endif %}{% endfor %}"
)
_HISTORY = (
    _EACH + "{% set text = message.content.split('</think>')[-1].lstrip('\n') if message.role == 'assistant' "
    "else message.content %}{{ '<|' + message.role.replace('assistant', 'agent') + '|>' }}"
    "%s{{ text + '<|end|>' }}{% endfor %}"
)
QWEN3 = (
    _HISTORY.replace("%s", "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}")
    + _ASK
    + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
R1 = _HISTORY.replace("%s", "") + "{% if add_generation_prompt %}{{ '<|agent|><think>\n' }}{% endif %}"
NO_MARK = _EACH + _TURN + "{% endfor %}"
GPT_OSS = PLAIN.replace(
    _TURN, _TURN.replace("+ message.content", "+ ('final: ' if message.role == 'assistant' else '') + message.content")
)

SYSTEM, TALK = "You are: Ada\nUser: Ann", "<|user|>Hi.<|end|><|agent|>Ho.<|end|><|user|>So?<|end|>"
DATE = "<|system|>Today: 26 Jul 2024\n\n"
CLOSED = "<think>\n\n</think>\n\n"
FAMILIES: dict[str, tuple[str, str, str, str]] = {
    # the RPM's prompt; that of a lone system message, which is the agreement's; the scorer's with a reasoning
    "shipped": (
        SHIPPED,
        f"<|system|>{SYSTEM}<|end|>{TALK}<|agent|>",
        "<|system|>{lone}<|end|><|agent|>",
        f"<|system|>{SYSTEM}<|end|>{TALK}<|system|>{{late}}<|end|><|agent|>",
    ),
    "qwen2.5": (
        QWEN25,
        f"<|system|>{SYSTEM}<|end|>{TALK}<|agent|>",
        "<|system|>{lone}<|end|><|agent|>",
        f"<|system|>{SYSTEM}<|end|>{TALK}<|system|>{{late}}<|end|><|agent|>",
    ),
    "llama-3.2": (
        LLAMA32,
        f"{DATE}{SYSTEM}<|end|>{TALK}<|agent|>",
        f"{DATE}{{lone}}<|end|><|agent|>",
        f"{DATE}{SYSTEM}\n\n{{late}}<|end|>{TALK}<|agent|>",
    ),
    "gemma-2": (
        GEMMA2,
        f"<|user|>{SYSTEM}\n\n{TALK.removeprefix('<|user|>')}<|agent|>",
        "<|user|>{lone}<|end|><|agent|>",
        f"<|user|>{SYSTEM}\n\n{{late}}\n\n{TALK.removeprefix('<|user|>')}<|agent|>",
    ),
    "gemma-3": (
        GEMMA3,
        f"<|user|>{SYSTEM}\n\n{TALK.removeprefix('<|user|>')}<|agent|>",
        "<|user|>{lone}<|end|><|agent|>",
        f"<|user|>{SYSTEM}\n\n{{late}}\n\n{TALK.removeprefix('<|user|>')}<|agent|>",
    ),
    "mistral": (  # shows it in the last turn while that is the user's: no prompt would begin its own answer's transcript
        MISTRAL,
        f"<|user|>{SYSTEM}\n\nHi.<|agent|> Ho.<|end|><|user|>So?<|agent|>",
        "<|user|>{lone}<|agent|>",
        f"<|user|>{SYSTEM}\n\n{{late}}\n\nHi.<|agent|> Ho.<|end|><|user|>So?<|agent|>",
    ),
    "phi-3-mini": (
        PHI3_MINI,
        f"<|user|>\n{SYSTEM}\n\nHi.<|end|>\n<|agent|>\nHo.<|end|>\n<|user|>\nSo?<|end|>\n<|agent|>\n",
        "<|user|>\n{lone}<|end|>\n<|agent|>\n",
        f"<|user|>\n{SYSTEM}\n\n{{late}}\n\nHi.<|end|>\n<|agent|>\nHo.<|end|>\n<|user|>\nSo?<|end|>\n<|agent|>\n",
    ),
    "qwen3": (
        QWEN3,
        f"<|system|>{SYSTEM}<|end|>{TALK}<|agent|>{CLOSED}",
        f"<|system|>{{lone}}<|end|><|agent|>{CLOSED}",
        f"<|system|>{SYSTEM}<|end|>{TALK}<|system|>{{late}}<|end|><|agent|>{CLOSED}",
    ),
    "deepseek-r1": (
        R1,
        f"<|system|>{SYSTEM}<|end|>{TALK}<|agent|>{CLOSED}",
        f"<|system|>{{lone}}<|end|><|agent|>{CLOSED}",
        f"<|system|>{SYSTEM}<|end|>{TALK}<|system|>{{late}}<|end|><|agent|>{CLOSED}",
    ),
    "without a generation prompt": (
        NO_MARK,
        f"<|system|>{SYSTEM}<|end|>{TALK}<|agent|>",
        "<|system|>{lone}<|end|><|agent|>",
        f"<|system|>{SYSTEM}<|end|>{TALK}<|system|>{{late}}<|end|><|agent|>",
    ),
    "gpt-oss": (
        GPT_OSS,
        f"<|system|>{SYSTEM}<|end|>{TALK.replace('Ho.', 'final: Ho.')}<|agent|>final:",
        "<|system|>{lone}<|end|><|agent|>final:",
        f"<|system|>{SYSTEM}<|end|>{TALK.replace('Ho.', 'final: Ho.')}<|system|>{{late}}<|end|><|agent|>final:",
    ),
}


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_tokenizer(BUILTIN)


@pytest.fixture
def tokenizer(loaded: Any) -> Iterator[Any]:
    """The shipped one, whose template a test may replace."""
    yield loaded
    loaded.chat_template = SHIPPED


def save(template: str, folder: Path) -> Path:
    """A tokenizer's folder with another template."""
    made = AutoTokenizer.from_pretrained(BUILTIN)
    made.chat_template = template
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_gets_every_text_where_it_shows_it(family: str, tokenizer: Any) -> None:
    tokenizer.chat_template, whole, lone, late = FAMILIES[family]
    assert render(tokenizer, SHORT.messages("rpm", X)) == whole
    agreement = SHORT.agreement_messages("mood: sad", "Yes.")
    assert render(tokenizer, agreement) == lone.replace("{lone}", agreement[0]["content"])
    reasoned = SHORT.messages("scorer", X, reasoning="mood: sad")
    assert render(tokenizer, reasoned) == late.replace("{late}", reasoned[-1]["content"])
    probe(tokenizer, SHORT, tuple(ROLES))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_taught_where_the_template_writes_it(family: str, tokenizer: Any) -> None:
    tokenizer.chat_template = FAMILIES[family][0]
    # a prompt of one message of the user's: no template needs it in another form
    asked = [{"role": "user", "content": "Hi."}]
    prompt, response = encode_pair(tokenizer, render(tokenizer, asked), "Yes.")
    answered = [*asked, {"role": "assistant", "content": "Yes."}]
    whole = tokenizer.apply_chat_template(answered, tokenize=False, enable_thinking=False)
    if family == "llama-3.2":
        whole = re.sub(r"Today: .*", "Today: 26 Jul 2024", whole)
    # what R1 writes after a thought is nowhere in its history, which leaves the thoughts away
    thought = CLOSED if family == "deepseek-r1" else ""
    together = tokenizer.decode(prompt + response).replace(thought, "", 1)
    # a space before the answer belongs to its first token
    assert re.sub(r"(?<=[:>]) ", "", together) == re.sub(r"(?<=[:>]) ", "", whole).rstrip("\n")


REFUSED = {
    "drops the answers": (PLAIN.replace(_TURN, "{% if message.role != 'assistant' %}" + _TURN + "{% endif %}"), "drops"),
    "keeps two messages": (PLAIN.replace("in messages", "in messages[-2:]"), "drops the"),
    "keeps ten messages": (PLAIN.replace("in messages", "in messages[-10:]"), "drops the system message"),
    "drops all but the last message": (PLAIN.replace("in messages", "in messages[-1:]"), "drops the"),
    "cuts at 100 characters": (PLAIN.replace("message.content", "message.content[:100]"), "changes or cuts the text"),
    "cuts the beginning": (PLAIN.replace("message.content", "message.content[-900:]"), "changes or cuts the text"),
    "lower case": (PLAIN.replace("message.content", "message.content | lower"), "changes or cuts the text"),
    "escapes": (PLAIN.replace("message.content", "message.content | e"), "changes or cuts the text"),
    "one line": (PLAIN.replace("message.content", "message.content.split() | join(' ')"), "changes or cuts the text"),
    "as JSON": (PLAIN.replace("message.content", "message.content | tojson"), "changes or cuts the text"),
    "backwards": (PLAIN.replace("in messages", "in messages | reverse"), "in another order"),
    "without roles": (_EACH + "{{ message.content + '\n' }}{% endfor %}", "does not tell the user's messages from"),
    "random": (PLAIN + "{{ ['a', 'b'] | random }}", "draws random numbers"),
    "random by another name": (PLAIN + "{{ [['a', 'b']] | map('random') | first }}", "draws random numbers"),
    "lorem ipsum": (PLAIN + "{{ lipsum(1, false, 3, 4) }}", "draws random numbers"),
    "an address": (PLAIN + "{{ raise_exception }}", "memory address"),
    "a prompt of its own": (PLAIN.replace("'<|agent|>' }}{% endif", "'<|agent|>Sure, ' }}{% endif"), "asks for an answer"),
    "another text for the last message": (PLAIN + "{% if messages[-1].role == 'user' %} Be brief.{% endif %}", "asks for"),
    "raises": ("{{ raise_exception('never') }}", r"refuses messages of system, user.*\(TemplateError: never\)"),
    "a program's fault": (PLAIN.replace("message.content", "message.content + 1"), "TypeError"),
    "parts instead of texts": (PLAIN.replace("message.content", "message.content[0].text"), "UndefinedError"),
    "drops all": ("<|user|><|agent|>", "drops the"),
    "each text twice": (PLAIN.replace("message.content", "message.content + message.content"), "writes a text twice"),
    "an answer after a quotation": (
        PLAIN.replace(
            "message.content", "(messages[0].content[:30] if message.role == 'assistant' else '') + message.content"
        ),
        "depends on the answer or on other messages",
    ),
    "an answer after its length": (
        PLAIN.replace(
            "message.content", "(message.content | length if message.role == 'assistant' else '') ~ message.content"
        ),
        "depends on the answer",
    ),
}


@pytest.mark.parametrize("habit", REFUSED)
def test_what_cannot_be_shown_is_refused_with_role_habit_and_remedy(habit: str, tokenizer: Any) -> None:
    tokenizer.chat_template, said = REFUSED[habit]
    with pytest.raises(ConfigError, match=f"(?s)role rpm: .*chat template.*{said}.*Use a base"):
        probe(tokenizer, SHORT)


def test_the_role_is_the_one_that_cannot_be_shown(tokenizer: Any) -> None:
    # a model that judges and rewrites alone is not asked for what it never reads
    tokenizer.chat_template = REFUSED["keeps two messages"][0]
    probe(tokenizer, SHORT, ["rewriter"])
    with pytest.raises(ConfigError, match="role judge: .*drops the user message, number 1 of user, assistant, user"):
        probe(tokenizer, SHORT, ["judge"])
    tokenizer.chat_template = PLAIN
    assert set(RUN_ROLES) < set(ROLES)
    probe(tokenizer, SHORT, tuple(ROLES))


def test_a_text_that_gets_lost_stops_the_run(tokenizer: Any) -> None:
    # what the trial's texts cannot know: this template cuts at a mark that stands in a character's own words
    tokenizer.chat_template = QWEN3
    said = [
        *SHORT.messages("rpm", X)[:2],
        {"role": "assistant", "content": "Ha. </think> Ho."},
        {"role": "user", "content": "So?"},
    ]
    with pytest.raises(ConfigError, match="(?s)drops or changes the text of a assistant message, 'Ha. </think> Ho.'"):
        render(tokenizer, said)
    tokenizer.chat_template = PLAIN.replace("message.content", "message.content[:4000]")
    with pytest.raises(ConfigError, match="the text of a user message, 'longlong"):
        render(tokenizer, [{"role": "user", "content": "long" * 1001}])
    # and one that leaves away what has been said before: the first "Yes." is not the second
    once = "{% set ns = namespace(said=[]) %}" + PLAIN.replace(
        _TURN,
        "{% if message.content not in ns.said %}{% set ns.said = ns.said + [message.content] %}" + _TURN + "{% endif %}",
    )
    tokenizer.chat_template = once
    twice = [{"role": role, "content": text} for role, text in (("user", "Yes."), ("assistant", "No."), ("user", "Yes."))]
    with pytest.raises(ConfigError, match=r"the text of a user message, 'Yes\.'"):
        render(tokenizer, twice)


def test_the_date_is_pinned_and_stamped(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer.chat_template = LLAMA32
    seen = []
    for day in (datetime(2025, 1, 1), datetime(2031, 12, 31)):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None, day: datetime = day) -> datetime:  # type: ignore[override]
                return day

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        seen.append([render(tokenizer, SHORT.messages(role, X)) for role in ("rpm", "scorer", "simulator", "reasoner")])  # type: ignore[arg-type]
    assert seen[0] == seen[1] and all("26 Jul 2024" in prompt for prompt in seen[0])
    assert date_stamp(tokenizer) == {"template_date": "2024-07-26"}
    tokenizer.chat_template = PLAIN
    assert date_stamp(tokenizer) == {}


def test_one_that_thinks_opens_its_own_thought(tokenizer: Any) -> None:
    asked = SHORT.messages("thinker", X)
    for template, end in ((QWEN3, "<|agent|>"), (R1, "<|agent|><think>\n"), (NO_MARK, "<|agent|>"), (SHIPPED, "<|agent|>")):
        tokenizer.chat_template = template
        assert render(tokenizer, asked, thinks=True).endswith("<|end|>" + end)
    tokenizer.chat_template = R1
    probe(tokenizer, SHORT, marks=("", "</think>"))
    with pytest.raises(ConfigError, match=r"role thinker: .*opens the thought itself, by '<think>'.*\['', '</think>'\]"):
        probe(tokenizer, SHORT, marks=("<think>", "</think>"))


def test_the_end_of_turn_is_what_the_template_writes(tmp_path: Path) -> None:
    # Gemma's way: eos_token ends a text, another token a turn. Here <|system|> stands for that other token
    loaded = load_tokenizer(save(PLAIN.replace("'<|end|>'", "'<|system|>\n'"), tmp_path / "other"))
    assert loaded.eos_token == "<|system|>"
    assert encode_pair(loaded, "<|user|>", "Yes.")[1][-1] == loaded.convert_tokens_to_ids("<|system|>")
    # none written: the tokenizer's own
    assert load_tokenizer(save(PLAIN.replace(" + '<|end|>'", " + '\n'"), tmp_path / "none")).eos_token == "<|end|>"


@pytest.mark.parametrize("command", ["train", "audit"])
def test_dry_run_and_run_refuse_before_anything_is_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_base("llama", tmp_path / "base", REFUSED["keeps two messages"][0])
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: r\nseed: 0\nbase: {{kind: hub, path: {base}}}\nlora: {{r: 4}}\ndata: {{kind: world, train: 64, dev: 8}}\n"
    )
    for options in (["--dry-run"], ["--out", "run"]):
        assert cli.main([command, str(recipe), *options]) == 2
        said = capsys.readouterr().err
        assert "role rpm: " in said and "drops the system message, number 1 of system, user, assistant, user" in said
    assert not (tmp_path / "run").exists()
