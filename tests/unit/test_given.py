"""What is handed to the front door and cannot be read: each a sentence, before anything is scored."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import coevo
from coevo import estimates
from coevo.config import RewardWeights
from coevo.errors import ConfigError, DataError, ScoreError
from coevo.rewards.audit_any import SCENARIOS
from coevo.scoring.words import home_words
from coevo.types import Response, Score, Turn
from tests.unit.test_python import XS, Letters

SAID = [x.reference for x in XS]


class Broken(Letters):
    """Gives what it is told in place of a score."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def score(self, asks: list[Any]) -> list[Score]:
        return [Score(*self.given)] * len(asks) if self.given else super().score(asks)[1:]


# --- scenarios and scorers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenarios", "message"),
    [
        ([], "there is no scenario"),
        ("file.json", "scenarios is a str; expected a list"),
        (None, "scenarios is a NoneType"),
        ([XS[0], {"sample_id": "x"}], "scenario 1 is a dict; expected a coevo.Scenario"),
        ([XS[0], XS[0]], "2 scenarios are called 'IDTest-00000'"),
        ([replace(XS[0], dialogue=())], r"scenario 0 \('IDTest-00000'\): its dialogue does not end with"),
        ([replace(XS[0], dialogue=(*XS[0].dialogue, Turn("agent", "a")))], "does not end with a message of the user"),
        ([replace(XS[0], persona="\ud800")], "persona holds half of a surrogate pair"),
        ([replace(XS[0], reference=3)], "reference is a int; expected a text"),
    ],
)
def test_scenarios_that_cannot_be_read(scenarios: Any, message: str) -> None:
    for call in (
        lambda: coevo.diagnose(Letters(), scenarios, SAID, divergences=False),
        lambda: coevo.REMIDReward(Letters(), scenarios),
        lambda: coevo.audit(lambda completions, **_: [1.0] * len(completions), scenarios),
    ):
        with pytest.raises(DataError, match=message):
            call()


def test_a_generator_of_scenarios_is_a_list() -> None:
    reward = coevo.REMIDReward(Letters(), (x for x in XS), RewardWeights())
    assert list(reward.scenarios) == [x.sample_id for x in XS]
    found = coevo.diagnose(Letters(), (x for x in XS), (text for text in SAID), divergences=False, k=2, resamples=20)
    # each response is its reference, so nothing is lost
    assert found.models["model"].shifts["user"].remi.value == pytest.approx(0.0)


@pytest.mark.parametrize("scorer", ["Qwen/Qwen3-4B", None, 3])
def test_a_name_is_no_scorer(scorer: Any) -> None:
    for call in (lambda: coevo.diagnose(scorer, XS, SAID), lambda: coevo.REMIDReward(scorer, XS)):
        with pytest.raises(ConfigError, match=r"expected one of coevo.load_scorer\(RUN or MODEL\)"):
            call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((math.nan, 3), "nan nats over 3 tokens"),
        ((-math.inf, 3), "-inf nats over 3 tokens"),
        ((-1.0, 0), "-1.0 nats over 0 tokens"),
        ((), r"scores for \d+ texts"),
    ],
)
def test_a_scorer_whose_numbers_are_none(given: tuple[float, int], message: str) -> None:
    reward = coevo.REMIDReward(Broken(*given), XS)
    with pytest.raises(ScoreError, match=message):
        reward(prompts=[""], completions=["a"], sample_id=[XS[0].sample_id])
    with pytest.raises(ScoreError, match=message):
        coevo.diagnose(Broken(*given), XS, SAID, divergences=False)


def test_a_reference_without_a_score_is_not_the_completions_fault() -> None:
    long, none = replace(XS[0], sample_id="long", reference="a" * 600), replace(XS[0], sample_id="none", reference=" ")
    reward = coevo.REMIDReward(Letters(), [*XS, long, none], RewardWeights())
    assert reward(prompts=[""] * 3, completions=["abc", "abc", "a" * 600], sample_id=["long", "none", "long"]) == [None] * 3
    assert [one.status for one in reward.last] == ["reference_too_long", "reference_empty", "too_long"]


