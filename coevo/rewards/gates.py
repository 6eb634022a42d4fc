"""Gates on the simulator's turns (S2): what a turn must be before its regret counts. Each is logged by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coevo.config import SimulatorKeys
from coevo.errors import ScoreError
from coevo.prompts import NO_PERSONA
from coevo.scoring.scorer import Ask, Scorer
from coevo.types import Scenario


@dataclass(frozen=True, slots=True)
class Naturalness:
    """How a turn reads to the frozen start simulator; NaN where it cannot be scored."""

    fluency: float
    """Mean token log-probability in its context: nats per token."""
    persona: float
    """D1 with the persona as context: log q(turn|all) - log q(turn|without u), in nats."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Quantiles of real user turns that a written turn must reach."""

    fluency: float
    persona: float


def naturalness(start: Scorer, scenarios: Sequence[Scenario]) -> list[Naturalness]:
    """Reads each scenario's query with the frozen start simulator, with and without the persona."""
    asks = [Ask(x, x.query) for x in scenarios] + [Ask(x, x.query, NO_PERSONA) for x in scenarios]
    scores = start.score(asks)
    pairs = zip(scores[: len(scenarios)], scores[len(scenarios) :], strict=True)
    return [
        Naturalness(full.logprob_nats / max(full.n_tokens, 1), full.logprob_nats - without.logprob_nats)
        for full, without in pairs
    ]


def thresholds(start: Scorer, real: Sequence[Scenario], config: SimulatorKeys) -> Thresholds:
    """The quantiles of real queries below which a turn does not pass.

    Raises:
        ScoreError: none of the real queries could be scored.
    """
    read = [n for n in naturalness(start, real) if np.isfinite(n.fluency) and np.isfinite(n.persona)]
    if not read:
        raise ScoreError(
            f"None of {len(real)} real user turns can be scored by the start simulator, so its gates have no threshold. "
            "Expected prompts shorter than limits.prompt; raise it."
        )
    return Thresholds(
        float(np.quantile([n.fluency for n in read], config.fluency_quantile)),
        float(np.quantile([n.persona for n in read], config.persona_quantile)),
    )


def natural_gates(read: Naturalness, limits: Thresholds) -> dict[str, float]:
    """Fluency and persona gates, 1 or 0; a turn that cannot be read (NaN) passes neither."""
    return {
        "fluency": float(read.fluency >= limits.fluency),
        "persona": float(read.persona >= limits.persona),
    }


LEAK_CHARACTERS = 12
"""Shorter texts, such as a greeting, may well be said again."""


def whole(text: str, status: str, hidden: Collection[str]) -> float:
    """1 if the turn ended by itself and repeats none of the texts that a user would not say.

    Args:
        text: the turn.
        status: of its generation.
        hidden: persona, character card, the reference, what the agent has said.
    """
    if status != "ok" or not text.strip():
        return 0.0
    folded = text.casefold()
    return float(not any(s.casefold() in folded for s in hidden if len(s) >= LEAK_CHARACTERS))


def novelty(turns: Sequence[str], batch: Sequence[str], pool: Mapping[str, int]) -> list[float]:
    """How new a turn is sentence by sentence: the mean of 1 over how many turns of the batch say the same sentence.

    Counted by whole turns, a simulator that asks one question after every opening would pass for inventive. Halved if the
    pool has the turn.

    Args:
        turns: this process's turns.
        batch: the turns of all processes.
        pool: how often each turn stands in the pool.

    Returns:
        One number a turn, above 0 and at most 1.
    """
    counts = Counter(sentence for turn in batch for sentence in set(_sentences(turn)))
    found = []
    for turn in turns:
        new = [1 / max(counts[sentence], 1) for sentence in _sentences(turn)] or [1.0]
        found.append((0.5 if pool.get(_normal(turn)) else 1.0) * sum(new) / len(new))
    return found


def _sentences(turn: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.?!。？！…])\s*", _normal(turn)) if part]


def _normal(turn: str) -> str:
    return " ".join(turn.split())
