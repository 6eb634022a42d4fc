"""What a recipe will do, phase by phase, and what that costs. Without torch; `--dry-run` and the loop share it."""

from __future__ import annotations

from dataclasses import dataclass

from coevo.config import SFT, CoRL, Recipe, WorldData
from coevo.config.methods import AugmentedSFT, Coevolution, Sampled
from coevo.config.training import Rewarded
from coevo.data.battery import MEMBERS
from coevo.data.world.battery import LADDER
from coevo.plan.check import Counts, check, count
from coevo.plan.cost import Costs, Work, parameters
from coevo.plan.methods import PHASES
from coevo.plan.naming import rounds_at

__all__ = ["Counts", "PhasePlan", "Planner", "check", "count", "parameters", "plan"]

ABLATED = 5
"""Readings of each test's reference that the ablation makes, at most."""


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
    kind: str
    """With the role, a key of `coevo.loop.run.RUNNERS`. `tune` is supervised fine-tuning too, of CoRL's two roles; `online`
    learns from what the policy writes on the way. `as_given`: the RPM is the base as it
    is, in an adapter that adds nothing."""
    role: str | None
    """Whose weights or answers the phase is about; None for the base."""
    iteration: int | None
    """Of the loop, or for CoRL's own phases its round, refreshes included; counted from 1; 1 for a method's own online
    phase; None elsewhere."""
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
    return Planner(recipe, counts).phases()


