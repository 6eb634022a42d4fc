"""B1 and B2 of the method's section 6: how large R-EMID may become, and which component's shift the risk comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from coevo.errors import ScoreError
from coevo.types import COMPONENTS, Component

_ROUNDING = 1e-9
"""Nats by which a JSD may leave [0, ln 2] and still be taken for its end."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound and the terms that it is the sum of, all in one unit: nats for B1, none for B2."""

    value: float
    """The sum of the shares and `response`."""
    shares: dict[Component, float]
    """By component, its term: D_JS(P_z || Q_z)^1/2, in B1 times sqrt(2/3) H."""
    response: float
    """How far the model's responses lie from the references: 8 Delta^1/4 in B1, the sum of both fourth roots in B2."""
    largest: Component | None
    """The component with the largest share, the first of u, c, d among equals; None where nothing shifts."""


def emid_bound(
    context: Mapping[Component, float], response_p: float, response_q: float, entropy: float | None = None
) -> Bound:
    """B1 where the entropy is known, else B2, which is free of scale and ranks shifts and models.

    B1 = sqrt(2/3) H sum_z D_JS(P_z || Q_z)^1/2 + 8 Delta^1/4 with Delta = response_p + response_q.
    B2 = sum_z D_JS(P_z || Q_z)^1/2 + response_p^1/4 + response_q^1/4.

    B1 is the paper's. On most distributions it is loose, but it is no theorem: R-EMID exceeds it in cases where

    - the reference's conditional p(y|x) is another under Q than under P, or the components' marginals hide a shift of their
      joint distribution (every term of B1 can then be 0);
    - one component alone shifts while responses and references have equal marginals (then up to 2 sqrt(3) times B1; what
      holds is 2 sqrt(2) H D_JS(P_X || Q_X)^1/2, with independent components at most 2 sqrt(2) H sum_z D_JS^1/2);
    - responses are deterministic with a large support (B1's last term is at most 8.7 nats).

    A representation JSD is at most the classical one, so B2 made of it is an index of risk and bounds nothing.

    Args:
        context: D_JS(P_z || Q_z) of each component u, c and d, nats.
        response_p: D_JS(P_Ytheta || P_Y), of the model's responses and the references on P, nats.
        response_q: the same on Q.
        entropy: H of B1, nats: the largest H(Q_Y|x) + H(pi_theta(. | x)) of any x.

    Raises:
        ScoreError: a component that is missing or unknown, a JSD outside [0, ln 2], or a negative entropy.
    """
    if set(context) != set(COMPONENTS):
        raise ScoreError(
            f"bound: divergences of components {', '.join(sorted(context)) or 'none'} were given; "
            f"give one for each of {', '.join(COMPONENTS)}."
        )
    scale = 1.0
    if entropy is not None:
        if not (math.isfinite(entropy) and entropy >= 0):
            raise ScoreError(f"bound: the entropy is {entropy}; give the sum of two entropies in nats, 0 or more.")
        scale = math.sqrt(2 / 3) * entropy
    shares = {z: scale * math.sqrt(_jsd(context[z], f"component {z}")) for z in COMPONENTS}
    responses = [_jsd(response_p, "responses on P"), _jsd(response_q, "responses on Q")]
    response = sum(value**0.25 for value in responses) if entropy is None else 8 * sum(responses) ** 0.25
    largest = max(COMPONENTS, key=lambda z: context[z])
    return Bound(sum(shares.values()) + response, shares, response, largest if context[largest] > 0 else None)


def _jsd(value: float, name: str) -> float:
    if not -_ROUNDING <= value <= math.log(2) + _ROUNDING:
        raise ScoreError(f"bound: the JSD of {name} is {value}; give it in nats, 0 to ln 2 = 0.693.")
    return max(value, 0.0)
