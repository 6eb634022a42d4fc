"""The models that a run begins with: checked before its first phase, and the same ones when it is resumed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from coevo import dist
from coevo.config import Recipe
from coevo.config.methods import Thinking
from coevo.errors import CheckpointError
from coevo.files import write_atomic
from coevo.lm.check import check_positions, check_weights, skeleton
from coevo.lm.lineage import settings_hash, weights_hash
from coevo.lm.loading import load_tokenizer, local_directory, new_adapter, stored_directory
from coevo.lm.reward_model import check_reward_model
from coevo.loop.context import LoRASeeded
from coevo.plan.check import REWARD_MODEL, named_models
from coevo.runs.folder import RunFolder
from coevo.scoring.probe import probe

BASE_FILE = "base.json"


def check_models(recipe: Recipe, *, fetch: bool) -> list[str]:
    """Refuses models that a recipe names and that its run would fail on, or would read in another way than they are meant.

    Args:
        recipe: what is to be done.
        fetch: download what is not on this machine; else it is not looked at.

    Returns:
        One sentence for each model that could not be checked.

    Raises:
        CheckpointError: names the folder, what is wrong with it, and what to do.
        ConfigError: a chat template that does not show every role all that it is to read; see `coevo.scoring.probe`.
    """
    unchecked = []
    for key, path in named_models(recipe).items():
        directory = local_directory(path) if fetch else stored_directory(path)
        if directory is None:
            unchecked.append(f"{key}={path} is not on this machine, so it was not checked; it is when the run begins.")
            continue
        if key.endswith(REWARD_MODEL):
            check_reward_model(directory)
            continue
        check_weights(directory)
        tokenizer = load_tokenizer(directory, recipe.template if key == "base.path" else {})
        if key == "base.path":
            probe(tokenizer, recipe.prompt_set, marks=recipe.method.marks if isinstance(recipe.method, Thinking) else None)
            _check_base(recipe, directory)
        else:
            probe(tokenizer, recipe.prompt_set, ["scorer" if key == "scorer.base" else "rewriter"])
    return unchecked


def _check_base(recipe: Recipe, directory: Path) -> None:
    check_positions(directory, recipe.longest)
    if recipe.lora is not None:
        with warnings.catch_warnings():
            # PEFT warns of what it then does by itself
            warnings.simplefilter("ignore")
            new_adapter(skeleton(directory), LoRASeeded(recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout, seed=0))


def remember_base(folder: RunFolder, recipe: Recipe) -> None:
    """Notes which base a run begins on, or, when it is resumed, holds it to that; all processes call it.

    Raises:
        CheckpointError: the base's weights, configuration, tokenizer or chat template have changed since.
    """
    path = named_models(recipe).get("base.path")
    if path is None:
        # it ships with coevo, or is made by the run
        return
    directory = local_directory(path)
    now = {"weights": weights_hash(directory), "settings": settings_hash(directory)}
    file = folder.root / BASE_FILE
    then = _read(file)
    dist.barrier()
    for name, what in (("weights", "weights are"), ("settings", "configuration, tokenizer or chat template is")):
        if then is not None and then.get(name) != now[name]:
            raise CheckpointError(
                f"{folder.root}: the base {directory} is not the one that the run was begun on ({file.name}): its {what} "
                "not the same. Restore the base's files, or start a new run."
            )
    if then is None and dist.is_main():
        write_atomic(file, json.dumps({"path": path, **now}, indent=2) + "\n")
    dist.barrier()


def _read(file: Path) -> dict[str, Any] | None:
    """What was noted; None if nothing was."""
    if not file.exists():
        return None
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        return dict(noted)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{file}: damaged ({error}); expected the hashes of the base that the run was begun on. Restore it, or delete "
            "it if you know that the base is the same."
        ) from error
