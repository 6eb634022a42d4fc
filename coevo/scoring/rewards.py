"""Rewards of the role-playing model (R1, R2, R4): plain functions of likelihoods, each part kept for the log.

A response is worth what its own context explains (D1, against the learned marginal M4) plus its plain likelihood; D1
alone is hacked within 80 steps (method section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coevo.config import RewardWeights
from coevo.prompts import ALL
from coevo.scoring.scorer import Ask, Scores
from coevo.types import Reward, Scenario, Score


@dataclass(frozen=True, slots=True)
class Fit:
    """How a text fits a scenario, by the scorer. All in nats, summed over the text's tokens."""

    likelihood: float
    """log q(y|x)."""
    marginal: float
    """log q(y|nothing), the learned marginal (M4)."""

    @property
    def information(self) -> float:
        """D1 with the learned marginal: how much more likely the text is in its own context than in none."""
        return self.likelihood - self.marginal


def fits(scorer: Scores, scenarios: Sequence[Scenario], texts: Sequence[str]) -> list[Fit | str]:
    """Scores each text in its scenario and in none.

    Returns:
        Per text a `Fit`, or the status that says why there is none (`empty`, `too_long`).
    """
    asks = [Ask(x, y) for x, y in zip(scenarios, texts, strict=True)]
    asks += [Ask(x, y, ALL) for x, y in zip(scenarios, texts, strict=True)]
    scores = scorer.score(asks)
    return [_fit(own, none) for own, none in zip(scores[: len(texts)], scores[len(texts) :], strict=True)]


def _fit(own: Score, none: Score) -> Fit | str:
    for score in (own, none):
        if score.status != "ok":
            return score.status
    return Fit(own.logprob_nats, none.logprob_nats)


def value(fit: Fit, weights: RewardWeights) -> float:
    """What a response is worth before anything is subtracted: w1·D1 + w4·log q(y|x), in nats."""
    return weights.information * fit.information + weights.register_gap * fit.likelihood


def rpm_reward(fit: Fit, reference: Fit, baseline: float, weights: RewardWeights, anchor: bool) -> Reward:
    """R1 + R4 on a shifted scenario, R2 + R4 on an ID one.

    Args:
        fit: of the response y.
        reference: of y* in the same scenario; turns D1 into remi (D2).
        baseline: b(x), the ID parent's remi under the policy that began the phase; 0 for an ID scenario.
        weights: of the recipe.
        anchor: whether the scenario is ID, so that remi counts as R2 and not as negative R-EMID.
    """
    remi = fit.information - reference.information
    total = weights.information * (remi - baseline) + weights.register_gap * fit.likelihood
    parts = {
        "likelihood": fit.likelihood,
        "information": fit.information,
        "likelihood_gap": fit.likelihood - reference.likelihood,
        ("anchor_remi" if anchor else "negative_remid"): remi - baseline,
    }
    return Reward(total, parts)


def regret(reference: Fit, answers: Sequence[Fit], weights: RewardWeights) -> float:
    """S1: what the reference would earn minus what the RPM earns on average. Nats.

    It is relative to the reference, so a query that nobody can answer earns the simulator nothing (PAIRED).
    """
    return value(reference, weights) - sum(value(fit, weights) for fit in answers) / len(answers)


def simulator_reward(regret_nats: float | None, gates: Mapping[str, float], pass_nats: float = 0.0) -> Reward:
    """S1 times S2: regret, not below 0, multiplied by every gate.

    A turn that a gate shuts earns 0, the least there is. A negative regret (the RPM does better than the reference) counts
    as 0, lest a shut gate be worth more than an open one.

    Args:
        regret_nats: S1, None where it could not be scored.
        gates: by name, 0 to 1.
        pass_nats: added to the regret (ours); without it nothing is lost by breaking a turn whose regret is 0.
    """
    product = 1.0
    for gate in gates.values():
        product *= gate
    parts = {f"gate/{name}": gate for name, gate in gates.items()} | {"pass": float(product > 0)}
    if regret_nats is None:
        return Reward(0.0 if product == 0 else None, parts, "ok" if product == 0 else "unscored")
    return Reward((max(regret_nats, 0.0) + pass_nats) * product, parts | {"regret": regret_nats})


def repetition(tokens: Sequence[int]) -> float:
    """Share of a text's tokens that repeat an earlier one: 0 when all differ, near 1 for a loop."""
    return 1 - len(set(tokens)) / len(tokens) if tokens else 0.0
