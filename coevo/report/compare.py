"""Runs beside each other: what their recipes differ in, what each ended at, and how far each is from the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coevo.errors import CheckpointError, ConfigError
from coevo.escape import visible
from coevo.layout import align
from coevo.maths.stats import Measure
from coevo.report.changes import verdicts
from coevo.report.headline import sentences
from coevo.report.read import Record, Run, read_run
from coevo.scoring.claims import digits, printed

ABSENT = "-"
WIDEST = 60
"""Letters of a cell."""
DESIGN = ("scorer", "estimator", "scale", "negatives", "k", "seed")
"""What two evaluations must have in common for their nats to be set against each other."""
WORDS = {"scorer": "another scorer", "seed": "another seed of the negatives"}


def read_finished(folders: Sequence[Path]) -> list[Run]:
    """The runs of some folders.

    Raises:
        ConfigError: fewer than two folders, or one of them twice.
        CheckpointError: a run has not come to its last evaluation.
        DataError: a folder is no run, or a file in it is damaged.
    """
    if len(folders) < 2:
        raise ConfigError(
            f"one run to compare ({folders[0]}); expected two or more. For one alone: coevo report {folders[0]}"
        )
    there = [folder.resolve() for folder in folders]
    twice = next((folder for k, folder in enumerate(folders) if there[k] in there[:k]), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice; expected different runs.")
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if run.after is None:
            raise CheckpointError(
                f"{run.path}: the run has no last evaluation (evaluation/final.json), so there is nothing to compare. "
                f"Finish it: coevo train --resume {run.path}"
            )
    return runs


def comparison(folders: Sequence[Path]) -> str:
    """All of it as text for a terminal; see `read_finished` for what is raised."""
    runs = read_finished(folders)
    names = list(map(_cut, _names(folders)))
    parts = [_recipes(runs, names), _figures(runs, names)]
    parts += [f"{name}: {' '.join(sentences(run))}" for name, run in zip(names, runs, strict=True)]
    parts += [_against(runs[0], run, names[0], name) for name, run in zip(names[1:], runs[1:], strict=True)]
    return "\n\n".join(parts)


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole where two are alike."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _recipes(runs: Sequence[Run], names: Sequence[str]) -> str:
    flat = [dict(_leaves(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one if key.split(".")[0] not in ("name", "tracking"))
    rows = [(key, *(_cut(str(one.get(key, ABSENT))) for one in flat)) for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return "The recipes differ in nothing but name and trackers."
    return "What the recipes differ in:\n" + align([("key", *names), *rows])


def _cut(text: str) -> str:
    """A name or value in one cell of a terminal's table."""
    shown = visible(" ".join(text.split()))
    return shown if len(shown) <= WIDEST else shown[: WIDEST - 1] + "…"


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, name)
        else:
            yield name, value


def _figures(runs: Sequence[Run], names: Sequence[str]) -> str:
    """What each run ended at: nats mean something beside each other only where `_differences` finds none."""
    shifts = dict.fromkeys(shift for run in runs for shift in _after(run)["shifts"])
    rows = []
    for shift in shifts:
        for key, words in (("share_right", "right (%)"), ("remi", "R-EMI"), ("register_gap", "M"), ("remid", "R-EMID")):
            cells = [_cell(run, shift, key) for run in runs]
            if any(cell != ABSENT for cell in cells):
                rows.append((shift, words, *cells))
    table = align([("shift", "measure", *names), *rows], names=2)
    otherwise = [name for name, run in zip(names[1:], runs[1:], strict=True) if _differences(runs[0], run)]
    apart = f" Nats not to be compared with those of {names[0]}, see below: {', '.join(otherwise)}." if otherwise else ""
    return f"At the end of each run, with 95 % intervals over its own scenarios.{apart}\n{table}"


def _after(run: Run) -> Record:
    assert run.after is not None, "see read_finished"
    return run.after


def _cell(run: Run, shift: str, key: str) -> str:
    record = _after(run)["shifts"].get(shift, {}).get(key)
    if not record:
        return ABSENT
    if key == "share_right":
        shares = Measure(*(100 * record[end] for end in ("value", "low", "high")))
        return f"{shares.value:.0f} [{shares.low:.0f}, {shares.high:.0f}]"
    scale = _after(run)["scale"]
    shown = printed(record, scale)
    return f"{shown.value:.{digits(scale)}f} [{shown.low:.{digits(scale)}f}, {shown.high:.{digits(scale)}f}]"


def _differences(first: Run, other: Run) -> list[str]:
    """Why the nats of two runs cannot be set against each other; empty if they can."""
    a, b = _after(first), _after(other)
    found = [WORDS.get(key, f"{key} {b[key]} for {a[key]}") for key in DESIGN if a[key] != b[key]]
    files = [(run.environment.get("data") or {}).get("sha256") for run in (first, other)]
    if files[0] != files[1]:
        found.append("another data file")
    if not found and {row.sample_id for row in first.rows_after} != {row.sample_id for row in other.rows_after}:
        found = ["other test scenarios"]
    return found


def _against(first: Run, other: Run, name: str, other_name: str) -> str:
    """How far a run is from the first, paired by scenario, by the rules of a run's own before and after."""
    head = f"{other_name} against {name}"
    if found := _differences(first, other):
        return (
            f"{head}: measured by {', '.join(found)}, so their nats cannot be set against each other. "
            "One scorer for both: coevo generate writes each run's answers, and coevo score --scorer RUN reads them."
        )
    pair = replace(other, before=first.after, rows_before=first.rows_after, second=None)
    said = verdicts(pair)
    return f"{head} (before: {name}; after: {other_name}; paired by scenario):\n" + "\n".join(f"- {line}" for line in said)
