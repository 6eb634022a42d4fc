"""The rewards as arithmetic: every number is worked out beside it."""

from __future__ import annotations

import math

import pytest

from coevo.config import RewardWeights
from coevo.config.loop import SIMULATOR_PHASES
from coevo.config.training import BESIDE
from coevo.errors import ScoreError
from coevo.loop.coevolution import few_turns, replay_weights
from coevo.rewards.gates import Naturalness, Thresholds, natural_gates, novelty, thresholds, whole
from coevo.rewards.parts import FURTHER_PARTS, Fit, fits, regret, repetition, rpm_reward, simulator_reward, value
from coevo.rewards.verdict import ALWAYS
from coevo.scoring.scorer import Ask
from coevo.types import Scenario, Score, Turn

PLAIN = RewardWeights(information=1.0, register_gap=1.0)
X = Scenario("a", "IDTrain", "IDTrain", "Ann", "Ada", (Turn("user", "Who are you?"),), "I am Ada.")


class Table:
    """A scorer whose every answer is known: log q by (text, whether anything was dropped)."""

    version = "table"

    def __init__(self, nats: dict[tuple[str, bool], float]) -> None:
        self._nats = nats

    def score(self, asks: list[Ask]) -> list[Score]:
        return [
            Score(self._nats[a.text, bool(a.drop)], 4) if a.text else Score(math.nan, 0, "empty")
            for a in asks
        ]  # fmt: skip


def test_information_is_likelihood_over_marginal() -> None:
    # log q(y|x) = ln 0.5, log q(y|nothing) = ln 0.125: the context makes y four times as likely, ln 4
    assert Fit(math.log(0.5), math.log(0.125)).information == pytest.approx(math.log(4))


def test_fits_keeps_the_reason_why_there_is_no_number() -> None:
    scorer = Table({("good", False): -2.0, ("good", True): -9.0})
    assert fits(scorer, [X, X], ["good", ""]) == [Fit(-2.0, -9.0), "empty"]


def test_rpm_reward_is_r1_plus_r4() -> None:
    # y: L = -6, marginal -10, D1 = 4. y*: L = -3, marginal -12, D1 = 9. remi = 4 - 9 = -5; b(x) = -1.
    # R1 = -5 - (-1) = -4; R4 = -6; sum -10.
    reward = rpm_reward(Fit(-6.0, -10.0), Fit(-3.0, -12.0), -1.0, PLAIN, anchor=False)
    assert reward.total == pytest.approx(-10.0)
    assert reward.parts["negative_remid"] == pytest.approx(-4.0)
    assert reward.parts["likelihood_gap"] == pytest.approx(-3.0)
    # on an ID scenario remi itself counts, under its own name: R2 = -5, R4 = -6
    anchor = rpm_reward(Fit(-6.0, -10.0), Fit(-3.0, -12.0), 0.0, PLAIN, anchor=True)
    assert anchor.total == pytest.approx(-11.0) and anchor.parts["anchor_remi"] == pytest.approx(-5.0)


def test_parts_and_weights_have_the_same_names() -> None:
    assert [*ALWAYS, *FURTHER_PARTS] == [name for name in RewardWeights.model_fields if name not in BESIDE]


def test_reward_differences_do_not_depend_on_the_baseline() -> None:
    # what is subtracted is the same for all completions of a prompt, so the group's advantages are those of D1 + L
    two = [Fit(-6.0, -10.0), Fit(-4.0, -11.0)]
    for baseline in (-7.0, 0.0, 3.0):
        totals = [rpm_reward(f, Fit(-3.0, -12.0), baseline, PLAIN, anchor=False).total or 0.0 for f in two]
        assert totals[1] - totals[0] == pytest.approx(value(two[1], PLAIN) - value(two[0], PLAIN))


def test_regret_is_zero_where_the_model_answers_as_the_reference_does() -> None:
    reference = Fit(-3.0, -12.0)
    assert regret(reference, [reference, reference], PLAIN) == 0.0
    # y* is worth (9) + (-3) = 6; answers are worth 4 - 6 = -2 and 7 - 4 = 3, mean 0.5: regret 5.5
    assert regret(reference, [Fit(-6.0, -10.0), Fit(-4.0, -11.0)], PLAIN) == pytest.approx(5.5)


def test_a_query_that_nobody_can_answer_earns_nothing() -> None:
    # the reference itself is as unlikely as the model's answers: nothing to regret (PAIRED)
    hopeless = Fit(-80.0, -80.0)
    assert simulator_reward(regret(hopeless, [hopeless], PLAIN), {"shift": 1.0}).total == 0.0


