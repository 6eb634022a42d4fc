"""GRPO through coevo and through a bare TRL trainer: the very same numbers, and every loss by name."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from coevo.config import GRPO
from coevo.lm import generation
from coevo.lm.likelihood import render
from coevo.lm.loading import new_adapter
from coevo.loop.context import LoRASeeded
from coevo.prompts import SHORT
from coevo.train.grpo import LOSSES, train_grpo
from tests.unit.test_train import SCENARIOS, job, model, tokenizer  # noqa: F401

STEPS, PROMPTS, GROUP, TOKENS = 20, 2, 4, 6
COMPARED = ("loss", "reward", "kl", "grad_norm", "entropy", "completions/mean_length")


def rewarded(ids: list[int]) -> float:
    return float(sum(ids) % 7)


def start(tokenizer, folder: Path):  # noqa: F811
    """The same policy each time, from the same file."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return new_adapter(base, LoRASeeded(4, 8, 0.0, seed=2))


def grpo_prompts(tokenizer) -> list[tuple[str, str]]:  # noqa: F811
    chosen = (SCENARIOS * 2)[: STEPS * PROMPTS]
    return [(f"{x.sample_id}#{place}", render(tokenizer, SHORT.messages("rpm", x))) for place, x in enumerate(chosen)]


class Log(TrainerCallback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.rows.append(dict(logs))


def test_grpo_is_bare_trl_step_by_step(model, tokenizer, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(generation, "SPARED_FLOPS", 0.0)  # a group's prompt is read once, and TRL reads it for each
    model.save_pretrained(tmp_path / "base")
    prompts = grpo_prompts(tokenizer)
    ours: list = []
    asked = GRPO(steps=STEPS, prompts=PROMPTS, group=GROUP, learning_rate=1e-3, kl=0.05)
    reward = lambda completions, step: [rewarded(list(c.tokens)) for c in completions]  # noqa: E731
    train_grpo(job(start(tokenizer, tmp_path / "base"), tokenizer, tmp_path, ours), prompts, reward, asked, TOKENS)
    bare = Log()
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "bare"),
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        max_steps=STEPS,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        beta=0.05,
        loss_type="dr_grpo",
        scale_rewards="batch",
        shuffle_dataset=False,
        disable_dropout=True,
        seed=3,
        data_seed=3,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    GRPOTrainer(
        model=start(tokenizer, tmp_path / "base"),
        reward_funcs=lambda completion_ids, **_: [rewarded(ids) for ids in completion_ids],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [text for _, text in prompts]}),
        processing_class=tokenizer,
        callbacks=[bare],
    ).train()
    assert len(bare.rows) == len(ours) == STEPS
    for (step, mine), theirs in zip(ours, bare.rows, strict=True):
        assert {name: mine[name] for name in COMPARED} == {name: theirs[name] for name in COMPARED}, step
    assert len({row["loss"] for row in bare.rows}) > STEPS / 2, "the losses are numbers that could have differed"


def test_every_loss_by_name_trains(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    model.save_pretrained(tmp_path / "base")
    prompts = grpo_prompts(tokenizer)[:2]
    for name in LOSSES:
        log: list = []
        asked = GRPO(steps=1, prompts=2, group=2, kl=0.0, loss=name)  # type: ignore[arg-type]
        reward = lambda completions, step: [rewarded(list(c.tokens)) for c in completions]  # noqa: E731
        learnt = train_grpo(
            job(start(tokenizer, tmp_path / "base"), tokenizer, tmp_path / name, log), prompts, reward, asked, 4
        )
        assert learnt and math.isfinite(log[0][1]["loss"]), name
