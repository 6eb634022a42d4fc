"""A scorer out of a run folder, or a pretrained model as it is, for commands that use one without running a recipe."""

from __future__ import annotations

from pathlib import Path

from coevo.config import FileData
from coevo.data import read_rpgbench, split_names
from coevo.errors import CheckpointError, ConfigError, DataError
from coevo.loop.context import Policies
from coevo.loop.folder import RunFolder
from coevo.loop.run import start_processes
from coevo.plan.plan import plan
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.scoring.scorer import Scorer
from coevo.types import Scenario

PHASE = "sft-scorer"
ID_TRAIN = "IDTrain"
"""The split that a run on the world is tuned on."""


def load_scorer(run: Path) -> Scorer:
    """The scorer that a run has trained, or a pretrained model as it is.

    Args:
        run: a run folder whose phase `sft-scorer` has finished, or that has none; or folder or hub id of a model.

    Raises:
        ConfigError: its scorer needs a reasoner.
        CheckpointError: it is none, or has not got so far, or its files were changed since.
    """
    if is_model(run):
        start_processes()
        return Policies(zero_shot_recipe(run), RunFolder(run), []).zero_shot()
    folder, recipe = RunFolder.open(run)
    if recipe.corl is not None:
        raise ConfigError(
            f"--scorer {run}: its recipe sets corl, so that scorer reads each scenario with a reasoning. A calibration "
            "needs every likelihood, and a scenario whose reasoning is not whole has none. Give a run without corl."
        )
    start_processes()
    policies = Policies(recipe, folder, [phase.name for phase in plan(recipe)])
    if recipe.scorer.kind == "zero_shot":
        return policies.zero_shot()
    name = policies.phase_name(PHASE)
    if folder.facts(name) is None:
        raise CheckpointError(
            f"{run} has no scorer yet: phase {name} has not finished. Go on with: coevo train --resume {run} --until {PHASE}"
        )
    return policies.scorer(name)


def unseen(run: Path, data: Path) -> list[Scenario]:
    """The scenarios of a file's splits that a run's recipe does not train on: a scorer flatters references that it has read.

    Raises:
        CheckpointError: it is no run folder.
        DataError: the file breaks its format, or holds nothing else.
    """
    if not split_names(data):
        raise DataError(f"{data}: has no split; expected scenarios under names such as IDTest. Is it the right file?")
    if is_model(run):
        return list(read_rpgbench(data, split_names(data)))
    _, recipe = RunFolder.open(run)
    taught = recipe.data.train_split if isinstance(recipe.data, FileData) else ID_TRAIN
    splits = [name for name in split_names(data) if name != taught]
    if not splits:
        raise DataError(f"{data}: {taught} is its only split, and {run} trains on that; give a file with a test split.")
    return list(read_rpgbench(data, splits))
