"""The scorer q2: a frozen model that says how likely a response is in a context, in nats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coevo.lm.likelihood import encode_prompt, encode_response, render, score_pairs
from coevo.prompts import NO_REASONING, NOTHING, Part, Prompts, Role
from coevo.types import Scenario, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from coevo.lm.embedding import Embedder


PromptKey = tuple[int, frozenset[Part], str]
"""What two asks that share a prompt have in common: scenario object, dropped components, shown reasoning."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One likelihood asked for: log q(text | scenario without `drop`, reasoning)."""

    scenario: Scenario
    text: str
    drop: Collection[Part] = NOTHING
    reasoning: str = ""
    """r, shown where nothing is dropped; empty for none."""

    @property
    def context(self) -> PromptKey:
        """The same for asks of one scenario object without the same components and with the same reasoning: they share one
        prompt.

        Without a reasoning there is none to drop, so `drop=NO_REASONING` is then the own context.
        """
        dropped = frozenset(self.drop)
        return id(self.scenario), dropped - NO_REASONING, "" if dropped else self.reasoning


class Scores(Protocol):
    """What is needed of a scorer: its version, and likelihoods in the order asked."""

    @property
    def version(self) -> str:
        """Content hash of the scorer's weights."""

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked."""


@dataclass(frozen=True)
class Scorer:
    """A frozen model with its tokenizer, limits and version.

    The version is a hash of its weights and of its base's tokenizer, chat template and configuration, and of its
    prompts; it is stamped on every result made of its scores.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    version: str
    prompts: Prompts
    max_length: int
    tokens_per_batch: int = 16384
    role: Role = "scorer"
    embedder: Embedder | None = None
    """Its base, for the divergences of a diagnosis; None where nobody asks for them."""

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; equal questions, and the prompt of questions that share one, are computed once.

        So asks of one context belong in one call.

        Returns:
            One `Score` per ask; what cannot be scored has a status and NaN, never 0 nats.
        """
        prompts: dict[PromptKey, tuple[int, ...]] = {}
        responses: dict[str, tuple[int, ...]] = {}
        pairs = []
        for ask in asks:
            if ask.context not in prompts:
                prompts[ask.context] = self._prompt(self.prompts.messages(self.role, ask.scenario, ask.drop, ask.reasoning))
            if ask.text not in responses:
                responses[ask.text] = tuple(encode_response(self.tokenizer, ask.text))
            pairs.append((prompts[ask.context], responses[ask.text]))
        return self._score(pairs)

    def score_messages(self, prompts: Sequence[Sequence[Mapping[str, str]]], texts: Sequence[str]) -> list[Score]:
        """Likelihoods of texts after chat messages that are no role's; as `score` otherwise."""
        return self._score(
            [
                (self._prompt(prompt), tuple(encode_response(self.tokenizer, text)))
                for prompt, text in zip(prompts, texts, strict=True)
            ]
        )

    def reads(self, scenario: Scenario) -> bool:
        """Whether a scenario's prompt and reference are within `max_length`."""
        prompt = self._prompt(self.prompts.messages(self.role, scenario))
        return len(prompt) + len(encode_response(self.tokenizer, scenario.reference)) <= self.max_length

    def _prompt(self, prompt: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        return tuple(encode_prompt(self.tokenizer, render(self.tokenizer, prompt)))

    def _score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Score]:
        unique = list(dict.fromkeys(pairs))
        scores = score_pairs(
            self.model, self.tokenizer, unique, max_length=self.max_length, tokens_per_batch=self.tokens_per_batch
        )
        found = dict(zip(unique, scores, strict=True))
        return [found[pair] for pair in pairs]
