"""The experiment file: which methods are compared, on which bases and seeds, and what measures them. Without torch.

A method is a handful of recipe overrides; a cell is a recipe. So each cell can be run alone, by `coevo train`.
"""

from __future__ import annotations

import json
import os
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from coevo.config import Recipe, folder_name
from coevo.config.load import listed, load_recipe, plain_message, plain_place, shown
from coevo.config.training import Count, Model
from coevo.errors import ConfigError
from coevo.yamlfile import read_yaml

LONGEST_NAME = 200
"""Bytes; a file's name has at most 255, and a seed and an ending come on top."""
LONGEST_VALUE = 100_000
"""Characters of an override. Aliases can make a few lines of YAML expand without end."""
Overrides = dict[str, Any]
"""Dotted keys of a recipe -> values, as on the command line of `coevo train`."""


def _file_name(name: str) -> str:
    if len(folder_name(name).encode()) > LONGEST_NAME:
        raise ValueError(f"it names files: expected at most {LONGEST_NAME} bytes of UTF-8")
    return name


def _options(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected words as in a shell") from None
    return text


Name = Annotated[str, AfterValidator(_file_name)]
Seed = Annotated[Count, Field(ge=0, le=10**18)]

METHOD_KEYS = ("method", "loop", "simulator_sft", "corl.refresh_every")
"""What a method may set. Everything else is the same for all methods of a table, or it would not compare methods."""
EACH_ITS_OWN = ("name", "seed")
"""What the experiment gives each cell."""
NOT_A_BASE = ("name", "seed", "data", "evaluation", "method", "loop")
NOT_AN_ESTIMATOR = ("name", "data", "evaluation", "method", "loop", "base", "pretrain")


ASKED_FILE = "experiment.json"


def cell_of(base: str, method: str, seed: int) -> str:
    """Where a cell's run is, below the experiment's folder."""
    return f"cells/{base}/{method}/seed-{seed}"


def scores_of(base: str, estimator: str, seed: int) -> str:
    """Where an estimator's measurement of one seed's cells is, below the experiment's folder."""
    return f"scores/{base}/{estimator}/seed-{seed}"


def judged_of(base: str, seed: int) -> str:
    """Where a language model's judgements of one seed's cells are, below the experiment's folder."""
    return f"judged/{base}/seed-{seed}"


class Quick(Model):
    """What `--quick` runs; the first estimator alone measures it."""

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)


