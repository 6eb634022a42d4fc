"""The diagnosis, on rows and divergences made by hand."""

import json
import math

import numpy as np
import pytest

from coevo.config import Evaluation
from coevo.diagnosis import assemble as diagnosis
from coevo.diagnosis.assemble import Embedded, Which, comparisons, diagnose
from coevo.maths.divergence import Divergence
from coevo.scoring.evaluate import Measurement
from coevo.scoring.summary import Row, difference, remid_margin, summarise
from coevo.types import Scenario, Turn

CONFIG = Evaluation(k=4, resamples=300)
TAGS = ("IDTest", "german", "korean", "Theater", "TurnLevelComposition")
N = 40


def rows(cost, noise=1.0, component="u", gap=0.0, seed=0, tags=TAGS, n=N):
    """Rows whose R-EMI is -cost[tag] with noise (nats), all of it in one component; M is `gap`."""
    made = []
    for place, tag in enumerate(tags):
        jitter = np.random.default_rng([seed, place]).normal(0, noise, n)
        # centred, so that the means are the costs themselves
        jitter -= jitter.mean()
        for i in range(n):
            remi = -cost.get(tag, 0.0) + jitter[i]
            numbers = {f"component_{z}": remi if z == component else 0.0 for z in "ucd"}
            numbers |= {"mi_response": 9 + remi, "mi_reference": 9.0, "remi": remi, "register_gap": gap}
            numbers |= {"likelihood_gap": remi + gap}
            made.append(Row(f"{tag}-{i}", tag, "Ann", "Who?", f"text {i}", "reference", "ok", 4, **numbers))
    return made


def scenarios(made):
    turns = (Turn("user", "Hi."), Turn("agent", "Hello."), Turn("user", "Who?"))
    return [Scenario(r.sample_id, "Test", r.subset_tag, "Ann", {"name": "Ada"}, turns, "reference") for r in made]


def measured(**models):
    return {name: Measurement(made, summarise(made, CONFIG, 1, model=name, scorer="v1")) for name, made in models.items()}


def diagnosed(divergences=None, **models):
    first = next(iter(models.values()))
    result = diagnose(measured(**models), scenarios(first), divergences or {}, CONFIG, 1)
    json.dumps(result, allow_nan=False)
    return result


def test_the_shift_that_hurts_most_is_named_with_its_component_and_beyond_noise():
    # user: mean of german 5 and korean 3, so R-EMID 4; character 1; dialogue 0
    made = rows({"german": 5, "korean": 3, "Theater": 1}, component="c")
    model = diagnosed(a=made)["models"]["a"]
    hurt = model["hurts_most"]
    assert hurt["shift"] == "user" and hurt["beyond_noise"]
    assert hurt["remid"]["value"] == pytest.approx(4)
    assert hurt["next"]["shift"] == "character" and hurt["next"]["beyond_noise"]
    assert hurt["next"]["margin"]["value"] == pytest.approx(3)
    words = " ".join(model["verdict"])
    assert "The user shift hurts most: R-EMID 4.00 [" in words and "beyond noise (the interval is above 0)" in words
    assert "3.00 [" in words and "more than the character shift, beyond noise too" in words
    assert "compared with the references, the responses use the character least: R-EMI_c -4.00 [" in words
    assert "in any context" not in words, "M is 0"
    assert "At home (ID) it is at the references' level: R-EMI 0.00 [" in words
    assert "Of 4 shifted subsets, german has the largest R-EMID: 5.00 [" in words


def test_a_loss_within_noise_is_not_called_one():
    model = diagnosed(a=rows({"german": 0.1, "korean": 0.1}, noise=3.0))["models"]["a"]
    assert model["hurts_most"]["shift"] == "user" and not model["hurts_most"]["beyond_noise"]
    assert any("No shift hurts beyond noise. The user shift's R-EMID 0.10 [" in s for s in model["verdict"])
    assert not any("least, against" in s for s in model["verdict"])


def test_two_shifts_that_cost_alike_are_not_told_apart():
    made = rows({"german": 5, "korean": 5, "Theater": 4.9}, noise=2.0)
    hurt = diagnosed(a=made)["models"]["a"]["hurts_most"]
    assert hurt["beyond_noise"] and hurt["next"]["shift"] == "character" and not hurt["next"]["beyond_noise"]
    assert "within noise" in " ".join(diagnosed(a=made)["models"]["a"]["verdict"])


