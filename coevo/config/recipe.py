"""The recipe: what a run does, as a frozen schema. Class defaults are the vetted setting of the small world.

Read without torch, so that `--help`, `--dry-run` and every bad recipe answer at once. Hardware has no place here: batch
sizes are global (over all processes), and where to run is a file under `launch/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from coevo.config.inputs import FileData, HubBase, PromptTexts, ScorerModel, SmallBase, WorldData
from coevo.config.loop import CoRL, Loop
from coevo.config.methods import (
    METHOD_BLOCKS,
    AugmentedSFT,
    Coevolution,
    Method,
    PlainSFT,
    ThinkGRPO,
    ThinkSFT,
)
from coevo.config.training import (
    SFT,
    Count,
    Model,
    Positive,
    Pretrain,
    Rate,
    Real,
    RealText,
    RewardWeights,
    ScorerSFT,
    Share,
    SimulatorSFT,
)
from coevo.prompts import Prompts, SetName, named, replaced

REASONING_FRAME = 32
"""Tokens at most of what is around a reasoning: the message that carries it to the scorer, or the marks of a thought."""
REQUEST_TO_THINK = 48
"""Tokens at most of the request to think first, which a prompt has beyond the plain one's."""


def folder_name(name: str) -> str:
    """Checks a name that becomes a folder's."""
    if not name.strip() or name[0] in ". " or len(name) > 60 or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("it names the run folder: expected 1 to 60 printable characters without / and \\, not led by a dot")
    return name


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
    """Longest reasoning; only where `corl` is set or the method thinks first."""
    tokens_per_batch: Positive = 16384
    """Scoring: tokens in one forward call, padding and cached prompts included."""


REAL_TEXT = {"kind": "real_text"}


def is_file(data: Any) -> bool:
    """Whether a recipe's block of data, read or not, names a file."""
    return isinstance(data, FileData) or (isinstance(data, Mapping) and data.get("kind") == "file")


def with_real_text(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's tree with R6 as the loop's reward where it gives no weights; a method's own are the loop's by default."""
    method, loop = tree.get("method"), tree.get("loop", {})
    rpm = loop.get("rpm", {}) if isinstance(loop, Mapping) else None
    if not isinstance(rpm, Mapping):
        return dict(tree)
    weights = rpm.get("weights", REAL_TEXT)
    found = {**tree, "loop": {**loop, "rpm": {**rpm, "weights": weights}}}
    block = {"kind": method} if isinstance(method, str) else method
    if isinstance(block, Mapping) and "weights" in getattr(METHOD_BLOCKS.get(block.get("kind", "")), "model_fields", ()):
        found["method"] = {"weights": weights, **block}
    return found


AT_LEAST = {"world": 0.99, "file": 0.9}
"""data.kind -> what an audit asks for unless the recipe says more: a real reference is one of many right answers."""


class Audit(Model):
    """What a reward must show before anything is trained on it (method section 4)."""

    scenarios: Positive = 192
    """At most so many, of those that no role was tuned on."""
    at_least: Share | None = None
    """Share of scenarios in which the reference, and other right answers where any are known, must be worth more than each
    bad answer; null is `AT_LEAST` of the data."""
    agreement: Annotated[Real, Field(ge=-1, le=1)] = 0.9
    """Rank correlation that the reward must reach with the exact share of right slots; asked for where that is known."""
    on_failure: Literal["stop", "warn"] = "stop"
    """`warn` goes on, for tests and for those who know what they will find."""

    def share(self, kind: str) -> float:
        """`at_least`, of data of this kind."""
        return AT_LEAST[kind] if self.at_least is None else self.at_least


class Evaluation(Model):
    """What is measured before and after (method sections 2 and 3)."""

    estimator: Literal["learned_marginal", "club", "l1out", "released"] = "club"
    """`released`: the paper's code (CLUB, nats per token, 1,000 random pairs a subset), to compare with its figures only."""
    negatives: Literal["pool", "subset"] = "pool"
    k: Positive = 16
    """Negatives a response, by a circulant design."""
    resamples: Annotated[Count, Field(ge=20, le=10**6)] = 2000
    """Bootstrap draws of every 95 % interval; with fewer than 20 its ends would tell nothing."""
    repetition_penalty: Rate = 1.0
    second_scorer: bool = False
    """Trains a second scorer, by `scorer_sft` from another seed; the two share the scorer's data, half each. It rewards
    nothing and measures what the first one measures: a gain that it does not see is the reward being gamed."""


Tracker = Literal["wandb", "tensorboard", "mlflow", "trackio"]


class Tracking(Model):
    """Where metrics are logged beside `metrics.jsonl`: on this machine, unless a variable names a server.

    wandb is offline unless WANDB_API_KEY is set; MLflow takes MLFLOW_TRACKING_URI; trackio takes TRACKIO_DIR.
    """

    to: tuple[Tracker, ...] = ()
    project: str = "coevo"

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, tree: Any) -> Any:
        """Takes one name for a list of it, and the key of runs begun before there were several."""
        if not isinstance(tree, Mapping):
            return tree
        found = dict(tree)
        if isinstance(found.get("wandb"), bool) and "to" not in found:
            found["to"] = ["wandb"] if found.pop("wandb") else []
        if isinstance(found.get("to"), str):
            found["to"] = [found["to"]]
        return found


