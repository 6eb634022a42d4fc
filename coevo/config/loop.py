"""The blocks `loop` and `corl` of a recipe: the phases of an iteration and the estimator's own training. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from coevo.config.methods import (
    Sections,
    distinct_names,
)
from coevo.config.training import (
    ALGORITHMS,
    GRPO,
    SFT,
    Count,
    Model,
    Positive,
    Rate,
    Rewarded,
    RewardWeights,
    ScorerSFT,
    Share,
    Weight,
    Weights,
    with_algorithm,
)
from coevo.types import PLAIN_SHIFTS, SHIFT_OF_TAG

Gate = Literal["whole", "fluency", "persona", "carry", "novelty"]
GATES: tuple[Gate, ...] = ("whole", "fluency", "persona", "carry", "novelty")


class SimulatorKeys(Model):
    """A simulator phase whatever its algorithm: how the adversary is paid, regret (S1) times gates (S2)."""

    rpm_samples: Positive = 1
    """m: how often the frozen RPM answers each turn."""
    rpm_temperature: Weight = 0.0
    """How the frozen RPM answers: 0 is greedy, as it is evaluated and deployed. A sample's regret differs by tens of nats
    from the next one's, which drowns what the turn itself changes."""
    regret: Weight = 1.0
    """Weight of S1. At 0 the gates alone are rewarded: random shifts in place of adversarial ones, and the RPM's prompts are
    then drawn without a look at regret."""
    gates: tuple[Gate, ...] = GATES
    """Gates that multiply the regret (S2), beside `shift`, which always does: a turn that makes no scenario of the shift
    asked for has no regret either."""
    pass_nats: Weight = 10.0
    """What a turn that passes every gate earns beside its regret, so that a turn of the shift asked for is worth more than a
    broken one where the RPM answers as well as the reference, too."""
    fluency_quantile: Share = 0.05
    persona_quantile: Share = 0.05
    """A gate passes what is not below this quantile of real user turns."""

    @model_validator(mode="after")
    def _answers_differ(self) -> Self:
        if self.rpm_samples > 1 and not self.rpm_temperature:
            raise ValueError(
                f"rpm_samples={self.rpm_samples} greedy answers would all be the same; "
                "set rpm_temperature above 0, or rpm_samples to 1"
            )
        if not self.regret + self.pass_nats:
            raise ValueError("regret and pass_nats are both 0, so every reward would be; expected one above 0")
        return self


SIMULATOR_PHASES = {
    name: with_algorithm(f"Simulator{name.upper()}", SimulatorKeys, name, "The adversary.", steps=(Positive, 40))
    for name in ALGORITHMS
}
"""algorithm -> block `loop.simulator`."""


class ReasonerWeights(Model):
    """Weights of the reasoner's reward parts, each from 0 to 1 (R3, and CoRL's likelihood)."""

    likelihood: Weight = 1.0
    """exp of the mean token log-probability of the reference, given the scenario and the reasoning."""
    structure: Weight = 1.0
    """Share of the sections that parse."""
    economy: Weight = 1.0
    """1 up to the length target, less beyond it; 0 below the floor on distinct tokens."""

    @model_validator(mode="after")
    def _likelihood_counts(self) -> ReasonerWeights:
        if not self.likelihood:
            raise ValueError("likelihood is 0, so a reasoning would be paid for its form alone; expected a weight above 0")
        return self


class ReasonerPhase(GRPO):
    """CoRL (a): the reasoner learns to say what makes the reference likely."""

    steps: Positive = 30
    target: Positive = 48
    """Length in tokens up to which a reasoning costs nothing (R3 economy)."""
    distinct: Positive = 5
    """Fewest distinct tokens outside the sections' names; a reasoning with fewer earns nothing for its economy."""
    weights: ReasonerWeights = ReasonerWeights()


class MatchPhase(GRPO):
    """CoRL (b), second half: the scorer's own responses are to have what the reasoning lists, as the base judges it."""

    steps: Positive = 15
    learning_rate: Rate = 1e-4
    kl: Weight = 0.1
    """Higher than elsewhere: the scorer's likelihoods are what it is for."""
    least_judgement: Share = 0.75
    """The base must tell a scenario's reference from another's in at least this share of cases (0.5 is chance), or its
    judgement is noise, the phase says so and trains nothing."""


