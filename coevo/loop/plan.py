"""What a recipe will do, phase by phase, and what that costs. Without torch; `--dry-run` and the loop share it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coevo.config import PPO, SFT, CoRL, FileData, Recipe, SmallBase, WorldData
from coevo.data.battery import MEMBERS
from coevo.data.world.battery import LADDER
from coevo.errors import ConfigError, DataError
from coevo.tuning import Rewarded
from coevo.types import SHIFT_OF_TAG

Kind = Literal["pretrain", "sft", "tune", "audit", "evaluate", "grpo", "harvest", "accept", "ablation"]
"""`tune` is supervised fine-tuning too, of CoRL's two roles."""

SMALL_FLOPS_PER_S = 6e10
"""Reference rate of a small base: float32 on 2 CPU cores, about 10,000 training tokens/s for 1 M parameters."""
HUB_FLOPS_PER_S = 1.5e14
"""Reference rate of a hub base: bfloat16 on one data-centre GPU, with no overlap of phases."""
DECODE_SHARE = 0.1
"""Generation is bound by latency and memory: it reaches this share of the rate that training reaches."""
ABLATED = 5
"""Readings of each test's reference that the ablation makes, at most."""
WORLD_TOKENS = (110, 28, 19)
"""Typical prompt, response and user turn of the world, in tokens, under a tokenizer trained on it."""
REASONING_TOKENS = 34
"""The same of its reasonings."""


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
    """Of the loop, or of CoRL for its own phases; counted from 1; None outside of both."""
    updates: int
    """Steps of training, as the recipe counts them: in PPO's, the optimizer makes several. 0 where nothing is trained."""
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
    if recipe.corl is not None:
        cold = min(recipe.corl.cold_start or counts.shift_train, counts.shift_train)
        cold_key = "corl.cold_start" if recipe.corl.cold_start else shift_key
        blocks = [(name, config, *((cold_key, cold) if name == "scorer_sft" else rest)) for name, config, *rest in blocks]
        blocks.append(("corl.reasoner_sft", recipe.corl.reasoner_sft, cold_key, cold))
        # drawn with repetition
        wanted = recipe.corl.scorer_tune.samples or counts.shift_train
        blocks.append(("corl.scorer_tune", recipe.corl.scorer_tune, shift_key, max(wanted, counts.shift_train)))
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
    tuned: dict[str, SFT | None] = {
        name: getattr(recipe, name) for name in ("pretrain", "rpm_sft", "scorer_sft", "simulator_sft")
    }
    rewarded: dict[str, Rewarded] = {"loop.simulator": recipe.loop.simulator, "loop.rpm": recipe.loop.rpm}
    if recipe.corl is not None:
        tuned |= {"corl.reasoner_sft": recipe.corl.reasoner_sft, "corl.scorer_tune": recipe.corl.scorer_tune}
        rewarded |= {"corl.reasoner": recipe.corl.reasoner, "corl.scorer": recipe.corl.scorer}
    for name, config in tuned.items():
        if config is not None and config.batch_size % (processes * config.accumulation):
            wanted = processes * config.accumulation
            yield (
                f"{name}.batch_size={config.batch_size} does not divide among {processes} processes × "
                f"accumulation={config.accumulation}; choose a multiple of {wanted}"
            )
    for name, sampled in rewarded.items():
        if sampled.prompts * sampled.group % (processes * sampled.pieces):
            minibatches = f" × minibatches={sampled.minibatches}" if isinstance(sampled, PPO) else ""
            yield (
                f"{name}.prompts={sampled.prompts} × group={sampled.group} does not divide among {processes} processes × "
                f"accumulation={sampled.accumulation}{minibatches}; choose numbers whose product is a multiple of "
                f"{processes * sampled.pieces}"
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


def typical_tokens(recipe: Recipe) -> tuple[int, int, int]:
    """Prompt, response and user turn in tokens, as the estimates take them to be."""
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
        self._prompt, self._response, self._turn = typical_tokens(recipe)
        world = isinstance(recipe.data, WorldData)
        self._reasoning = min(REASONING_TOKENS, recipe.limits.reasoning) if world else recipe.limits.reasoning // 2
        self._phases: list[PhasePlan] = []

    def phases(self) -> list[PhasePlan]:
        """All of them, in order."""
        recipe, counts = self._recipe, self._counts
        if recipe.pretrain is not None:
            # drawn with repetition, so there are as many as asked for
            self._tuning("pretrain", None, recipe.pretrain, recipe.pretrain.samples or counts.shift_train)
        if recipe.corl is not None:
            # first, so that an estimator can be had without the rest (--until)
            self._corl(recipe.corl)
            self._audit()
        for role, config, available in (
            ("rpm", recipe.rpm_sft, counts.id_train),
            ("scorer", recipe.scorer_sft, counts.shift_train),
            ("simulator", recipe.simulator_sft, counts.shift_train),
        ):
            if role == "scorer" and recipe.corl is not None:
                continue
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

    def _tuning(
        self, kind: Kind, role: str | None, config: SFT, samples: int, name: str = "", iteration: int | None = None
    ) -> None:
        updates = samples // config.batch_size * config.epochs
        sequences = updates * config.batch_size
        written = {"simulator": self._turn, "reasoner": self._reasoning}.get(role or "", self._response)
        # a scorer of CoRL reads a reasoning too, which the reasoner wrote for it
        shown = self._reasoning if kind == "tune" and role == "scorer" else 0
        work = _Work(trained=sequences * (self._prompt + shown + written))
        if iteration is not None:
            work += self._writing(samples, shown)
        name = name or (kind if role is None else f"{kind}-{role}")
        self._add(name, kind, role, iteration, (updates, samples, sequences), work)

    def _corl(self, corl: CoRL) -> None:
        available = self._counts.shift_train
        cold = min(corl.cold_start or available, available)
        scorer_sft = self._recipe.scorer_sft
        n_scorer = min(scorer_sft.samples or cold, cold)
        self._tuning("tune", "reasoner", corl.reasoner_sft, min(corl.reasoner_sft.samples or cold, cold), "sft-reasoner")
        self._tuning("tune", "scorer", scorer_sft, n_scorer, "sft-scorer")
        for k in range(1, corl.iterations + 1):
            self._rewarded("reasoner", k, corl.reasoner, self._reasoning)
            samples = corl.scorer_tune.samples or (available - cold) or available
            self._tuning("tune", "scorer", corl.scorer_tune, samples, f"tune-scorer-{k}", k)
            self._rewarded("scorer", k, corl.scorer, self._response)
        if corl.ablation:
            self._tuning("tune", "plain", scorer_sft, n_scorer, "sft-plain")
            tests = self._counts.test
            work = self._writing(2 * tests, self._reasoning) + self._scoring(ABLATED * tests)
            self._add("ablation", "ablation", "scorer", None, (0, tests, ABLATED * tests), work)

    def _rewarded(self, role: str, k: int, config: Rewarded, written: int) -> None:
        """A GRPO phase of CoRL: each completion is read by a frozen model, with and without the reasoning at most."""
        prompts = config.steps * config.prompts
        sequences = prompts * config.group
        work = self._reinforced(config, written) + self._scoring(sequences + prompts)
        self._add(f"{role}-{k}", "grpo", role, k, (config.steps, prompts, sequences), work)

    def _audit(self) -> None:
        # the reference, the battery and the graded answers, each under its context, alone and, for R3, without reasoning
        world = isinstance(self._recipe.data, WorldData)
        scenarios = self._recipe.audit.scenarios if world else min(self._recipe.audit.scenarios, self._counts.id_dev)
        texts = scenarios * (1 + len(MEMBERS) + (LADDER if world else 0))
        readings = 3 if self._recipe.loop.rpm.weights.agreement else 2
        work = self._scoring(readings * texts) + self._reasoned(scenarios)
        self._add("audit", "audit", "scorer", None, (0, scenarios, texts), work)

    def _evaluate(self, when: str) -> None:
        # response and reference: under its own context, k others, without u, c, d, and alone; references only once
        tests = self._counts.test
        passes = (1 if when == "final" else 2) * (self._recipe.evaluation.k + 5)
        work = self._writing(tests, self._response) + self._scoring(tests * passes)
        work += self._reasoned(tests if when == "sft" else 0)
        self._add(f"evaluate-{when}", "evaluate", "rpm", None, (0, tests, tests), work)

    def _simulator(self, k: int) -> None:
        config = self._recipe.loop.simulator
        sequences = config.steps * config.prompts * config.group
        work = self._reinforced(config, self._turn) + self._judging(sequences)
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
        work = self._reinforced(config, self._response) + self._writing(parents, self._response)
        work += self._scoring(2 * (prompts * config.group + prompts + 2 * parents)) + self._reasoned(prompts + parents)
        self._add(f"rpm-{k}", "grpo", "rpm", k, (config.steps, prompts, prompts * config.group), work)

    def _accept(self, k: int) -> None:
        answers = 2 * self._counts.id_dev
        work = self._writing(answers, self._response) + self._scoring(2 * (answers + self._counts.id_dev))
        self._add(f"accept-{k}", "accept", "rpm", k, (0, answers, answers), work)

    def _reinforced(self, config: Rewarded, written: int) -> _Work:
        sequences = config.steps * config.prompts * config.group
        read = sequences * (self._prompt + written)
        # of the reference; and PPO's of the values and probabilities when sampled
        frozen = bool(config.kl) + isinstance(config, PPO)
        return self._writing(sequences, written) + _Work(read * config.passes, read * frozen)

    def _judging(self, turns: int) -> _Work:
        # m answers by the RPM, each scored with and without context, as is the reference; two gates read the turn twice
        m = self._recipe.loop.simulator.rpm_samples
        gates = _Work(scored=2 * turns * (self._prompt + self._turn))
        work = self._writing(turns * m, self._response) + self._scoring(2 * (m + 1) * turns) + gates
        return work + self._reasoned(turns)

    def _reasoned(self, scenarios: int) -> _Work:
        return self._writing(scenarios, self._reasoning) if self._recipe.corl is not None else _Work()

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
