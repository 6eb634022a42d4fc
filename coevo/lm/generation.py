"""Sample responses from a policy. The one place that knows which engine does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextStreamer,
)

from coevo.errors import ConfigError, DataError
from coevo.lm.contexts import evaluating, is_sharded, most_over_ranks
from coevo.lm.prefix import Prefixes, can_share
from coevo.text import blank, normalised

SPARED_FLOPS = 1e11
"""Least arithmetic that reading equal prompts once must spare, a second or so of a CPU core: it costs a further forward call
and a copy of the cache."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a policy wrote after one prompt."""

    text: str
    """Decoded without special tokens, and normalised as references are."""
    token_ids: tuple[int, ...]
    """As sampled, the end-of-turn token included if it came, padding excluded."""
    status: Literal["ok", "truncated", "empty"]
    """`truncated`: the token limit came before the end of turn. `empty`: nothing to be seen before it."""


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    on_text: Callable[[str], None] | None = None,
) -> list[Generated]:
    """Sample one response to each prompt, in input order.

    A pure function of weights, prompts, settings and each prompt's own seed: what a prompt gets does not depend on its
    neighbours in the batch or on how prompts are shared out over processes (beyond float rounding), and the process's
    random state is left as it was. Nothing is inherited from the hub model's sampling defaults except its end tokens.

    Args:
        model: a causal model, or one with adapters; its mode is restored afterwards.
        tokenizer: of the model's base.
        prompts: token ids, as `encode_prompt` makes them.
        max_new_tokens: limit in tokens, end of turn included.
        temperature: 0 is greedy.
        seed: of the whole call; prompt i then samples by (seed, i).
        seeds: one seed a prompt, instead of `seed`.
        batch_size: prompts in one call of the engine.
        top_p: nucleus; 1 is off.
        repetition_penalty: 1 is off.
        on_text: told the text as it comes, word by word; of a single prompt alone.

    Raises:
        ConfigError: a setting out of range.
        DataError: a prompt without tokens, or without room for `max_new_tokens`; names the prompt's index.
    """
    engine = cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)
    own = _own_seeds(seed, len(prompts)) if seeds is None else list(seeds)
    _check(engine, prompts, own, max_new_tokens, _Sampling(temperature, top_p))
    settings = _settings(engine, tokenizer, max_new_tokens, repetition_penalty)
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index), reverse=True)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    sharded = is_sharded(engine)
    # A sharded model's forward call gathers weights from all ranks, so each makes as many as the busiest. Agreed on
    # before the first call: later, this reduction would meet another rank's gathering, and both would hang.
    idle_calls = most_over_ranks(len(batches), _device(engine)) - len(batches) if sharded else 0
    results: dict[int, Generated] = {}
    with evaluating(engine), bare_defaults(engine):
        for batch in batches:
            draw = _Sampling(temperature, top_p).processor([own[index] for index in batch], max_new_tokens)
            told = _Told(tokenizer, on_text) if on_text else None
            rows = _generate_batch(engine, settings, [prompts[index] for index in batch], draw, sharded, told)
            for index, row in zip(batch, rows, strict=True):
                results[index] = _finish(tokenizer, settings, row)
        idle = [prompts[index] for index in batches[-1]] if batches else [[tokenizer.eos_token_id]]
        for _ in range(idle_calls):
            _generate_batch(engine, settings, idle, LogitsProcessorList(), sharded)
    return [results[index] for index in range(len(prompts))]


class _Told(TextStreamer):
    """Hands on the words of one text as they are whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How a token is chosen: greedily at temperature 0, else from the nucleus `top_p` of the tempered distribution."""

    temperature: float
    top_p: float

    def processor(self, seeds: Sequence[int], steps: int) -> LogitsProcessorList:
        """The logits processors that make greedy search choose what sampling by these seeds (one a row) would."""
        return LogitsProcessorList([_Draw(self, seeds, steps)] if self.temperature > 0 else [])


