"""What a run was begun with: recipe and data file, each to the byte, so that it goes on with the same or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coevo.config import FileData, HubBase, RealText, Recipe, RewardWeights
from coevo.config.load import load_recipe
from coevo.config.rubric import load_rubric
from coevo.errors import CheckpointError, ConfigError
from coevo.files import content_key, holder_of, only_leftovers, sha256_of
from coevo.plan.functions import source_hashes

RECIPE_FILE, ENVIRONMENT_FILE, CODE_FILE = "resolved.yaml", "environment.json", "code.diff"


def refuse_taken(root: Path) -> None:
    """Lets a new run begin in a new folder or an empty one alone, and leaves any other untouched.

    Raises:
        ConfigError: the folder is not empty.
    """
    # a kill while the folder is made leaves nothing that a run needs
    written = (ENVIRONMENT_FILE, CODE_FILE, RECIPE_FILE)
    if not root.is_dir() or only_leftovers(root, written, whole=(ENVIRONMENT_FILE, CODE_FILE)):
        return
    holder = holder_of(root)
    if holder is not None:
        raise ConfigError(f"--out {root} is in use by {holder}; choose another folder. Nothing was changed.")
    remedy = f"continue it with coevo train --resume {root}, or " if (root / RECIPE_FILE).exists() else ""
    raise ConfigError(f"--out {root} exists and is not empty; {remedy}choose another folder. Nothing was changed.")


def data_record(recipe: Recipe) -> dict[str, str] | None:
    """Absolute path and hash of the recipe's data file; None where the data are made on the spot."""
    if not isinstance(recipe.data, FileData):
        return None
    return {"path": str(recipe.data.path.absolute()), "sha256": sha256_of(recipe.data.path)}


def begun_with(root: Path) -> dict[str, Any]:
    """What a run's environment.json says; empty where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = root / ENVIRONMENT_FILE
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("data"), dict | None):
        raise CheckpointError(
            f"{path}: damaged; expected what the run was begun with as JSON. Restore it, or start a new run with --out."
        )
    return record


def run_key(root: Path) -> str | None:
    """A hash of the recipe and the data that a run was begun with; None where they were not recorded."""
    begun = begun_with(root)
    if "recipe_sha256" not in begun:
        return None
    return content_key(begun["recipe_sha256"], (begun.get("data") or {}).get("sha256"))


def read_resolved(root: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of an existing run folder, which is to the byte the one that the run was begun with.

    Raises:
        CheckpointError: the folder is no run, or its recipe was cut short or edited.
        ConfigError: the recipe, or an override, cannot be read.
    """
    path = root / RECIPE_FILE
    if not path.is_file():
        raise CheckpointError(f"{root} holds no run: {RECIPE_FILE} is missing. Give the folder that --out named.")
    known = begun_with(root).get("recipe_sha256")
    found = sha256_of(path)
    if known is not None and found != known:
        raise CheckpointError(
            f"{path}: changed since the run was begun: its sha256 is {found[:12]}…, expected {str(known)[:12]}…. It was "
            "edited or cut short, and a run keeps its recipe. Restore the file, or start a new run with --out."
        )
    recipe = load_recipe(path, overrides)
    if isinstance(recipe.base, HubBase) and "\nprompts:" not in path.read_text(encoding="utf-8"):
        # an earlier version wrote no prompts, and every base read the short ones
        return load_recipe(path, ["prompts=short", *overrides])
    return recipe


def part_hashes(weights: RewardWeights | RealText) -> dict[str, str]:
    """Name -> sha256 of what each part beside the scorer's own is made of: a function's file, a rubric, a model's files.

    A reward model of the hub is known by its name alone.
    """
    found = source_hashes(weights.functions)
    if weights.judge is not None:
        found["judge"] = content_key(load_rubric(weights.judge.rubric).model_dump(mode="json"))
    if weights.reward_model is not None and (folder := Path(weights.reward_model.path)).is_dir():
        digest = hashlib.sha256()
        for file in sorted((*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja"))):
            digest.update(file.name.encode() + b"\0" + sha256_of(file).encode())
        found["reward_model"] = digest.hexdigest()
    return found


def refuse_other_parts(root: Path, recipe: Recipe) -> None:
    """Holds a run to the reward's parts that it was begun with.

    Raises:
        CheckpointError: what one is made of has been edited since.
    """
    known = begun_with(root).get("functions") or {}
    now = part_hashes(recipe.weights)
    edited = [name for name, digest in now.items() if name in known and known[name] != digest]
    if edited:
        raise CheckpointError(
            f"{root}: {', '.join(edited)}: the file of this part of the reward has been edited since the run was begun, so "
            "that later rewards would not be as earlier ones. Restore it, or start a new run with --out."
        )


def with_own_data(root: Path, recipe: Recipe) -> Recipe:
    """The recipe with the data file that its run was begun with, from whichever folder it is gone on with.

    A run that was begun before hashes were recorded takes the file that the recipe names now.

    Raises:
        CheckpointError: that file has changed, or is gone.
    """
    known, data = begun_with(root).get("data"), recipe.data
    if known is None or not isinstance(data, FileData):
        return recipe
    begun, digest = Path(known["path"]), known["sha256"]
    # by the recipe's path too: a run may have been moved with its data
    places = list(dict.fromkeys((data.path.absolute(), begun)))
    hashes = {place: sha256_of(place) for place in places if place.is_file()}
    if hashes.get(data.path.absolute()) == digest:
        return recipe
    if hashes.get(begun) == digest:
        return recipe.model_copy(update={"data": data.model_copy(update={"path": begun})})
    found = "; ".join(
        f"{place} {f'has {hashes[place][:12]}… now' if place in hashes else 'is not there'}" for place in places
    )
    raise CheckpointError(
        f"{root} was begun with the data file {begun} of sha256 {digest[:12]}…, and {found}. A run keeps its data: what is "
        "trained and tested already was read from them. Restore the file, or start a new run with --out."
    )
