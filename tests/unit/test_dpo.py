"""DPO and the losses of GRPO through TRL: exact spans, the loss's value at the start, and a bare trainer's very numbers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from coevo.config import GRPO
from coevo.errors import ConfigError
from coevo.lm.likelihood import encode_pair, encode_response, render
from coevo.lm.loading import new_adapter
from coevo.loop.context import LoRASeeded
from coevo.method import DPO, Preference
from coevo.prompts import messages
from coevo.train.dpo import PairRow, train_dpo
from coevo.train.grpo import LOSSES, train_grpo
from tests.unit.test_train import SCENARIOS, job, model, tokenizer  # noqa: F401


def pairs(tokenizer, count: int = 8) -> list[PairRow]:  # noqa: F811
    rows = []
    for x, other in itertools.pairwise(SCENARIOS[: count + 1]):
        prompt, chosen = encode_pair(tokenizer, render(tokenizer, messages("rpm", x)), x.reference)
        rows.append(PairRow(prompt, chosen, encode_response(tokenizer, other.reference)))
    return rows


def config(**keys) -> DPO:
    tune = {"batch_size": 4, "learning_rate": 5e-3, "warmup": 0.0, "schedule": "constant"} | keys.pop("tune", {})
    return DPO.model_validate({"kind": "dpo", "tune": tune} | keys)


def test_dpo_begins_at_ln_2_and_widens_the_margin(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    policy = new_adapter(model, LoRASeeded(8, 16, 0.0, seed=2))
    log: list = []
    train_dpo(job(policy, tokenizer, tmp_path, log), pairs(tokenizer), config(tune={"epochs": 6}))
    first, last = log[0][1], log[-1][1]
    assert len(log) == 12, "8 pairs × 6 epochs in batches of 4"
    # the policy is its reference: both log ratios are 0, and -log sigmoid(0) = ln 2
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert last["rewards/margins"] > 0.5 and last["rewards/accuracies"] == 1.0


def test_dpo_of_all_weights_is_against_the_weights_it_began_with(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    model.save_pretrained(tmp_path / "start")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32)
    log: list = []
    train_dpo(job(policy, tokenizer, tmp_path, log), pairs(tokenizer, 4), config(tune={"epochs": 3}))
    assert log[0][1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1][1]["rewards/margins"] > 0.1


def test_every_preference_loss_by_name_trains(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    policy = new_adapter(model, LoRASeeded(2, 4, 0.0, seed=2))
    start = {name: p.clone() for name, p in policy.state_dict().items()}
    for name in get_args(Preference):
        policy.load_state_dict(start, strict=False)
        log: list = []
        smoothing = {"label_smoothing": 0.1} if name in ("exo_pair", "robust") else {}
        asked = config(loss=name, tune={"batch_size": 2}, **smoothing)
        # train_dpo refuses a training that changes no weight
        train_dpo(job(policy, tokenizer, tmp_path / name, log), pairs(tokenizer, 2), asked)
        assert len(log) == 1 and math.isfinite(log[0][1]["loss"]), name


def test_too_few_pairs_are_an_error_not_zero_steps(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r"2 pairs are fewer than one update's batch_size=4.*method\.margin_nats"):
        train_dpo(job(model, tokenizer, tmp_path), pairs(tokenizer, 2), config())


# --- GRPO -------------------------------------------------------------------------------------------------------------

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
    return [(f"{x.sample_id}#{place}", render(tokenizer, messages("rpm", x))) for place, x in enumerate(chosen)]


class Log(TrainerCallback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.rows.append(dict(logs))


def test_grpo_is_bare_trl_step_by_step(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
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
