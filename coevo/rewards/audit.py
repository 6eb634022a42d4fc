"""The audit of a reward before it trains anything (method, section 4).

In each scenario the reference y* and a battery of bad answers get the very reward that GRPO would give them, as the
recipe weighs it and each part alone; y* must be worth more than every one of them, and so must other right answers where
any are known, lest a reward measure nothing but nearness to y*. Where the exact share of right slots
is known, answers graded from right to senseless must come out in the order of that share. A reward that fails on answers
made by hand will be gamed by a policy that looks for such answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coevo.config import Audit, RealText, RewardWeights
from coevo.data import Case
from coevo.data.battery import MEMBERS
from coevo.errors import ScoreError
from coevo.maths.correlation import spearman
from coevo.maths.stats import bootstrap_mean, wilson
from coevo.rewards.beside import Beside
from coevo.rewards.parts import Fit, fits, rpm_reward
from coevo.rewards.verdict import REWARD, Agreement, Member, Verdict, alone, parts_of
from coevo.scoring.real_text import Others
from coevo.scoring.scorer import Scores
from coevo.types import Scenario

MARGIN_NATS = 1e-4
"""y* must be worth more by this; a smaller difference is rounding, and a tie is not above."""
RESAMPLES = 2000
CASES_PER_CALL = 32
"""Scenarios scored at once: some 1,800 likelihoods, enough to batch by length."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One scenario with what each of its texts is worth: text -> reward and parts by name, or a status."""

    case: Case
    worth: Mapping[str, dict[str, float] | str]

    @property
    def reference(self) -> dict[str, float]:
        """What y* is worth."""
        worth = self.worth[self.case.scenario.reference]
        assert isinstance(worth, dict)
        return worth


def audit(
    scorer: Scores,
    cases: Sequence[Case],
    weights: RewardWeights | RealText,
    config: Audit,
    seed: int,
    progress: Callable[[int], None] | None = None,
    others: Others | None = None,
    beside: Beside | None = None,
) -> Verdict:
    """Puts a reward to the test of the battery.

    Args:
        scorer: the frozen scorer that the reward is made of, with its reasoner where it has one.
        cases: scenarios that the scorer was not tuned on, with their bad and graded answers (`coevo.data.BATTERIES`).
        weights: of the recipe.
        config: thresholds; the world's where it leaves them open.
        seed: of the bootstrap.
        progress: told how many scenarios were done, batch after batch.
        others: the contexts that R6 compares with; for its weights alone.
        beside: who gives the parts beside the scorer's own; by default the functions of the weights.

    Raises:
        ScoreError: no reference could be scored.
    """
    schemes = {REWARD: weights} | {part: alone(part, weights) for part in parts_of(weights.by_part)}
    judged: list[Judged] = []
    for start in range(0, len(cases), CASES_PER_CALL):
        batch = cases[start : start + CASES_PER_CALL]
        judged += _judge(scorer, batch, schemes, others, beside or Beside(weights.functions))
        if progress:
            progress(len(batch))
    if not judged:
        raise ScoreError(
            f"audit: none of {len(cases)} references could be scored; expected prompt and reference within limits.prompt "
            "and limits.response, and with corl a whole reasoning; raise them, or give the reasoner a longer cold start."
        )
    graded = [entry for entry in judged if entry.case.graded]
    return Verdict(
        scorer=scorer.version,
        weights=weights.by_part,
        at_least=config.share("world"),
        agreement_at_least=config.agreement,
        n=len(judged),
        unscored=len(cases) - len(judged),
        members=judged_members(judged),
        agreement={name: _agreement(name, graded, seed) for name in schemes} if graded else {},
        n_graded=sum(len(_ranked(REWARD, entry, entry.case.ladder)[0]) for entry in graded),
    )


def _judge(
    scorer: Scores,
    cases: Sequence[Case],
    schemes: Mapping[str, RewardWeights | RealText],
    others: Others | None,
    beside: Beside,
) -> list[Judged]:
    """What every text of the cases is worth; cases whose reference cannot be scored are left out."""
    texts = [list(dict.fromkeys((c.scenario.reference, *c.bad.values(), *c.graded, *c.good))) for c in cases]
    scenarios = [case.scenario for case, mine in zip(cases, texts, strict=True) for _ in mine]
    reasoned = schemes[REWARD].agreement > 0
    found = iter(fits(scorer, scenarios, [text for mine in texts for text in mine], reasoned, others))
    judged = []
    for case, mine in zip(cases, texts, strict=True):
        by_text = {text: next(found) for text in mine}
        reference = by_text[case.scenario.reference]
        if isinstance(reference, Fit):
            worth = _worth(case.scenario, by_text, reference, schemes, beside)
            if not isinstance(worth[case.scenario.reference], str):
                judged.append(Judged(case, worth))
    return judged


