"""Random bases of nine families, each with its family's template habits, through every phase of a run: slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coevo.config.load import load_recipe
from coevo.data import world, write_rpgbench
from coevo.loop.run import train
from tests.compat.families import make_base
from tests.compat.test_templates import FAMILIES as TEMPLATES

ROOT = Path(__file__).resolve().parents[2]
HABITS = {
    "llama": "llama-3.2",
    "mistral": "mistral",
    "qwen2": "qwen2.5",
    "qwen3": "qwen3",
    "gemma2": "gemma-2",
    "gemma3_text": "gemma-3",
    "phi3": "phi-3-mini",
    "gpt_neox": "deepseek-r1",
    "gpt2": "gpt-oss",
}
"""Family -> the habits of its template, or of another one for families without chat models."""
TAUGHT = "epochs: {}, learning_rate: 0.01, batch_size: 8, save_steps: 50"
"""Enough for a random base to end its turns, so that the simulator's pass and the RPM has something to learn from."""


@pytest.mark.slow
@pytest.mark.parametrize("family", HABITS)
def test_a_family_runs_through_every_phase(family: str, tmp_path: Path) -> None:
    positions = {} if family == "gpt2" else {"max_position_embeddings": 1024}
    base = make_base(family, tmp_path / "base", TEMPLATES[HABITS[family]][0], **positions)
    tests = [x for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test") for x in world.generate(split, 5, seed=0)]
    write_rpgbench(tmp_path / "data.json", [*world.generate("IDTrain", 60, seed=0), *tests])
    recipe = load_recipe(
        ROOT / "recipes/smoke.yaml",
        [
            f"base={{kind: hub, path: {base}, dtype: float32}}",
            f"data={{kind: file, path: {tmp_path / 'data.json'}, reference: carry, dev: 6}}",
            "limits.prompt=512",
            "lora=null",
            f"rpm_sft={{{TAUGHT.format(10)}}}",
            f"simulator_sft={{{TAUGHT.format(80)}}}",
            "scorer_sft.samples=16",
            "audit.scenarios=4",
            "loop.iterations=1",
            "loop.shifts=[user, WordLevelComposition]",
            "loop.simulator.gates=[]",
            "loop.harvest=8",
        ],
    )
    run = train(recipe, tmp_path / "run")
    assert {path.name for path in (run / "phases").iterdir() if (path / "done.json").exists()} == {
        "01-sft-rpm",
        "02-sft-scorer",
        "03-audit",
        "04-sft-simulator",
        "05-evaluate-sft",
        "06-simulator-1",
        "07-harvest-1",
        "08-rpm-1",
        "09-accept-1",
        "10-evaluate-final",
    }
    final = json.loads((run / "evaluation/final.json").read_text(encoding="utf-8"))
    assert sum(entry["n"] for entry in final["subsets"].values()) == len(tests)
