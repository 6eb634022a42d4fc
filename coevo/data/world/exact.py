"""Exact measures of the world: sums over finite supports, no sampling (method, section 7).

What each component shows is `SHOWS`: u the language, manner and calling; c the kind of character and the craft; d the
language, manner, topic, mood and form (how long the history is, whether words are shuffled). Language and manner stand in
u **and** in d. Names, cities, works and small talk decide nothing and are left out.

How the sums stay small. Within one subset tag the attributes are independent and uniform, each slot depends on one of
them (`SLOT_ATTRIBUTE`), and the language is constant, so the five slots are independent given x **and** marginally. In a
pool of tags they are independent given the tag only: the language couples them. Every measure here is therefore made of
one thing, the expectation under one tag of the log of a mixture over tags of products over slots (`expected_log`), and the
mixture is summed exactly: symbols that all parts of the mixture find equally likely fall into one cell, which leaves at
most some ten thousand cells of the 558 million replies.

Two readings of "exact" are kept apart by the argument `density`, the law that scores:

- the responder's own, the default, is the definition: I(X; Y_theta) is the mutual information of its own joint law;
- `REFERENCE` is what a perfect scorer of references measures, E log p*(y_theta|x) / p*(y_theta), which is less by
  E KL(p_theta(.|x) || p*(.|x)) - KL(p_theta || p*). A responder that always takes a nurse for a baker loses nothing by the
  definition, and all that its address said of the context by the scorer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from coevo.data.world.generator import TURN_TAG, WORD_TAG, support
from coevo.data.world.lexicon import KINDS, REAL_KIND, SLOT_ATTRIBUTE, SLOTS
from coevo.data.world.responders import REFERENCE, Fault, Floats, Responder, table
from coevo.types import SHIFT_OF_TAG, Component

Population = Mapping[str, float]
"""Subset tag -> its weight; they sum to 1."""
Reading = Literal["shown", "owned"]
"""What is gone without z: `shown`, what no other component shows, as for a reader with the rest of the text before them;
`owned`, all that z owns, as if the rest did not betray it."""

SHOWS: dict[Component, tuple[str, ...]] = {
    "u": ("language", "manner", "calling"),
    "c": ("kind", "craft"),
    "d": ("language", "manner", "topic", "mood", "form"),
}
"""What can be read off each component."""
OWNS: dict[Component, tuple[str, ...]] = {
    "u": ("language", "manner", "calling"),
    "c": ("kind", "craft"),
    "d": ("topic", "mood", "form"),
}
"""Whose business each attribute is: language and manner are the user's, although the dialogue shows them too."""
TAGS: tuple[str, ...] = ("IDTest", *SHIFT_OF_TAG)
"""The test subsets."""
POOL: Population = dict.fromkeys(TAGS, 1 / len(TAGS))
"""All test subsets together, equally often."""
_EVERY_ATTRIBUTE = frozenset(SLOT_ATTRIBUTE.values())
_DIGITS = 12
"""Log-densities that agree to so many digits are one cell."""


class Part(NamedTuple):
    """One product law in a mixture: what a responder with `fault` says under `tag`."""

    weight: float
    fault: Fault
    tag: str


def only(*tags: str) -> Population:
    """The population of some subsets, equally often."""
    return dict.fromkeys(tags, 1 / len(tags))


def tag_attributes(tag: str) -> dict[str, str]:
    """What is constant within a subset: the language, the character's kind, the dialogue's form."""
    return {
        "language": support(tag)["language"][0],
        "kind": tag if tag in KINDS else REAL_KIND,
        "form": tag if tag in (TURN_TAG, WORD_TAG) else "plain",
    }


def parts(law: Responder, population: Population) -> list[Part]:
    """A law over a population, as parts of a mixture."""
    return [Part(weight, law.fault(tag), tag) for tag, weight in population.items()]


def expected_log(law: Responder, tag: str, mixture: Sequence[Part], hidden: Collection[str] = ()) -> float:
    """E log sum_g w_g prod_s p_g(y_s | value, or no value where its attribute is hidden), in nats.

    The expectation is over x of `tag` and y ~ `law`(.|x). With every attribute hidden the mixture is a marginal law of
    replies; with none hidden and the one part `tag`, this is E log p(y|x).

    Args:
        law: whose replies.
        tag: of which subset.
        mixture: its parts' subsets have the values that `tag` has, wherever an attribute is not hidden.
        hidden: attributes that the mixture does not know and averages over.
    """
    weights: dict[tuple[Fault, str], float] = {}
    for part in mixture:
        key = (part.fault, _like(part.tag))
        weights[key] = weights.get(key, 0.0) + part.weight
    merged = tuple(Part(weight, *key) for key, weight in weights.items())
    return _expected_log(law.fault(tag), _like(tag), merged, frozenset(hidden))


