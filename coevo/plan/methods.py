"""The phases of each method between the two evaluations, as the planner is told of them. Without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coevo.config.methods import (
    DPO,
    ONLINE,
    AugmentedSFT,
    Coevolution,
    Online,
    PlainSFT,
    RejectionSFT,
    ThinkGRPO,
    ThinkSFT,
)

if TYPE_CHECKING:
    from coevo.plan.plan import Planner


def coevolution(planner: Planner, method: Coevolution) -> None:
    """The loop's iterations."""
    for k in range(1, planner.recipe.loop.iterations + 1):
        planner.iteration(k)


def plain_sft(planner: Planner, method: PlainSFT) -> None:
    """None of its own."""


def augmented_sft(planner: Planner, method: AugmentedSFT) -> None:
    """The copies, and SFT on them and the samples."""
    planner.augment(method)


def rejection_sft(planner: Planner, method: RejectionSFT) -> None:
    """The answers, and SFT on the best of them."""
    prompts = planner.sample(method)
    planner.train("sft-best", "rejection_sft", method.tune, planner.at_most(method.tune, prompts), planner.costs.response)


def dpo(planner: Planner, method: DPO) -> None:
    """The answers, and DPO on pairs of them."""
    prompts = planner.sample(method)
    # a pair is two sequences, and the reference model reads both
    planner.train("dpo", "dpo", method.tune, planner.at_most(method.tune, prompts), 2 * planner.costs.response)


def online(planner: Planner, method: Online) -> None:
    """The online one."""
    planner.online(method.kind, "online", method, planner.costs.response)


def think_sft(planner: Planner, method: ThinkSFT) -> None:
    """The SFT."""
    planner.think(method.tune)


def think_grpo(planner: Planner, method: ThinkGRPO) -> None:
    """The SFT, and the online one."""
    planner.think(method.tune)
    planner.online("think-grpo", "think_online", method, planner.costs.reasoning + planner.costs.response)


PHASES: dict[type[Any], Callable[[Planner, Any], None]] = {
    Coevolution: coevolution,
    PlainSFT: plain_sft,
    AugmentedSFT: augmented_sft,
    RejectionSFT: rejection_sft,
    DPO: dpo,
    **dict.fromkeys(ONLINE.values(), online),
    ThinkSFT: think_sft,
    ThinkGRPO: think_grpo,
}
"""A method's block -> what it adds to the plan."""
