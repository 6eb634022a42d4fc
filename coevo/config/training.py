"""Blocks of a recipe that say how a role is tuned, and the types of all numbers in a recipe. Without torch."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, found true or false")
    return value


Count = Annotated[int, BeforeValidator(_no_boolean)]
Real = Annotated[float, BeforeValidator(_no_boolean)]
Positive = Annotated[Count, Field(gt=0, le=10**9)]
Rate = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Weight = Annotated[Real, Field(ge=0)]


Loss = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo", "gspo"]


class Model(BaseModel):
    """Frozen, and strict about names: an unknown key is an error. Numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SFT(Model):
    """Supervised fine-tuning of one role."""

    samples: Positive | None = None
    """At most so many; None takes all there are."""
    epochs: Positive = 1
    batch_size: Positive = 32
    """Sequences per update, over all processes."""
    accumulation: Positive = 1
    """Backward passes per update and process; raises what fits in memory, changes no result."""
    learning_rate: Rate = 2e-3
    warmup: Share = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Rate = 1.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    save_steps: Positive = 200

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size={self.batch_size} must be a multiple of accumulation={self.accumulation}")
        return self


class Pretrain(SFT):
    """Noisy answers over the whole world, so that the small base knows every language and is sure of none."""

    samples: Positive | None = 32000
    batch_size: Positive = 64
    learning_rate: Rate = 3e-3
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.98
    short_history: Share = 0.7
    """Share of samples that show the last query alone: a look-up in the card is learnt far sooner from a short context,
    and holds in a long one."""
    noise: Share = 0.2
    """Share of slots replaced by a random phrase of any language (world data only)."""
    role_shares: tuple[Weight, Weight] = (0.8, 0.2)
    """How often a sample teaches the agent's answer, and how often the user's turn."""
    reasoning_shares: tuple[Weight, Weight, Weight] = (0.0, 0.0, 0.0)
    """On the scale of `role_shares`, how often one teaches the reasoning, the answer with its reasoning shown, and the
    statement of agreement that CoRL's match reward reads off the base."""

    @field_validator("role_shares")
    @classmethod
    def _some_role(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not sum(value):
            raise ValueError("expected at least one share above 0")
        return value


class ScorerSFT(SFT):
    """The scorer, with context dropout, so that one model gives q(y|x), q(y|x without z) and q(y|nothing) (M4)."""

    context_dropout: Share = 0.5


class SimulatorSFT(SFT):
    """Warm start of the simulator on real user turns; the persona is dropped at times, for the persona gate (S2)."""

    context_dropout: Share = 0.25
    turns: Literal["all", "id"] = "all"
    """Whose turns: of all training scenarios, or of ID users alone, where nobody has collected others. The simulator then
    learns from the gates how the others write."""


class Rewarded(Model):
    """What every algorithm shares that samples completions and learns from their rewards."""

    if TYPE_CHECKING:
        algorithm: str
        """Each has its own name as its only value and default."""

    steps: Positive = 60
    """Times that completions are sampled and learnt from."""
    prompts: Positive = 12
    """Prompts per step, over all processes."""
    group: Annotated[Count, Field(ge=2, le=10**6)] = 8
    """Completions per prompt."""
    accumulation: Positive = 1
    learning_rate: Rate = 3e-4
    kl: Weight = 0.02
    """Weight of the KL divergence to the phase's start."""
    temperature: Rate = 1.0
    max_grad_norm: Rate = 1.0
    save_steps: Positive = 20

    @property
    def passes(self) -> int:
        """How often each completion is trained on."""
        return 1

    @property
    def pieces(self) -> int:
        """Into how many equal parts each process's completions of a step are cut, for updates and backward passes."""
        return self.accumulation

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.prompts % self.accumulation:
            raise ValueError(f"prompts={self.prompts} must be a multiple of accumulation={self.accumulation}")
        return self


class GRPO(Rewarded):
    """Group relative policy optimisation, through TRL."""

    algorithm: Literal["grpo"] = "grpo"
    loss: Loss = "dr_grpo"
    """By name; `gspo` is the `grpo` loss with importance ratios of whole sequences."""
    scale_rewards: Literal["group", "batch", "none"] = "batch"
    """By what a group's centred rewards are divided. By its own deviation (`group`), a group whose answers are equally good
    would weigh as much as one with something to learn."""


class PPO(Rewarded):
    """Proximal policy optimisation with a value head (Schulman et al. 2017), on TRL's sampling.

    The reward is standardised before anything else, so that `kl`, `value_weight` and `value_clip` mean the same whether
    rewards are tens of nats or fractions.
    """

    algorithm: Literal["ppo"] = "ppo"
    epochs: Positive = 4
    """Passes over a step's completions."""
    minibatches: Positive = 1
    """Updates a pass."""
    gamma: Share = 1.0
    """Discount from one token to the next. An answer is worth the same however long it is."""
    lam: Share = 0.95
    """λ of the advantage estimate: 1 is the reward to go less the value, 0 trusts the values alone."""
    clip: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """A token whose probability has changed by more than this share since it was sampled is pushed no further."""
    value_clip: Rate = 0.2
    """The same for its value, in deviations of the reward."""
    value_weight: Rate = 0.1
    """Of the value's loss against the policy's. They share the trunk."""

    @property
    def passes(self) -> int:
        """How often each completion is trained on."""
        return self.epochs

    @property
    def pieces(self) -> int:
        """Into how many equal parts each process's completions of a step are cut, for updates and backward passes."""
        return self.accumulation * self.minibatches

    @property
    def updates(self) -> int:
        """Optimizer's updates in a step."""
        return self.epochs * self.minibatches

    @model_validator(mode="after")
    def _minibatches_divide(self) -> Self:
        if self.prompts % self.pieces:
            raise ValueError(
                f"prompts={self.prompts} must be a multiple of accumulation={self.accumulation} × "
                f"minibatches={self.minibatches}"
            )
        return self


_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _function_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}: expected package.module:function")
    return name