def test_baselines_need_an_answer_each() -> None:
    reward = coevo.REMIDReward(Letters(), XS, RewardWeights())
    with pytest.raises(ConfigError, match="1 answers to 2 parents"):
        reward.take_baselines(XS[:2], [("a", "ok")])
    for wrong in ("a", ("a",), ("a", None)):
        with pytest.raises(ConfigError, match=r"expected a coevo.Response, or \(text, status\)"):
            reward.take_baselines(XS[:1], [wrong])  # type: ignore[list-item]
    reward.take_baselines(XS[:1], [("abc", "ok")])
    first = dict(reward.baselines)
    assert reward.take_baselines(XS[:1], [Response(XS[0].sample_id, "abc", "m")]) == []
    assert reward.baselines == first and first
    with pytest.raises(ConfigError, match="an answer to 'IDTest-00001' stands at the parent 'IDTest-00000'"):
        reward.take_baselines(XS[:1], [Response(XS[1].sample_id, "abc", "m")])
    # of two answers to one parent the mean, and of none that can be scored nothing, not what was known before
    each = []
    for text in ("abc", "zzz"):
        reward.take_baselines(XS[:1], [(text, "ok")])
        each.append(reward.baselines[XS[0].sample_id])
    reward.take_baselines([XS[0], XS[0]], [("abc", "ok"), ("zzz", "ok")])
    assert reward.baselines[XS[0].sample_id] == pytest.approx(sum(each) / 2) and each[0] != each[1]
    assert reward.take_baselines(XS[:2], [("", "ok"), ("abc", "ok")]) == [XS[0].sample_id]
    assert list(reward.baselines) == [XS[1].sample_id]


def test_a_baseline_is_of_the_rewards_own_weights() -> None:
    # R6 and the plain weights differ in what they compare
    plain, real = coevo.REMIDReward(Letters(), XS, RewardWeights()), coevo.REMIDReward(Letters(), XS)
    for reward in (plain, real):
        reward.take_baselines(XS[:1], [("abc def", "ok")])
    x = XS[0].sample_id
    (gap,) = real(prompts=[""], completions=["abc def"], sample_id=[x])
    assert real.baselines[x] == pytest.approx(gap) and real.baselines[x] != pytest.approx(plain.baselines[x])


