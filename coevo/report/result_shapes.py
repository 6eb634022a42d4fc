"""What the reports rely on in the results of `coevo score`, `coevo judge` and `coevo experiment`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from coevo.records import Count, Number, Shape
from coevo.report.shapes import Counted, Levels, Shift, Subset, wrong

Span = Annotated[list[Count], Field(min_length=2, max_length=2)] | None


class Divergence(Shape):
    """A D_JS with its null."""

    raw: Number
    null_mean: Number
    null_high: Number
    p_value: Number
    corrected: Number


class Shares(Shape):
    """What a B2 is made of."""

    u: Number
    c: Number
    d: Number


class Bound(Shape):
    """A B2."""

    value: Number
    shares: Shares
    response: Number


class Risked(Subset):
    """A subset of a diagnosis; in distribution it has no risk."""

    n_negatives: Span
    bound: Bound | None = None
    bound_raw: Bound | None = None
    gap: Divergence | None = None
    response: Divergence | None = None

    @model_validator(mode="after")
    def _has_both(self) -> Risked:
        if self.bound and not self.bound_raw:
            raise wrong("bound_raw beside bound")
        return self


class Diagnosed(Shift):
    """A shift of a diagnosis."""

    n_negatives: Span


class Against(Shape):
    """A model's differences from the first one."""

    model: str
    shifts: dict[str, Shift]


class Worst(Shape):
    """The worst case."""

    subset: str


class Turn(Shape):
    """One message."""

    role: str
    text: str


class Case(Shape):
    """One of the costliest scenarios."""

    sample_id: str
    subset_tag: str
    persona: str
    character: str
    dialogue: list[Turn]
    response: str
    reference: str
    remi: Number
    register_gap: Number
    component_u: Number | None
    component_c: Number | None
    component_d: Number | None


class DiagnosedModel(Levels):
    """All of one model."""

    subsets: dict[str, Risked]  # type: ignore[assignment]
    shifts: dict[str, Diagnosed]  # type: ignore[assignment]
    verdict: list[str]
    against: Against | None
    worst_case: Worst | None
    costliest: list[Case]
    unscored: dict[str, list[str]]

    @model_validator(mode="after")
    def _has_worst(self) -> DiagnosedModel:
        if self.worst_case is None and any(entry.bound for entry in self.subsets.values()):
            raise wrong("worst_case where a subset has a bound")
        return self


class ScoreAsked(Shape):
    """What a diagnosis was asked."""

    seed: int
    scorer: str


class Writer(Shape):
    """Whose reasonings were read."""

    run: str
    phase: str
    version: str


class Diagnosis(Shape):
    """result.json of `coevo score`."""

    asked: ScoreAsked
    scorer_phase: str
    reasoner: Writer | None = None
    base: str
    embedder: str
    permutations: int
    scorer: str
    estimator: str
    scale: Literal["sum", "token_mean"]
    negatives: str
    k: int
    resamples: int
    n: int
    notes: list[str]
    divergences: dict[str, dict[Literal["u", "c", "d", "reference"], Divergence | None]]
    models: Annotated[dict[str, DiagnosedModel], Field(min_length=1)]

    @model_validator(mode="after")
    def _fit(self) -> Diagnosis:
        first = next(iter(self.models.values()))
        for name, model in self.models.items():
            if model.subsets.keys() != first.subsets.keys() or model.shifts.keys() != first.shifts.keys():
                raise wrong(f"the same subsets of every model, not others in models.{name}")
        for tag, found in self.divergences.items():
            if tag not in first.subsets or len(found) < 4:
                raise wrong(f"a known subset with u, c, d and reference in divergences.{tag}")
        return self


# --- judgements -----------------------------------------------------------------------------------------------------


class Mean(Shape):
    """A mean; of one judgement it has no interval."""

    value: Number
    low: Number | None
    high: Number | None

    @model_validator(mode="after")
    def _is_whole(self) -> Mean:
        if (self.low is None) != (self.high is None):
            raise wrong("low and high, or neither")
        return self


class Judged(Counted):
    """A shift or a subset of judgements."""

    judged: Count
    means: dict[str, Mean | None]


class JudgedLevels(Shape):
    """One model's, or one comparison's."""

    shifts: dict[str, Judged]
    subsets: dict[str, Judged]


class Position(Shape):
    """The position bias."""

    bias: Mean
    agreement: Mean


class Outcomes(Shape):
    """What a win rate is made of."""

    wins: Count
    losses: Count
    ties: Count
    orders_differ: Count


class Comparison(JudgedLevels):
    """Two models."""

    first: str
    second: str
    outcomes: dict[str, Outcomes]
    position: Position | None


class Answers(Shape):
    """What the judge said and cost."""

    n: Count
    unreadable: Count
    prompt_tokens: Count | None
    completion_tokens: Count | None
    cost: Number | None


class Unjudged(Shape):
    """What has no score, by status."""

    n: Count
    sample_ids: list[str]
    reasons: dict[str, Count]


class RubricHash(Shape):
    """Which rubric."""

    hash: str


class Who(Shape):
    """The judge."""

    model: str | None = None
    local: str | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> Who:
        # null is not left out: a reader takes the first that is there
        if len(self.model_fields_set & {"model", "local"}) != 1 or (self.model or self.local) is None:
            raise wrong("model or local")
        return self


class JudgeAsked(Shape):
    """What a judge was asked."""

    judge: Who
    rubric: RubricHash
    pairwise: bool
    resamples: int
    seed: int


class Scale(Shape):
    """The least and the most score."""

    least: int
    most: int


class RubricTold(Shape):
    """The rubric, as the report names it."""

    name: str
    scale: Scale
    headings: Annotated[dict[str, str], Field(min_length=1)]


class Judgements(Shape):
    """summary.json of `coevo judge`."""

    asked: JudgeAsked
    rubric: RubricTold
    n: Count
    answers: Answers
    unjudged: dict[str, dict[str, Unjudged]]
    notes: list[str]
    models: dict[str, JudgedLevels] | None = None
    comparison: Comparison | None = None

    @model_validator(mode="after")
    def _fit(self) -> Judgements:
        if (self.models is None) == (self.comparison is None):
            raise wrong("models, or a comparison")
        names = [*self.rubric.headings, *(["overall"] if len(self.rubric.headings) > 1 else [])]
        levels = [*self.models.values()] if self.models else [self.comparison] if self.comparison else []
        for level in levels:
            for tag, entry in {**level.shifts, **level.subsets}.items():
                if absent := [name for name in names if name not in entry.means]:
                    raise wrong(f"a mean of {', '.join(absent)} for {tag}, or null")
        if self.comparison and self.comparison.outcomes.keys() - self.rubric.headings.keys():
            raise wrong("outcomes of the rubric's dimensions alone")
        return self


# --- experiments ----------------------------------------------------------------------------------------------------


class Asked(Shape):
    """experiment.json."""

    name: str
    file: str
    baseline: str
    bases: list[str]
    methods: list[str]
    seeds: list[int]
    estimators: list[str]
    judge: bool
    commands: dict[str, str]


class JudgedRow(Shape):
    """A line of scores.jsonl."""

    model: str
    sample_id: str
    status: str
    scores: dict[str, Number]

    @model_validator(mode="after")
    def _has_scores(self) -> JudgedRow:
        if self.status == "ok" and not self.scores:
            raise wrong("scores where the status is ok")
        return self


DIAGNOSIS, JUDGEMENTS = TypeAdapter(Diagnosis), TypeAdapter(Judgements)
ASKED, JUDGED_ROW = TypeAdapter(Asked), TypeAdapter(JudgedRow)
