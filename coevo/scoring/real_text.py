"""R6, a reward for real text: likelihoods arranged so that bland, short, copied and repeated answers do not pay.

    S(y) = ( c · D1(y) + m · [log q(y|x) - log q(y|nothing)] ) / n^p      D1 by CLUB over the contexts of others
    R6(y) = min(S, S*) + o · max(0, S - S*)                               beyond the reference's level it counts in part
            - s · max(0, l* - l) · n*^(1-p)                               l: nats per token; a likelier text earns nothing
            - (e · echo + r · loop) · n^(1-p) - u · unended               each less the reference's own, never below 0

n counts tokens, and what is starred is the reference's. With p = 1/2 the unit is the nat per root of a token, in which a
long answer's chance deviations are as large as a short one's. R6(y*) = S*.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from coevo.config import RealText
from coevo.prompts import character_text
from coevo.scoring import guards
from coevo.scoring.reasoner import scenario_key
from coevo.types import Scenario

BANK = 8
"""Contexts of which each scenario has some as its negatives: few, so that one reading of each serves many responses."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What R6 needs of a response in its scenario."""

    own: float
    """log q(y|x), nats."""
    alone: float
    """log q(y|nothing)."""
    others: float
    """Mean of log q(y|x_j) over other contexts."""
    n_tokens: int
    echo: float = 0.0
    """Share that is copied from the query or the context, 0 to 1."""
    loop: float = 0.0
    """Share that it has said before, 0 to 1."""
    unended: float = 0.0
    """1 if it breaks off."""


@dataclass(frozen=True)
class Others:
    """Other contexts, of which each scenario has the same few for all its responses and for its reference."""

    bank: tuple[Scenario, ...]
    k: int
    seed: int

    def of(self, scenario: Scenario) -> list[Scenario]:
        """The negatives of a scenario, never its own content or its parent."""
        key = scenario_key(scenario)
        foreign = [x for x in self.bank if scenario_key(x) != key and x.sample_id != scenario.parent]
        return random.Random(f"{self.seed}/{key}").sample(foreign, min(self.k, len(foreign)))


def draw_others(usable: Callable[[Scenario], bool], scenarios: Sequence[Scenario], config: RealText, seed: int) -> Others:
    """A bank drawn by a seed from the usable scenarios: `BANK` of different content, or twice the negatives asked for."""
    distinct = list({scenario_key(x): x for x in scenarios}.values())
    shuffled = random.Random(seed).sample(distinct, len(distinct))
    bank = islice(filter(usable, shuffled), max(BANK, 2 * config.negatives))
    return Others(tuple(bank), config.negatives, seed)


def seen(scenario: Scenario) -> Iterator[str]:
    """The texts of a scenario that a response could copy."""
    yield scenario.persona
    yield character_text(scenario.character)
    for turn in scenario.dialogue:
        yield turn.text


def guarded(scenario: Scenario, text: str) -> tuple[float, float, float]:
    """Echo, loop and missing end of a text."""
    return guards.echo(text, seen(scenario)), guards.loop(text), guards.unended(text)


def score(reading: Reading, weights: RealText) -> float:
    """S: what the context explains of a response, by root length."""
    explained = weights.contrast * (reading.own - reading.others) + weights.marginal * (reading.own - reading.alone)
    return float(explained / reading.n_tokens**weights.length)


def parts(reading: Reading, reference: Reading, weights: RealText) -> dict[str, float]:
    """The parts of R6, unweighted, each in the unit of the whole: what is to be had more of is positive, a loss negative."""
    ideal, own = reference.n_tokens ** (1 - weights.length), reading.n_tokens ** (1 - weights.length)
    scale = reading.n_tokens**weights.length
    lacking = reference.own / reference.n_tokens - reading.own / reading.n_tokens
    return {
        "contrast": (reading.own - reading.others) / scale,
        "marginal": (reading.own - reading.alone) / scale,
        "overshoot": max(0.0, score(reading, weights) - score(reference, weights)),
        "shortfall": 0.0 - max(0.0, lacking) * ideal,
        "echo": 0.0 - max(0.0, reading.echo - reference.echo) * own,
        "loop": 0.0 - max(0.0, reading.loop - reference.loop) * own,
        "unended": 0.0 - max(0.0, reading.unended - reference.unended),
    }


def gap(reading: Reading, reference: Reading, weights: RealText) -> float:
    """R6 of a response less R6 of the reference, which is S*; 0 for the reference itself."""
    found = parts(reading, reference, weights)
    losses = sum(getattr(weights, name) * found[name] for name in ("shortfall", "echo", "loop", "unended"))
    below = min(0.0, score(reading, weights) - score(reference, weights))
    return below + weights.overshoot * found["overshoot"] + losses
