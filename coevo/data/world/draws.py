"""Draws from exact laws as arrays of indices, so that a hundred experiments of a thousand scenarios take seconds.

The same laws as `Responder.answer` and `log_density`, without the texts: a scenario is its subset and the value of each
slot's attribute, a reply one symbol a slot.

Shape suffixes: N scenarios, K negatives, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coevo.data.world.attributes import parse_scenario
from coevo.data.world.density import parse_response
from coevo.data.world.exact import Population
from coevo.data.world.generator import support
from coevo.data.world.lexicon import SLOT_ATTRIBUTE, SLOTS
from coevo.data.world.responders import SYMBOLS, Floats, Responder
from coevo.types import Scenario

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contexts:
    """Scenarios as indices."""

    tags: tuple[str, ...]
    """The subsets there are."""
    tag: Ints
    """(N,), which of them."""
    value: Ints
    """(N, S), the place of the slot's attribute's value in the subset's support."""

    def __len__(self) -> int:
        return len(self.tag)


def draw_contexts(population: Population, n: int, rng: np.random.Generator) -> Contexts:
    """N independent scenarios of a population."""
    tag = rng.choice(len(population), size=n, p=np.array(list(population.values())))
    return _with_values(tuple(population), tag, rng)


def draw_even(tags: Sequence[str], n: int, rng: np.random.Generator) -> Contexts:
    """n scenarios of each subset, as an evaluation has them, subset after subset."""
    return _with_values(tuple(tags), np.repeat(np.arange(len(tags)), n), rng)


def read_contexts(scenarios: Sequence[Scenario]) -> Contexts:
    """Scenarios of the world, read off their texts.

    Raises:
        DataError: a scenario that cannot be read.
    """
    tags = tuple(dict.fromkeys(x.subset_tag for x in scenarios))
    values = []
    for x in scenarios:
        attributes, known = parse_scenario(x), support(x.subset_tag)
        values.append([known[name].index(getattr(attributes, name)) for name in map(SLOT_ATTRIBUTE.__getitem__, SLOTS)])
    return Contexts(tags, np.array([tags.index(x.subset_tag) for x in scenarios]), np.array(values))


def draw_replies(law: Responder, contexts: Contexts, rng: np.random.Generator) -> Ints:
    """One reply a scenario: (N, S), places in `SYMBOLS`."""
    symbols = []
    for slot, row_n in zip(SLOTS, _rows(contexts), strict=True):
        cumulative = _stacked(law, contexts.tags, slot).cumsum(axis=1)[row_n]
        symbols.append((rng.random((len(contexts), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1))
    return np.stack(symbols, axis=1)


def read_replies(texts: Sequence[str]) -> Ints:
    """Replies of the world, read off their texts: (N, S). Text beyond the five slots is not read."""
    parsed = [parse_response(text).symbols for text in texts]
    return np.array([[SYMBOLS[slot].index(symbol) for slot, symbol in zip(SLOTS, p, strict=True)] for p in parsed])


def log_matrix(density: Responder, contexts: Contexts, replies: Ints) -> Floats:
    """L[i, j] = log density(y_j | x_i): (N, N), nats, row context, column reply."""
    total = np.zeros((len(contexts), len(replies)))
    for place, (slot, row_n) in enumerate(zip(SLOTS, _rows(contexts), strict=True)):
        total += np.log(_stacked(density, contexts.tags, slot))[row_n][:, replies[:, place]]
    return total


def log_design(density: Responder, contexts: Contexts, replies: Ints, where: Ints) -> Floats:
    """log density(y_i | x_j), j = where[i, k]: (N, K+1), nats; a design if `where` has each reply's own context first."""
    total = np.zeros(where.shape)
    for place, (slot, row_n) in enumerate(zip(SLOTS, _rows(contexts), strict=True)):
        total += np.log(_stacked(density, contexts.tags, slot))[row_n[where], replies[:, place, None]]
    return total


def log_marginal(density: Responder, population: Population, replies: Ints) -> Floats:
    """log of the density's marginal law over a population, of each reply: (N,), nats; the exact q(y | nothing) of M4."""
    log_gn = np.log([[weight] for weight in population.values()]) + np.zeros(len(replies))
    for place, slot in enumerate(SLOTS):
        marginal_gv = np.array([density.table(tag, slot).mean(axis=0) for tag in population])
        log_gn += np.log(marginal_gv)[:, replies[:, place]]
    return np.logaddexp.reduce(log_gn, axis=0)


def _with_values(tags: tuple[str, ...], tag: Ints, rng: np.random.Generator) -> Contexts:
    sizes = np.array([[len(support(name)[SLOT_ATTRIBUTE[slot]]) for slot in SLOTS] for name in tags])
    return Contexts(tags, tag, rng.integers(0, sizes[tag]))


def _rows(contexts: Contexts) -> list[Ints]:
    """By slot, the row of each scenario in the table of `_stacked`: (N,)."""
    rows = []
    for place, slot in enumerate(SLOTS):
        sizes = [len(support(tag)[SLOT_ATTRIBUTE[slot]]) for tag in contexts.tags]
        rows.append(np.cumsum([0, *sizes[:-1]])[contexts.tag] + contexts.value[:, place])
    return rows


def _stacked(law: Responder, tags: Sequence[str], slot: str) -> Floats:
    """The slot's tables of all subsets, one below the other."""
    return np.concatenate([law.table(tag, slot) for tag in tags])
