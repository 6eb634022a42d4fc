"""Log-likelihoods of responses in their contexts: text -> token ids -> nats (L[i, j] of the method, section 2).

Two borders live here and nowhere else: between prompt and response (`encode_pair`) and between data and control
tokens (`sanitize`).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coevo.errors import ScoreError
from coevo.lm.contexts import evaluating, most_over_ranks
from coevo.lm.prefix import Block, Pair, Prefixes, Row, can_share, plan_blocks
from coevo.lm.template import fill
from coevo.types import Score

_SOFTMAX_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Float32 logits held at once in the softmax: 4 MB, which stay in a CPU's cache, or 256 MB."""


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


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], *, thinks: bool = False) -> str:
    """Chat messages -> prompt text up to where the answer begins; contents are sanitised first.

    The only control tokens in the result are those that the chat template itself puts there. See `coevo.lm.template` for
    what is done where a template does not take messages as they are; `thinks`: the answer begins with a thought.

    Raises:
        ConfigError: the template cannot show these messages, whole and in their order.
    """
    return fill(tokenizer, sanitize_messages(tokenizer, messages), thinks=thinks)


def loses_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str:
    """A sentence on texts that the tokenizer does not give back as they are; empty where it gives back all.

    What it folds, drops or has no token for, no model learns and no scorer reads. White space and Unicode's equal forms
    (NFKC) are not compared.
    """
    asked = list(dict.fromkeys(sanitize(tokenizer, text) for text in texts if text))
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked]
    given = [str(tokenizer.decode(one, clean_up_tokenization_spaces=False)) for one in ids]
    lost = [(text, back) for text, back in zip(asked, given, strict=True) if _letters(text) != _letters(back)]
    if not lost:
        return ""
    text, back = (one if len(one) <= 60 else f"{one[:60]}…" for one in lost[0])
    return (
        f"the base's tokenizer loses part of {len(lost)} of {len(asked)} texts that were looked at; {text!r} comes back as "
        f"{back!r}. What it loses is neither learnt nor scored: take a base whose tokenizer knows the languages of the data."
    )


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


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

    A prompt that several pairs share is computed once (see `coevo.lm.prefix`), so pairs that share one belong in one
    call. Pairs of similar length are batched; each forward call has at most `tokens_per_batch` tokens, padding and cached
    ones included (a longer single pair goes alone). The result does not depend on the batching beyond float rounding. In
    a distributed run this is a collective call: every rank makes as many forward calls as the one that needs most.

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
    blocks = plan_blocks(pairs, todo, tokens_per_batch, share=can_share(model))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    calls = sum(block.forward_calls for block in blocks)
    # Agreed on before the first forward call: later, this reduction would meet another rank's gathering of weights.
    idle_calls = most_over_ranks(calls, _device(model)) - calls
    with evaluating(model):
        for block in blocks:
            for row, total in _score_block(model, block, pad):
                scores[row.pair] = Score(total, len(row.response))
        end = [tokenizer.eos_token_id]
        for _ in range(idle_calls):
            _score_block(model, Block([], [[Row(0, 0, end, end)]]), pad)
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


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _score_block(model: PreTrainedModel, block: Block, pad: int) -> list[tuple[Row, float]]:
    prefixes = Prefixes.compute(model, block.prefixes, pad, _device(model))
    return [
        row_and_nats
        for rows in block.calls
        for row_and_nats in zip(rows, _score_rows(model, rows, prefixes, pad), strict=True)
    ]


def _score_rows(model: PreTrainedModel, rows: Sequence[Row], prefixes: Prefixes, pad: int) -> list[float]:
    """One forward call. Shapes: N rows, P cached positions, T longest fed, K positions with logits, R response tokens.

    What is fed is padded on the right, whatever the tokenizer's side, and a row's positions go on where its prefix ends;
    logits are asked for at the union of the positions that predict a response token, and no others.
    """
    device = prefixes.mask_BP.device
    width = max(len(row.fed) for row in rows)
    ids_NT = torch.full((len(rows), width), pad)
    mask_NT = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids_NT[place, : len(row.fed)] = torch.tensor(row.fed)
        mask_NT[place, : len(row.fed)] = 1
    row_R = torch.tensor([place for place, row in enumerate(rows) for _ in row.response], device=device)
    position_R = torch.tensor([at for row in rows for at in range(len(row.fed) - len(row.response), len(row.fed))])
    target_R = torch.tensor([token for row in rows for token in row.response], device=device)
    keep_K, column_R = torch.unique(position_R, return_inverse=True)
    mask_NP, cache = prefixes.of(torch.tensor([row.prefix for row in rows], device=device))
    logits_NKV = model(
        input_ids=ids_NT.to(device),
        attention_mask=torch.cat([mask_NP, mask_NT.to(device)], dim=1),
        position_ids=mask_NP.sum(1, keepdim=True) + torch.arange(width, device=device),
        logits_to_keep=keep_K.to(device),
        past_key_values=cache,
        use_cache=cache is not None,
    ).logits
    column_R = column_R.to(device)
    step = max(1, _SOFTMAX_ELEMENTS.get(device.type, _SOFTMAX_ELEMENTS["cuda"]) // logits_NKV.shape[-1])
    parts = []
    for start in range(0, len(row_R), step):
        piece = slice(start, start + step)
        logits = logits_NKV[row_R[piece], column_R[piece]].float()
        chosen = logits.gather(-1, target_R[piece, None]).squeeze(-1)
        parts.append(chosen - logits.logsumexp(-1))
    logprob_R = torch.cat(parts).double()
    return torch.zeros(len(rows), dtype=torch.float64, device=device).index_add_(0, row_R, logprob_R).tolist()
