"""Rewards of the players (R1, R2, R4, S1) and of reasonings (R3): plain functions, each part kept for the log.

A response is worth what its own context explains (D1, against the learned marginal M4) plus its plain likelihood; D1
alone is hacked within 80 steps (method section 3). For real text there is R6, see `coevo.scoring.real_text`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from coevo.config import RealText, ReasonerPhase, RewardWeights
from coevo.prompts import ALL, NO_REASONING, NOTHING
from coevo.scoring import real_text
from coevo.scoring.given import asked
from coevo.scoring.real_text import Others, Reading
from coevo.scoring.scorer import Ask, Scores
from coevo.types import Reasoning, Reward, Scenario, Score


@dataclass(frozen=True, slots=True)
class Fit:
    """How a text fits a scenario, by the scorer. All in nats, summed over the text's tokens."""

    likelihood: float
    """log q(y|x)."""
    marginal: float
    """log q(y|nothing), the learned marginal (M4)."""
    evidence: float = 0.0
    """(log q(y|x,r) - log q(y|x)) / n, nats per token: how much likelier the reasoning makes the text (R3); 0 if not
    asked for."""
    real: Reading | None = None
    """What R6 reads besides; None if not asked for."""

    @property
    def information(self) -> float:
        """D1 with the learned marginal: how much more likely the text is in its own context than in none."""
        return self.likelihood - self.marginal


def fits(
    scorer: Scores,
    scenarios: Sequence[Scenario],
    texts: Sequence[str],
    reasoned: bool = False,
    others: Others | None = None,
) -> list[Fit | str]:
    """Scores each text in its scenario and in none; with `reasoned`, also in its scenario without the reasoning.

    With `others` each is scored in other contexts too, and looked at for what R6 sees without a model.

    Returns:
        Per text a `Fit`, or the status that says why there is none (`empty`, `too_long`, `reasoning`).
    """
    pairs = list(zip(scenarios, texts, strict=True))
    drops = (NOTHING, ALL, NO_REASONING) if reasoned else (NOTHING, ALL)
    asks = [Ask(x, y, drop) for drop in drops for x, y in pairs]
    negatives = {id(x): others.of(x) for x in scenarios} if others else {}
    foreign = [negatives.get(id(x), []) for x in scenarios]
    scores = asked(scorer, asks + [Ask(x, y) for xs, y in zip(foreign, texts, strict=True) for x in xs])
    found, rest = [], iter(scores[len(asks) :])
    for place, (x, y) in enumerate(pairs):
        elsewhere = [next(rest) for _ in foreign[place]]
        fit = _fit(scores[place : len(asks) : len(pairs)])
        found.append(_read(fit, scores[place].n_tokens, elsewhere, x, y) if others and isinstance(fit, Fit) else fit)
    return found


def answered(
    scorer: Scores,
    scenarios: Sequence[Scenario],
    answers: Sequence[tuple[str, str]],
    reasoned: bool = False,
    others: Others | None = None,
) -> list[Fit | str]:
    """`fits` of (text, status) as a model wrote them; of what is no whole answer the status, or `empty`.

    With `others`, for R6, an answer that ran into the limit is read as one that breaks off, whatever its last sign is: left
    out it would cost nothing, and where long answers are worth something they grow into the limit.
    """
    cut = [others is not None and status == "truncated" for _, status in answers]
    texts = [text if status == "ok" or broken else "" for (text, status), broken in zip(answers, cut, strict=True)]
    found = fits(scorer, scenarios, texts, reasoned, others)
    return [_broken_off(fit) if broken else fit for fit, broken in zip(found, cut, strict=True)]


def _broken_off(fit: Fit | str) -> Fit | str:
    return fit if isinstance(fit, str) or fit.real is None else replace(fit, real=replace(fit.real, unended=1.0))


def _fit(scores: Sequence[Score]) -> Fit | str:
    """From scores in the own scenario, in none and, perhaps, without the reasoning."""
    for score in scores:
        if score.status != "ok":
            return score.status
    own, none, *unreasoned = scores
    return Fit(own.logprob_nats, none.logprob_nats, evidence(own, unreasoned[0]) if unreasoned else 0.0)