class Matrix(Model):
    """An experiment: the cells are methods × bases × seeds."""

    name: Name
    recipe: str
    """What all cells share: a recipe, by its path from the experiment file."""
    shared: Overrides = Field(default_factory=dict)
    """Overrides of that recipe, for all cells."""
    bases: Annotated[dict[Name, Overrides], Field(min_length=1)] = Field(default={"base": {}})
    """Name -> overrides that make the recipe one of this base model."""
    methods: Annotated[dict[Name, Overrides], Field(min_length=1)]
    """Name -> overrides that make the recipe one of this method."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    baseline: str = "sft"
    """The method that all others are tested against."""
    estimators: Annotated[dict[Name, Overrides], Field(min_length=1)] = Field(default={"scorer": {}})
    """What measures the cells, by name -> overrides of the recipe. Each is trained in a run of its own, with another seed,
    and rewards nobody; the first one makes the tables, all of them the correlations."""
    estimator_seed: Seed = 1000
    judge: Annotated[str, AfterValidator(_options)] | None = None
    """Options of `coevo judge`, such as `--rubric coser --endpoint http://localhost:8000/v1 --no-key --model NAME`; null
    leaves it out."""
    quick: Quick | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Matrix:
        quick = self.quick.methods if self.quick else ()
        for key, name in [("baseline", self.baseline), *(("quick.methods", name) for name in quick)]:
            if name not in self.methods:
                raise ValueError(f"{key}: {name!r} is no method of this file; expected one of {', '.join(self.methods)}")
        if quick and self.baseline not in quick:
            raise ValueError(f"quick.methods lacks the baseline {self.baseline!r}; add it")
        quick_seeds = self.quick.seeds if self.quick else ()
        for key, values in (("seeds", self.seeds), ("quick.seeds", quick_seeds), ("quick.methods", quick)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: {list(values)} has one twice; expected each once")
        if not set(quick_seeds) <= set(self.seeds):
            raise ValueError(f"quick.seeds: {list(quick_seeds)} are not all among seeds, {list(self.seeds)}; add them there")
        for key, names in (("bases", self.bases), ("methods", self.methods), ("estimators", self.estimators)):
            if len({unicodedata.normalize("NFC", name).casefold() for name in names}) < len(names):
                raise ValueError(
                    f"{key}: two names differ in case alone, and not every disk tells their folders apart; rename one"
                )
        if self.estimator_seed in self.seeds:
            raise ValueError(f"estimator_seed={self.estimator_seed} is also a cell's seed; expected another one")
        _none_of("shared", self.shared, EACH_ITS_OWN, "every cell has its own; use `methods` and `seeds`")
        for name, overrides in self.methods.items():
            _only(f"methods.{name}", overrides, METHOD_KEYS)
        for group, entries, kept in (("bases", self.bases, NOT_A_BASE), ("estimators", self.estimators, NOT_AN_ESTIMATOR)):
            for name, overrides in entries.items():
                _none_of(f"{group}.{name}", overrides, kept, "it must be the same for all; put it under `shared`")
        return self


def _only(place: str, overrides: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in overrides:
        if not any(key == name or key.startswith(f"{name}.") for name in allowed):
            raise ValueError(
                f"{place} sets {key!r}: methods of one table differ in {', '.join(allowed)} alone; "
                "put what all of them share under `shared`"
            )


def _none_of(place: str, overrides: Mapping[str, Any], refused: tuple[str, ...], why: str) -> None:
    for key in overrides:
        if key.partition(".")[0] in refused:
            raise ValueError(f"{place} sets {key!r}: {why}")


@dataclass(frozen=True)
class Cell:
    """One run of the experiment."""

    base: str
    method: str
    """The name of a method, or of an estimator."""
    seed: int
    recipe: Recipe
    overrides: tuple[str, ...]
    """Of the shared recipe, as `coevo train` takes them."""
    until: str | None = None
    """An estimator's run ends with this phase, named without its number; None goes to the end."""

    @property
    def name(self) -> str:
        """Also its folder below the experiment's."""
        if self.until is not None:
            return f"estimators/{self.base}/{self.method}"
        return cell_of(self.base, self.method, self.seed)


@dataclass(frozen=True)
class Experiment:
    """An experiment file that has been read, and every recipe in it checked."""

    matrix: Matrix
    path: Path
    recipe: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: list[Cell]
    """In the order of running: by method, the seeds of each; cells that share phases come after the one that has them."""
    estimators: list[Cell]

    @property
    def judge(self) -> list[str] | None:
        """Options of `coevo judge`; None without a judge."""
        return None if self.matrix.judge is None else shlex.split(self.matrix.judge)

    def to_dict(self) -> dict[str, Any]:
        """What was asked, for the experiment's folder: all that its report needs to know."""
        return {
            "name": self.matrix.name,
            "file": str(self.path),
            "baseline": self.matrix.baseline,
            "bases": list(self.matrix.bases),
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "estimators": list(dict.fromkeys(cell.method for cell in self.estimators)),
            # not its options: a key may be among them by mistake
            "judge": self.matrix.judge is not None,
            "commands": {cell.name: self._command(cell) for cell in (*self.estimators, *self.cells)},
        }

    def _command(self, cell: Cell) -> str:
        """What makes a cell alone."""
        until = ["--until", cell.until] if cell.until else []
        return shlex.join(["coevo", "train", str(self.recipe), *cell.overrides, *until])


