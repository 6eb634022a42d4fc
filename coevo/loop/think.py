"""The reward of a model that thinks first: its response's, as any RPM's, and its reasoning's (R3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coevo.config.methods import ThinkGRPO
from coevo.loop.rewards import RPMReward, Sample
from coevo.prompts import NO_REASONING, NOTHING
from coevo.rewards.parts import economy, evidence, match
from coevo.scoring.reasoner import ReasonedScorer
from coevo.scoring.reasoning import read_sections
from coevo.scoring.scorer import Ask
from coevo.scoring.thinking import Thought
from coevo.train.grpo import Completion
from coevo.types import Reward, Scenario, Score


class ThinkReward(RPMReward):
    """R2 + R4 of the response alone, which is all that the scorer sees, and R3 of the model's own reasoning."""

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """Rewards of this process's completions; all processes call it together."""
        thoughts = [self._context.thought(c.text, c.status) for c in completions]
        shown = [replace(c, text=t.response, status=t.status) for c, t in zip(completions, thoughts, strict=True)]
        samples = super().judge(shown)
        read = self._read([self._scenarios[c.key] for c in completions], thoughts)
        judged = []
        for sample, completion, thought, parts in zip(samples, completions, thoughts, read, strict=True):
            parts = self._form(completion, thought) | parts
            judged.append(replace(sample, reward=self._with(sample.reward, parts), thought=completion.text))
        return judged

    def _prompt(self, scenario: Scenario) -> str:
        return self._context.prompt("thinker", scenario)

    @property
    def _config(self) -> ThinkGRPO:
        config = self._context.recipe.method
        assert isinstance(config, ThinkGRPO)
        return config

    def _form(self, completion: Completion, thought: Thought) -> dict[str, float]:
        """What can be said of a reasoning without a model: structure and economy."""
        reasoning, config = thought.reasoning, self._config
        parts = {"thought/structure": reasoning.structure, "thought/whole": float(reasoning.status == "ok")}
        encode: Any = self._context.tokenizer
        if reasoning.status == "ok":
            bodies = " ".join(body for _, body in read_sections(reasoning.text, self._context.material.thinking))
            n_tokens = len(encode(reasoning.text, add_special_tokens=False)["input_ids"])
            n_distinct = len(set(encode(bodies, add_special_tokens=False)["input_ids"]))
            parts["thought/economy"] = economy(n_tokens, n_distinct, config.target, config.distinct)
        return parts

    def _read(self, scenarios: Sequence[Scenario], thoughts: Sequence[Thought]) -> list[dict[str, float]]:
        """What the scorer says of whole reasonings: evidence, and the response's agreement; nothing unless weighed."""
        weights = self._config.thought
        if not weights.evidence + weights.agreement:
            return [{} for _ in thoughts]
        scorer = self._reward.scorer
        assert isinstance(scorer, ReasonedScorer)
        asks: list[Ask] = []
        for x, t in zip(scenarios, thoughts, strict=True):
            # what is not whole is not asked about: an empty text has no score
            whole = t.reasoning.status == "ok"
            for text in (x.reference if whole else "", t.response if whole and t.status == "ok" else ""):
                asks += [Ask(x, text, NOTHING, t.reasoning.text), Ask(x, text, NO_REASONING)]
        scores = scorer.scorer.score(asks)
        return [_support(scores[4 * place : 4 * place + 4]) for place in range(len(thoughts))]

    def _with(self, reward: Reward, parts: Mapping[str, float]) -> Reward:
        """The sum of both, by the recipe's weights; what cannot be scored stays so."""
        weights = self._config.thought.model_dump()
        total = reward.total
        if total is not None:
            total += sum(weight * parts.get(f"thought/{name}", 0.0) for name, weight in weights.items())
        return Reward(total, {**reward.parts, **parts}, reward.status)


def _support(scores: Sequence[Score]) -> dict[str, float]:
    """Evidence and agreement from log q of y* and of y, each with the reasoning and without it."""
    ideal, ideal_without, own, own_without = scores
    parts = {}
    if ideal.status == ideal_without.status == "ok":
        parts["thought/evidence"] = evidence(ideal, ideal_without)
        if own.status == own_without.status == "ok":
            parts["thought/agreement"] = match(evidence(own, own_without), parts["thought/evidence"])
    return parts
