"""The small base: a lossless deterministic tokenizer, a terse chat template, a model that is a function of its seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo.errors import ConfigError
from coevo.lm.lineage import tensors_hash
from coevo.lm.loading import load_base, load_tokenizer
from coevo.lm.small import SPECIAL_TOKENS, Shape, build_base, save_base, train_tokenizer

TEXTS = ["Good evening, I am Ada Lovelace.", "Guten Abend, ich heiße Ada. 1815", "こんばんは。안녕하세요 晚上好"] * 20
TINY = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_position": 128}
TOKENIZER = train_tokenizer(TEXTS, 320)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_survives_encode_and_decode(text):
    for split in (True, False):
        ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
        assert TOKENIZER.decode(ids) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "ß", "\n", "<|"]), max_size=8).map("".join))
def test_control_token_look_alikes_survive_as_text(text):
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert min(ids, default=99) >= len(SPECIAL_TOKENS)  # ids 0 to 4 are the special tokens


def test_same_texts_give_the_same_tokenizer():
    again = train_tokenizer(iter(TEXTS), 320)
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_digits_are_tokens_of_their_own():
    assert TOKENIZER.tokenize("1815") == ["1", "8", "1", "5"]


def test_special_tokens_and_padding():
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token, TOKENIZER.padding_side) == ("<|pad|>", "<|end|>", "left")


def test_chat_template_costs_two_tokens_a_message():
    messages = [
        {"role": "system", "content": "Ada"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
    ]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>Ada<|end|><|user|>Hi<|end|><|agent|>Yes<|end|><|agent|>"
    body = sum(len(TOKENIZER(m["content"], add_special_tokens=False)["input_ids"]) for m in messages)
    # 3 messages x (marker + end) + the generation prompt's marker
    assert len(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == body + 3 * 2 + 1


def test_chat_template_marks_the_agents_tokens():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    out = TOKENIZER.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    agent = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert TOKENIZER.decode(agent) == "Yes<|end|>"


def test_unknown_role_is_refused():
    with pytest.raises(Exception, match="role must be system, user or assistant, not narrator"):
        TOKENIZER.apply_chat_template([{"role": "narrator", "content": "x"}], tokenize=False)


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="vocab_size is 200, expected at least 261"):  # 256 bytes + 5 special tokens
        train_tokenizer(TEXTS, 200)


def test_base_is_a_function_of_shape_and_seed_and_leaves_the_rng_alone():
    before = torch.random.get_rng_state()
    first, second, other = (tensors_hash(build_base(TOKENIZER, TINY, seed=seed)) for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_default_shape_has_about_a_million_parameters():
    # Per layer with h=128, 4 heads and 2 kv heads of 32: q and o 2*128*128, k and v 2*128*64, mlp 3*128*384,
    # two norms of 128, q and k norms of 32. Embeddings (tied) 320*128, last norm 128.
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384 + 2 * 128 + 2 * 32
    model = build_base(TOKENIZER, Shape())
    assert sum(p.numel() for p in model.parameters()) == 4 * layer + len(TOKENIZER) * 128 + 128
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_misfitting_shapes_are_refused():
    with pytest.raises(ConfigError, match="hidden 32, heads 5"):
        build_base(TOKENIZER, TINY | {"heads": 5})
    with pytest.raises(ConfigError, match="unknown fields"):
        build_base(TOKENIZER, TINY | {"depth": 5})


def test_base_survives_saving(tmp_path):
    model = build_base(TOKENIZER, TINY)
    save_base(tmp_path / "base", model, TOKENIZER)
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
    assert not [p for p in (tmp_path / "base").iterdir() if p.suffix in {".bin", ".pt", ".pkl"}]
    assert tensors_hash(load_base(tmp_path / "base")) == tensors_hash(model)
    loaded = load_tokenizer(tmp_path / "base")
    text = "Ada 12 <|end|> ﬁ Å  x\r\n 日本"  # a tokenizer rebuilt from its class would normalise the ligature away
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.padding_side == "left"
