"""What an experiment's folder holds, read back for its report. Cells that are not done yet are listed, not an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coevo.errors import CheckpointError, DataError
from coevo.experiment.matrix import ASKED_FILE, cell_of, judged_of, scores_of
from coevo.experiment.table import Measured, correlations, tabulate
from coevo.records import read_json, read_lines
from coevo.report.result_shapes import ASKED as QUESTION
from coevo.report.result_shapes import DIAGNOSIS, JUDGED_ROW
from coevo.report.shapes import MODEL_ROW, ROW
from coevo.scoring.summary import Row
from coevo.text import normalised

RESAMPLES = 10_000
"""The smallest p value is 2 / 10,001, which stands a correction for some hundred comparisons."""
CORRELATED = 2000
ANEW = "Delete it and give the experiment's command again to write it anew."
ASKED = ("name", "file", "baseline", "bases", "methods", "seeds", "estimators", "judge", "commands")


@dataclass(frozen=True)
class Found:
    """The measurements of one base by one estimator, and what they lack."""

    measured: Measured | None
    """Of the methods that have every seed; None if the baseline has not."""
    missing: list[str]


def result(out: Path) -> dict[str, Any]:
    """Everything that the report shows, as plain JSON.

    Raises:
        CheckpointError: no experiment in the folder.
        DataError: a broken file, or cells that were measured on different scenarios.
    """
    question = asked(out)
    bases: dict[str, Any] = {}
    for base in question["bases"]:
        tables, missing = {}, []
        for estimator in question["estimators"]:
            found = _measured(question, out, base, estimator)
            missing += found.missing
            if found.measured is not None:
                table = tabulate(found.measured, question["baseline"], RESAMPLES, seed=0)
                tables[estimator] = table | {"correlations": correlations(table, CORRELATED, seed=0)}
        bases[base] = {"estimators": tables, "missing": list(dict.fromkeys(missing))}
    return question | {"results": bases}


def _measured(question: Mapping[str, Any], out: Path, base: str, estimator: str) -> Found:
    seeds, baseline = tuple(question["seeds"]), question["baseline"]
    rows: dict[tuple[str, int], list[Row]] = {}
    bounds: dict[tuple[str, int], dict[str, float | None]] = {}
    missing = []
    for seed in seeds:
        name = scores_of(base, estimator, seed)
        if not (out / name / "result.json").is_file():
            missing.append(f"{name} has not been measured yet")
            continue
        models = _models(out / name / "result.json")
        scored = _by_model(out / name, models)
        for method in question["methods"]:
            if method in scored and method in models:
                truth = _shares(out / cell_of(base, method, seed), out / name, scored[method])
                rows[method, seed] = [replace(r, share_right=truth.get(r.sample_id, r.share_right)) for r in scored[method]]
                bounds[method, seed] = _bounds(models[method])
    whole = tuple(m for m in question["methods"] if all((m, seed) in rows for seed in seeds))
    missing += [f"{method} of {base} lacks a seed and is left out" for method in question["methods"] if method not in whole]
    if baseline not in whole:
        return Found(None, missing)
    judged = {(m, seed): _judged(out / judged_of(base, seed), m, rows[m, seed]) for m in whole for seed in seeds}
    if question["judge"] and not all(judged.values()):
        missing.append(f"not all of {base} has been judged yet")
    return Found(Measured(whole, seeds, rows, bounds, judged if all(judged.values()) else {}), missing)


def _models(path: Path) -> dict[str, Any]:
    models: dict[str, Any] = read_json(path, DIAGNOSIS, ANEW)["models"]
    return models


def _by_model(folder: Path, models: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Model -> its rows, all of those that its diagnosis counts."""
    path = folder / "rows.jsonl"
    found: dict[str, list[Row]] = {}
    for record in read_lines(path, MODEL_ROW, ANEW, exact=True):
        found.setdefault(record["model"], []).append(Row.from_json(record))
    counts = {model: len(rows) for model, rows in found.items()}
    expected = {name: sum(entry["n"] for entry in model["subsets"].values()) for name, model in models.items()}
    if counts != expected:
        raise DataError(f"{path}: rows of {counts}; expected those that result.json counts, {expected}. {ANEW}")
    return found


def _shares(cell: Path, measurement: Path, scored: Sequence[Row]) -> dict[str, float]:
    """In the world, the share of right slots of each answer, as the cell's own evaluation has it.

    Raises:
        DataError: those are other answers than were measured, as of a cell that was copied or made anew since.
    """
    path = cell / "evaluation" / "final.jsonl"
    rows = list(read_lines(path, ROW, "Restore it from the cell's run, or run the cell anew."))
    said = {row["sample_id"]: normalised(row["response"]) for row in rows}
    other = next((r.sample_id for r in scored if said.get(r.sample_id, r.response) != normalised(r.response)), None)
    if other is not None:
        raise DataError(
            f"{path}: answers {other} otherwise than what was measured in {measurement}: the cell is of another run, or was "
            f"made anew since. Restore it, or delete {measurement} and give the experiment's command again."
        )
    return {row["sample_id"]: row["share_right"] for row in rows if row.get("share_right") is not None}


def _judged(folder: Path, method: str, scored: Sequence[Row]) -> dict[str, float]:
    """Mean over the rubric's dimensions, by sample_id; what has no score is left out."""
    path = folder / "scores.jsonl"
    rows = [row for row in read_lines(path, JUDGED_ROW, ANEW, exact=True) if row["model"] == method]
    if path.is_file() and sorted(row["sample_id"] for row in rows) != sorted(row.sample_id for row in scored):
        raise DataError(f"{path}: {len(rows)} rows of {method}; expected one of each of its {len(scored)} scenarios. {ANEW}")
    return {row["sample_id"]: float(np.mean(list(row["scores"].values()))) for row in rows if row["status"] == "ok"}


def _bounds(model: Mapping[str, Any]) -> dict[str, float | None]:
    subsets = {tag: entry for tag, entry in model["subsets"].items() if "bound" in entry}
    return {tag: entry["bound"]["value"] if entry["bound"] else None for tag, entry in subsets.items()}


def asked(folder: Path) -> dict[str, Any]:
    """What an experiment's folder was asked.

    Raises:
        CheckpointError: there is no experiment in it.
        DataError: its record is broken.
    """
    path = folder / ASKED_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no experiment: {ASKED_FILE} is missing. Give the folder that --out named.")
    record = read_json(path, QUESTION, "Give the experiment's command again to write it anew.")
    return {key: record[key] for key in ASKED}
