"""PPO's losses in closed form, what its value head predicts in, and that what cannot be scored teaches nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from coevo.config import Loop
from coevo.config.training import PPO
from coevo.errors import ConfigError
from coevo.lm.lineage import VALUE_HEAD_FILE, read_lineage, tensors_hash
from coevo.lm.loading import load_policy
from coevo.lm.value import ValueHead, value_head
from coevo.train.algorithms import TRAINERS
from coevo.train.ppo import policy_loss, value_loss
from tests.helpers.bandit import SETTING, Bandit, letter_base

NAN = math.nan


def test_every_algorithm_of_a_recipe_has_a_trainer_and_no_trainer_is_without_one() -> None:
    for block in ("simulator", "rpm"):
        union = get_args(Loop.model_fields[block].annotation)
        named = [get_args(get_args(member)[0].model_fields["algorithm"].annotation) for member in union]
        assert {name for names in named for name in names} == set(TRAINERS), block


def test_the_policys_loss_is_the_clipped_surrogate() -> None:
    # ratios 1½ and ½, each with both signs of A, at ε = 0.2:
    #   1½, A = 2:  min(3, 1.2·2) = 2.4, held     1½, A = -2: min(-3, -2.4) = -3, free
    #   ½,  A = 1:  min(½, 0.8) = ½, free         ½,  A = -1: min(-½, -0.8) = -0.8, held
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
    losses, held = policy_loss(ratio.log(), torch.zeros(1, 4), torch.tensor([[2.0, -2.0, 1.0, -1.0]]), clip=0.2)
    torch.testing.assert_close(losses, torch.tensor([[-2.4, 3.0, -0.5, 0.8]]))
    assert held.tolist() == [[True, False, False, True]]


def test_the_values_loss_is_clipped_about_the_old_value() -> None:
    # old value 0, value 1, so that the clipped one is 0.2. Return 2: ½ max(1, 1.8²) = 1.62, held.
    # Return -1: ½ max(4, 1.44) = 2, free: it may always come back
    losses, held = value_loss(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([[2.0, -1.0]]), clip=0.2)
    torch.testing.assert_close(losses, torch.tensor([[1.62, 2.0]]))
    assert held.tolist() == [[True, False]]


def test_a_held_token_gets_no_gradient() -> None:
    logps = torch.log(torch.tensor([1.5, 1.1])).requires_grad_()
    losses, _ = policy_loss(logps, torch.zeros(2), torch.ones(2), clip=0.2)
    losses.sum().backward()
    # d(-ρ A)/d log ρ = -ρ where it is free
    torch.testing.assert_close(logps.grad, torch.tensor([0.0, -1.1]))


def test_the_first_rewards_that_differ_set_the_heads_units() -> None:
    head = ValueHead(4)
    same = torch.tensor([7.0, NAN, 7.0])
    assert head.standardise(same, same).nan_to_num(nan=-9).tolist() == [0, -9, 0] and not head.scale
    # mean 4 and deviation 2 of all processes' rewards, whatever this one has
    everyone = torch.tensor([2.0, 6.0, NAN, 2.0, 6.0])
    torch.testing.assert_close(head.standardise(torch.tensor([6.0]), everyone), torch.tensor([1.0]))
    later = torch.tensor([100.0, 200.0])
    torch.testing.assert_close(head.standardise(later, later), torch.tensor([48.0, 98.0]))
    assert head(torch.randn(2, 3, 4)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_base(tmp_path_factory.mktemp("bandit"), updates=2)


def settings(**keys: float) -> PPO:
    return PPO(**(SETTING | {"steps": 2, "prompts": 2, "group": 4, "epochs": 2, "minibatches": 2, "kl": 0.1} | keys))


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_a_phase_begins_at_its_reference_and_hands_its_value_head_on(base: Path, tmp_path: Path, lora: bool) -> None:
    first = Bandit(base, tmp_path / "1", lora, settings())
    assert first.train()
    # one row a step, although a step has 2 × 2 updates
    assert [step for step, _ in first.log] == [1, 2]
    start = first.log[0][1]
    assert start["kl"] == pytest.approx(0, abs=1e-6) and start["value_head_restored"] == 0 and start["scored"] == 1
    assert {"value_loss", "explained_variance", "clip_fraction", "entropy", "kl_to_sampled"} <= start.keys()
    policy = tmp_path / "1" / "policy"
    assert (policy / VALUE_HEAD_FILE).is_file()

    second = Bandit(base, tmp_path / "2", lora, settings(steps=1), parent=policy)
    before = load_policy(base, policy, trainable=True)
    assert second.train()
    assert second.log[0][1]["value_head_restored"] == 1
    assert second.log[0][1]["kl"] == pytest.approx(0, abs=1e-6), "the reference is this phase's start"
    assert read_lineage(tmp_path / "2" / "policy").parent == read_lineage(policy).sha256
    old, new = value_head(before), value_head(load_policy(base, tmp_path / "2" / "policy", trainable=True))
    assert old is not None and new is not None
    assert torch.equal(old.scale, new.scale) and old.scale > 0, "the units are those of the first phase"
    assert not torch.equal(old.weight, new.weight)


def test_what_cannot_be_scored_teaches_nothing(base: Path, tmp_path: Path) -> None:
    nothing = Bandit(base, tmp_path / "run", False, settings(steps=1), scores=lambda text: False)
    assert nothing.train() is False
    assert nothing.log[0][1]["scored"] == 0
    trained, untrained = (
        load_policy(base, tmp_path / "run" / "policy", trainable=False),
        load_policy(base, None, trainable=False),
    )
    assert tensors_hash(trained) == tensors_hash(untrained)


def test_prompts_that_do_not_fill_the_steps_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"PPO wants steps × prompts = 2 × 2 = 4 prompts and got 3"):
        Bandit(base, tmp_path, False, settings(), missing=1).train()
