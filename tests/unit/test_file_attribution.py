"""Attribution on a file: scenarios that differ from real ones in one component, and who A1 then blames."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from coevo.calibration import file_report as report
from coevo.calibration.cache import Cache
from coevo.calibration.counterfactuals import name, swap
from coevo.calibration.file_attribution import CASES, CHUNK, attribute, deal, exchanged, losses
from coevo.calibration.report import console
from coevo.calibration.settings import Settings
from coevo.cli import main
from coevo.diagnosis.scorers import unseen
from coevo.errors import DataError
from coevo.prompts import NOTHING
from coevo.types import Scenario, Score, Turn
from tests.compat.families import BUILTIN

SETTINGS = Settings(resamples=50)
PEOPLE = ("Ann", "Bob", "Cleo")


def scenario(number, user="Ann", character="Dora", topic="rain", tag="IDTest"):
    """One whose reference says something of every component, and nothing else."""
    return Scenario(
        sample_id=f"{tag}-{number}",
        split=tag,
        subset_tag=tag,
        persona=f"{user}, a figure. Has said: saying {number}",
        character={"name": character, "sayings": [f"line {number}"]},
        dialogue=(Turn("user", f"{topic}? asked in {number}"),),
        reference=f"user-{user} character-{character} topic-{topic}-{number}",
    )


def everyone(n_each, tags=("IDTest", "german")):
    people = [(u, c) for u in PEOPLE for c in ("Dora", "Egon", "Fritz")]
    return [scenario(i, *people[i % 9], tag=tag) for tag in tags for i in range(n_each)]


class Keywords:
    """Every component that is shown and that the text speaks of is worth so many nats; 3 nats are lost in any case."""

    version = "keywords-0000000000"

    def __init__(self, worth=None):
        self.worth = worth or {"u": 1.0, "c": 2.0, "d": 4.0}
        self.asked = 0

    def score(self, asks):
        self.asked += len(asks)
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        x = ask.scenario
        topic, number = x.dialogue[-1].text.split("? asked in ")
        user, character = x.persona.split(",")[0], x.character["name"]
        spoken = {"u": f"user-{user} ", "c": f"character-{character} ", "d": f"-{topic}-{number}"}
        return Score(-3.0 + sum(self.worth[z] for z, word in spoken.items() if z not in ask.drop and word in ask.text), 5)


def unheard(done, total):
    assert 0 < done <= total


# --- swaps ----------------------------------------------------------------------------------------------------------


def test_people_are_told_apart_by_name():
    x = replace(scenario(0), persona=" Lady Anne, a figure. Has said: Ay.", character={"name": "King John", "work": "?"})
    assert (name(x, "u"), name(x, "c")) == ("lady anne", "king john")
    assert name(replace(x, character="Ada Lovelace: a countess"), "c") == "ada lovelace"
    assert name(replace(x, character={"role": "a nurse"}), "c") == "role"  # a card without a name has its first words


def test_a_swap_differs_from_the_scenario_in_one_component():
    x, others = scenario(0), everyone(9, tags=("IDTest",))
    for component, field in (("u", "persona"), ("c", "character"), ("d", "dialogue")):
        made = swap(x, component, others, random.Random(0))
        donor = next(other for other in others if other.sample_id == made.donor)
        expected = {field: getattr(donor, field), "sample_id": f"IDTest-0 with {component} of {made.donor}"}
        assert made.shown == replace(x, **expected)
        assert getattr(made.shown, field) != getattr(x, field) and made.shown.reference == x.reference


def test_the_nearest_donor_is_taken():
    x = scenario(0)
    far, same_character, same_user = scenario(1, "Bob", "Egon"), scenario(2, "Bob"), scenario(3, "Ann", "Egon")
    both = scenario(4)
    chosen = {z: swap(x, z, [far, same_character, same_user, both], random.Random(0)) for z in ("u", "c", "d")}
    assert {z: (made.donor, made.shared) for z, made in chosen.items()} == {
        "u": ("IDTest-2", 1),  # the one with the same character; 4 has the same user
        "c": ("IDTest-3", 1),
        "d": ("IDTest-4", 2),
    }
    assert swap(x, "u", [far], random.Random(0)).shared == 0
    assert swap(x, "u", [x, both, same_user], random.Random(0)) is None


def test_no_donor_shows_the_reference_or_a_window_of_the_same_scene():
    x = scenario(0)
    overlapping = replace(scenario(1), dialogue=(*x.dialogue, Turn("agent", "Ay."), Turn("user", "And then?")))
    later = replace(scenario(2), dialogue=(Turn("user", "Well?"), Turn("agent", f"{x.reference} Ay."), Turn("user", "So?")))
    quoting = replace(scenario(3, "Bob"), persona=f"Bob. Has said: {x.reference}")
    assert swap(x, "d", [x, overlapping, later], random.Random(0)) is None
    assert swap(x, "u", [quoting], random.Random(0)) is None
    assert swap(x, "d", [later, scenario(4)], random.Random(0)).donor == "IDTest-4"


def test_donors_are_of_the_same_subset_and_fixed_by_the_seed():
    scenarios = everyone(30)
    swaps = exchanged(scenarios, 0)
    for x, found in zip(scenarios, swaps, strict=True):
        assert all(made.donor.startswith(x.subset_tag) for made in found.values())
    assert exchanged(scenarios, 0) == swaps != exchanged(scenarios, 1)


def test_a_subset_of_one_character_has_none_to_mistake():
    with pytest.raises(DataError, match=r"IDTest-0: no other scenario of subset 'IDTest' has another character"):
        exchanged([scenario(i, user) for i, user in enumerate(PEOPLE)], 0)


# --- losses ---------------------------------------------------------------------------------------------------------


def test_losses_by_hand():
    # the reference: L = -3 in x, -5 without u, -4 without c and d, so it uses 2, 1, 1 nats. With another u: -6, and -5, -6,
    # -8 without u, c, d: -1, 0, 2. Lost: -3, -1, +1. With another c or d all stays as it was: 0.
    own = [-3.0, -5.0, -4.0, -4.0]
    nats = np.array([[own, [-6.0, -5.0, -6.0, -8.0], own, own]])
    assert losses(nats).tolist() == [[[-3.0, -1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]


def test_cases_are_disjoint_and_at_least_twenty():
    tags, scored = np.repeat(["a", "b", "c"], 80), np.ones(240, dtype=bool)
    scored[:3] = False
    parts = deal(tags, scored, 0)
    assert len(parts) == 21 and {tag for tag, _ in parts} == {"a", "b", "c"}  # 7 parts of each are the first 20 or more
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(3, 240))
    assert {len(places) for places in parts.values()} == {11, 12}
    with pytest.raises(DataError, match=r"subset 'a' has 69 scenarios .* take 70"):
        deal(tags, np.r_[np.zeros(11, dtype=bool), scored[11:]], 0)


# --- who is blamed --------------------------------------------------------------------------------------------------


def test_a_scorer_that_reads_everything_blames_the_swapped_component(tmp_path):
    # what is spoken of is worth 1, 2 and 4 nats, shown or not beside the others: the mistaken component loses just that
    scenarios, scorer = everyone(100), Keywords()
    result = attribute(scorer, scenarios, SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert len(result["cases"]) == 3 * CASES and all(case["right"] for case in result["cases"])
    assert [v["found"] for v in result["verdicts"]] == ["20 of 20"] * 3 and all(v["holds"] for v in result["verdicts"])
    worth = {(r["component"], r["tag"]): {z: one["value"] for z, one in r["lost"].items()} for r in result["losses"]}
    assert worth["u", "all"] == {"u": -1.0, "c": 0.0, "d": 0.0}
    assert worth["c", "german"] == {"u": 0.0, "c": -2.0, "d": 0.0}
    assert worth["d", "IDTest"] == {"u": 0.0, "c": 0.0, "d": -4.0}
    assert {z: use["value"] for z, use in result["uses"].items()} == {"u": 1.0, "c": 2.0, "d": 4.0}
    assert result["unscored"] == [] and result["shared"]["d"] == [0, 0, 200]
    asked = scorer.asked
    assert attribute(scorer, scenarios, SETTINGS, Cache(tmp_path, SETTINGS), unheard) == result and scorer.asked == asked
    # another text in one place is another question
    changed = [replace(scenarios[0], persona="Ann, a figure. Has said: something else"), *scenarios[1:]]
    attribute(scorer, changed, SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert scorer.asked > asked


def test_what_was_scored_before_an_interruption_is_kept(tmp_path):
    class Stopped(Keywords):
        def score(self, asks):
            if self.asked:
                raise KeyboardInterrupt
            return super().score(asks)

    with pytest.raises(KeyboardInterrupt):
        attribute(Stopped(), everyone(100), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    resumed, fresh = Keywords(), Keywords()
    result = attribute(resumed, everyone(100), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert result == attribute(fresh, everyone(100), SETTINGS, Cache(tmp_path / "fresh", SETTINGS), unheard)
    assert resumed.asked == fresh.asked - CHUNK * 16


def test_too_few_of_a_subset_are_refused_before_anything_is_scored(tmp_path):
    scorer = Keywords()
    with pytest.raises(DataError, match="take 100"):
        attribute(scorer, everyone(99), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert scorer.asked == 0


def test_a_scorer_that_does_not_read_personas_fails(tmp_path):
    result = attribute(Keywords({"u": 0.0, "c": 2.0, "d": 4.0}), everyone(100), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert [v["found"] for v in result["verdicts"]] == ["0 of 20", "20 of 20", "20 of 20"]
    assert [v["holds"] for v in result["verdicts"]] == [False, True, True]


def test_what_cannot_be_scored_is_left_out_and_listed(tmp_path):
    class Short(Keywords):
        def _one(self, ask):
            long = ask.scenario.sample_id.startswith("german-7") and ask.drop == NOTHING
            return Score(math.nan, 5, "too_long") if long else super()._one(ask)

    result = attribute(Short(), everyone(120), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    assert result["unscored"] == ["german-7", *(f"german-{i}" for i in range(70, 80))]
    assert result["losses"][0]["n"] == 229 and all(case["right"] for case in result["cases"])


def test_the_report_says_what_was_seen(tmp_path):
    result = attribute(Keywords(), everyone(100), SETTINGS, Cache(tmp_path, SETTINGS), unheard)
    files = report.write(tmp_path, result)
    assert [file.name for file in files] == ["attribution.json", "attribution.md"]
    assert json.loads(files[0].read_text()) == result
    text = files[1].read_text()
    assert "| u | all | 200 | -1.00 [-1.00, -1.00] | 0.00 [0.00, 0.00] |" in text and "| 20 of 20 | yes |" in text
    assert console(result).count("holds") == 3


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_missing(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["calibrate", "--out", out, "--data", "d.json"]) == 2
    assert "nobody knows the law of a file; give a scorer to judge: --scorer RUN" in capsys.readouterr().err
    assert main(["calibrate", "--out", out, "--data", "d.json", "--scorer", "r", "--quick"]) == 2
    assert "omit one of the two" in capsys.readouterr().err
    assert main(["calibrate", "--out", out, "--data", "d.json", "--scorer", str(tmp_path / "no run")]) == 2
    assert "resolved.yaml is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_split_that_a_scorer_was_trained_on_is_left_out(tmp_path):
    run, data = tmp_path / "run", tmp_path / "data.json"
    run.mkdir()
    recipe = "name: mine\ndata: {kind: file, path: data.json, reference: carry, train_split: Taught}\n"
    (run / "resolved.yaml").write_text(recipe)
    sample = {
        "sample_ID": "a",
        "subset_tag": "IDTest",
        "user_persona": "Ann",
        "agent_character": "Dora",
        "dialogue_context": [{"user_query": "Rain?"}],
        "agent_golden_response": "Rain.",
    }
    data.write_text(json.dumps({"Taught": [sample], "Kept": [sample | {"sample_ID": "b"}]}))
    assert [x.sample_id for x in unseen(run, data)] == ["b"]
    data.write_text(json.dumps({"Taught": [sample]}))
    with pytest.raises(DataError, match=r"Taught is its only split, and .* trains on that"):
        unseen(run, data)


def test_a_file_without_scenarios_is_named(tmp_path):
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(DataError, match=r"empty\.json: has no split; expected scenarios"):
        unseen(BUILTIN, tmp_path / "empty.json")
