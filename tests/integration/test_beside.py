"""A run whose reward has a judge's rubric and a reward model in it, up to the RPM's training."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from coevo.runs.folder import read_rows
from tests.helpers.judge_server import JudgeServer
from tests.helpers.reward_model import make_reward_model
from tests.integration.conftest import SMOKE, coevo

WEIGHTS = {"judge": 2.0, "reward_model": 0.5}


def test_a_run_is_rewarded_by_a_judge_and_a_reward_model_and_held_to_them(tmp_path: Path) -> None:
    model, run = make_reward_model(tmp_path / "model"), tmp_path / "run"
    with JudgeServer() as server:
        judge = f"{{rubric: paper, endpoint: '{server.url}', model: m, key_env: null, weight: {WEIGHTS['judge']}}}"
        done = coevo(
            *("train", SMOKE, "--out", run, "--until", "rpm-1", "loop.iterations=1", "audit.scenarios=2", "loop.harvest=8"),
            f"loop.rpm.weights.judge={judge}",
            f"loop.rpm.weights.reward_model={{path: {model}, weight: {WEIGHTS['reward_model']}}}",
        )
        asked = len(server.calls)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["phase"].endswith("rpm-1")]
    assert rows and asked >= len({row["completion"] for row in rows})
    scored = [row for row in rows if row["reward"] is not None]
    assert scored and all(set(WEIGHTS) < set(row["parts"]) for row in scored)
    rest: dict[str, list[float]] = defaultdict(list)
    for row in scored:
        parts = row["parts"]
        own = parts.get("negative_remid", parts.get("anchor_remi")) + parts["likelihood_gap"]
        beside = sum(weight * parts[name] for name, weight in WEIGHTS.items())
        rest[row["sample_id"]].append(row["reward"] - own - beside)
    # the rest is the baseline of the prompt; parts are written to six places
    assert any(len(found) > 1 for found in rest.values())
    assert all(found == pytest.approx([found[0]] * len(found), abs=1e-4) for found in rest.values())
    other = make_reward_model(tmp_path / "other", seed=1)
    (model / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    resumed = coevo("train", "--resume", run)
    assert resumed.returncode == 2 and "reward_model" in resumed.stderr, resumed.stdout + resumed.stderr
