"""DPO through TRL: exact spans, the loss's value at the start, the margin's growth, and every loss by name."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from coevo.config.methods import DPO, Preference
from coevo.errors import ConfigError
from coevo.lm.likelihood import encode_pair, encode_response, render
from coevo.lm.loading import new_adapter
from coevo.loop.context import LoRASeeded
from coevo.prompts import SHORT
from coevo.train.dpo import PairRow, train_dpo
from tests.unit.test_train import SCENARIOS, job, model, tokenizer  # noqa: F401


def pairs(tokenizer, count: int = 8) -> list[PairRow]:  # noqa: F811
    rows = []
    for x, other in itertools.pairwise(SCENARIOS[: count + 1]):
        prompt, chosen = encode_pair(tokenizer, render(tokenizer, SHORT.messages("rpm", x)), x.reference)
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
    # a margin of 0.1 has the loss -log sigmoid(0.1) = 0.644
    assert last["rewards/margins"] > 0.1 and last["loss"] < 0.644 and last["rewards/accuracies"] == 1.0


def test_dpo_of_all_weights_is_against_the_weights_it_began_with(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    model.save_pretrained(tmp_path / "start")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32)
    log: list = []
    train_dpo(job(policy, tokenizer, tmp_path, log), pairs(tokenizer, 4), config(tune={"epochs": 3}))
    assert log[0][1]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1][1]["rewards/margins"] > 0.1


def test_every_preference_loss_by_name_trains(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    model.save_pretrained(tmp_path / "start")
    for name in get_args(Preference):
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32)
        policy = new_adapter(base, LoRASeeded(2, 4, 0.0, seed=2))
        log: list = []
        smoothing = {"label_smoothing": 0.1} if name in ("exo_pair", "robust") else {}
        asked = config(loss=name, tune={"batch_size": 2}, **smoothing)
        # train_dpo refuses a training that changes no weight
        train_dpo(job(policy, tokenizer, tmp_path / name, log), pairs(tokenizer, 2), asked)
        assert len(log) == 1 and math.isfinite(log[0][1]["loss"]), name


def test_too_few_pairs_are_an_error_not_zero_steps(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r"2 pairs are fewer than one update's batch_size=4.*method\.margin_nats"):
        train_dpo(job(model, tokenizer, tmp_path), pairs(tokenizer, 2), config())
