"""What a recipe's data have, and what would end its run hours later: refused before anything is loaded. Without torch."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coevo.config import SFT, Evaluation, FileData, RealText, Recipe, SimulatorSFT, WorldData, access
from coevo.config.methods import AugmentedSFT, Coevolution, Sampled
from coevo.config.training import PPO, Rewarded
from coevo.data.overlap import Imprint, Pair, copies, imprint, listed
from coevo.errors import ConfigError, DataError
from coevo.plan.functions import load
from coevo.text import folded
from coevo.types import SHIFT_OF_TAG


@dataclass(frozen=True, slots=True)
class Contents:
    """What the samples of a file have in common."""

    personas: tuple[str, ...]
    """Two different personas of the samples that are trained on, or the one that all of them have."""
    copied: tuple[Pair, ...]
    """Samples of the training split that are copies of tests, each with one of those."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many scenarios the data has, by use."""

    id_train: int
    id_dev: int
    shift_train: int
    test: int
    smallest_subset: int
    """Test scenarios of the subset that has fewest."""
    contents: Contents | None = field(default=None, compare=False)
    """Of a file; None for the world, which makes personas of its own and tests of other words."""

    def turns(self, config: SimulatorSFT) -> int:
        """Real turns that there are for the simulator's warm start."""
        return self.id_train if config.turns == "id" else self.shift_train

    def scorers(self, config: Evaluation) -> tuple[int, int]:
        """Samples that the scorer and the second scorer have to learn from; see `Material.taught`."""
        n = self.shift_train
        return (n - n // 2, n // 2) if config.second_scorer else (n, 0)


REWARD_MODEL = "reward_model.path"


def named_models(recipe: Recipe) -> dict[str, str]:
    """Key -> folder or hub id of every model that a recipe takes from outside coevo."""
    named = {"base.path": recipe.base.path}
    if recipe.scorer.base is not None:
        named["scorer.base"] = recipe.scorer.base
    if isinstance(recipe.method, AugmentedSFT):
        named["method.model"] = recipe.method.model
    if recipe.weights.reward_model is not None:
        named[f"{recipe.weights_key}.{REWARD_MODEL}"] = recipe.weights.reward_model.path
    return {key: path for key, path in named.items() if path not in (None, "builtin")}


def check(recipe: Recipe, counts: Counts) -> None:
    """Refuses at once what would otherwise end a run hours later.

    Raises:
        ConfigError: lists every setting that does not fit the data or the number of processes (WORLD_SIZE, as accelerate
            sets it), and bases named by a folder that is not there.
    """
    from coevo.data.shifts import SOURCES

    problems = [*_short_of_data(recipe, counts), *_uneven(recipe), *_unfit(recipe, counts)]
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
    if unknown and isinstance(recipe.method, Coevolution):
        problems.append(
            f"loop.shifts asks for {', '.join(unknown)}, which data.kind={recipe.data.kind} cannot make; "
            f"it makes: {', '.join(tags)}"
        )
    if isinstance(recipe.method, AugmentedSFT):
        problems += _augmentation(recipe, recipe.method)
    weights = recipe.weights
    if isinstance(weights, RealText) and counts.shift_train < weights.least_scenarios:
        problems.append(
            f"{recipe.weights_key}.negatives={weights.negatives} needs {weights.least_scenarios} training scenarios, and "
            f"there are {counts.shift_train}; lower it or give more data"
        )
    for name in weights.functions:
        try:
            load(name)
        except ConfigError as error:
            problems.append(str(error))
    if weights.judge is not None:
        try:
            access.check(weights.judge.rubric, access.address_of(weights.judge), weights.judge.key_env)
        except ConfigError as error:
            problems.append(f"{recipe.weights_key}.judge: {access.in_a_recipe(str(error))}")
    if weights.reward_model is not None:
        problems += _no_folder(f"{recipe.weights_key}.reward_model.path", weights.reward_model.path)
    problems += [
        f"tracking.to={name}: {name} is not installed; pip install -e '.[tracking]', or leave it out"
        for name in recipe.tracking.to
        if importlib.util.find_spec(name) is None
    ]
    problems += _no_folder("base.path", recipe.base.path or "")
    problems += _no_folder("scorer.base", recipe.scorer.base or "")
    if problems:
        raise ConfigError(f"recipe {recipe.name}: {len(problems)} setting(s) that do not fit:\n  " + "\n  ".join(problems))


def _no_folder(key: str, path: str) -> Iterator[str]:
    if path.startswith(("/", "./", "../", "~")) and not Path(path).is_dir():
        yield f"{key}={path}: no such folder; give a model's folder, or its name on the hub"


def overlap(recipe: Recipe, counts: Counts) -> str | None:
    """How many samples that are trained on are copies of tests, in words; None if none is."""
    data, contents = recipe.data, counts.contents
    if not isinstance(data, FileData) or contents is None or not contents.copied:
        return None
    return (
        f"{data.path}: {len(contents.copied):,} of {counts.id_train + counts.id_dev:,} samples of {data.train_split} are "
        f"copies of tests under another name ({listed(contents.copied)})"
    )


def _unfit(recipe: Recipe, counts: Counts) -> Iterator[str]:
    """What a file's samples say in common that the recipe has no use for."""
    from coevo.data.shifts import one_persona

    data, contents = recipe.data, counts.contents
    if not isinstance(data, FileData) or contents is None:
        return
    found = overlap(recipe, counts)
    if found and not data.allow_overlap:
        yield (
            f"{found}; what is trained on cannot be tested: remove them from {data.train_split}, or set "
            "data.allow_overlap=true to train all the same"
        )
    if len(contents.personas) < 2 and isinstance(recipe.method, Coevolution) and "user" in recipe.loop.shifts:
        yield f"loop.shifts: {one_persona(counts.id_train, *contents.personas)}"
    if len(contents.personas) < 2 and isinstance(recipe.method, AugmentedSFT) and "persona" in recipe.method.ways:
        yield (
            f"method.ways: all {counts.id_train:,} ID samples have one user_persona, so no copy can have another; write who "
            "each user is, or leave `persona` out of method.ways"
        )


def _augmentation(recipe: Recipe, method: AugmentedSFT) -> Iterator[str]:
    """Copies that cannot be made."""
    from coevo.data.world import LANGUAGE_OF_TAG

    yield from _no_folder("method.model", method.model or "")
    unknown = [name for name in method.languages if name.lower() not in LANGUAGE_OF_TAG]
    if unknown and "translation" in method.ways and isinstance(recipe.data, WorldData):
        known = ", ".join(tag.capitalize() for tag in LANGUAGE_OF_TAG)
        yield f"method.languages asks for {', '.join(unknown)}, which the world does not speak; it translates into: {known}"


def _short_of_data(recipe: Recipe, counts: Counts) -> Iterator[str]:
    """Phases that have fewer samples than one update takes, which would train nothing."""
    world = isinstance(recipe.data, WorldData)
    id_key = "data.train" if world else "data.train_split less data.dev"
    shift_key = "data.shift_train" if world else id_key
    first, second = counts.scorers(recipe.evaluation)
    blocks: list[tuple[str, SFT | None, str, int]] = [
        ("pretrain", recipe.pretrain, shift_key, counts.shift_train),
        ("rpm_sft", recipe.rpm_sft, id_key, counts.id_train),
        ("scorer_sft", recipe.scorer_sft if recipe.scorer.kind == "tuned" else None, shift_key, first),
    ]
    method = recipe.method
    if isinstance(method, Coevolution):
        warm = recipe.simulator_sft
        blocks.append(("simulator_sft", warm, id_key if warm.turns == "id" else shift_key, counts.turns(warm)))
    # a prompt gives one best answer, or one pair
    prompts = method.prompts if isinstance(method, Sampled) else None
    available = min(prompts or counts.id_train, counts.id_train)
    blocks.append(("method.tune", getattr(method, "tune", None), "method.prompts" if prompts else id_key, available))
    if recipe.corl is not None:
        cold = min(recipe.corl.cold_start or first, first)
        cold_key = "corl.cold_start" if recipe.corl.cold_start else shift_key
        blocks = [(name, config, *((cold_key, cold) if name == "scorer_sft" else rest)) for name, config, *rest in blocks]
        blocks.append(("corl.reasoner_sft", recipe.corl.reasoner_sft, cold_key, cold))
        # drawn with repetition
        wanted = recipe.corl.scorer_tune.samples or counts.shift_train
        blocks.append(("corl.scorer_tune", recipe.corl.scorer_tune, shift_key, max(wanted, counts.shift_train)))
    if recipe.evaluation.second_scorer:
        blocks.append(("scorer_sft", recipe.scorer_sft, f"the second scorer's half of {shift_key}", second))
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
    method = recipe.method
    tuned: dict[str, SFT | None] = {name: getattr(recipe, name) for name in ("pretrain", "rpm_sft", "scorer_sft")}
    rewarded: dict[str, Rewarded] = {}
    if isinstance(method, Coevolution):
        tuned["simulator_sft"] = recipe.simulator_sft
        rewarded["loop.rpm"] = recipe.loop.rpm
        if not recipe.loop.frozen_simulator:
            rewarded["loop.simulator"] = recipe.loop.simulator
    tuned["method.tune"] = getattr(method, "tune", None)
    if isinstance(method, Rewarded):
        rewarded["method"] = method
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
    from coevo.data.rpgbench import load

    wanted = (data.train_split, *data.test_splits)
    by_tag: Counter[str] = Counter()
    personas: list[str] = []
    trained: list[Imprint] = []
    tested: list[Imprint] = []
    for x in load(data.path, wanted).scenarios:
        if x.split == data.train_split:
            personas.append(x.persona)
            trained.append(imprint(x))
            continue
        by_tag[x.subset_tag] += 1
        if data.test is None or by_tag[x.subset_tag] <= data.test:
            tested.append(imprint(x))
    train = len(trained)
    if train <= data.dev:
        raise DataError(
            f"{data.path}: split {data.train_split} has {train} samples and data.dev={data.dev} of them are held out, "
            "so none is left to train on; lower data.dev."
        )
    tests = [min(n, data.test or n) for n in by_tag.values()]
    different = {folded(persona): persona for persona in personas[: -data.dev]}
    contents = Contents(tuple(list(different.values())[:2]), tuple(copies(trained, tested)))
    return Counts(train - data.dev, data.dev, train - data.dev, sum(tests), min(tests, default=0), contents)