def test_a_register_gap_is_said_beside():
    words = " ".join(diagnosed(a=rows({"german": 5, "korean": 5}, gap=-2.5))["models"]["a"]["verdict"])
    assert "M -2.50 [-2.50, -2.50]" in words and "which R-EMI cannot see" in words


def test_the_margin_is_the_difference_of_two_remids_and_leaves_id_out():
    made = rows({"german": 5, "korean": 3, "Theater": 1}, noise=2.0)
    shifts = summarise(made, CONFIG, 1, model="a", scorer="v1")["shifts"]
    margin = remid_margin(made, CONFIG, 1, "user", "character")
    assert margin.value == pytest.approx(shifts["user"]["remid"]["value"] - shifts["character"]["remid"]["value"])
    # a noisier ID subset makes both R-EMIDs less sure, and their difference not at all
    noisier = [*rows({}, noise=50.0, tags=("IDTest",)), *made[N:]]
    assert remid_margin(noisier, CONFIG, 1, "user", "character") == margin
    reverse = remid_margin(made, CONFIG, 1, "character", "user")
    assert (reverse.value, reverse.low, reverse.high) == pytest.approx((-margin.value, -margin.high, -margin.low))


def test_models_are_compared_with_the_first_one_paired():
    easy, hard = rows({"german": 1, "korean": 1}, noise=5.0), rows({"german": 3, "korean": 3}, noise=5.0)
    # the same noise in both: unpaired intervals of width about 2 * 1.96 * 5 / sqrt(80), the paired one has none
    result = diagnosed(first=easy, second=hard)["models"]
    assert result["first"]["against"] is None
    change = result["second"]["against"]["shifts"]["user"]["remid"]
    assert change["value"] == pytest.approx(2) and change["high"] - change["low"] == pytest.approx(0, abs=1e-9)
    words = " ".join(result["second"]["verdict"])
    assert "Against first, paired by scenario: worse under the user shift (R-EMI -2.00 [-2.00, -2.00])." in words
    back = " ".join(diagnosed(first=hard, second=easy)["models"]["second"]["verdict"])
    assert "better under the user shift (R-EMI 2.00 [2.00, 2.00])" in back
    same = " ".join(diagnosed(first=easy, second=easy)["models"]["second"]["verdict"])
    assert "no difference of R-EMI beyond noise" in same


def test_what_was_not_scored_is_counted_and_listed():
    made = rows({"german": 5, "korean": 5})
    made[3] = Row("IDTest-3", "IDTest", "Ann", "Who?", "", "reference", "missing")
    made[4] = Row("IDTest-4", "IDTest", "Ann", "Who?", "cut", "reference", "truncated")
    model = diagnosed(a=made)["models"]["a"]
    assert model["statuses"] == {"ok": 198, "missing": 1, "truncated": 1}
    assert model["unscored"] == {"missing": ["IDTest-3"], "truncated": ["IDTest-4"]}
    assert model["verdict"][0].startswith("198 of 200 responses could be scored") and "missing 1" in model["verdict"][0]
    pair = difference(rows({}), made)
    assert [row.status for row in pair[2:6]] == ["ok", "unpaired", "unpaired", "ok"]


def test_a_model_that_answered_nothing_has_no_verdict_but_a_count():
    made = [Row(r.sample_id, r.subset_tag, "Ann", "Who?", "", "reference", "missing") for r in rows({})]
    model = diagnosed(full=rows({"german": 2}), none=made)["models"]["none"]
    assert model["hurts_most"] is None and model["against"] is None and model["costliest"] == []
    assert any("cannot be said" in sentence for sentence in model["verdict"])


def test_without_id_there_is_no_remid_and_that_is_said():
    result = diagnosed(a=rows({"german": 5}, tags=("german", "Theater")))
    assert any("No scenario is in distribution" in note for note in result["notes"])
    assert result["models"]["a"]["hurts_most"] is None


def test_few_and_too_long_responses_are_noted():
    made = rows({}, n=10)
    made[0] = Row("IDTest-0", "IDTest", "Ann", "Who?", "long", "reference", "too_long")
    notes = " ".join(diagnosed(a=made)["notes"])
    assert "Fewer than 30 scored responses" in notes and "1 response(s) are longer with their prompt" in notes


def test_the_ten_costliest_come_with_their_texts():
    made = rows({"german": 20}, noise=1.0)
    cases = diagnosed(a=made)["models"]["a"]["costliest"]
    worst = sorted(made, key=lambda row: row.remi)[:10]
    assert [case["sample_id"] for case in cases] == [row.sample_id for row in worst]
    assert cases[0]["character"] == "name: Ada" and cases[0]["response"].startswith("text ")
    assert [turn["text"] for turn in cases[0]["dialogue"]] == ["Hi.", "Hello.", "Who?"]


