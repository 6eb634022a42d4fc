"""CoRL's two rewards as GRPO sees them: frozen models around the pure functions of `scoring.rewards`, every part logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coevo import dist
from coevo.loop.context import Context
from coevo.loop.rewards import Logged, Sample
from coevo.plan.plan import PhasePlan
from coevo.prompts import NO_REASONING, NOTHING
from coevo.rewards.parts import match, reasoner_reward
from coevo.scoring.agreement import agreement_nats
from coevo.scoring.reasoning import parse, read_sections
from coevo.scoring.scorer import Ask, Scorer
from coevo.train.grpo import Completion
from coevo.types import Reasoning, Reward, Scenario, Score

UNSCORED = Score(float("nan"), 0, "reasoning")


class ReasonerReward(Logged):
    """(a): the likelihood of the reference given the reasoning, its structure and its economy (R3)."""

    def __init__(self, context: Context, phase: PhasePlan, scorer: Scorer, prompts: Sequence[Scenario]) -> None:
        super().__init__(context, phase, scorer.version, {x.sample_id: x for x in prompts})
        self._scorer = scorer
        self._config = context.recipe.corl.reasoner  # type: ignore[union-attr]

    def _measured(self, samples: Sequence[Sample]) -> dict[str, float]:
        figures = super()._measured(samples)
        unscored = figures.pop("unscored")
        figures["whole"] = float(np.mean([s.reason == "ok" for s in samples]))
        figures["tokens"] = float(np.mean([len(s.completion.tokens) for s in samples]))
        figures["unscored"] = unscored
        truth = self._context.material.truth
        if truth is not None:
            # logged, never rewarded
            told = [(self._scenarios[s.completion.key], s.completion.text) for s in samples]
            sections = self._context.material.sections
            figures["share_reasoned"] = float(np.mean([truth.share_reasoned(x, text, sections) for x, text in told]))
        return figures

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """Rewards of this process's reasonings; all processes call it together."""
        sections = self._context.material.sections
        read = [parse(c.text, sections, c.status) for c in completions]
        scenarios = [self._scenarios[c.key] for c in completions]
        whole = [place for place, reasoning in enumerate(read) if reasoning.status == "ok"]
        asks = [Ask(scenarios[p], scenarios[p].reference, NOTHING, read[p].text) for p in whole]
        asks += [Ask(scenarios[p], scenarios[p].reference, NO_REASONING) for p in whole]
        scores = self._scorer.score(asks)
        by_place = {p: (scores[n], scores[len(whole) + n]) for n, p in enumerate(whole)}
        samples = []
        for place, (completion, reasoning) in enumerate(zip(completions, read, strict=True)):
            reasoned, unreasoned = by_place.get(place, (UNSCORED, UNSCORED))
            reward = reasoner_reward(reasoning, self._sizes(completion, reasoning), reasoned, unreasoned, self._config)
            samples.append(Sample(completion, reward, reason=reasoning.status))
        return samples

    def _sizes(self, completion: Completion, reasoning: Reasoning) -> tuple[int, int]:
        """Tokens written, and distinct ones outside the sections' names."""
        bodies = " ".join(body for _, body in read_sections(reasoning.text, self._context.material.sections))
        return len(completion.tokens), len(set(self._context.tokenizer(bodies, add_special_tokens=False)["input_ids"]))

    def _prompt(self, scenario: Scenario) -> str:
        return self._context.prompt("reasoner", scenario)


class MatchReward(Logged):
    """(b): min(1, exp(l(y) - l(y*))), l by the base's statement that a candidate has all that the reasoning lists."""

    def __init__(self, context: Context, phase: PhasePlan, judge: Scorer, reasoned: Sequence[tuple[Scenario, str]]) -> None:
        super().__init__(context, phase, judge.version, {x.sample_id: x for x, _ in reasoned})
        self._judge = judge
        self._reasonings = {x.sample_id: text for x, text in reasoned}
        # y* is stated of once a phase, not once a completion
        self._references = dict(
            zip(self._scenarios, dist.share_out(self._agreements, [(x, x.reference) for x, _ in reasoned]), strict=True)
        )

    def _measured(self, samples: Sequence[Sample]) -> dict[str, float]:
        figures = super()._measured(samples)
        truth = self._context.material.truth
        if truth is not None:
            shares = [truth.share_right(self._scenarios[s.completion.key], s.completion.text) for s in samples]
            figures["share_right"] = float(np.mean(shares))
        return figures

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """Rewards of this process's responses; all processes call it together."""
        texts = [c.text if c.status == "ok" else "" for c in completions]
        found = self._agreements([(self._scenarios[c.key], text) for c, text in zip(completions, texts, strict=True)])
        samples = []
        for completion, own in zip(completions, found, strict=True):
            reference = self._references[completion.key]
            if np.isfinite(own) and np.isfinite(reference):
                parts: Mapping[str, float] = {"match": match(own, reference), "agreement_nats": own}
                reward = Reward(parts["match"], parts)
            else:
                reward = Reward(None, {}, completion.status if completion.status != "ok" else "too_long")
            samples.append(Sample(completion, reward))
        return samples

    def _agreements(self, pairs: Sequence[tuple[Scenario, str]]) -> list[float]:
        return agreement_nats(self._judge, [self._reasonings[x.sample_id] for x, _ in pairs], [text for _, text in pairs])

    def _prompt(self, scenario: Scenario) -> str:
        return self._context.prompt("scorer", scenario, NOTHING, self._reasonings[scenario.sample_id])
