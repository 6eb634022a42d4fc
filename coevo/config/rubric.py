"""Rubrics: what a judge is asked about a response. A YAML file each; those that ship with coevo are under `rubrics/`."""

from __future__ import annotations

import difflib
import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator

from coevo.config.load import listed, plain_message, plain_place
from coevo.config.training import Model
from coevo.errors import ConfigError
from coevo.yamlfile import parse_yaml, read_yaml

RUBRICS = ("paper", "coser", "charactereval", "pingpong")
"""Names of the rubrics that ship with coevo."""
OVERALL = "overall"
"""Name of the mean over a rubric's dimensions, which no dimension may have."""
_SHIPPED = files("coevo.config") / "rubrics"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]
Anchors = dict[int, Text]


class Scale(Model):
    """The whole numbers that a score may be."""

    least: Annotated[int, Field(ge=-1000, le=1000)]
    most: Annotated[int, Field(ge=-1000, le=1000)]

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.least >= self.most:
            raise ValueError(f"expected least below most, found {self.least} and {self.most}")
        return self


class Dimension(Model):
    """One thing that is judged."""

    name: Name
    asks: Text
    """The question, as the judge reads it."""
    title: Text | None = None
    """For tables; the name in words if it is left out."""
    anchors: Anchors = Field(default_factory=dict)
    """Score -> what it means; the rubric's if there are none."""

    @property
    def heading(self) -> str:
        """Name for a table."""
        return self.title or self.name.replace("_", " ").capitalize()


class Rubric(Model):
    """What a judge is asked."""

    name: Name
    about: Text
    source: Text
    """Where the dimensions come from, and what is changed."""
    scale: Scale
    shows_reference: bool = False
    """Whether the judge sees y* beside what it judges."""
    anchors: Anchors = Field(default_factory=dict)
    """For the dimensions that have none of their own."""
    dimensions: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _consistent(self) -> Rubric:
        names = [dimension.name for dimension in self.dimensions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or OVERALL in names:
            raise ValueError(f"dimensions: expected each name once and none called {OVERALL!r}, found {twice or OVERALL!r}")
        for owner, anchors in (("", self.anchors), *((f"{d.name}: ", d.anchors) for d in self.dimensions)):
            outside = [score for score in anchors if not self.scale.least <= score <= self.scale.most]
            if outside:
                raise ValueError(f"{owner}anchors {outside} lie outside of {self.scale.least} to {self.scale.most}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions, in order."""
        return tuple(dimension.name for dimension in self.dimensions)


def load_rubric(name: str) -> Rubric:
    """A rubric by its name, or from a file of the user's own.

    Raises:
        ConfigError: neither a known name nor a readable file, or a file that breaks the schema (each problem named).
    """
    if name in RUBRICS:
        return _checked(parse_yaml((_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), name), name)
    if not os.path.exists(name):  # noqa: PTH110 (Path's own raises where a name is too long)
        near = difflib.get_close_matches(name, RUBRICS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(RUBRICS)} or a YAML file"
        raise ConfigError(f"--rubric {name}: no such rubric or file; {hint}")
    return _checked(read_yaml(Path(name), "no such rubric."), name)


def _checked(tree: Any, origin: str) -> Rubric:
    try:
        return Rubric.model_validate(tree)
    except ValidationError as error:
        problems = listed(error.errors(), "in the rubric; docs/judge.md has an example", _explain)
        raise ConfigError(f"--rubric {origin}: {problems}") from None


def _explain(problem: Any) -> str:
    return f"{plain_place(problem['loc']) or 'rubric'}: {plain_message(problem)}"