def made_divergence(corrected, null=0.01):
    """Its null has the mean `null` and a 95 % quantile 0.001 above that."""
    return Divergence(raw=corrected + null, null_mean=null, null_high=null + 0.001, p_value=0.005)


def test_the_index_is_b2_of_corrected_divergences_with_each_share():
    # B2 = sum of sqrt(D_z) + D_P^(1/4) + D_Q^(1/4): .4 + .3 + .0 + .5 + .2
    found = {
        Which("u", "", "german"): made_divergence(0.16),
        Which("c", "", "german"): made_divergence(0.09),
        # within its null, so that it counts as 0 and not as .03
        Which("d", "", "german"): made_divergence(0.0009),
        Which("gap", "a", "id"): made_divergence(0.0625),
        Which("gap", "a", "german"): made_divergence(0.0016),
        Which("u", "", "korean"): made_divergence(0.01),
        Which("c", "", "korean"): made_divergence(0.01),
        Which("d", "", "korean"): made_divergence(0.01),
        Which("gap", "a", "korean"): made_divergence(0.0081),
    }
    result = diagnosed(found, a=rows({"german": 5}, tags=("IDTest", "german", "korean")))
    model = result["models"]["a"]
    bound = model["subsets"]["german"]["bound"]
    assert bound["value"] == pytest.approx(1.4)
    assert bound["shares"] == pytest.approx({"u": 0.4, "c": 0.3, "d": 0.0}) and bound["response"] == pytest.approx(0.7)
    raw = math.sqrt(0.17) + math.sqrt(0.10) + math.sqrt(0.0109) + 0.0725**0.25 + 0.0116**0.25
    assert model["subsets"]["german"]["bound_raw"]["value"] == pytest.approx(raw)
    # korean: .1 + .1 + .1 + .5 + .3
    assert model["subsets"]["korean"]["bound"]["value"] == pytest.approx(1.1)
    assert (model["worst_case"]["subset"], model["worst_case"]["value"]) == ("german", pytest.approx(1.4))
    assert any("Worst-case risk" in s and "1.40, in german" in s and "the user's persona" in s for s in model["verdict"])
    assert result["divergences"]["german"]["u"]["corrected"] == pytest.approx(0.16)
    assert result["divergences"]["german"]["reference"] is None
    assert "bound" not in model["subsets"]["IDTest"]


def test_comparisons_pool_id_pair_the_gap_and_leave_missing_responses_out():
    tags = ["IDTest"] * 3 + ["IDTrain"] * 2 + ["german"] * 3
    place = np.arange(8.0)[:, None]
    said = place + 40
    said[[1, 6]] = np.nan
    embedded = Embedded({"u": place, "c": place + 10, "d": place + 20}, place + 30, {"m": said})
    found = {which: (x.ravel().tolist(), y.ravel().tolist()) for which, x, y in comparisons(tags, embedded, 0)}
    assert found == {
        ("reference", "", "german"): ([30, 31, 32, 33, 34], [35, 36, 37]),
        ("u", "", "german"): ([0, 1, 2, 3, 4], [5, 6, 7]),
        ("c", "", "german"): ([10, 11, 12, 13, 14], [15, 16, 17]),
        ("d", "", "german"): ([20, 21, 22, 23, 24], [25, 26, 27]),
        # the references of the scenarios that were answered
        ("gap", "m", "id"): ([40, 42, 43, 44], [30, 32, 33, 34]),
        ("gap", "m", "german"): ([45, 47], [35, 37]),
        ("response", "m", "german"): ([40, 42, 43, 44], [45, 47]),
    }
    assert not list(comparisons(["german"] * 8, embedded, 0)), "nothing to compare with"


def test_comparisons_take_a_seeded_part_of_large_samples(monkeypatch):
    monkeypatch.setattr(diagnosis, "MOST_ROWS", 5)
    tags = ["IDTest"] * 20 + ["german"] * 20
    place = np.arange(40.0)[:, None]
    embedded = Embedded({"u": place, "c": place, "d": place}, place, {})
    first, again, other = (list(comparisons(tags, embedded, seed)) for seed in (0, 0, 1))
    assert all(len(x) == len(y) == 5 for _, x, y in first)
    assert repr(first) == repr(again) and repr(first) != repr(other)
    # the same rows for every component, so that shares belong together
    assert all(np.array_equal(x, first[0][1]) and np.array_equal(y, first[0][2]) for _, x, y in first)
