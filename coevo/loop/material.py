"""The scenarios of a run: what each role learns from, what is tested on, and how shifted ones are made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from coevo.config import FileData, Pretrain, Recipe, WorldData
from coevo.config.methods import ThinkGRPO, ThinkSFT
from coevo.data import rpgbench, shifts, world
from coevo.data.overlap import imprint
from coevo.errors import DataError
from coevo.loop.corpus import Corpus, gather, reasoning_of
from coevo.plan.check import check, count
from coevo.prompts import Role
from coevo.scoring.reasoning import read_sections
from coevo.types import Scenario

REAL_TURNS = 512
"""Fresh scenarios of the world, for the gates; more if the audit asks for more."""


@dataclass(frozen=True)
class WorldTruth:
    """Exact answers that only the world has; what evaluation and logs take as truth."""

    def share_right(self, scenario: Scenario, text: str) -> float:
        """Share of the five slots that are right, in [0, 1]."""
        return world.share_right(scenario, text)

    def log_density(self, scenario: Scenario, text: str) -> float:
        """Exact log P(y|x) in nats."""
        return world.log_density(world.parse_scenario(scenario), text)

    def reference(self, scenario: Scenario, rng: random.Random) -> str:
        """A draw from P(y|x)."""
        return world.sample_reference(world.parse_scenario(scenario), rng)

    def share_reasoned(self, scenario: Scenario, text: str, sections: Sequence[str]) -> float:
        """Share of the sections of a reasoning that say what the oracle says, in [0, 1]."""
        bodies = world.reasoning_bodies(scenario)
        said = dict(read_sections(text, sections))
        return sum(said.get(name) == bodies[name] for name in sections) / len(sections)


@dataclass(frozen=True)
class Material:
    """Scenarios by use. Nothing in `tests` is trained on unless `allow_overlap` says so: `check` refuses copies of them in a
    file's training split, `refuse_tests` what is made later."""

    id_train: list[Scenario]
    """What the RPM is tuned on; parents of every shifted scenario."""
    id_dev: list[Scenario]
    """Held out of training; a new RPM is accepted or refused on it."""
    shift_train: list[Scenario]
    """What scorers and simulator learn from; see `taught`."""
    real_turns: list[Scenario]
    """Real scenarios that no role was tuned on. The gates' thresholds are read off their turns, and the reward is audited on
    them."""
    tests: list[Scenario]
    source: shifts.Shifts
    truth: WorldTruth | None
    corpus: Corpus | None = None
    """What CoRL starts from; None where it is off."""
    thoughts: Corpus | None = None
    """ID scenarios with the reasoning that a model which thinks first is taught; None where the method is another."""
    two_scorers: bool = False
    """Whether `shift_train` is shared out between two scorers."""
    id_turns: bool = False
    """Whether the simulator is warmed up on turns of ID users alone."""
    allow_overlap: bool = False
    """Whether copies of tests may be trained on, because the recipe says so."""

    def taught(self, role: str) -> list[Scenario]:
        """What a role is tuned on: the RPM, and a simulator of ID turns, on `id_train`, others on `shift_train`.

        Of two scorers each takes every other scenario of every subset. Taken from the whole list instead, the halves would
        be of different subsets, as the world makes these in turn.
        """
        if role == "rpm" or (role == "simulator" and self.id_turns):
            return self.id_train
        if not self.two_scorers or role not in ("scorer", "second"):
            return self.shift_train
        return sorted(self.shift_train, key=lambda x: x.subset_tag)[role == "second" :: 2]

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of a reasoning's sections, in their order."""
        return self.corpus.sections if self.corpus else self.source.sections

    @property
    def thinking(self) -> tuple[str, ...]:
        """Names of the sections of what a model that thinks first writes before its response."""
        return self.thoughts.sections if self.thoughts else ()

    def reasoning(self, scenario: Scenario) -> str:
        """What a good response to a scenario must contain, by the oracle, the file, or a rule; see `data.shifts`.

        Raises:
            DataError: it lacks a section.
        """
        return reasoning_of(self.source, scenario, self.sections)

    def agrees(self, scenario: Scenario, candidate: str) -> bool:
        """Whether a candidate has all that the scenario asks for: in the world by truth, else if it is the reference."""
        if self.truth is not None:
            return self.truth.share_right(scenario, candidate) == 1.0
        return candidate == scenario.reference

    def sound_reference(self, scenario: Scenario, rng: random.Random) -> str:
        """A reference without the noise of pretraining: the world's oracle draws one, a file's own is taken."""
        return scenario.reference if self.truth is None else self.truth.reference(scenario, rng)

    @cached_property
    def _tested(self) -> frozenset[bytes]:
        return frozenset(key for x in self.tests for key in self._keys(x))

    def _keys(self, scenario: Scenario) -> tuple[bytes, ...]:
        return imprint(scenario, exact=self.truth is not None).keys

    def is_tested(self, scenario: Scenario) -> bool:
        """Whether it is a copy of a test; see `coevo.data.overlap`."""
        return not self._tested.isdisjoint(self._keys(scenario))

    def refuse_tests(self, scenarios: Sequence[Scenario], use: str) -> None:
        """Lets nothing pass that is tested on: by the name of its split, or as a copy of a test.

        Raises:
            DataError: names the first such scenario and what it was to be used for.
        """
        splits = {x.split for x in self.tests}
        for x in scenarios:
            if x.split in splits or (not self.allow_overlap and self.is_tested(x)):
                found = f"is of the test split {x.split}" if x.split in splits else "has the content of a test scenario"
                raise DataError(
                    f"sample {x.sample_id!r} {found} and was to be used for {use}, which never sees a test; expected "
                    "training scenarios alone; remove it from the training split, or name other test_splits."
                )

    def example(self, role: Role, scenario: Scenario) -> Scenario:
        """The scenario as a role's tuning shows it."""
        return self.source.example(scenario) if role == "simulator" else scenario

    def pretrain(self, config: Pretrain, seed: int) -> list[Scenario]:
        """Scenarios for a small base: the world's with noisy answers, or the training scenarios of a file."""
        if self.truth is not None:
            return world.generate("ShiftTrain", config.samples or len(self.shift_train), seed, noise=config.noise)
        rng = random.Random(seed)
        count = config.samples or len(self.shift_train)
        return [self.shift_train[rng.randrange(len(self.shift_train))] for _ in range(count)]


