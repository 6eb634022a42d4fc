"""A first recipe for a team's own data and base: sizes read off the data, the base and the machine, each with its reason."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.data.rpgbench import load
from coevo.errors import ConfigError, DataError
from coevo.lm.likelihood import encode_prompt, encode_response, render
from coevo.lm.loading import load_tokenizer, local_directory
from coevo.prompts import INSTRUCT
from coevo.text import folded
from coevo.types import Scenario

LEAST_TRAIN = 24
"""Training scenarios below which no recipe is written: R6 and its audit need some held out, and SFT some to learn from."""
SHIFT = "Have training and test splits made: coevo data shift {} --out FILE"
MEASURED = 400
"""Scenarios whose lengths in tokens are measured."""
COVERED = 0.95
"""Share of prompts and responses that the limits hold."""


@dataclass(frozen=True)
class Machine:
    """What there is to run on."""

    gpu_gib: float | None
    """Memory of the first GPU; None without one."""
    cores: int

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        import torch

        memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None
        return cls(memory, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Sizes:
    """What the data hold, in tokens of the base."""

    train: int
    tests: dict[str, int]
    """Split -> scenarios."""
    personas: int
    """Different ones in training."""
    prompt: int
    response: int
    turn: int
    positions: int | None
    """Of the base."""
    parameters: float
    """Weights of the base, by its files; 0 if they are not here."""


def measure(data: Path, base: str, train: str = "IDTrain") -> Sizes:
    """Reads data and base.

    Raises:
        DataError: the data cannot be read, lack the training split or every other, or hold too few scenarios.
        CheckpointError: no such base.
        ConfigError: a base whose chat template cannot be used.
    """
    found = load(data)
    splits = Counter(x.split for x in found.scenarios)
    if train not in splits:
        raise DataError(f"{data}: has no split {train!r}; it has {', '.join(found.names)}. {SHIFT.format(data)}")
    tests = {name: splits[name] for name in found.names if name != train}
    if not tests:
        raise DataError(f"{data}: {train} is its only split, so nothing could be measured. {SHIFT.format(data)}")
    if splits[train] < LEAST_TRAIN:
        raise DataError(f"{data}: {train} has {splits[train]} scenarios; expected at least {LEAST_TRAIN}.")
    directory = local_directory(base)
    tokenizer = load_tokenizer(directory)
    some = _spread(found.scenarios)
    prompts = [len(encode_prompt(tokenizer, render(tokenizer, INSTRUCT.messages("rpm", x)))) for x in some]
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return Sizes(
        train=splits[train],
        tests=tests,
        personas=len({folded(x.persona) for x in found.scenarios if x.split == train}),
        prompt=_limit(prompts),
        response=_limit([len(encode_response(tokenizer, x.reference)) for x in some]),
        turn=_limit([len(encode_response(tokenizer, x.query)) for x in some]),
        positions=config.get("max_position_embeddings") or config.get("n_positions"),
        parameters=sum(file.stat().st_size for file in directory.glob("*.safetensors")) / _bytes(config),
    )


def _bytes(config: dict[str, Any]) -> int:
    """Of one weight as it is stored."""
    return 4 if str(config.get("dtype") or config.get("torch_dtype")) == "float32" else 2


def _spread(scenarios: Sequence[Scenario]) -> list[Scenario]:
    step = max(1, len(scenarios) // MEASURED)
    return list(scenarios[::step])


def _limit(lengths: Sequence[int]) -> int:
    """A limit that holds most of them, a multiple of 16."""
    ranked = sorted(lengths)
    return math.ceil(ranked[min(len(ranked) - 1, int(COVERED * len(ranked)))] / 16) * 16


def recipe_text(file: Path, data: Path, base: str, sizes: Sizes, machine: Machine, tuned: bool = False) -> str:
    """The recipe as YAML with its reasons.

    Args:
        file: where it will be; a run has its stem as name.
        data: the scenarios.
        base: folder or hub id.
        sizes: of both.
        machine: that it is to run on.
        tuned: whether the base plays its characters already, so that no SFT comes first.

    Raises:
        ConfigError: the base is too short for the data.
    """
    room = sizes.prompt + sizes.response
    if sizes.positions is not None and sizes.prompt + max(sizes.response, sizes.turn) > sizes.positions:
        raise ConfigError(
            f"{base}: reads {sizes.positions} tokens, and {COVERED:.0%} of prompts and responses need {room}; take a base "
            "with a longer context, or shorten dialogues and cards."
        )
    large = machine.gpu_gib is not None
    dev = max(8, min(64, sizes.train // 10))
    taught = sizes.train - dev
    batch = max(1, min(16 if large else 8, taught // 4))
    shifts = ["user", "WordLevelComposition"] if sizes.personas > 1 else ["WordLevelComposition"]
    negatives = min(3, max(1, dev - 2))
    samples, most = (4000, 512) if large else (64, 32)
    sft = f"samples: {min(taught, samples)}, batch_size: {batch}, learning_rate: 2.0e-4"
    first = "rpm_sft: null      # the base is tuned already\nscorer_sft: &sft" if tuned else "rpm_sft: &sft"
    second = "" if tuned else "scorer_sft: {<<: *sft}\n"
    group = "prompts: 16, group: 8, accumulation: 8" if large else "prompts: 4, group: 4, accumulation: 4"
    rate = "learning_rate: 1.0e-5" if sizes.parameters > 1e9 else "learning_rate: 1.0e-4"
    steps = (40, 100) if large else (3, 8)
    k = max(1, min(4 if large else 3, sum(sizes.tests.values()) - 1))
    kept = "other users, and recomposed words" if len(shifts) > 1 else "recomposed words alone: all personas are one"
    where = f"a GPU of {machine.gpu_gib:.0f} GiB" if large else f"{machine.cores} CPU cores, no GPU"
    at = shlex.quote(str(file))
    limits = (
        f"prompt: {sizes.prompt}, response: {sizes.response}, turn: {sizes.turn}, tokens_per_batch: {max(8192, 2 * room)}"
    )
    return f"""# Written by coevo init for {_one_line(data.name)} ({sizes.train:,} training scenarios), {_one_line(base)},
