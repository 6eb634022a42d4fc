"""The exact density P(y*|x) of the world, its samples, and the reading of replies into slots."""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from coevo.data.world.attributes import Attributes, parse_scenario
from coevo.data.world.lexicon import INVENTORY, LEXICA, OTHER, PHRASE_OF_TEXT, PHRASES, SLOT_ATTRIBUTE, SLOTS
from coevo.types import Scenario

EPSILON = 0.02
"""Share of a slot's probability that is spread evenly over the whole inventory and OTHER."""
JUNK_BYTES = 30
"""Every started so many UTF-8 bytes of unreadable text, about one phrase, count as one piece."""


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """A reply, read into its slots."""

    symbols: tuple[str, ...]
    """One phrase or OTHER for each slot, in the order of SLOTS."""
    junk: int
    """Pieces beyond one for each slot: unreadable text, phrases that repeat a slot."""
    n_pieces: int
    """All pieces: known phrases, marks of OTHER, unreadable text."""


def right_phrases(attributes: Attributes, slot: str) -> tuple[str, ...]:
    """Return the phrases that are right in a slot: the variants of the attribute's value in the user's language."""
    return LEXICA[attributes.language].reply[slot][getattr(attributes, SLOT_ATTRIBUTE[slot])]


def slot_distribution(attributes: Attributes, slot: str, noise: float = EPSILON) -> dict[str, float]:
    """Return p(symbol | x) for each phrase of the slot, over all six languages, and OTHER; it sums to 1.

    p(v | x) = (1-ε)·1[v right]/#right + ε/(V+1), with V the number of phrases in the slot's inventory, ε = `noise`.
    """
    inventory = INVENTORY[slot]
    floor = noise / (len(inventory) + 1)
    distribution = dict.fromkeys((*inventory, OTHER), floor)
    right = right_phrases(attributes, slot)
    for text in right:
        distribution[text] += (1.0 - noise) / len(right)
    return distribution


def sample_reference(attributes: Attributes, rng: random.Random, noise: float = EPSILON) -> str:
    """Draw a reply from the product of `slot_distribution`s.

    With `noise` 0.4 each slot is, with probability 0.4, a uniform symbol of its inventory over all languages: text that
    has the world's form and little of its sense, to pretrain on.
    """
    symbols = []
    for slot in SLOTS:
        if rng.random() < noise:
            symbols.append(rng.choice((*INVENTORY[slot], OTHER)))
        else:
            symbols.append(rng.choice(right_phrases(attributes, slot)))
    return " ".join(symbols)


def parse_response(text: str) -> ParsedResponse:
    """Read a reply into five symbols.

    Known phrases are found from left to right, the longest first, each bounded by white space; what lies between is
    unreadable. A slot's symbol is its phrase if exactly one phrase of that slot occurs and it is in order (a member of
    the longest run of such phrases whose slots rise); else OTHER. A mark of OTHER stands for one missing slot. All
    other pieces beyond one for each slot are junk.
    """
    clean = " ".join(text.split())
    found: list[str] = []
    marks = unreadable = position = 0
    for match in _pattern().finditer(clean):
        unreadable += _n_junk_pieces(clean[position : match.start()])
        if match[0] == OTHER:
            marks += 1
        else:
            found.append(match[0])
        position = match.end()
    unreadable += _n_junk_pieces(clean[position:])
    slots = [SLOTS.index(PHRASE_OF_TEXT[phrase].slot) for phrase in found]
    counts = Counter(slots)
    single = [(slot, phrase) for slot, phrase in zip(slots, found, strict=True) if counts[slot] == 1]
    symbols = [OTHER] * len(SLOTS)
    for i in _longest_rise([slot for slot, _ in single]):
        slot, phrase = single[i]
        symbols[slot] = phrase
    n_pieces = len(found) + marks + unreadable
    missing = len(SLOTS) - len(counts)
    return ParsedResponse(tuple(symbols), n_pieces - len(counts) - min(marks, missing), n_pieces)


def share_right(scenario: Scenario | Attributes, text: str) -> float:
    """Return the share of right slots in a reply, in [0, 1]: right slots / max(5, pieces found), so that padding costs.

    Raises:
        DataError: the scenario's attributes cannot be read.
    """
    attributes = parse_scenario(scenario) if isinstance(scenario, Scenario) else scenario
    parsed = parse_response(text)
    n_right = sum(symbol in right_phrases(attributes, slot) for slot, symbol in zip(SLOTS, parsed.symbols, strict=True))
    return n_right / max(len(SLOTS), parsed.n_pieces)


def log_density(attributes: Attributes, text: str, noise: float = EPSILON) -> float:
    """Return log p(y|x) in nats: the sum over slots of log p(symbol | x).

    On replies without junk this is the exact density. A reply with junk has none; each junk piece is then charged as one
    more OTHER, at the largest inventory's log(ε/(V+1)), so that longer unreadable text is never likelier.
    """
    parsed = parse_response(text)
    total = parsed.junk * math.log(noise / (max(map(len, INVENTORY.values())) + 1))
    for slot, symbol in zip(SLOTS, parsed.symbols, strict=True):
        total += math.log(slot_distribution(attributes, slot, noise)[symbol])
    return total


def _n_junk_pieces(text: str) -> int:
    return math.ceil(len(text.strip().encode("utf-8", "replace")) / JUNK_BYTES)


def _longest_rise(values: Sequence[int]) -> list[int]:
    """Return the indices of one longest strictly rising subsequence (patience sorting); ties are broken the same way
    on every machine."""
    tails: list[int] = []
    tail_indices: list[int] = []
    previous = [-1] * len(values)
    for i, value in enumerate(values):
        place = bisect_left(tails, value)
        if place > 0:
            previous[i] = tail_indices[place - 1]
        tails[place : place + 1] = [value]
        tail_indices[place : place + 1] = [i]
    rise = []
    i = tail_indices[-1] if tail_indices else -1
    while i >= 0:
        rise.append(i)
        i = previous[i]
    return rise[::-1]


@cache
def _pattern() -> re.Pattern[str]:
    texts = sorted((*(phrase.text for phrase in PHRASES), OTHER), key=len, reverse=True)
    return re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, texts))})(?!\S)")
