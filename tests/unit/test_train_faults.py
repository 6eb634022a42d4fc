"""A training that must not go on: numbers that are none, and a request to stop; and what a base may not decide."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from coevo import cli, stop
from coevo.config import GRPO, SFT
from coevo.config.load import load_recipe
from coevo.config.training import PPO
from coevo.errors import TrainingError
from coevo.lm.likelihood import render
from coevo.lm.lineage import tensors_hash
from coevo.lm.loading import new_adapter, stored_dtype
from coevo.lm.small import Shape, build_base, save_base
from coevo.loop.context import Context, LoRASeeded
from coevo.loop.phases import no_extra
from coevo.progress import Silent
from coevo.prompts import SHORT
from coevo.runs.folder import RunFolder
from coevo.train.algorithms import TRAINERS
from coevo.train.checkpoints import COMPLETE
from coevo.train.dpo import train_dpo
from coevo.train.sft import train_sft
from tests.unit.test_dpo import config as dpo
from tests.unit.test_dpo import pairs
from tests.unit.test_train import SCENARIOS, job, model, rows, tokenizer  # noqa: F401

SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
SAMPLED = {
    "grpo": GRPO(steps=2, prompts=2, group=2, kl=0.0, learning_rate=1e-3, save_steps=1),
    "ppo": PPO(
        algorithm="ppo", steps=2, prompts=2, group=2, kl=0.0, learning_rate=1e-3, save_steps=1, minibatches=2, epochs=1
    ),
}


def fresh(tokenizer):  # noqa: F811
    """The same policy each time: a trainer leaves its wrappers on the one it has trained."""
    return build_base(tokenizer, Shape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64), seed=1)


def overflowing(base):
    """A policy on a base in float16 whose activations are beyond 65,504, as those of bases made for bfloat16 may be."""
    with torch.no_grad():
        for layer in base.model.layers:
            layer.post_attention_layernorm.weight.fill_(6e4)
    return new_adapter(base.half(), LoRASeeded(4, 8, 0.0, seed=2))


def sampled(name, task, tokenizer, seen: list | None = None, stop_at: int | None = None):  # noqa: F811
    """Trains by an algorithm with rewards on whatever it samples."""
    prompts = [(x.sample_id, render(tokenizer, SHORT.messages("rpm", x))) for x in SCENARIOS[:4]]

    def reward(completions, step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        if seen is not None:
            seen.extend((step, c.tokens) for c in completions)
        return [float(sum(c.tokens) % 7) for c in completions]

    return TRAINERS[name](task, prompts, reward, SAMPLED[name], 8)


@pytest.mark.parametrize("way", ["sft", "dpo", "grpo"])
def test_a_base_that_overflows_ends_the_phase(way, model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    log: list = []
    task = replace(job(overflowing(model), tokenizer, tmp_path, log), phase="06-rpm-1")
    with pytest.raises(
        TrainingError, match=r"phase 06-rpm-1, step 1: .*float16.*base\.dtype to bfloat16 or float32"
    ) as caught:
        if way == "sft":
            train_sft(task, rows(tokenizer), SFT(batch_size=8))
        elif way == "dpo":
            train_dpo(task, pairs(tokenizer), dpo())
        else:
            sampled(way, task, tokenizer)
    assert ("loss is nan" if way in ("sft", "dpo") else "probabilities") in str(caught.value)
    assert not log and not list(tmp_path.glob("checkpoints/*")), "nothing of that step is kept"


def test_a_learning_rate_that_leaves_all_numbers_keeps_the_checkpoints_before(tokenizer, tmp_path: Path) -> None:  # noqa: F811
    # the first update is of finite gradients and so finite itself; the loss after it is not
    config = SFT(batch_size=8, learning_rate=1e37, schedule="constant", warmup=0.0, save_steps=1)
    for resume in (False, True):
        with pytest.raises(TrainingError, match=r"step 2: the (loss|gradient's norm) is (nan|inf).*float32.*learning_rate"):
            train_sft(job(fresh(tokenizer), tokenizer, tmp_path, resume=resume), rows(tokenizer), config)
        assert [path.parent.name for path in tmp_path.glob(f"checkpoints/*/{COMPLETE}")] == ["checkpoint-1"]


def test_weights_that_are_not_finite_are_never_saved(model, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    # loss and gradient are numbers and the update is none: Adam's first one has the learning rate's size
    config = SFT(batch_size=24, learning_rate=1e39, schedule="constant", warmup=0.0)
    with pytest.raises(TrainingError, match="step 1: the weight .* holds numbers that are not finite"):
        train_sft(job(model, tokenizer, tmp_path), rows(tokenizer), config)
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.parametrize("name", list(TRAINERS))
def test_the_recipe_alone_says_how_a_trainer_samples(name, tokenizer, tmp_path: Path) -> None:  # noqa: F811
    asked = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        min_new_tokens=8,
        min_p=0.9,
        no_repeat_ngram_size=1,
        suppress_tokens=list(range(5, 400)),
        repetition_penalty=5.0,
        top_k=2,
        forced_eos_token_id=450,
    )
    seen: list[list] = []
    for wanted in (GenerationConfig(eos_token_id=tokenizer.eos_token_id), asked):
        base = fresh(tokenizer)
        base.generation_config = wanted
        policy = new_adapter(base, LoRASeeded(4, 8, 0.0, seed=2))
        seen.append([])
        torch.manual_seed(0)
        sampled(name, job(policy, tokenizer, tmp_path / str(len(seen))), tokenizer, seen[-1])
        assert base.generation_config is wanted
    assert len(seen[0]) == 8 and seen[0] == seen[1]


def test_asked_to_stop_a_phase_ends_between_windows_and_goes_on_as_if_it_had_not(tokenizer, tmp_path: Path) -> None:  # noqa: F811
    def run(folder: Path, resume: bool = False, stop_at: int | None = None) -> tuple[str, list]:
        policy = fresh(tokenizer)
        log: list = []
        task = replace(job(policy, tokenizer, folder, log, resume), phase="06-rpm-1")
        sampled("ppo", task, tokenizer, stop_at=stop_at)
        return tensors_hash(policy), [(step, metrics["loss"]) for step, metrics in log]

    whole, steps = run(tmp_path / "whole")
    # asked twice, by Slurm and by the launcher, while step 1's completions are rewarded: before the first of its two updates
    with stop.listening(), pytest.raises(stop.Stopped, match=r"Phase 06-rpm-1 has a checkpoint of its step 1\."):
        run(tmp_path / "run", stop_at=1)
    again, rest = run(tmp_path / "run", resume=True)
    assert again == whole and rest == steps[1:] != []


def test_outside_a_training_a_stop_is_at_once() -> None:
    with stop.listening():
        with pytest.raises(stop.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        # swallowed by somebody, it is kept at the next place that asks
        with pytest.raises(stop.Stopped):
            stop.obey()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_before_a_run_a_stop_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, ask = (
        ["train", str(SMOKE), "--out", str(tmp_path / "run")],
        lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM),
    )
    monkeypatch.setattr("coevo.loop.run.load_material", ask)
    assert cli.main(arguments) == 143
    assert capsys.readouterr().err == "\ncoevo: stopped by SIGTERM. Nothing had been written.\n"
    monkeypatch.setattr("coevo.cli.train.recipe_and_folder", ask)
    assert cli.main(arguments) == 143
    assert "stopped by SIGTERM. No phase was under way." in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_weights_in_bfloat16_are_trained_in_float32(tokenizer, tmp_path: Path) -> None:  # noqa: F811
    save_base(tmp_path / "base", fresh(tokenizer).bfloat16(), tokenizer)
    recipe = load_recipe(SMOKE, [f"base={{kind: hub, path: {tmp_path / 'base'}, dtype: auto}}", "lora=null"])
    phase: Any = SimpleNamespace(name="01-sft-rpm", role="rpm", iteration=None)
    context = Context(recipe, RunFolder(tmp_path), None, [phase], Silent())  # type: ignore[arg-type]
    policy = context.load(None, trainable=True)
    task = context.job(phase, policy, False, no_extra)
    assert context.dtype == stored_dtype(tmp_path / "base") == torch.bfloat16 and task.bf16
    train_sft(task, rows(tokenizer), SFT(batch_size=12, learning_rate=1e-5, schedule="constant", warmup=0.0))
    context.save(phase, policy, None)
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "base", context.folder.policy(phase.name))
    )
    moved = sum(int((tensor.float() != before[name].float()).sum()) for name, tensor in after.items())
    # each weight has a gradient, the embeddings as the output head: in bfloat16 one in forty would have moved
    assert moved / sum(tensor.numel() for tensor in after.values()) > 0.99
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    # what is frozen computes in the base's dtype, and the next phase goes on from every digit
    assert context.load(phase.name, trainable=False).dtype == torch.bfloat16
    assert all(torch.equal(p, after[name]) for name, p in context.load(phase.name, trainable=True).named_parameters())
