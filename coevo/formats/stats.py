"""What a data file holds: languages, turns, lengths, near copies and likely personal data. Needs the extra `data`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo.errors import ConfigError
from coevo.prompts import character_text
from coevo.text import units
from coevo.types import Scenario

NEAR = 0.8
"""Share of five-word pieces in common from which two texts are near copies (Jaccard, estimated by MinHash)."""
PIECE, PERMUTATIONS = 5, 128
SHORTEST = 8
"""Words below which a text is no near copy of another: "yes, thank you" is everybody's."""
LISTED = 3
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
CARD = re.compile(r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)")
QUARTILES = (0.5, 0.95, 1.0)


@dataclass
class Stats:
    """Counts by split."""

    languages: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Split -> language of the user's last message, by ISO 639-1."""
    messages: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Split -> messages of each dialogue."""
    prompts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Split -> length of persona, character and dialogue together."""
    references: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    near: list[tuple[str, str, str]] = field(default_factory=list)
    """(sample_id, sample_id, `split` or `split and split`) of dialogues with references that are near copies."""
    personal: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Kind (email, telephone, payment card) -> sample_ids of texts that seem to hold one."""
    unit: str = "characters"

    @property
    def across(self) -> list[tuple[str, str, str]]:
        """Near copies in two splits."""
        return [pair for pair in self.near if " and " in pair[2]]


def stats(
    scenarios: Sequence[Scenario],
    count: Callable[[str], int] = len,
    unit: str = "characters",
    progress: Callable[[], None] = lambda: None,
) -> Stats:
    """Looks at every scenario.

    Args:
        scenarios: of any splits.
        count: the length of a text, such as its tokens by a model's tokenizer.
        unit: what that counts.
        progress: called for each scenario.

    Raises:
        ConfigError: the libraries of the extra `data` are missing.
    """
    libraries = _libraries()
    found, copies = Stats(unit=unit), _Copies(libraries)
    for x in scenarios:
        found.languages[x.split][libraries["language"](x.query)] += 1
        found.messages[x.split].append(len(x.dialogue))
        texts = [x.persona, character_text(x.character), *(turn.text for turn in x.dialogue)]
        found.prompts[x.split].append(sum(map(count, texts)))
        found.references[x.split].append(count(x.reference))
        for kind in _personal([*texts, x.reference], libraries):
            found.personal[kind].append(x.sample_id)
        if pair := copies.of(x):
            found.near.append(pair)
        progress()
    return found


def quartiles(values: Sequence[int]) -> list[int]:
    """The middle, what 95 % are within, and the longest."""
    ranked = sorted(values)
    return [ranked[min(len(ranked) - 1, int(share * len(ranked)))] for share in QUARTILES]


class _Copies:
    """Finds an earlier scenario that says nearly the same."""

    def __init__(self, libraries: dict[str, Any]) -> None:
        self._hash = libraries["hash"]
        self._index = libraries["index"](threshold=NEAR, num_perm=PERMUTATIONS)
        self._split: dict[str, str] = {}
        self._parent: dict[str, str] = {}

    def of(self, x: Scenario) -> tuple[str, str, str] | None:
        words = units(" ".join([*(turn.text for turn in x.dialogue if turn.role == "user"), x.reference]))
        if len(words) < SHORTEST:
            return None
        made = self._hash(num_perm=PERMUTATIONS)
        for start in range(max(1, len(words) - PIECE + 1)):
            made.update(" ".join(words[start : start + PIECE]).encode("utf-8", "replace"))
        near = self._index.query(made)
        # a shifted scenario is made of its parent, and is as near as it to whatever that is near
        own = {name for name in near if name == x.parent or self._parent[name] in (x.sample_id, x.parent)}
        other = None if own else next(iter(near), None)
        self._index.insert(x.sample_id, made)
        self._split[x.sample_id], self._parent[x.sample_id] = x.split, x.parent or x.sample_id
        if other is None:
            return None
        there = self._split[other]
        return x.sample_id, other, x.split if there == x.split else f"{there} and {x.split}"


def _personal(texts: Sequence[str], libraries: dict[str, Any]) -> Iterator[str]:
    """Kinds of personal data that the texts seem to hold."""
    whole = "\n".join(texts)
    if EMAIL.search(whole):
        yield "email"
    if libraries["telephone"](whole, None).has_next():
        yield "telephone"
    if any(_is_card(found[0]) for found in CARD.finditer(whole)):
        yield "payment card"


def _is_card(text: str) -> bool:
    """By its check digit (Luhn)."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _libraries() -> dict[str, Any]:
    try:
        import phonenumbers
        import py3langid  # type: ignore[import-untyped]
        from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(f"coevo data stats needs {error.name}; in the checkout: pip install -e '.[data]'") from None
    return {
        "language": lambda text: py3langid.classify(text)[0] if any(map(str.isalpha, text)) else "none",
        "telephone": phonenumbers.PhoneNumberMatcher,
        "hash": MinHash,
        "index": MinHashLSH,
    }
