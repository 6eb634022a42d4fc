"""Two CPU processes under DDP, ZeRO-2 and ZeRO-3: the same phases, the same rewards, the same lineage."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from coevo.lm.lineage import read_lineage
from coevo.loop.coevolution import draw_frames, prompt_mix, rpm_reward_for, simulator_reward_for
from coevo.loop.context import Context
from coevo.loop.material import load_material
from coevo.plan.plan import plan
from coevo.progress import Silent
from coevo.runs.folder import RunFolder, read_rows
from coevo.train.grpo import Completion
from tests.integration.conftest import ROOT, SMOKE, environment

# a phase of each kind, as short as can be; two processes divide every batch
SHORT = ["loop.iterations=1", "evaluation.k=1"]


def launch(config: str, out: Path) -> Path:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"launch/accelerate/{config}.yaml"]
    command += ["-m", "coevo", "train", str(SMOKE), *SHORT, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return out


def reopen(run: Path) -> Context:
    folder, recipe = RunFolder.open(run)
    return Context(recipe, folder, load_material(recipe), plan(recipe), Silent())


def check_run(run: Path) -> int:
    """Checks what a run left behind; returns how many logged rewards were computed again."""
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    weights = sorted(run.glob("phases/*/policy/*.safetensors"))
    assert len(weights) == 5  # three SFTs, two players
    assert len({hashlib.sha256(p.read_bytes()).hexdigest() for p in weights}) == 5
    assert len({read_lineage(path.parent).base for path in weights}) == 1
    return rewards_equal_one_process(run)


def rewards_equal_one_process(run: Path) -> int:
    """Judges the logged completions again in this one process."""
    context = reopen(run)
    phases = {phase.name: phase for phase in context.plan}
    rows = [r for r in read_rows(run / "rollouts.jsonl") if r["step"] == 1]
    simulator = phases["06-simulator-1"]
    frames = draw_frames(context, simulator, context.recipe.loop.simulator.steps * context.recipe.loop.simulator.prompts)
    rpm = phases["08-rpm-1"]
    judges = {
        "simulator": (simulator, simulator_reward_for(context, simulator, frames)),
        "rpm": (rpm, rpm_reward_for(context, rpm, prompt_mix(context, rpm))),
    }
    judged = 0
    for role, (phase, judge) in judges.items():
        mine = [r for r in rows if r["phase"] == phase.name]
        assert len(mine) == {"simulator": 16, "rpm": 8}[role]  # 4 prompts × 4 and × 2 completions
        # a truncated turn is marked by its reason, a truncated answer by its status
        again = judge.judge([Completion(r["sample_id"], r["completion"], (), status_of(r)) for r in mine])
        for row, sample in zip(mine, again, strict=True):
            if row["reward"] is None:
                assert sample.reward.total is None
            else:
                assert sample.reward.total == pytest.approx(row["reward"], abs=1e-3), role
        judged += len(mine)
    return judged


CHECKED = 24
"""One step of either player: 4 prompts × 4 turns and 4 prompts × 2 answers."""


def status_of(row: dict) -> str:
    if row["role"] == "rpm":
        return row["status"] if row["status"] in ("truncated", "empty") else "ok"
    return {"unfinished": "truncated", "empty": "empty"}.get(row["reason"], "ok")


def test_ddp(tmp_path: Path) -> None:
    assert check_run(launch("cpu-ddp", tmp_path / "run")) == CHECKED


def test_zero2(tmp_path: Path) -> None:
    assert check_run(launch("cpu-zero2", tmp_path / "run")) == CHECKED


@pytest.mark.slow
def test_zero3(tmp_path: Path) -> None:
    assert check_run(launch("cpu-zero3", tmp_path / "run")) == CHECKED
