"""One reading of texts wherever they come from, so that a model that says what the reference says is told that it does."""

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig

from coevo.data import read_rpgbench, world
from coevo.data.responses import read_answers
from coevo.lm import generation
from coevo.scoring.thinking import split
from coevo.text import ENDS, ZERO_WIDTH, blank, folded, normalised
from coevo.train.grpo import trl_reward

BUILTIN = Path(generation.__file__).parent / "builtin"
SAID = "Good evening.\nSit down, nurse."
EXPORTED = [
    SAID + "\n",
    SAID + " \r\n\r\n",
    "\ufeff" + SAID,
    SAID.replace("\n", "\r\n"),
    SAID.replace("\n", "\u2028") + "\u2029",
    SAID.replace("\n", "\x85"),
    "\u200e\u00a0" + SAID + "\u3000\u200b \u2060",
]


@pytest.mark.parametrize("text", EXPORTED)
def test_an_exported_text_is_the_text(text: str) -> None:
    assert normalised(text) == SAID


def test_the_ends_are_all_white_space_and_nothing_that_shows() -> None:
    assert set(ENDS) - set(ZERO_WIDTH) == {chr(n) for n in range(sys.maxunicode) if chr(n).isspace()}
    # the flag of Scotland ends in a mark without width that belongs to it; spaces within are the author's
    for text in ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️", "a  b\n\nc", "e\u0301"):
        assert normalised(text) == text and not blank(text)
    assert normalised(" \u200b\r\n") == "" and blank(" \u200b\r\n\x1b")


def test_folding_keeps_letters_and_digits_of_every_script() -> None:
    assert folded("ＡＢＣ １２, “Café”!") == folded("abc12 cafe\u0301") == "abc12café"
    assert folded("日本語。") == "日本語" and folded("…?!") != folded("!!")


@pytest.mark.parametrize("text", EXPORTED)
def test_a_reference_is_read_as_a_response_is_whoever_wrote_it(text: str, tmp_path: Path) -> None:
    turns = [{"user_query": text}, {"agent_response": text}, {"user_query": text}]
    sample = {"sample_ID": "a", "subset_tag": "IDTest", "user_persona": " Ann ", "agent_character": {"name": " Ada"}}
    sample |= {"dialogue_context": turns, "agent_golden_response": text, "SThought": f"mood: {text}"}
    (tmp_path / "d.json").write_text(json.dumps({"IDTest": [sample]}))
    (x,) = read_rpgbench(tmp_path / "d.json")
    assert (x.reference, x.thought) == (SAID, normalised(f"mood: {text}")) and {turn.text for turn in x.dialogue} == {SAID}
    assert (x.persona, x.character) == (" Ann ", {"name": " Ada"}), "no model writes them: kept as the file has them"
    # a file of responses
    (tmp_path / "r.jsonl").write_text(json.dumps({"sample_ID": "a", "response": text, "model": "m"}))
    assert read_answers(tmp_path / "d.json", [tmp_path / "r.jsonl"]).by_model["m"][0].text == SAID
    # a policy that is evaluated, one that is sampled in training, one that thinks first
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN)
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    written = generation._finish(tokenizer, GenerationConfig(eos_token_id=[tokenizer.eos_token_id]), ids)
    assert (written.text, written.status) == (SAID, "ok")
    met = []
    reward = trl_reward(lambda batch, step: met.extend(batch) or [0.0], frozenset(ids[-1:]))
    reward(completions=[text], completion_ids=[ids], key=["k"], trainer_state=type("State", (), {"global_step": 0}))
    assert [(c.text, c.status) for c in met] == [(SAID, "ok")]
    assert split(f"<think>mood: sad</think>{text}", ["mood"]).response == SAID


def test_the_world_is_not_touched() -> None:
    for name in world.SPLITS:
        for x in world.generate(name, 24, seed=2):
            texts = [x.reference, *(turn.text for turn in x.dialogue)]
            assert texts == [normalised(text) for text in texts]
