"""Methods by name: what each plans, what none can do, and the plain functions that they are made of."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from coevo.config import Recipe
from coevo.config.load import dump_recipe, load_recipe, parse_recipe
from coevo.config.methods import METHOD_BLOCKS, AugmentedSFT, Method
from coevo.config.training import Loss, Rewarded
from coevo.data import world
from coevo.errors import ConfigError, DataError
from coevo.loop.augment import assemble, of_world, planned, requests
from coevo.loop.coevolution import replay_weights
from coevo.loop.methods import id_scenarios
from coevo.loop.phases import run_evaluate
from coevo.loop.run import RUNNERS
from coevo.loop.think import ThinkReward, _support
from coevo.plan.plan import Counts, PhasePlan, check, plan
from coevo.prompts import SHORT
from coevo.rewards.parts import simulator_reward
from coevo.rewards.selection import Rated, best, pairs
from coevo.scoring.thinking import split, think
from coevo.train.algorithms import TRAINERS
from coevo.train.grpo import LOSSES
from coevo.types import Reward, Scenario, Score, Turn

COUNTS = Counts(2000, 96, 8000, 1200, 100)
XS = world.generate("IDTrain", 12, seed=3)
FILE = {"kind": "file", "path": "a.json", "reference": "carry"}


def recipe(**blocks: Any) -> Recipe:
    return Recipe.model_validate({"name": "x"} | blocks)


# --- recipes and plans ------------------------------------------------------------------------------------------------

COMMON = ["sft-rpm", "sft-scorer", "audit", "evaluate-sft"]
OWN = {
    "sft": [],
    "augmented_sft": ["augment", "sft-augmented"],
    "rejection_sft": ["sample", "sft-best"],
    "dpo": ["sample", "dpo"],
    "grpo": ["grpo"],
    "ppo": ["ppo"],
    "think_sft": ["think-sft"],
    "think_grpo": ["think-sft", "think-grpo"],
}


@pytest.mark.parametrize("kind", OWN)
def test_a_method_adds_its_phases_between_the_two_evaluations(kind: str) -> None:
    phases = plan(recipe(method=kind), COUNTS)
    assert [phase.name.split("-", 1)[1] for phase in phases] == [*COMMON, *OWN[kind], "evaluate-final"]
    assert {(phase.kind, phase.role) for phase in phases} <= set(RUNNERS)
    assert all(phase.seconds_estimate is not None for phase in phases)


def test_methods_share_the_phases_before_their_own() -> None:
    # a phase's seed is drawn from its name, number included: equal names make equal SFT models, scorers and audits
    first = {kind: [phase.name for phase in plan(recipe(method=kind), COUNTS)][:3] for kind in METHOD_BLOCKS}
    assert {tuple(names) for names in first.values()} == {("01-sft-rpm", "02-sft-scorer", "03-audit")}
    # the second scorer is no method's either; a refresh of the estimator is of the game
    asked: dict[str, Any] = {"corl": {"iterations": 1, "refresh_every": 1}, "evaluation": {"second_scorer": True}}
    plans = {kind: [phase.name for phase in plan(recipe(method=kind, **asked), COUNTS)] for kind in METHOD_BLOCKS}
    assert {tuple(names[5:8]) for names in plans.values()} == {("06-audit", "07-sft-rpm", "08-sft-second")}
    refreshed = [kind for kind, names in plans.items() if any(name.endswith("audit-2") for name in names)]
    assert refreshed == ["coevolution"]


@pytest.mark.parametrize("second", [False, True])
def test_a_model_that_did_not_change_is_not_measured_again(tmp_path, second) -> None:
    finished = {}
    here: Any = SimpleNamespace(
        recipe=recipe(method="sft", evaluation={"second_scorer": second}),
        folder=SimpleNamespace(root=tmp_path, finish=lambda name, facts, files: finished.update({name: files})),
        current_rpm=lambda iteration: "01-sft-rpm",
        final_rpm=lambda plan: "01-sft-rpm",
        plan=[],
    )
    (tmp_path / "evaluation").mkdir()
    ends = [".json", ".jsonl", *(["-second.jsonl"] if second else [])]
    for end in ends:
        (tmp_path / "evaluation" / f"sft{end}").write_text(f"measured, {end}")
    phase = plan(here.recipe, COUNTS)[-1]
    assert run_evaluate(here, phase, resume=False) == {"model": "rpm/01-sft-rpm"}
    # every file of the first evaluation, the second scorer's too, is the last one's, and vouched for
    assert [file.name for file in finished[phase.name]] == [f"final{end}" for end in ends]
    assert [file.read_text() for file in finished[phase.name]] == [f"measured, {end}" for end in ends]


def test_without_a_method_the_loop_is_run_as_ever() -> None:
    names = [phase.name for phase in plan(recipe(loop={"iterations": 1}), COUNTS)]
    assert names[3:] == [
        "04-sft-simulator", "05-evaluate-sft", "06-simulator-1", "07-harvest-1", "08-rpm-1", "09-accept-1",
        "10-evaluate-final",
    ]  # fmt: skip
    frozen = [phase.name for phase in plan(recipe(loop={"iterations": 1, "frozen_simulator": True}), COUNTS)]
    assert frozen[3:] == [
        "04-sft-simulator", "05-evaluate-sft", "06-harvest-1", "07-rpm-1", "08-accept-1", "09-evaluate-final",
    ]  # fmt: skip


def test_rows_and_blocks_name_the_same_methods() -> None:
    assert list(METHOD_BLOCKS) == ["coevolution", *OWN]
    assert len(METHOD_BLOCKS) == len(get_args(get_args(Method)[0])), "each of another name"
    assert set(LOSSES) == set(get_args(Loss))
    # each algorithm that learns from rewards is a method too, and what learns online names one of them
    assert set(TRAINERS) <= set(METHOD_BLOCKS)
    algorithms = {k: b.model_fields["algorithm"].default for k, b in METHOD_BLOCKS.items() if issubclass(b, Rewarded)}
    assert algorithms == {"grpo": "grpo", "ppo": "ppo", "think_grpo": "grpo"}


def test_a_method_is_a_name_or_a_block(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmethod: dpo\n")
    assert load_recipe(path) == load_recipe(path, ["method.kind=dpo"]) == recipe(method={"kind": "dpo"})
    assert load_recipe(path, ["method.beta=0.3"]).method.beta == 0.3  # type: ignore[union-attr]
    assert load_recipe(path, ["method=grpo", "method.loss=gspo"]).method.loss == "gspo"  # type: ignore[union-attr]
    path.write_text(dump_recipe(recipe(method="think_grpo")))
    assert load_recipe(path) == recipe(method="think_grpo"), "the resolved recipe reads back"


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ({"method": "dqo"}, r"method\.kind: is 'dqo'; expected one of coevolution, sft, augmented_sft"),
        ({"method": 5}, r"method: expected a mapping of keys to values \(got 5\)"),
        ({"method": {"beta": 1}}, r"method\.kind: is missing; expected one of coevolution"),
        ({"method": {"kind": "sft", "beta": 1}}, r"method\.beta: unknown key; known keys: kind \(kind sft\)"),
        ({"method": {"kind": "grpo", "beta": 1}}, r"method\.beta: unknown key; .*\(kind grpo\)"),
        ({"method": {"kind": "ppo", "loss": "grpo"}}, r"method\.loss: unknown key; .*\(kind ppo\)"),
        ({"method": {"kind": "ppo", "algorithm": "grpo"}}, r"method\.algorithm: .*'ppo'.*got 'grpo'"),
        ({"method": {"kind": "ppo", "prompts": 3, "minibatches": 2}}, r"prompts=3 must be a multiple of .*minibatches=2"),
        ({"loop": {"rpm": {"weights": {"informaton": 1}}}}, r"rpm\.weights\.informaton: .*mean 'information'\?$"),
        ({"method": {"kind": "dpo", "tune": {"bach_size": 3}}}, r"method\.tune\.bach_size: .*did you mean 'batch_size'"),
        ({"method": {"kind": "dpo", "group": 1}}, r"method\.group: .*greater than or equal to 2"),
        ({"method": {"kind": "dpo", "temperature": 0}}, r"method\.temperature: .*greater than 0"),
        ({"method": {"kind": "dpo", "loss": "exo_pair"}}, r"loss exo_pair needs label_smoothing above 0"),
        ({"method": {"kind": "dpo", "label_smoothing": 0.1}}, r"label_smoothing=0\.1 does nothing under loss=sigmoid"),
        ({"method": {"kind": "grpo", "loss": "gipo"}}, r"method\.loss: .*'grpo', 'dr_grpo'.*got 'gipo'"),
        (
            {"method": {"kind": "grpo", "weights": {"agreement": 1}}},
            r"method\.weights\.agreement is above 0 and corl is null: there is no reasoning",
        ),
        (
            {"method": {"kind": "think_grpo", "thought": {"evidence": 1}}},
            r"method\.thought\.evidence is above 0 and corl is null: the scorer reads no reasonings",
        ),
        ({"method": {"kind": "think_sft", "marks": ["a", "a"]}}, r"method\.marks: expected at least one name, each once"),
        ({"method": {"kind": "think_sft", "marks": ["a", ""]}}, r"method\.marks\.1: .*pattern"),
        ({"method": {"kind": "think_sft", "sections": []}}, r"method\.sections: expected at least one name, each once"),
        ({"method": "think_sft", "limits": {"prompt": 900}}, r"limits\.reasoning \+ 80 around it is 1108 tokens"),
        ({"method": "augmented_sft", "data": FILE}, r"method\.model is null: no oracle knows .*; name the model"),
        ({"method": {"kind": "augmented_sft", "model": "m"}}, r"method\.model is 'm': the world writes its copies itself"),
        ({"method": {"kind": "augmented_sft", "ways": []}}, r"method\.ways: .*at least 1"),
        ({"method": {"kind": "augmented_sft", "ways": ["persona", "persona"]}}, r"method\.ways: expected each once"),
        ({"loop": {"simulator": {"regret": 0, "pass_nats": 0}}}, r"regret and pass_nats are both 0"),
        ({"loop": {"simulator": {"gates": ["wole"]}}}, r"loop\.simulator\.gates\.0: .*'whole'"),
    ],
)
def test_what_a_method_cannot_do_is_refused_by_the_recipe(blocks: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){expected}"):
        parse_recipe({"name": "x"} | blocks, "recipe.yaml")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            {"kind": "dpo", "prompts": 8},
            r"method\.tune\.batch_size=16 is more than the 8 samples there are .method\.prompts has 8",
        ),
        ({"kind": "rejection_sft", "prompts": 8}, r"method\.tune\.batch_size=32 is more than the 8 samples"),
        ({"kind": "augmented_sft", "languages": ["French"]}, r"method\.languages asks for French, .* German, Spanish"),
        ({"kind": "grpo", "prompts": 3, "group": 2}, r"method\.prompts=3 × group=2 does not divide among 4 processes"),
        ({"kind": "think_sft", "tune": {"batch_size": 6}}, r"method\.tune\.batch_size=6 does not divide among 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_loading(
    method: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=expected):
        check(recipe(method=method), COUNTS)


def test_a_writer_that_is_not_there_is_refused_before_loading() -> None:
    asked = recipe(method={"kind": "augmented_sft", "model": "./no-such"}, data=FILE)
    with pytest.raises(ConfigError, match=r"method\.model=\./no-such: no such folder"):
        check(asked, Counts(500, 40, 500, 100, 25))


def test_only_the_loop_is_asked_for_its_shifts_and_its_simulator() -> None:
    # a file cannot make the default shifts, and 20 samples are fewer than simulator_sft.batch_size
    file = recipe(method="grpo", data=FILE)
    check(file, Counts(500, 40, 500, 100, 25))
    small = recipe(method="sft", simulator_sft={"batch_size": 9000})
    check(small, COUNTS)
    with pytest.raises(ConfigError, match="shifts"):
        check(recipe(data=FILE), Counts(500, 40, 500, 100, 25))
    with pytest.raises(ConfigError, match="simulator_sft"):
        check(recipe(simulator_sft={"batch_size": 9000}), COUNTS)


def test_the_reward_is_the_methods_own_where_it_has_one() -> None:
    weights = {"information": 0.0, "register_gap": 2.0}
    assert recipe(method={"kind": "grpo", "weights": weights}).weights.register_gap == 2.0
    plain = recipe(method="sft", loop={"rpm": {"weights": weights}})
    assert plain.weights.register_gap == 2.0 and plain.weights_key == "loop.rpm.weights"
    assert recipe(method="dpo").weights_key == "method.weights"


# --- which answers are learnt from -----------------------------------------------------------------------------------

ANSWERS = [
    Rated("a", "good", 3.0),
    Rated("a", "bad", -1.0),
    Rated("a", "cut", None),
    Rated("b", "same", 2.0),
    Rated("b", "same", 2.0),
    Rated("c", "cut", None),
    Rated("d", "first", 1.0),
    Rated("d", "second", 1.0),
    Rated("d", "third", 0.5),
]


def test_the_best_answer_of_each_prompt_that_has_one() -> None:
    # c has nothing that could be scored; of d's two equals the first is taken
    assert [(r.sample_id, r.text) for r in best(ANSWERS)] == [("a", "good"), ("b", "same"), ("d", "first")]


def test_pairs_are_the_best_against_the_worst() -> None:
    found = pairs(ANSWERS)
    assert [(p.chosen, p.rejected, p.margin) for p in found] == [("good", "bad", 4.0), ("first", "third", 0.5)]
    assert [p.sample_id for p in pairs(ANSWERS, margin=1.0)] == ["a"]
    assert pairs([Rated("e", "x", 1.0), Rated("e", "y", 1.0)]) == [], "equal rewards prefer neither"


def test_prompts_go_round_under_names_of_their_own() -> None:
    here = SimpleNamespace(recipe=recipe(), material=SimpleNamespace(id_train=XS), fits=lambda role, x: x is not XS[0])
    phase = PhasePlan("05-grpo", "online", "rpm", 1, 1, 30, 30, 1, None)
    drawn = id_scenarios(here, phase, 30)  # type: ignore[arg-type]
    assert len({x.sample_id for x in drawn}) == 30
    names = [x.sample_id.rpartition("#")[0] for x in drawn]
    assert sorted(set(names)) == sorted(x.sample_id for x in XS[1:]) and len(set(names[:11])) == 11
    here.fits = lambda role, x: False
    with pytest.raises(DataError, match=r"none of 12 ID scenarios fits limits\.prompt=512"):
        id_scenarios(here, phase, 5)  # type: ignore[arg-type]


# --- thoughts ---------------------------------------------------------------------------------------------------------

SECTIONS = ("topic", "mood")
R = "topic: sea\nmood: sad"


@pytest.mark.parametrize(
    ("text", "status", "reasoning", "response", "shown"),
    [
        (think(R, "Hello."), "ok", "ok", "Hello.", "ok"),
        (f"{R}\n</think>\n Hello.\nYou.", "ok", "ok", "Hello.\nYou.", "ok"),  # the prompt itself may have opened it
        ("Hello.", "ok", "empty", "Hello.", "ok"),
        (f"<think>\n{R}", "truncated", "truncated", "", "truncated"),
        (f"<think>\n{R}\nHello.", "ok", "malformed", "", "empty"),  # never closed: nothing of it is shown
        (f"Well. <think>\n{R}\n</think>Hello.", "ok", "malformed", "Hello.", "ok"),
        ("<think>\ntopic: sea\n</think>\nHello.", "ok", "malformed", "Hello.", "ok"),
        ("<think></think>Hello.", "ok", "empty", "Hello.", "ok"),
        (f"<think>\n{R}\n</think>\n ", "ok", "ok", "", "empty"),
        (think(R, "Hel"), "truncated", "ok", "Hel", "truncated"),
        ("<think>\na</think>b</think>Hello.", "ok", "malformed", "Hello.", "ok"),
    ],
)
def test_a_thought_is_read_with_a_status_and_never_shown(
    text: str, status: str, reasoning: str, response: str, shown: str
) -> None:
    read = split(text, SECTIONS, status)
    assert (read.reasoning.status, read.response, read.status) == (reasoning, response, shown)
    assert read.reasoning.text == (R if reasoning == "ok" else "")
    assert "topic" not in read.response


def test_other_marks_are_read_as_they_are_written() -> None:
    text = think(R, "Hello.", ("[T]", "[/T]"))
    assert text.startswith("[T]\n") and split(text, SECTIONS, "ok", ("[T]", "[/T]")).response == "Hello."
    assert split(text, SECTIONS).reasoning.status == "empty", "to other marks it is text"
    # without an opening mark every text begins with its thought, so one that is not closed shows nothing
    text = think(R, "Hello.", ("", "[/T]"))
    assert text == f"{R}\n[/T]\nHello." and split(text, SECTIONS, "ok", ("", "[/T]")).reasoning.status == "ok"
    assert (split(R, SECTIONS, "ok", ("", "[/T]")).response, split(R, SECTIONS, "truncated", ("", "[/T]")).status) == (
        "",
        "truncated",
    )


def test_a_half_written_reasoning_has_half_of_its_structure() -> None:
    # one of two sections is right, and text outside of them counts as one more that is wrong: 1/3
    assert split("<think>\ntopic: sea\n</think>\nHi", SECTIONS).reasoning.structure == 0.5
    assert split("Oh! <think>\ntopic: sea\n</think>\nHi", SECTIONS).reasoning.structure == pytest.approx(1 / 3)


def test_a_thinker_is_asked_to_think_and_otherwise_reads_what_the_rpm_reads() -> None:
    plain, asked = SHORT.messages("rpm", XS[0]), SHORT.messages("thinker", XS[0])
    assert asked[0]["content"].startswith(plain[0]["content"]) and "Think first" in asked[0]["content"]
    assert asked[1:] == plain[1:]


def test_a_reasoning_is_paid_beside_its_response() -> None:
    method = {"kind": "think_grpo", "thought": {"structure": 4.0, "economy": 1.0}}
    reward = ThinkReward.__new__(ThinkReward)
    reward._context = SimpleNamespace(recipe=recipe(method=method))  # type: ignore[assignment]
    parts = {"thought/structure": 0.5, "thought/economy": 1.0, "thought/whole": 0.0}
    found = reward._with(Reward(-3.0, {"likelihood": -3.0}), parts)
    assert found.total == pytest.approx(-3.0 + 4.0 * 0.5 + 1.0 * 1.0)
    assert found.parts["likelihood"] == -3.0 and found.parts["thought/structure"] == 0.5
    assert reward._with(Reward(None, {}, "truncated"), parts).total is None, "what cannot be scored stays so"


def test_support_is_evidence_and_the_responses_agreement() -> None:
    # y*: (-4 - -8) / 4 = 1 nat per token; y: (-9 - -10) / 2 = 0.5; agreement min(1, exp(0.5 - 1))
    found = _support([Score(-4.0, 4), Score(-8.0, 4), Score(-9.0, 2), Score(-10.0, 2)])
    assert found == {"thought/evidence": 1.0, "thought/agreement": pytest.approx(2.718281828**-0.5)}
    none = Score(float("nan"), 0, "empty")
    assert _support([none] * 4) == {}, "a reasoning that is not whole says nothing"


# --- augmentation -----------------------------------------------------------------------------------------------------

COPIES = AugmentedSFT(kind="augmented_sft", copies=3)


def test_copies_take_ways_and_languages_in_turn() -> None:
    wanted = planned(XS, COPIES, seed=1)
    assert len(wanted) == 36 and len({copy.sample_id for copy in wanted}) == 36
    assert [copy.way for copy in wanted[:4]] == ["paraphrase", "persona", "translation", "paraphrase"]
    assert [copy.language for copy in wanted if copy.language][:6] == [*COPIES.languages, "German"]
    assert all(copy.persona != copy.parent.persona for copy in wanted if copy.way == "persona")
    one = planned(XS, COPIES.model_copy(update={"copies": 1}), seed=1)
    assert [copy.way for copy in one[:3]] == ["paraphrase", "persona", "translation"]
    assert planned(XS, COPIES, seed=1) == wanted
    with pytest.raises(DataError, match=r"all 1 samples have one persona.*leave `persona` out of method\.ways"):
        planned(XS[:1], COPIES, seed=1)


def test_the_worlds_copies_keep_what_their_way_keeps() -> None:
    said = 0
    for copy in planned(XS, COPIES, seed=1):
        made, parent = of_world(copy, random.Random(copy.sample_id)), copy.parent
        old, new = world.parse_scenario(parent), world.parse_scenario(made)
        assert made.parent == parent.sample_id and made.sample_id == copy.sample_id
        if copy.way == "paraphrase":
            assert new == old and made.persona == parent.persona
            said += made.query != parent.query
        elif copy.way == "persona":
            assert new.calling != old.calling and new.manner != old.manner and made.persona != parent.persona
            assert (new.language, new.topic, new.mood, new.craft) == (old.language, old.topic, old.mood, old.craft)
        else:
            assert new.language != "en" and (new.topic, new.mood, new.calling) == (old.topic, old.mood, old.calling)
        # the law of y* leaves each slot right with probability 0.98 and more
        assert world.share_right(made, made.reference) >= 0.8
    assert said >= 6, "of 12 paraphrases one in eight draws the very variants of its parent"


def copy_of(way: str) -> Any:
    turns = (Turn("user", "Hi"), Turn("agent", "Ho"), Turn("user", "Who are you?"))
    x = Scenario("IDTrain-1", "IDTrain", "IDTrain", "Ann", "Ada", turns, "I am Ada.", thought="user: Ann")
    chosen = planned([x, Scenario("IDTrain-2", "IDTrain", "IDTrain", "Bob", "Ada", turns, "Ada.")], COPIES, seed=0)
    return next(copy for copy in chosen if copy.way == way and copy.parent is x)


def test_a_model_is_asked_for_each_text_and_nothing_but_the_text() -> None:
    assert requests(copy_of("paraphrase")) == [("user", "Who are you?"), ("agent", "I am Ada.")]
    assert len(requests(copy_of("translation"))) == 4
    (asked,) = SHORT.rewrite_messages("persona", "Who?", speaker="user", persona="Bob, a nurse")
    assert "as this user would say it: Bob, a nurse" in asked["content"] and asked["content"].endswith("Who?")
    (asked,) = SHORT.rewrite_messages("translation", "Who?", speaker="agent", language="Korean")
    assert "into Korean" in asked["content"]


def test_a_models_texts_make_a_copy_or_a_reason() -> None:
    copy = copy_of("persona")
    made = assemble(copy, ["And who are you? ", "Ada, Bob."])
    assert isinstance(made, Scenario) and made.persona == "Bob" and made.thought == ""
    assert [t.text for t in made.dialogue] == ["Hi", "Ho", "And who are you?"] and made.reference == "Ada, Bob."
    assert (made.parent, made.split, made.subset_tag) == ("IDTrain-1", "IDTrain", "IDTrain")
    assert assemble(copy, ["And who?", " "]) == "incomplete"
    assert assemble(copy, ["Who are you?", "I am Ada."]) == "unchanged"
    translated = assemble(copy_of("translation"), ["Hallo", "Ho!", "Wer?", "Ada."])
    assert isinstance(translated, Scenario) and [t.text for t in translated.dialogue] == ["Hallo", "Ho!", "Wer?"]
    assert translated.persona == "Ann"


# --- the loop without a part of it ------------------------------------------------------------------------------------


def test_without_regret_the_gates_alone_are_rewarded() -> None:
    # 10 nats for passing, whatever the regret and however new; the regret is still logged
    rewards = [simulator_reward(regret, {"whole": 1.0, "novelty": 0.5}, 10.0, weight=0.0) for regret in (0.0, 30.0)]
    assert [reward.total for reward in rewards] == [10.0, 10.0] and rewards[1].parts["regret"] == 30.0
    assert simulator_reward(30.0, {"whole": 0.0}, 10.0, weight=0.0).total == 0.0


def test_without_regret_replay_is_by_age_alone() -> None:
    # 0.7 evenly over two, and 0.3 by age: 1 and 3 iterations
    weights = replay_weights([50.0, 1.0], [1, 3], power=0.0)
    assert weights == pytest.approx([0.35 + 0.3 * 0.25, 0.35 + 0.3 * 0.75])
