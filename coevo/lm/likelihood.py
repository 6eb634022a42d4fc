"""Log-likelihoods of responses in their contexts: text -> token ids -> nats (L[i, j] of the method, section 2).

Two borders live here and nowhere else: between prompt and response (`encode_pair`) and between data and control
tokens (`sanitize`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import jinja2
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coevo.errors import ConfigError, ScoreError
from coevo.lm.contexts import evaluating, most_over_ranks
from coevo.types import Score

Pair = tuple[Sequence[int], Sequence[int]]
_SOFTMAX_ELEMENTS = 1 << 26
"""Float32 logits held at once in the softmax: 256 MB."""


def sanitize(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Break what looks like a control token in text that comes from data or from a model.

    One space goes in after the first character: `<|end|>` becomes `< |end|>`, which reads the same and can no longer
    end a turn. It works for any tokenizer, by its own list of special tokens; a special token of a single character
    becomes a space. Text without look-alikes comes back as it is, and doing it twice changes nothing more.
    """
    tokens = _control_tokens(tokenizer)
    found = True
    while found:  # Until none is left: breaking one may, in an odd vocabulary, complete another.
        found = False
        for token in tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}" if len(token) > 1 else " ")
                found = True
    return text


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens of a tokenizer, longest first; a tokenizer is asked once, as this is slow."""
    tokens = {*tokenizer.all_special_tokens}
    tokens |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted((token for token in tokens if token.strip()), key=len, reverse=True))


def sanitize_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Messages with `sanitize` applied to each content; for callers that render the chat template themselves."""
    return [{"role": m["role"], "content": sanitize(tokenizer, m["content"])} for m in messages]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """Chat messages -> prompt text with the generation prompt at its end; contents are sanitised first.

    The only control tokens in the result are those that the chat template itself puts there.

    Raises:
        ConfigError: the template refuses these messages; some know no system message, or none after the first.
    """
    safe = sanitize_messages(tokenizer, messages)
    try:
        return str(tokenizer.apply_chat_template(safe, tokenize=False, add_generation_prompt=True))
    except jinja2.TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ConfigError(
            f"The base's chat template refuses messages of {roles}: {error}. Use a base whose template takes a system "
            "message in every place, or set such a template in the base's files."
        ) from error


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt_text: str) -> list[int]:
    """Rendered prompt -> token ids; control tokens in it are parsed and none are added."""
    return list(tokenizer(prompt_text, add_special_tokens=False, split_special_tokens=False)["input_ids"])


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt_text: str, response_text: str) -> tuple[list[int], list[int]]:
    """The boundary between context and continuation: (prompt ids, response ids).

    The response is tokenised on its own and ends with the end-of-turn token, never cut out of a joint tokenisation, so
    the same response has the same ids, and the same n_j, in every context. Control tokens are parsed in the prompt,
    which `render` has made safe, and never in the response, where they are ordinary text. An empty response gives no
    ids at all: `score_pairs` reports it as `empty`.
    """
    return encode_prompt(tokenizer, prompt_text), encode_response(tokenizer, response_text)


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Response -> token ids with the end-of-turn token; nothing for an empty one."""
    if not text:
        return []
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    max_length: int,
    tokens_per_batch: int,
) -> list[Score]:
    """Sum of log q(response | prompt) over the response's tokens, in nats, for each pair in input order.

    Pairs are batched by length; each batch has at most `tokens_per_batch` tokens, padding included (a longer single
    pair goes alone). The result does not depend on the batching beyond float rounding. In a distributed run this is a
    collective call: every rank makes as many forward calls as the one with most batches.

    Args:
        model: any causal model of transformers, or one with adapters; its mode is restored afterwards.
        tokenizer: of the model's base; only its ids for padding and end are read.
        pairs: (prompt ids, response ids) as `encode_pair` makes them.
        max_length: longest prompt + response in tokens; a longer pair has status `too_long`.
        tokens_per_batch: budget of a forward call in tokens.

    Returns:
        One Score a pair; NaN with a status for those that are too long or empty.

    Raises:
        ScoreError: a prompt without tokens, or a log-probability that is not finite; names the pair's index.
    """
    scores: list[Score | None] = [_unscorable(index, pair, max_length) for index, pair in enumerate(pairs)]
    todo = [index for index, score in enumerate(scores) if score is None]
    todo.sort(key=lambda index: (len(pairs[index][0]) + len(pairs[index][1]), index), reverse=True)
    batches = list(_batches(todo, pairs, tokens_per_batch))
    # Agreed on before the first forward call: later, this reduction would meet another rank's gathering of weights.
    idle_calls = most_over_ranks(len(batches), _device(model)) - len(batches)
    with evaluating(model):
        for batch in batches:
            sums = _score_batch(model, tokenizer, [pairs[index] for index in batch])
            for index, total in zip(batch, sums, strict=True):
                scores[index] = Score(total, len(pairs[index][1]))
        idle = [pairs[index] for index in batches[-1]] if batches else [([tokenizer.eos_token_id],) * 2]
        for _ in range(idle_calls):
            _score_batch(model, tokenizer, idle)
    bad = [index for index in todo if not math.isfinite(_known(scores[index]).logprob_nats)]
    if bad:
        raise ScoreError(
            f"pair {min(bad)} ({len(bad)} of {len(pairs)} pairs): log-probability is "
            f"{_known(scores[min(bad)]).logprob_nats}, expected a finite number. The weights or the dtype overflow: "
            "check the checkpoint that was loaded, or score in float32."
        )
    return [_known(score) for score in scores]


def _known(score: Score | None) -> Score:
    assert score is not None
    return score


def _unscorable(index: int, pair: Pair, max_length: int) -> Score | None:
    prompt, response = pair
    if not response:
        return Score(math.nan, 0, "empty")
    if not prompt:
        raise ScoreError(
            f"pair {index}: the prompt has no tokens, so its response's first token has no probability. "
            "Render the prompt with the chat template."
        )
    if len(prompt) + len(response) > max_length:
        return Score(math.nan, len(response), "too_long")
    return None


def _batches(todo: Sequence[int], pairs: Sequence[Pair], budget: int) -> Iterator[list[int]]:
    """Cut `todo`, sorted from long to short, so that rows x longest <= budget."""
    batch: list[int] = []
    width = 0
    for index in todo:
        if batch and (len(batch) + 1) * width > budget:
            yield batch
            batch = []
        if not batch:
            width = len(pairs[index][0]) + len(pairs[index][1])
        batch.append(index)
    if batch:
        yield batch


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _score_batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[float]:
    """One forward call. Shapes: B rows, T longest pair, P positions whose logits are needed, R response tokens in all.

    Rows are padded on the right, whatever the tokenizer's side, so that positions count from 0 in every row; logits
    are asked for at the union of the positions that predict a response token, and no others.
    """
    device = _device(model)
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids_BT = torch.full((len(pairs), width), pad)
    mask_BT = torch.zeros((len(pairs), width), dtype=torch.long)
    rows: list[int] = []
    positions: list[int] = []  # of the token before each response token: there its logits are
    for row, (prompt, response) in enumerate(pairs):
        length = len(prompt) + len(response)
        ids_BT[row, :length] = torch.tensor([*prompt, *response])
        mask_BT[row, :length] = 1
        rows += [row] * len(response)
        positions += range(len(prompt) - 1, length - 1)
    row_R, position_R = torch.tensor(rows), torch.tensor(positions)
    target_R = ids_BT[row_R, position_R + 1].to(device)
    keep_P, column_R = torch.unique(position_R, return_inverse=True)
    logits_BPV = model(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        position_ids=torch.arange(width, device=device).expand(len(pairs), width),
        logits_to_keep=keep_P.to(device),
        use_cache=False,
    ).logits
    row_R, column_R = row_R.to(device), column_R.to(device)
    step = max(1, _SOFTMAX_ELEMENTS // logits_BPV.shape[-1])
    parts = []
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        logits = logits_BPV[row_R[piece], column_R[piece]].float()
        chosen = logits.gather(-1, target_R[piece, None]).squeeze(-1)
        parts.append(chosen - logits.logsumexp(-1))
    logprob_R = torch.cat(parts).double()
    return torch.zeros(len(pairs), dtype=torch.float64, device=device).index_add_(0, row_R, logprob_R).tolist()
