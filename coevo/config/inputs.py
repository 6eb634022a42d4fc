"""Blocks of a recipe that say what a run begins with: its data, and the base model. Without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from coevo.config.training import Model, Positive
from coevo.prompts import FIELDS, SHORT, replaced

LEAST_VOCAB = 261
"""A byte-level tokenizer has the 256 bytes and 5 special tokens."""


class WorldData(Model):
    """The world of method section 7: scenarios made on the spot, with exact references for any shifted query."""

    kind: Literal["world"] = "world"
    reference: Literal["oracle"] = "oracle"
    """Where y* of a generated scenario comes from: the world knows it."""
    train: Positive = 2000
    """IDTrain samples: what the RPM is tuned on."""
    dev: Positive = 96
    """IDTrain samples held out of training, on which a new RPM is accepted or refused."""
    shift_train: Positive = 8000
    """Samples of all subsets, disjoint from the tests, for scorer and simulator."""
    test: Positive = 100
    """Samples per test subset (IDTest and the eleven shifted tags)."""


class FileData(Model):
    """A file in the RPGBench layout; shifted scenarios carry their parent's reference."""

    kind: Literal["file"]
    path: Path
    reference: Literal["carry"]
    """A shift that keeps the meaning keeps the reference. Named, because there is no silent default."""
    train_split: str = "IDTrain"
    dev: Positive = 64
    test_splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test")
    test: Positive | None = None
    """At most so many samples per test subset; None takes all."""
    allow_overlap: bool = False
    """Trains although samples of the training split are copies of tests, whose numbers are then of memory."""

    @model_validator(mode="after")
    def _tests_are_not_trained_on(self) -> FileData:
        if self.train_split in self.test_splits:
            raise ValueError(f"test_splits holds the train_split {self.train_split!r}: nothing tested may be trained on")
        return self


class SmallBase(Model):
    """The small Qwen3-shaped base. `path: null` with a `pretrain` phase trains one on the spot."""

    kind: Literal["small"] = "small"
    path: Annotated[str, Field(min_length=1)] | None = "builtin"
    """`builtin` is the one that ships with coevo; null builds tokenizer and weights from the recipe's data."""
    vocab: Positive = 4096
    hidden: Positive = 128
    layers: Positive = 4
    heads: Positive = 4
    kv_heads: Positive = 2
    intermediate: Positive = 384
    max_position: Positive = 1024

    @model_validator(mode="after")
    def _can_be_built(self) -> SmallBase:
        if self.hidden % (2 * self.heads) or self.heads % self.kv_heads:
            raise ValueError(
                f"hidden={self.hidden}, heads={self.heads}, kv_heads={self.kv_heads}: expected heads to divide hidden "
                "into even parts and kv_heads to divide heads, as in 128, 4, 2"
            )
        if self.vocab < LEAST_VOCAB:
            raise ValueError(f"vocab={self.vocab}: expected at least {LEAST_VOCAB}, the bytes and the special tokens")
        return self


Text = Annotated[str, Field(min_length=1)]


class PromptTexts(Model):
    """Prompts in place of coevo's. `prompts: FOLDER` is short for the texts of its files, `rpm.j2` and so on."""

    set: Literal["short", "instruct"] | None = None
    """Which of coevo's are used where no text is given: null is `short` for a small base and `instruct` for a hub's."""
    rpm: Text | None = None
    """Jinja: persona, character. What the RPM reads before the dialogue, and the scorer too."""
    thinker: Text | None = None
    """Persona, character: the same for an RPM that thinks first."""
    scorer: Text | None = None
    """Reasoning: the message that shows it to the scorer."""
    simulator: Text | None = None
    """Persona, character, draft, turns; without turns, these follow as messages, the model in the user's seat."""
    reasoner: Text | None = None
    """Persona, character, turns."""
    agreement: Text | None = None
    """Reasoning, candidate."""
    rewrite: Text | None = None
    """Way, text, speaker, persona, language: what asks a model for copies of the data."""

    @model_validator(mode="after")
    def _can_be_rendered(self) -> PromptTexts:
        replaced(SHORT, self.texts)
        return self

    @property
    def texts(self) -> dict[str, str]:
        """Those that are given, by name."""
        return {name: text for name in FIELDS if (text := getattr(self, name)) is not None}


class ScorerModel(Model):
    """Whose likelihoods reward and evaluate. `scorer: zero_shot` is short for the kind alone."""

    kind: Literal["tuned", "zero_shot"] = "tuned"
    """`tuned` trains one on the base, by `scorer_sft`; `zero_shot` takes a pretrained model as it is."""
    base: Text | None = None
    """Of `zero_shot`: a model of its own, by hub id or local folder, perhaps larger than the RPM's; null is the base."""

    @model_validator(mode="after")
    def _is_its_own(self) -> ScorerModel:
        if self.base is not None and self.kind == "tuned":
            raise ValueError(f"base={self.base!r} goes with kind zero_shot; a tuned scorer is trained on the recipe's base")
        return self


class HubBase(Model):
    """Any causal language model with a chat template, by hub id or local folder (safetensors)."""

    kind: Literal["hub"]
    path: Annotated[str, Field(min_length=1)]
    dtype: Literal["auto", "bfloat16", "float32"] = "bfloat16"
    template: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further arguments of the base's chat template, as its authors name them: `{enable_thinking: false}`."""
    gradient_checkpointing: bool = True
    """Computes activations again in the backward pass: less memory, and a third more of a training step's arithmetic."""
