"""Each prompt's tokens computed once: which pairs share forward calls, and the cache that their responses read.

A prompt with several responses is forwarded once, all but its last token, and its keys and values are cached. Each
response is then forwarded after a copy of that cache, as prompt's last token + response, so that all its logits come
from one call. A prompt with one response is forwarded whole with it. Both are a `Row`; the prefix of the latter is empty.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

T = TypeVar("T")
Pair = tuple[Sequence[int], Sequence[int]]
"""(prompt ids, response ids)"""
CALL_TOKENS = 256
"""What a forward call costs beside its tokens, in tokens: a call must spare as many, or it is not made."""
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
"""Rotary embeddings whose frequencies depend on the longest sequence of the call: a prefix alone would get others."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair in a forward call: what is fed after the cached tokens, and what it predicts."""

    pair: int
    """Its index among the pairs."""
    prefix: int
    """Place of its prefix in the block."""
    fed: Sequence[int]
    """The prompt's tokens that are not cached, and the response's but the last, which predicts nothing that is asked."""
    response: Sequence[int]
    """Predicted by the last tokens of `fed`."""


@dataclass(frozen=True, slots=True)
class Block:
    """Forward calls that belong together: one that caches the prefixes, if there are any, and those that read them."""

    prefixes: list[Sequence[int]]
    calls: list[list[Row]]

    @property
    def forward_calls(self) -> int:
        """How many times the model is called."""
        return len(self.calls) + bool(self.prefixes)


def plan_blocks(pairs: Sequence[Pair], wanted: Sequence[int], budget: int, *, share: bool) -> list[Block]:
    """Lay pairs out in forward calls of at most `budget` tokens, those that are padding or read from a cache included.

    Prompts of similar length are cached together and rows of similar length fed together. A prompt or a row that alone
    is over the budget has a call of its own.

    Args:
        pairs: (prompt ids, response ids), neither empty.
        wanted: indices of the pairs to lay out.
        budget: tokens of a forward call.
        share: whether prompts may be cached, see `can_share`; without, every row is fed whole.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in wanted:
        groups.setdefault(tuple(pairs[index][0]), []).append(index)
    repeated = [prompt for prompt, members in groups.items() if share and len(members) > 1 and len(prompt) > 1]
    blocks = []
    for prompts in _cut(repeated, len, 0, budget):
        if sum((len(prompt) - 1) * (len(groups[prompt]) - 1) for prompt in prompts) >= CALL_TOKENS:
            blocks.append(_cached(pairs, prompts, [groups.pop(prompt) for prompt in prompts], budget))
    whole = [index for members in groups.values() for index in members]
    rows = [Row(index, 0, [*pairs[index][0], *pairs[index][1][:-1]], pairs[index][1]) for index in whole]
    return [*blocks, Block([], _calls(rows, 0, budget))] if rows else blocks


def _cached(
    pairs: Sequence[Pair], prompts: Sequence[tuple[int, ...]], groups: Sequence[Sequence[int]], budget: int
) -> Block:
    """One block of these prompts, all but their last tokens cached, and of their groups of pairs."""
    rows = [
        Row(index, place, [prompt[-1], *pairs[index][1][:-1]], pairs[index][1])
        for place, (prompt, members) in enumerate(zip(prompts, groups, strict=True))
        for index in members
    ]
    return Block([prompt[:-1] for prompt in prompts], _calls(rows, len(prompts[0]) - 1, budget))


def _calls(rows: Sequence[Row], cached: int, budget: int) -> list[list[Row]]:
    return list(_cut(rows, lambda row: len(row.fed), cached, budget))


def _cut(items: Sequence[T], length: Callable[[T], int], cached: int, budget: int) -> Iterator[list[T]]:
    """Cut items, from long to short, so that count × (cached + longest) <= budget and padding is under a call's cost."""
    batch: list[T] = []
    padding = 0
    for item in sorted(items, key=length, reverse=True):
        shorter = length(batch[0]) - length(item) if batch else 0
        if batch and ((len(batch) + 1) * (cached + length(batch[0])) > budget or padding + shorter > CALL_TOKENS):
            yield batch
            batch, padding, shorter = [], 0, 0
        batch.append(item)
        padding += shorter
    if batch:
        yield batch


def can_share(model: PreTrainedModel) -> bool:
    """Whether a cached prefix gives this model the numbers that a whole pass gives.

    It does if every layer caches the keys and values of its tokens, all of them or those of a sliding window, and a
    token's position means the same in a prefix as in the whole. Recurrent and compressing layers and `dynamic` and
    `longrope` rotary embeddings are outside this rule; such models are fed every pair whole.
    """
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    layers = {type(layer) for layer in DynamicCache(config=config).layers}
    plain = bool(layers) and layers <= {DynamicLayer, DynamicSlidingWindowLayer}
    return plain and not model._is_stateful and not kinds & _LENGTH_DEPENDENT_ROPE


@dataclass(frozen=True)
class Prefixes:
    """Cached prefixes of a block, of B rows and P positions. They are padded on the left.

    So each response follows its prompt without a gap, and what counts tokens back from a query (a sliding window) counts
    right.
    """

    mask_BP: torch.Tensor
    cache: DynamicCache | None

    @classmethod
    def compute(cls, model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad: int, device: torch.device) -> Prefixes:
        """One forward call if there are prefixes, none if there are not: then each row has an empty one."""
        if not prefixes:
            return cls(torch.zeros((1, 0), dtype=torch.long, device=device), None)
        width = max(map(len, prefixes))
        ids_BP = torch.full((len(prefixes), width), pad)
        mask_BP = torch.zeros((len(prefixes), width), dtype=torch.long)
        for row, prefix in enumerate(prefixes):
            ids_BP[row, width - len(prefix) :] = torch.tensor(prefix)
            mask_BP[row, width - len(prefix) :] = 1
        cache = DynamicCache(config=model.config)
        # The whole model, although its logits are not wanted: under ZeRO-3 another rank may be in a call that reads
        # them, and all ranks must gather the same weights. One position's are the least that can be asked for.
        model(
            input_ids=ids_BP.to(device),
            attention_mask=mask_BP.to(device),
            position_ids=(mask_BP.cumsum(1) - 1).clamp(min=0).to(device),
            logits_to_keep=1,
            past_key_values=cache,
            use_cache=True,
        )
        return cls(mask_BP.to(device), cache)

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, DynamicCache | None]:
        """Mask and cache of these rows' prefixes, any number of times each; the model may add to the copy."""
        if self.cache is None:
            return self.mask_BP[rows], None
        chosen = copy.copy(self.cache)
        chosen.layers = [copy.copy(layer) for layer in self.cache.layers]
        if len(self.mask_BP) > 1:
            chosen.batch_select_indices(rows)
        else:  # one prefix for all rows: views of it, which the model's first addition copies anyway
            layer: Any
            for layer in chosen.layers:
                if layer.get_seq_length() > 0:
                    layer.keys, layer.values = (kept.expand(len(rows), -1, -1, -1) for kept in (layer.keys, layer.values))
        return self.mask_BP[rows], chosen
