"""Proximal policy optimisation: TRL's sampling, rewards and reference, with a value head and PPO's two losses.

TRL has no PPO any more. `PPOTrainer` replaces three private methods of its GRPOTrainer, which samples completions, asks for
their rewards, and hands them to the loss in windows; what is between is here and in `coevo.maths.advantages`.

One window is one step of the recipe and has epochs × minibatches updates; a phase is one epoch of windows and checkpoints
fall between them, so that resuming is bit-identical.

Shape suffixes: B completions of this process, T tokens of the longest, N completions of all processes.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import FusedCausalLMOutput

from coevo import dist
from coevo.config.training import PPO
from coevo.errors import CheckpointError
from coevo.lm.lineage import VALUE_HEAD_FILE
from coevo.lm.value import ValueHead, add_value_head, unwrapped, value_head
from coevo.maths.advantages import explained_variance, gae, token_rewards
from coevo.train.common import Hook, Job, run
from coevo.train.grpo import RewardFunction, check_prompts, end_tokens, prompt_rows, sampling_arguments, trl_reward

_EPSILON = 1e-8


def train_ppo(
    job: Job,
    prompts: Sequence[tuple[str, str]],
    reward: RewardFunction,
    config: PPO,
    max_new_tokens: int,
) -> bool:
    """Trains on (key, rendered prompt) pairs in their order, `config.prompts` a step; called as `train_grpo` is.

    The value head that the policy was saved with is trained on, else one that starts at zero; `value_head_restored` in every
    step's metrics says which. It stays on `job.model`, and `save_policy` writes it beside the weights.

    Returns:
        Whether anything was learnt. False if no completion could be scored: the weights are then the parent's.

    Raises:
        CheckpointError: completions were scored and yet no weight changed.
        ConfigError: there are not exactly steps × prompts pairs, which TRL would answer with no step and no error.
    """
    check_prompts(job, prompts, config, "PPO")
    arguments = sampling_arguments(job, config, max_new_tokens)
    arguments |= {
        "max_steps": config.steps * config.updates,
        "num_iterations": config.epochs,
        "logging_steps": config.updates,
        "logging_first_step": False,
        "save_steps": config.save_steps * config.updates,
    }
    signal: list[bool] = []

    def on_step(step: int, metrics: dict[str, float]) -> None:
        signal.append(metrics["scored"] > 0)
        job.on_step(step, metrics)

    trainer = PPOTrainer(
        ppo=config,
        model=job.model,
        reward_funcs=trl_reward(reward, end_tokens(job), config.updates),
        args=GRPOConfig(**arguments),
        train_dataset=prompt_rows(prompts),
        processing_class=job.tokenizer,
        callbacks=[Hook(replace(job, on_step=on_step), config.updates)],
    )
    changed = run(trainer, job)
    if not changed and any(signal):
        raise CheckpointError(
            "Completions were scored and yet PPO changed no weight. See metrics.jsonl for the gradient's norm."
        )
    return changed


def policy_loss(
    logps: torch.Tensor, old_logps: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped surrogate, to be minimised (Schulman et al. 2017, eq. 7), token by token.

    Args:
        logps: (B, T) log π(a_t|s_t) in nats.
        old_logps: (B, T) the same when the tokens were sampled.
        advantages: (B, T).
        clip: ε.

    Returns:
        (B, T) losses -min(ρ A, clip(ρ, 1-ε, 1+ε) A) with ρ = π / π_old, and where the clipped one is in force.
    """
    ratio = torch.exp(logps - old_logps)
    free, held = -ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.maximum(free, held), held > free


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error of a value that may leave its old one by `clip` at most, token by token.

    The clipping of PPO's reference implementation (openai/baselines, ppo2), which the paper does not describe.

    Returns:
        (B, T) losses ½ max((V - G)², (V_old + clip(V - V_old, -ε, ε) - G)²), and where the clipped one is in force.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    free, held = (values - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.maximum(free, held), held > free


@dataclass
class ValuedOutput(FusedCausalLMOutput):
    """TRL's fused output with a value beside every log-probability."""

    # not `values`, which is a method of every output, and which DDP calls
    state_values: torch.Tensor | None = None


def with_values(base: nn.Module, head: ValueHead) -> None:
    """Has the base's fused forward return `state_values` too: of the states in which the tokens were chosen.

    They are made inside the forward, from the hidden states that the output head reads, so that DDP and DeepSpeed see the
    head's parameters used, and no pass is made twice.
    """
    fused = base.forward

    # generate validates its arguments against the signature
    @functools.wraps(type(base).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return fused(*args, **kwargs)
        hidden: list[torch.Tensor] = []
        hook = self.base_model.register_forward_hook(lambda module, given, out: hidden.append(out.last_hidden_state))
        try:
            output = fused(*args, fused_lm_head=True, **kwargs)
        finally:
            hook.remove()
        return ValuedOutput(**output, state_values=head(hidden[0][:, :-1]))

    base.forward = types.MethodType(forward, base)


class PPOTrainer(GRPOTrainer):
    """GRPOTrainer whose advantages come from a value head, token by token, and whose loss trains that head too.

    `beta` only has TRL keep the phase's start as the reference: the divergence from it is part of the reward, not the loss.
    A completion that cannot be scored (reward None) has no part in either loss.
    """

    # transformers admits None and plain modules here, which TRL has ruled out
    model: Any
    args: Any

    def __init__(self, ppo: PPO, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._ppo = ppo
        found = value_head(self.model)
        self._restored = float(found is not None)
        # after TRL's own preparations, which freeze whatever is no adapter
        self._head = (found or add_value_head(self.model)).to(self.accelerator.device).requires_grad_(True)
        with_values(unwrapped(self.model), self._head)
        self._rewards = torch.empty(0)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's (N, 1) rewards of all processes' completions, NaN for what cannot be scored; kept for the advantages."""
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._rewards = rewards[:, 0]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """A window of this process's completions with what the losses need, all of it fixed until the next window."""
        window: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # TRL's own pass gives no values; its log-probabilities are these
        window.pop("old_per_token_logps", None)
        size = self.args.per_device_train_batch_size
        total = len(window["prompt_ids"])
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            parts = [self._read(self.model, window, slice(i, i + size)) for i in range(0, total, size)]
        logps, _, values = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        first = self.accelerator.process_index * total
        mine = self._rewards[first : first + total]
        mask = window["completion_mask"].bool() & ~mine.isnan().unsqueeze(1)
        log_ratio = logps - window["ref_per_token_logps"] if "ref_per_token_logps" in window else torch.zeros_like(logps)
        final = self._head.standardise(mine, self._rewards).nan_to_num()
        window |= {"old_logps": logps, "old_values": values, "scored": mask}
        window |= self._learnable(final, log_ratio, values, mask)
        if "ref_per_token_logps" in window:
            # of KL(π ‖ reference): exp(-x) - 1 + x for the log-ratio x, never negative (Schulman 2020, k3)
            self._log_means(mask, kl=torch.expm1(-log_ratio) + log_ratio)
        self._log("value_head_restored", self._restored)
        self._log("scored", float((~self._rewards.isnan()).float().mean()))
        return window

    def _learnable(
        self, final: torch.Tensor, log_ratio: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Whitened advantages and returns (B, T), and the number of tokens that all processes learn from in one pass."""
        device, kept = values.device, mask.cpu().numpy()
        ends, ratios, predicted = (tensor.double().cpu().numpy() for tensor in (final, log_ratio, values))
        rewards = token_rewards(ends, ratios, kept, self._ppo.kl)
        advantages = gae(rewards, predicted, kept, self._ppo.gamma, self._ppo.lam)
        returns = advantages + predicted
        # everyone's tokens in one array: every process then whitens by the same numbers
        tokens = dist.gather([np.stack([advantages[kept], returns[kept], predicted[kept]])])
        whole = np.concatenate(tokens, axis=1)
        self._log("explained_variance", explained_variance(whole[1], whole[2]))
        if whole.size:
            advantages = np.where(kept, (advantages - whole[0].mean()) / (whole[0].std() + _EPSILON), 0.0)
            self._log("return", float(whole[1].mean()))
        return {
            "advantages": torch.as_tensor(advantages, dtype=torch.float32, device=device),
            "returns": torch.as_tensor(returns, dtype=torch.float32, device=device),
            "n_tokens": torch.tensor(float(max(whole.shape[1], 1)), device=device),
        }

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """PPO's loss of one micro-batch: policy + value_weight × value, over the tokens that are scored.

        It is divided by a minibatch's share of the window's tokens, not by its own, so that accumulation and the number of
        processes change no result. Backpropagation sums micro-batches and averages processes.
        """
        logps, entropy, values = self._read(model, inputs)
        mask = inputs["scored"]
        policy, held = policy_loss(logps, inputs["old_logps"], inputs["advantages"], self._ppo.clip)
        value, value_held = value_loss(values, inputs["old_values"], inputs["returns"], self._ppo.value_clip)
        log_ratio = (logps - inputs["old_logps"]).detach()
        self._log_means(
            mask,
            policy_loss=policy,
            value_loss=value,
            entropy=entropy,
            clip_fraction=held,
            value_clip_fraction=value_held,
            kl_to_sampled=torch.expm1(log_ratio) - log_ratio,
        )
        tokens = inputs["n_tokens"] / (self.accelerator.num_processes * self._ppo.pieces)
        loss = ((policy + self._ppo.value_weight * value) * mask).sum() / tokens
        return loss / self.current_gradient_accumulation_steps

    def _read(
        self, model: nn.Module, rows: dict[str, Any], part: slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities, entropies and values (B, T) of some completions' tokens."""
        prompt, completion = rows["prompt_ids"][part], rows["completion_ids"][part]
        attention = torch.cat([rows["prompt_mask"][part], rows["completion_mask"][part]], dim=1)
        ids = torch.cat([prompt, completion], dim=1)
        labels = ids.masked_fill(attention == 0, -100)
        labels[:, : prompt.size(1)] = -100
        with self.accelerator.autocast():
            output = model(input_ids=ids, attention_mask=attention, labels=labels, fused_lm_head=True)
        keep = completion.size(1)
        return output.log_probs[:, -keep:], output.entropy[:, -keep:], output.state_values[:, -keep:]

    def _log(self, name: str, number: float) -> None:
        self._metrics["train"][name].append(number)

    def _log_means(self, mask: torch.Tensor, **tensors: torch.Tensor) -> None:
        """Logs means over the scored tokens of all processes; nothing where there are none."""
        sums = [(tensor.detach() * mask).sum().float() for tensor in tensors.values()]
        totals = self.accelerator.reduce(torch.stack([*sums, mask.sum().float()]), reduction="sum").tolist()
        for name, total in zip(tensors, totals, strict=False):
            self._log(name, total / totals[-1] if totals[-1] else float("nan"))

    # DeepSpeed's own checkpoints hold every trained parameter; those of an adapter hold the adapter alone

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if output_dir is not None and self.args.should_save and not self.is_deepspeed_enabled:
            save_file(self._head.state_dict(), Path(output_dir) / VALUE_HEAD_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / VALUE_HEAD_FILE
        if path.is_file():
            self._head.load_state_dict(load_file(path))
