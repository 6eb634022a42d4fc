"""A reward's parts by name: functions of others', weighed, audited, logged, and refused where they do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coevo.config import RealText, Recipe, RewardWeights
from coevo.config.load import load_recipe
from coevo.data import BATTERIES, world
from coevo.errors import CheckpointError, ConfigError, ScoreError
from coevo.plan import functions
from coevo.plan.plan import plan
from coevo.rewards.audit import audit
from coevo.rewards.parts import Fit, rpm_reward
from coevo.rewards.verdict import table
from coevo.runs.record import refuse_other_parts
from coevo.types import Score

SOURCE = """
def polite(scenario, completion, fit, reference):
    return float("please" in completion or completion == scenario.reference)

def few(scenario, completion):
    return 0.0

def broken(scenario, completion, fit, reference):
    raise RuntimeError("no server")

def leaving(scenario, completion, fit, reference):
    raise SystemExit(0)

def huge(scenario, completion, fit, reference):
    return 10**400

class Unshown:
    def __repr__(self):
        raise RuntimeError("no words")

def unshown(scenario, completion, fit, reference):
    return Unshown()

class Rule:
    def __call__(self, scenario, completion, fit, reference):
        return 1.0

rule = Rule()

def nothing(scenario, completion, fit, reference):
    return None
"""
X = world.generate("IDTest", 1, seed=0)[0]
FIT, REFERENCE = Fit(-4.0, -9.0), Fit(-3.0, -9.0)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch) -> str:
    """A module of its own name in the folder that the command is run from."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text("name: x", encoding="utf-8")
    return load_recipe(tmp_path / "recipe.yaml", overrides)


def test_a_function_is_weighed_and_logged(mine: str) -> None:
    name = f"{mine}:polite"
    plain, weighed = RewardWeights(), RewardWeights(functions={name: 0.5})
    further = functions.worth(weighed.functions, X, "Yes, please.", FIT, REFERENCE)
    without, found = (rpm_reward(FIT, REFERENCE, 1.0, w, True, f) for w, f in ((plain, {}), (weighed, further)))
    assert found.total == pytest.approx((without.total or 0) + 0.5) and found.parts[name] == 1.0


def test_the_audit_puts_it_to_the_test_alone(mine: str) -> None:
    class Flat:
        version = "flat"

        def score(self, asks):
            return [Score(-1.0, 1) for _ in asks]

    name = f"{mine}:polite"
    weights = RewardWeights(information=0, register_gap=0, functions={name: 1.0})
    found = audit(Flat(), BATTERIES["world"]([X], 0), weights, Recipe(name="x").audit, 0)
    assert name in found.parts and found.weights[name] == 1.0
    assert found.members["loop"].above[name].value == 1.0 and found.members["loop"].above["information"].value == 0.0
    assert f"1 × {name}" in table(found)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("nowhere:polite", r"nowhere cannot be imported \(ModuleNotFoundError"),
        ("builtins:dict", r"cannot be called with scenario"),
        ("{}:polit", r"has no function 'polit'\. Did you mean polite\?"),
        ("{}:few", r"cannot be called with scenario, completion, fit, reference by name"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_runs(mine: str, tmp_path: Path, function, expected) -> None:
    name = function.format(mine)
    with pytest.raises(ConfigError, match=rf"recipe x: 1 setting\(s\) that do not fit:\n.*{expected}"):
        plan(recipe(tmp_path, f"loop.rpm.weights.functions={{'{name}': 1}}"))


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'polite': expected package\.module:function"):
        recipe(tmp_path, "loop.rpm.weights.functions={polite: 1}")


def test_what_it_gives_must_be_a_number(mine: str) -> None:
    with pytest.raises(ScoreError, match=rf"{mine}:nothing gave None for scenario {X.sample_id}"):
        functions.worth([f"{mine}:nothing"], X, "Yes.", FIT, REFERENCE)
    with pytest.raises(ScoreError, match=rf"{mine}:huge gave 1000.*expected a finite number"):
        functions.worth([f"{mine}:huge"], X, "Yes.", FIT, REFERENCE)
    with pytest.raises(ScoreError, match=rf"{mine}:unshown gave .*Unshown"):
        functions.worth([f"{mine}:unshown"], X, "Yes.", FIT, REFERENCE)
    with pytest.raises(ScoreError, match=rf"{mine}:leaving ended in SystemExit: 0"):
        functions.worth([f"{mine}:leaving"], X, "Yes.", FIT, REFERENCE)
    with pytest.raises(ScoreError, match=rf"{mine}:broken ended in RuntimeError: no server, on scenario {X.sample_id}"):
        functions.worth([f"{mine}:broken"], X, "Yes.", FIT, REFERENCE)


def test_a_module_that_ends_the_program_is_refused(mine: str, tmp_path: Path) -> None:
    (tmp_path / f"{mine}_ends.py").write_text("raise SystemExit(0)\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"_ends cannot be imported \(SystemExit: 0\)"):
        plan(recipe(tmp_path, f"loop.rpm.weights.functions={{'{mine}_ends:f': 1}}"))


def test_an_object_that_can_be_called_is_a_function_too(mine: str) -> None:
    name = f"{mine}:rule"
    assert functions.worth([name], X, "Yes.", FIT, REFERENCE) == {name: 1.0}
    assert functions.source_hashes([name])[name] == functions.source_hashes([f"{mine}:polite"])[f"{mine}:polite"]


def test_a_run_keeps_its_functions(mine: str, tmp_path: Path) -> None:
    made = recipe(tmp_path, f"loop.rpm.weights.functions={{'{mine}:polite': 1}}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/environment.json").write_text(
        f'{{"functions": {{"{mine}:polite": "{functions.source_hashes([f"{mine}:polite"])[f"{mine}:polite"]}"}}}}'
    )
    refuse_other_parts(tmp_path / "run", made)
    (tmp_path / f"{mine}.py").write_text(SOURCE + "\n# edited\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"{mine}:polite: the file of this part of the reward has been edited"):
        refuse_other_parts(tmp_path / "run", made)


def test_r6_takes_them_too(mine: str) -> None:
    weights = RealText(kind="real_text", functions={f"{mine}:polite": 2.0})
    assert weights.by_part[f"{mine}:polite"] == 2.0 and "functions" not in weights.by_part