def load_material(recipe: Recipe) -> Material:
    """Makes the world's scenarios or reads the file's.

    Raises:
        DataError: the file breaks the format or lacks a split, or a reasoning that is to be taught lacks a section.
        ConfigError: data that do not fit the recipe's batches, negatives or shifts; see `check`.
    """
    check(recipe, count(recipe))
    if isinstance(recipe.data, WorldData):
        material = _from_world(recipe.data, max(REAL_TURNS, recipe.audit.scenarios))
    else:
        material = _from_file(recipe.data)
    material = replace(material, two_scorers=recipe.evaluation.second_scorer, id_turns=recipe.simulator_sft.turns == "id")
    if isinstance(recipe.method, ThinkSFT | ThinkGRPO):
        material = replace(material, thoughts=gather(material.source, material.id_train, recipe.method.sections))
    if recipe.corl is None:
        return material
    corpus = gather(material.source, material.taught("scorer"), recipe.corl.sections)
    material.refuse_tests([x for x, _ in corpus.reasoned], "CoRL")
    return replace(material, corpus=corpus)


def _from_world(data: WorldData, fresh: int) -> Material:
    train = world.generate("IDTrain", data.train + data.dev, seed=0)
    tests: list[Scenario] = []
    for split, tags in world.SPLITS.items():
        if split.endswith("Test"):
            tests += world.generate(split, data.test * len(tags), seed=0)
    shift_train = world.generate("ShiftTrain", data.shift_train, seed=0)
    source = shifts.WorldShifts(train[: data.train])
    real_turns = world.generate("ShiftTrain", fresh, seed=1)
    return Material(train[: data.train], train[data.train :], shift_train, real_turns, tests, source, WorldTruth())


def _from_file(data: FileData) -> Material:
    every = rpgbench.load(data.path, (data.train_split, *data.test_splits)).scenarios
    train = [x for x in every if x.split == data.train_split]
    tests = [x for x in every if x.split != data.train_split]
    if data.test is not None:
        tests = _at_most(tests, data.test)
    train, dev = train[: -data.dev], train[-data.dev :]
    source = shifts.FileShifts(train)
    real_turns = [source.example(x) for x in dev]  # the gates read them as they read the simulator's
    return Material(train, dev, train, real_turns, tests, source, None, allow_overlap=data.allow_overlap)


def _at_most(scenarios: Sequence[Scenario], limit: int) -> list[Scenario]:
    """The first `limit` scenarios of each subset tag."""
    taken: dict[str, int] = {}
    kept: list[Any] = []
    for x in scenarios:
        if taken.setdefault(x.subset_tag, 0) < limit:
            taken[x.subset_tag] += 1
            kept.append(x)
    return kept
