"""Responders whose P_theta(y|x) is known: the reference's law with dialled faults (method, section 7).

A responder answers each slot by itself, given the scenario: p_theta(symbol | x) = (1 - eta) * base + eta * uniform(errors),
where `base` is the reference's law of the slot, read as if some attributes were other than they are. So its replies have the
world's form, its density is as exact as the reference's, and every measure of it is a sum over finite supports
(`coevo.data.world.exact`).
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coevo.data.world.attributes import Attributes, parse_scenario
from coevo.data.world.density import slot_distribution
from coevo.data.world.generator import support
from coevo.data.world.lexicon import ATTRIBUTE_VALUES, INVENTORY, OTHER, SLOT_ATTRIBUTE, SLOTS
from coevo.errors import DataError
from coevo.types import SHIFT_OF_TAG, Response, Scenario

Errors = Literal["any", "near"]
Floats = NDArray[np.float64]

SYMBOLS: dict[str, tuple[str, ...]] = {slot: (*INVENTORY[slot], OTHER) for slot in SLOTS}
"""slot -> all that it can hold, in the order of a table's columns."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with each slot, independently of the others. The default is no fault: the reference's own law."""

    error: float = 0.0
    """eta: the probability that the slot is a uniform draw from `errors` and not what was meant."""
    errors: Errors = "any"
    """`any`: every symbol of the slot's inventory, over all languages, and OTHER; `near`: every phrase in the user's
    language that is right for another value of the slot's attribute."""
    mistakes: frozenset[str] = frozenset()
    """Attributes taken for another value, uniform over the others of the subset. `language`: taken for English."""
    ignores: frozenset[str] = frozenset()
    """Attributes not looked at: a value is guessed, uniform over all of the subset. `language` cannot be."""

    def __post_init__(self) -> None:
        known = {"mistakes": set(ATTRIBUTE_VALUES), "ignores": set(SLOT_ATTRIBUTE.values())}
        for name, allowed in known.items():
            for attribute in sorted(getattr(self, name) - allowed):
                near = difflib.get_close_matches(attribute, allowed, n=1, cutoff=0)[0]
                raise DataError(
                    f"Fault.{name} has {attribute!r}; expected attributes of {', '.join(sorted(allowed))}; nearest: {near}"
                )
        if both := sorted(self.mistakes & self.ignores):
            raise DataError(f"Fault: {', '.join(both)} is in both mistakes and ignores; name it in one")
        if not 0.0 <= self.error <= 1.0:
            raise DataError(f"Fault.error is {self.error}; expected a share of slots in [0, 1]")
        if self.errors not in ("any", "near"):
            raise DataError(f"Fault.errors is {self.errors!r}; expected 'any' or 'near'")


SOUND = Fault()