class _Draw(LogitsProcessor):
    """Sample by inverting the distribution function at one uniform number per row and step.

    A row's numbers come from its own seed on the CPU, so that neither the neighbours in its batch nor the device nor
    the process's random state matters. The chosen token keeps logit 0 and all others get minus infinity.
    """

    def __init__(self, sampling: _Sampling, seeds: Sequence[int], steps: int) -> None:
        rows = [torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in seeds]
        self._uniform_BT = torch.stack(rows)
        self._sampling = sampling
        self._step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        probability_BV = torch.softmax(scores.float() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            ordered_BV, token_BV = probability_BV.sort(dim=-1, descending=True)
            before_BV = ordered_BV.cumsum(dim=-1) - ordered_BV  # The token that crosses top_p still belongs.
            ordered_BV = ordered_BV.masked_fill(before_BV >= self._sampling.top_p, 0.0)
            probability_BV = torch.zeros_like(probability_BV).scatter(-1, token_BV, ordered_BV)
        cumulative_BV = probability_BV.double().cumsum(dim=-1)
        total_B1 = cumulative_BV[:, -1:]
        at_B1 = self._uniform_BT[:, self._step, None].to(scores.device) * total_B1
        at_B1 = torch.minimum(at_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
        self._step += 1
        # right=True: the first token whose cumulative value exceeds the number; one without probability never is.
        chosen_B1 = torch.searchsorted(cumulative_BV, at_B1, right=True)
        return cast(torch.FloatTensor, torch.full_like(scores, -torch.inf).scatter(-1, chosen_B1, 0.0))


def _own_seeds(seed: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2**62, (count,), generator=generator).tolist()


def _device(engine: torch.nn.Module) -> torch.device:
    return next(engine.parameters()).device


def _check(
    model: PreTrainedModel, prompts: Sequence[list[int]], seeds: Sequence[int], max_new_tokens: int, sampling: _Sampling
) -> None:
    if max_new_tokens < 1 or sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise ConfigError(
            f"max_new_tokens {max_new_tokens}, temperature {sampling.temperature}, top_p {sampling.top_p}: expected at "
            "least 1, at least 0 (greedy), and above 0 up to 1."
        )
    assert len(seeds) == len(prompts), f"{len(seeds)} seeds for {len(prompts)} prompts"
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {index}: has no tokens. Render it with the chat template.")
        if limit is not None and len(prompt) + max_new_tokens > limit:
            raise DataError(
                f"prompt {index}: {len(prompt)} tokens and {max_new_tokens} new ones exceed the model's {limit} "
                "positions. Leave the sample out, lower max_new_tokens, or use a base with a longer context."
            )


def _settings(
    engine: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, repetition_penalty: float
) -> GenerationConfig:
    inherited = engine.generation_config.eos_token_id if engine.generation_config is not None else None
    ends = {tokenizer.eos_token_id, *(inherited if isinstance(inherited, list) else [inherited])} - {None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        repetition_penalty=repetition_penalty,
        do_sample=False,  # Sampling is _Draw's, on top of greedy search.
        num_beams=1,
        use_cache=True,
    )


@contextmanager
def bare_defaults(engine: PreTrainedModel) -> Iterator[None]:
    """Put the hub model's generation defaults aside: transformers fills every unset field of ours from them.

    Whoever samples names the end tokens itself; what else a model folder asks for would sample by another recipe.
    """
    inherited = engine.generation_config
    engine.generation_config = GenerationConfig()
    try:
        yield
    finally:
        engine.generation_config = inherited


@contextmanager
def equal_prompts_once(engine: PreTrainedModel) -> Iterator[None]:
    """Lets whoever calls `engine.generate` on prompts that are repeated, as GRPO's groups are, read each of them once."""
    plain: Any = engine.generate

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> Any:
        cache = _cache_of_prompts(engine, input_ids, attention_mask)
        return plain(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, **settings)

    engine.generate = generate  # type: ignore[assignment]
    try:
        yield
    finally:
        del engine.generate


def _cache_of_prompts(engine: PreTrainedModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> DynamicCache | None:
    """Keys and values of all but the last token of prompts padded on the left, each different one computed once.

    None, so that `generate` reads every prompt itself, where that spares little (`SPARED_FLOPS`), where this model's cache
    cannot be shared, where all rows are padded, and for sharded weights: there every rank would have to decide alike.
    """
    prompts = [tuple(row[-size:]) for row, size in zip(ids_BT.tolist(), mask_BT.sum(1).tolist(), strict=True)]
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    spared = (len(prompts) - len(places)) * ids_BT.shape[1]
    if not spared or 2 * spared * engine.num_parameters() < SPARED_FLOPS:
        return None
    sizes = {len(prompt) for prompt in places}
    if min(sizes) < 2 or max(sizes) < ids_BT.shape[1] or is_sharded(engine) or not can_share(engine):
        return None
    prefixes = Prefixes.compute(engine, [prompt[:-1] for prompt in places], int(ids_BT.min()), ids_BT.device)
    return prefixes.of(torch.tensor([places[prompt] for prompt in prompts], device=ids_BT.device))[1]


def _generate_batch(
    engine: PreTrainedModel,
    settings: GenerationConfig,
    prompts: Sequence[list[int]],
    draw: LogitsProcessorList,
    sharded: bool,
    told: TextStreamer | None = None,
) -> list[list[int]]:
    """New tokens of each row, padding included; prompts are padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), settings.pad_token_id)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(_device(engine)), mask.to(_device(engine))
    out = engine.generate(  # type: ignore[operator]  # mixed into every causal model by transformers
        input_ids=ids,
        attention_mask=mask,
        past_key_values=_cache_of_prompts(engine, ids, mask),
        generation_config=settings,
        logits_processor=draw,
        synced_gpus=sharded,
        streamer=told,
    )
    return out[:, width:].tolist()


def _finish(tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig, row: list[int]) -> Generated:
    ends = set(settings.eos_token_id)
    stop = next((place for place, token in enumerate(row) if token in ends), None)
    token_ids = tuple(row if stop is None else row[: stop + 1])
    text = normalised(str(tokenizer.decode(list(row if stop is None else row[:stop]), skip_special_tokens=True)))
    status: Literal["ok", "truncated", "empty"] = "empty" if blank(text) else "ok"
    return Generated(text, token_ids, "truncated" if stop is None else status)
