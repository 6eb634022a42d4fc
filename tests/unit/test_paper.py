"""recipes/paper and docs/paper.md: what is shipped for the paper's experiments reads, fits, and costs what the page says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.config.load import dump_recipe, load_recipe, parse_yaml
from coevo.data import world, write_rpgbench
from coevo.experiment.matrix import Experiment, read_experiment
from coevo.loop.material import load_material
from coevo.plan.cost import parameters
from coevo.plan.plan import Counts, PhasePlan, count, plan

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "recipes" / "paper"
DOC = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
BASES = {"qwen3-4b": 4e9, "llama-3-8b": 8e9}
COUNTS = Counts(4936, 64, 4936, 2400, 200)
"""5,000 samples in IDTrain, 64 of them held out; 200 in each of 12 subsets. No file is read."""
# real dialogues in the layout
DRAMA = Path(os.environ.get("COEVO_DATA", ROOT.parent / "shared" / "data")) / "drama" / "drama.json"


def methods(base: str) -> Experiment:
    return read_experiment(PAPER / f"{base}-methods.yaml")


@pytest.mark.parametrize("base", BASES)
def test_recipes_read_fit_and_read_back(base: str, tmp_path: Path) -> None:
    recipe = load_recipe(PAPER / f"{base}.yaml")
    assert recipe.name == base and parameters(recipe) == BASES[base]
    assert plan(recipe, COUNTS)[-1].name.endswith("evaluate-final")
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(copy) == recipe


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("base", BASES)
def test_every_method_and_estimator_fits(base: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    found = methods(base)
    for cell in (*found.cells, *found.estimators):
        assert plan(cell.recipe, COUNTS), cell.name
    assert {cell.recipe.method.kind for cell in found.cells} >= {"sft", "augmented_sft", "dpo", "rejection_sft", "grpo"}


def test_the_bases_differ_in_name_and_base_alone() -> None:
    trees = [load_recipe(PAPER / f"{base}.yaml").model_dump() for base in BASES]
    assert {key for key in trees[0] if trees[0][key] != trees[1][key]} == {"name", "base"}
    files = [parse_yaml((PAPER / f"{base}-methods.yaml").read_text(encoding="utf-8"), base) for base in BASES]
    assert {key for key in files[0] | files[1] if files[0][key] != files[1][key]} == {"name", "recipe"}


def test_the_released_settings_are_in_the_recipes() -> None:
    # as the table of docs/paper.md lists them
    recipe = load_recipe(PAPER / "qwen3-4b.yaml")
    assert recipe.lora is not None and (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (16, 32, 0.05)
    sft = recipe.rpm_sft
    assert (sft.learning_rate, sft.schedule, sft.warmup, sft.max_grad_norm) == (2e-4, "cosine", 0.03, 0.3)
    assert (sft.batch_size, sft.accumulation, sft.epochs) == (16, 4, 3)
    assert (recipe.limits.prompt, recipe.limits.response, recipe.evaluation.repetition_penalty) == (3072, 256, 1.05)
    cells = {cell.method: cell.recipe for cell in methods("qwen3-4b").cells}
    for name in ("grpo_likelihood", "grpo", "think_grpo"):
        grpo: Any = cells[name].method
        assert (grpo.learning_rate, grpo.group, grpo.kl) == (1e-5, 8, 0)
        # on four processes
        assert (grpo.prompts * grpo.group // 4 // grpo.accumulation, grpo.accumulation) == (4, 8)
    assert cells["grpo_likelihood"].weights.information == 0 and cells["grpo"].weights.information == 1


def test_dry_run_on_real_dialogues(capsys: pytest.CaptureFixture[str]) -> None:
    if not DRAMA.exists():
        pytest.skip("the drama file is not here; set COEVO_DATA to the folder that holds drama/drama.json")
    for base in BASES:
        assert cli.main(["train", str(PAPER / f"{base}.yaml"), f"data.path={DRAMA}", "--dry-run"]) == 0
        assert "evaluate-final" in capsys.readouterr().out


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an RPGBench in two files, as the page takes the hub's to be, and the recipes where they are named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rpgbench").mkdir()
    train = world.generate("IDTrain", 200, seed=0)
    tests = [x for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test") for x in world.generate(split, 10, seed=0)]
    write_rpgbench(tmp_path / "rpgbench" / "all.json", [*train, *tests])
    rows = json.loads((tmp_path / "rpgbench" / "all.json").read_text(encoding="utf-8"))["IDTrain"][:40]
    cold = {"IDTrain": [row | {"SThought": "The user is tired."} for row in rows]}
    (tmp_path / "rpgbench" / "cold.json").write_text(json.dumps(cold), encoding="utf-8")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


def test_the_page_makes_one_file_of_several_and_its_recipes_take_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    exec(snippet, {})  # noqa: S102
    assert cli.main(["data", "check", "rpgbench.json"]) == 0
    merged = json.loads((here / "rpgbench.json").read_text(encoding="utf-8"))
    assert len(merged["IDTrain"]) == 200 and sum("SThought" in row for row in merged["IDTrain"]) == 40
    shown = re.findall(r"^coevo train (\S+) (?:'(.*)'|(\S+)) --dry-run$", DOC, re.MULTILINE)
    assert len(shown) == 2
    for path, quoted, plain in shown:
        assert cli.main(["train", path, quoted or plain, "--dry-run"]) == 0
    assert "grpo" in capsys.readouterr().out
    found = methods("qwen3-4b")
    counts = count(found.cells[0].recipe)
    for cell in (*found.cells, *found.estimators):
        assert plan(cell.recipe, counts), cell.name
    # the reasonings are read as the sections say, for the estimator and for the methods that think
    (reasoning,) = (cell.recipe for cell in found.estimators if cell.recipe.corl is not None)
    corpus = load_material(reasoning).corpus
    assert corpus is not None and corpus.reasoned[0][1] == "thought: The user is tired."
    thinking = next(cell.recipe for cell in found.cells if cell.method == "think_grpo")
    thoughts = load_material(thinking).thoughts
    assert thoughts is not None and len(thoughts.reasoned) == 40


def hours(phases: list[PhasePlan]) -> float:
    return sum(phase.seconds_estimate or 0.0 for phase in phases) / 3600


def test_the_pages_hours_are_the_plans() -> None:
    for column, base in enumerate(BASES):
        found = methods(base)
        cells = {cell.method: plan(cell.recipe, COUNTS) for cell in found.cells}
        shared = cells["sft"][:4]
        expected = {name: hours([phase for phase in phases if phase not in shared]) for name, phases in cells.items()}
        for cell in found.estimators:
            phases = plan(cell.recipe, COUNTS)
            names = [phase.name.split("-", 1)[1] for phase in phases]
            expected[f"estimators, once for all seeds: `{cell.method}"] = hours(phases[: names.index(cell.until or "") + 1])
        rows = re.findall(r"^\| (.*?)`? \| ([\d.]+) \| ([\d.]+) \|$", DOC, re.MULTILINE)
        stated = {name.removeprefix("`"): float(numbers[column]) for name, *numbers in rows}
        first = stated.pop("shared by the methods: SFT, scorer, audit, first evaluation")
        assert first == pytest.approx(hours(shared), abs=0.06)
        assert stated == pytest.approx(expected, abs=0.06)
