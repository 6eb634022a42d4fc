"""The evaluation on a joint distribution small enough to compute by hand.

The world: the user's persona is a bit, the right answer is that bit. q(y|x) = 0.9 if y is the persona's bit, else 0.1;
without the persona (or without anything) q = 0.5; character and dialogue do not matter. So log(0.9/0.1) = log 9.
"""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from coevo.config import Evaluation
from coevo.errors import ScoreError
from coevo.maths.information import club_pairs
from coevo.scoring.evaluate import Row, assemble, measure, plan, summarise, uses
from coevo.types import Response, Scenario, Score, Turn

LOG9 = math.log(9)
FULL = Evaluation(estimator="club", negatives="subset", k=99, resamples=200)


class ExactScorer:
    """q of the module's world; `too_long` holds (context's sample_id, text) pairs that do not fit."""

    def __init__(self, version="v1", too_long=()):
        self.version = version
        self.too_long = set(too_long)
        self.asked = []

    def score(self, asks):
        self.asked += asks
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        if (ask.scenario.sample_id, ask.text) in self.too_long:
            return Score(math.nan, 0, "too_long")
        if not ask.text:
            return Score(math.nan, 0, "empty")
        if "u" in ask.drop:
            return Score(math.log(0.5), 1)
        return Score(math.log(0.9 if ask.text == ask.scenario.persona else 0.1), 1)


class ExactWorld:
    """A truth unlike the scorer, so that the two cannot be mistaken: 0.8 and 0.2, log ratio log 4."""

    def share_right(self, scenario, text):
        return float(text == scenario.persona)

    def log_density(self, scenario, text):
        return math.log(0.8 if text == scenario.persona else 0.2)


def scenarios(tag="IDTest", n=4):
    """Personas 0, 1, 0, 1, ..."""
    turn = (Turn("user", "Which bit?"),)
    return [Scenario(f"{tag}-{i}", tag, tag, str(i % 2), "card", turn, str(i % 2)) for i in range(n)]


def answers(batch, wrong=(), status=None):
    """The right bit, or the other one for subset tags in `wrong`."""
    flip = {"0": "1", "1": "0"}
    return [
        Response(
            x.sample_id,
            flip[x.reference] if x.subset_tag in wrong else x.reference,
            "rpm/test",
            (status or {}).get(x.sample_id, "ok"),
        )
        for x in batch
    ]


def test_references_themselves_lose_nothing():
    batch = scenarios()
    result = measure(ExactScorer(), batch, answers(batch), FULL, 0)
    entry = result.summary["subsets"]["IDTest"]
    for name in ("remi", "register_gap", "likelihood_gap"):
        assert entry[name] == {"value": 0, "low": 0, "high": 0}
    # each of 4 scenarios has 3 other contexts, one with its bit: log .9 - (log .9 + 2 log .1)/3 = 2/3 log 9
    assert entry["mi_reference"]["value"] == pytest.approx(2 / 3 * LOG9)


def test_club_of_wrong_answers_by_hand():
    # D1 of the wrong bit: log .1 - (log .1 + 2 log .9)/3 = -2/3 log 9; of the reference 2/3 log 9: R-EMI = -4/3 log 9.
    # Gap log .1 - log .9 = -log 9, so M = -log 9 + 4/3 log 9 = 1/3 log 9.
    batch = scenarios()
    entry = measure(ExactScorer(), batch, answers(batch, {"IDTest"}), FULL, 0).summary["subsets"]["IDTest"]
    assert entry["mi_response"]["value"] == pytest.approx(-2 / 3 * LOG9)
    assert entry["remi"]["value"] == pytest.approx(-4 / 3 * LOG9)
    assert entry["register_gap"]["value"] == pytest.approx(1 / 3 * LOG9)
    assert entry["likelihood_gap"]["value"] == pytest.approx(-LOG9)
    # A1: I_u(Y) = log .1 - log .5, I_u(Y*) = log .9 - log .5: -log 9; the character and the dialogue do not matter
    assert entry["components"]["u"]["value"] == pytest.approx(-LOG9)
    assert entry["components"]["c"]["value"] == entry["components"]["d"]["value"] == 0


class LongWinded(ExactScorer):
    """The same likelihoods, of which a wrong bit takes four tokens and a right one two."""

    def _one(self, ask):
        found = super()._one(ask)
        return replace(found, n_tokens=2 if ask.text == ask.scenario.reference else 4)


