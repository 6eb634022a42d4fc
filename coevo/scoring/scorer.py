"""The scorer q2: a frozen model that says how likely a response is in a context, in nats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coevo.lm.likelihood import encode_prompt, encode_response, render, score_pairs
from coevo.prompts import NOTHING, Component, Role, messages
from coevo.types import Scenario, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Ask:
    """One likelihood asked for: log q(text | scenario without `drop`, reasoning)."""

    scenario: Scenario
    text: str
    drop: Collection[Component] = NOTHING
    reasoning: str = ""
    """r, shown where nothing is dropped; empty for none."""


@dataclass(frozen=True)
class Scorer:
    """A frozen model with its tokenizer, limits and version.

    The version is the content hash of its weights; it is stamped on every result made of its scores.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    version: str
    max_length: int
    tokens_per_batch: int = 16384
    role: Role = "scorer"

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; equal questions are computed once.

        Returns:
            One `Score` per ask; what cannot be scored has a status and NaN, never 0 nats.
        """
        prompts: dict[tuple[int, frozenset[Component], str], list[int]] = {}
        pairs = []
        for ask in asks:
            key = (id(ask.scenario), frozenset(ask.drop), ask.reasoning)
            if key not in prompts:
                prompts[key] = self._encode(messages(self.role, ask.scenario, ask.drop, ask.reasoning))
            pairs.append((prompts[key], encode_response(self.tokenizer, ask.text)))
        return self._score(pairs)

    def score_messages(self, prompts: Sequence[Sequence[Mapping[str, str]]], texts: Sequence[str]) -> list[Score]:
        """Likelihoods of texts after chat messages that are no role's; as `score` otherwise."""
        encoded = [self._encode(prompt) for prompt in prompts]
        return self._score(
            [(prompt, encode_response(self.tokenizer, text)) for prompt, text in zip(encoded, texts, strict=True)]
        )

    def _encode(self, prompt: Sequence[Mapping[str, str]]) -> list[int]:
        return encode_prompt(self.tokenizer, render(self.tokenizer, prompt))

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        keys = [(tuple(prompt), tuple(response)) for prompt, response in pairs]
        unique = {key: position for position, key in reversed(list(enumerate(keys)))}
        positions = sorted(unique.values())
        scores = score_pairs(
            self.model,
            self.tokenizer,
            [pairs[position] for position in positions],
            max_length=self.max_length,
            tokens_per_batch=self.tokens_per_batch,
        )
        by_position = dict(zip(positions, scores, strict=True))
        return [by_position[unique[key]] for key in keys]
