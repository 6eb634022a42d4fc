"""Bad answers of which the world knows exactly how bad they are, and answers graded by their share of right slots."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from coevo.data.battery import Case, generator, looped, plain, without_reference
from coevo.data.world.attributes import Attributes, parse_scenario
from coevo.data.world.density import parse_response, right_phrases, sample_reference, share_right
from coevo.data.world.generator import support
from coevo.data.world.lexicon import LANGUAGES, LEXICA, OTHER, SLOT_ATTRIBUTE, SLOTS
from coevo.types import Scenario

SMALL_TALK = 2
"""Lines of small talk in a reply that fits anyone: they say nothing about any slot."""
Wrong = Literal["value", "language", "unreadable"]
"""How a slot can be wrong and the reply still have the world's form, which gives every such reply a probability: another
value's phrase, the right value in another language, the mark of nothing readable."""
LADDER = 16
"""Graded answers beside reference and battery: another right one, and each number of wrong slots in each way."""


def cases(scenarios: Sequence[Scenario], seed: int) -> list[Case]:
    """The whole battery, a ladder of graded answers and another right one, one case a scenario.

    Every bad answer has fewer right slots than the reference, and a lower exact density.

    Raises:
        DataError: a scenario that the world did not make.
    """
    return [_case(x, generator(seed, x)) for x in scenarios]


def _case(scenario: Scenario, rng: random.Random) -> Case:
    attributes = parse_scenario(scenario)
    symbols = dict(zip(SLOTS, parse_response(scenario.reference).symbols, strict=True))
    right = [slot for slot in SLOTS if symbols[slot] in right_phrases(attributes, slot)]
    talk = " ".join(agent for _, agent in rng.sample(LEXICA[attributes.language].history, SMALL_TALK))
    abroad = replace(attributes, language=rng.choice([name for name in LANGUAGES if name != attributes.language]))
    bad = plain(scenario, [], rng) | {
        "wrong_language": sample_reference(abroad, rng, noise=0.0),
        "fits_anyone": talk,
        "another_reference": _another_reference(scenario, attributes, rng),
        "loop": looped(symbols["content"], scenario.reference),
        "padding": f"{scenario.reference} {talk}",
        "fluent_nonsense": _spoilt(attributes, symbols, SLOTS, "value", rng),
    }
    for name, count in (("one_slot_wrong", 1), ("two_slots_wrong", 2)):
        # only a right slot can be spoilt, and a noisy reference may have fewer
        if len(right) >= count:
            bad[name] = _spoilt(attributes, symbols, rng.sample(right, count), "value", rng)
    bad = without_reference(scenario, bad)
    answers = [scenario.reference, *_ladder(attributes, symbols, rng), *(text for text in bad.values() if text)]
    return Case(scenario, bad, {text: share_right(attributes, text) for text in answers}, _other_right(attributes, symbols))


def _other_right(attributes: Attributes, symbols: Mapping[str, str]) -> tuple[str, ...]:
    """The reference in other right phrases, wherever a slot has another; none where no slot has."""
    phrases = []
    for slot in SLOTS:
        right = right_phrases(attributes, slot)
        phrases.append(next((phrase for phrase in right if phrase != symbols[slot]), right[0]))
    return (" ".join(phrases),) if phrases != list(symbols.values()) else ()


def _another_reference(scenario: Scenario, attributes: Attributes, rng: random.Random) -> str:
    """What would be right for other attributes of the same subset, with fewer right slots here than the reference."""
    values = support(scenario.subset_tag)
    own = share_right(attributes, scenario.reference)
    while True:
        drawn: dict[str, Any] = {name: rng.choice(values[name]) for name in SLOT_ATTRIBUTE.values()}
        text = sample_reference(replace(attributes, **drawn), rng)
        if share_right(attributes, text) < own or own == 0:
            return text


def _ladder(attributes: Attributes, symbols: Mapping[str, str], rng: random.Random) -> list[str]:
    """Another right reply, then one to five slots wrong in each way."""
    clean = sample_reference(attributes, rng, noise=0.0)
    texts = [
        _spoilt(attributes, symbols, rng.sample(SLOTS, count), how, rng)
        for count in range(1, len(SLOTS) + 1)
        for how in get_args(Wrong)
    ]
    return [clean, *texts]


def _spoilt(
    attributes: Attributes, symbols: Mapping[str, str], slots: Collection[str], how: Wrong, rng: random.Random
) -> str:
    """The reply with these slots wrong, each in the way asked for."""
    wrong = {slot: _wrong_phrase(attributes, slot, how, rng) if slot in slots else symbols[slot] for slot in SLOTS}
    return " ".join(wrong.values())


def _wrong_phrase(attributes: Attributes, slot: str, how: Wrong, rng: random.Random) -> str:
    if how == "unreadable":
        return OTHER
    value = getattr(attributes, SLOT_ATTRIBUTE[slot])
    languages = [name for name in LANGUAGES if (name == attributes.language) == (how == "value")]
    phrases = [
        phrase
        for language in languages
        for other, texts in LEXICA[language].reply[slot].items()
        if (other == value) == (how == "language")
        for phrase in texts
    ]
    return rng.choice(phrases)