def test_per_token_each_text_is_measured_by_its_own_length():
    batch = scenarios(n=2)
    config = Evaluation(k=1, resamples=20)
    (row, _) = measure(LongWinded(), batch, answers(batch, {"IDTest"}), config, 0).rows
    # two scenarios of other bits: own context log .1, the other's log .9, four tokens; the reference's log .9, log .1, two
    assert row.remi == pytest.approx(-2 * LOG9) and row.register_gap == pytest.approx(LOG9)
    assert row.remi_per_token == pytest.approx(-LOG9 / 4 - LOG9 / 2)
    assert row.register_gap_per_token == pytest.approx(math.log(0.9) / 4 - math.log(0.1) / 2)
    entry = measure(LongWinded(), batch, answers(batch, {"IDTest"}), config, 0).summary["subsets"]["IDTest"]
    assert entry["remi_per_token"]["value"] == pytest.approx(row.remi_per_token)
    released = measure(TokenScorer(), batch, answers(batch), RELEASED, 0)
    assert math.isnan(released.rows[0].remi_per_token), "all of the released procedure is per token"


def test_what_the_references_use_is_what_there_is_to_lose():
    # I_u(Y*) = log .9 - log .5 of every reference, whatever the answers are; the character and the dialogue tell nothing
    batch, cache = scenarios(), {}
    scorer = ExactScorer(too_long={("IDTest-2", "0")})
    planned = plan("v1", batch, answers(batch, {"IDTest"}), FULL, 0, cache)
    assemble(planned, scorer.score(planned.asks), cache)
    used = uses(planned, cache)
    one = math.log(0.9) - math.log(0.5)
    assert used["u"] == pytest.approx([one, one, math.nan, one], nan_ok=True), "none of the one that does not fit"
    assert used["c"] == pytest.approx([0, 0, math.nan, 0], nan_ok=True)
    assert used["d"] == pytest.approx([0, 0, math.nan, 0], nan_ok=True)


def test_components_are_measured_without_reasoning():
    # A1: with its reasoning shown the scorer knows the bit at 0.99; without r, as without c and d, at 0.9; without u at 0.5.
    # I_u(Y*) = log .9 - log .5 and I_u(Y) = log .1 - log .5, so R-EMI_u = -log 9, whatever r would add
    class Reasoned(ExactScorer):
        def _one(self, ask):
            if not ask.drop:
                return Score(math.log(0.99 if ask.text == ask.scenario.persona else 0.01), 1)
            return super()._one(ask)

    batch = scenarios()
    entry = measure(Reasoned(), batch, answers(batch, {"IDTest"}), FULL, 0).summary["subsets"]["IDTest"]
    assert entry["components"]["u"]["value"] == pytest.approx(-LOG9)
    assert entry["components"]["c"]["value"] == entry["components"]["d"]["value"] == 0
    # the likelihood gap is with r: log .01 - log .99
    assert entry["likelihood_gap"]["value"] == pytest.approx(-math.log(99))


def test_l1out_of_wrong_answers_by_hand():
    # reference: log .9 - log((.9 + .1 + .1)/3) = log(2.7/1.1); wrong: log .1 - log((.1 + .9 + .9)/3) = log(.3/1.9)
    batch = scenarios()
    config = FULL.model_copy(update={"estimator": "l1out"})
    entry = measure(ExactScorer(), batch, answers(batch, {"IDTest"}), config, 0).summary["subsets"]["IDTest"]
    assert entry["remi"]["value"] == pytest.approx(math.log(0.3 / 1.9) - math.log(2.7 / 1.1))
    assert entry["remi"]["value"] + entry["register_gap"]["value"] == pytest.approx(-LOG9)


def test_learned_marginal_of_wrong_answers_by_hand():
    # log .1 - log .5 - (log .9 - log .5) = -log 9, and M = log .5 - log .5 = 0; one pass in place of K
    batch = scenarios()
    config = FULL.model_copy(update={"estimator": "learned_marginal"})
    scorer = ExactScorer()
    entry = measure(scorer, batch, answers(batch, {"IDTest"}), config, 0).summary["subsets"]["IDTest"]
    assert entry["remi"]["value"] == pytest.approx(-LOG9)
    assert entry["register_gap"]["value"] == 0
    # 4 scenarios, 2 texts, each under its own context, the empty one, the own without r, and three without a component
    assert len(scorer.asked) == 4 * 2 * 6
    assert sum(len(ask.drop) == 3 for ask in scorer.asked) == 8