def _worth(
    scenario: Scenario,
    by_text: Mapping[str, Fit | str],
    reference: Fit,
    schemes: Mapping[str, RewardWeights | RealText],
    beside: Beside,
) -> dict[str, dict[str, float] | str]:
    """Text -> rewards by name, or its status. The baseline b(x) is the same for all answers to one prompt, and left out."""
    worth: dict[str, dict[str, float] | str] = {}
    count, anchor = len(by_text), scenario.shift == "id"
    rows = beside.worth([scenario] * count, list(by_text), list(by_text.values()), [reference] * count)
    for (text, fit), further in zip(by_text.items(), rows, strict=True):
        if isinstance(fit, str) or isinstance(further, str):
            worth[text] = fit if isinstance(fit, str) else str(further)
            continue
        totals = {name: rpm_reward(fit, reference, 0.0, one, anchor, further).total for name, one in schemes.items()}
        worth[text] = {name: total for name, total in totals.items() if total is not None}
    return worth


def judged_members(judged: Sequence[Judged], margin: float = MARGIN_NATS) -> dict[str, Member]:
    """How y* stood against each member of the battery; it is above where it is worth more by the margin."""
    return {
        name: _member(name, [entry for entry in judged if name in entry.case.bad], margin)
        for name in MEMBERS
        if any(name in entry.case.bad for entry in judged)
    }


def _member(name: str, judged: Sequence[Judged], margin: float) -> Member:
    statuses: Counter[str] = Counter()
    above: dict[str, list[bool]] = {}
    for entry in judged:
        worth = entry.worth[entry.case.bad[name]]
        if isinstance(worth, str):
            statuses[worth] += 1
        for part, best in entry.reference.items():
            above.setdefault(part, []).append(isinstance(worth, str) or best - worth[part] > margin)
    by_tag: dict[str, list[bool]] = {}
    for entry, won in zip(judged, above[REWARD], strict=True):
        by_tag.setdefault(entry.case.scenario.subset_tag, []).append(won)
    return Member(
        n=len(judged),
        statuses=dict(statuses),
        above={part: wilson(sum(won), len(won)) for part, won in above.items()},
        subsets={tag: sum(won) / len(won) for tag, won in by_tag.items()},
        **_good(name, judged, margin),
    )


def _good(name: str, judged: Sequence[Judged], margin: float) -> dict[str, Any]:
    """In what share of scenarios every other right answer that can be scored is above the bad one too; nothing without."""
    above: dict[str, list[bool]] = {}
    for entry in judged:
        bad = entry.worth[entry.case.bad[name]]
        good = [worth for text in entry.case.good if not isinstance(worth := entry.worth[text], str)]
        for part in entry.reference if good else ():
            least = min(worth[part] for worth in good)
            # a right answer without a number is above nothing
            won = least > -math.inf and (isinstance(bad, str) or least - bad[part] > margin)
            above.setdefault(part, []).append(won)
    shares = {part: wilson(sum(won), len(won)) for part, won in above.items()}
    return {"n_good": len(next(iter(above.values()), ())), "good": shares}


def _agreement(name: str, judged: Sequence[Judged], seed: int) -> Agreement:
    ladders = [_ranked(name, entry, entry.case.ladder) for entry in judged]
    every = [_ranked(name, entry, entry.case.graded) for entry in judged]
    worth, shares = (np.concatenate(column) for column in zip(*ladders, strict=True))
    return Agreement(
        within=bootstrap_mean([_correlation(*ladder) for ladder in ladders], RESAMPLES, seed),
        overall=_correlation(worth, shares),
        with_battery=float(np.mean([_correlation(*answers) for answers in every])),
    )


def _correlation(worth: ArrayLike, shares: ArrayLike) -> float:
    """Spearman's; a reward that is the same for all answers has none, and agrees with nothing."""
    found = spearman(worth, shares)
    return 0.0 if math.isnan(found) else found


def _ranked(name: str, entry: Judged, texts: Collection[str]) -> tuple[list[float], list[float]]:
    """What answers are worth, and their shares of right slots; without those that cannot be scored."""
    scored = [(worth[name], entry.case.graded[text]) for text in texts if not isinstance(worth := entry.worth[text], str)]
    return [worth for worth, _ in scored], [share for _, share in scored]
