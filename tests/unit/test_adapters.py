"""Adapters for other people's frameworks; each test is skipped where the framework is not installed."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

import coevo
from coevo.config import RewardWeights
from coevo.errors import DataError, ScoreError
from coevo.rewards.parts import Fit, fits, remi
from tests.unit.test_python import XS, Letters

TEXT = "Good evening, and what a night."


def r_emi(text: str) -> float:
    fit, ideal = fits(Letters(), [XS[0], XS[0]], [text, XS[0].reference])
    assert isinstance(fit, Fit) and isinstance(ideal, Fit)
    return remi(fit, ideal, RewardWeights())


def test_a_task_of_verifiers_is_rewarded() -> None:
    vf = pytest.importorskip("verifiers.v1")
    from coevo.adapters.verifiers import remid

    reward = coevo.REMIDReward(Letters(), XS)
    score = remid(reward)

    class RolePlay(vf.Task):
        @vf.reward
        async def remid(self, task, trace) -> float:
            return await score(task, trace)

    def rewarded(text: str, key: str | None) -> dict[str, float]:
        data = vf.TaskData(id=key, prompt="?")
        trace = vf.Trace.model_construct(task=data, rewards={}, metrics={}, nodes=[], calls=[], root_reply=text)
        asyncio.run(RolePlay(data).score(trace))
        return {name: one.score for name, one in trace.rewards.items()}

    key = XS[0].sample_id
    assert rewarded(TEXT, key) == {"remid": reward([""], [TEXT], sample_id=[key])[0]}
    for text, name, message in (("", key, "cannot be scored: empty"), (TEXT, None, "the task has no id")):
        with pytest.raises(Exception, match=message) as caught:
            rewarded(text, name)
        assert ScoreError in {type(caught.value), type(caught.value.__cause__)}
    with pytest.raises(Exception, match="no scenario is called 'nobody'") as caught:
        rewarded(TEXT, "nobody")
    assert DataError in {type(caught.value), type(caught.value.__cause__)}


def test_inspect_scores_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    from coevo.adapters import inspect as adapter

    monkeypatch.setattr(adapter, "load_scorer", lambda name: Letters())
    monkeypatch.setattr(adapter, "load_scenarios", lambda path: XS)
    score = adapter.r_emi(scorer="letters", data="xs")

    def scored(text: str, stop: str = "stop"):
        output = ModelOutput.from_content("m", text, stop_reason=stop)
        state = TaskState("m", XS[0].sample_id, 1, "?", [], output=output)
        return asyncio.run(score(state, Target("")))

    found = scored(TEXT)
    assert found.value == pytest.approx(r_emi(TEXT)) and found.metadata["scorer_version"] == "letters"
    assert scored(XS[0].reference).value == pytest.approx(0.0)
    assert scored(XS[0].reference).metadata["register_gap"] == pytest.approx(0.0)
    for one, why in ((scored(" "), "empty"), (scored(TEXT, "max_tokens"), "truncated")):
        assert why in one.explanation and one.value != one.value


def test_inspect_finds_the_scorer_by_name() -> None:
    pytest.importorskip("inspect_ai")
    from importlib.metadata import entry_points

    (point,) = [one for one in entry_points(group="inspect_ai") if one.name == "coevo"]
    assert point.load().r_emi


def test_the_frameworks_are_not_imported_with_coevo() -> None:
    code = "import sys, coevo; coevo.REMIDReward; print({'inspect_ai', 'verifiers', 'fastapi'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
