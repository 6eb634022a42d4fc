"""What the reports rely on in the files that they read."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, create_model, model_validator
from pydantic_core import PydanticCustomError

from coevo.config import Evaluation, RealText, RewardWeights
from coevo.records import Count, Number, Shape
from coevo.rewards.verdict import REWARD, parts_of
from coevo.scoring.summary import EXACT, MEASURES
from coevo.scoring.summary import Row as ScenarioRow
from coevo.types import COMPONENTS


class Measure(Shape):
    """A value with its interval."""

    value: Number
    low: Number
    high: Number


class Counted(Shape):
    """How many responses a level has, and how many of each status."""

    n: Annotated[int, Field(ge=1)]
    statuses: dict[str, Count]

    @model_validator(mode="after")
    def _adds_up(self) -> Counted:
        if sum(self.statuses.values()) != self.n:
            raise wrong(f"statuses that add up to n, {self.n}")
        return self


Optional = Measure | None
_MEASURES: dict[str, Any] = dict.fromkeys((*MEASURES, *EXACT, "remid"), (Optional, None))
_MEASURES["components"] = (dict[Literal["u", "c", "d"], Optional], ...)
Measures: Any = create_model("Measures", __base__=Counted, **_MEASURES)
"""A shift or a subset of an evaluation dict; a measure without any number is null or left out."""


class Subset(Measures):  # type: ignore[misc]
    """A subset of an evaluation dict."""

    shift: str


class Shift(Measures):  # type: ignore[misc]
    """A shift of an evaluation dict, and its subsets."""

    subsets: list[str]


class Levels(Shape):
    """Shifts and subsets that fit each other."""

    subsets: dict[str, Subset]
    shifts: dict[str, Shift]

    @model_validator(mode="after")
    def _fit(self) -> Levels:
        for name, shift in self.shifts.items():
            own = [tag for tag, subset in self.subsets.items() if subset.shift == name]
            if sorted(shift.subsets) != sorted(own):
                raise wrong(f"in shifts.{name}.subsets the subsets of that shift, {own}")
        if lost := [tag for tag, subset in self.subsets.items() if subset.shift not in self.shifts]:
            raise wrong(f"a shift for each subset; {lost} have none")
        return self


def wrong(expected: str) -> PydanticCustomError:
    """What a record lacks that no single field shows."""
    # braces would be taken for places to fill
    return PydanticCustomError("unfit", "{expected}", {"expected": expected})


class Measured(Levels):
    """An evaluation dict."""

    model: str
    scorer: str
    estimator: str
    scale: Literal["sum", "token_mean"]
    negatives: str
    k: int
    resamples: int
    seed: Count

    @model_validator(mode="after")
    def _can_be_made(self) -> Measured:
        Evaluation.model_validate({name: getattr(self, name) for name in ("estimator", "negatives", "k", "resamples")})
        return self


class WithSecond(Measured):
    """An evaluation dict, and perhaps the same by a second scorer."""

    second_scorer: Measured | None = None


KINDS: dict[str, Any] = {"str": (str, ...), "int": (int, 0), "float": (Number | None, None)}
Row: Any = create_model("Row", __base__=Shape, **{f.name: KINDS[str(f.type)] for f in fields(ScenarioRow)})
"""A line of an evaluation's rows; an absent number is none."""
ModelRow: Any = create_model("ModelRow", __base__=Row, model=(str, ...))
"""A line of rows.jsonl, of one of several models."""


class Metrics(Shape):
    """A line of metrics.jsonl. Training may have met infinities, which plots leave out; but no figure is a text."""

    phase: str
    role: str | None
    iteration: int | None = None
    step: Number
    kept: Number | bool | None = None
    id_remi_change_nats: Number | None = None
    n: Count | None = None
    more_unscored: Number = 0.0

    @model_validator(mode="after")
    def _figures(self) -> Metrics:
        extra = self.model_extra or {}
        for name, value in extra.items():
            if value is not None and not isinstance(value, int | float) and _is_figure(name):
                raise wrong(f"a number in {name}, found {value!r:.40}")
        if "pass_rate_change" in extra:
            told = [key for key in ("regret", "pass_rate", "reward") if f"{key}_change" in extra]
            wanted = [f"{key}_{end}" for key in told for end in ENDS]
            if absent := [name for name in wanted if not isinstance(extra.get(name), int | float)]:
                raise wrong(f"numbers in {', '.join(absent)} beside pass_rate_change")
            if self.iteration is None or self.n is None:
                raise wrong("iteration and n beside pass_rate_change")
        return self