def test_gates_multiply_and_a_shut_one_is_worth_least() -> None:
    opened = {"shift": 1.0, "whole": 1.0, "novelty": 0.5}
    assert simulator_reward(8.0, opened).total == 4.0  # 8 × 1 × 1 × 0.5
    assert simulator_reward(8.0, opened | {"whole": 0.0}).total == 0.0
    # a negative regret is cut at 0, or shutting a gate would pay
    assert simulator_reward(-8.0, opened).total == 0.0
    assert simulator_reward(-8.0, opened).parts["regret"] == -8.0
    # no regret can be computed although every gate is open: left out, not 0
    unscored = simulator_reward(None, opened)
    assert (unscored.total, unscored.status) == (None, "unscored")


def test_novelty_counts_the_batch_and_the_pool() -> None:
    batch = ["a", "a", "b", "c"]
    assert novelty(["a", "b", "c"], batch, {"c": 3}) == [0.5, 1.0, 0.5]


def test_one_question_after_every_opening_is_not_new() -> None:
    # "Why?" stands in three turns of four: (1 + 1/3)/2 = 2/3 for each of them; a repetition within a turn counts once
    batch = ["Hi. Why?", "你好。Why?", "Well! Why?", "Hey. Who? Who?"]
    assert novelty(batch, batch, {}) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1.0])


def test_a_turn_is_whole_unless_cut_or_leaking() -> None:
    hidden = ["Greta from Bremen, a nurse.", "The sea keeps what it is given.", "Hm."]
    assert whole("Good day. What do you say of the sea?", "ok", hidden) == 1.0
    assert whole("Good day.", "truncated", hidden) == 0.0
    assert whole("   ", "ok", hidden) == 0.0
    assert whole("Me: greta from bremen, a nurse.", "ok", hidden) == 0.0
    assert whole("Tell me: the sea keeps what it is given.", "ok", hidden) == 0.0
    assert whole("Hm. Good day.", "ok", hidden) == 1.0  # shorter than 12 characters: anyone may say it


def test_thresholds_are_quantiles_of_real_turns() -> None:
    # each real query has 4 tokens: full log q = -4, -8, -12 so fluency -1, -2, -3; without the persona 6 nats less
    real = [Scenario(str(k), "T", "T", "Ann", "Ada", (Turn("user", f"q{k}"),), "y") for k in (1, 2, 3)]
    table = Table({(f"q{k}", drop): -4.0 * k - 6.0 * drop for k in (1, 2, 3) for drop in (False, True)})
    limits = thresholds(table, real, SIMULATOR_PHASES["grpo"](fluency_quantile=0.5, persona_quantile=0.0))
    assert (limits.fluency, limits.persona) == (-2.0, 6.0)
    assert natural_gates(Naturalness(-1.5, 6.5), limits) == {"fluency": 1.0, "persona": 1.0}
    assert natural_gates(Naturalness(-2.5, 5.5), limits) == {"fluency": 0.0, "persona": 0.0}
    assert natural_gates(Naturalness(math.nan, math.nan), Thresholds(-9.0, -9.0)) == {"fluency": 0.0, "persona": 0.0}
    with pytest.raises(ScoreError, match="None of 0 real user turns"):
        thresholds(table, [], SIMULATOR_PHASES["grpo"]())


def test_repetition() -> None:
    assert repetition([1, 2, 3, 4]) == 0.0
    assert repetition([7] * 10) == pytest.approx(0.9)  # one of ten is new


def test_replay_prefers_regret_and_then_age() -> None:
    # ranks of (5, 9, 1) are (2, 1, 3): 1/rank sums to 11/6, so 0.7 · (3, 6, 2)/11 plus 0.3 · ages (1, 1, 2)/4
    weights = replay_weights([5.0, 9.0, 1.0], [1, 1, 2], staleness=0.3)
    assert weights == pytest.approx([0.7 * 3 / 11 + 0.075, 0.7 * 6 / 11 + 0.075, 0.7 * 2 / 11 + 0.15])
    assert sum(weights) == pytest.approx(1.0)
    assert replay_weights([], []) == []


def test_a_whole_turn_is_worth_more_than_a_broken_one_where_nothing_is_regretted():
    # 0 x 1 + 10 against 0; and 5 x 0.5 + 10 = 12.5
    assert simulator_reward(-2.0, {"shift": 1.0}, 10.0).total == 10.0
    assert simulator_reward(-2.0, {"shift": 0.0}, 10.0).total == 0.0
    assert simulator_reward(5.0, {"shift": 1.0, "novelty": 0.5}, 10.0).total == 12.5


def test_a_harvest_that_the_model_would_learn_by_heart_is_named():
    assert few_turns(fresh=24, kept=6, written=24) == ""
    assert few_turns(fresh=24, kept=5, written=24).startswith(
        "only 5 of 24 turns passed every gate, and 24 of the RPM's prompts are these, each about 5 times"
    )
