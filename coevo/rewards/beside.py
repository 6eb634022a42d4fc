"""Parts of a reward beside the scorer's own: functions of others, a judge's rubric, a reward model. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo.plan import functions
from coevo.types import Scenario

Reads = Callable[[Sequence[Scenario], Sequence[str]], list[float | None]]
"""(scenarios, responses) -> a number each; None where it has none to give, which makes the response unscored."""


@dataclass(frozen=True)
class Beside:
    """All such parts of one reward."""

    functions: Mapping[str, float] = field(default_factory=dict)
    """Name -> weight."""
    readers: Mapping[str, Reads] = field(default_factory=dict)
    """Name of the part -> who gives it."""

    def worth(
        self, scenarios: Sequence[Scenario], texts: Sequence[str], found: Sequence[Any], references: Sequence[Any]
    ) -> list[Mapping[str, float] | str]:
        """The parts of each response, unweighted, or the name of the part that had no number to give.

        Args:
            scenarios: one a response.
            texts: the responses.
            found: how each fits its scenario (`coevo.rewards.parts.Fit`), or the status that says why the scorer could
                not read it; nobody is then asked about it.
            references: the same of each scenario's reference.

        Raises:
            ScoreError: a function that raises, or gives something else than a finite number.
        """
        rows: list[Mapping[str, float] | str] = [{} for _ in texts]
        asked = [
            n for n, both in enumerate(zip(found, references, strict=True)) if not any(isinstance(x, str) for x in both)
        ]
        some = [scenarios[n] for n in asked], [texts[n] for n in asked]
        read = {name: reads(*some) for name, reads in self.readers.items()} if asked else {}
        for place, n in enumerate(asked):
            given = functions.worth(self.functions, scenarios[n], texts[n], found[n], references[n])
            numbers = {name: values[place] for name, values in read.items()}
            silent = next((name for name, number in numbers.items() if number is None), None)
            rows[n] = silent or {**given, **{name: number for name, number in numbers.items() if number is not None}}
        return rows
