"""What a recipe will do, phase by phase, and what that costs. Without torch; `--dry-run` and the loop share it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coevo.config import GRPO, SFT, FileData, Recipe, SmallBase, WorldData
from coevo.data.battery import MEMBERS
from coevo.data.world.battery import LADDER
from coevo.errors import ConfigError, DataError
from coevo.layout import align
from coevo.types import SHIFT_OF_TAG

Kind = Literal["pretrain", "sft", "audit", "evaluate", "grpo", "harvest", "accept"]

SMALL_FLOPS_PER_S = 6e10
"""Reference rate of a small base: float32 on 2 CPU cores, about 10,000 training tokens/s for 1 M parameters."""
HUB_FLOPS_PER_S = 1.5e14
"""Reference rate of a hub base: bfloat16 on one data-centre GPU, with no overlap of phases."""
DECODE_SHARE = 0.1
"""Generation is bound by latency and memory: it reaches this share of the rate that training reaches."""
WORLD_TOKENS = (110, 28, 19)
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
    smallest_subset: int
    """Test scenarios of the subset that has fewest."""


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
        ConfigError: data, batches or negatives do not fit each other; see `check`.
    """
    counts = counts or count(recipe)
    check(recipe, counts)
    return _Planner(recipe, counts).phases()


def check(recipe: Recipe, counts: Counts) -> None:
    """Refuses at once what would otherwise end a run hours later.

    Raises:
        ConfigError: lists every setting that does not fit the data or the number of processes (WORLD_SIZE, as accelerate
            sets it), and bases named by a folder that is not there.
    """
    from coevo.data.shifts import SOURCES

    problems = [*_short_of_data(recipe, counts), *_uneven(recipe)]
    evaluation, where = recipe.evaluation, "data.test" if isinstance(recipe.data, WorldData) else "data.test_splits"
    if evaluation.estimator in ("club", "l1out"):
        tests = counts.smallest_subset if evaluation.negatives == "subset" else counts.test
        named = "the smallest test subset has" if evaluation.negatives == "subset" else "the test splits have"
        if evaluation.k >= tests:
            problems.append(
                f"evaluation.k={evaluation.k} negatives and evaluation.negatives={evaluation.negatives}: {named} {tests} "
                f"scenario(s), and k must be below; lower evaluation.k or raise {where}"
            )
    if not counts.test:
        problems.append(f"{where}: no test scenario; name splits that have some")
    tags = SOURCES[recipe.data.kind].tags
    unknown = [tag for tag in recipe.loop.shifts if tag not in tags]
    if unknown:
        problems.append(
            f"loop.shifts asks for {', '.join(unknown)}, which data.kind={recipe.data.kind} cannot make; "
            f"it makes: {', '.join(tags)}"
        )
    path = recipe.base.path or ""
    if path.startswith(("/", "./", "../", "~")) and not Path(path).is_dir():
        problems.append(f"base.path={path}: no such folder; give a model's folder, or its name on the hub")
    if problems:
        raise ConfigError(f"recipe {recipe.name}: {len(problems)} setting(s) that do not fit:\n  " + "\n  ".join(problems))


def _short_of_data(recipe: Recipe, counts: Counts) -> Iterator[str]:
    """Phases that have fewer samples than one update takes, which would train nothing."""
    world = isinstance(recipe.data, WorldData)
    id_key = "data.train" if world else "data.train_split less data.dev"
    shift_key = "data.shift_train" if world else id_key
    blocks: list[tuple[str, SFT | None, str, int]] = [
        ("pretrain", recipe.pretrain, shift_key, counts.shift_train),
        ("rpm_sft", recipe.rpm_sft, id_key, counts.id_train),
        ("scorer_sft", recipe.scorer_sft, shift_key, counts.shift_train),
        ("simulator_sft", recipe.simulator_sft, shift_key, counts.shift_train),
    ]
    for name, config, key, available in blocks:
        if config is None:
            continue
        # a base is pretrained on samples drawn with repetition, so that a file may have fewer
        samples = config.samples or available
        samples = samples if name == "pretrain" else min(samples, available)
        if samples < config.batch_size:
            limit = f"{name}.samples={config.samples}" if samples == config.samples else f"{key} has {available}"
            yield (
                f"{name}.batch_size={config.batch_size} is more than the {samples} samples there are ({limit}); "
                f"lower {name}.batch_size or give more data"
            )


def _uneven(recipe: Recipe) -> Iterator[str]:
    """Updates that do not divide among the processes."""
    world = os.environ.get("WORLD_SIZE", "1")
    processes = int(world) if world.isdecimal() else 1
    for name in ("pretrain", "rpm_sft", "scorer_sft", "simulator_sft"):
        config: SFT | None = getattr(recipe, name)
        if config is not None and config.batch_size % (processes * config.accumulation):
            wanted = processes * config.accumulation
            yield (
                f"{name}.batch_size={config.batch_size} does not divide among {processes} processes × "
                f"accumulation={config.accumulation}; choose a multiple of {wanted}"
            )
    for name, grpo in (("loop.simulator", recipe.loop.simulator), ("loop.rpm", recipe.loop.rpm)):
        if grpo.prompts * grpo.group % (processes * grpo.accumulation):
            wanted = processes * grpo.accumulation
            yield (
                f"{name}.prompts={grpo.prompts} × group={grpo.group} does not divide among {processes} processes × "
                f"accumulation={grpo.accumulation}; choose numbers whose product is a multiple of {wanted}"
            )


def count(recipe: Recipe) -> Counts:
    """How many scenarios the recipe's data has.

    Raises:
        DataError: the data file cannot be read, or lacks a split that the recipe names.
    """
    data = recipe.data
    if not isinstance(data, FileData):
        return Counts(data.train, data.dev, data.shift_train, data.test * (1 + len(SHIFT_OF_TAG)), data.test)
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
        if split in data.test_splits:
            by_tag[tag] += n
    tests = [min(n, data.test or n) for n in by_tag.values()]
    return Counts(train - data.dev, data.dev, train - data.dev, sum(tests), min(tests, default=0))


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
        f"or written one, on {where} at {rate(recipe):.0e} FLOP/s (writing at {DECODE_SHARE:.0%} of it); prompts of "
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
    lines = align([header, *rows], names=2).splitlines()
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


def rate(recipe: Recipe) -> float:
    """FLOP/s of the reference machine for a base of this kind."""
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
            if role == "scorer":
                self._audit()
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

    def _audit(self) -> None:
        # the reference, the battery and the graded answers, each under its context and alone
        world = isinstance(self._recipe.data, WorldData)
        scenarios = self._recipe.audit.scenarios if world else min(self._recipe.audit.scenarios, self._counts.id_dev)
        texts = scenarios * (1 + len(MEMBERS) + (LADDER if world else 0))
        self._add("audit", "audit", "scorer", None, (0, scenarios, texts), self._scoring(2 * texts))

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
        # the simulator and its parent write every one
        turns = 2 * self._recipe.loop.harvest
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
            seconds = flops / rate(self._recipe)
        updates, samples, sequences = sizes
        tokens = work.trained + work.scored + work.decoded
        number = f"{len(self._phases) + 1:02d}"
        self._phases.append(
            PhasePlan(f"{number}-{name}", kind, role, iteration, updates, samples, sequences, tokens, seconds)
        )