class TokenScorer(ExactScorer):
    """As the exact one; the answer "1" has two tokens."""

    def _one(self, ask):
        score = super()._one(ask)
        return Score(score.logprob_nats, 1 + (ask.text == "1"), score.status)


RELEASED = Evaluation(estimator="released", resamples=200)


def test_released_is_club_of_token_means_by_hand():
    # 4 contexts have 12 pairs, fewer than 1,000, so all are taken. Per token, "1" counts half. References: own mean
    # 3/4 log .9; pairs (2 (log .9 + 2 log .1) + 2 (log .9 + 2 log .1)/2)/12 = 1/4 log .9 + 1/2 log .1; so the MI is
    # 1/2 log 9. Wrong answers have .1 for .9: -1/2 log 9. R-EMI = -log 9; gap 3/4 log .1 - 3/4 log .9 = -3/4 log 9.
    batch = scenarios()
    summary = measure(TokenScorer(), batch, answers(batch, {"IDTest"}), RELEASED, 0, truth=ExactWorld()).summary
    entry = summary["subsets"]["IDTest"]
    assert (summary["scale"], summary["negatives"]) == ("token_mean", "subset")
    assert entry["mi_reference"]["value"] == pytest.approx(LOG9 / 2)
    assert entry["remi"]["value"] == pytest.approx(-LOG9)
    assert entry["likelihood_gap"]["value"] == pytest.approx(-3 / 4 * LOG9)
    assert entry["register_gap"]["value"] == pytest.approx(LOG9 / 4)
    # A1 per token: without the persona log .5; half of the answers have two tokens, so 3/4 (log .1 - log .9)
    assert entry["components"]["u"]["value"] == pytest.approx(-3 / 4 * LOG9)
    # the world knows whole responses, in nats, which is another unit
    assert entry["exact_remi"] is entry["exact_likelihood_gap"] is None and entry["share_right"]["value"] == 0


def test_released_draws_a_thousand_pairs_a_subset_and_means_over_them():
    batch = scenarios(n=60) + scenarios("german", 50)
    responses = answers(batch[:80]) + answers(batch[80:], {"german"})
    scorer = TokenScorer()
    result = measure(scorer, batch, responses, RELEASED, 3)
    for tag, n in (("IDTest", 60), ("german", 50)):
        rows = [row for row in result.rows if row.subset_tag == tag]
        assert len(rows) == n and sum(row.n_negatives for row in rows) == 1000
    for x in scorer.asked:
        assert x.scenario.subset_tag in ("IDTest", "german")
    # the naive procedure on what was asked: the first ask of a block is a text's own, the last four lack a part of it
    asks = plan(scorer.version, batch, responses, RELEASED, 3, {}).asks
    own, pairs, place = [], [], 0
    for row in result.rows:
        width = 1 + row.n_negatives + 4
        block, place = asks[place : place + width], place + 2 * width
        assert all(ask.text == row.response for ask in block) and block[0].scenario.sample_id == row.sample_id
        values = [s.logprob_nats / s.n_tokens for s in TokenScorer().score(block)]
        if row.subset_tag == "german":
            own.append(values[0])
            pairs += values[1:-4]
    entry = result.summary["subsets"]["german"]
    assert entry["mi_response"]["value"] == pytest.approx(club_pairs(own, pairs))
    assert result.summary == measure(TokenScorer(), batch, responses, RELEASED, 3).summary
    assert result.summary != measure(TokenScorer(), batch, responses, RELEASED, 4).summary


def test_released_leaves_out_pairs_that_cannot_be_scored():
    # bits 0 1 0 1 0; "0" does not fit the context of scenario 0, and scenario 1 was not answered
    batch = scenarios(n=5)
    scorer = ExactScorer(too_long={("IDTest-0", "0")})
    result = measure(scorer, batch, answers(batch, status={"IDTest-1": "missing"}), RELEASED, 0)
    # scenario 0's own "0" does not fit either; "0" of 2 and of 4 lose their pair with context 0
    assert [row.status for row in result.rows] == ["too_long", "missing", "ok", "ok", "ok"]
    assert [row.n_negatives for row in result.rows] == [0, 0, 3, 4, 3]
    # own log .9 each; pairs: "0" of 2 under 1, 3, 4 (.1 .1 .9), "1" of 3 under 0, 1, 2, 4 (.1 .9 .1 .1), "0" of 4 under
    # 1, 2, 3 (.1 .9 .1): 3 of 10 right
    expected = math.log(0.9) - (3 * math.log(0.9) + 7 * math.log(0.1)) / 10
    assert result.summary["subsets"]["IDTest"]["mi_reference"]["value"] == pytest.approx(expected)


