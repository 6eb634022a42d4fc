"""The recipe: what a run does, as a frozen schema. Class defaults are the vetted setting of the small world.

Read without torch, so that `--help`, `--dry-run` and every bad recipe answer at once. Hardware has no place here: batch
sizes are global (over all processes), and where to run is a file under `launch/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from coevo.tuning import (
    GRPO,
    PPO,
    SFT,
    Count,
    Model,
    Positive,
    Pretrain,
    Rate,
    Real,
    ScorerSFT,
    Share,
    SimulatorSFT,
    Weight,
)
from coevo.types import PLAIN_SHIFTS, SHIFT_OF_TAG

REASONING_FRAME = 32
"""Tokens at most of the message that carries a reasoning to the scorer, the reasoning itself not counted."""
LEAST_VOCAB = 261
"""A byte-level tokenizer has the 256 bytes and 5 special tokens."""


def _folder_name(name: str) -> str:
    if not name.strip() or name[0] in ". " or len(name) > 60 or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("it names the run folder: expected 1 to 60 printable characters without / and \\, not led by a dot")
    return name


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


class HubBase(Model):
    """Any causal language model with a chat template, by hub id or local folder (safetensors)."""

    kind: Literal["hub"]
    path: Annotated[str, Field(min_length=1)]
    dtype: Literal["auto", "bfloat16", "float32"] = "bfloat16"


class LoRA(Model):
    """One adapter a role, on all linear layers."""

    r: Positive = 32
    alpha: Positive = 64
    dropout: Share = 0.0


class Limits(Model):
    """Token limits. What is longer is counted and listed, never cut in silence."""

    prompt: Positive = 512
    response: Positive = 64
    turn: Positive = 48
    reasoning: Positive = 64
    """Longest reasoning; only where `corl` is set."""
    tokens_per_batch: Positive = 16384
    """Scoring: tokens in one forward call, padding and cached prompts included."""


class SimulatorKeys(Model):
    """A simulator phase whatever its algorithm: how the adversary is paid, regret (S1) times gates (S2)."""

    rpm_samples: Positive = 1
    """m: how often the frozen RPM answers each turn."""
    rpm_temperature: Weight = 0.0
    """How the frozen RPM answers: 0 is greedy, as it is evaluated and deployed. A sample's regret differs by tens of nats
    from the next one's, which drowns what the turn itself changes."""
    pass_nats: Weight = 10.0
    """Added to the regret before the gates multiply it, so that a turn of the shift asked for is worth more than a broken
    one where the RPM answers as well as the reference, too."""
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
        return self


class SimulatorPhase(SimulatorKeys, GRPO):
    """The adversary, by GRPO."""

    steps: Positive = 40


class SimulatorPPO(SimulatorKeys, PPO):
    """The adversary, by PPO."""

    steps: Positive = 40


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
    sections: tuple[Annotated[str, Field(pattern=r"^[^\s:]+$")], ...] | None = None
    """Names of a reasoning's sections, in their order; None takes those that the data's own reasonings have."""
    reasoner_sft: SFT = SFT()
    """Cold start of the reasoner. The scorer's is the recipe's `scorer_sft`, with the reasoning shown."""
    reasoner: ReasonerPhase = ReasonerPhase()
    scorer_tune: ScorerSFT = ScorerSFT(samples=1000)
    """CoRL (b), first half: the scorer on scenarios with the reasoner's new output."""
    scorer: MatchPhase = MatchPhase()
    ablation: bool = False
    """Also trains a scorer without reasoning, and measures perplexities of the references with and without."""

    @field_validator("sections")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError("expected at least one name, each once")
        return names


class RewardWeights(Model):
    """Weights of the RPM's reward parts (R1, R2 and R4 in nats, R3 from 0 to 1)."""

    information: Weight = 1.0
    """R1 on shifted scenarios, R2 on ID ones: D1 of the response, relative to its reference."""
    register_gap: Weight = 1.0
    """R4: log q(y|x), what D1 leaves out."""
    agreement: Weight = 0.0
    """R3: how well the response agrees with its scenario's reasoning, 0 to 1 at the reference's level; needs `corl`."""

    @model_validator(mode="after")
    def _some_reward(self) -> RewardWeights:
        if not self.information + self.register_gap + self.agreement:
            raise ValueError("all weights are 0, so every reward would be; expected one above 0")
        return self


class RPMKeys(Model):
    """An RPM phase whatever its algorithm: what it answers to, and how it is paid."""

    id_share: Share = 0.25
    """R2: the anchor's share of the prompts."""
    replay_share: Share = 0.25
    """Share drawn from the pool's older scenarios, by rank of regret and staleness; the rest is fresh."""
    weights: RewardWeights = RewardWeights()

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if self.id_share + self.replay_share > 1:
            raise ValueError(
                f"id_share + replay_share must be at most 1, is {self.id_share + self.replay_share:g}; lower one"
            )
        return self


