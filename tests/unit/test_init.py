"""A first recipe fits what it was written for, whatever the data and the machine; what the data lack is said."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from coevo import cli
from coevo.config.load import load_recipe
from coevo.data import world, write_rpgbench
from coevo.errors import ConfigError, DataError
from coevo.plan.plan import plan
from coevo.prepare.init import Machine, measure, missing, recipe_text

BASE = str(resources.files("coevo.lm") / "builtin")


def data(path: Path, train: int = 120, test: int = 20, **changes: object) -> Path:
    made = [*world.generate("IDTrain", train, seed=0), *world.generate("IDTest", test, seed=0)]
    made += world.generate("OOD2Test", test, seed=0)
    write_rpgbench(path, [replace(x, **changes) for x in made])  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("machine", [Machine(None, 2), Machine(80.0, 16)])
@pytest.mark.parametrize(("train", "test"), [(24, 1), (120, 20), (3000, 60)])
def test_the_recipe_fits(machine: Machine, train: int, test: int, tmp_path: Path) -> None:
    path = data(tmp_path / "mine.json", train, test)
    sizes = measure(path, BASE)
    assert (sizes.train, sizes.tests) == (train, {"IDTest": test, "OOD2Test": test}) and sizes.personas > 1
    # the shipped base has 1.3 M weights
    assert sizes.parameters == pytest.approx(1.3e6, rel=0.1)
    (tmp_path / "mine.yaml").write_text(recipe_text(tmp_path / "mine.yaml", path, BASE, sizes, machine))
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert len(plan(recipe)) == 10 and recipe.loop.shifts == ("user", "WordLevelComposition")
    # nearly every prompt is within the limit, which is read off them
    assert recipe.limits.prompt % 16 == 0 and recipe.limits.prompt < sizes.positions


def test_a_tuned_base_gets_no_sft(tmp_path: Path) -> None:
    path, out = data(tmp_path / "mine.json"), tmp_path / "mine.yaml"
    assert cli.main(["init", "--data", str(path), "--base", BASE, "--tuned", "--out", str(out)]) == 0
    recipe = load_recipe(out)
    assert recipe.rpm_sft is None and recipe.scorer_sft.samples == recipe.simulator_sft.samples == 64
    assert [(p.kind, p.updates) for p in plan(recipe) if p.name.endswith("sft-rpm")] == [("as_given", 0)]


def test_names_are_only_names(tmp_path: Path) -> None:
    path = data(tmp_path / 'my "{file}" #1.json')
    out = tmp_path / "it's {file}.yaml"
    assert cli.main(["init", "--data", str(path), "--base", BASE, "--out", str(out)]) == 0
    recipe = load_recipe(out)
    assert recipe.name == "it's {file}" and recipe.data.path == path


def test_what_the_data_lack_is_said(tmp_path: Path) -> None:
    path = data(tmp_path / "mine.json", persona="unknown", dialogue=world.generate("IDTest", 1, seed=0)[0].dialogue)
    sizes = measure(path, BASE)
    assert sizes.personas == 1
    said = " ".join(missing(sizes))
    assert (
        "one persona" in said and "fewer than 30 test scenarios, so that intervals are wide: IDTest (20), OOD2Test" in said
    )
    recipe = recipe_text(tmp_path / "mine.yaml", path, BASE, sizes, Machine(None, 2))
    assert "shifts: [WordLevelComposition]" in recipe
    with pytest.raises(ConfigError, match="reads 100 tokens, and 95% of prompts and responses need"):
        recipe_text(tmp_path / "mine.yaml", path, BASE, replace(sizes, positions=100), Machine(None, 2))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"IDTest": 30}, "has no split 'IDTrain'; it has IDTest. Have training and test splits made: coevo data shift"),
        ({"IDTrain": 30}, "IDTrain is its only split, so nothing could be measured"),
        ({"IDTrain": 10, "IDTest": 30}, "IDTrain has 10 scenarios; expected at least 24"),
    ],
)
def test_data_of_which_no_recipe_can_be_made(splits: dict[str, int], message: str, tmp_path: Path) -> None:
    write_rpgbench(tmp_path / "mine.json", [x for name, n in splits.items() for x in world.generate(name, n, seed=0)])
    with pytest.raises(DataError, match=message):
        measure(tmp_path / "mine.json", BASE)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = data(tmp_path / "mine.json"), tmp_path / "mine.yaml"
    words = ["init", "--data", str(path), "--base", BASE, "--out", str(out), "--yes"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert f"Next: coevo train {out} --dry-run" in shown.out and "fewer than 30 test scenarios" in shown.err
    assert f"coevo train {out} --dry-run" in out.read_text()
    assert cli.main(["train", str(out), "--dry-run"]) == 0 and "09-accept-1" in capsys.readouterr().out
    assert cli.main(words) == 2 and "expected a new file" in capsys.readouterr().err
    assert cli.main([*words[:-3], "--out", str(tmp_path / "x"), "--base", "/nowhere/model"]) == 2
