"""What can be said of a text without any model: how much of it is copied, how much it repeats, whether it ends.

Likelihoods pay for an echo and for a loop, as both are easy to foresee; nothing but the text itself shows them. The unit
is the word, or the character in scripts that put no spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from coevo.text import units, unspaced

COPIED_WORDS, COPIED_CHARACTERS = 4, 6
"""So many in a row that stand in a source too are copied. Three words are shared by chance: "I do not" is everybody's."""
REPEATED_WORDS, REPEATED_CHARACTERS = 3, 4
"""So many in a row that were said before are repeated."""

DEGENERATE = 0.5
"""A response of which so much more than of its reference is repeated, or copied, says nothing of its own.

Chosen on 1,000 dialogues of plays: with others' references as responses 0 are called a loop and 1 an echo, of loops and
echoes made for the purpose 99.9 and 99.2 %. On 750 of other plays 1 and 4, 99.6 and 99.3 %; on 1,500 of the world 0 and 0,
100 and 100 %."""

_END = re.compile(r"(?:--|[.!?…。！？｡؟।॥–—―~～♪*)\]」』）】》〉\"'”’»\U0001f300-\U0001faff\u2600-\u27bf\ufe0f])$")


def fault(text: str, reference: str, sources: Sequence[str]) -> Literal["ok", "loop", "echo"]:
    """What is wrong with a response that any scorer finds likely, so that its likelihood would pass for quality.

    Args:
        text: the response.
        reference: what the scenario's own reference repeats or copies is free.
        sources: texts that a response could copy.
    """
    if loop(text) - loop(reference) > DEGENERATE:
        return "loop"
    return "echo" if echo(text, sources) - echo(reference, sources) > DEGENERATE else "ok"


def echo(text: str, sources: Iterable[str]) -> float:
    """Share of a text's units that lie in an n-gram which stands in one of the sources, 0 to 1.

    So every copied word counts, in a short piece as in a long one. A text with fewer units than an n-gram has is copied if
    it says the same as a whole source: an answer of one word is no echo because somebody used that word.
    """
    said = units(text)
    n = _length(said, COPIED_WORDS, COPIED_CHARACTERS)
    read = [units(source) for source in sources]
    if len(said) < n:
        return float(bool(said) and said in read)
    known = {gram for source in read for gram in _grams(source, n)}
    starts = [start for start, gram in enumerate(_grams(said, n)) if gram in known]
    return len({place for start in starts for place in range(start, start + n)}) / len(said)


def loop(text: str) -> float:
    """Share of a text's n-grams that it has said before, 0 to 1: near 1 for a phrase said again and again."""
    said = units(text)
    grams = _grams(said, _length(said, REPEATED_WORDS, REPEATED_CHARACTERS))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def unended(text: str) -> float:
    """1 for a text that breaks off: its last sign is a letter, a digit or a comma; 0 for one that ends as sentences do."""
    clean = text.rstrip()
    return float(bool(clean) and not _END.search(clean))


def _length(said: Sequence[str], words: int, characters: int) -> int:
    """Of an n-gram: that for characters where these are most of the text."""
    return characters if 2 * sum(map(unspaced, said)) > len(said) else words


def _grams(said: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(said[start : start + n]) for start in range(len(said) - n + 1)]