Loose = Annotated[float, Field(allow_inf_nan=True)]
"""A number that may be none: training met it."""
ENDS = ("parent", "trained", "change", "low", "high")
FIGURES = (
    "loss",
    "reward",
    "regret",
    "pass_rate",
    "distinct_turns",
    "share_right",
    "share_id",
    "kl",
    "repetition",
    "unscored",
)


def _is_figure(name: str) -> bool:
    return name in FIGURES or name.startswith(("part/", "gate/"))


class Rollout(Shape):
    """A line of rollouts.jsonl."""

    phase: str
    role: str
    step: Number | None = None
    sample_id: str | None = None
    subset_tag: str | None = None
    completion: str | None = None
    status: str | None = None
    reward: Loose | None = None
    parts: dict[str, Loose | None] | None = None


class Member(Shape, extra="forbid"):
    """One bad answer of an audit."""

    n: Count
    statuses: dict[str, Count]
    above: dict[str, Measure]
    subsets: dict[str, Number]
    n_good: Count = 0
    good: dict[str, Measure] = Field(default_factory=dict)


class Agreement(Shape, extra="forbid"):
    """The rank agreement of an audit."""

    within: Measure
    overall: Number
    with_battery: Number


class Audit(Shape):
    """audit.json."""

    scorer: str
    weights: dict[str, Number | str]
    at_least: Number
    agreement_at_least: Number
    n: Count
    unscored: Count
    members: dict[str, Member]
    agreement: dict[str, Agreement]
    n_graded: Count

    @model_validator(mode="after")
    def _whole(self) -> Audit:
        wanted = {REWARD, *parts_of(self.weights)}
        block = RealText if "kind" in self.weights else RewardWeights
        unknown = [name for name in self.weights if name not in block.model_fields and ":" not in name]
        if unknown or any(isinstance(weight, str) for name, weight in self.weights.items() if name != "kind"):
            raise wrong(f"known parts of a reward with their numbers in weights, found {unknown or self.weights}")
        tables = {f"members.{name}.above": member.above for name, member in self.members.items()}
        tables |= {f"members.{name}.good": member.good for name, member in self.members.items() if member.good}
        tables |= {"agreement": self.agreement} if self.agreement else {}  # type: ignore[dict-item]
        for name, table in tables.items():
            if absent := sorted(wanted - table.keys()):
                raise wrong(f"{', '.join(absent)} in {name}")
        if empty := [name for name, member in self.members.items() if not member.subsets]:
            raise wrong(f"a share for each subset in members.{empty[0]}.subsets")
        return self


class Kind(Shape):
    """A block of a recipe that has kinds."""

    kind: str = ""


class Corl(Shape):
    """The block `corl` of a recipe."""

    refresh_every: int | None = None


class RecipeText(Shape):
    """What the report reads of resolved.yaml."""

    name: str
    method: Kind | None = None
    corl: Corl | None = None


class Done(Shape):
    """done.json of a phase."""

    manifest: dict[str, str]


class Reading(Shape):
    """A line of ablation.jsonl."""

    sample_id: str
    subset_tag: str
    variant: str
    logprob_nats: Number | None
    n_tokens: Count
    status: str

    @model_validator(mode="after")
    def _read(self) -> Reading:
        if self.status == "ok" and (self.logprob_nats is None or not self.n_tokens):
            raise wrong("logprob_nats and n_tokens where the status is ok")
        return self


EVALUATION, ROW, MODEL_ROW = TypeAdapter(WithSecond), TypeAdapter(Row), TypeAdapter(ModelRow)
METRICS, ROLLOUT, AUDIT = TypeAdapter(Metrics), TypeAdapter(Rollout), TypeAdapter(Audit)
RECIPE, READING, DONE, OBJECT = TypeAdapter(RecipeText), TypeAdapter(Reading), TypeAdapter(Done), TypeAdapter(dict[str, Any])
assert set(COMPONENTS) == {"u", "c", "d"}