def test_pool_takes_negatives_from_every_subset():
    # 8 contexts in the pool, 7 others, 3 of them with the same bit: D1(y*) = 4/7 log 9 (subset: 2/3 log 9)
    batch = scenarios() + scenarios("german")
    config = FULL.model_copy(update={"negatives": "pool"})
    subsets = measure(ExactScorer(), batch, answers(batch), config, 0).summary["subsets"]
    for tag in ("IDTest", "german"):
        assert subsets[tag]["mi_reference"]["value"] == pytest.approx(4 / 7 * LOG9)


def test_circulant_scores_every_context_equally_often():
    batch = scenarios(n=20)
    scorer = ExactScorer()
    config = FULL.model_copy(update={"k": 3})
    measure(scorer, batch, answers(batch), config, 5)
    whole = [ask for ask in scorer.asked if not ask.drop]
    for x in batch:
        # its own response and reference, and those of K = 3 others
        assert sum(ask.scenario.sample_id == x.sample_id for ask in whole) == 2 * (1 + 3)


def test_mean_of_rows_is_remi_under_a_circulant_design():
    batch = scenarios(n=20) + scenarios("Theater", 20)
    result = measure(ExactScorer(), batch, answers(batch, {"Theater"}), Evaluation(k=5, resamples=50), 1)
    for tag, entry in result.summary["subsets"].items():
        rows = [row for row in result.rows if row.subset_tag == tag]
        assert np.mean([row.remi for row in rows]) == pytest.approx(entry["remi"]["value"])
        assert entry["remi"]["value"] == pytest.approx(entry["mi_response"]["value"] - entry["mi_reference"]["value"])
        for row in rows:
            assert row.remi + row.register_gap == pytest.approx(row.likelihood_gap)


def test_remid_is_relative_to_id_and_shifts_are_means_of_subsets():
    # ID right (R-EMI 0), german wrong (-4/3 log 9), korean right (0): R-EMID 4/3 log 9 and 0, their mean 2/3 log 9
    batch = scenarios() + scenarios("german") + scenarios("korean")
    summary = measure(ExactScorer(), batch, answers(batch, {"german"}), FULL, 0).summary
    assert "remid" not in summary["subsets"]["IDTest"]
    assert summary["subsets"]["german"]["remid"]["value"] == pytest.approx(4 / 3 * LOG9)
    assert summary["subsets"]["korean"]["remid"]["value"] == 0
    assert summary["shifts"]["user"]["remid"]["value"] == pytest.approx(2 / 3 * LOG9)
    assert summary["shifts"]["user"]["subsets"] == ["german", "korean"]
    assert "remid" not in summary["shifts"]["id"]


def test_what_cannot_be_scored_is_counted_and_left_out_of_both_means():
    batch = scenarios(n=6)
    responses = answers(batch, {"IDTest"}, {"IDTest-0": "truncated", "IDTest-1": "empty"})
    # the reference of scenario 2 ("0") does not fit its own context; the response of scenario 3 ("0") not its own
    scorer = ExactScorer(too_long={("IDTest-2", "0"), ("IDTest-3", "0")})
    result = measure(scorer, batch, responses, FULL, 0)
    assert [row.status for row in result.rows] == [
        "truncated",
        "empty",
        "reference_too_long",
        "too_long",
        "ok",
        "ok",
    ]
    entry = result.summary["subsets"]["IDTest"]
    assert entry["n"] == 6
    assert entry["statuses"] == {"truncated": 1, "empty": 1, "reference_too_long": 1, "too_long": 1, "ok": 2}
    assert all(math.isnan(row.remi) for row in result.rows[:4])
    assert entry["likelihood_gap"]["value"] == pytest.approx(-LOG9)
    # scenario 4 (bit 0): contexts 2 and 3 cannot score "0", so they are left out of its reference and of its wrong
    # answer "1" alike. Left are contexts 0, 1, 5 with bits 0, 1, 1: D1(y*) = 2/3 log 9, D1(y) = -2/3 log 9, and
    # R-EMI = -4/3 log 9
    assert result.rows[4].n_negatives == 3
    assert result.rows[4].remi == pytest.approx(-4 / 3 * LOG9)
    assert not any(ask.text == "1" and ask.scenario is batch[0] and ask.drop for ask in scorer.asked)