# and {where}. Read it, then:
#   coevo train {at} --dry-run        # what it will do
#   coevo train {at}                  # an audit of its reward comes early, and ends the run where it fails
name: {json.dumps(file.stem)}
# reference: carry gives a shifted scenario its parent's reference, so only shifts that keep the meaning are trained on
data:
  kind: file
  path: {json.dumps(str(data.resolve()))}
  reference: carry
  train_split: IDTrain
  test_splits: [{", ".join(json.dumps(split) for split in sizes.tests)}]
  dev: {dev}      # held out of training; a new model is kept only if it has lost nothing on them
  test: {100 if large else 12}      # at most so many of each test subset; intervals narrow with more
base: {{kind: hub, path: {json.dumps(base)}, dtype: auto}}
lora: {{r: 16, alpha: 32}}
# in tokens; {COVERED:.0%} of your prompts, responses and user turns are within, longer ones are left out and counted
limits: {{{limits}}}
# the base as it is gives the rewards; a second scorer, tuned on your dialogues, rewards nothing and says whether it agrees
scorer: zero_shot
{first} {{{sft}}}
{second}simulator_sft: {{<<: *sft}}
audit: {{scenarios: {min(64, dev)}, on_failure: stop}}
loop:
  iterations: 1
  shifts: [{", ".join(shifts)}]      # {kept}
  harvest: {min(most, max(8, taught))}
  simulator: {{steps: {steps[0]}, {group}, {rate}, temperature: 0.8, pass_nats: 2.0}}
  rpm: {{steps: {steps[1]}, {group}, {rate}, weights: {{kind: real_text, negatives: {negatives}}}}}
evaluation: {{k: {k}, repetition_penalty: 1.1, second_scorer: true}}
"""


def _one_line(text: str) -> str:
    """A name in a comment, which a line break would end."""
    return " ".join(text.split())


def missing(sizes: Sizes) -> list[str]:
    """What the data cannot answer or train, in words."""
    said = []
    if sizes.personas == 1:
        said.append(
            "all training scenarios have one persona: no user shift can be made of them, nor measured as one of personas"
        )
    few = {name: n for name, n in sizes.tests.items() if n < 30}
    if few:
        listed = ", ".join(f"{name} ({n})" for name, n in few.items())
        said.append(f"fewer than 30 test scenarios, so that intervals are wide: {listed}")
    if not any(name.startswith("OOD") for name in sizes.tests):
        said.append("no shifted test split: make some with coevo data shift")
    return said