@dataclass(frozen=True)
class Responder:
    """A responder with a known law; which fault it has may depend on the scenario's subset tag.

    Example:
        >>> english_only = Responder("English", everywhere=Fault(mistakes=frozenset({"language"})))
        >>> sorted(english_only.table("german", "closing").sum(axis=1).round(9).tolist())
        [1.0, 1.0, 1.0, 1.0]
    """

    name: str
    everywhere: Fault = SOUND
    """The fault under each tag that `under` does not name."""
    under: Mapping[str, Fault] = field(default_factory=dict)
    """Subset tag -> the fault there."""

    def fault(self, tag: str) -> Fault:
        """The fault under a subset tag."""
        return self.under.get(tag, self.everywhere)

    def table(self, tag: str, slot: str) -> Floats:
        """p_theta(symbol | value) of one slot in one subset: (values, symbols), rows summing to 1; read-only.

        Rows are in the order of `support(tag)` of the slot's attribute, columns in that of `SYMBOLS[slot]`.
        """
        return table(self.fault(tag), tag, slot)

    def slot_distribution(self, attributes: Attributes, tag: str, slot: str) -> dict[str, float]:
        """p_theta(symbol | x) as a dict, for a scenario of these attributes in the subset `tag`.

        Raises:
            DataError: the subset has no such language or value.
        """
        attribute = SLOT_ATTRIBUTE[slot]
        for name in ("language", attribute):
            if getattr(attributes, name) not in support(tag)[name]:
                raise DataError(
                    f"{name} is {getattr(attributes, name)!r}, which {tag!r} does not have; "
                    f"expected one of {', '.join(support(tag)[name])}"
                )
        row = self.table(tag, slot)[support(tag)[attribute].index(getattr(attributes, attribute))]
        return dict(zip(SYMBOLS[slot], row.tolist(), strict=True))

    def answer(self, scenario: Scenario, rng: random.Random) -> str:
        """Draw a reply to a scenario of the world.

        Raises:
            DataError: the scenario's attributes cannot be read, or are not of its subset.
        """
        attributes = parse_scenario(scenario)
        symbols = []
        for slot in SLOTS:
            distribution = self.slot_distribution(attributes, scenario.subset_tag, slot)
            symbols += rng.choices(list(distribution), weights=list(distribution.values()))
        return " ".join(symbols)

    def respond(self, scenarios: Sequence[Scenario], seed: int) -> list[Response]:
        """One reply a scenario; each depends on nothing but the responder's name and law, the scenario and the seed."""
        return [
            Response(x.sample_id, self.answer(x, random.Random(f"coevo/{self.name}/{seed}/{x.sample_id}")), self.name)
            for x in scenarios
        ]


REFERENCE = Responder("reference")
"""The law of y* itself."""


def under(tags: Collection[str], fault: Fault) -> dict[str, Fault]:
    """The same fault under each of some tags.

    Raises:
        DataError: a tag that the world lacks.
    """
    known = ("IDTrain", "IDTest", *SHIFT_OF_TAG)
    for tag in tags:
        if tag not in known:
            near = difflib.get_close_matches(tag, known, n=1, cutoff=0)[0]
            raise DataError(f"unknown subset tag {tag!r} of the world; expected one of {', '.join(known)}; nearest: {near}")
    return dict.fromkeys(tags, fault)


@cache
def table(fault: Fault, tag: str, slot: str) -> Floats:
    """`Responder.table` of a fault."""
    attribute = SLOT_ATTRIBUTE[slot]
    values, language = support(tag)[attribute], support(tag)["language"][0]
    spoken = "en" if "language" in fault.mistakes else language
    right = np.array([_reference_row(spoken, slot, value) for value in values])
    n = len(values)
    taken = np.eye(n)
    if attribute in fault.mistakes:
        taken = (1.0 - np.eye(n)) / (n - 1)
    elif attribute in fault.ignores:
        taken = np.full((n, n), 1.0 / n)
    wrong = np.array([_errors_row(fault.errors, language, slot, value) for value in values])
    probability = (1.0 - fault.error) * taken @ right + fault.error * wrong
    probability.setflags(write=False)
    return probability


def _reference_row(language: str, slot: str, value: str) -> list[float]:
    return list(slot_distribution(_attributes(language, slot, value), slot).values())


def _errors_row(errors: Errors, language: str, slot: str, value: str) -> Floats:
    n = len(SYMBOLS[slot])
    if errors == "any":
        return np.full(n, 1.0 / n)
    others = [other for other in ATTRIBUTE_VALUES[SLOT_ATTRIBUTE[slot]] if other != value]
    rows = np.array(
        [list(slot_distribution(_attributes(language, slot, other), slot, noise=0.0).values()) for other in others]
    )
    return rows.mean(axis=0)


def _attributes(language: str, slot: str, value: str) -> Attributes:
    first: dict[str, Any] = {name: values[0] for name, values in ATTRIBUTE_VALUES.items()}
    return Attributes(**first | {"language": language, SLOT_ATTRIBUTE[slot]: value})