def test_a_subset_without_any_score_is_null():
    batch = scenarios() + scenarios("german")
    status = {x.sample_id: "truncated" for x in batch if x.subset_tag == "german"}
    summary = measure(ExactScorer(), batch, answers(batch, status=status), FULL, 0).summary
    german = summary["subsets"]["german"]
    assert german["remi"] is german["remid"] is german["components"]["u"] is None
    assert german["statuses"] == {"truncated": 4}
    assert summary["shifts"]["user"]["remi"] is None
    json.dumps(summary, allow_nan=False)


def test_references_are_scored_once_for_two_evaluations():
    batch = scenarios()
    first, second = ExactScorer(), ExactScorer()
    cache = {}
    before = measure(first, batch, answers(batch), FULL, 0, reference_cache=cache)
    # as the loop keeps it in the run folder
    cache = json.loads(json.dumps(cache, allow_nan=False))
    after = measure(second, batch, answers(batch, {"IDTest"}), FULL, 0, reference_cache=cache)
    # 4 texts a round under 1 + 3 + 4 contexts each, twice (response, reference) the first time
    assert (len(first.asked), len(second.asked)) == (4 * 2 * 8, 4 * 8)
    fresh = measure(ExactScorer(), batch, answers(batch, {"IDTest"}), FULL, 0)
    assert after.summary == fresh.summary
    assert before.summary["subsets"]["IDTest"]["mi_reference"] == after.summary["subsets"]["IDTest"]["mi_reference"]


@pytest.mark.parametrize("change", ["version", "seed", "scenarios"])
def test_the_cache_is_not_used_for_another_question(change):
    batch, cache = scenarios(n=12), {}
    config = FULL.model_copy(update={"k": 2})
    measure(ExactScorer(), batch, answers(batch), config, 0, reference_cache=cache)
    scorer = ExactScorer("v2" if change == "version" else "v1")
    if change == "scenarios":
        batch = scenarios(n=11)
    measure(scorer, batch, answers(batch), config, int(change == "seed"), reference_cache=cache)
    assert len(scorer.asked) == len(batch) * 2 * (1 + 2 + 4)


