"""The scorer q2: a frozen model that says how likely a response is in a context, in nats."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coevo.lm.likelihood import encode_prompt, encode_response, render, score_pairs
from coevo.prompts import NOTHING, Component, Role, messages
from coevo.types import Scenario, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Ask:
    """One likelihood asked for: log q(text | scenario without `drop`)."""

    scenario: Scenario
    text: str
    drop: Collection[Component] = NOTHING

    @property
    def context(self) -> tuple[int, frozenset[Component]]:
        """The same for asks of one scenario object without the same components: they share one prompt."""
        return id(self.scenario), frozenset(self.drop)


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

    The version is the content hash of its weights; it is stamped on every result made of its scores.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    version: str
    max_length: int
    tokens_per_batch: int = 16384
    role: Role = "scorer"

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; equal questions, and the prompt of questions that share one, are computed once.

        So asks of one context belong in one call.

        Returns:
            One `Score` per ask; what cannot be scored has a status and NaN, never 0 nats.
        """
        prompts: dict[tuple[int, frozenset[Component]], tuple[int, ...]] = {}
        responses: dict[str, tuple[int, ...]] = {}
        pairs = []
        for ask in asks:
            if ask.context not in prompts:
                text = render(self.tokenizer, messages(self.role, ask.scenario, ask.drop))
                prompts[ask.context] = tuple(encode_prompt(self.tokenizer, text))
            if ask.text not in responses:
                responses[ask.text] = tuple(encode_response(self.tokenizer, ask.text))
            pairs.append((prompts[ask.context], responses[ask.text]))
        unique = list(dict.fromkeys(pairs))
        scores = score_pairs(
            self.model, self.tokenizer, unique, max_length=self.max_length, tokens_per_batch=self.tokens_per_batch
        )
        found = dict(zip(unique, scores, strict=True))
        return [found[pair] for pair in pairs]