def read_experiment(path: Path, quick: bool = False) -> Experiment:
    """Reads an experiment file and builds all of its recipes.

    Raises:
        ConfigError: an unreadable file, an unknown key, a name that is not there, a recipe that does not validate.
    """
    matrix = _validated(path, _tree(path))
    if quick and matrix.quick is None:
        raise ConfigError(f"{path}: --quick: the file has no block `quick`; add one with methods and seeds.")
    methods = tuple(_baseline_first(matrix.quick.methods if quick and matrix.quick else matrix.methods, matrix.baseline))
    seeds = matrix.quick.seeds if quick and matrix.quick else matrix.seeds
    recipe = Path(os.path.normpath(path.parent / matrix.recipe))
    cells = [
        _cell(path, matrix, recipe, base, name, seed, matrix.methods[name])
        for base in matrix.bases
        for name in methods
        for seed in seeds
    ]
    estimators = [
        _cell(path, matrix, recipe, base, name, matrix.estimator_seed, overrides, estimator=True)
        for base in matrix.bases
        for name, overrides in list(matrix.estimators.items())[: 1 if quick else None]
    ]
    return Experiment(matrix, path, recipe, methods, seeds, cells, estimators)


def _baseline_first(methods: Iterable[str], baseline: str) -> Iterator[str]:
    """Its phases are shared by all, so it runs first."""
    yield baseline
    yield from (name for name in methods if name != baseline)


def _tree(path: Path) -> dict[str, Any]:
    tree = read_yaml(path, "no such experiment file. Shipped ones are under recipes/paper/.")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: an experiment is a mapping of keys to values, found {type(tree).__name__}.")
    if not {"methods", "recipe"} & tree.keys() and (Recipe.model_fields.keys() - Matrix.model_fields.keys()) & tree.keys():
        raise ConfigError(f"{path}: this is a recipe, not an experiment; run it with: coevo train {path}")
    return tree


def _validated(path: Path, tree: dict[str, Any]) -> Matrix:
    try:
        return Matrix.model_validate(tree)
    except ValidationError as error:
        # where entries are wrong, which is said of each, their list is also too short
        problems = [problem for problem in error.errors() if problem["type"] != "too_short" or not problem["input"]]
        raise ConfigError(f"{path}: {listed(problems, 'in the experiment', _explain)}") from None


def _explain(problem: Any) -> str:
    known = f"unknown key; known keys: {', '.join(Matrix.model_fields)}"
    message = known if problem["type"] == "extra_forbidden" else plain_message(problem)
    place = plain_place(problem["loc"])
    return f"{place}: {message}" if place else message


def _cell(
    path: Path, matrix: Matrix, recipe: Path, base: str, method: str, seed: int, own: Overrides, estimator: bool = False
) -> Cell:
    asked = matrix.shared | matrix.bases[base] | own | {"name": method, "seed": seed}
    try:
        _check_order(list(asked))
        overrides = tuple(f"{key}={_yaml(key, value)}" for key, value in asked.items())
        loaded = load_recipe(recipe, overrides)
        last = _last(loaded) if estimator else None
    except ConfigError as error:
        kind = "estimator" if estimator else "method"
        raise ConfigError(f"{path}: {kind} {method!r} of base {base!r}: {error}") from None
    return Cell(base, method, seed, loaded, overrides, last)


def _check_order(keys: Sequence[str]) -> None:
    """Overrides are applied in turn, so a whole block would undo what was set within it before."""
    for place, key in enumerate(keys):
        undone = next((before for before in keys[:place] if before.startswith(f"{key}.")), None)
        if undone is not None:
            raise ConfigError(
                f"{key!r} is set as a whole after {undone!r}, which would be lost; set it first, or key by key."
            )


def _last(recipe: Recipe) -> str:
    """The phase that leaves a scorer behind."""
    from coevo.plan.naming import estimator_kinds

    scorer, _ = estimator_kinds(recipe)
    if scorer is None:
        raise ConfigError(
            "scorer.kind is zero_shot, and an estimator of an experiment is a scorer that its run trains; set it to tuned, "
            "or score the cells' responses with: coevo score --scorer MODEL"
        )
    return scorer


def _yaml(key: str, value: Any) -> str:
    """A value as it stands after `key=`; JSON is YAML."""
    text = ""
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, allow_nan=False).iterencode(value):
            text += piece
            if len(text) > LONGEST_VALUE:
                raise ValueError(f"it has more than {LONGEST_VALUE} characters")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{key}: {shown(value)} cannot be an override ({error}); expected plain values.") from None
    return text
