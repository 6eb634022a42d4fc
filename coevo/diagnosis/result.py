"""A diagnosis as typed values, beside the plain JSON that files and reports are made of. Without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from coevo.errors import DataError
from coevo.escape import html, plain
from coevo.maths.stats import Measure
from coevo.records import read_json
from coevo.report.result_shapes import DIAGNOSIS

SCHEMA_VERSION = 1
"""Of `Diagnosis.to_dict`; goes up when a field changes its meaning or goes away."""
MEASURES = {"remi": "R-EMI", "register_gap": "M", "likelihood_gap": "R-EMI + M", "remid": "R-EMID"}


@dataclass(frozen=True)
class ShiftResult:
    """What one model loses under one shift, or on one subset. Nats per response, except in the released procedure."""

    name: str
    """id, user, character or dialogue; or a subset's tag."""
    n: int
    """Scenarios."""
    scored: int
    """Responses that have numbers; the others are in `statuses`."""
    statuses: Mapping[str, int]
    remi: Measure | None
    """R-EMI (E1): what of the context the responses lost against the references; negative is a loss."""
    register_gap: Measure | None
    """M (D3): what of the likelihood gap no context explains."""
    likelihood_gap: Measure | None
    """R-EMI + M."""
    remid: Measure | None
    """R-EMID (E2): R-EMI on ID minus R-EMI here; positive where the shift costs. None on ID."""
    components: Mapping[str, Measure | None]
    """R-EMI_u, R-EMI_c and R-EMI_d (A1): how much less the responses use persona, character and dialogue."""
    bound: float | None
    """B2 of a shifted subset, an index of risk without unit."""

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> ShiftResult:
        """From an entry of `result.json`."""
        measures = {key: _measure(entry.get(key)) for key in MEASURES}
        return cls(
            name,
            n=entry["n"],
            scored=entry["statuses"].get("ok", 0),
            statuses=entry["statuses"],
            components={z: _measure(found) for z, found in entry["components"].items()},
            bound=bound["value"] if (bound := entry.get("bound")) else None,
            **measures,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, a measure as `{"value": …, "low": …, "high": …}`."""
        found: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        found |= {key: _plain(found[key]) for key in MEASURES}
        found["components"] = {z: _plain(measure) for z, measure in self.components.items()}
        return found | {"statuses": dict(self.statuses), "schema_version": SCHEMA_VERSION}

    def to_markdown(self) -> str:
        """A table of one row."""
        return _markdown([self])

    def _repr_html_(self) -> str:
        return _html([self])


@dataclass(frozen=True)
class ModelResult:
    """The diagnosis of one model."""

    name: str
    verdict: tuple[str, ...]
    """Sentences: which shift hurts, and whether beyond noise; what cannot be told."""
    shifts: Mapping[str, ShiftResult]
    subsets: Mapping[str, ShiftResult]

    def to_markdown(self) -> str:
        """The verdict, and a row a shift."""
        said = "\n".join(f"- {plain(sentence)}" for sentence in self.verdict)
        return f"## {plain(self.name)}\n\n{said}\n\n{_markdown(list(self.shifts.values()))}"

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html(sentence)}</li>" for sentence in self.verdict)
        return f"<h3>{html(self.name)}</h3><ul>{said}</ul>{_html(list(self.shifts.values()))}"


@dataclass(frozen=True)
class Diagnosis:
    """What `coevo.diagnose` found, or `coevo score` wrote.

    Example:
        >>> found = Diagnosis.read("scores/mine")              # doctest: +SKIP
        >>> found.models["mine"].shifts["user"].remid           # doctest: +SKIP
        Measure(value=14.4, low=13.3, high=15.5)
    """

    record: Mapping[str, Any]
    """All of it, as in `result.json`; docs/score.md describes every field."""
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def read(cls, folder: str | Path) -> Diagnosis:
        """What `coevo score` wrote into a folder.

        Raises:
            DataError: there is no result, or a damaged one.
        """
        path = Path(folder) / "result.json"
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the folder that coevo score wrote (--out).")
        return cls(read_json(path, DIAGNOSIS, "Run coevo score again."))

    @cached_property
    def models(self) -> Mapping[str, ModelResult]:
        """By the models' names."""
        found = {}
        for name, model in self.record["models"].items():
            levels = {
                level: {key: ShiftResult.of(key, entry) for key, entry in model[level].items()}
                for level in ("shifts", "subsets")
            }
            found[name] = ModelResult(name, tuple(model["verdict"]), **levels)
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before using any number."""
        return tuple(self.record["notes"])

    @property
    def reasoned(self) -> bool:
        """Whether the scorer read a reasoning with each scenario: R-EMI and R-EMID as in the paper, else EMI and EMID."""
        return "+" in self.record["scorer"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"schema_version": self.schema_version, **json.loads(json.dumps(self.record))}

    def to_markdown(self) -> str:
        """Notes, verdicts and a table a model."""
        notes = [f"> {plain(note)}" for note in self.notes]
        return "\n\n".join([*notes, *(model.to_markdown() for model in self.models.values())]) + "\n"

    def __str__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        notes = "".join(f"<blockquote>{html(note)}</blockquote>" for note in self.notes)
        return notes + "".join(model._repr_html_() for model in self.models.values())


def _measure(found: Mapping[str, float] | None) -> Measure | None:
    return Measure(found["value"], found["low"], found["high"]) if found else None


def _plain(measure: Measure | None) -> dict[str, float] | None:
    return measure.to_dict() if measure else None


def _rows(results: list[ShiftResult]) -> list[list[str]]:
    rows = [["", "scored", *MEASURES.values()]]
    for result in results:
        shown = [found.to_markdown() if (found := getattr(result, key)) else "–" for key in MEASURES]
        rows.append([result.name, f"{result.scored} of {result.n}", *shown])
    return rows


def _markdown(results: list[ShiftResult]) -> str:
    head, *rows = _rows(results)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [head, rule, *([plain(cell) for cell in row] for row in rows)]
    )


def _html(results: list[ShiftResult]) -> str:
    head, *rows = _rows(results)
    cells = "".join(f"<th>{html(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