class Planner:
    """Adds phases one by one, numbering them."""

    def __init__(self, recipe: Recipe, counts: Counts) -> None:
        self.recipe, self.counts, self.costs = recipe, counts, Costs(recipe)
        self._phases: list[PhasePlan] = []

    def phases(self) -> list[PhasePlan]:
        """All of them, in order: what every method begins with, the method's own, and the last evaluation."""
        recipe, counts = self.recipe, self.counts
        if recipe.pretrain is not None:
            # drawn with repetition, so there are as many as asked for
            self._tuning("pretrain", None, recipe.pretrain, recipe.pretrain.samples or counts.shift_train)
        if recipe.corl is not None:
            # first, so that an estimator can be had without the rest (--until)
            self._corl(recipe.corl)
            self._audit()
        if recipe.rpm_sft is None:
            self.add("sft-rpm", "as_given", "rpm", None, (0, 0, 0), Work())
        else:
            self._warm("rpm", recipe.rpm_sft, counts.id_train)
        first, second = counts.scorers(recipe.evaluation)
        if recipe.corl is None:
            if recipe.scorer.kind == "tuned":
                self._warm("scorer", recipe.scorer_sft, first)
            self._audit()
        if recipe.evaluation.second_scorer:
            self._warm("second", recipe.scorer_sft, second)
        if isinstance(recipe.method, Coevolution):
            self._warm("simulator", recipe.simulator_sft, counts.turns(recipe.simulator_sft))
        self._evaluate("sft")
        PHASES[type(recipe.method)](self, recipe.method)
        self._evaluate("final")
        return self._phases

    # what methods are made of --------------------------------------------------------------------------------------

    def add(
        self, name: str, kind: str, role: str | None, iteration: int | None, sizes: tuple[int, int, int], work: Work
    ) -> None:
        """Adds a phase of these sizes (updates, samples, sequences) and costs."""
        number = f"{len(self._phases) + 1:02d}"
        seconds = self.costs.seconds(work)
        self._phases.append(PhasePlan(f"{number}-{name}", kind, role, iteration, *sizes, work.tokens, seconds))

    def train(self, name: str, kind: str, config: SFT, samples: int, written: int) -> None:
        """Adds a phase that trains the RPM on so many samples."""
        updates = samples // config.batch_size * config.epochs
        sequences = updates * config.batch_size
        self.add(name, kind, "rpm", None, (updates, samples, sequences), self.costs.training(sequences, written))

    @staticmethod
    def at_most(config: SFT, available: int) -> int:
        """How many of the samples there are a block takes."""
        return min(config.samples or available, available)

    def online(self, name: str, kind: str, config: Rewarded, written: int) -> None:
        """Adds a phase in which the RPM learns from its own answers to ID prompts."""
        prompts = config.steps * config.prompts
        sequences = prompts * config.group
        work = self.costs.reinforced(config, written) + self.costs.rewarding(sequences, prompts)
        self.add(name, kind, "rpm", 1, (config.steps, prompts, sequences), work)

    def sample(self, config: Sampled) -> int:
        """Adds a phase in which the SFT model answers ID prompts; returns how many."""
        prompts = min(config.prompts or self.counts.id_train, self.counts.id_train)
        answers = prompts * config.group
        work = self.costs.writing(answers, self.costs.response) + self.costs.rewarding(answers, prompts)
        self.add("sample", "sample", "rpm", None, (0, prompts, answers), work)
        return prompts

    def augment(self, config: AugmentedSFT) -> None:
        """Adds the two phases that write copies of the samples and train on both."""
        costs, counts, tune = self.costs, self.counts, self.recipe.rpm_sft
        assert tune is not None, "refused by Recipe"
        samples = self.at_most(tune, counts.id_train)
        copies = samples * config.copies
        # the world's are not written by a model; another's has the texts of a copy to write, one after another
        work = Work() if config.model is None else costs.writing(2 * copies, costs.response)
        self.add("augment", "augment", "rpm", None, (0, samples, copies), work)
        self.train("sft-augmented", "augmented_sft", tune, samples + copies, costs.response)

    def think(self, config: SFT) -> None:
        """Adds the SFT of a model that thinks first."""
        written = self.costs.reasoning + self.costs.response
        self.train("think-sft", "think_sft", config, self.at_most(config, self.counts.id_train), written)

    def iteration(self, k: int) -> None:
        """Adds one iteration of the loop, and what refreshes the estimator before the next."""
        recipe = self.recipe
        if not recipe.loop.frozen_simulator:
            self._simulator(k)
        self._harvest(k)
        self._rpm(k)
        self._accept(k)
        if recipe.corl is not None and k < recipe.loop.iterations and rounds_at(recipe, k + 1) > rounds_at(recipe, k):
            self._round(recipe.corl, rounds_at(recipe, k + 1))
            self._audit(k + 1)

    # phases ---------------------------------------------------------------------------------------------------------

    def _warm(self, role: str, config: SFT, available: int) -> None:
        self._tuning("sft", role, config, self.at_most(config, available))

    def _tuning(
        self, kind: str, role: str | None, config: SFT, samples: int, name: str = "", iteration: int | None = None
    ) -> None:
        costs = self.costs
        updates = samples // config.batch_size * config.epochs
        sequences = updates * config.batch_size
        written = {"simulator": costs.turn, "reasoner": costs.reasoning}.get(role or "", costs.response)
        # a scorer of CoRL reads a reasoning too, which the reasoner wrote for it
        shown = costs.reasoning if kind == "tune" and role == "scorer" else 0
        work = costs.training(sequences, shown + written)
        if iteration is not None:
            work += costs.writing(samples, shown)
        name = name or (kind if role is None else f"{kind}-{role}")
        self.add(name, kind, role, iteration, (updates, samples, sequences), work)

    def _corl(self, corl: CoRL) -> None:
        available, _ = self.counts.scorers(self.recipe.evaluation)
        cold = min(corl.cold_start or available, available)
        scorer_sft = self.recipe.scorer_sft
        n_scorer = min(scorer_sft.samples or cold, cold)
        self._tuning("tune", "reasoner", corl.reasoner_sft, min(corl.reasoner_sft.samples or cold, cold), "sft-reasoner")
        self._tuning("tune", "scorer", scorer_sft, n_scorer, "sft-scorer")
        for k in range(1, corl.iterations + 1):
            self._round(corl, k)
        if corl.ablation:
            self._tuning("tune", "plain", scorer_sft, n_scorer, "sft-plain")
            tests = self.counts.test
            work = self.costs.writing(2 * tests, self.costs.reasoning) + self.costs.scoring(ABLATED * tests)
            self.add("ablation", "ablation", "scorer", None, (0, tests, ABLATED * tests), work)

    def _round(self, corl: CoRL, k: int) -> None:
        available, _ = self.counts.scorers(self.recipe.evaluation)
        samples = corl.scorer_tune.samples or max(0, available - (corl.cold_start or available)) or available
        self._rewarded("reasoner", k, corl.reasoner, self.costs.reasoning)
        self._tuning("tune", "scorer", corl.scorer_tune, samples, f"tune-scorer-{k}", k)
        self._rewarded("scorer", k, corl.scorer, self.costs.response)

    def _rewarded(self, role: str, k: int, config: Rewarded, written: int) -> None:
        """A GRPO phase of CoRL: each completion is read by a frozen model, with and without the reasoning at most."""
        prompts = config.steps * config.prompts
        sequences = prompts * config.group
        work = self.costs.reinforced(config, written) + self.costs.scoring(sequences + prompts)
        self.add(f"{role}-{k}", "grpo", role, k, (config.steps, prompts, sequences), work)

    def _audit(self, iteration: int | None = None) -> None:
        # the reference, the battery and the graded answers, each under its context, alone and, for R3, without reasoning
        world = isinstance(self.recipe.data, WorldData)
        scenarios = self.recipe.audit.scenarios if world else min(self.recipe.audit.scenarios, self.counts.id_dev)
        texts = scenarios * (1 + len(MEMBERS) + (LADDER if world else 0))
        readings = self.costs.readings + bool(self.recipe.weights.agreement)
        work = self.costs.scoring(readings * texts) + self.costs.reasoned(scenarios)
        name = "audit" if iteration is None else f"audit-{iteration}"
        self.add(name, "audit", "scorer", iteration, (0, scenarios, texts), work)

    def _evaluate(self, when: str) -> None:
        # response and reference: under its own context, k others, without u, c, d, and alone; references only once
        tests = self.counts.test
        evaluation = self.recipe.evaluation
        passes = (1 if when == "final" else 2) * (evaluation.k + 5) * (1 + evaluation.second_scorer)
        work = self.costs.writing(tests, self.costs.response) + self.costs.scoring(tests * passes)
        work += self.costs.reasoned(tests if when == "sft" else 0)
        self.add(f"evaluate-{when}", "evaluate", "rpm", None, (0, tests, tests), work)

    def _simulator(self, k: int) -> None:
        config = self.recipe.loop.simulator
        sequences = config.steps * config.prompts * config.group
        work = self.costs.reinforced(config, self.costs.turn) + self.costs.judging(sequences)
        self.add(f"simulator-{k}", "grpo", "simulator", k, (config.steps, config.steps * config.prompts, sequences), work)

    def _harvest(self, k: int) -> None:
        # a simulator that was trained and its parent both write every one
        turns = (1 if self.recipe.loop.frozen_simulator else 2) * self.recipe.loop.harvest
        work = self.costs.writing(turns, self.costs.turn) + self.costs.judging(turns)
        self.add(f"harvest-{k}", "harvest", "simulator", k, (0, turns, turns), work)

    def _rpm(self, k: int) -> None:
        config = self.recipe.loop.rpm
        prompts = config.steps * config.prompts
        parents = min(prompts, self.counts.id_train)
        # baselines: the parents' answers and references
        work = self.costs.reinforced(config, self.costs.response) + self.costs.writing(parents, self.costs.response)
        work += self.costs.rewarding(prompts * config.group, prompts) + self.costs.rewarding(parents, parents)
        self.add(f"rpm-{k}", "grpo", "rpm", k, (config.steps, prompts, prompts * config.group), work)

    def _accept(self, k: int) -> None:
        answers = 2 * self.counts.id_dev
        readings = self.costs.readings * (answers + self.counts.id_dev)
        work = self.costs.writing(answers, self.costs.response) + self.costs.scoring(readings)
        self.add(f"accept-{k}", "accept", "rpm", k, (0, answers, answers), work)