class Recipe(Model):
    """A whole run."""

    name: Annotated[str, AfterValidator(folder_name)]
    seed: Annotated[Count, Field(ge=0, le=10**18)] = 0
    data: Annotated[WorldData | FileData, Field(discriminator="kind")] = WorldData()
    base: Annotated[SmallBase | HubBase, Field(discriminator="kind")] = SmallBase()
    lora: LoRA | None = LoRA()
    """null trains all weights of a role, in float32."""
    prompts: PromptTexts = PromptTexts()
    limits: Limits = Limits()
    pretrain: Pretrain | None = None
    rpm_sft: SFT | None = SFT()
    """null for a base that plays its characters already: the run begins with it as it is."""
    scorer_sft: ScorerSFT = ScorerSFT()
    simulator_sft: SimulatorSFT = SimulatorSFT()
    scorer: ScorerModel = ScorerModel()
    corl: CoRL | None = None
    """null leaves the scorer without reasoning: R-EMI is then EMI."""
    method: Method = Coevolution()
    """What is done to the RPM after its SFT; a name alone (`method: dpo`) takes the method's defaults."""
    audit: Audit = Audit()
    loop: Loop = Loop()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @model_validator(mode="before")
    @classmethod
    def _rewards_of_its_data(cls, tree: Any) -> Any:
        """Writes R6 where data are a file and no weights are given: the world's own reward is none for real text."""
        return with_real_text(tree) if isinstance(tree, Mapping) and is_file(tree.get("data")) else tree

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        needs_pretrain = isinstance(self.base, SmallBase) and self.base.path is None
        if needs_pretrain != (self.pretrain is not None):
            raise ValueError(
                "pretrain goes with a small base of path null, and only with it: "
                f"base.path is {self.base.path!r} and pretrain is {'set' if self.pretrain else 'null'}"
            )
        if self.corl is not None and self.scorer.kind == "zero_shot":
            raise ValueError("scorer.kind is zero_shot and corl is set, which trains a scorer; set corl to null, or tune")
        if self.corl is None:
            self._without_reasoner()
        elif isinstance(self.method, Coevolution):
            self._is_refreshed(self.corl)
        if self.rpm_sft is None and isinstance(self.method, PlainSFT | AugmentedSFT):
            raise ValueError(
                f"rpm_sft is null and method is {self.method.kind}, which trains by it: nothing would be trained; give "
                "rpm_sft, or choose another method (coevo score measures a model as it is)"
            )
        if isinstance(self.method, AugmentedSFT):
            self._has_a_writer(self.method)
        named = "limits.prompt + the longer of limits.response and limits.turn"
        if self._around_reasoning:
            named += f" + limits.reasoning + {self._around_reasoning} around it"
        if isinstance(self.base, SmallBase) and self.longest > self.base.max_position:
            raise ValueError(
                f"{named} is {self.longest} tokens, and "
                f"base.max_position={self.base.max_position}; lower a limit, or raise max_position of a base to be built"
            )
        return self

    def _without_reasoner(self) -> None:
        """Refuses what only a scorer that reads reasonings can say."""
        if self.weights.agreement:
            raise ValueError(
                f"{self.weights_key}.agreement is above 0 and corl is null: there is no reasoning to agree with"
            )
        if isinstance(self.method, ThinkGRPO):
            for name in ("evidence", "agreement"):
                if getattr(self.method.thought, name):
                    raise ValueError(
                        f"method.thought.{name} is above 0 and corl is null: the scorer reads no reasonings; "
                        "set corl, or the weight to 0"
                    )

    def _is_refreshed(self, corl: CoRL) -> None:
        """Refuses a refresh that would never come."""
        if corl.refresh_every is not None and corl.refresh_every >= self.loop.iterations:
            raise ValueError(
                f"corl.refresh_every={corl.refresh_every} and loop.iterations={self.loop.iterations}: no refresh would "
                "come, as there is none after the last iteration; lower refresh_every, or set it to null"
            )

    def _has_a_writer(self, method: AugmentedSFT) -> None:
        """Refuses copies that nobody can write."""
        if isinstance(self.data, FileData) and method.model is None:
            raise ValueError(
                "method.model is null: no oracle knows the references of a file's copies; "
                "name the model that is to write them, a local folder or a hub id"
            )
        if isinstance(self.data, WorldData) and method.model is not None:
            raise ValueError(
                f"method.model is {method.model!r}: the world writes its copies itself, with exact references; omit it"
            )

    @property
    def prompt_set(self) -> Prompts:
        """The prompts of this run: the recipe's own, and coevo's where it gives none."""
        default: SetName = "instruct" if isinstance(self.base, HubBase) else "short"
        return replaced(named(self.prompts.set or default), self.prompts.texts)

    @property
    def template(self) -> Mapping[str, Any]:
        """Further arguments of the base's chat template."""
        return self.base.template if isinstance(self.base, HubBase) else {}

    @property
    def reading(self) -> str:
        """Hash of prompts and template arguments, which a model reads around the data; empty for the short prompts alone."""
        stamp = self.prompt_set.stamp
        if not self.template:
            return stamp
        return hashlib.sha256(json.dumps([stamp, self.template], sort_keys=True).encode()).hexdigest()

    @property
    def thinks(self) -> bool:
        """Whether the method's RPM writes its reasoning before its response."""
        return isinstance(self.method, ThinkSFT | ThinkGRPO)

    @property
    def weights(self) -> RewardWeights | RealText:
        """Of the RPM's reward: the method's own, or the loop's where it has none."""
        own = getattr(self.method, "weights", None)
        return own if isinstance(own, RewardWeights | RealText) else self.loop.rpm.weights

    @property
    def weights_key(self) -> str:
        """Where in the recipe they are."""
        return "method.weights" if hasattr(self.method, "weights") else "loop.rpm.weights"

    @property
    def longest(self) -> int:
        """The most tokens of a prompt with its text, a reasoning included where there is one."""
        reasoning = self.limits.reasoning + self._around_reasoning if self._around_reasoning else 0
        return self.limits.prompt + max(self.limits.response, self.limits.turn) + reasoning

    @property
    def _around_reasoning(self) -> int:
        """Tokens at most of what goes with a reasoning; 0 where nobody reads or writes one."""
        if self.thinks:
            return REASONING_FRAME + REQUEST_TO_THINK
        return REASONING_FRAME if self.corl is not None else 0