def _read(fit: Fit, n_tokens: int, elsewhere: Sequence[Score], scenario: Scenario, text: str) -> Fit | str:
    """The fit with what R6 needs."""
    for score in elsewhere:
        if score.status != "ok":
            return score.status
    mean = sum(score.logprob_nats for score in elsewhere) / len(elsewhere)
    return replace(fit, real=Reading(fit.likelihood, fit.marginal, mean, n_tokens, *real_text.guarded(scenario, text)))


def value(fit: Fit, weights: RewardWeights) -> float:
    """What a response is worth before anything is subtracted: w1·D1 + w4·log q(y|x), in nats."""
    return weights.information * fit.information + weights.register_gap * fit.likelihood


def remi(fit: Fit, reference: Fit, weights: RewardWeights | RealText) -> float:
    """What baselines and acceptance compare: D2, nats; with R6 the response's R6 less the reference's.

    R-EMI alone sees neither loops nor echoes, which real text makes likely in their own context.
    """
    if isinstance(weights, RealText):
        return real_text.gap(*_readings(fit, reference), weights)
    return fit.information - reference.information


def remi_nats(fit: Fit, reference: Fit, weights: RewardWeights | RealText) -> float:
    """`remi` in nats: R6's unit times the root of the reference's length."""
    relative = remi(fit, reference, weights)
    return relative * _readings(fit, reference)[1].n_tokens ** weights.length if isinstance(weights, RealText) else relative


def _readings(fit: Fit, reference: Fit) -> tuple[Reading, Reading]:
    assert fit.real is not None and reference.real is not None, "R6 is made of fits that were asked for other contexts"
    return fit.real, reference.real


def rpm_reward(
    fit: Fit,
    reference: Fit,
    baseline: float,
    weights: RewardWeights | RealText,
    anchor: bool,
    further: Mapping[str, float] = MappingProxyType({}),
) -> Reward:
    """R1 + R4 on a shifted scenario, R2 + R4 on an ID one; R6 in their place if the weights are for real text.

    Args:
        fit: of the response y.
        reference: of y* in the same scenario; turns D1 into remi (D2).
        baseline: b(x), the ID parent's `remi` under the policy that began the phase; 0 for an ID scenario.
        weights: of the recipe.
        anchor: whether the scenario is ID, so that remi counts as R2 and not as negative R-EMID.
        further: the parts beside the scorer's own, by name; see `coevo.rewards.beside`.

    Of R3, the agreement alone belongs to a response; the rest is the reasoning's, the same for all completions of a prompt.
    """
    more = sum(weight * further[name] for name, weight in weights.beside.items())
    if isinstance(weights, RealText):
        found = _real_text_reward(fit, reference, baseline, weights, anchor)
        return Reward((found.total or 0.0) + more, {**found.parts, **further})
    relative = remi(fit, reference, weights) - baseline
    total = weights.information * relative + weights.register_gap * fit.likelihood
    parts = {
        "likelihood": fit.likelihood,
        "information": fit.information,
        "likelihood_gap": fit.likelihood - reference.likelihood,
        ("anchor_remi" if anchor else "negative_remid"): relative,
    }
    for name, part in FURTHER_PARTS.items():
        if weight := getattr(weights, name):
            parts[name] = part(fit, reference)
            total += weight * parts[name]
    return Reward(total + more, {**parts, **further})


def _real_text_reward(fit: Fit, reference: Fit, baseline: float, weights: RealText, anchor: bool) -> Reward:
    readings = _readings(fit, reference)
    total = real_text.gap(*readings, weights) - baseline
    parts = {"likelihood": fit.likelihood, "information": fit.information} | real_text.parts(*readings, weights)
    return Reward(total, parts | {"anchor_gap" if anchor else "shifted_gap": total})


def agreement(fit: Fit, reference: Fit) -> float:
    """R3: how far the response goes along with its scenario's reasoning, in (0, 1]; 1 at the reference's level."""
    return match(fit.evidence, reference.evidence)


FURTHER_PARTS: dict[str, Callable[[Fit, Fit], float]] = {
    "agreement": agreement,
}
"""Name of a weight -> the part that it weighs, beside information and register gap: of a response and the reference."""


def evidence(reasoned: Score, unreasoned: Score) -> float:
    """R3: (log q2(y|x,r) - log q2(y|x, no r)) / n, nats per token: what the reasoning adds to the context.

    For y* it is the worth of a reasoning; for a response, how far it goes along with it.
    """
    return (reasoned.logprob_nats - unreasoned.logprob_nats) / reasoned.n_tokens