@cache
def _expected_log(fault: Fault, tag: str, mixture: tuple[Part, ...], hidden: frozenset[str]) -> float:
    """Shapes: A cells of a slot, C cells of the slots so far, G parts."""
    probability_c = np.ones(1)
    log_cg = np.log([[part.weight for part in mixture]])
    for slot in SLOTS:
        probability_a, log_ag = _cells(fault, tag, slot, mixture, SLOT_ATTRIBUTE[slot] in hidden)
        probability_c = (probability_c[:, None] * probability_a).ravel()
        log_cg = (log_cg[:, None, :] + log_ag).reshape(-1, len(mixture))
    top_c = log_cg.max(axis=1)
    return float(probability_c @ (top_c + np.log(np.exp(log_cg - top_c[:, None]).sum(axis=1))))


def _cells(fault: Fault, tag: str, slot: str, mixture: Sequence[Part], hidden: bool) -> tuple[Floats, Floats]:
    """The slot's (value, symbol) pairs, those alike to all parts in one cell: probabilities (A,), log-densities (A, G)."""
    probability_vs = table(fault, tag, slot) / len(table(fault, tag, slot))
    density_gvs = np.array([table(part.fault, part.tag, slot) for part in mixture])
    if hidden:
        probability_vs, density_gvs = probability_vs.sum(axis=0, keepdims=True), density_gvs.mean(axis=1, keepdims=True)
    log_ag, cell = np.unique(np.log(density_gvs.reshape(len(mixture), -1)).T.round(_DIGITS), axis=0, return_inverse=True)
    probability_a = np.bincount(cell.ravel(), weights=probability_vs.ravel(), minlength=len(log_ag))
    return probability_a.astype(np.float64), log_ag


@cache
def _like(tag: str) -> str:
    """The first subset with the same support: what differs beyond it decides no reply."""
    return next((other for other in TAGS if support(other) == support(tag)), tag)


def likelihood(law: Responder, density: Responder, population: Population) -> float:
    """E log density(y|x), x of the population and y ~ law(.|x), in nats; minus H(Y|X) if the two are one."""
    return _mean(population, lambda tag: expected_log(law, tag, parts(density, only(tag))))


def log_marginal(law: Responder, density: Responder, population: Population, negatives: Population) -> float:
    """E log of the density's marginal law of replies over `negatives`, y ~ law over `population`, in nats."""
    marginal = parts(density, negatives)
    return _mean(population, lambda tag: expected_log(law, tag, marginal, _EVERY_ATTRIBUTE))


def information(
    law: Responder, population: Population, density: Responder | None = None, negatives: Population | None = None
) -> float:
    """E log density(y|x) / density(y), nats: what M4 measures with the exact density, and M2 and M3 in their limits.

    With the defaults it is the mutual information I(X; Y) of the law over the population.

    Args:
        law: whose replies.
        population: where the scenarios come from.
        density: the law that scores; the responder's own unless given.
        negatives: over which contexts the marginal is; the population's own unless given. A subset measured against the
            pool has its share of the pool's information: the mean over subsets is that of the pool.
    """
    density, negatives = density or law, negatives or population
    return likelihood(law, density, population) - log_marginal(law, density, population, negatives)


def club(
    law: Responder, population: Population, density: Responder | None = None, negatives: Population | None = None
) -> float:
    """What M1 expects with contexts drawn independently from `negatives`, nats.

    E log density(y|x) - E log density(y|x'), which for a law's own density over one population is
    I + KL(p(x)p(y) || p(x,y)). Arguments as in `information`.
    """
    density, negatives = density or law, negatives or population
    elsewhere = sum(
        weight * share * _log_elsewhere(law, tag, density, other)
        for tag, weight in population.items()
        for other, share in negatives.items()
    )
    return likelihood(law, density, population) - elsewhere


def remi(
    law: Responder, population: Population, density: Responder | None = None, negatives: Population | None = None
) -> float:
    """E1, nats: information of the responder's replies minus that of the references. Arguments as in `information`."""
    return information(law, population, density, negatives) - information(REFERENCE, population, None, negatives)


def club_remi(
    law: Responder, population: Population, density: Responder | None = None, negatives: Population | None = None
) -> float:
    """What E1 by M1 expects, nats. Arguments as in `information`."""
    return club(law, population, density, negatives) - club(REFERENCE, population, None, negatives)


