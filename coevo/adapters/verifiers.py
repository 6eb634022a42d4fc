"""coevo's reward in a `verifiers` task (PrimeIntellect's environments, which prime-rl and others train on).

    # my_environment.py
    import verifiers.v1 as vf
    from coevo.adapters.verifiers import remid

    score = remid(coevo.REMIDReward(coevo.load_scorer("runs/scorer"), coevo.load_scenarios("dialogues.json")))

    class RolePlay(vf.Task):
        @vf.reward
        async def remid(self, task, trace) -> float:
            return await score(task, trace)

The task's `id` is the scenario's `sample_id`. Since version 0.4 verifiers has no rubrics: a task's rewards are functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TYPE_CHECKING

from coevo.errors import ScoreError
from coevo.rewards.completions import statuses_of, texts_of
from coevo.rewards.remid import REMIDReward

if TYPE_CHECKING:
    from verifiers.v1 import TaskData, Trace


def remid(reward: REMIDReward) -> Callable[[TaskData, Trace], Awaitable[float]]:
    """A reward of a task: what its last reply is worth in the scenario that the task's `id` names.

    Rollouts are scored one after another in a thread, as the scorer is one model, so that the event loop goes on.

    Raises:
        ScoreError: by the function, for a reply that cannot be scored (empty, too long) or a task without an id; verifiers
            then marks the rollout as failed, and a trainer leaves it out, as TRL does with None.
        DataError: by the function, for an id that no scenario has.
    """
    lock = Lock()

    async def remid(task: TaskData, trace: Trace) -> float:
        if task.id is None:
            raise ScoreError("coevo: the task has no id; expected the sample_id of its scenario in TaskData.id.")
        texts = texts_of([trace.last_reply])
        statuses = ["truncated" if trace.is_truncated else status for status in statuses_of(texts, None, ())]

        def score() -> float:
            with lock:
                (found,) = reward.rate([str(task.id)], texts, statuses)
            if found.total is None:
                raise ScoreError(f"coevo: the reply to {task.id} cannot be scored: {found.status}")
            return found.total

        return await asyncio.to_thread(score)

    return remid
