"""A trained scorer out of a run folder, for commands that use one without running a recipe."""

from __future__ import annotations

from pathlib import Path

from coevo.errors import CheckpointError, ConfigError
from coevo.loop.context import Context
from coevo.loop.folder import RunFolder
from coevo.loop.material import load_material
from coevo.loop.plan import plan
from coevo.loop.progress import Silent
from coevo.loop.run import start_processes
from coevo.scoring.scorer import Scorer

PHASE = "sft-scorer"


def load_scorer(run: Path) -> Scorer:
    """The scorer that a run has trained.

    Args:
        run: a run folder whose phase `sft-scorer` has finished.

    Raises:
        ConfigError: its scorer needs a reasoner.
        CheckpointError: it is none, or has not got so far, or its files were changed since.
    """
    folder, recipe = RunFolder.open(run)
    if recipe.corl is not None:
        raise ConfigError(
            f"--scorer {run}: its recipe sets corl, so that scorer reads each scenario with a reasoning. A calibration "
            "needs every likelihood, and a scenario whose reasoning is not whole has none. Give a run without corl."
        )
    start_processes()
    context = Context(recipe, folder, load_material(recipe), plan(recipe), Silent())
    name = context.phase_name(PHASE)
    if folder.facts(name) is None:
        raise CheckpointError(
            f"{run} has no scorer yet: phase {name} has not finished. Go on with: coevo train --resume {run} --until {PHASE}"
        )
    return context.scorer(name)
