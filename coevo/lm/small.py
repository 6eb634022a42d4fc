"""A small base that is made, not downloaded: byte-level BPE and a Qwen3-shaped model, for worlds on a CPU and tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from coevo.errors import ConfigError
from coevo.lm.contexts import seeded
from coevo.lm.lineage import atomic_directory

PAD, END = "<|pad|>", "<|end|>"
MARKERS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|agent|>"}
SPECIAL_TOKENS = (PAD, END, *MARKERS.values())
"""Ids 0 to 4 in this order."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen's pre-tokenisation: GPT-2's word classes with every digit on its own."""

# Two tokens of overhead a message: marker + text + end. The generation tags let trainers mask all but the agent's part.
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- '<|agent|>' -}}{%- generation -%}{{- message.content + '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif message.role in ('system', 'user') -%}"
    "{{- '<|' + message.role + '|>' + message.content + '<|end|>' -}}"
    "{%- else -%}{{- raise_exception('role must be system, user or assistant, not ' + message.role) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|agent|>' -}}{%- endif -%}"
)


class ShapeLike(Protocol):
    """What `build_base` reads of a recipe's base section."""

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""

    @property
    def layers(self) -> int:
        """Decoder layers."""

    @property
    def heads(self) -> int:
        """Query heads, each of hidden / heads dimensions."""

    @property
    def kv_heads(self) -> int:
        """Key and value heads; a divisor of `heads`."""

    @property
    def intermediate(self) -> int:
        """Width of the feed-forward layers."""

    @property
    def max_position(self) -> int:
        """Longest sequence in tokens."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a small base; the defaults give 1.05 M parameters with a vocabulary of 2048."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 384
    max_position: int = 1024
    """Longest sequence in tokens."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a lossless byte-level BPE tokenizer with coevo's terse chat template.

    All 256 bytes are in the vocabulary and nothing is normalised, so any unicode text survives encode and decode.
    The same texts in the same order give the same tokenizer.

    Args:
        texts: training texts; consumed once.
        vocab_size: number of ids in all, the 256 bytes and 5 special tokens included; fewer if the texts run out.

    Raises:
        ConfigError: `vocab_size` has no room for bytes and special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise ConfigError(f"vocab_size is {vocab_size}, expected at least {least} (256 bytes and the special tokens).")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=list(MARKERS.values()),
        chat_template=_CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_base(
    tokenizer: PreTrainedTokenizerBase, shape: ShapeLike | Mapping[str, int], *, seed: int = 0
) -> Qwen3ForCausalLM:
    """Build a Qwen3-shaped model with random float32 weights and tied embeddings; a function of its arguments alone.

    Args:
        tokenizer: gives the vocabulary size and the ids for padding and end of turn.
        shape: the model's size, as `Shape`, any object with its fields, or a mapping.
        seed: of the initial weights.

    Raises:
        ConfigError: heads do not divide the hidden size evenly, or kv_heads do not divide the heads.
    """
    if isinstance(shape, Mapping):
        unknown = sorted(set(shape) - set(asdict(Shape())))
        if unknown:
            raise ConfigError(f"shape has unknown fields {unknown}, expected some of {sorted(asdict(Shape()))}.")
        shape = Shape(**shape)
    if shape.hidden % (2 * shape.heads) or shape.heads % shape.kv_heads:
        raise ConfigError(
            f"hidden {shape.hidden}, heads {shape.heads}, kv_heads {shape.kv_heads}: expected heads to divide hidden "
            "into even parts and kv_heads to divide heads, as in 128, 4, 2."
        )
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=shape.max_position,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with seeded(seed):
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model.float()


def save_base(directory: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a base (safetensors weights, configuration, tokenizer) as one directory, atomically."""
    with atomic_directory(directory) as work:
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
