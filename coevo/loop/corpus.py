"""The reasonings that CoRL's cold start learns from: the world's, a file's own, or those cut from its scenarios by rule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from coevo.data.shifts import Shifts
from coevo.errors import DataError
from coevo.scoring.reasoning import compose, parse, read_sections
from coevo.types import Scenario


@dataclass(frozen=True)
class Corpus:
    """Training scenarios with the reasoning that a reasoner is first taught."""

    sections: tuple[str, ...]
    reasoned: list[tuple[Scenario, str]]
    others: list[Scenario]
    """Scenarios without a reasoning of their own, beside ones that have: for the phases after the cold start."""

    def split(self, cold_start: int | None, seed: int) -> tuple[list[tuple[Scenario, str]], list[Scenario]]:
        """The cold start's samples in a seeded order, and what the later phases draw from.

        Later phases meet scenarios that the reasoner was not taught, so that the scorer learns from reasonings as good as
        those it will be shown; where the cold start takes all there are, they meet those again.
        """
        order = random.Random(seed).sample(self.reasoned, len(self.reasoned))
        cold = order[: cold_start or len(order)]
        later = [*(x for x, _ in order[len(cold) :]), *self.others]
        return cold, later or [x for x, _ in order]


def gather(source: Shifts, scenarios: Sequence[Scenario], sections: tuple[str, ...] | None) -> Corpus:
    """Reads or makes the reasonings of training scenarios.

    A file in which some samples have a reasoning of their own (`SThought`) starts from those alone.

    Args:
        source: of the scenarios; it knows or makes their reasonings.
        scenarios: training scenarios.
        sections: the names wanted; None takes the source's.

    Raises:
        DataError: a reasoning that does not have the sections.
    """
    names = sections or source.sections
    with_thought = [x for x in scenarios if x.thought]
    chosen = with_thought or list(scenarios)
    others = [x for x in scenarios if not x.thought] if with_thought else []
    return Corpus(names, [(x, reasoning_of(source, x, names)) for x in chosen], others)


def reasoning_of(source: Shifts, x: Scenario, sections: tuple[str, ...]) -> str:
    """A scenario's reasoning in the sections wanted: its file's own, or the source's, of which any sections can be taken.

    Raises:
        DataError: it does not have them; names the sample, the text, and the remedy.
    """
    text = source.reasoning(x)
    if x.thought:
        read = parse(text, sections)
        if read.status == "ok":
            return read.text
        if len(sections) == 1:
            # free text is the one section's body
            return compose({sections[0]: text})
    else:
        bodies = dict(read_sections(text, source.sections))
        if set(sections) <= set(bodies):
            return compose({name: bodies[name] for name in sections})
    origin = "SThought" if x.thought else "the reasoning made for it"
    raise DataError(
        f"sample {x.sample_id!r}: {origin} is {text[:80]!r}; expected the sections {', '.join(sections)}, each on a line of "
        f"its own as `{sections[0]}: …`; set corl.sections to the names that it has, or to one name to take it whole."
    )