def test_scoring_can_be_shared_out():
    batch = scenarios() + scenarios("german")
    responses = answers(batch, {"german"})
    scorer, ranks = ExactScorer(), [ExactScorer(), ExactScorer()]

    def shared(asks):
        parts = [rank.score(asks[place::2]) for place, rank in enumerate(ranks)]
        return [parts[place % 2][place // 2] for place in range(len(asks))]

    whole = measure(scorer, batch, responses, FULL, 0)
    halves = measure(ExactScorer(), batch, responses, FULL, 0, score_fn=shared)
    assert repr(halves.rows) == repr(whole.rows)
    assert halves.summary == whole.summary
    planned = plan("v1", batch, responses, FULL, 0, {})
    rows = assemble(planned, ExactScorer().score(planned.asks), {})
    assert repr(rows) == repr(whole.rows)
    with pytest.raises(ScoreError, match="came back"):
        assemble(planned, [], {})


def test_asks_of_one_context_are_scored_together(monkeypatch):
    # 20 scenarios, K = 3: 20 × 2 texts × (1 + 3 + 4) = 320 asks: 10 under each whole context, which is also the one
    # without a reasoning, and 2 under each of the other 60; cut into calls of 100, at most three contexts are cut in two
    batch = scenarios(n=20)
    config = FULL.model_copy(update={"k": 3})
    whole = measure(ExactScorer(), batch, answers(batch, {"IDTest"}), config, 0)
    monkeypatch.setattr("coevo.scoring.evaluate.ASKS_PER_CALL", 100)
    scorer, calls = ExactScorer(), []

    def score(asks):
        calls.append([ask.context for ask in asks])
        return scorer.score(asks)

    parts = measure(scorer, batch, answers(batch, {"IDTest"}), config, 0, score_fn=score)
    assert repr(parts.rows) == repr(whole.rows)
    assert [len(call) for call in calls] == [100, 100, 100, 20]
    runs = [key for call in calls for key, _ in itertools.groupby(call)]
    assert len(set(runs)) == 80 and len(runs) <= 83


def test_progress_is_told():
    batch, seen = scenarios(), []
    measure(ExactScorer(), batch, answers(batch), FULL, 0, progress=lambda done, total: seen.append((done, total)))
    # 4 scenarios, 2 texts, 1 + 3 + 4 contexts
    assert seen[-1] == (64, 64)


def test_the_world_gives_exact_measures():
    # the world's log ratio is log 4 where the scorer's is log 9; the formulas are those of CLUB above
    batch = scenarios() + scenarios("german")
    result = measure(ExactScorer(), batch, answers(batch, {"german"}), FULL, 0, truth=ExactWorld())
    german = result.summary["subsets"]["german"]
    assert german["exact_remi"]["value"] == pytest.approx(-4 / 3 * math.log(4))
    assert german["exact_likelihood_gap"]["value"] == pytest.approx(-math.log(4))
    assert german["share_right"]["value"] == 0
    assert result.summary["subsets"]["IDTest"]["share_right"]["value"] == 1
    marginal = FULL.model_copy(update={"estimator": "learned_marginal"})
    other = measure(ExactScorer(), batch, answers(batch), marginal, 0, truth=ExactWorld())
    assert other.summary["subsets"]["german"]["exact_remi"] is None


def test_share_right_is_over_all_responses():
    # three of four answers are wrong and truncated; leaving them out would say 100 %
    batch = scenarios()
    responses = [
        Response(x.sample_id, x.reference if i == 0 else "junk", "m", "ok" if i == 0 else "truncated")
        for i, x in enumerate(batch)
    ]
    entry = measure(ExactScorer(), batch, responses, FULL, 0, truth=ExactWorld()).summary["subsets"]["IDTest"]
    assert entry["share_right"]["value"] == 0.25
    assert (entry["statuses"]["truncated"], entry["exact_n"]) == (3, 1)


def test_the_result_is_stamped_and_deterministic():
    batch = scenarios(n=12) + scenarios("german", 12)
    mixed = answers(batch[:18]) + answers(batch[18:], {"german"})
    config = FULL.model_copy(update={"k": 4})
    first = measure(ExactScorer(), batch, mixed, config, 3).summary
    assert first == measure(ExactScorer(), batch, mixed[::-1], config, 3).summary
    assert {name: first[name] for name in ("model", "scorer", "estimator", "scale", "negatives", "k", "seed")} == {
        "model": "rpm/test",
        "scorer": "v1",
        "estimator": "club",
        "scale": "sum",
        "negatives": "subset",
        "k": 4,
        "seed": 3,
    }
    interval = first["subsets"]["german"]["likelihood_gap"]
    assert interval["value"] == pytest.approx(-LOG9 / 2)
    assert interval["low"] < interval["value"] < interval["high"]


def test_rows_survive_json_and_give_the_same_summary():
    batch = scenarios(n=6)
    responses = answers(batch, {"IDTest"}, {"IDTest-0": "truncated"})
    result = measure(ExactScorer(), batch, responses, FULL, 0)
    lines = [json.dumps(row.to_dict(), allow_nan=False) for row in result.rows]
    rows = [Row.from_json(json.loads(line)) for line in lines]
    assert repr(rows) == repr(result.rows)
    assert summarise(rows, FULL, 0, model="rpm/test", scorer="v1") == result.summary


@pytest.mark.parametrize("broken", ["missing", "twice", "other model"])
def test_responses_must_fit_the_scenarios(broken):
    batch = scenarios()
    responses = answers(batch)
    if broken == "missing":
        responses = responses[1:]
    elif broken == "twice":
        responses = [*responses, responses[0]]
    else:
        responses[0] = Response(responses[0].sample_id, "0", "another")
    with pytest.raises(ScoreError, match=r"models|one to one"):
        measure(ExactScorer(), batch, responses, FULL, 0)


def test_a_subset_of_one_has_nothing_to_contrast_with():
    batch = scenarios() + scenarios("german", 1)
    with pytest.raises(ScoreError, match=r"'german' has 1 scenario.*learned_marginal"):
        measure(ExactScorer(), batch, answers(batch), FULL, 0)
