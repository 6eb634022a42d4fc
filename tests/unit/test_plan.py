"""What a plan refuses before anything is loaded or written."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.config import Evaluation, Recipe, SimulatorSFT
from coevo.config.load import load_recipe
from coevo.errors import ConfigError, DataError
from coevo.loop.material import load_material
from coevo.plan.plan import Counts, check, count, plan

ROOT = Path(__file__).resolve().parents[2]


def _recipe(**blocks: Any) -> Recipe:
    return Recipe.model_validate({"name": "x"} | blocks)


def _world(**sizes: int) -> dict[str, Any]:
    return {"kind": "world"} | sizes


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (
            {"data": _world(train=31)},
            r"rpm_sft\.batch_size=32 is more than the 31 samples there are .data\.train has 31.; lower",
        ),
        ({"rpm_sft": {"samples": 8}}, r"rpm_sft\.batch_size=32 is more than the 8 samples there are .rpm_sft\.samples=8."),
        (
            {"data": _world(shift_train=31)},
            r"scorer_sft\.batch_size=32 .*\n.*simulator_sft\.batch_size=32 .*shift_train has 31",
        ),
        (
            {"base": {"kind": "small", "path": None}, "pretrain": {"samples": 8}},
            r"pretrain\.batch_size=64 is more than the 8 samples there are .pretrain\.samples=8.",
        ),
        # 12 test subsets of 1: 12 scenarios on one circle, of which 11 are others
        (
            {"data": _world(test=1), "evaluation": {"k": 12}},
            r"evaluation\.k=12 .*=pool: the test splits have 12 .*data\.test",
        ),
        (
            {"data": _world(test=4), "evaluation": {"k": 4, "negatives": "subset"}},
            r"evaluation\.k=4 .*=subset: the smallest test subset has 4 .*lower evaluation\.k",
        ),
        (
            {"loop": {"shifts": ["user"]}},
            r"loop\.shifts asks for user, which data\.kind=world cannot make; it makes: german",
        ),
        ({"base": {"kind": "hub", "path": "/no/such"}}, r"base\.path=/no/such: no such folder"),
    ],
)
def test_what_does_not_fit_is_refused_by_plan_and_by_loading(blocks: dict[str, Any], expected: str) -> None:
    recipe = _recipe(**blocks)
    for refuse in (plan, load_material):
        with pytest.raises(ConfigError, match=expected):
            refuse(recipe)


def test_a_file_is_audited_on_what_it_holds_out() -> None:
    data = {"kind": "file", "path": "a.json", "reference": "carry", "dev": 40}
    recipe = _recipe(data=data, loop={"shifts": ["user"]}, audit={"scenarios": 100})
    audit = next(phase for phase in plan(recipe, Counts(500, 40, 500, 100, 25)) if phase.kind == "audit")
    # 40 held out; the reference and at most twelve bad answers, and no ladder without a known share of right slots
    assert (audit.units, audit.sequences, audit.updates) == (40, 40 * 13, 0)


def test_sizes_that_just_fit_are_planned() -> None:
    assert plan(_recipe(data=_world(train=32, shift_train=32, test=1), evaluation={"k": 11}))
    assert plan(_recipe(data=_world(test=1), evaluation={"k": 99, "estimator": "learned_marginal"}))
    assert plan(_recipe(data=_world(test=5), evaluation={"k": 4, "negatives": "subset"}))


def test_two_scorers_share_the_data() -> None:
    counts = Counts(2000, 96, 8001, 1200, 100)
    one = {p.name.split("-", 1)[1]: p for p in plan(_recipe(), counts)}
    two = {p.name.split("-", 1)[1]: p for p in plan(_recipe(evaluation={"second_scorer": True}), counts)}
    assert set(two) - set(one) == {"sft-second"}
    # before what is the method's own, so that it is the same one, by number and seed, whatever the method is
    assert list(two).index("sft-second") == list(two).index("audit") + 1
    assert (one["sft-scorer"].samples, two["sft-scorer"].samples, two["sft-second"].samples) == (8001, 4001, 4000)
    # what is scored is scored twice; what is written, once
    scored = one["evaluate-final"].tokens_estimate, two["evaluate-final"].tokens_estimate
    assert scored[0] < scored[1] < 2 * scored[0]
    with pytest.raises(
        ConfigError, match=r"scorer_sft\.batch_size=32 .*31 samples .*the second scorer's half of data\.shift"
    ):
        plan(_recipe(data=_world(shift_train=63), evaluation={"second_scorer": True}))
    with pytest.raises(ConfigError, match=r"the 30 samples there are .corl\.cold_start has 30"):
        plan(_recipe(corl={"cold_start": 30}, evaluation={"second_scorer": True}), counts)


def test_the_halves_of_two_scorers_share_no_scenario_and_have_every_subset() -> None:
    recipe = _recipe(data=_world(train=40, shift_train=120), evaluation={"second_scorer": True}, corl={"cold_start": 50})
    material = load_material(recipe)
    first, second = material.taught("scorer"), material.taught("second")
    assert not {x.sample_id for x in first} & {x.sample_id for x in second}
    assert len(first) == len(second) == 60 and len(material.taught("simulator")) == 120
    # 120 scenarios of 12 subsets in turn: 5 of each in either half
    for half in (first, second):
        assert set(Counter(x.subset_tag for x in half).values()) == {5}
    # CoRL too learns from the first half alone
    assert {x.sample_id for x, _ in material.corpus.reasoned} == {x.sample_id for x in first}
    alone = load_material(recipe.model_copy(update={"evaluation": Evaluation()}))
    assert alone.taught("scorer") == alone.shift_train
    at_home = load_material(recipe.model_copy(update={"simulator_sft": SimulatorSFT(turns="id")}))
    assert at_home.taught("simulator") == at_home.taught("rpm") == at_home.id_train
    assert at_home.taught("second") == second


def test_batches_must_divide_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(rpm_sft={"batch_size": 6}, loop={"rpm": {"prompts": 3, "group": 2}})
    counts = Counts(100, 10, 100, 100, 10)
    check(recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"k": 4})}), counts)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError) as caught:
        check(recipe, counts)
    assert "rpm_sft.batch_size=6 does not divide among 4 processes × accumulation=1" in str(caught.value)
    assert "loop.rpm.prompts=3 × group=2 does not divide among 4 processes" in str(caught.value)
    assert "scorer_sft" not in str(caught.value), "32 divides by 4"


def test_minibatches_must_divide_among_the_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 prompts × 3 completions in 2 minibatches leave 6 a minibatch, which 4 processes cannot share
    recipe = _recipe(loop={"rpm": {"algorithm": "ppo", "prompts": 4, "group": 3, "minibatches": 2}})
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"4 processes × accumulation=1 × minibatches=2; .* multiple of 8"):
        check(recipe, Counts(100, 10, 100, 100, 10))


def test_ppo_costs_a_pass_over_a_steps_completions_an_epoch() -> None:
    def tokens(**keys: Any) -> int:
        phases = plan(_recipe(loop={"rpm": {"steps": 5, "kl": 0.0} | keys}), Counts(2000, 96, 8000, 1200, 100))
        return next(phase.tokens_estimate for phase in phases if phase.name.endswith("-rpm-1"))

    # 5 × 12 × 8 completions of typically 110 + 28 tokens: each epoch trains on them once, and once the values are read
    read = 5 * 12 * 8 * (110 + 28)
    grpo, two, three = tokens(), tokens(algorithm="ppo", epochs=2), tokens(algorithm="ppo", epochs=3)
    assert (two - grpo, three - two) == (2 * read, read)


def test_all_that_does_not_fit_is_listed_at_once() -> None:
    with pytest.raises(ConfigError, match=r"2 setting\(s\) that do not fit"):
        plan(_recipe(data=_world(train=8, test=1), evaluation={"k": 50}))


def test_a_file_is_counted_by_split_and_subset(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "10", "--test", "3"]) == 0
    data = {"kind": "file", "path": str(file), "reference": "carry", "dev": 2}
    assert count(_recipe(data=data)) == Counts(8, 2, 8, 36, 3), "10 - 2 held out; 12 subsets of 3"
    assert count(_recipe(data=data | {"test": 2, "test_splits": ["IDTest"]})) == Counts(8, 2, 8, 2, 2)
    with pytest.raises(DataError, match="dev=10 of them are held out"):
        count(_recipe(data=data | {"dev": 10}))
    with pytest.raises(ConfigError, match=r"rpm_sft\.batch_size=32 .*data\.train_split less data\.dev has 8"):
        plan(_recipe(data=data, loop={"shifts": ["user"]}))
    with pytest.raises(ConfigError, match=r"german, .* which data\.kind=file cannot make; it makes: user, WordLevel"):
        plan(_recipe(data=data))


def test_no_sft_is_planned_as_none() -> None:
    with_sft, without = plan(_recipe()), plan(_recipe(rpm_sft=None))
    assert [p.name for p in without] == [p.name for p in with_sft]
    assert [(p.kind, p.tokens_estimate) for p in without if p.name.endswith("sft-rpm")] == [("as_given", 0)]
    for kind in ("sft", "augmented_sft"):
        with pytest.raises(ValueError, match=f"rpm_sft is null and method is {kind}, which trains by it"):
            _recipe(rpm_sft=None, method={"kind": kind})


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_fit(path: Path) -> None:
    recipe = load_recipe(path)
    if recipe.data.kind == "world":
        assert check(recipe, count(recipe)) is None
    else:
        assert check(recipe, Counts(1936, 64, 1936, 750, 150)) is None