class CoRL(Model):
    """Training of reasoner and scorer (method section 5). With it on, they take the place of the plain scorer."""

    cold_start: Positive | None = 1000
    """At most so many reasoned samples for both cold starts; None takes all. Later phases draw from the others."""
    iterations: Annotated[Count, Field(ge=0, le=1000)] = 2
    """0 is the cold start alone."""
    sections: Sections | None = None
    """Names of a reasoning's sections, in their order; None takes those that the data's own reasonings have."""
    temperature: Weight = 0.0
    """Of the reasonings that scorer and measures read: 0 is greedy. A model that repeats itself without end when it decodes
    greedily needs some; each is then drawn by a seed of its scenario's content, always the same."""
    reasoner_sft: SFT = SFT()
    """Cold start of the reasoner. The scorer's is the recipe's `scorer_sft`, with the reasoning shown."""
    reasoner: ReasonerPhase = ReasonerPhase()
    scorer_tune: ScorerSFT = ScorerSFT(samples=1000)
    """CoRL (b), first half: the scorer on scenarios with the reasoner's new output."""
    scorer: MatchPhase = MatchPhase()
    refresh_every: Annotated[Count, Field(gt=0, le=1000)] | None = None
    """After every so many iterations of the game, but the last, one more round of CoRL, on the pool's scenarios too; the
    estimator that comes out rewards from then on. Both evaluations are by the first one, so that they can be compared.
    The game, and so this, is of the method `coevolution` alone."""
    ablation: bool = False
    """Also trains a scorer without reasoning, and measures perplexities of the references with and without."""

    @field_validator("sections")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return distinct_names(names)


class RPMKeys(Model):
    """An RPM phase whatever its algorithm: what it answers to, and how it is paid."""

    id_share: Share = 0.25
    """R2: the anchor's share of the prompts."""
    replay_share: Share = 0.25
    """Share drawn from the pool's older scenarios, by rank of regret and staleness; the rest is fresh."""
    weights: Weights = RewardWeights()

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if self.id_share + self.replay_share > 1:
            raise ValueError(
                f"id_share + replay_share must be at most 1, is {self.id_share + self.replay_share:g}; lower one"
            )
        return self


RPM_PHASES = {
    name: with_algorithm(f"RPM{name.upper()}", RPMKeys, name, "The role-playing model against the shifts of this iteration.")
    for name in ALGORITHMS
}
"""algorithm -> block `loop.rpm`."""


def _algorithm(block: Any) -> Any:
    """By which of its classes a phase is read; a recipe that names no algorithm means GRPO."""
    if isinstance(block, dict):
        return block.get("algorithm", "grpo")
    return getattr(block, "algorithm", "grpo")


def _either(phases: Mapping[str, type[Any]]) -> Any:
    """A phase by whichever algorithm its block names."""
    members = tuple(Annotated[phase, Tag(name)] for name, phase in phases.items())
    return Annotated[Union[members], Discriminator(_algorithm)]  # noqa: UP007  # made of what is there


if TYPE_CHECKING:

    class SimulatorPhase(SimulatorKeys, Rewarded):
        """What all of its classes have."""

    class RPMPhase(RPMKeys, Rewarded):
        """What all of its classes have."""
else:
    SimulatorPhase, RPMPhase = _either(SIMULATOR_PHASES), _either(RPM_PHASES)


class Loop(Model):
    """The co-evolving loop (method section 5); what the method `coevolution` does, and no other."""

    iterations: Annotated[Count, Field(gt=0, le=1000)] = 2
    shifts: tuple[str, ...] = tuple(tag for tag in SHIFT_OF_TAG if tag != "WordLevelComposition")
    """The schedule of shifts that the simulator is asked for, in turn."""
    harvest: Positive = 512
    """Turns that the trained simulator writes for the RPM's phase; those that pass every gate enter the pool."""
    past_share: Share = 0.25
    """Share of the harvest written by simulators of past iterations, so that the game does not cycle."""
    pool_size: Positive = 4096
    tolerance_nats: Weight = 0.5
    """A new RPM is kept only if its R-EMI on held-out ID scenarios fell by no more than this."""
    frozen_simulator: bool = False
    """The simulator stays as its warm start left it: no simulator phases, and that one writes every harvest."""
    simulator: SimulatorPhase = SIMULATOR_PHASES["grpo"]()
    rpm: RPMPhase = RPM_PHASES["grpo"]()

    @field_validator("shifts")
    @classmethod
    def _known_shifts(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        known = (*SHIFT_OF_TAG, *PLAIN_SHIFTS)
        unknown = [tag for tag in tags if tag not in known]
        if unknown or not tags:
            raise ValueError(f"{', '.join(map(repr, unknown)) or 'no tag'}: expected known tags: {', '.join(known)}")
        return tags
