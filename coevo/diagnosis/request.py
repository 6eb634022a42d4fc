"""What `coevo score` was asked: everything that can be wrong is found here, before torch is imported or a model loaded."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.config import Evaluation, FileData, Recipe
from coevo.data.overlap import Imprint, copies, imprint
from coevo.data.responses import Answers, read_answers
from coevo.data.rpgbench import load
from coevo.errors import CheckpointError, ConfigError, DataError
from coevo.files import check_out, file_record
from coevo.plan.cost import DECODE_SHARE, parameters, rate
from coevo.plan.naming import estimator_kinds
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.progress import Stage
from coevo.prompts import character_text
from coevo.runs.record import read_resolved
from coevo.types import Scenario

REQUEST_FILE = "request.json"
KEYS = tuple(name for name in Evaluation.model_fields if name not in ("repetition_penalty", "second_scorer"))
"""Keys of `evaluation` that apply to responses that are there already."""
REASONINGS = "reasonings"
"""Name of the stage that writes them."""
_CHARACTERS_PER_TOKEN = 3.5
"""For estimates of time alone."""


@dataclass(frozen=True)
class Question:
    """What a person asks for."""

    data: Path
    files: tuple[Path, ...]
    scorer: Path
    out: Path
    reasoner: Path | None = None
    """The run whose reasoner writes the reasonings; None takes the scorer's own, where it needs one."""
    splits: tuple[str, ...] | None = None
    """None takes those that a response belongs to."""
    seed: int | None = None
    """None takes the run's own."""
    overrides: tuple[str, ...] = ()
    """`key=value` of the run's evaluation."""


@dataclass(frozen=True)
class Policy:
    """Where a model that a diagnosis needs is: a run folder, its recipe, and the phase, without number, that wrote it."""

    run: Path
    """Or, of a pretrained model that is taken as it is, the folder or hub id of the model."""
    recipe: Recipe
    kind: str | None
    """None: no phase did, the model is taken as it is."""


@dataclass(frozen=True)
class Request:
    """A diagnosis that can be made."""

    data: Path
    files: tuple[Path, ...]
    scorer: Policy
    """The scorer, whose base is taken too; `evaluation` in its recipe is as asked for."""
    reasoner: Policy | None
    """Who writes the reasonings that the scorer reads; None for one without."""
    out: Path
    seed: int
    """Whose design and bootstrap are used: the run's own, unless another was asked for."""
    answers: Answers

    @property
    def recipe(self) -> Recipe:
        """Of the scorer's run, with `evaluation` as asked for."""
        return self.scorer.recipe

    @property
    def borrowed(self) -> bool:
        """Whether the reasonings are another run's than the scorer's."""
        return self.reasoner is not None and self.reasoner.run.resolve() != self.scorer.run.resolve()

    def to_dict(self) -> dict[str, Any]:
        """What was asked, for the result folder."""
        return {
            "data": file_record(self.data),
            "responses": [file_record(file) for file in self.files],
            "scorer": str(self.scorer.run),
            **({"reasoner": str(self.reasoner.run)} if self.reasoner else {}),
            "splits": list(self.answers.splits),
            "seed": self.seed,
            "evaluation": {name: getattr(self.recipe.evaluation, name) for name in KEYS},
        }


def prepare(question: Question) -> Request:
    """Reads and checks all that a diagnosis is made of, and writes nothing.

    Raises:
        ConfigError: an override or an output folder that cannot be, or scorer and reasoner that do not go together.
        CheckpointError: `scorer` or `reasoner` is no run folder in which it has finished.
        DataError: scenarios or responses that break their format or do not belong together.
    """
    scorer = _scorer(question.scorer, question.overrides)
    reasoner = _reasoner(question, scorer)
    recipe = scorer.recipe
    check_out(question.out, REQUEST_FILE, "coevo score")
    answers = read_answers(question.data, question.files, question.splits)
    seed = recipe.seed if question.seed is None else question.seed
    request = Request(question.data, question.files, scorer, reasoner, question.out, seed, answers)
    lone = [tag for tag, n in _by_tag(answers.scenarios).items() if n < 2]
    contrasts = recipe.evaluation.estimator != "learned_marginal"
    if contrasts and (len(answers.scenarios) < 2 or (lone and negatives_of(recipe.evaluation) == "subset")):
        raise DataError(
            f"{question.data}: {', '.join(lone)} has one scenario, and a contrast needs at least 2; give more of it, or set "
            "negatives=pool or estimator=learned_marginal."
        )
    return request


def negatives_of(evaluation: Evaluation) -> str:
    """The population that negatives come from: the released procedure knows `subset` alone."""
    return "subset" if evaluation.estimator == "released" else evaluation.negatives


@dataclass(frozen=True, slots=True)
class Taught:
    """What of the scenarios scorer or reasoner was trained on; likelihoods flatter references that were learnt."""

    by_split: dict[str, int]
    """Split -> how many of its scenarios are copies of a training sample, whatever either is called; never 0."""
    unreadable: list[str]
    """Why it cannot be told, by training file that cannot be read any more."""


