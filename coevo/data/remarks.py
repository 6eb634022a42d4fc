"""What `coevo data check` remarks on: no fault of the layout, and yet it decides what can be trained and measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from coevo.data.overlap import Pair, imprint, listed
from coevo.text import folded
from coevo.types import Scenario


class Remarks:
    """Gathers samples one by one, of which it keeps hashes, and says in the end what they have in common."""

    def __init__(self) -> None:
        self._holder: dict[bytes, tuple[str, str]] = {}
        self._copies: dict[tuple[str, str], list[Pair]] = defaultdict(list)
        self._sizes: dict[str, int] = defaultdict(int)
        self._personas: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, x: Scenario) -> None:
        """Takes a sample."""
        self._sizes[x.split] += 1
        if len(self._personas[x.split]) < 2:
            self._personas[x.split].setdefault(folded(x.persona), x.persona)
        keys = imprint(x).keys
        earlier = next((self._holder[key] for key in keys if key in self._holder), None)
        if earlier is not None:
            split, sample_id = earlier
            self._copies[split, x.split].append((x.sample_id, sample_id))
        for key in keys:
            self._holder.setdefault(key, (x.split, x.sample_id))

    def notes(self, splits: Sequence[str]) -> list[str]:
        """All remarks, in words.

        Args:
            splits: names of all splits of the file.
        """
        return [*self._repeated(), *self._one_persona(), *_alike(splits)]

    def _repeated(self) -> Iterator[str]:
        for (earlier, split), pairs in self._copies.items():
            what = f"{len(pairs):,} of {self._sizes[split]:,} samples of {split}"
            if earlier == split:
                yield f"{what} repeat an earlier one of it under another name ({listed(pairs)}): each counts anew"
            else:
                yield (
                    f"{what} are copies of samples of {earlier} under another name ({listed(pairs)}): what is trained on "
                    "one of these splits cannot be tested on the other, and coevo train refuses to"
                )

    def _one_persona(self) -> Iterator[str]:
        for split, personas in self._personas.items():
            if len(personas) == 1 and self._sizes[split] > 1:
                (persona,) = personas.values()
                yield (
                    f"all {self._sizes[split]:,} samples of {split} have one user_persona ({persona[:40]!r}): of a training "
                    "split with one, no user shift can be made, as that takes another sample's persona; of a test split, "
                    "what a model loses of the persona cannot be told. Write who each user is"
                )


def _alike(splits: Sequence[str]) -> Iterator[str]:
    """Names that people take for one another."""
    seen: dict[str, str] = {}
    for name in splits:
        other = seen.setdefault(folded(name), name)
        if other != name:
            yield f"the splits {other!r} and {name!r} differ in case, space or punctuation alone: a recipe names one of them"
        elif name != name.strip():
            yield f"the split {name!r} has white space at its ends: a recipe must write it so too"
