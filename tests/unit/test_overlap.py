"""Copies of tests in the training split, under whatever name: counted by check and score, refused by train."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.config import Recipe
from coevo.data import check, read_rpgbench, world, write_rpgbench
from coevo.data.overlap import copies, imprint
from coevo.data.responses import read_answers
from coevo.diagnosis.request import Policy, Request, trained_on
from coevo.errors import ConfigError, DataError
from coevo.loop.material import load_material
from coevo.plan.check import Contents, Counts
from coevo.plan.check import check as check_recipe
from coevo.plan.plan import plan
from coevo.types import Scenario, Turn

TRAIN, TESTS = world.generate("IDTrain", 60, seed=0), world.generate("IDTest", 6, seed=0)


def _renamed(x: Scenario, **changes: Any) -> Scenario:
    return replace(x, sample_id=f"mine-{x.sample_id}", split="IDTrain", subset_tag="IDTrain", **changes)


def _shouted(x: Scenario) -> Scenario:
    """Another spelling: case, punctuation, spaces, width."""
    turns = tuple(Turn(turn.role, turn.text.upper().replace(" ", "\u3000").rstrip(".?!") + " !!") for turn in x.dialogue)
    return _renamed(x, persona=f"«{x.persona.lower()}»", dialogue=turns, reference=x.reference.replace(",", " –"))


def _file(folder: Path, *scenarios: Scenario) -> Path:
    path = folder / "data.json"
    write_rpgbench(path, scenarios)
    return path


def _recipe(path: Path, **blocks: Any) -> dict[str, Any]:
    data = {"kind": "file", "path": str(path), "reference": "carry", "dev": 8, "test_splits": ["IDTest"]}
    keys = {"name": "x", "loop": {"shifts": ["user"]}, "evaluation": {"k": 2}, "audit": {"on_failure": "warn"}}
    return keys | blocks | {"data": data | blocks.get("data", {})}


@pytest.mark.parametrize(
    "copied",
    [
        _renamed(TESTS[2]),
        _renamed(TESTS[2], reference="Another answer."),
        _renamed(TESTS[2], persona="Somebody else."),
        _renamed(TESTS[2], character="Another card."),
        _shouted(TESTS[2]),
    ],
)
def test_a_copy_under_another_name_is_found_and_refused(copied: Scenario, tmp_path: Path) -> None:
    assert copies([imprint(copied)], map(imprint, TESTS)) == [(copied.sample_id, TESTS[2].sample_id)]
    path = _file(tmp_path, *TRAIN, copied, *TESTS)
    for use in (plan, load_material):
        with pytest.raises(ConfigError) as caught:
            use(Recipe.model_validate(_recipe(path)))
        assert f"1 of 61 samples of IDTrain are copies of tests under another name ({copied.sample_id} is" in str(
            caught.value
        )
        assert "remove them from IDTrain, or set data.allow_overlap=true" in str(caught.value)
    assert load_material(Recipe.model_validate(_recipe(path, data={"allow_overlap": True}))).allow_overlap


def test_what_splits_share_by_design_is_no_copy() -> None:
    test = TESTS[2]
    others = [
        _renamed(TRAIN[0], persona=test.persona, character=test.character),
        _renamed(test, dialogue=(*test.dialogue[:-1], Turn("user", "Another question?")), reference="Another answer."),
        _renamed(TRAIN[0], reference=test.reference),
    ]
    assert copies(map(imprint, others), map(imprint, TESTS)) == []
    # two people greet each other alike
    hello = replace(test, dialogue=(Turn("user", "Hi!"),), reference="Hello there.")
    assert copies([imprint(_renamed(hello, persona="Someone else"))], [imprint(hello)]) == []
    assert copies([imprint(_renamed(hello))], [imprint(hello)]), "the same scenario all the same"


def test_the_world_of_any_size_is_not_refused() -> None:
    recipe = Recipe.model_validate({"name": "x", "data": {"kind": "world", "train": 400, "shift_train": 400, "test": 20}})
    material = load_material(recipe)
    material.refuse_tests([*material.id_train, *material.shift_train], "CoRL")
    # its references are drawn from few, so that they may agree by chance
    material.refuse_tests([_renamed(material.tests[0], persona="Someone else")], "CoRL")
    with pytest.raises(DataError, match="has the content of a test"):
        material.refuse_tests([_renamed(material.tests[0], reference="Another.")], "CoRL")


def test_the_recipe_that_allows_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, *TRAIN, _renamed(TESTS[2]), *TESTS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(_recipe(path)))
    assert cli.main(["train", str(recipe), "--dry-run"]) == 2
    assert "data.allow_overlap=true" in capsys.readouterr().err
    assert cli.main(["train", str(recipe), "data.allow_overlap=true", "--dry-run"]) == 0
    assert "1 of 61 samples of IDTrain are copies of tests" in capsys.readouterr().out


def test_data_check_counts_copies_between_splits_and_within_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, *TRAIN, _shouted(TESTS[2]), replace(TRAIN[1], sample_id="again"), *TESTS)
    assert cli.main(["data", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "2 remark(s) above" in out and "nothing wrong" not in out
    assert "1 of 62 samples of IDTrain repeat an earlier one of it under another name (again is IDTrain-00001)" in err
    assert (
        f"1 of 6 samples of IDTest are copies of samples of IDTrain under another name ({TESTS[2].sample_id} is mine" in err
    )
    assert cli.main(["data", "check", str(_file(tmp_path, *TRAIN, *TESTS))]) == 0
    out, err = capsys.readouterr()
    assert "nothing wrong" in out and not err


def test_score_says_which_scenarios_the_scorer_has_learnt(tmp_path: Path) -> None:
    held_out = world.generate("IDTrain", 68, seed=0)[60:]
    taught = tmp_path / "taught.json"
    write_rpgbench(taught, [*TRAIN, _shouted(TESTS[2]), _renamed(TESTS[4]), *held_out])
    asked = _file(tmp_path, *TESTS, *(replace(x, sample_id=f"dev-{x.sample_id}", split="OOD1Test") for x in held_out))
    responses = tmp_path / "r.jsonl"
    ids = [x.sample_id for x in read_rpgbench(asked)]
    responses.write_text("".join(json.dumps({"sample_ID": i, "response": "Hm.", "model": "m"}) + "\n" for i in ids))

    def request(path: Path) -> Request:
        policy = Policy(tmp_path, Recipe.model_validate(_recipe(path)), "sft-scorer")
        return Request(asked, (responses,), policy, None, tmp_path, 0, read_answers(asked, [responses]))

    found = trained_on(request(taught))
    assert found.by_split == {"IDTest": 2} and not found.unreadable, "the 8 of data.dev are held out"
    gone = trained_on(request(tmp_path / "gone.json"))
    assert gone.by_split == {} and "gone.json: cannot be opened" in gone.unreadable[0]


# --- other things that samples have in common -------------------------------------------------------------------------


def test_one_persona_for_all_is_said_before_a_run_and_only_where_it_matters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spellings = ("unknown", "Unknown.", " unknown")
    same = [replace(x, persona=spellings[n % 3]) for n, x in enumerate(TRAIN)]
    path = _file(tmp_path, *same, *TESTS)
    assert cli.main(["data", "check", str(path)]) == 0
    assert "all 60 samples of IDTrain have one user_persona ('unknown')" in capsys.readouterr().err
    with pytest.raises(
        ConfigError, match=r"loop\.shifts: all 52 ID samples have one user_persona .* leave `user` out of loop"
    ):
        plan(Recipe.model_validate(_recipe(path)))
    copied = {"kind": "augmented_sft", "model": "x/y", "ways": ["persona", "paraphrase"]}
    with pytest.raises(ConfigError, match=r"method\.ways: all 52 ID samples .* leave `persona` out of method\.ways"):
        plan(Recipe.model_validate(_recipe(path, method=copied)))
    for blocks in (
        {"method": "sft"},
        {"loop": {"shifts": ["WordLevelComposition"]}},
        {"method": copied | {"ways": ["paraphrase"]}},
    ):
        assert load_material(Recipe.model_validate(_recipe(path, **blocks)))
    # the only other persona is held out
    write_rpgbench(path, [*same, replace(TRAIN[0], sample_id="last", persona="Bob, a baker."), *TESTS])
    with pytest.raises(ConfigError, match="all 53 ID samples have one user_persona"):
        plan(Recipe.model_validate(_recipe(path)))


def test_counts_of_the_world_ask_for_no_personas() -> None:
    recipe = Recipe(name="x")
    check_recipe(recipe, Counts(2000, 96, 8000, 1200, 100))
    with pytest.raises(ConfigError, match="loop.shifts"):
        file = Recipe.model_validate(_recipe(Path("x.json")))
        check_recipe(file, Counts(2000, 96, 2000, 1200, 100, Contents(("unknown",), ())))


def test_an_empty_split_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, *TRAIN, *TESTS)
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"OOD1Test": []}))
    assert check(path).n_problems == {"split": 1}
    assert cli.main(["data", "check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert "split 'OOD1Test': has no sample; expected at least one; fill the split or remove it" in err
    assert "nothing wrong" not in out
    assert plan(Recipe.model_validate(_recipe(path))), "a split that the recipe does not name does no harm"
    with pytest.raises(DataError, match="split 'OOD1Test': has no sample"):
        plan(Recipe.model_validate(_recipe(path, data={"test_splits": ["IDTest", "OOD1Test"]})))
    responses = tmp_path / "r.jsonl"
    responses.write_text(json.dumps({"sample_ID": TESTS[0].sample_id, "response": "Hm.", "model": "m"}))
    with pytest.raises(DataError, match="OOD1Test have no sample"):
        read_answers(path, [responses], ["IDTest", "OOD1Test"])
    assert read_answers(path, [responses]).splits == ("IDTest",)


def test_names_that_look_alike_are_said(tmp_path: Path) -> None:
    path = _file(tmp_path, *TRAIN, *TESTS)
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({"IDTrain": tree["IDTrain"], "idtest": tree["IDTest"][:3], "IDTest ": tree["IDTest"][3:]}))
    report = check(path)
    assert report.ok and report.notes == [
        "the splits 'idtest' and 'IDTest ' differ in case, space or punctuation alone: a recipe names one of them"
    ]
    with pytest.raises(DataError, match="has no split 'IDTest'; it has IDTrain, idtest, 'IDTest '; nearest: 'IDTest '"):
        plan(Recipe.model_validate(_recipe(path)))


@pytest.mark.parametrize(
    ("tag", "known"),
    [("German", "german"), ("theater ", "Theater"), ("film_television", "Film & Television"), ("User", "user")],
)
def test_a_shift_in_another_spelling_is_not_read_as_in_distribution(tag: str, known: str, tmp_path: Path) -> None:
    path = _file(tmp_path, *TRAIN, *(replace(x, subset_tag="X") for x in TESTS))
    path.write_text(path.read_text().replace('"subset_tag": "X"', f'"subset_tag": "{tag}"'))
    with pytest.raises(
        DataError, match=f"subset_tag: is '{tag}' .*expected '{known}', as a tag of another spelling is read"
    ):
        list(read_rpgbench(path))