ALGORITHMS: dict[str, type[Rewarded]] = {"grpo": GRPO, "ppo": PPO}
"""Algorithms that learn from rewards, by the name that a recipe gives them; each can train the RPM, in the loop and alone,
and the simulator. What trains is the row of the same name in `coevo.train.algorithms.TRAINERS`."""


def with_algorithm(name: str, keys: type[Model], algorithm: str, about: str, **defaults: tuple[Any, Any]) -> type[Any]:
    """A block that has a phase's own keys and an algorithm's.

    Args:
        name: of the class.
        keys: the phase's own.
        algorithm: a name in `ALGORITHMS`.
        about: what the phase does, a sentence.
        defaults: key -> (type, default), where the phase needs another default.
    """
    values = {"__module__": keys.__module__, "__doc__": about, **{key: value for key, (_, value) in defaults.items()}}
    values["__annotations__"] = {key: kind for key, (kind, _) in defaults.items()}
    made = type(name, (keys, ALGORITHMS[algorithm]), values)
    # a recipe goes to other processes by pickle, which finds classes by name
    setattr(sys.modules[keys.__module__], name, made)
    return made


Functions = dict[Annotated[str, AfterValidator(_function_name)], Weight]
"""Name of a function -> the weight of what it gives; see `coevo.plan.functions`."""


BESIDE = ("functions", "judge", "reward_model")
"""Keys of a reward's weights that are no numbers: parts beside the scorer's own."""


class JudgePart(Model):
    """A language model's scores by a rubric (`coevo judge`), as a part of a reward: 0 the worst, 1 the best."""

    weight: Rate = 1.0
    rubric: str
    """Its name, or a YAML file of yours. The part is the mean over its dimensions."""
    endpoint: str
    """Base URL of an OpenAI-compatible server."""
    model: str
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable with the server's key; null for one that asks for none."""
    max_tokens: Positive = 1024
    concurrency: Positive = 8


class RewardModelPart(Model):
    """A reward model's score, as a part of a reward: a sequence classifier with one output."""

    weight: Rate = 1.0
    path: str
    """A folder with safetensors weights, or a hub id."""


