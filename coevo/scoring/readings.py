"""From the likelihoods that an evaluation asked for to one row a scenario; see `coevo.scoring.evaluate`."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from coevo.maths.information import component_remi, emi, outside
from coevo.maths.stats import Floats
from coevo.scoring.summary import Row
from coevo.types import COMPONENTS, Scenario, Score

if TYPE_CHECKING:
    from coevo.scoring.evaluate import Plan

N_PLAIN = 1 + len(COMPONENTS)
"""Contexts at a block's end in which no reasoning is shown: the own one, and the own one without each component (A1)."""
ASKS_PER_CALL = 16384
"""Likelihoods asked for at once: enough to batch by length, few enough that their token ids fit in memory."""
RELEASED_PAIRS = 1000
"""Random negative pairs a subset, by the paper's code."""
Cache = MutableMapping[str, Any]
"""References' likelihoods by (scorer version, design, sample_id); a plain dict, and JSON as it stands."""


class Truth(Protocol):
    """A world that knows P(y|x)."""

    def share_right(self, scenario: Scenario, text: str) -> float:
        """Share of the response's slots that are right, 0 to 1."""

    def log_density(self, scenario: Scenario, text: str) -> float:
        """log p(text | scenario), nats; may be -inf."""


def pack(score: Score) -> list[Any]:
    """A score as the cache has it."""
    return [score.logprob_nats if score.status == "ok" else None, score.n_tokens, score.status]


def unpack(packed: Sequence[Any]) -> Score:
    """The inverse of `pack`."""
    nats, n_tokens, status = packed
    return Score(math.nan if nats is None else nats, n_tokens, status)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the scorer said of one scenario's response and reference."""

    status: str
    nats: Floats | None
    """(1 + K + 4, 2): own context, negatives, own without r, u, c, d; the response's in column 0, the reference's in 1. NaN
    for both where one of the two cannot be scored, so that they stay paired. None without a score of one's own."""
    tokens: Floats | None = None
    """(2,) of response and reference; None where likelihoods are per token already."""


def read(planned: Plan, place: int, block: list[Score] | None, cache: Cache) -> Reading:
    """What the scorer said of the texts of one scenario."""
    if block is None:
        status: str = planned.responses[place].status
        return Reading(status if status != "ok" else "reference_empty", None)
    reference = [unpack(packed) for packed in cache[planned.keys[place]]]
    pairs = list(zip(block, reference, strict=True))
    nats = np.array([[y.logprob_nats, r.logprob_nats] for y, r in pairs])
    nats[[y.status != "ok" or r.status != "ok" for y, r in pairs]] = math.nan
    if block[0].status != "ok":
        return Reading(block[0].status, None)
    if reference[0].status != "ok":
        return Reading(f"reference_{reference[0].status}", None)
    if planned.released:
        return Reading("ok", nats / [block[0].n_tokens, reference[0].n_tokens])
    tokens = np.array([block[0].n_tokens, reference[0].n_tokens], dtype=np.float64)
    return Reading("no_negatives" if np.isnan(nats[1:-N_PLAIN, 0]).all() else "ok", nats, tokens)


def elsewhere_of(planned: Plan, reading: Reading) -> Floats | None:
    """agg_j L(y | x_j) of response and reference, (2,); None where there is none."""
    if reading.status != "ok" or reading.nats is None:
        return None
    return outside(reading.nats[:-N_PLAIN].T, planned.agg)


def released_elsewhere(planned: Plan, readings: Sequence[Reading]) -> list[Floats | None]:
    """The released estimate shared out over responses, (2,) each: their mean over a subset is the mean over its pairs.

    Of c, the mean over the P pairs of a subset of N responses, each response gets c + N/P times the sum of what its own
    pairs deviate from c. The bootstrap over these is that of the ratio estimate, to first order.
    """
    elsewhere: list[Floats | None] = [None] * len(readings)
    by_tag: dict[str, list[tuple[int, Floats]]] = {}
    for place, reading in enumerate(readings):
        if reading.nats is not None:
            negatives = reading.nats[1:-N_PLAIN]
            known = negatives[~np.isnan(negatives[:, 0])]
            by_tag.setdefault(planned.scenarios[place].subset_tag, []).append((place, known))
    for members in by_tag.values():
        pairs = np.concatenate([negatives for _, negatives in members])
        if len(pairs):
            centre = pairs.mean(axis=0)
            for place, negatives in members:
                elsewhere[place] = centre + len(members) / len(pairs) * (negatives - centre).sum(axis=0)
    return elsewhere


def row_of(planned: Plan, place: int, reading: Reading, elsewhere: Floats | None, truth: Truth | None) -> Row:
    """One scenario's numbers."""
    scenario, response = planned.scenarios[place], planned.responses[place]
    numbers: dict[str, Any] = {}
    status = reading.status
    if elsewhere is not None and reading.nats is not None:
        numbers = _numbers(reading.nats, elsewhere)
        if reading.tokens is not None:
            own, outer = reading.nats[0] / reading.tokens, elsewhere / reading.tokens
            per_token = emi(own[:1], outer[:1], own[1:], outer[1:]).means
            numbers |= {f"{name}_per_token": per_token[name] for name in ("remi", "register_gap")}
        # the world's density is of whole responses, so it cannot stand beside nats per token
        if truth and not planned.released:
            numbers |= _exact(planned, place, reading.nats, truth)
    return Row(
        sample_id=scenario.sample_id,
        subset_tag=scenario.subset_tag,
        persona=scenario.persona,
        query=scenario.query,
        response=response.text,
        reference=scenario.reference,
        status="no_negatives" if status == "ok" and elsewhere is None else status,
        share_right=truth.share_right(scenario, response.text) if truth else math.nan,
        **numbers,
    )


def _numbers(nats: Floats, elsewhere: Floats) -> dict[str, Any]:
    """A row's measures from its likelihoods (1 + K + 4, 2) and their aggregate elsewhere (2,)."""
    own = nats[0]
    parts = emi(own[:1], elsewhere[:1], own[1:], elsewhere[1:])
    numbers: dict[str, Any] = parts.means
    numbers["n_negatives"] = int((~np.isnan(nats[1:-N_PLAIN, 0])).sum())
    plain, *withouts = nats[-N_PLAIN:]
    for z, without in zip(COMPONENTS, withouts, strict=True):
        numbers[f"component_{z}"] = float(component_remi(plain[:1], without[:1], plain[1:], without[1:])[0])
    return numbers


def _exact(planned: Plan, place: int, nats: Floats, truth: Truth) -> dict[str, float]:
    """The same measures by the world's density; R-EMI only with negatives, as the world has no empty context."""
    scenario, texts = planned.scenarios[place], (planned.responses[place].text, planned.scenarios[place].reference)
    own = np.array([truth.log_density(scenario, text) for text in texts])
    with np.errstate(invalid="ignore"):
        exact = {"exact_likelihood_gap": float(own[0] - own[1])}
        if planned.negatives[place]:
            scored = [
                other for other, pair in zip(planned.negatives[place], nats[1:], strict=False) if not np.isnan(pair[0])
            ]
            designs = [[truth.log_density(planned.scenarios[other], text) for other in scored] for text in texts]
            elsewhere = outside(np.column_stack([own, designs]), planned.agg)
            exact["exact_remi"] = float((own[0] - elsewhere[0]) - (own[1] - elsewhere[1]))
    return exact