class RPMPhase(RPMKeys, GRPO):
    """The role-playing model against the shifts of this iteration, by GRPO."""


class RPMPPO(RPMKeys, PPO):
    """The role-playing model against the shifts of this iteration, by PPO."""


def _algorithm(block: Any) -> Any:
    """By which of its classes a phase is read; a recipe that names no algorithm means GRPO."""
    if isinstance(block, dict):
        return block.get("algorithm", "grpo")
    return getattr(block, "algorithm", "grpo")


class Loop(Model):
    """The co-evolving loop (method section 5)."""

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
    simulator: Annotated[
        Annotated[SimulatorPhase, Tag("grpo")] | Annotated[SimulatorPPO, Tag("ppo")], Discriminator(_algorithm)
    ] = SimulatorPhase()
    rpm: Annotated[Annotated[RPMPhase, Tag("grpo")] | Annotated[RPMPPO, Tag("ppo")], Discriminator(_algorithm)] = RPMPhase()

    @field_validator("shifts")
    @classmethod
    def _known_shifts(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        known = (*SHIFT_OF_TAG, *PLAIN_SHIFTS)
        unknown = [tag for tag in tags if tag not in known]
        if unknown or not tags:
            raise ValueError(f"{', '.join(map(repr, unknown)) or 'no tag'}: expected known tags: {', '.join(known)}")
        return tags


class Audit(Model):
    """What a reward must show before anything is trained on it (method section 4)."""

    scenarios: Positive = 192
    """At most so many, of those that no role was tuned on."""
    at_least: Share = 0.99
    """Share of scenarios in which the reference must be worth more than each bad answer."""
    agreement: Annotated[Real, Field(ge=-1, le=1)] = 0.9
    """Rank correlation that the reward must reach with the exact share of right slots; asked for where that is known."""
    on_failure: Literal["stop", "warn"] = "stop"
    """`warn` goes on: for real data, where a reference is one of many right answers, and for tests."""


class Evaluation(Model):
    """What is measured before and after (method sections 2 and 3)."""

    estimator: Literal["learned_marginal", "club", "l1out", "released"] = "club"
    """`released`: the paper's code (CLUB, nats per token, 1,000 random pairs a subset), to compare with its figures only."""
    negatives: Literal["pool", "subset"] = "pool"
    k: Positive = 16
    """Negatives a response, by a circulant design."""
    resamples: Positive = 2000
    """Bootstrap draws of every 95 % interval."""
    repetition_penalty: Rate = 1.0


class Tracking(Model):
    """wandb, beside `metrics.jsonl`; offline unless WANDB_API_KEY is set."""

    wandb: bool = False
    project: str = "coevo"


class Recipe(Model):
    """A whole run."""

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Annotated[Count, Field(ge=0, le=10**18)] = 0
    data: Annotated[WorldData | FileData, Field(discriminator="kind")] = WorldData()
    base: Annotated[SmallBase | HubBase, Field(discriminator="kind")] = SmallBase()
    lora: LoRA | None = LoRA()
    """null trains all weights of a role."""
    limits: Limits = Limits()
    pretrain: Pretrain | None = None
    rpm_sft: SFT = SFT()
    scorer_sft: ScorerSFT = ScorerSFT()
    simulator_sft: SimulatorSFT = SimulatorSFT()
    corl: CoRL | None = None
    """null leaves the scorer without reasoning: R-EMI is then EMI."""
    audit: Audit = Audit()
    loop: Loop = Loop()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        needs_pretrain = isinstance(self.base, SmallBase) and self.base.path is None
        if needs_pretrain != (self.pretrain is not None):
            raise ValueError(
                "pretrain goes with a small base of path null, and only with it: "
                f"base.path is {self.base.path!r} and pretrain is {'set' if self.pretrain else 'null'}"
            )
        if self.loop.rpm.weights.agreement and self.corl is None:
            raise ValueError("loop.rpm.weights.agreement is above 0 and corl is null: there is no reasoning to agree with")
        named = "limits.prompt + the longer of limits.response and limits.turn"
        if self.corl is not None:
            named += f" + limits.reasoning + {REASONING_FRAME} around it"
        if isinstance(self.base, SmallBase) and self.longest > self.base.max_position:
            raise ValueError(
                f"{named} is {self.longest} tokens, and "
                f"base.max_position={self.base.max_position}; lower a limit, or raise max_position of a base to be built"
            )
        return self

    @property
    def longest(self) -> int:
        """The most tokens of a prompt with its text, a reasoning included where there is one."""
        reasoning = self.limits.reasoning + REASONING_FRAME if self.corl is not None else 0
        return self.limits.prompt + max(self.limits.response, self.limits.turn) + reasoning
