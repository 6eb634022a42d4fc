"""R6 as arithmetic, every number worked out beside it, and the contexts that it compares with."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from coevo.config import FileData, RealText, Recipe, RewardWeights
from coevo.config.load import dump_recipe, parse_recipe, parse_yaml
from coevo.data import world
from coevo.errors import ConfigError
from coevo.lm.loading import load_policy, load_tokenizer
from coevo.plan.check import Counts, check
from coevo.prompts import INSTRUCT
from coevo.rewards.parts import Fit, answered, fits, regret, remi, remi_nats, rpm_reward
from coevo.scoring.real_text import BANK, Others, Reading, draw_others, gap, guarded, parts, score
from coevo.scoring.scorer import Ask, Scorer
from coevo.types import Scenario, Score, Turn

R6 = RealText(kind="real_text", marginal=0.5)
PURE = RealText(kind="real_text", marginal=0, overshoot=1, shortfall=0, echo=0, loop=0, unended=0)
REFERENCE = Reading(own=-36.0, alone=-48.0, others=-42.0, n_tokens=9)
"""-4 nats a token; D1 = 6, over none 12: S* = (6 + 12/2) / 3 = 4."""


def test_s_is_what_the_context_explains_by_root_length() -> None:
    assert score(REFERENCE, R6) == 4.0
    # four tokens: (3 + 4/2) / 2 = 2.5
    assert score(Reading(-8.0, -12.0, -11.0, 4), R6) == 2.5
    # length 0 is the sum, 6 + 6; length 1 is per token, 12/9
    assert score(REFERENCE, R6.model_copy(update={"length": 0.0})) == 12.0
    assert score(REFERENCE, R6.model_copy(update={"length": 1.0})) == pytest.approx(12 / 9)


def test_a_reference_is_worth_its_s_and_loses_nothing() -> None:
    assert gap(REFERENCE, REFERENCE, R6) == 0.0
    # what it copies, repeats and leaves open itself costs nothing
    guarded_ = replace(REFERENCE, echo=0.5, loop=0.2, unended=1.0)
    assert gap(guarded_, guarded_, R6) == 0.0
    assert gap(replace(guarded_, echo=0.4, loop=0.0, unended=0.0), guarded_, R6) == 0.0


def test_what_exceeds_the_reference_counts_half_and_what_falls_short_whole() -> None:
    # nine tokens, D1 = 12, over none 12: S = 18/3 = 6, two above 4
    assert gap(replace(REFERENCE, others=-48.0), REFERENCE, R6) == 1.0
    # D1 = 3: S = 9/3 = 3, one below
    assert gap(replace(REFERENCE, others=-39.0), REFERENCE, R6) == -1.0


def test_text_less_likely_than_the_reference_falls_short_and_likelier_text_earns_nothing() -> None:
    # the same S = 4 on nine tokens at -6 a token: two nats a token short, times 9/3
    assert gap(Reading(-54.0, -66.0, -60.0, 9), REFERENCE, R6) == -6.0
    # of a four-token text it is still the reference's length that counts: S = 4, (-7 - -4) · 3
    assert gap(Reading(-28.0, -36.0, -32.0, 4), REFERENCE, R6) == -9.0
    assert gap(Reading(-9.0, -21.0, -15.0, 9), REFERENCE, R6) == 0.0


def test_guards_charge_copied_and_repeated_tokens_and_a_missing_end() -> None:
    # a third of nine tokens at 6 nats, by root length 3: 6 · 1/3 · 3
    assert gap(replace(REFERENCE, echo=1 / 3), REFERENCE, R6) == pytest.approx(-6.0)
    assert gap(replace(REFERENCE, loop=1 / 3), REFERENCE, R6) == pytest.approx(-4.0)
    assert gap(replace(REFERENCE, unended=1.0), REFERENCE, R6) == -2.0
    # the reference's own is free
    assert gap(replace(REFERENCE, echo=1 / 3), replace(REFERENCE, echo=1 / 3), R6) == 0.0


def test_an_echo_never_pays() -> None:
    # what is copied is certain in its own context and as unlikely as -5 a token elsewhere: S - S* = 5 · 1.5 · e · √n, of
    # which half counts, 3.75 · e · √n, and 6 · e · √n is charged, for any share e
    for n in (4, 25, 100):
        reference = Reading(-4.0 * n, -4.0 * n, -4.0 * n, n)
        for share in (0.1, 0.5, 1.0):
            own = -5.0 * n * (1 - share)
            assert gap(Reading(own, -5.0 * n, -5.0 * n, n, echo=share), reference, R6) < 0.0


def test_parts_are_unweighted_and_losses_negative() -> None:
    reading = Reading(-54.0, -60.0, -66.0, 9, echo=0.5, loop=0.25, unended=1.0)
    # D1 = 12, over none 6: 4 and 2; S = 4 + 1 = 5; -6 a token against -4, by 3; shares by 3
    found = parts(reading, REFERENCE, R6)
    assert found == {
        "contrast": 4.0,
        "marginal": 2.0,
        "overshoot": 1.0,
        "shortfall": -6.0,
        "echo": -1.5,
        "loop": -0.75,
        "unended": -1.0,
    }
    assert gap(reading, REFERENCE, R6) == pytest.approx(0.5 - 6.0 - 6 * 1.5 - 4 * 0.75 - 2.0)


def test_contrast_alone_over_the_design_is_r_emi_by_club() -> None:
    # with length 0 and no other part the mean gap is mean g(y) - mean g(y*), by CLUB: R-EMI (D2)
    answers = [Reading(-30.0, -40.0, -33.0, 7), Reading(-20.0, -40.0, -28.0, 5)]
    references = [Reading(-35.0, -40.0, -41.0, 8), Reading(-25.0, -40.0, -29.0, 6)]
    sums = PURE.model_copy(update={"length": 0.0})
    gaps = [gap(y, r, sums) for y, r in zip(answers, references, strict=True)]
    assert sum(gaps) / 2 == ((3 + 8) - (6 + 4)) / 2


# --- the reward ---------------------------------------------------------------------------------------------------------


def fit(reading: Reading) -> Fit:
    return Fit(reading.own, reading.alone, real=reading)


def test_the_rewards_of_both_players() -> None:
    reference, better, worse = (fit(replace(REFERENCE, others=others)) for others in (-42.0, -48.0, -39.0))
    reward = rpm_reward(worse, reference, -3.0, R6, anchor=False)
    # gap -1, and the parent's was -3
    assert reward.total == 2.0 and reward.parts["shifted_gap"] == 2.0
    anchor = rpm_reward(worse, reference, 0.0, R6, anchor=True)
    assert anchor.total == anchor.parts["anchor_gap"] == remi(worse, reference, R6) == -1.0
    assert {"contrast", "marginal", "overshoot", "shortfall", "echo", "loop", "unended"} <= set(anchor.parts)
    # the reference is worth 4, the answers 3 and 5: regret is the reference's less their mean
    assert regret(reference, [worse, better], R6) == 0.0
    assert regret(reference, [worse], R6) == 1.0 and regret(reference, [reference], R6) == 0.0
    # acceptance is in nats, of a text as long as the reference: by √9
    assert remi_nats(worse, reference, R6) == -3.0


def test_the_plain_reward_is_as_it_was() -> None:
    y, ideal = Fit(-6.0, -10.0), Fit(-3.0, -12.0)
    assert remi(y, ideal, RewardWeights()) == remi_nats(y, ideal, RewardWeights()) == -5.0
    assert rpm_reward(y, ideal, -1.0, RewardWeights(), anchor=False).total == -10.0


X = Scenario("a", "IDTrain", "IDTrain", "Ann", "Ada", (Turn("user", "Who are you?"),), "I am Ada.")
Y, Z = (replace(X, sample_id=name, persona=name) for name in "yz")


class Contexts:
    """log q by scenario and whether anything was dropped; two tokens a text."""

    version = "contexts"

    def score(self, asks: list[Ask]) -> list[Score]:
        nats = {"a": -2.0, "y": -6.0, "z": -10.0}
        return [
            Score(-9.0 if a.drop else nats[a.scenario.sample_id], 2) if a.text else Score(math.nan, 0, "empty") for a in asks
        ]


def test_fits_reads_each_text_in_the_same_other_contexts() -> None:
    found = fits(Contexts(), [X, X, X], ["I am Ada.", "Who are you?", ""], others=Others((X, Y, Z), 2, 0))
    # the mean of -6 and -10; the query has three words, fewer than an n-gram, and is a whole turn
    assert found[0] == Fit(-2.0, -9.0, real=Reading(-2.0, -9.0, -8.0, 2))
    assert found[1] == Fit(-2.0, -9.0, real=Reading(-2.0, -9.0, -8.0, 2, echo=1.0))
    assert found[2] == "empty"
    assert fits(Contexts(), [X], ["I am Ada."]) == [Fit(-2.0, -9.0)], "and asks for no others unless told to"


def test_what_runs_into_the_limit_is_worth_less_however_it_ends() -> None:
    said = [("I am Ada.", "ok"), ("I am Ada.", "truncated"), ("", "empty"), ("I am Ada.", "loop")]
    others = Others((X, Y, Z), 2, 0)
    whole, cut, *rest = answered(Contexts(), [X] * 4, said, others=others)
    assert isinstance(whole, Fit) and isinstance(cut, Fit) and rest == ["empty", "empty"]
    assert remi(cut, whole, R6) == -R6.unended
    # the world's reward leaves it out
    assert answered(Contexts(), [X] * 2, said[:2]) == [Fit(-2.0, -9.0), "empty"]


def test_what_a_response_could_copy() -> None:
    x = replace(X, character={"name": "Ada", "sayings": ["the engine can do whatever we know how to order"]})
    assert guarded(x, "Well: the engine can do whatever you like")[0] == pytest.approx(5 / 8)
    assert guarded(x, "who are you who are you who are you") == (0.0, pytest.approx(1 - 3 / 7), 1.0)


def test_negatives_hang_on_seed_and_content_and_are_never_ones_own() -> None:
    scenarios = world.generate("ShiftTrain", 24, seed=3)
    others = draw_others(lambda x: x is not scenarios[0], scenarios, R6, 7)
    assert len(others.bank) == BANK and scenarios[0] not in others.bank
    assert draw_others(lambda x: True, scenarios[:4], R6, 7).bank == draw_others(lambda x: True, scenarios[:4], R6, 7).bank
    for x in others.bank:
        assert x not in others.of(x) and len(others.of(x)) == 3
        # the name of a repeated prompt does not matter, the content does
        assert others.of(replace(x, sample_id=f"{x.sample_id}#5")) == others.of(x)
        child = replace(x, sample_id="child", parent=x.sample_id, persona="another")
        assert x not in others.of(child)
    drawn = {tuple(o.sample_id for o in others.of(x)) for x in scenarios}
    assert len(drawn) > 10, "and differ between scenarios"


@pytest.mark.skipif("COEVO_SMOLLM2" not in os.environ, reason="set COEVO_SMOLLM2 to the folder of SmolLM2-135M-Instruct")
def test_a_pretrained_scorer_puts_a_reference_above_what_is_bland_or_copied() -> None:
    path = Path(os.environ["COEVO_SMOLLM2"])
    tokenizer = load_tokenizer(path)
    scorer = Scorer(
        load_policy(path, None, trainable=False, dtype="float32"), tokenizer, "x", max_length=400, prompts=INSTRUCT
    )
    asked = {"a": "Captain, how deep is the water here?", "b": "Doctor, is my arm broken?"}
    x, y = (Scenario(n, "T", "T", "a stranger", q.split(",")[0], (Turn("user", q),), "-") for n, q in asked.items())
    texts = ["Ten fathoms, and sand below.", "That is a good question. Tell me more about it.", x.query]
    reference, *bad = (f for f in fits(scorer, [x] * 3, texts, others=Others((y,), 1, 0)) if isinstance(f, Fit))
    assert len(bad) == 2 and all(remi(f, reference, R6) < 0 for f in bad)
    # the default reward has the query above the reference, as it is likely
    plain = [rpm_reward(f, reference, 0.0, RewardWeights(), anchor=True).total or 0.0 for f in (reference, *bad)]
    assert plain[2] > plain[0]


# --- the recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("{kind: real_txt}", r"weights\.kind: is 'real_txt'; expected real_text, or no kind$"),
        ("{kind: real_text, ecko: 1}", r"weights\.ecko: unknown key; did you mean 'echo'\?$"),
        ("{kind: real_text, agreement: 1}", r"weights\.agreement: unknown key; known keys: kind, contrast, "),
        ("{kind: real_text, echo: -1}", r"weights\.echo: .*greater than or equal to 0"),
        ("{kind: real_text, contrast: 0, marginal: 0}", r"weights: contrast and marginal are both 0"),
        ("{kind: real_text, negatives: 0}", r"weights\.negatives: .*greater than 0"),
        (
            "{echo: 1}",
            r"weights\.echo: unknown key; known keys: information, register_gap, agreement, functions, judge, reward_model$",
        ),
    ],
)
@pytest.mark.parametrize("tree", ["loop: {rpm: {weights: %s}}", "method: {kind: dpo, weights: %s}"])
def test_a_bad_block_says_what_is_wrong(weights: str, expected: str, tree: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_recipe({"name": "x"} | parse_yaml(tree % weights, "here"), "here")


def test_a_files_reward_is_r6_unless_its_recipe_gives_weights() -> None:
    data = {"kind": "file", "path": "x.json", "reference": "carry"}
    real, plain = RealText(kind="real_text"), RewardWeights(register_gap=0)
    own = {"loop": {"rpm": {"weights": {"register_gap": 0}}}}
    for method in ("coevolution", "grpo", {"kind": "ppo"}):
        assert parse_recipe({"name": "x", "data": data, "method": method}, "here").weights == real
        # a method's default is the loop's
        assert parse_recipe({"name": "x", "data": data, "method": method, **own}, "here").weights == plain
        assert parse_recipe({"name": "x", "method": method}, "here").weights == RewardWeights()
    given = {"kind": "grpo", "weights": {"information": 0}}
    assert parse_recipe({"name": "x", "data": data, "method": given}, "here").weights == RewardWeights(information=0)
    recipe = Recipe(name="x", data=FileData(kind="file", path="x.json", reference="carry"))
    assert recipe.weights == real
    assert parse_recipe(parse_yaml(dump_recipe(recipe), "there"), "there") == recipe


def test_a_recipe_names_it_by_kind_and_reads_back() -> None:
    recipe = parse_recipe({"name": "x", "loop": {"rpm": {"weights": {"kind": "real_text", "echo": 3}}}}, "here")
    assert recipe.weights == RealText(kind="real_text", echo=3.0)
    assert parse_recipe(parse_yaml(dump_recipe(recipe), "there"), "there") == recipe
    own = parse_recipe({"name": "x", "method": {"kind": "grpo", "weights": {"kind": "real_text"}}}, "here")
    assert own.weights == RealText(kind="real_text") and own.loop.rpm.weights == RewardWeights()
    assert Recipe(name="x").weights == RewardWeights()
    with pytest.raises(ValidationError):
        RealText(kind="real_text", length=2.0)


def test_too_few_scenarios_for_the_negatives_are_refused_at_once() -> None:
    recipe = Recipe(name="x", loop={"rpm": {"weights": {"kind": "real_text", "negatives": 40}}}, rpm_sft={"batch_size": 4})  # type: ignore[arg-type]
    counts = Counts(id_train=4000, id_dev=64, shift_train=41, test=600, smallest_subset=50)
    with pytest.raises(ConfigError, match=r"loop\.rpm\.weights\.negatives=40 needs 42 training scenarios, and there are 41"):
        check(recipe, counts)
