"""What a phase costs: tokens by what is done with them, and seconds at a reference rate. Without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coevo.config import FileData, Recipe, SmallBase, WorldData
from coevo.config.training import PPO, RealText, Rewarded

SMALL_FLOPS_PER_S = 6e10
"""Reference rate of a small base: float32 on 2 CPU cores, about 10,000 training tokens/s for 1 M parameters."""
HUB_FLOPS_PER_S = 1.5e14
"""Reference rate of a hub base: bfloat16 on one data-centre GPU, with no overlap of phases."""
DECODE_SHARE = 0.1
"""Generation is bound by latency and memory: it reaches this share of the rate that training reaches."""
WORLD_TOKENS = (110, 28, 19)
"""Typical prompt, response and user turn of the world, in tokens, under a tokenizer trained on it."""
REASONING_TOKENS = 34
"""The same of its reasonings."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens by what is done with them."""

    trained: int = 0
    scored: int = 0
    decoded: int = 0
    """Written one at a time."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.trained + self.scored + self.decoded

    def __add__(self, other: Work) -> Work:
        return Work(self.trained + other.trained, self.scored + other.scored, self.decoded + other.decoded)


def parameters(recipe: Recipe) -> float | None:
    """Number of the base's weights: exact for a small one, read off the name of a hub one (`Qwen3-4B`), else None."""
    base = recipe.base
    if isinstance(base, SmallBase):
        head = base.hidden // base.heads
        attention = 2 * base.hidden * head * (base.heads + base.kv_heads)
        return float(base.vocab * base.hidden + base.layers * (attention + 3 * base.hidden * base.intermediate))
    size = re.search(r"(\d+(?:\.\d+)?)\s*([BM])(?![a-z])", base.path.rstrip("/").rsplit("/", 1)[-1], re.IGNORECASE)
    return float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6) if size else None


def typical_tokens(recipe: Recipe) -> tuple[int, int, int]:
    """Prompt, response and user turn in tokens, as the estimates take them to be."""
    limits = (recipe.limits.prompt, recipe.limits.response, recipe.limits.turn)
    if isinstance(recipe.data, FileData):
        return limits[0] // 2, limits[1] // 2, limits[2] // 2
    prompt, response, turn = (min(typical, limit) for typical, limit in zip(WORLD_TOKENS, limits, strict=True))
    return prompt, response, turn


def rate(recipe: Recipe) -> float:
    """FLOP/s of the reference machine for a base of this kind."""
    return SMALL_FLOPS_PER_S if isinstance(recipe.base, SmallBase) else HUB_FLOPS_PER_S


class Costs:
    """Tokens of a recipe's activities."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.prompt, self.response, self.turn = typical_tokens(recipe)
        world = isinstance(recipe.data, WorldData)
        weights = recipe.weights
        self.readings = 2 + (weights.negatives if isinstance(weights, RealText) else 0)
        """How often a reward reads a response: in its context, in none, and with R6 in others'."""
        self.reasoning = min(REASONING_TOKENS, recipe.limits.reasoning) if world else recipe.limits.reasoning // 2

    def training(self, sequences: int, written: int) -> Work:
        """So many texts trained on, each after its prompt."""
        return Work(trained=sequences * (self.prompt + written))

    def writing(self, texts: int, written: int) -> Work:
        """So many texts written by a model."""
        return Work(scored=texts * self.prompt, decoded=texts * written)

    def scoring(self, texts: int) -> Work:
        """So many responses read by the scorer."""
        return Work(scored=texts * (self.prompt + self.response))

    def reasoned(self, scenarios: int) -> Work:
        """Reasonings of so many scenarios, where there is a reasoner."""
        return self.writing(scenarios, self.reasoning) if self._recipe.corl is not None else Work()

    def reinforced(self, config: Rewarded, written: int) -> Work:
        """Sampling, reference and training of a whole phase, its rewards left out."""
        sequences = config.steps * config.prompts * config.group
        read = sequences * (self.prompt + written)
        # of the reference; and PPO's of the values and probabilities when sampled
        frozen = bool(config.kl) + isinstance(config, PPO)
        return self.writing(sequences, written) + Work(read * config.passes, read * frozen)

    def judging(self, turns: int) -> Work:
        """S1 and S2: m answers by the RPM, each scored with and without context, as is the reference; two gates read the
        turn twice."""
        m = self._recipe.loop.simulator.rpm_samples
        gates = Work(scored=2 * turns * (self.prompt + self.turn))
        work = self.writing(turns * m, self.response) + self.scoring(self.readings * (m + 1) * turns) + gates
        return work + self.reasoned(turns)

    def rewarding(self, responses: int, prompts: int) -> Work:
        """The RPM's reward: responses and their prompts' references, each under every context that it asks for."""
        return self.scoring(self.readings * (responses + prompts)) + self.reasoned(prompts)

    def seconds(self, work: Work) -> float | None:
        """At the reference rate, on one process; None if the size of the base is not known."""
        size = parameters(self._recipe)
        if size is None:
            return None
        return size * (6 * work.trained + 2 * work.scored + 2 * work.decoded / DECODE_SHARE) / rate(self._recipe)
