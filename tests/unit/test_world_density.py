"""The world's words and its exact density."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coevo.data import world
from coevo.data.world.attributes import _recomposed_queries, _strict_queries
from coevo.data.world.lexicon import ATTRIBUTE_VALUES, LEXICA

ANN = world.Attributes("en", "formal", "nurse", "physicist", "sea", "worried")
RIGHT = (
    "Good evening, kind nurse. The sea keeps what it is given. Every effect has its cause. Take heart, this too will pass."
)
# Phrases of a slot = 6 languages · values · variants.
SIZE = {"greeting": 6 * 3 * 2, "address": 6 * 8, "content": 6 * 12 * 2, "catchphrase": 6 * 14, "closing": 6 * 4}


def _query_parts() -> list[str]:
    return [
        text
        for lexicon in LEXICA.values()
        for part in (lexicon.opener, lexicon.mood, lexicon.question)
        for texts in part.values()
        for text in texts
    ]


def test_phrases_are_distinct_and_well_formed() -> None:
    texts = [phrase.text for phrase in world.PHRASES]
    history = [line for lexicon in LEXICA.values() for exchange in lexicon.history for line in exchange]
    everything = texts + _query_parts() + history + [world.OTHER]
    assert [text for text, count in Counter(everything).items() if count > 1] == []
    for text in everything:
        assert text == " ".join(text.split())
        assert text[-1] in ".,!?。，、！？…", text
    assert {slot: len(phrases) for slot, phrases in world.INVENTORY.items()} == SIZE


def test_every_language_has_every_value_with_its_variants() -> None:
    for lexicon in LEXICA.values():
        for slot in world.SLOTS:
            assert tuple(lexicon.reply[slot]) == ATTRIBUTE_VALUES[world.SLOT_ATTRIBUTE[slot]]
            n_variants = 2 if slot in ("greeting", "content") else 1
            assert all(len(texts) == n_variants for texts in lexicon.reply[slot].values())
        assert tuple(lexicon.opener) == world.MANNERS
        assert tuple(lexicon.mood) == world.MOODS
        assert tuple(lexicon.question) == world.TOPICS
        parts = (lexicon.opener, lexicon.mood, lexicon.question)
        assert all(len(texts) == 2 for part in parts for texts in part.values())
        assert len(lexicon.history) == 10


def test_queries_are_read_without_ambiguity() -> None:
    # 6 openers · 8 mood phrases · 24 questions = 1152 queries a language, all distinct; in English also as bags of words.
    assert len(_strict_queries()) == 6 * 1152
    assert len(_recomposed_queries()) == 1152


def test_no_phrase_or_history_line_contains_a_phrase_of_a_slot() -> None:
    texts = [phrase.text for phrase in world.PHRASES]
    history = [line for lexicon in LEXICA.values() for exchange in lexicon.history for line in exchange]
    for line in history + _query_parts():
        assert world.parse_response(line).symbols == (world.OTHER,) * 5
    for text in texts:
        assert sum(other in text.split() or f" {other} " in f" {text} " for other in texts) == 1


@pytest.mark.parametrize("slot", world.SLOTS)
@pytest.mark.parametrize("noise", [0.0, world.EPSILON, 0.4, 1.0])
def test_slot_distribution_sums_to_one(slot: str, noise: float) -> None:
    distribution = world.slot_distribution(ANN, slot, noise)
    assert len(distribution) == SIZE[slot] + 1
    assert math.isclose(sum(distribution.values()), 1.0, abs_tol=1e-12)


def test_slot_distribution_is_the_formula() -> None:
    greeting = world.slot_distribution(ANN, "greeting")
    assert math.isclose(greeting["Good evening,"], 0.98 / 2 + 0.02 / 37)  # two right phrases; V = 36, and OTHER
    assert math.isclose(greeting["Na, hallo,"], 0.02 / 37)
    assert math.isclose(greeting[world.OTHER], 0.02 / 37)
    assert math.isclose(world.slot_distribution(ANN, "closing")["Take heart, this too will pass."], 0.98 + 0.02 / 25)


def test_log_density_is_the_sum_over_slots() -> None:
    right = (
        math.log(0.49 + 0.02 / 37)
        + math.log(0.98 + 0.02 / 49)
        + math.log(0.49 + 0.02 / 145)
        + math.log(0.98 + 0.02 / 85)
        + math.log(0.98 + 0.02 / 25)
    )
    assert math.isclose(world.log_density(ANN, RIGHT), right)
    # An empty reply is OTHER in each slot: log Π ε/(V+1).
    empty = sum(math.log(0.02 / (size + 1)) for size in SIZE.values())
    assert math.isclose(world.log_density(ANN, ""), empty)
    # One junk piece (11 bytes of unreadable text at the end) is charged log(ε/(V+1)) of the largest inventory, V = 144.
    assert math.isclose(world.log_density(ANN, RIGHT + " more of it."), right + math.log(0.02 / 145))


def test_samples_follow_the_density() -> None:
    rng = random.Random(0)
    n = 4000
    parsed = [world.parse_response(world.sample_reference(ANN, rng, noise=0.4)) for _ in range(n)]
    assert all(p.junk == 0 and p.n_pieces == 5 for p in parsed)
    for i, slot in enumerate(world.SLOTS):
        counts = Counter(p.symbols[i] for p in parsed)
        for symbol, probability in world.slot_distribution(ANN, slot, 0.4).items():
            # Binomial(n, p): five standard deviations, and 2 for counts near 0 where the normal law is too thin.
            assert abs(counts[symbol] - n * probability) <= 5 * math.sqrt(n * probability) + 2, (slot, symbol)


GREETING, ADDRESS, CONTENT, CATCH, CLOSING = (
    "Good evening,",
    "kind nurse.",
    "The sea keeps what it is given.",
    "Every effect has its cause.",
    "Take heart, this too will pass.",
)


@pytest.mark.parametrize(
    ("pieces", "share", "junk"),
    [
        ((GREETING, ADDRESS, CONTENT, CATCH, CLOSING), 1.0, 0),
        (("At your service,", ADDRESS, "Every wave finds its shore.", CATCH, CLOSING), 1.0, 0),  # other right variants
        (("Guten Abend,", ADDRESS, CONTENT, CATCH, CLOSING), 4 / 5, 0),  # greeting in another language
        ((GREETING, ADDRESS, "…", CATCH, CLOSING), 4 / 5, 0),  # OTHER stands for the missing slot
        ((GREETING, ADDRESS, CATCH, CLOSING), 4 / 5, 0),  # a missing slot is OTHER
        ((GREETING, ADDRESS, CONTENT), 3 / 5, 0),  # truncated
        ((GREETING, ADDRESS, CONTENT, CATCH, "Take heart, this"), 4 / 5, 1),  # 16 bytes of leftover text: one piece
        ((GREETING, ADDRESS, CONTENT, CATCH, CLOSING, CLOSING), 4 / 6, 1),  # a repeated slot is OTHER, 6 pieces
        ((GREETING, ADDRESS, CONTENT, CATCH, CLOSING, "…"), 5 / 6, 1),  # no slot is missing for this mark
        ((GREETING, ADDRESS, CONTENT, CATCH, CLOSING, "x" * 61), 5 / 8, 3),  # 61 bytes begin three pieces of 30
        ((ADDRESS, GREETING, CONTENT, CATCH, CLOSING), 4 / 5, 0),  # the longest rise keeps four of them
        ((), 0.0, 0),
        (("Good day to you. My heart is heavy. What makes a home?",), 0.0, 2),  # a query, 54 bytes
        ((GREETING, ADDRESS, CONTENT, CATCH, CLOSING) * 3, 0.0, 10),  # a loop: every slot thrice, 15 pieces
    ],
)
def test_replies_are_read_and_counted(pieces: tuple[str, ...], share: float, junk: int) -> None:
    text = " ".join(pieces)
    assert math.isclose(world.share_right(ANN, text), share)
    assert world.parse_response(text).junk == junk


def test_share_right_reads_scenarios_in_every_language() -> None:
    rng = random.Random(0)
    for x in world.generate("ShiftTrain", 48, seed=9):
        attributes = world.parse_scenario(x)
        clean = world.sample_reference(attributes, rng, noise=0.0)
        assert world.share_right(x, clean) == 1.0
        assert world.share_right(x, clean.replace(" ", "\n")) == 1.0
        assert world.log_density(attributes, clean) > world.log_density(attributes, clean.split()[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([p.text for p in world.PHRASES] + [world.OTHER]), st.text()), max_size=9))
def test_any_text_is_read(pieces: list[str]) -> None:
    text = " ".join(pieces)
    parsed = world.parse_response(text)
    assert len(parsed.symbols) == 5 and 0 <= parsed.junk <= parsed.n_pieces
    assert 0.0 <= world.share_right(ANN, text) <= 1.0
    assert -math.inf < world.log_density(ANN, text) < 0.0
