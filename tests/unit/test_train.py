"""What the trainers see is what the scorer sees, and no setting changes what is learnt without being asked to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from coevo.config import GRPO, SFT, LoRA
from coevo.data import world
from coevo.errors import CheckpointError, ConfigError
from coevo.lm.contexts import release_memory
from coevo.lm.likelihood import encode_pair, encode_prompt, render
from coevo.lm.loading import new_adapter
from coevo.lm.small import Shape, build_base, train_tokenizer
from coevo.loop.context import LoRASeeded
from coevo.prompts import SHORT
from coevo.train.checkpoints import last_checkpoint, seal
from coevo.train.common import Job, completions_only_head
from coevo.train.grpo import Completion, differ, train_grpo
from coevo.train.sft import train_sft

SCENARIOS = world.generate("ShiftTrain", 24, seed=5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([t.text for x in SCENARIOS for t in x.dialogue] + [x.reference for x in SCENARIOS], 500)


@pytest.fixture
def model(tokenizer):
    return build_base(tokenizer, Shape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64), seed=1)


def job(model, tokenizer, folder: Path, log: list | None = None, resume: bool = False) -> Job:
    def on_step(step: int, metrics: dict[str, float]) -> None:
        if log is not None:
            log.append((step, metrics))

    return Job(model, tokenizer, folder / "checkpoints", seed=3, resume=resume, on_step=on_step)


def rows(tokenizer):
    return [encode_pair(tokenizer, render(tokenizer, SHORT.messages("rpm", x)), x.reference) for x in SCENARIOS]


def test_skipping_the_prompts_positions_changes_no_gradient(model, tokenizer) -> None:
    # log-probabilities of masked positions are multiplied by zero, so leaving them out is the same sum
    prompt, response = rows(tokenizer)[0]
    ids = torch.tensor([prompt + response])
    labels = torch.tensor([[-100] * len(prompt) + response])
    add_fused_lm_head(model)
    found = []
    for compact in (False, True):
        model.zero_grad()
        if compact:
            with completions_only_head():
                loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
                loss.backward()
        else:
            loss = model(input_ids=ids, labels=labels, fused_lm_head=True).loss
            loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_sft_lowers_the_loss_of_responses(model, tokenizer, tmp_path: Path) -> None:
    log: list = []
    train_sft(job(model, tokenizer, tmp_path, log), rows(tokenizer) * 4, SFT(batch_size=8, learning_rate=5e-3))
    losses = [metrics["loss"] for _, metrics in log]
    assert [step for step, _ in log] == list(range(1, 13))  # 24 × 4 rows in batches of 8
    assert losses[-1] < losses[0] - 0.5


def test_accumulation_gives_the_same_trajectory(model, tokenizer, tmp_path: Path) -> None:
    # one batch of 8 and two of 4 have the same gradient, since the loss is a mean over the update's tokens
    state = {k: v.clone() for k, v in model.state_dict().items()}
    losses = []
    for accumulation in (1, 2):
        model.load_state_dict(state)
        log: list = []
        config = SFT(batch_size=8, accumulation=accumulation, learning_rate=1e-3)
        train_sft(job(model, tokenizer, tmp_path / str(accumulation), log), rows(tokenizer), config)
        losses.append([metrics["loss"] for _, metrics in log])
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_too_few_rows_are_an_error_not_zero_steps(model, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="24 training rows are fewer than one update's batch_size=32"):
        train_sft(job(model, tokenizer, tmp_path), rows(tokenizer), SFT(batch_size=32))
    with pytest.raises(ConfigError, match=r"steps × prompts = 3 × 4 = 12 prompts and got 5"):
        train_grpo(job(model, tokenizer, tmp_path), [("a", "b")] * 5, lambda c, s: [], GRPO(steps=3, prompts=4), 8)


def test_a_frozen_model_is_refused(model, tokenizer, tmp_path: Path) -> None:
    model.requires_grad_(False)
    with pytest.raises(CheckpointError, match="trainable set is empty"):
        train_sft(job(model, tokenizer, tmp_path), rows(tokenizer), SFT(batch_size=8))


def test_an_unfinished_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    for step, whole in ((2, True), (4, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            seal(tmp_path / f"checkpoint-{step}", step)
    assert last_checkpoint(tmp_path).checkpoint == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-4").exists()


def test_grpo_sees_the_prompt_that_the_scorer_scores_and_starts_without_kl(model, tokenizer, tmp_path: Path) -> None:
    policy = new_adapter(model, LoRASeeded(4, 8, 0.0, seed=2))
    prompts = [(x.sample_id, render(tokenizer, SHORT.messages("rpm", x))) for x in SCENARIOS[:4]]
    seen: list[list[Completion]] = []
    log: list = []

    def reward(completions, step):
        assert step == len(seen) + 1
        seen.append(list(completions))
        return [float(c.tokens[0] % 7) for c in completions]  # differs within a group, so that there is something to learn

    config = GRPO(steps=2, prompts=2, group=3, kl=0.1, learning_rate=1e-3, save_steps=1)
    train_grpo(job(policy, tokenizer, tmp_path, log), prompts, reward, config, 8)
    assert [c.key for c in seen[0]] == [prompts[0][0]] * 3 + [prompts[1][0]] * 3
    assert [c.key for c in seen[1]] == [prompts[2][0]] * 3 + [prompts[3][0]] * 3
    # TRL tokenises the rendered prompt itself; it must find the very ids that are scored
    assert [tokenizer(text)["input_ids"] for _, text in prompts] == [encode_prompt(tokenizer, t) for _, t in prompts]
    # the reference is the phase's start, so the first step has no divergence from it
    assert log[0][1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert all(0 < len(c.tokens) <= 8 for c in seen[0])
    assert {c.status for c in seen[0]} <= {"ok", "truncated", "empty"}


def test_lora_defaults_name_a_shape() -> None:
    assert LoRA().alpha == 2 * LoRA().r


def test_equal_rewards_teach_nothing_and_say_so(model, tokenizer, tmp_path: Path) -> None:
    policy = new_adapter(model, LoRASeeded(4, 8, 0.0, seed=2))
    before = {name: p.clone() for name, p in policy.named_parameters() if p.requires_grad}
    prompts = [(x.sample_id, render(tokenizer, SHORT.messages("rpm", x))) for x in SCENARIOS[:2]]
    config = GRPO(steps=1, prompts=2, group=2, save_steps=1)
    learnt = train_grpo(job(policy, tokenizer, tmp_path), prompts, lambda c, step: [1.0] * len(c), config, 8)
    assert learnt is False
    # advantages are rewards less their group's mean, all 0, and the divergence from the start has no gradient there
    assert all(torch.equal(before[name], p) for name, p in policy.named_parameters() if name in before)


def test_rewards_that_differ_by_rounding_alone_are_the_same() -> None:
    # a batch of another shape moves a sum of logarithms in its last digits; another prompt's reward does not count
    a, b, other = (Completion(key, "y", (5,), "ok") for key in ("x", "x", "other"))
    assert not differ([a, b, other], [1.0, 1.0 + 1e-6, 7.0])
    assert not differ([a, b], [1.0, None])
    assert differ([a, b, other], [1.0, 1.1, None])


def test_what_a_phase_held_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    # many blocks below glibc's threshold for maps of their own, with one that stays on top of them
    blocks = [torch.ones(24_000) for _ in range(4000)]
    kept = torch.ones(24_000)
    full = resident()
    del blocks
    release_memory()
    assert full - resident() > 200e6 and kept.sum() == 24_000
