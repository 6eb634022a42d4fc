"""Bad answers: how bad each is, by the world's exact density, and what is left out where it would not be bad."""

import random
from dataclasses import replace

import pytest

from coevo.data import BATTERIES, battery, world
from coevo.data.battery import MEMBERS
from coevo.data.world.battery import LADDER
from coevo.types import Scenario, Turn

WORLD = world.generate("ShiftTrain", 48, seed=5)
CASES = BATTERIES["world"](WORLD, 0)


def scenario(name: str, query: str, reference: str, tag: str = "IDTrain") -> Scenario:
    return Scenario(name, "IDTrain", tag, "Ann", "Ada", (Turn("user", query),), reference)


def n_right(x: Scenario, text: str) -> int:
    symbols = zip(world.SLOTS, world.parse_response(text).symbols, strict=True)
    return sum(symbol in world.right_phrases(world.parse_scenario(x), slot) for slot, symbol in symbols)


def test_the_world_makes_every_member_and_knows_each_to_be_worse() -> None:
    for case in CASES:
        x, attributes = case.scenario, world.parse_scenario(case.scenario)
        assert tuple(case.bad) == MEMBERS
        for name, text in case.bad.items():
            assert world.share_right(x, text) < world.share_right(x, x.reference), (x.sample_id, name)
            assert world.log_density(attributes, text) < world.log_density(attributes, x.reference), (x.sample_id, name)


def test_slots_are_wrong_as_often_as_the_name_says() -> None:
    for case in CASES:
        x, own = case.scenario, n_right(case.scenario, case.scenario.reference)
        assert n_right(x, case.bad["one_slot_wrong"]) == own - 1
        assert n_right(x, case.bad["two_slots_wrong"]) == own - 2
        for name in ("wrong_language", "fits_anyone", "query_echoed", "loop", "fluent_nonsense", "instructions"):
            assert n_right(x, case.bad[name]) == 0, name
        # padding keeps the slots, and pays by the pieces that it adds
        assert n_right(x, case.bad["padding"]) == own
        assert world.parse_response(case.bad["padding"]).junk >= 2


def test_the_wrong_language_is_right_in_it() -> None:
    for case in CASES:
        attributes = world.parse_scenario(case.scenario)
        shares = {
            language: world.share_right(replace(attributes, language=language), case.bad["wrong_language"])
            for language in world.LANGUAGES
        }
        assert sorted(shares.values()) == [0, 0, 0, 0, 0, 1] and shares[attributes.language] == 0


def test_nonsense_and_slots_made_wrong_stay_in_the_users_language() -> None:
    language_of = {phrase.text: phrase.language for phrase in world.PHRASES}
    for case in CASES:
        symbols = world.parse_response(case.bad["fluent_nonsense"]).symbols
        assert {language_of[symbol] for symbol in symbols} == {world.parse_scenario(case.scenario).language}


def test_graded_answers_go_from_right_to_senseless_with_their_exact_share() -> None:
    for case in CASES:
        x = case.scenario
        assert all(share == world.share_right(x, text) for text, share in case.graded.items())
        assert case.graded[x.reference] == world.share_right(x, x.reference)
        assert "" not in case.graded, "nothing cannot be scored, and so cannot be ranked"
        assert set(case.graded) == {*case.ladder, *filter(None, case.bad.values())}
        # reference and ladder have the world's form: five pieces, of which none to five are right; few say the same twice
        assert all(world.parse_response(text).n_pieces == 5 for text in case.ladder)
        assert {case.graded[text] for text in case.ladder} >= {0.0, 0.2, 0.4, 0.6, 1.0}
        assert 1 + LADDER - 3 <= len(case.ladder) <= 1 + LADDER


def test_choices_hang_on_seed_and_sample_alone() -> None:
    assert BATTERIES["world"](WORLD[40:41], 0) == CASES[40:41]
    assert BATTERIES["world"](WORLD[40:41], 1) != CASES[40:41]


def test_a_reference_without_a_right_slot_has_none_to_spoil() -> None:
    lost = replace(WORLD[0], reference=" ".join([world.OTHER] * 5))
    bad = BATTERIES["world"]([lost], 0)[0].bad
    assert "one_slot_wrong" not in bad and "two_slots_wrong" not in bad and "padding" in bad


def test_a_file_has_what_needs_no_parser() -> None:
    batch = [scenario(f"a-{i}", f"Question {i}?", f"I say {i}. It is so. No more of it!") for i in range(3)]
    batch += [scenario(f"g-{i}", f"Frage {i}?", f"Ich sage {i}. So ist es.", "german") for i in range(2)]
    made = {case.scenario.sample_id: case for case in BATTERIES["file"](batch, 0)}
    assert all(not case.graded for case in made.values()), "without a parser no answer has a known share"
    bad = made["a-0"].bad
    assert tuple(bad) == tuple(
        name for name in MEMBERS if name not in ("wrong_language", "one_slot_wrong", "two_slots_wrong")
    )
    assert bad["query_echoed"] == "Question 0?"
    assert bad["another_reference"] in (batch[1].reference, batch[2].reference), "of its own subset, where it has another"
    assert made["g-1"].bad["another_reference"] == batch[3].reference
    assert made["g-1"].bad["fits_anyone"].startswith("Das ist")
    assert bad["padding"].startswith(batch[0].reference + " ")
    # 33 characters, of which the first 16; its first four words have 11, and are said until 33 are reached: three times
    assert bad["truncated"] == "I say 0. It is s" and len(batch[0].reference) == 33
    assert bad["loop"] == "I say 0. It I say 0. It I say 0. It"
    sentences = {"I say 1.", "I say 2.", "It is so.", "No more of it!"}
    nonsense = bad["fluent_nonsense"]
    for sentence in sentences:
        nonsense = nonsense.replace(sentence, "")
    assert not nonsense.strip(), "whole sentences of others, and nothing else"


def test_a_files_alternatives_are_good_answers() -> None:
    x = replace(scenario("a", "What?", "This."), alternatives=("That.", "This. ", "What?"))
    assert BATTERIES["file"]([x], 0)[0].good == ("That.",), "neither the reference again nor what is bad"
    assert BATTERIES["file"]([scenario("b", "What?", "This.")], 0)[0].good == ()


def test_what_says_the_same_as_the_reference_is_no_bad_answer() -> None:
    echo = scenario("a", "What?", "What?")
    bad = BATTERIES["file"]([echo], 0)[0].bad
    assert "query_echoed" not in bad
    assert "another_reference" not in bad and "fluent_nonsense" not in bad, "there is no other scenario"
    # two scenarios with one reference: neither is bad for the other
    assert "another_reference" not in BATTERIES["file"]([echo, replace(echo, sample_id="b")], 0)[0].bad
    # half of one character is nothing, and nothing is the member `empty`
    assert "truncated" not in BATTERIES["file"]([scenario("c", "Und?", "。")], 0)[0].bad


@pytest.mark.parametrize(
    ("piece", "reference", "said"), [("ab", "abcdef", 3), ("a", "a", 3), ("a", "abcdefg", 7), ("", "abcd", 4)]
)
def test_a_loop_is_as_long_as_the_reference_and_at_least_three_times(piece: str, reference: str, said: int) -> None:
    assert battery.looped(piece, reference) == " ".join([piece] * said)


def test_instructions_are_drawn_from_all() -> None:
    drawn = {battery.plain(WORLD[0], [], random.Random(seed))["instructions"] for seed in range(40)}
    assert drawn == set(battery.INSTRUCTIONS)
