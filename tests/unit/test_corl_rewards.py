"""R3 and CoRL's rewards as arithmetic: every number is worked out beside it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo.config import ReasonerPhase, RewardWeights
from coevo.prompts import AGREED, NO_REASONING, SHORT
from coevo.rewards.parts import Fit, economy, evidence, fits, match, reasoner_reward, regret, rpm_reward
from coevo.scoring.agreement import agreement_nats, judgement
from coevo.scoring.scorer import Ask
from coevo.types import Reasoning, Scenario, Score, Turn

X = Scenario("a", "IDTrain", "IDTrain", "Ann", "Ada", (Turn("user", "Who are you?"),), "I am Ada.")
CONFIG = ReasonerPhase(target=40, distinct=5)
WHOLE = Reasoning("topic: sea")


def test_evidence_is_what_the_reasoning_adds_per_token() -> None:
    # y* of 4 tokens: 0.5 a token with r, 0.25 without: ln 2 a token
    assert evidence(Score(4 * math.log(0.5), 4), Score(4 * math.log(0.25), 4)) == pytest.approx(math.log(2))
    # a reasoning that misleads has negative evidence
    assert evidence(Score(-8.0, 4), Score(-6.0, 4)) == -0.5


def test_match_is_at_most_the_references_level() -> None:
    assert match(-1.5, -1.5) == 1.0
    assert match(-1.0, -1.5) == 1.0  # more than the reference earns no more
    assert match(-1.5 - math.log(4), -1.5) == pytest.approx(0.25)


def test_economy_has_a_target_and_a_floor() -> None:
    assert economy(40, 12, target=40, least_distinct=5) == 1.0
    assert economy(10, 5, target=40, least_distinct=5) == 1.0
    assert economy(160, 12, target=40, least_distinct=5) == 0.25  # 40 / 160
    assert economy(10, 4, target=40, least_distinct=5) == 0.0  # too few distinct tokens to say anything


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 30), st.integers(1, 100))
def test_padding_never_pays(tokens: list[int], pad: int, times: int) -> None:
    # a token that is there already, or one that stands for white space, which is no part of the bodies
    padded = [*tokens, *[pad if pad in tokens else tokens[0]] * times]
    before = economy(len(tokens), len(set(tokens)), 20, 8)
    assert economy(len(padded), len(set(padded)), 20, 8) <= before


def test_a_whole_reasoning_earns_likelihood_structure_and_economy() -> None:
    # exp(-0.8 / 4) = exp(-0.2); 80 tokens against a target of 40: 0.5
    reward = reasoner_reward(WHOLE, (80, 9), Score(-0.8, 4), Score(-2.0, 4), CONFIG)
    assert reward.total == pytest.approx(math.exp(-0.2) + 1.0 + 0.5)
    assert reward.parts == pytest.approx(
        {"structure": 1.0, "likelihood": math.exp(-0.2), "economy": 0.5, "evidence": (-0.8 + 2.0) / 4}
    )


def test_weights_weigh_and_a_reward_for_form_alone_is_refused() -> None:
    config = ReasonerPhase(weights={"likelihood": 2.0, "structure": 0.0, "economy": 0.5})
    reward = reasoner_reward(WHOLE, (10, 9), Score(math.log(0.25), 1), Score(-9.0, 1), config)
    assert reward.total == pytest.approx(2 * 0.25 + 0.5)
    with pytest.raises(ValueError, match="paid for its form alone"):
        ReasonerPhase(weights={"likelihood": 0.0})


def test_what_is_not_whole_earns_its_structure_alone_and_less_than_what_is() -> None:
    unscored = Score(math.nan, 0, "reasoning")
    # 5 of 6 sections earn 5/6; likelihood and economy are not given for free (defects 3 and 10)
    partial = reasoner_reward(Reasoning("", "malformed", 5 / 6), (30, 9), unscored, unscored, CONFIG)
    assert partial.total == pytest.approx(5 / 6) and set(partial.parts) == {"structure"}
    for status in ("truncated", "empty"):
        assert reasoner_reward(Reasoning("", status, 0.0), (30, 9), unscored, unscored, CONFIG).total == 0.0
    # the worst whole one: y* all but impossible, no economy
    worst = reasoner_reward(WHOLE, (9999, 0), Score(-9e3, 4), Score(-1.0, 4), CONFIG)
    assert worst.total == pytest.approx(1.0) and partial.total < worst.total


def test_a_reference_that_cannot_be_scored_is_left_out_and_never_certain() -> None:
    # an overflowing prompt once gave log-probability 0, the top reward (defect 3)
    reward = reasoner_reward(WHOLE, (10, 9), Score(math.nan, 40, "too_long"), Score(-2.0, 4), CONFIG)
    assert (reward.total, reward.status) == (None, "too_long")


# --- the RPM's part -------------------------------------------------------------------------------------------------


class Table:
    """A scorer whose every answer is known: log q by (text, what was dropped)."""

    version = "table"

    def __init__(self, nats: dict[tuple[str, str], float]) -> None:
        self._nats = nats
        self.asked: list[Ask] = []

    def score(self, asks: list[Ask]) -> list[Score]:
        self.asked += asks
        return [Score(self._nats[a.text, "".join(sorted(a.drop))], 4) for a in asks]


def test_agreement_joins_the_rpms_reward_by_its_weight() -> None:
    nats = {("y", ""): -6.0, ("y", "cdu"): -10.0, ("y", "r"): -7.0}
    nats |= {("y*", ""): -3.0, ("y*", "cdu"): -12.0, ("y*", "r"): -8.0}
    scorer = Table(nats)
    fit, reference = fits(scorer, [X, X], ["y", "y*"], reasoned=True)
    # evidence of y: (-6 + 7)/4 = 0.25; of y*: (-3 + 8)/4 = 1.25; agreement exp(0.25 - 1.25) = 1/e
    assert isinstance(fit, Fit) and isinstance(reference, Fit)
    assert (fit.evidence, reference.evidence) == (0.25, 1.25)
    plain = rpm_reward(fit, reference, 0.0, RewardWeights(), anchor=False)
    reward = rpm_reward(fit, reference, 0.0, RewardWeights(agreement=3.0), anchor=False)
    assert reward.parts["agreement"] == pytest.approx(math.exp(-1))
    assert reward.total == pytest.approx((plain.total or 0.0) + 3 * math.exp(-1))
    assert "agreement" not in plain.parts
    # S1 is R1 + R4, so regret does not depend on it
    assert regret(reference, [fit], RewardWeights(agreement=3.0)) == regret(reference, [fit], RewardWeights())


def test_without_agreement_nothing_is_asked_for_it() -> None:
    scorer = Table({("y", ""): -6.0, ("y", "cdu"): -10.0})
    assert fits(scorer, [X], ["y"]) == [Fit(-6.0, -10.0)]
    assert not any(ask.drop == NO_REASONING for ask in scorer.asked)
    assert fits(scorer, [], []) == []


# --- the match reward's judge ---------------------------------------------------------------------------------------


class Judge:
    """States agreement with -4 nats over 8 tokens, -1 for each letter that the reasoning has and the candidate lacks."""

    prompts = SHORT

    def __init__(self) -> None:
        self.texts: list[str] = []

    def score_messages(self, prompts, texts):
        self.texts += texts
        return [self._one(prompt[0]["content"]) for prompt in prompts]

    def _one(self, content: str) -> Score:
        reasoning, candidate = content.split("\n")[1], content.split("\n")[2].removeprefix("The message: ")
        if candidate == "long":
            return Score(math.nan, 900, "too_long")
        return Score(-4.0 - len(set(reasoning) - set(candidate)), 8)


def test_agreement_is_the_mean_over_the_statements_tokens() -> None:
    judge = Judge()
    found = agreement_nats(judge, ["abc", "abc", "abc", "abc"], ["abc", "ab", "", "long"])
    # -4 / 8, (-4 - 1) / 8; nothing is asked about an empty candidate, and what does not fit is no number
    assert found[:2] == [-0.5, -0.625] and all(map(math.isnan, found[2:]))
    assert judge.texts == [AGREED] * 3


def test_judgement_is_the_share_of_pairs_told_apart() -> None:
    # right, wrong, tie: 1.5 of 3; a pair without a number does not count
    assert judgement([-1.0, -3.0, -2.0, math.nan], [-2.0, -1.0, -2.0, -1.0]) == pytest.approx(0.5)
    assert math.isnan(judgement([], []))
