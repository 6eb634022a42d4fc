"""Who answers in a calibration: responders whose truth is known, from slightly wrong to blind to one component."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from coevo.data.world.exact import TAGS
from coevo.data.world.lexicon import SLOT_ATTRIBUTE
from coevo.data.world.responders import REFERENCE, SOUND, Fault, Responder, under
from coevo.types import SHIFT_OF_TAG, Component, Shift

HOME = "IDTest"
SHIFTED: tuple[str, ...] = tuple(SHIFT_OF_TAG)

LAWS: tuple[Responder, ...] = (
    REFERENCE,
    *(Responder(f"any {eta}", Fault(eta)) for eta in (0.2, 0.4, 0.5, 0.6)),
    *(Responder(f"near {eta}", Fault(eta, "near")) for eta in (0.3, 0.5)),
)
"""Laws of decreasing information, with small and large densities in the wrong contexts."""


def _fails(*attributes: str, error: float = 0.0) -> Fault:
    return Fault(error, mistakes=frozenset(attributes))


FAILURES: Mapping[str, tuple[Component, Fault]] = {
    "another calling": ("u", _fails("calling")),
    "another user": ("u", _fails("calling", "manner")),
    "another craft": ("c", _fails("craft")),
    "another topic": ("d", _fails("topic")),
    "another mood": ("d", _fails("mood")),
    "another query": ("d", _fails("topic", "mood")),
}
"""Failures of one component alone, each of something that no other component shows."""
GUESSES: Mapping[str, tuple[Component, Fault]] = {
    "user ignored": ("u", Fault(ignores=frozenset({"calling", "manner"}))),
    "character ignored": ("c", Fault(ignores=frozenset({"craft"}))),
    "query ignored": ("d", Fault(ignores=frozenset({"topic", "mood"}))),
}
SHARED_FAILURES: Mapping[str, tuple[Component, Fault]] = {
    "another manner": ("u", _fails("manner")),
    "English to all": ("u", _fails("language")),
}
"""Failures of what the persona and the dialogue both show: no reader of likelihoods can tell whose they are."""

_ONE_SHIFT: tuple[tuple[str, Shift, tuple[str, ...], float], ...] = (
    ("English to all", "user", ("language",), 0.12),
    ("another user", "user", ("calling", "manner"), 0.14),
    ("another character", "character", ("craft",), 0.16),
    ("another query", "dialogue", ("topic", "mood"), 0.18),
)
"""Name, the shift under which it fails, what it mistakes there, and its largest error elsewhere."""


def dialled() -> tuple[Responder, ...]:
    """Eight responders, each with an error of its own under each of the eleven shifts; four fail under one shift more."""
    return (
        _spread("slight", 0.0, 0.1, home=Fault(0.0)),
        _spread("wide", 0.0, 0.6, home=Fault(0.0)),
        _spread("near misses", 0.0, 0.6, home=Fault(0.1, "near")),
        _spread("worse at home", 0.05, 0.3, home=Fault(0.4)),
        *(_one_shift(*fields) for fields in _ONE_SHIFT),
    )


def worst() -> tuple[Responder, ...]:
    """Sound at home and hopeless under every shift, in three ways: guessing all it says, saying one thing, noise."""
    attributes = frozenset(SLOT_ATTRIBUTE.values())
    return (
        Responder("guesses under shift", under=under(SHIFTED, Fault(ignores=attributes))),
        Responder("another scenario under shift", under=under(SHIFTED, Fault(mistakes=attributes))),
        Responder("noise under shift", under=under(SHIFTED, Fault(1.0))),
    )


def random_responders(n: int, seed: int) -> list[Responder]:
    """Responders with a fault of their own, of any sort and size, under each subset."""
    rng = random.Random(f"coevo calibration/{seed}")
    return [Responder(f"random {i}", under={tag: _random_fault(rng) for tag in TAGS}) for i in range(n)]


def _random_fault(rng: random.Random) -> Fault:
    if rng.random() < 0.3:
        return SOUND
    kinds = {name: rng.choice(("right", "right", "mistaken", "ignored")) for name in SLOT_ATTRIBUTE.values()}
    mistakes = {name for name, kind in kinds.items() if kind == "mistaken"}
    if rng.random() < 0.2:
        mistakes.add("language")
    ignores = frozenset(name for name, kind in kinds.items() if kind == "ignored")
    error = rng.choice((0.0, rng.uniform(0.0, 0.6)))
    return Fault(error, rng.choice(("any", "near")), frozenset(mistakes), ignores)


def _spread(name: str, low: float, high: float, home: Fault) -> Responder:
    errors = _spread_errors(name, low, high)
    return Responder(name, home, {tag: Fault(error, home.errors) for tag, error in errors.items()})


def _one_shift(name: str, shift: Shift, attributes: Sequence[str], high: float) -> Responder:
    faults = {
        tag: _fails(*attributes, error=error) if SHIFT_OF_TAG[tag] == shift else Fault(error)
        for tag, error in _spread_errors(name, 0.0, high).items()
    }
    return Responder(name, under=faults)


def _spread_errors(name: str, low: float, high: float) -> dict[str, float]:
    """Evenly spaced errors, dealt to the shifts in an order of the responder's own."""
    order = random.Random(f"coevo calibration/{name}").sample(SHIFTED, len(SHIFTED))
    return {tag: low + (high - low) * place / (len(order) - 1) for place, tag in enumerate(order)}
