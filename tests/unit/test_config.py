"""Recipes: all that ship parse, and a bad one says what to write instead."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from coevo import config
from coevo.config import Recipe, inputs
from coevo.config import methods as method
from coevo.config import training as tuning
from coevo.config.load import dump_recipe, load_recipe, parse_recipe
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
        ("name: x\nfile: 1", r"file: unknown key; known keys: .*seed"),
        ("name: x\nloop: {5: 1}", r"loop\.5: expected a key of letters"),
        ("name: x\ndata: {kind: wrold}", r"data\.kind: is 'wrold'; expected one of world, file"),
        ("name: x\ndata: {train: 5}", r"data\.kind: is missing; expected one of world, file"),
        ("name: x\ndata: {kind: world, path: a}", r"data\.path: unknown key; known keys: dev, kind, reference, shift_train"),
        ("name: x\ndata: world", r"data: expected a mapping of keys to values \(got 'world'\)"),
        ("name: x\naudit: {on_failure: ignore}", r"audit\.on_failure: .*'stop' or 'warn'.*got 'ignore'"),
        ("name: x\naudit: {at_least: 99}", r"audit\.at_least: .*less than or equal to 1.*got 99"),
        ("name: x\nloop: {shifts: german}", r"loop\.shifts: expected a list"),
        ("name: ../x", r"name: it names the run folder: expected 1 to 60 printable characters"),
        ("name: ''", r"name: it names the run folder"),
        ("name: x\nseed: true", r"seed: expected a number, found true or false"),
        ("name: x\nseed: -1", r"seed: .*greater than or equal to 0.*got -1"),
        ("name: x\nseed: 1\nseed: 2", r"key 'seed' occurs twice; keep one"),
        ("name: x\nseed: " + "9" * 5000, r"line 2, column 7: not valid YAML: a value of 5,000 characters"),
        ("name: x\nseed: 2001-13-45", r"not valid YAML: a value cannot be read"),
        ("name: x\nloop: " + "[" * 3000, r"not valid YAML"),
        ("name: x\nloop: {iterations: 100000}", r"loop\.iterations: .*less than or equal to 1000"),
        ("name: x\nloop: {tolerance_nats: .inf}", r"tolerance_nats: .*finite"),
        ("name: x\nloop: {rpm: {weights: {information: -1}}}", r"weights\.information: .*greater than or equal to 0"),
        ("name: x\nloop: {rpm: {weights: {information: 0, register_gap: 0}}}", r"loop\.rpm\.weights: all weights are 0"),
        (
            "name: x\nloop: {rpm: {prompts: 5, accumulation: 2}}",
            r"loop\.rpm: prompts=5 must be a multiple of accumulation=2",
        ),
        ("name: x\nrpm_sft: {batch_size: 5, accumulation: 2}", r"rpm_sft: batch_size=5 must be a multiple"),
        ("name: x\nbase: {kind: small, heads: 3}", r"base: hidden=128, heads=3, .*expected heads to divide hidden"),
        ("name: x\nlimits: {prompt: 1000}", r"is 1064 tokens, and base\.max_position=1024; lower a limit"),
        (
            "name: x\ndata: {kind: file, path: a, reference: carry, test_splits: [IDTrain]}",
            r"data: test_splits holds the train_split 'IDTrain': nothing tested may be trained on",
        ),
        ("name: x\ndata: {kind: file, path: a, reference: carry, test_splits: []}", r"data\.test_splits: .*at least 1"),
        ("name: x\nloop:\n\titerations: 2", r"line 3, column 1: not valid YAML: "),
        (
            "name: x\nloop: {rpm: {epochs: 2}}",
            r"rpm\.epochs: a key of algorithm ppo, and loop\.rpm\.algorithm is grpo; change",
        ),
        ("name: x\nloop: {rpm: {algorithm: ppo, loss: grpo}}", r"rpm\.loss: a key of algorithm grpo, .*algorithm is ppo"),
        ("name: x\nloop: {simulator: {algorithm: pp}}", r"loop\.simulator\.algorithm: is 'pp'; expected one of grpo, ppo"),
        ("name: x\nloop: {rpm: {algorithm: ppo, epohcs: 2}}", r"rpm\.epohcs: .*did you mean 'epochs'\? \(algorithm ppo\)"),
        ("name: x\nloop: {rpm: {algorithm: ppo, clip: 1}}", r"loop\.rpm\.clip: .*less than 1.*got 1"),
        ("name: x\nloop: {rpm: ppo}", r"loop\.rpm: expected a mapping of keys to values \(got 'ppo'\)"),
        (
            "name: x\nloop: {rpm: {algorithm: ppo, prompts: 12, accumulation: 2, minibatches: 4}}",
            r"loop\.rpm: prompts=12 must be a multiple of accumulation=2 × minibatches=4",
        ),
        ("name: !!python/object/apply:os.getcwd []", r"not valid YAML: could not determine a constructor"),
        ("- a\n- b", r"a recipe is a mapping .* found list"),
        ("name: [x", r"not valid YAML"),
    ],
)
def test_bad_recipe_names_the_place_and_the_remedy(text: str, expected: str, tmp_path: Path) -> None:
    path = _recipe(tmp_path, text)
    with pytest.raises(ConfigError, match=f"(?s){expected}") as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_anchors_and_merge_keys_are_plain_yaml(tmp_path: Path) -> None:
    text = "name: x\nrpm_sft: &sft {epochs: 2}\nscorer_sft: {<<: *sft, epochs: 3, context_dropout: 0.1}"
    recipe = load_recipe(_recipe(tmp_path, text))
    assert (recipe.rpm_sft.epochs, recipe.scorer_sft.epochs) == (2, 3)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        load_recipe(_recipe(tmp_path, "name: x\nsed: 1\nlimitts: {}"))


def test_missing_recipe_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        load_recipe(tmp_path / "gone.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read.*expected UTF-8"):
        load_recipe(path)
    for name in (tmp_path, "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read.*check the path"):
            load_recipe(name)


def test_overrides_are_dotted_and_typed_by_yaml(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "name: x\nseed: 3")
    recipe = load_recipe(path, ["seed=5", "loop.rpm.steps=7", "lora=null", "loop.shifts=[german, Theater]"])
    assert (recipe.seed, recipe.loop.rpm.steps, recipe.lora) == (5, 7, None)
    assert recipe.loop.shifts == ("german", "Theater")
    assert recipe.loop.simulator == config.loop.SIMULATOR_PHASES["grpo"](), (
        "an override leaves its neighbours at their defaults"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "expected key=value"),
        ("=1", "expected key=value"),
        (".seed=1", "expected key=value"),
        ("loop..seed=1", "expected key=value"),
        ("loop.=1", "expected key=value"),
        ("seed=[1", "not valid YAML"),
        ("seed=!!timestamp x", "not valid YAML"),
        ("loop=3", "loop: expected a mapping"),
        ("loop.shifts.0=german", "loop.shifts: expected a list"),
        ("seed.deep=1", "'seed' holds 0, it has no keys"),
        ("loop.rpm.stepz=1", r"did you mean 'steps'\?"),
    ],
)
def test_bad_overrides(override: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_recipe(_recipe(tmp_path, "name: x\nseed: 0"), [override])


def test_an_algorithm_is_chosen_by_name_and_keeps_what_the_phase_is(tmp_path: Path) -> None:
    path = _recipe(tmp_path, "name: x\nloop: {rpm: {steps: 7, id_share: 0.5}}")
    recipe = load_recipe(path, ["loop.rpm.algorithm=ppo", "loop.rpm.epochs=2"])
    assert recipe.loop.rpm == config.loop.RPM_PHASES["ppo"](steps=7, id_share=0.5, epochs=2)
    assert recipe.loop.simulator.algorithm == "grpo"
    assert load_recipe(_recipe(tmp_path, dump_recipe(recipe))) == recipe


def test_recipe_is_frozen() -> None:
    recipe = parse_recipe({"name": "x"}, "here")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def _models() -> list[type[BaseModel]]:
    blocks = {**vars(config.recipe), **vars(config.loop), **vars(inputs), **vars(method), **vars(tuning)}.values()
    found = [value for value in blocks if isinstance(value, type) and issubclass(value, config.Model)]
    return [model for model in found if model is not config.Model]


def test_docs_name_every_key_and_no_other() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z0-9_]+)`", text, re.MULTILINE))
    known = {name for model in _models() for name in model.model_fields}
    assert Recipe in _models() and documented == known
