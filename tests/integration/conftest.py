"""Runs of the smoke recipe, shared by the tests that look at one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from coevo.lm.lineage import identity

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "recipes" / "smoke.yaml"


def environment(**extra: str) -> dict[str, str]:
    """One thread a process: several at once on few cores wait for each other."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def coevo(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user calls it, in a process of its own."""
    command = [sys.executable, "-m", "coevo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**extra), cwd=ROOT, check=False)


def stamp(run: Path, phase: str) -> str:
    """What a policy on the shipped base is called in scores: a hash of its weights, and of how the base reads text."""
    return identity(run / "phases" / phase / "policy", Path(str(resources.files("coevo.lm") / "builtin")))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, uninterrupted run of recipes/smoke.yaml."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    done = coevo("train", SMOKE, "--out", out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out
