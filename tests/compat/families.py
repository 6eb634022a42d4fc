"""Small random bases of the families that people use, each with the tokenizer that coevo ships."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))
VOCABULARY = 4096
"""Ids of the shipped tokenizer: 0 pads, 1 ends a turn."""

_COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "dtype": "float32"}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_LLAMA},
    "mistral": {"model_type": "mistral", **_LLAMA, "head_dim": 8, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", **_LLAMA, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_LLAMA, "head_dim": 8, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", **_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"model_type": "gemma3_text", **_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8},
    "phi3": {"model_type": "phi3", **_LLAMA, "original_max_position_embeddings": 1024},
    "gpt_neox": {
        "model_type": "gpt_neox",
        **{key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"},
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},
    "gemma": {"model_type": "gemma", **_LLAMA, "head_dim": 8},
    "smollm3": {"model_type": "smollm3", **_LLAMA},
    "granite": {"model_type": "granite", **_LLAMA},
    "olmo2": {"model_type": "olmo2", **_LLAMA},
    "starcoder2": {"model_type": "starcoder2", **_LLAMA},
    "mixtral": {"model_type": "mixtral", **_LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": None},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **_LLAMA,
        **{"head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
    },
    "falcon": {
        "model_type": "falcon",
        **{
            key: _LLAMA[key]
            for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
        },
    },
}
"""What makes a base of each family: its `model_type` in transformers and its smallest useful size."""


def make_base(family: str, folder: Path, chat_template: str | None = None, **config_overrides: Any) -> Path:
    """Writes a random base of a family into a new folder; equal arguments give equal weights.

    Args:
        family: a key of `FAMILIES`, or another model_type of transformers with its sizes as overrides.
        folder: where to; made if it is not there.
        chat_template: in the shipped tokenizer's marks; None keeps the shipped one.
        config_overrides: fields of the model's configuration, such as `max_position_embeddings=64`.

    Returns:
        The folder.
    """
    settings = {**_COMMON, **FAMILIES.get(family, {"model_type": family}), **config_overrides}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    if chat_template is None:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(BUILTIN / name, folder / name)
        return folder
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder
