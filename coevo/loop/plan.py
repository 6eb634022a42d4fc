"""What a recipe will do, phase by phase, and what that costs. Without torch; `--dry-run` and the loop share it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coevo.config import GRPO, SFT, FileData, Recipe, SmallBase
from coevo.errors import DataError
from coevo.types import SHIFT_OF_TAG

Kind = Literal["pretrain", "sft", "evaluate", "grpo", "harvest", "accept"]

SMALL_FLOPS_PER_S = 6e10
"""Reference rate of a small base: float32 on 2 CPU cores, about 10,000 training tokens/s for 1 M parameters."""
HUB_FLOPS_PER_S = 1.5e14
"""Reference rate of a hub base: bfloat16 on one data-centre GPU, with no overlap of phases."""
DECODE_SHARE = 0.1
"""Generation is bound by latency and memory: it reaches this share of the rate that training reaches."""
WORLD_TOKENS = (120, 32, 24)
"""Typical prompt, response and user turn of the world, in tokens, under a tokenizer trained on it."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase, in the order of running.

    Example:
        >>> from coevo.config import Recipe
        >>> [phase.name for phase in plan(Recipe(name="x"))][:2]
        ['01-sft-rpm', '02-sft-scorer']
    """

    name: str
    """Number and name, as in `RUN/phases/`."""
    kind: Kind
    role: str | None
    """Whose weights or answers the phase is about; None for the base."""
    iteration: int | None
    """Counted from 1; None outside the loop."""
    updates: int
    """Optimizer steps; 0 where nothing is trained."""
    samples: int
    """Scenarios that the phase draws: rows, prompts, or tested scenarios."""
    sequences: int
    """Texts that are trained on, or written where nothing is trained."""
    tokens_estimate: int
    """Tokens that pass through a model, forward passes of scoring included."""
    seconds_estimate: float | None
    """At the reference rate, on one process; None if the size of the base is not known."""

    @property
    def units(self) -> int:
        """What progress is counted in: updates of a training phase, scenarios of another."""
        return self.updates or self.samples


@dataclass(frozen=True, slots=True)
class Counts:
    """How many scenarios the data has, by use."""

    id_train: int
    id_dev: int
    shift_train: int
    test: int


@dataclass(frozen=True, slots=True)
class _Work:
    """Tokens by what is done with them."""

    trained: int = 0
    scored: int = 0
    decoded: int = 0
    """Written one at a time."""

    def __add__(self, other: _Work) -> _Work:
        return _Work(self.trained + other.trained, self.scored + other.scored, self.decoded + other.decoded)


def plan(recipe: Recipe, counts: Counts | None = None) -> list[PhasePlan]:
    """The phases of a recipe in their order.

    Args:
        recipe: what to do.
        counts: sizes of the data; None works them out, for which a data file is read through once.

    Raises:
        DataError: the data file cannot be read, or lacks a split that the recipe names.
    """
    return _Planner(recipe, counts or count(recipe)).phases()


def count(recipe: Recipe) -> Counts:
    """How many scenarios the recipe's data has.

    Raises:
        DataError: the data file cannot be read, or lacks a split that the recipe names.
    """
    data = recipe.data
    if not isinstance(data, FileData):
        return Counts(data.train, data.dev, data.shift_train, data.test * (1 + len(SHIFT_OF_TAG)))
    from coevo.data.rpgbench import read_rpgbench

    wanted = (data.train_split, *data.test_splits)
    found = Counter((x.split, x.subset_tag) for x in read_rpgbench(data.path, wanted))
    train = sum(n for (split, _), n in found.items() if split == data.train_split)
    if train <= data.dev:
        raise DataError(
            f"{data.path}: split {data.train_split} has {train} samples and data.dev={data.dev} of them are held out, "
            "so none is left to train on; lower data.dev."
        )
    by_tag: Counter[str] = Counter()
    for (split, tag), n in found.items():
        by_tag[tag] += n if split in data.test_splits else 0
    test = sum(min(n, data.test or n) for n in by_tag.values())
    return Counts(train - data.dev, data.dev, train - data.dev, test)


def parameters(recipe: Recipe) -> float | None:
    """Number of the base's weights: exact for a small one, read off the name of a hub one (`Qwen3-4B`), else None."""
    base = recipe.base
    if isinstance(base, SmallBase):
        head = base.hidden // base.heads
        attention = 2 * base.hidden * head * (base.heads + base.kv_heads)
        return float(base.vocab * base.hidden + base.layers * (attention + 3 * base.hidden * base.intermediate))
    size = re.search(r"(\d+(?:\.\d+)?)\s*([BM])(?![a-z])", base.path.rstrip("/").rsplit("/", 1)[-1], re.IGNORECASE)
    return float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6) if size else None