def trained_on(request: Request) -> Taught:
    """Looks for the scenarios among what the recipes of scorer and reasoner train on; see `coevo.data.overlap`."""
    known = [policy.recipe.data for policy in (request.scorer, request.reasoner) if policy and policy.kind]
    sources = {(data.path, data.train_split, data.dev) for data in known if isinstance(data, FileData)}
    taught: list[Imprint] = []
    unreadable = []
    for path, split, dev in sorted(sources):
        try:
            taught += [imprint(x) for x in load(path, [split]).scenarios][:-dev]
        except DataError as error:
            unreadable.append(str(error))
    asked = {x.sample_id: x.split for x in request.answers.scenarios}
    counts = Counter(asked[name] for name, _ in copies(map(imprint, request.answers.scenarios), taught))
    return Taught({split: counts[split] for split in request.answers.splits if counts[split]}, unreadable)


def stages(request: Request) -> list[Stage]:
    """The work in its order, with estimates of its time."""
    size, evaluation, scenarios = parameters(request.recipe), request.recipe.evaluation, request.answers.scenarios
    tokens = sum(_characters(x) for x in scenarios) / _CHARACTERS_PER_TOKEN
    per_token = None if size is None else 2 * size / rate(request.recipe)
    # own context, negatives or none, and without u, c, d; the references go with the first model
    contexts = 4 + (1 if evaluation.estimator == "learned_marginal" else min(evaluation.k, max(1, len(scenarios) - 1)))
    made = []
    if request.reasoner is not None:
        written = len(scenarios) * request.reasoner.recipe.limits.reasoning / DECODE_SHARE
        made.append(Stage(REASONINGS, None if per_token is None else (tokens + written) * per_token))
    for place, model in enumerate(request.answers.by_model):
        texts = 2 if place == 0 else 1
        made.append(Stage(score_stage(model), None if per_token is None else texts * contexts * tokens * per_token))
    made.append(Stage("embeddings", None if per_token is None else 2 * tokens * per_token))
    models, subsets = len(request.answers.by_model), len(_by_tag(scenarios))
    made.append(Stage("divergences", (4 + 2 * models) * subsets * 0.5))
    return made


def score_stage(model: str) -> str:
    """Name of the stage that scores a model."""
    return f"scores of {model}"


def _scorer(run: Path, overrides: Sequence[str]) -> Policy:
    changed = [_override(word) for word in overrides]
    if is_model(run):
        return Policy(run, zero_shot_recipe(run, changed), None)
    recipe = _recipe("--scorer", run, changed)
    return _finished("--scorer", Policy(run, recipe, estimator_kinds(recipe)[0]))


def _reasoner(question: Question, scorer: Policy) -> Policy | None:
    """Who writes what the scorer reads; None for a scorer that reads nothing of the kind."""
    if scorer.recipe.corl is None:
        if question.reasoner is not None:
            raise ConfigError(
                f"--reasoner {question.reasoner}: the scorer of --scorer {scorer.run} was never shown a reasoning, as its "
                "recipe does not set corl; omit --reasoner, or give a scorer that CoRL trained."
            )
        return None
    option, run = ("--reasoner", question.reasoner) if question.reasoner else ("--scorer", scorer.run)
    recipe = _recipe(option, run)
    kind = estimator_kinds(recipe)[1]
    if kind is None:
        raise ConfigError(f"--reasoner {run}: its recipe does not set corl, so it has no reasoner; give a run that has.")
    return _finished(option, Policy(run, recipe, kind))


def _recipe(option: str, run: Path, overrides: Sequence[str] = ()) -> Recipe:
    resolved = run / "resolved.yaml"
    if not resolved.is_file():
        model = ", or a pretrained model: its folder (with config.json) or its hub id" if option == "--scorer" else ""
        raise CheckpointError(
            f"{option} {run} holds no run: resolved.yaml is missing. Give the folder that coevo train --out named{model}."
        )
    return read_resolved(run, overrides)


def _finished(option: str, policy: Policy) -> Policy:
    for kind in phases_of(policy):
        if not any((folder / "done.json").is_file() for folder in _phases(policy.run, kind)):
            raise CheckpointError(
                f"{option} {policy.run}: phase {kind} has not finished. Finish it with: "
                f"coevo train --resume {policy.run} --until {kind}"
            )
    return policy


def phases_of(policy: Policy) -> list[str]:
    """The phases, without number, that must have finished for the policy to be there."""
    return [kind for kind in ("pretrain" if policy.recipe.pretrain else None, policy.kind) if kind]


def phase_names(scorer: Path) -> list[str]:
    """Names of a run's phases that have a folder."""
    return [folder.name for folder in _phases(scorer, None)]


def _phases(scorer: Path, kind: str | None) -> Iterator[Path]:
    for folder in sorted((scorer / "phases").glob("*-*")):
        if kind is None or folder.name.split("-", 1)[1] == kind:
            yield folder


def _override(word: str) -> str:
    key, separator, value = word.partition("=")
    name = key.removeprefix("evaluation.")
    if not separator or name not in KEYS:
        near = difflib.get_close_matches(name, KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(KEYS)}"
        raise ConfigError(f"{word!r}: expected key=value of the evaluation; {hint}")
    return f"evaluation.{name}={value}"


def _by_tag(scenarios: Sequence[Scenario]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for x in scenarios:
        counts[x.subset_tag] = counts.get(x.subset_tag, 0) + 1
    return counts


def _characters(x: Scenario) -> int:
    turns = sum(len(turn.text) for turn in x.dialogue)
    return len(x.persona) + len(character_text(x.character)) + turns + len(x.reference)
