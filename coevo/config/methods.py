"""How a role-playing model is trained once its SFT is done: one block a method, told apart by `kind`. Without torch.

A block has the method's keys; its phases are a row of `coevo.plan.methods.PHASES`, and what runs them is a row of
`coevo.loop.methods.RUNNERS`. What comes before is the same for all methods, with the same numbers and so the same seeds:
methods on one recipe share their SFT model, scorer and audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

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
    Share,
    Weight,
    Weights,
    with_algorithm,
)

Way = Literal["paraphrase", "persona", "translation"]
Sections = tuple[Annotated[str, Field(pattern=r"^[^\s:]+$")], ...]
"""Names of a reasoning's sections, in their order."""
Preference = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm",
]  # fmt: skip
"""DPO's losses, by TRL's names."""


Marks = tuple[Annotated[str, Field(pattern=r"^\S{0,16}$")], Annotated[str, Field(pattern=r"^\S{1,16}$")]]
"""What opens and what closes a thought; with an empty opening mark, every text begins with its thought."""


def distinct_names(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Checks names of sections."""
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError("expected at least one name, each once")
    return names


class Coevolution(Model):
    """The loop against a simulator, as the block `loop` of the recipe says."""

    kind: Literal["coevolution"] = "coevolution"


class PlainSFT(Model):
    """Nothing after the SFT: what the other methods are compared with."""

    kind: Literal["sft"]


class AugmentedSFT(Model):
    """SFT, from the base, on the ID samples and on copies of them: `rpm_sft` says how."""

    kind: Literal["augmented_sft"]
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = ("paraphrase", "persona", "translation")
    """What becomes of a copy: the same in other words, the same from another user, the same in another language."""
    copies: Positive = 3
    """Of each sample; `ways` and `languages` go round."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("German", "Spanish", "Chinese", "Japanese", "Korean")
    """What is translated into, by their English names."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Writes the copies of a file's samples: a local folder or a hub id. The world writes its own, with exact references."""
    temperature: Weight = 0.7
    """Of that model; 0 is greedy."""

    @field_validator("ways", "languages")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("expected each once")
        return names


class Sampled(Model):
    """Answers of the SFT model to ID prompts, each with the RPM's reward."""

    prompts: Positive | None = None
    """At most so many ID scenarios; None takes all."""
    group: Annotated[Count, Field(ge=2, le=10**6)] = 8
    """Answers per prompt."""
    temperature: Rate = 1.0
    weights: Weights = RewardWeights()


class RejectionSFT(Sampled):
    """The SFT model goes on with SFT on the best of its own answers (RAFT, Dong et al. 2023)."""

    kind: Literal["rejection_sft"]
    tune: SFT = SFT(learning_rate=1e-3)


class DPO(Sampled):
    """Direct preference optimisation (Rafailov et al. 2023) on the best and the worst answer to each prompt."""

    kind: Literal["dpo"]
    margin_nats: Weight = 1.0
    """The best answer must be worth so much more than the worst, or the prompt gives no pair."""
    beta: Rate = 0.1
    """Weight of the divergence from the SFT model; of `ipo`, its regulariser."""
    loss: Preference = "sigmoid"
    label_smoothing: Annotated[Share, Field(lt=0.5)] = 0.0
    """For `robust` and `exo_pair`: the share of pairs taken to be the wrong way round."""
    tune: SFT = SFT(batch_size=16, learning_rate=3e-4)
    """How the pairs are trained on; `batch_size` and `samples` count pairs."""

    @model_validator(mode="after")
    def _smoothed(self) -> DPO:
        smooths = self.loss in ("robust", "exo_pair")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss exo_pair needs label_smoothing above 0; its paper takes 0.001")
        if self.label_smoothing and not smooths:
            raise ValueError(f"label_smoothing={self.label_smoothing:g} does nothing under loss={self.loss}; omit it")
        return self


if TYPE_CHECKING:
    _Learner = Rewarded
else:
    _Learner = Model


class Online(_Learner):
    """An algorithm that learns from rewards, on ID scenarios, with the RPM's reward; no simulator, no shifts."""

    kind: str
    weights: Weights = RewardWeights()
    """`information: 0` is plain likelihood; with both it has the mutual information's term; `agreement` makes it full."""


ONLINE = {
    name: with_algorithm(f"Online{name.upper()}", Online, name, Online.__doc__ or "", kind=(Literal[name], ...))  # type: ignore[valid-type]
    for name in ALGORITHMS
}
"""algorithm -> its block as a method."""


class Thinking(Model):
    """What a model that writes its reasoning first is taught by SFT."""

    sections: Sections | None = None
    """Names of the reasoning's sections, in their order; None takes those that the data's own reasonings have."""
    marks: Marks = ("<think>", "</think>")
    """Around the reasoning: text that the base can write and that no response holds."""
    tune: SFT = SFT()

    @field_validator("sections", "marks")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return distinct_names(names)


class ThinkSFT(Thinking):
    """SFT, from the base, of a model that writes its reasoning and then its response."""

    kind: Literal["think_sft"]


class ThoughtWeights(Model):
    """Weights of what a model's own reasoning earns (R3), in nats for a part of 1; the response's reward is in nats."""

    structure: Weight = 4.0
    """Share of the sections that parse."""
    economy: Weight = 1.0
    """1 up to the length target, less beyond it; 0 below the floor on distinct tokens."""
    evidence: Weight = 0.0
    """Nats per token by which the reasoning makes the reference likelier; needs `corl`, whose scorer reads reasonings."""
    agreement: Weight = 0.0
    """How far the response goes along with its own reasoning, 0 to 1 at the reference's level; needs `corl`."""


class ThinkGRPO(Thinking, GRPO):
    """`think_sft`, and then GRPO on ID scenarios with the RPM's reward of the response and R3 of the reasoning."""

    kind: Literal["think_grpo"]
    weights: Weights = RewardWeights()
    target: Positive = 48
    """Length in tokens up to which a reasoning costs nothing (R3 economy)."""
    distinct: Positive = 5
    """Fewest distinct tokens outside the sections' names; a reasoning with fewer earns nothing for its economy."""
    thought: ThoughtWeights = ThoughtWeights()


def _by_name(value: Any) -> Any:
    """`method: dpo` is `method: {kind: dpo}`."""
    return {"kind": value} if isinstance(value, str) else value


BLOCKS: tuple[type[Any], ...] = (
    Coevolution,
    PlainSFT,
    AugmentedSFT,
    RejectionSFT,
    DPO,
    *ONLINE.values(),
    ThinkSFT,
    ThinkGRPO,
)
if TYPE_CHECKING:
    Method = Any
else:
    Method = Annotated[Annotated[Union[BLOCKS], Field(discriminator="kind")], BeforeValidator(_by_name)]  # noqa: UP007
METHOD_BLOCKS: dict[str, type[Model]] = {get_args(block.model_fields["kind"].annotation)[0]: block for block in BLOCKS}
"""kind -> its block, in the order of the union."""
