"""What a good reply to a scenario of the world must contain, as the world itself knows it: the oracle's reasoning."""

from __future__ import annotations

from coevo.data.world.attributes import Attributes, parse_scenario
from coevo.data.world.lexicon import LEXICA, SLOT_ATTRIBUTE
from coevo.types import Scenario

REASONING_SECTIONS = ("language", *SLOT_ATTRIBUTE.values())
"""One section an attribute, in the order in which the reply's slots need them."""


def reasoning_bodies(scenario: Scenario | Attributes) -> dict[str, str]:
    """Return section -> its body: the attribute's value, the language by the English name that a persona says.

    Raises:
        DataError: the scenario's attributes cannot be read.
    """
    attributes = parse_scenario(scenario) if isinstance(scenario, Scenario) else scenario
    values = {name: str(getattr(attributes, name)) for name in REASONING_SECTIONS}
    return values | {"language": LEXICA[attributes.language].name}


def oracle_reasoning(scenario: Scenario | Attributes) -> str:
    """Return the reasoning that names every attribute on which the reply depends.

    It is a sufficient statistic: P(y*|x, r) = P(y*|r). So an exact scorer gains nothing by it, and a learned one only what
    it cannot work out by itself.

    Raises:
        DataError: the scenario's attributes cannot be read.
    """
    return "\n".join(f"{name}: {body}" for name, body in reasoning_bodies(scenario).items())
