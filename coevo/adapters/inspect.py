"""R-EMI as a scorer of Inspect (UK AI Security Institute's `inspect_ai`), for logs that are there already and for new tasks.

    inspect score LOG --scorer coevo/r_emi -S scorer=Qwen/Qwen3-4B -S data=dialogues.json

The id of a sample is the `sample_id` of its scenario.
"""

from __future__ import annotations

import asyncio
from functools import cache
from threading import Lock

from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from coevo.config import RewardWeights
from coevo.data import load_scenarios
from coevo.diagnosis.scorers import load_scorer
from coevo.rewards.completions import statuses_of, texts_of
from coevo.rewards.remid import REMIDReward

_LOCK = Lock()
"""One model: it is loaded once, and scores one answer after another."""


@scorer(metrics=[mean(), stderr()], name="r_emi")
def r_emi(scorer: str, data: str) -> Scorer:
    """R-EMI of each answer, in nats, by the learned marginal (M4): what it tells of its scenario, less the reference.

    0 is the reference's level and lower is worse; M, the register gap, stands in the score's metadata, and no claim rests on
    R-EMI without it. An answer that cannot be scored has no value, and the explanation says why.

    Args:
        scorer: a run of `coevo train` with a scorer, or the folder or hub id of a chat model.
        data: the scenarios, in the RPGBench layout.
    """

    async def score(state: TaskState, target: Target) -> Score:
        return await asyncio.to_thread(_score, scorer, data, state)

    return score


def _score(scorer: str, data: str, state: TaskState) -> Score:
    texts = texts_of([state.output.completion])
    cut = bool(state.output.choices) and state.output.choices[0].stop_reason in ("max_tokens", "model_length")
    statuses = ["truncated" if cut else status for status in statuses_of(texts, None, ())]
    key = str(state.sample_id)
    with _LOCK:
        reward = _reward(scorer, data)
        (found,) = reward.rate([key], texts, statuses)
    if found.total is None:
        reason = "no_response" if found.status == "empty" else "scoring_failed"
        return Score.unscored(reason=reason, explanation=f"coevo: {found.status}")
    remi = found.parts["anchor_remi" if "anchor_remi" in found.parts else "negative_remid"]
    gap = found.parts["likelihood_gap"]
    facts = {"register_gap": gap - remi, "likelihood_gap": gap, "scorer_version": reward.version}
    return Score(value=remi, answer=texts[0], metadata=facts)


@cache
def _reward(scorer: str, data: str) -> REMIDReward:
    """Loaded once, whatever the number of samples; under the lock, as `cache` alone lets every thread load."""
    return REMIDReward(load_scorer(scorer), load_scenarios(data), RewardWeights())
