"""How well a candidate agrees with a reasoning, as the base model states it: the likelihood behind CoRL's match reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coevo.prompts import AGREED
from coevo.scoring.scorer import Scorer


def agreement_nats(judge: Scorer, reasonings: Sequence[str], candidates: Sequence[str]) -> list[float]:
    """l(y) of the method, section 5: mean token log-probability of the statement that y has all that r lists.

    The statement's tokens alone are scored, its end of turn included; no token of the template and none of the candidate.

    Args:
        judge: the base model, frozen.
        reasonings: r of each candidate.
        candidates: responses; an empty one is not asked about.

    Returns:
        Nats per token; NaN for an empty candidate, or one for which there is no room.
    """
    asked = [place for place, text in enumerate(candidates) if text.strip()]
    prompts = [judge.prompts.agreement_messages(reasonings[place], candidates[place]) for place in asked]
    result = [float("nan")] * len(candidates)
    for place, score in zip(asked, judge.score_messages(prompts, [AGREED] * len(asked)), strict=True):
        if score.status == "ok":
            result[place] = score.logprob_nats / score.n_tokens
    return result


def judgement(own: Sequence[float], others: Sequence[float]) -> float:
    """Share of pairs in which a scenario's own reference is stated to agree more than another's; ties count half.

    0.5 is chance: the base cannot tell, and a reward made of its statements is noise. NaN without a pair.
    """
    pairs = np.array([own, others], dtype=np.float64).reshape(2, -1)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if not pairs.size:
        return float("nan")
    return float(np.mean((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])))
