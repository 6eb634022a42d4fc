"""Texts as vectors: mean-pooled last hidden states of a model, for the representation JSD (method, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coevo.errors import ScoreError
from coevo.lm.contexts import evaluating

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embedder:
    """A base without adapters that makes vectors of texts; it is loaded for each call and dropped after it."""

    load: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    window: int
    tokens_per_batch: int

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text; see `embed`."""
        model = self.load()
        return embed(model, self.tokenizer, texts, window=self.window, tokens_per_batch=self.tokens_per_batch)


def embed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    window: int,
    tokens_per_batch: int,
) -> Floats:
    """One vector a text: the mean over its tokens of the last layer's hidden states, after the final norm.

    Texts are tokenised as plain text, without a template or control tokens. One of more than `window` tokens is read in
    pieces of nearly equal length, none of which sees the others; its mean is over the tokens of all, so nothing is cut
    off. Pieces are batched by length, each batch of at most `tokens_per_batch` tokens with padding (a longer single piece
    goes alone). The result does not depend on the batching beyond float rounding.

    Args:
        model: a frozen causal model on one device, without adapters.
        tokenizer: its own.
        texts: N of them.
        window: the longest piece that the model reads at once, in tokens.
        tokens_per_batch: budget of a forward call, in tokens.

    Returns:
        (N, D), D the model's hidden size.

    Raises:
        ScoreError: a text without tokens, or a vector that is not finite; names the text.
    """
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in _pieces(tokenizer, text, window)]
    pieces.sort(key=lambda item: len(item[1]), reverse=True)
    sums = np.zeros((len(texts), model.config.get_text_config().hidden_size), dtype=np.float64)
    counts = np.zeros(len(texts))
    with evaluating(model):
        for batch in _batches(pieces, tokens_per_batch):
            for (place, piece), total in zip(batch, _summed(model, tokenizer, [ids for _, ids in batch]), strict=True):
                sums[place] += total
                counts[place] += len(piece)
    vectors = (sums / counts[:, None]).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ScoreError(
            f"embedding of {texts[bad[0]][:60]!r} ({len(bad)} of {len(texts)} texts) is not finite. The weights or the "
            "dtype overflow: check the base model, or load it in float32."
        )
    return vectors


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str, window: int) -> list[list[int]]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if not ids:
        raise ScoreError(f"a text of {len(text)} characters ({text[:60]!r}) has no tokens; leave out what is blank.")
    return [part.tolist() for part in np.array_split(ids, -(-len(ids) // window))]


def _batches(pieces: Sequence[tuple[int, list[int]]], budget: int) -> Iterator[Sequence[tuple[int, list[int]]]]:
    """Cuts pieces, sorted from long to short, so that rows x longest <= budget."""
    start = 0
    while start < len(pieces):
        end = start + max(1, budget // len(pieces[start][1]))
        yield pieces[start:end]
        start = end


def _summed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[int]]) -> NDArray[np.float64]:
    """Hidden states summed over each row's tokens: (B, D). Rows are padded on the right."""
    device = next(model.parameters()).device
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids_BT = torch.full((len(rows), width), pad)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids_BT[place, : len(row)] = torch.tensor(row)
        mask_BT[place, : len(row)] = 1
    mask_BT = mask_BT.to(device)
    # the backbone alone: the head's logits over the vocabulary are not needed
    hidden_BTD = model.base_model(input_ids=ids_BT.to(device), attention_mask=mask_BT, use_cache=False).last_hidden_state
    return torch.where(mask_BT[..., None] > 0, hidden_BTD.float(), 0.0).sum(dim=1).double().cpu().numpy()
