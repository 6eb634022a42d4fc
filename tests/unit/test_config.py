"""Recipes: all that ship parse, and a bad one says what to write instead."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from coevo import config
from coevo.config import Recipe, dump_recipe, load_recipe, parse_recipe
from coevo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def _recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_and_is_named_like_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_resolved_dump_reads_back_as_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load_recipe(_recipe(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nsed: 1", r"sed: unknown key; did you mean 'seed'\?"),
        ("name: x\nloop: {itterations: 2}", r"loop\.itterations: unknown key; did you mean 'iterations'\?"),
        ("name: x\nloop: {rpm: {step: 2}}", r"loop\.rpm\.step: unknown key; did you mean 'steps'\?"),
        ("name: x\ndata: {kind: world, trian: 5}", r"data\.trian: unknown key; did you mean 'train'\?"),
        ("name: x\nqqqqqq: 1", r"qqqqqq: unknown key; known keys: .*seed"),
        ("seed: 1", r"name: Field required"),
        ("name: x\nseed: often", r"seed: .*integer.*'often'"),
        ("name: x\nloop: {iterations: 0}", r"loop\.iterations: .*greater than 0.*got 0"),
        ("name: x\nloop: {shifts: [klingon]}", r"klingon.*known tags: german"),
        ("name: x\nbase: {kind: small, path: null}", r"pretrain goes with a small base of path null"),
        ("name: x\nloop: {rpm: {id_share: 0.8, replay_share: 0.4}}", r"id_share \+ replay_share must be at most 1"),
        ("name: x\ndata: {kind: file, path: a.json}", r"data\.reference: Field required"),
        ("- a\n- b", r"a recipe is a mapping .* found list"),
        ("name: [x", r"not valid YAML"),
    ],
)
def test_bad_recipe_names_the_place_and_the_remedy(text: str, expected: str, tmp_path: Path) -> None:
    path = _recipe(tmp_path, text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        load_recipe(_recipe(tmp_path, "name: x\nsed: 1\nlimitts: {}"))


def test_missing_recipe_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        load_recipe(tmp_path / "gone.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(path)


def test_overrides_are_dotted_and_typed_by_yaml(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "name: x\nseed: 3")
    recipe = load_recipe(path, ["seed=5", "loop.rpm.steps=7", "lora=null", "loop.shifts=[german, Theater]"])
    assert (recipe.seed, recipe.loop.rpm.steps, recipe.lora) == (5, 7, None)
    assert recipe.loop.shifts == ("german", "Theater")
    assert recipe.loop.simulator == config.SimulatorPhase(), "an override leaves its neighbours at their defaults"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "expected key=value"),
        ("=1", "expected key=value"),
        ("seed=[1", "not valid YAML"),
        ("seed.deep=1", "'seed' holds 0, it has no keys"),
        ("loop.rpm.stepz=1", r"did you mean 'steps'\?"),
    ],
)
def test_bad_overrides(override: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_recipe(_recipe(tmp_path, "name: x\nseed: 0"), [override])


def test_recipe_is_frozen() -> None:
    recipe = parse_recipe({"name": "x"}, "here")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def _models() -> list[type[BaseModel]]:
    found = [value for value in vars(config).values() if isinstance(value, type) and issubclass(value, config.Model)]
    return [model for model in found if model is not config.Model]


def test_docs_name_every_key_and_no_other() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_]+)`", text, re.MULTILINE))
    known = {name for model in _models() for name in model.model_fields}
    assert Recipe in _models() and documented == known
