"""The library against the command line: the same rewards as a run's, also over HTTP; the same diagnosis; the examples."""

from __future__ import annotations

import json
import operator
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coevo
from coevo.data import world, write_rpgbench
from coevo.data.responses import read_answers
from coevo.loop.material import load_material
from coevo.runs.folder import RunFolder, read_rows
from tests.integration.conftest import ROOT, SMOKE, environment
from tests.integration.conftest import coevo as command
from tests.unit.test_python import served

BASE = str(resources.files("coevo.lm") / "builtin")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose RPM learns by GRPO on ID prompts."""
    out = tmp_path_factory.mktemp("library") / "run"
    asked = ("method=grpo", "method.steps=2", "method.prompts=4", "method.group=4", "method.save_steps=1")
    done = command("train", SMOKE, *asked, "--out", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenarios = [*world.generate("IDTest", 8, seed=1), *world.generate("OOD1Test", 10, seed=1)]
    write_rpgbench(folder / "world.json", scenarios)
    rows = [
        {"sample_ID": x.sample_id, "response": (x if n % 3 else scenarios[n - 1]).reference, "model": "mine"}
        for n, x in enumerate(scenarios)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_rewards_are_the_loops_own_here_and_over_http(run: Path) -> None:
    folder, recipe = RunFolder.open(run)
    known = {x.sample_id: x for x in load_material(recipe).id_train}
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(folder.root / "rollouts.jsonl"):
        steps.setdefault(row["step"], []).append(row)
    assert sum(map(len, steps.values())) == 32
    scorer = coevo.load_scorer(run)
    reward = coevo.REMIDReward(scorer, list(known.values()), recipe.weights)
    scored = 0
    with served(reward) as url:
        remote = coevo.RemoteReward(url)
        for rows in steps.values():
            # what a run leaves unscored for its length is told by its tokens, which rollouts.jsonl does not hold
            whole = [row for row in rows if row["status"] == "ok"]
            keys = [row["sample_id"].rpartition("#")[0] for row in whole]
            texts = [row["completion"] for row in whole]
            for one in (reward, remote):
                found = one(prompts=[""] * len(texts), completions=texts, sample_id=keys)
                # float32 holds 32 nats to 4e-6, and a batch of other lengths rounds otherwise
                assert found == pytest.approx([row["reward"] for row in whole], rel=1e-6, abs=1e-6)
                for parts, row in zip(one.parts, whole, strict=True):
                    assert dict(parts) == pytest.approx(row["parts"], abs=1e-5)
            scored += len(whole)
    assert scored >= 8


def test_a_diagnosis_is_the_command_lines(run: Path, data: Path) -> None:
    out = data / "out"
    asked = ("--data", data / "world.json", "--responses", data / "mine.jsonl", "--scorer", run, "--out", out)
    done = command("score", *asked, "k=2", "resamples=50")
    assert done.returncode == 0, done.stderr[-2000:]
    scenarios = coevo.load_scenarios(data / "world.json")
    here = coevo.diagnose(coevo.load_scorer(run), scenarios, data / "mine.jsonl", k=2, resamples=50).models["mine"]
    there = coevo.Diagnosis.read(out).models["mine"]
    assert here.verdict == there.verdict and here.shifts.keys() == there.shifts.keys()
    for name, shift in there.shifts.items():
        for measure in ("remi", "register_gap", "remid"):
            mine, other = getattr(here.shifts[name], measure), getattr(shift, measure)
            assert (mine is None) == (other is None)
            assert mine is None or mine.to_dict() == pytest.approx(other.to_dict(), abs=1e-4)
    assert {tag: entry.bound for tag, entry in here.subsets.items()} == pytest.approx(
        {tag: entry.bound for tag, entry in there.subsets.items()}, abs=1e-6
    )


def test_a_trained_model_answers(run: Path, data: Path) -> None:
    scenarios = coevo.load_scenarios(data / "world.json", ["IDTest"])
    answers = coevo.generate(run, scenarios[:3], max_new_tokens=48)
    assert [a.sample_id for a in answers] == [x.sample_id for x in scenarios[:3]]
    assert all(a.model == "run" and a.text for a in answers)
    out = data / "responses.jsonl"
    done = command("generate", "--data", data / "world.json", "--model", run, "--max-tokens", 48, "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    (read,) = read_answers(data / "world.json", [out]).by_model.values()
    assert [(r.sample_id, r.text) for r in read[:3]] == [(r.sample_id, r.text) for r in answers] and len(read) == 18


def example(name: str, *options: object, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "examples" / name), *map(str, options)]
    # the example of TRL's own loop brings its own settings of accelerate
    return subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=folder, check=False)


def test_the_example_trains_with_bare_trl(run: Path, data: Path, tmp_path: Path) -> None:
    options = ("--model", BASE, "--scorer", run, "--data", data / "world.json", "--splits", "IDTest", "--steps", 2)
    done = example("trl_reward.py", *options, "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "rewards/remid/mean" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_example_audits_a_reward(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def exact(completions, reference, **_):\n    return [float(a == b) for a, b in zip(completions, reference)]\n"
    )
    failed = example("audit_any_reward.py", "--data", data / "world.json", folder=tmp_path)
    assert failed.returncode == 1 and "The reward fails" in failed.stdout and "padding" in failed.stdout, failed.stderr
    passed = example("audit_any_reward.py", "--data", data / "world.json", "--reward", "mine:exact", folder=tmp_path)
    assert passed.returncode == 0 and "The reward passes" in passed.stdout, passed.stderr


def blocks(page: str) -> list[str]:
    """The Python of a page, in its order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def as_documented(run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "scorer").symlink_to(run)
    (tmp_path / "dialogues.json").symlink_to(data / "world.json")
    (tmp_path / "responses.jsonl").symlink_to(data / "mine.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_script_goes_from_files_to_remid(as_documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = [block for block in blocks("README.md") if "import coevo" in block]
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    exec(compile(script, "README.md", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    assert "with reasoning: False" in said
    assert re.search(r"mine user R-EMI -?\d+\.\d\d \[.*\] M .* R-EMID -?\d+\.\d\d \[", said)


def test_the_python_page_does_what_it_says(as_documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    own, others = -rng.random(20), -5 - rng.random((20, 3))
    names: dict[str, Any] = {
        "my_reward": lambda completions, reference, **_: list(map(operator.eq, completions, reference)),
        "log_q_own": own, "log_q_others": others, "log_q_ref": own + 0.1, "log_q_ref_others": others,
    }  # fmt: skip
    likelihoods = coevo.estimates.Likelihoods(own, others=others)
    names |= {"said_shifted": likelihoods, "ideal_shifted": likelihoods}
    ran = 0
    for block in blocks("docs/python.md"):
        # those need a model of the reader's own, or another library; the examples and tests/unit/test_adapters.py run them
        if "GRPOTrainer" not in block and "verifiers" not in block:
            exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102
            ran += 1
    assert ran == 3 and "user " in capsys.readouterr().out
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in coevo.__all__ if f"`{name}" not in page] == []