def match(own: float, reference: float) -> float:
    """min(1, exp(own - reference)), in (0, 1]: as good as the reference is all there is to earn (CoRL's match reward).

    Args:
        own: nats per token of the candidate, such as l(y) or its evidence.
        reference: the same of y*.
    """
    return math.exp(min(0.0, own - reference))


def economy(n_tokens: int, n_distinct: int, target: int, least_distinct: int) -> float:
    """R3: 1 for a reasoning of at most `target` tokens, target / n beyond it, 0 with too few distinct tokens to say much.

    Padding never pays: it makes n_tokens grow, and repeated tokens leave n_distinct where it is.

    Args:
        n_tokens: of the whole completion.
        n_distinct: distinct tokens outside the sections' names, so that headings alone do not reach the floor.
        target: the length that costs nothing.
        least_distinct: the floor.
    """
    return min(1.0, target / n_tokens) if n_distinct >= least_distinct else 0.0


def reasoner_reward(
    reasoning: Reasoning, sizes: tuple[int, int], reasoned: Score, unreasoned: Score, config: ReasonerPhase
) -> Reward:
    """CoRL (a): exp(mean token log q2(y*|x,r)) + structure + economy, by the recipe's weights.

    A reasoning that is not whole earns its structure alone, which is below 1: likelihood and economy count as 0, their
    least. So it is worth less than any whole one with the same share of sections, and GRPO learns to write whole ones.

    Args:
        reasoning: as parsed.
        sizes: its tokens in all, and its distinct tokens outside the sections' names.
        reasoned: of y* with the reasoning; not looked at unless the reasoning is whole.
        unreasoned: of y* without it; the difference is the evidence, which is logged.
        config: weights, length target and floor.

    Returns:
        A reward; its total is None if y* itself cannot be scored.
    """
    weights = config.weights
    parts = {"structure": reasoning.structure}
    total = weights.structure * reasoning.structure
    if reasoning.status != "ok":
        return Reward(total, parts)
    if reasoned.status != "ok" or unreasoned.status != "ok":
        return Reward(None, parts, reasoned.status if reasoned.status != "ok" else unreasoned.status)
    parts["likelihood"] = math.exp(reasoned.logprob_nats / reasoned.n_tokens)
    parts["economy"] = economy(*sizes, config.target, config.distinct)
    parts["evidence"] = evidence(reasoned, unreasoned)
    return Reward(total + weights.likelihood * parts["likelihood"] + weights.economy * parts["economy"], parts)


def regret(reference: Fit, answers: Sequence[Fit], weights: RewardWeights | RealText) -> float:
    """S1: what the reference would earn minus what the RPM earns on average. Nats; with R6, nats per root of a token.

    It is relative to the reference, so a query that nobody can answer earns the simulator nothing (PAIRED).
    """
    if isinstance(weights, RealText):
        return -sum(remi(fit, reference, weights) for fit in answers) / len(answers)
    return value(reference, weights) - sum(value(fit, weights) for fit in answers) / len(answers)


def simulator_reward(
    regret_nats: float | None, gates: Mapping[str, float], pass_nats: float = 0.0, weight: float = 1.0
) -> Reward:
    """S1 times S2: regret, not below 0, multiplied by every gate.

    A turn that a gate shuts earns 0, the least there is. A negative regret (the RPM does better than the reference) counts
    as 0, lest a shut gate be worth more than an open one.

    Args:
        regret_nats: S1, None where it could not be scored.
        gates: by name, 0 to 1.
        pass_nats: what an open turn earns besides (ours); without it nothing is lost by breaking a turn whose regret is 0.
            Novelty does not scale it: a rare sentence is worth more regret, and no more soundness.
        weight: of the regret; with 0 the gates alone are rewarded.
    """
    product = 1.0
    for gate in gates.values():
        product *= gate
    parts = {f"gate/{name}": gate for name, gate in gates.items()} | {"pass": float(product > 0)}
    if regret_nats is None:
        return Reward(0.0 if product == 0 else None, parts, "ok" if product == 0 else "unscored")
    whole = pass_nats if product > 0 else 0.0
    return Reward(weight * max(regret_nats, 0.0) * product + whole, parts | {"regret": regret_nats})


def repetition(tokens: Sequence[int]) -> float:
    """Share of a text's tokens that repeat an earlier one: 0 when all differ, near 1 for a loop."""
    return 1 - len(set(tokens)) / len(tokens) if tokens else 0.0
