"""A reward model small enough for a test."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests.compat.families import make_base


def make_reward_model(folder: Path, seed: int = 0) -> Path:
    """A random classifier with one output, and the shipped tokenizer."""
    make_base("llama", folder)
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = 1
    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder
