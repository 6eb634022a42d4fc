"""Phases that two cells have in common are run once: the second takes over what the first one made.

A phase is a function of the recipe keys that it reads, of its name (which seeds it) and of the phases before it that trained
or wrote something. So two cells share a phase where all of that is equal. What a phase does not read is listed here; a key
that is listed nowhere counts as read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from coevo.config import Recipe
from coevo.files import content_key
from coevo.plan.plan import PhasePlan
from coevo.runs.folder import STREAMS, TIMING_FILE, RunFolder
from coevo.runs.record import begun_with
from coevo.runs.streams import copy_rows, drop_rows

MEASURING = ("audit", "evaluate", "ablation")
"""Kinds of phases that no later one reads, but for the evaluation's own references, which it would compute alike."""


def digests(recipe: Recipe, phases: Iterable[PhasePlan]) -> dict[str, str]:
    """Phase -> hash of all that its result depends on."""
    found: dict[str, str] = {}
    above = ""
    for phase in phases:
        found[phase.name] = content_key(above, phase.name, phase.kind, phase.role, _read_by(recipe, phase))
        if phase.kind not in MEASURING:
            above = found[phase.name]
    return found


def _read_by(recipe: Recipe, phase: PhasePlan) -> dict[str, Any]:
    """The recipe without what the phase does not read."""
    tree = recipe.model_dump(mode="json", exclude={"name", "tracking"})
    if _is_common(recipe, phase):
        del tree["method"], tree["loop"]
    elif phase.kind == "audit" and phase.iteration is None:
        del tree["method"], tree["loop"]
        tree["weights"] = recipe.weights.model_dump(mode="json")
    elif phase.kind == "grpo" and phase.role == "simulator":
        loop = tree["loop"]
        loop["rpm"] = {"weights": loop["rpm"]["weights"]}
        del loop["harvest"], loop["past_share"], loop["tolerance_nats"]
    elif phase.kind == "harvest":
        loop = tree["loop"]
        loop["rpm"] = {"weights": loop["rpm"]["weights"]}
        del loop["tolerance_nats"]
    return tree


def _is_common(recipe: Recipe, phase: PhasePlan) -> bool:
    """Whether a phase is of what every method begins with, the audit apart."""
    if phase.kind in ("pretrain", "sft", "as_given", "ablation") or phase.name.endswith("evaluate-sft"):
        return True
    # CoRL's rounds, but for those that refresh the estimator within the game
    rounds = recipe.corl.iterations if recipe.corl else 0
    return phase.role in ("reasoner", "scorer", "plain") and phase.kind != "audit" and (phase.iteration or 0) <= rounds


def adopt(folder: RunFolder, wanted: dict[str, str], donors: Iterable[tuple[Path, dict[str, str]]]) -> list[str]:
    """Takes over finished phases of other runs, as far as they have them.

    Args:
        folder: the cell's own, created; what is finished in it stays.
        wanted: of the cell, see `digests`.
        donors: folders of other cells with their digests.

    Returns:
        Names of the phases that were taken over now.

    Raises:
        CheckpointError: a file of a donor is damaged.
    """
    taken: dict[str, Path] = {}
    others = [(path, has) for path, has in donors if _data_of(path) == _data_of(folder.root)]
    for name, digest in wanted.items():
        if has_phase(folder.root, name):
            continue
        donor = next((path for path, has in others if has.get(name) == digest and has_phase(path, name)), None)
        if donor is not None and not (folder.phase(name) / "checkpoints").exists():
            _copy_phase(donor, folder, name)
            taken[name] = donor
    if taken:
        _copy_rows(folder, taken)
    # last of all: a kill leaves phases that are copied again
    for name, donor in taken.items():
        folder.take_over(name, RunFolder(donor))
    return list(taken)


def _data_of(run: Path) -> str | None:
    """Hash of the data file that a run was begun with; None where it has none, or none was recorded."""
    return (begun_with(run).get("data") or {}).get("sha256")


def has_phase(run: Path, phase: str) -> bool:
    """Whether a run has finished a phase."""
    return (run / "phases" / phase / "done.json").is_file()


def _copy_phase(donor: Path, folder: RunFolder, name: str) -> None:
    """Copies one phase but for its rows and its mark of being done.

    Raises:
        CheckpointError: a file of the donor is not as its phase left it.
    """
    source, target, owner = donor / "phases" / name, folder.phase(name), RunFolder(donor)
    owner.facts(name)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("done.json", "checkpoints"))
    for relative in owner.manifest(name):
        if not (folder.root / relative).is_relative_to(target):
            (folder.root / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(donor / relative, folder.root / relative)


def _copy_rows(folder: RunFolder, taken: dict[str, Path]) -> None:
    """Rows of phases that were taken over from these donors, in place of what the cell itself had of them."""
    for stream in (*STREAMS, TIMING_FILE):
        drop_rows(folder.root / stream, lambda row: row.get("phase") in taken)
        # phases that follow each other are mostly of one donor, whose file is then read once
        for donor, names in groupby(taken, taken.__getitem__):
            copy_rows(donor / stream, folder.root / stream, frozenset(names))
