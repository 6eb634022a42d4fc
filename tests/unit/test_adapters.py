"""Adapters for other people's frameworks; each test is skipped where the framework is not installed."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import coevo
from coevo.config import RewardWeights
from coevo.errors import DataError, ScoreError
from coevo.rewards.parts import Fit, fits, remi
from tests.unit.test_python import XS, Letters

TEXT = "Good evening, and what a night."
SHIFTED = next(x for x in XS if x.shift != "id")


def r_emi(text: str, x: coevo.Scenario = XS[0]) -> float:
    fit, ideal = fits(Letters(), [x, x], [text, x.reference])
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

    def rewarded(text: str, key: str | None, stop: str | None = None) -> dict[str, float]:
        data = vf.TaskData(id=key, prompt="?")
        trace = vf.Trace.model_construct(
            task=data, rewards={}, metrics={}, nodes=[], calls=[], root_reply=text, stop_condition=stop
        )
        asyncio.run(RolePlay(data).score(trace))
        return {name: one.score for name, one in trace.rewards.items()}

    key = XS[0].sample_id
    for name in (key, SHIFTED.sample_id):
        assert rewarded(TEXT, name) == {"remid": reward([""], [TEXT], sample_id=[name])[0]}
    # R6, the default, reads a reply that ran into a limit as one that breaks off; RewardWeights does not score it
    (cut,) = reward.rate([key], [TEXT], ["truncated"])
    assert rewarded(TEXT, key, "max_output_tokens") == {"remid": cut.total}
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

    def scored(text: str, stop: str = "stop", key: str = XS[0].sample_id):
        output = ModelOutput.from_content("m", text, stop_reason=stop)
        state = TaskState("m", key, 1, "?", [], output=output)
        return asyncio.run(score(state, Target("")))

    found = scored(TEXT)
    assert found.value == pytest.approx(r_emi(TEXT)) and found.metadata["scorer_version"] == "letters"
    assert scored(XS[0].reference).value == pytest.approx(0.0)
    assert scored(XS[0].reference).metadata["register_gap"] == pytest.approx(0.0)
    assert scored(TEXT, key=SHIFTED.sample_id).value == pytest.approx(r_emi(TEXT, SHIFTED))
    for one, why in ((scored(" "), "empty"), (scored(TEXT, "max_tokens"), "truncated"), (scored("x" * 501), "too_long")):
        assert why in one.explanation and one.value != one.value
        assert one.reason == ("no_response" if why == "empty" else "scoring_failed")
    with pytest.raises(DataError, match="no scenario is called 'nobody'"):
        scored(TEXT, key="nobody")


def test_inspect_finds_the_scorer_by_name(tmp_path: Path) -> None:
    # from another folder, as users do: Inspect names only what is installed, and the egg-info beside the source hides that
    pytest.importorskip("inspect_ai")
    code = (
        "from inspect_ai._eval.loader import scorer_from_spec; from inspect_ai.scorer._scorer import ScorerSpec\n"
        "print(scorer_from_spec(ScorerSpec('coevo/r_emi'), None, scorer='a run', data='a file').__module__)"
    )  # what `inspect score LOG --scorer coevo/r_emi -S …` calls; nothing is loaded before the first sample
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["coevo.adapters.inspect"], done.stderr


def test_inspect_scores_a_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from coevo.adapters import inspect as adapter

    monkeypatch.setattr(adapter, "load_scorer", lambda name: Letters())
    monkeypatch.setattr(adapter, "load_scenarios", lambda path: XS)
    said = {XS[0].sample_id: TEXT, XS[1].sample_id: "", SHIFTED.sample_id: SHIFTED.reference + "?"}

    def answer(messages, *_):
        output = ModelOutput.from_content("mockllm/model", said[messages[-1].text])
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # or inspect downloads a tokenizer
        return output

    task = inspect_ai.Task(dataset=MemoryDataset([Sample(id=key, input=key) for key in said]))
    model = get_model("mockllm/model", custom_outputs=answer)
    (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=str(tmp_path))
    (found,) = inspect_ai.score(log, adapter.r_emi(scorer="of a log", data="xs"), display="none").results.scores
    values = [r_emi(TEXT), r_emi(SHIFTED.reference + "?", SHIFTED)]
    assert (found.name, found.scored_samples, found.unscored_samples) == ("r_emi", 2, 1)
    assert found.metrics["mean"].value == pytest.approx(statistics.mean(values))
    assert found.metrics["stderr"].value == pytest.approx(statistics.stdev(values) / 2**0.5)


def test_an_installed_coevo_has_its_files() -> None:
    # what is not named in package-data is missing from a wheel, and then no adapter can be loaded
    root = Path(__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {file for package, globs in data.items() for g in globs for file in (root / package.replace(".", "/")).glob(g)}
    files = {file for file in (root / "coevo").rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"}}
    assert sorted(str(file.relative_to(root)) for file in files - named) == []


def test_the_frameworks_are_not_imported_with_coevo() -> None:
    code = "import sys, coevo; coevo.REMIDReward; print({'inspect_ai', 'verifiers', 'fastapi'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