class _Parts(Model):
    """What the blocks of a reward's weights have in common."""

    @property
    def beside(self) -> dict[str, float]:
        """Weights of the parts beside the scorer's own, by name."""
        found: dict[str, float] = dict(self.model_dump(include={"functions"})["functions"])
        found |= {name: part.weight for name in ("judge", "reward_model") if (part := getattr(self, name)) is not None}
        return found

    @property
    def by_part(self) -> dict[str, Any]:
        """Settings by name, the weights of the parts beside the scorer's own among them."""
        return self.model_dump(exclude=set(BESIDE)) | self.beside


class RewardWeights(_Parts):
    """Weights of the RPM's reward parts (R1, R2 and R4 in nats, R3 from 0 to 1).

    A part beyond the first two is a row of `coevo.rewards.parts.FURTHER_PARTS`, and costs nothing where its weight is 0.
    """

    information: Weight = 1.0
    """R1 on shifted scenarios, R2 on ID ones: D1 of the response, relative to its reference."""
    register_gap: Weight = 1.0
    """R4: log q(y|x), what D1 leaves out."""
    agreement: Weight = 0.0
    """R3: how well the response agrees with its scenario's reasoning, 0 to 1 at the reference's level; needs `corl`."""
    functions: Functions = Field(default_factory=dict)
    """Further parts of yours, `package.module:function` -> weight."""
    judge: JudgePart | None = None
    """A judge's scores by a rubric, as a further part."""
    reward_model: RewardModelPart | None = None
    """A reward model's score, as a further part."""

    @model_validator(mode="after")
    def _some_reward(self) -> RewardWeights:
        if not any(self.model_dump().values()):
            raise ValueError("all weights are 0, so every reward would be; expected one above 0")
        return self


class RealText(_Parts):
    """R6: the RPM's reward for real text, in nats per root of a token, at most the reference's and half of what is above.

    Summed nats pay for short and bland answers there, which any scorer finds likely. See `coevo.scoring.real_text`.
    """

    kind: Literal["real_text"] = "real_text"
    contrast: Weight = 1.0
    """D1: how much likelier the response is in its own context than in others' (CLUB)."""
    marginal: Weight = 0.3
    """How much likelier it is in its own context than in none (M4)."""
    length: Share = 0.5
    """Both are divided by this power of the number of tokens: 0 is their sum, which grows with length, 1 is per token."""
    overshoot: Share = 0.5
    """Of what exceeds the reference's, so much counts."""
    shortfall: Weight = 1.0
    """Register: what the response lacks to the reference's likelihood per token. What is likelier earns nothing."""
    echo: Weight = 6.0
    """What is copied from the query or the context, in nats per copied token; what the reference copies is free."""
    loop: Weight = 4.0
    """The same of what the response has said before."""
    unended: Weight = 2.0
    """A response that breaks off where the reference does not."""
    negatives: Positive = 3
    """Other contexts a response."""
    functions: Functions = Field(default_factory=dict)
    """Further parts of yours, `package.module:function` -> weight."""
    judge: JudgePart | None = None
    """A judge's scores by a rubric, as a further part."""
    reward_model: RewardModelPart | None = None
    """A reward model's score, as a further part."""

    @property
    def least_scenarios(self) -> int:
        """Training scenarios that there must be: a scenario's own content and its parent are no negatives of it."""
        return self.negatives + 2

    @property
    def agreement(self) -> float:
        """R3 is no part of it."""
        return 0.0

    @model_validator(mode="after")
    def _some_reward(self) -> RealText:
        if not self.contrast + self.marginal:
            raise ValueError("contrast and marginal are both 0, so nothing good would be paid for; expected one above 0")
        return self


def _reward_kind(block: Any) -> Any:
    """By which of its classes a block of weights is read; without a kind it is the plain one."""
    if isinstance(block, dict):
        return block.get("kind", "plain")
    return "real_text" if isinstance(block, RealText) else "plain"


Weights = Annotated[
    Annotated[RewardWeights, Tag("plain")] | Annotated[RealText, Tag("real_text")], Discriminator(_reward_kind)
]
"""Of the RPM's reward."""