def highest_entropy(law: Responder, population: Population) -> float:
    """The H of B1: max over scenarios x of H(Y*|x) + H(Y_theta|x), nats."""
    return max(
        sum(float((_entropy(law.table(tag, slot)) + _entropy(REFERENCE.table(tag, slot))).max()) for slot in SLOTS)
        for tag in population
    )


def response_jsd(law: Responder, population: Population) -> float:
    """D_JS between the replies of a responder and the references over a population, nats, in [0, ln 2]."""
    half = {tag: weight / 2 for tag, weight in population.items()}
    middle = parts(law, half) + parts(REFERENCE, half)
    divergence = 0.0
    for side in (law, REFERENCE):
        for tag, weight in half.items():
            own = expected_log(side, tag, parts(side, population), _EVERY_ATTRIBUTE)
            divergence += weight * (own - expected_log(side, tag, middle, _EVERY_ATTRIBUTE))
    return min(max(divergence, 0.0), math.log(2))


def component_jsd(first: Population, second: Population) -> dict[Component, float]:
    """D_JS(P_z || Q_z) for each component, over what it shows (`SHOWS`), nats, in [0, ln 2].

    Kind and form are shown, so subsets that differ in a component have no value of it in common: over whole texts, whose
    names and wordings differ as well, this would be the same 0 or ln 2.
    """
    found: dict[Component, float] = {}
    for z, names in SHOWS.items():
        p, q = _component_law(first, names), _component_law(second, names)
        keys = sorted({*p, *q})
        p_k, q_k = np.array([p.get(k, 0.0) for k in keys]), np.array([q.get(k, 0.0) for k in keys])
        jsd = float(_entropy((p_k + q_k) / 2) - (_entropy(p_k) + _entropy(q_k)) / 2)
        found[z] = min(max(jsd, 0.0), math.log(2))
    return found


def component_information(
    law: Responder, population: Population, z: Component, reading: Reading = "shown", negatives: Population | None = None
) -> float:
    """I_z of A1 by the references' density: E log p*(y|x) - log p*(y | x without z), y ~ law(.|x), nats.

    What is gone without z is averaged over: uniformly over a subset's values, and over the subsets of `negatives` that
    agree with the scenario's in what the other components say.

    Args:
        law: whose replies.
        population: where the scenarios come from.
        z: the component left out.
        reading: whether what another component shows too is gone as well.
        negatives: over which subsets; each scenario's own unless given.
    """

    gone = _gone(z, reading)

    def one(tag: str) -> float:
        without = parts(REFERENCE, _alike(tag, negatives or only(tag), gone))
        return expected_log(law, tag, parts(REFERENCE, only(tag))) - expected_log(law, tag, without, gone)

    return _mean(population, one)


def component_remi(
    law: Responder, population: Population, z: Component, reading: Reading = "shown", negatives: Population | None = None
) -> float:
    """A1, nats: I_z(Y_theta) - I_z(Y*). Arguments as in `component_information`."""
    ours = component_information(law, population, z, reading, negatives)
    return ours - component_information(REFERENCE, population, z, reading, negatives)


def _gone(z: Component, reading: Reading) -> frozenset[str]:
    if reading == "owned":
        return frozenset(OWNS[z])
    return frozenset(SHOWS[z]) - {name for other, names in SHOWS.items() if other != z for name in names}


def _alike(tag: str, population: Population, gone: Collection[str]) -> Population:
    """The subsets that a reader takes for possible who does not see what is gone."""
    kept = {name: value for name, value in tag_attributes(tag).items() if name not in gone}
    alike = {t: w for t, w in population.items() if kept.items() <= tag_attributes(t).items()}
    return {t: w / sum(alike.values()) for t, w in alike.items()}


def _log_elsewhere(law: Responder, tag: str, density: Responder, other: str) -> float:
    """E log density(y|x'), y ~ law over `tag`, x' of `other` and independent of y: linear, so a sum over slots."""
    means = ((law.table(tag, slot).mean(axis=0), np.log(density.table(other, slot)).mean(axis=0)) for slot in SLOTS)
    return float(sum(reply @ context for reply, context in means))


def _component_law(population: Population, names: Sequence[str]) -> dict[tuple[str, ...], float]:
    law: dict[tuple[str, ...], float] = {}
    for tag, weight in population.items():
        constant = tag_attributes(tag)
        choices = [(constant[name],) if name in constant else support(tag)[name] for name in names]
        share = weight / math.prod(map(len, choices))
        for key in itertools.product(*choices):
            law[key] = law.get(key, 0.0) + share
    return law


def _entropy(p: Floats) -> Floats:
    """Over the last axis, nats; 0 log 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _mean(population: Population, of: Callable[[str], float]) -> float:
    return sum(weight * of(tag) for tag, weight in population.items())
