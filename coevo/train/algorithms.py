"""The algorithms that learn from rewards, by the name that a recipe gives them."""

from __future__ import annotations

from collections.abc import Callable

from coevo.train.grpo import train_grpo
from coevo.train.ppo import train_ppo

TRAINERS: dict[str, Callable[..., bool]] = {"grpo": train_grpo, "ppo": train_ppo}
"""`algorithm` of a phase -> (job, prompts, reward, the phase's block, longest completion in tokens) -> whether it learnt."""