# --- responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (None, "responses is a NoneType; expected texts"),
        ([], "there is no response"),
        ({"mine": {"IDTest-00000": "a"}}, r"responses\['mine'\] is a dict"),
        ({"IDTest-00000": 3}, r"responses\['IDTest-00000'\] is a int"),
        ([3] * len(XS), "is 3; expected a text"),
        ({XS[0].sample_id: "\ud800"}, "half of a surrogate pair"),
        ([Response(XS[0].sample_id, None, "m")], "a response is Response"),
        ({"mine": ["a", "b"]}, "a response is 'a'"),
    ],
)
def test_responses_that_cannot_be_read(responses: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        coevo.diagnose(Letters(), XS, responses, divergences=False)


# --- the audit ---------------------------------------------------------------------------------------------------------


def raising(**_: Any) -> list[float]:
    return [1 / 0]


async def later(**_: Any) -> list[float]:
    return []


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            raising,
            "ended with ZeroDivisionError: division by zero; it was called as TRL calls one, with prompts, completions",
        ),
        (lambda wrong: [], "unexpected keyword argument"),
        (later, "asynchronous"),
        (lambda **_: None, "the reward gave None; expected a list"),
        (lambda **_: 1.0, "the reward gave 1.0; expected a list"),
        (lambda completions, **_: np.float64(1.0), "expected a list"),
        (lambda completions, **_: [10**400] * len(completions), "expected a finite number"),
        (lambda completions, **_: ["high"] * len(completions), "gave 'high' for scenario"),
    ],
)
def test_rewards_that_cannot_be_audited(reward: Any, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        coevo.audit(reward, XS)


def test_asks_that_cannot_be() -> None:
    def flat(completions: list[str], **_: Any) -> list[float]:
        return [1.0] * len(completions)

    for wrong in ({"at_least": "0.9"}, {"at_least": True}, {"at_least": 0}, {"seed": 1.5}):
        with pytest.raises(ConfigError, match="expected a"):
            coevo.audit(flat, XS, **wrong)
    with pytest.raises(ConfigError, match="no scenario has a reference"):
        coevo.audit(flat, [replace(x, reference="") for x in XS])
    with pytest.raises(ScoreError, match=r"columns gave scenario 'IDTest-00001' other names than 'IDTest-00000'"):
        coevo.audit(flat, XS, columns=lambda x: {x.sample_id: 1})


def test_a_small_difference_counts_and_a_tie_does_not() -> None:
    # nobody's unit is known: 1e-9 may be much
    def small(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [1e-9 * (text == ideal) for text, ideal in zip(completions, reference, strict=True)]

    assert coevo.audit(small, XS).passed
    tied = coevo.audit(lambda completions, **_: [1.0] * len(completions), XS)
    assert {member.above["reward"].value for member in tied.members.values()} == {0.0}


def test_many_scenarios_are_drawn_from_every_subset() -> None:
    few = [replace(x, sample_id=f"late-{i}", subset_tag="german") for i, x in enumerate(XS[:3])]
    many = [replace(XS[i % 6], sample_id=f"early-{i}") for i in range(2 * SCENARIOS)]
    asked: set[str] = set()

    def reward(completions: list[str], sample_id: list[str], **_: Any) -> list[float]:
        asked.update(sample_id)
        return [1.0] * len(completions)

    first = coevo.audit(reward, [*many, *few])
    assert first.n == SCENARIOS == len(asked) and asked > {x.sample_id for x in few}
    # by the seed, not the first ones
    assert asked & {f"early-{i}" for i in range(SCENARIOS, 2 * SCENARIOS)}
    before, asked = asked, set()
    coevo.audit(reward, [*many, *few], seed=1)
    assert asked != before


def test_a_pass_names_what_could_not_be_asked() -> None:
    def exact(completions: list[str], reference: list[str], **_: Any) -> list[float]:
        return [float(text == ideal) for text, ideal in zip(completions, reference, strict=True)]

    same = [replace(x, reference="I am here.") for x in XS]
    assert "nothing to ask about: another reference, fluent nonsense" in str(coevo.audit(exact, same))
    assert "nothing to ask about" not in str(coevo.audit(exact, XS))


# --- estimates ---------------------------------------------------------------------------------------------------------


class Tensor:
    """As torch's that wants a gradient."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (None, "Likelihoods.own: missing"),
        ([10**400], "Likelihoods.own: .*too large"),
        (np.ma.masked_array([-1.0, -2.0], mask=[False, True]), "a masked array"),
        (Tensor(), r"tensor.detach\(\)"),
    ],
)
def test_numbers_that_are_none(own: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimates.Likelihoods(own)


def test_no_interval_without_width_by_accident() -> None:
    one, two = (estimates.Likelihoods([-1.0] * n, others=[[-2.0]] * n) for n in (1, 2))
    with pytest.raises(DataError, match="one text has no interval"):
        estimates.information(one)
    with pytest.raises(DataError, match="one text has no interval"):
        estimates.remid((two, two), (one, one))
    for wrong in ({"resamples": 2}, {"resamples": 100.0}, {"seed": -1}, {"seed": True}):
        with pytest.raises(DataError, match="expected a whole number, at least"):
            estimates.information(two, **wrong)
    with pytest.raises(ConfigError, match="resamples"):
        coevo.diagnose(Letters(), XS, SAID, divergences=False, resamples=1)


def test_remid_and_m_by_hand_with_their_intervals() -> None:
    # D1 by M4: responses 1, 3 at home and 0, 0 under the shift; references 2 each. R-EMI is mean(-1, 1) = 0 and -2
    ideal = estimates.Likelihoods([-1.0, -1.0], alone=[-3.0, -3.0])
    home = estimates.Likelihoods([-2.0, -1.0], alone=[-3.0, -4.0])
    away = estimates.Likelihoods([-5.0, -6.0], alone=[-5.0, -6.0])
    found = estimates.remid((home, ideal), (away, ideal), "learned_marginal")
    # the shift's differences are all -2, so that only home spreads: its means are -1, 0 and 1
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 1.0, 3.0))
    # M = mean(log q(y)) alone, less the references': -3.5 + 3 and -5.5 + 3
    assert estimates.register_gap(home, ideal, "learned_marginal").value == pytest.approx(-0.5)
    gap = estimates.register_gap(away, ideal, "learned_marginal")
    assert (gap.value, gap.low, gap.high) == pytest.approx((-2.5, -3.0, -2.0))


def test_responses_and_references_of_one_k() -> None:
    said = estimates.Likelihoods([-1.0, -3.0], others=[[-2.0, -2.0], [-5.0, -5.0]], alone=[-5.0, -5.0])
    ideal = estimates.Likelihoods([-2.0, -4.0], others=[[-5.0], [-4.0]], alone=[-9.0, -9.0])
    with pytest.raises(DataError, match="responses have 2 other scenarios and references 1"):
        estimates.remi(said, ideal)
    # M4 has none: D1 = 4, 2 against 7, 5
    assert estimates.remi(said, ideal, "learned_marginal").value == pytest.approx(-3.0)


# --- verdicts ----------------------------------------------------------------------------------------------------------


def test_an_interval_that_ends_at_zero_does_not_acquit() -> None:
    def home(low: float, value: float, high: float) -> dict[str, Any]:
        entry = {
            "n": 40, "statuses": {"ok": 40}, "subsets": ["IDTest"], "shift": "id",
            "components": {"u": None, "c": None, "d": None},
            "remi": {"low": low, "value": value, "high": high},
            "register_gap": {"low": -1.0, "value": 0.0, "high": 1.0},
            "mi_reference": {"low": 90.0, "value": 100.0, "high": 110.0},
            "mi_response": {"low": 80.0, "value": 90.0, "high": 100.0},
        }  # fmt: skip
        return {"id": entry}, {"IDTest": entry}  # type: ignore[return-value]

    finding, (said,) = home_words(*home(-19.82, -8.72, 0.0), "sum")  # type: ignore[misc]
    assert finding == "unknown" and "ends at 0 itself" in said
    assert home_words(*home(-19.82, -8.72, 1.0), "sum")[0] == "at"  # type: ignore[misc]
    assert home_words(*home(0.0, 0.0, 0.0), "sum")[0] == "at"  # type: ignore[misc]
