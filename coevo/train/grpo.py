"""Group relative policy optimisation through TRL's GRPOTrainer, with Python rewards; what it shares with PPO included.

One generation window is one step and a phase is one epoch, so that every checkpoint falls between windows and resuming
is bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from coevo.config import GRPO
from coevo.config.training import Rewarded
from coevo.errors import CheckpointError, ConfigError
from coevo.lm.likelihood import encode_prompt
from coevo.text import blank, normalised
from coevo.train.common import Hook, Job, run, shared_arguments

LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": name} for name in ("grpo", "dr_grpo", "dapo", "bnpo", "sapo", "vespo")},
    # its bound is on the importance weight itself, which TRL's default of 0.2 would cut to a fifth (ScaleRL takes 5)
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    # GSPO (Zheng et al. 2025) with its paper's bounds
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
}
"""A recipe's name of a loss -> TRL's settings of it."""

ROUNDING = 1e-4
"""Likelihoods of one text differ by up to this many nats with the batch that they are computed in."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled completion, as the reward sees it."""

    key: str
    """Which prompt it answers."""
    text: str
    tokens: tuple[int, ...]
    status: str
    """ok, truncated or empty."""


class RewardFunction(Protocol):
    """Scores this process's completions of one step; all processes call it together."""

    def __call__(self, completions: Sequence[Completion], step: int) -> list[float | None]:
        """One reward per completion; None for what cannot be scored."""


def train_grpo(
    job: Job,
    prompts: Sequence[tuple[str, str]],
    reward: RewardFunction,
    config: GRPO,
    max_new_tokens: int,
) -> bool:
    """Trains on (key, rendered prompt) pairs in their order, `config.prompts` a step.

    Returns:
        Whether anything was learnt. False if no group had two different rewards: the weights are then the parent's.

    Raises:
        CheckpointError: rewards differed and yet no weight changed.
        ConfigError: there are not exactly steps × prompts pairs, which TRL would answer with no step and no error.
    """
    check_prompts(job, prompts, config, "GRPO")
    arguments = sampling_arguments(job, config, max_new_tokens)
    arguments |= {"max_steps": config.steps, "scale_rewards": config.scale_rewards, **LOSSES[config.loss]}
    differed = False

    def watched(completions: Sequence[Completion], step: int) -> list[float | None]:
        nonlocal differed
        rewards = reward(completions, step)
        differed = differed or differ(completions, rewards)
        return rewards

    trainer = GRPOTrainer(
        model=job.model,
        reward_funcs=trl_reward(watched, end_tokens(job)),
        args=GRPOConfig(**arguments),
        train_dataset=prompt_rows(prompts),
        processing_class=job.tokenizer,
        callbacks=[Hook(job)],
    )
    changed = run(trainer, job)
    if not changed and differed:
        raise CheckpointError("Rewards differed and yet GRPO changed no weight. See metrics.jsonl for the gradient's norm.")
    return changed


def check_prompts(job: Job, prompts: Sequence[tuple[str, str]], config: Rewarded, name: str) -> None:
    """Refuses what TRL would answer in silence, with no step or with another context than the scorer's.

    Raises:
        ConfigError: not exactly steps × prompts pairs, or a tokenizer that adds to a rendered prompt.
    """
    wanted = config.steps * config.prompts
    if len(prompts) != wanted:
        raise ConfigError(
            f"{name} wants steps × prompts = {config.steps} × {config.prompts} = {wanted} prompts and got {len(prompts)}. "
            "Lower loop.*.steps or loop.*.prompts, or give more data."
        )
    first = prompts[0][1]
    if list(job.tokenizer(first)["input_ids"]) != encode_prompt(job.tokenizer, first):
        raise ConfigError(
            f"The tokenizer adds special tokens of its own to a rendered prompt, so that {name} would train on another "
            "context than the scorer scores. Use a tokenizer whose chat template writes all of them (add_bos_token: false)."
        )


def sampling_arguments(job: Job, config: Rewarded, max_new_tokens: int) -> dict[str, Any]:
    """GRPOConfig's arguments for sampling and batches, whatever is then made of the rewards."""
    sampled = config.prompts * config.group
    return shared_arguments(job, config, sampled * config.accumulation // config.pieces) | {
        "num_generations": config.group,
        "steps_per_generation": config.pieces,
        "max_completion_length": max_new_tokens,
        "temperature": config.temperature,
        "beta": config.kl,
        "mask_truncated_completions": False,
        "shuffle_dataset": False,
        "lr_scheduler_type": "constant",
        "disable_dropout": True,
        "log_completions": False,
    }


def prompt_rows(prompts: Sequence[tuple[str, str]]) -> Dataset:
    """(key, rendered prompt) pairs as the rows that TRL samples from."""
    return Dataset.from_dict({"prompt": [text for _, text in prompts], "key": [key for key, _ in prompts]})


def differ(completions: Sequence[Completion], rewards: Sequence[float | None]) -> bool:
    """Whether two completions of one prompt have rewards that differ by more than rounding."""
    groups: dict[str, list[float]] = {}
    for completion, value in zip(completions, rewards, strict=True):
        if value is not None:
            groups.setdefault(completion.key, []).append(value)
    return any(max(values) - min(values) > ROUNDING for values in groups.values())


def end_tokens(job: Job) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's, and those that the model declares."""
    declared = job.model.generation_config.eos_token_id if job.model.generation_config is not None else None
    more = declared if isinstance(declared, list) else [declared]
    return frozenset(token for token in (job.tokenizer.eos_token_id, *more) if token is not None)


def trl_reward(reward: RewardFunction, ends: frozenset[int], updates: int = 1) -> Callable[..., list[float | None]]:
    """TRL's reward signature on ours; a step has so many updates of the optimizer."""

    def total(
        completions: list[str], completion_ids: list[list[int]], key: list[str], trainer_state: Any, **_: Any
    ) -> list[float | None]:
        batch = []
        for name, text, ids in zip(key, completions, completion_ids, strict=True):
            ended = bool(ids) and ids[-1] in ends
            status = "truncated" if not ended else "empty" if blank(text) else "ok"
            batch.append(Completion(name, normalised(text), tuple(ids), status))
        return reward(batch, trainer_state.global_step // updates + 1)

    return total
