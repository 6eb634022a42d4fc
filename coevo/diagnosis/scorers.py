"""A scorer out of a run folder, or a pretrained model as it is, for whoever uses one without running a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from coevo.config import FileData
from coevo.data import read_rpgbench, split_names
from coevo.errors import CheckpointError, DataError
from coevo.lm.embedding import Embedder
from coevo.loop.context import Policies
from coevo.loop.estimator import reasoner
from coevo.plan.naming import estimator_kinds
from coevo.plan.plan import plan
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.runs.folder import RunFolder
from coevo.scoring.reasoner import Estimator, ReasonedScorer
from coevo.types import Scenario

ID_TRAIN = "IDTrain"
"""The split that a run on the world is tuned on."""


def load_scorer(run: str | Path) -> Estimator:
    """The scorer that a run has trained, with its reasoner where CoRL trained one; or a pretrained model as it is.

    Nothing of the surrounding program is changed, so that it can be called within a training script.

    Args:
        run: a run folder of `coevo train` whose scorer has been trained (`--until sft-scorer` is enough; with `corl`, until
            its last round), or the folder or hub id of a pretrained chat model, which scores zero-shot.

    Returns:
        A `Scorer`; of a run with `corl` a `ReasonedScorer`, by which R-EMI and R-EMID are those of the paper.

    Raises:
        CheckpointError: it is neither, or has not got so far, or its files were changed since.
    """
    run = Path(run)
    if is_model(run):
        policies = Policies(zero_shot_recipe(run), RunFolder(run), [])
        return policies.zero_shot(_embedder(policies))
    folder, recipe = RunFolder.open(run)
    policies = Policies(recipe, folder, [phase.name for phase in plan(recipe)])
    kinds = estimator_kinds(recipe)
    for kind in filter(None, kinds):
        if folder.facts(policies.phase_name(kind)) is None:
            raise CheckpointError(
                f"{run} has no scorer yet: phase {policies.phase_name(kind)} has not finished. Go on with: "
                f"coevo train --resume {run} --until {kind}"
            )
    scorer, writer = kinds
    own = _embedder(policies)
    plain = policies.scorer(policies.phase_name(scorer), embedder=own) if scorer else policies.zero_shot(own)
    return plain if writer is None else ReasonedScorer(plain, reasoner(policies, policies.phase_name(writer)))


def _embedder(policies: Policies) -> Embedder:
    limits = policies.recipe.limits
    load = partial(policies.load, None, trainable=False)
    return Embedder(load, policies.tokenizer, limits.prompt + limits.response, limits.tokens_per_batch)


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