def assumptions(recipe: Recipe) -> str:
    """What the estimates rest on, in one sentence for the reader of the table."""
    prompt, response, turn = _typical_tokens(recipe)
    size = parameters(recipe)
    if size is None:
        return f"No seconds: the size of {recipe.base.path} cannot be read off its name."
    where = "2 CPU cores" if isinstance(recipe.base, SmallBase) else "one data-centre GPU in bfloat16"
    return (
        f"Costs are estimates: {size / 1e6:,.3g} M parameters, 6 FLOPs per parameter and trained token, 2 per scored "
        f"or written one, on {where} at {_rate(recipe):.0e} FLOP/s (writing at {DECODE_SHARE:.0%} of it); prompts of "
        f"{prompt}, responses of {response} and user turns of {turn} tokens. Loading and start-up are not in it."
    )


def table(phases: Sequence[PhasePlan]) -> str:
    """The phases of a dry run as an aligned table with a row of totals."""
    header = ("phase", "kind", "updates", "samples", "sequences", "tokens", "about")
    rows: list[tuple[str, ...]] = [
        (
            phase.name,
            phase.kind,
            f"{phase.updates:,}" if phase.updates else "-",
            f"{phase.samples:,}",
            f"{phase.sequences:,}",
            f"{phase.tokens_estimate:,}",
            duration(phase.seconds_estimate),
        )
        for phase in phases
    ]
    seconds = [phase.seconds_estimate for phase in phases if phase.seconds_estimate is not None]
    total = duration(sum(seconds) if len(seconds) == len(phases) else None)
    tokens = sum(phase.tokens_estimate for phase in phases)
    rows.append(("total", "", f"{sum(phase.updates for phase in phases):,}", "", "", f"{tokens:,}", total))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(names + numbers).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def duration(seconds: float | None) -> str:
    """A length of time for a person: `40 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _typical_tokens(recipe: Recipe) -> tuple[int, int, int]:
    limits = (recipe.limits.prompt, recipe.limits.response, recipe.limits.turn)
    if isinstance(recipe.data, FileData):
        return limits[0] // 2, limits[1] // 2, limits[2] // 2
    prompt, response, turn = (min(typical, limit) for typical, limit in zip(WORLD_TOKENS, limits, strict=True))
    return prompt, response, turn


def _rate(recipe: Recipe) -> float:
    return SMALL_FLOPS_PER_S if isinstance(recipe.base, SmallBase) else HUB_FLOPS_PER_S


class _Planner:
    """Adds phases one by one, numbering them."""

    def __init__(self, recipe: Recipe, counts: Counts) -> None:
        self._recipe, self._counts = recipe, counts
        self._prompt, self._response, self._turn = _typical_tokens(recipe)
        self._phases: list[PhasePlan] = []

    def phases(self) -> list[PhasePlan]:
        """All of them, in order."""
        recipe, counts = self._recipe, self._counts
        if recipe.pretrain is not None:
            # drawn with repetition, so there are as many as asked for
            self._tuning("pretrain", None, recipe.pretrain, recipe.pretrain.samples or counts.shift_train)
        for role, config, available in (
            ("rpm", recipe.rpm_sft, counts.id_train),
            ("scorer", recipe.scorer_sft, counts.shift_train),
            ("simulator", recipe.simulator_sft, counts.shift_train),
        ):
            self._tuning("sft", role, config, min(config.samples or available, available))
        self._evaluate("sft")
        for k in range(1, recipe.loop.iterations + 1):
            self._simulator(k)
            self._harvest(k)
            self._rpm(k)
            self._accept(k)
        self._evaluate("final")
        return self._phases

    def _tuning(self, kind: Kind, role: str | None, config: SFT, samples: int) -> None:
        updates = samples // config.batch_size * config.epochs
        sequences = updates * config.batch_size
        written = self._turn if role == "simulator" else self._response
        work = _Work(trained=sequences * (self._prompt + written))
        name = kind if role is None else f"{kind}-{role}"
        self._add(name, kind, role, None, (updates, samples, sequences), work)

    def _evaluate(self, when: str) -> None:
        # response and reference: under its own context, k others, without u, c, d, and alone; references only once
        tests = self._counts.test
        passes = (1 if when == "final" else 2) * (self._recipe.evaluation.k + 5)
        work = self._writing(tests, self._response) + self._scoring(tests * passes)
        self._add(f"evaluate-{when}", "evaluate", "rpm", None, (0, tests, tests), work)

    def _simulator(self, k: int) -> None:
        config = self._recipe.loop.simulator
        sequences = config.steps * config.prompts * config.group
        work = self._grpo(config, self._turn) + self._judging(sequences)
        self._add(f"simulator-{k}", "grpo", "simulator", k, (config.steps, config.steps * config.prompts, sequences), work)

    def _harvest(self, k: int) -> None:
        turns = self._recipe.loop.harvest
        work = self._writing(turns, self._turn) + self._judging(turns)
        self._add(f"harvest-{k}", "harvest", "simulator", k, (0, turns, turns), work)

    def _rpm(self, k: int) -> None:
        config = self._recipe.loop.rpm
        prompts = config.steps * config.prompts
        parents = min(prompts, self._counts.id_train)
        # baselines: the parents' answers and references; rewards: under its context and alone
        work = self._grpo(config, self._response) + self._writing(parents, self._response)
        work += self._scoring(2 * (prompts * config.group + prompts + 2 * parents))
        self._add(f"rpm-{k}", "grpo", "rpm", k, (config.steps, prompts, prompts * config.group), work)

    def _accept(self, k: int) -> None:
        answers = 2 * self._counts.id_dev
        work = self._writing(answers, self._response) + self._scoring(2 * (answers + self._counts.id_dev))
        self._add(f"accept-{k}", "accept", "rpm", k, (0, answers, answers), work)

    def _grpo(self, config: GRPO, written: int) -> _Work:
        sequences = config.steps * config.prompts * config.group
        reference = sequences * (self._prompt + written) if config.kl else 0
        return self._writing(sequences, written) + _Work(sequences * (self._prompt + written), reference)

    def _judging(self, turns: int) -> _Work:
        # m answers by the RPM, each scored with and without context, as is the reference; two gates read the turn twice
        m = self._recipe.loop.simulator.rpm_samples
        gates = _Work(scored=2 * turns * (self._prompt + self._turn))
        return self._writing(turns * m, self._response) + self._scoring(2 * (m + 1) * turns) + gates

    def _writing(self, texts: int, tokens: int) -> _Work:
        return _Work(scored=texts * self._prompt, decoded=texts * tokens)

    def _scoring(self, texts: int) -> _Work:
        return _Work(scored=texts * (self._prompt + self._response))

    def _add(
        self, name: str, kind: Kind, role: str | None, iteration: int | None, sizes: tuple[int, int, int], work: _Work
    ) -> None:
        size = parameters(self._recipe)
        seconds = None
        if size is not None:
            flops = size * (6 * work.trained + 2 * work.scored + 2 * work.decoded / DECODE_SHARE)
            seconds = flops / _rate(self._recipe)
        updates, samples, sequences = sizes
        tokens = work.trained + work.scored + work.decoded
        number = f"{len(self._phases) + 1:02d}"
        self._phases.append(
            PhasePlan(f"{number}-{name}", kind, role, iteration, updates, samples, sequences, tokens, seconds)
        )
