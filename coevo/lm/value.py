"""The value head of a policy tuned by PPO: one number a token, read off the base's last hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from coevo.errors import CheckpointError
from coevo.lm.lineage import VALUE_HEAD_FILE

NAME = "value_head"
"""The attribute of the base that holds it, and so a part of its parameters' names."""


class ValueHead(nn.Module):
    """Predicts the standardised reward to come; zero, the mean reward, until it has learnt.

    Rewards are tens of nats here and fractions there. So that neither a recipe's learning rate nor its clipping has to know,
    the head predicts (reward - shift) / scale, with the mean and the deviation of the first rewards it was trained on. They
    stay as they are, and are saved with the weights: a target that is rescaled under way is another target.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden))
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("shift", torch.zeros(1))
        self.register_buffer("scale", torch.zeros(1))
        self.shift: torch.Tensor
        self.scale: torch.Tensor
        """0 until two rewards have differed."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values (...) of hidden states (..., H), in the head's own precision."""
        return nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).squeeze(-1)

    def standardise(self, rewards: torch.Tensor, everyone: torch.Tensor) -> torch.Tensor:
        """Rewards in the units that the head predicts; the first that differ among themselves set these.

        Args:
            rewards: (B,) of this process; NaN for what cannot be scored stays NaN.
            everyone: (N,) of all processes, the same on each.
        """
        known = everyone[~everyone.isnan()].double()
        if not self.scale and known.numel() > 1 and known.std(correction=0) > 0:
            self.shift.fill_(known.mean())
            self.scale.fill_(known.std(correction=0))
        if not self.scale:
            return rewards - known.mean()
        return (rewards - self.shift) / self.scale


def value_head(model: nn.Module) -> ValueHead | None:
    """The model's value head, if it has one."""
    found = getattr(unwrapped(model), NAME, None)
    return found if isinstance(found, ValueHead) else None


def add_value_head(model: PreTrainedModel | PeftModel, state: Mapping[str, torch.Tensor] | None = None) -> ValueHead:
    """Puts a frozen value head inside the base, where every wrapper of the model finds its parameters.

    Args:
        model: a policy.
        state: its tensors; None begins at zero.
    """
    head = ValueHead(model.config.get_text_config().hidden_size)
    if state is not None:
        head.load_state_dict(dict(state))
    setattr(unwrapped(model), NAME, head.requires_grad_(False))
    return head


def read_value_head(directory: str | Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a policy directory's value head; None if it has none.

    Raises:
        CheckpointError: the file is no value head.
    """
    path = Path(directory) / VALUE_HEAD_FILE
    if not path.is_file():
        return None
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Restore it, or run its phase again.") from error
    expected = {"weight", "bias", "shift", "scale"}
    if set(state) != expected:
        raise CheckpointError(f"{path}: holds {sorted(state)}, expected {sorted(expected)}. Run its phase again.")
    return state


def belongs_to_head(name: str) -> bool:
    """Whether a parameter or buffer of a policy is its value head's."""
    return f".{NAME}." in f".{name}"


def unwrapped(model: nn.Module) -> nn.Module:
    """The causal model itself, from under an adapter's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
