"""PPO finds a known best answer, alone and on two processes, and a phase that was stopped ends as if it had not been."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from coevo.config.training import PPO
from coevo.lm.lineage import VALUE_HEAD_FILE, read_lineage, weights_hash
from coevo.runs.folder import read_rows
from coevo.train.checkpoints import COMPLETE
from tests.helpers.bandit import RATES, SETTING, Bandit, letter_base
from tests.integration.conftest import ROOT, SMOKE, coevo, environment

KINDS = ["lora", "full"]
STEPS = 31
"""Of 64 completions: 1,984."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_base(tmp_path_factory.mktemp("bandit"))


def check_learnt(rewards: list[float], log: list[Any]) -> None:
    """The best reward is 1: all four letters right. Three steps in a row are 192 completions."""
    assert len(rewards) * 64 <= 2000
    assert fmean(rewards[:2]) < 0.6
    assert max(fmean(rewards[i : i + 3]) for i in range(len(rewards) - 2)) >= 0.95, rewards
    losses = [metrics["value_loss"] for _, metrics in log]
    assert fmean(losses[-5:]) < fmean(losses[:5]), losses


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_the_best_answer(base: Path, tmp_path: Path, kind: str) -> None:
    bandit = Bandit(base, tmp_path, kind == "lora", PPO(**(SETTING | {"steps": STEPS, "learning_rate": RATES[kind]})))
    assert bandit.train()
    check_learnt(bandit.rewards, bandit.log)


def launch(folder: Path, base: Path, kind: str, steps: int, save_steps: int, *keys: str) -> dict[str, Any]:
    """The same on two CPU processes."""
    if not (folder / "base").exists():
        shutil.copytree(base, folder / "base")
    config = ["--config_file", "launch/accelerate/cpu-ddp.yaml", "-m", "tests.helpers.bandit"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *config, str(folder), kind]
    command += [f"steps={steps}", f"save_steps={save_steps}", *keys]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    seen: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    assert seen["world"] == 2
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_find_the_best_answer(base: Path, tmp_path: Path, kind: str) -> None:
    seen = launch(tmp_path, base, kind, STEPS, 1000)
    check_learnt(seen["rewards"], seen["log"])


def policy_digests(run: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (run / "policy").glob("*.safetensors")}


def stop_after_step_two(run: Path) -> None:
    """Leaves of a finished phase what a kill during its third step would have left."""
    done = {int(p.parent.name.removeprefix("checkpoint-")): p for p in run.glob(f"checkpoints/*/{COMPLETE}")}
    # two epochs of two minibatches are four updates a step; the marker counts steps
    assert {update: json.loads(marker.read_text())["step"] for update, marker in done.items()} == {8: 2, 16: 4}
    shutil.rmtree(done[16].parent)
    shutil.rmtree(run / "policy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_phase_is_bit_identical(base: Path, tmp_path: Path, kind: str) -> None:
    config = PPO(**(SETTING | {"steps": 4, "save_steps": 2, "epochs": 2, "minibatches": 2, "kl": 0.1}))
    whole = Bandit(base, tmp_path, kind == "lora", config)
    whole.train()
    expected = policy_digests(tmp_path)
    assert VALUE_HEAD_FILE in expected
    stop_after_step_two(tmp_path)
    resumed = Bandit(base, tmp_path, kind == "lora", config, resume=True)
    resumed.train()
    assert policy_digests(tmp_path) == expected
    assert [row for row in whole.log if row[0] > 2] == resumed.log and len(resumed.log) == 2


@pytest.mark.slow
def test_a_resumed_phase_is_bit_identical_on_two_processes(base: Path, tmp_path: Path) -> None:
    keys = ["epochs=2", "minibatches=2", "kl=0.1"]
    whole = launch(tmp_path, base, "lora", 4, 2, *keys)
    expected = policy_digests(tmp_path / "run")
    stop_after_step_two(tmp_path / "run")
    resumed = launch(tmp_path, base, "lora", 4, 2, *keys)
    assert policy_digests(tmp_path / "run") == expected
    assert whole["log"][2:] == resumed["log"]


def test_the_loop_runs_by_ppo(tmp_path: Path) -> None:
    chosen = [f"loop.{role}={{algorithm: ppo, steps: 1, prompts: 4, group: 2, epochs: 2}}" for role in ("simulator", "rpm")]
    run = tmp_path / "run"
    done = coevo("train", SMOKE, *chosen, "loop.tolerance_nats=1000", "--out", run)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    policies = {
        phase: run / "phases" / phase / "policy" for phase in ("06-simulator-1", "10-simulator-2", "08-rpm-1", "12-rpm-2")
    }
    for phase, policy in policies.items():
        assert read_lineage(policy).sha256 == weights_hash(policy) and (policy / VALUE_HEAD_FILE).is_file(), phase
    rows = {row["phase"]: row for row in read_rows(run / "metrics.jsonl") if row["phase"] in policies and row["step"]}
    restored = {phase: row["value_head_restored"] for phase, row in rows.items()}
    # the second simulator continues from the first; a warm start has no value head
    assert restored["06-simulator-1"] == restored["08-rpm-1"] == 0 and restored["10-simulator-2"] == 1
    kept = json.loads((run / "phases" / "09-accept-1" / "done.json").read_text())["facts"]["kept"]
    assert restored["12-rpm-2"] == float(kept)
    assert all("value_loss" in row and "clip_fraction" in row for row in rows.values())
