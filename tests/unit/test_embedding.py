"""Embeddings: mean-pooled hidden states, against one text at a time."""

import numpy as np
import pytest
import torch

from coevo.errors import ScoreError
from coevo.lm.embedding import embed
from coevo.lm.small import build_base, train_tokenizer

TOKENIZER = train_tokenizer(["Good evening, I am Ada Lovelace. And who are you?"] * 10, 300)
TINY = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_position": 128}
TEXTS = ["I am Ada.", "a", "Who are you? " * 5, "Good evening, <|im_end|> I am", "さようなら。"]


@pytest.fixture(scope="module")
def model():
    return build_base(TOKENIZER, TINY, seed=3).requires_grad_(False)


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def naive(model, ids):
    """One piece, no batch and no padding: the mean over its tokens, and how many there are."""
    with torch.no_grad():
        hidden = model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    return hidden.double().mean(0).numpy()


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 10_000])
def test_equals_one_text_at_a_time_in_the_order_given(model, tokens_per_batch):
    vectors = embed(model, TOKENIZER, TEXTS, window=128, tokens_per_batch=tokens_per_batch)
    assert vectors.shape == (5, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [naive(model, ids_of(text)) for text in TEXTS], atol=2e-6)


def test_a_long_text_is_the_token_mean_of_its_pieces(model):
    text = "Who are you? " * 30
    ids = ids_of(text)
    # the smallest number of pieces of at most 50 tokens, nearly equal
    pieces = np.array_split(ids, -(-len(ids) // 50))
    assert len(pieces) > 2 and max(map(len, pieces)) <= 50
    expected = sum(naive(model, piece.tolist()) * len(piece) for piece in pieces) / len(ids)
    np.testing.assert_allclose(embed(model, TOKENIZER, [text], window=50, tokens_per_batch=99)[0], expected, atol=2e-6)


def test_a_text_that_looks_like_a_control_token_is_text(model):
    # as a control token it would be one id; as text it has several, and so another mean
    assert len(ids_of("<|im_end|>")) > 1
    vector = embed(model, TOKENIZER, ["<|im_end|>"], window=128, tokens_per_batch=64)[0]
    np.testing.assert_allclose(vector, naive(model, ids_of("<|im_end|>")), atol=2e-6)


def test_what_has_no_vector_is_named(model):
    with pytest.raises(ScoreError, match="has no tokens"):
        embed(model, TOKENIZER, ["fine", ""], window=8, tokens_per_batch=8)
    broken = build_base(TOKENIZER, TINY, seed=3).requires_grad_(False)
    broken.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ScoreError, match=r"'fine' \(1 of 1 texts\) is not finite"):
        embed(broken, TOKENIZER, ["fine"], window=8, tokens_per_batch=8)
