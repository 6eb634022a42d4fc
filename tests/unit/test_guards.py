"""Guards on text: every share is counted beside it."""

from __future__ import annotations

import pytest

from coevo.scoring.guards import echo, loop, unended, units


def test_units_are_words_or_characters_where_a_script_has_no_spaces() -> None:
    assert units("Who's there? I AM, Ada-Lou 2!") == ["who's", "there", "i", "am", "ada", "lou", "2"]
    assert units("你好，Ada！") == ["你", "好", "ada"]
    assert units("こんにちは。") == list("こんにちは")
    assert units("안녕 하세요") == ["안녕", "하세요"], "Korean has spaces"
    assert units("?! …") == ["?", "!", "…"], "of a text of signs, the signs"
    assert units(" ") == []


def test_echo_is_the_share_of_copied_units() -> None:
    query = "Tell me, what is the time of day?"
    assert echo(query, [query]) == echo("tell me what is the time of day", [query]) == 1.0
    assert echo("It is late, my friend, go home.", [query]) == 0.0
    # ten words; "what is the time" and "is the time of" are copied: five of them
    assert echo("You ask what is the time of, and I laugh.", ["Pray, " + query]) == pytest.approx(5 / 10)
    # three words in a row are shared by chance
    assert echo("He said what is the matter here.", [query]) == 0.0
    # pieces of two sources, not one across them
    assert echo("a b c d e f g h", ["a b c d", "e f g h"]) == 1.0
    assert echo("a b c d e f", ["a b c", "d e f"]) == 0.0


def test_echo_in_scripts_without_spaces() -> None:
    query = "请问现在几点钟了？"  # eight characters
    assert echo(query, [query]) == 1.0
    # ten characters, of which the last six stand in the query
    assert echo("我不知道现在几点钟了", [query]) == pytest.approx(6 / 10)
    assert echo("我不知道现在几点", [query]) == 0.0, "four characters are two words"
    assert echo("今は何時ですか", ["すみません、今は何時ですか？"]) == 1.0


def test_a_short_text_is_an_echo_of_a_whole_turn_alone() -> None:
    assert echo("Why?", ["Why?", "I know why you came."]) == 1.0
    assert echo("Why?", ["I know why you came."]) == 0.0
    assert echo("", ["Why?", ""]) == 0.0


def test_loop_is_the_share_of_repeated_n_grams() -> None:
    assert loop("I came, I saw, I went home at last.") == 0.0
    # twelve words, ten trigrams, of which four differ
    assert loop("no more of it no more of it no more of it") == pytest.approx(1 - 4 / 10)
    # six words: down with him / with him down / him down with / down with him
    assert loop("Down with him, down with him!") == pytest.approx(1 / 4)
    assert loop("ha " * 12) == pytest.approx(1 - 1 / 10)
    # twelve characters, nine 4-grams, of which three differ
    assert loop("好吧吗好吧吗好吧吗好吧吗") == pytest.approx(1 - 3 / 9)
    assert loop("?!?!?!?!") > 0.4 and loop("No.") == loop("") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "Go!",
        "Who?",
        "Well…",
        "And yet--",
        "Da –",
        "他来了。",
        "「はい！」",
        '"No."',
        "(he nods)",
        "*bows*",
        "Hi 🙂",
        "ठीक है।",
    ],
)
def test_what_ends_as_sentences_do(text: str) -> None:
    assert unended(text) == unended(f"{text} \n") == 0.0


@pytest.mark.parametrize("text", ["I will go to the", "First, second,", "他来", "in 3"])
def test_what_breaks_off(text: str) -> None:
    assert unended(text) == 1.0


def test_nothing_does_not_break_off() -> None:
    assert unended("") == 0.0, "it cannot be scored, and is left out by its status"
