"""A pretrained model in the place of a run: how it is told from one, and the recipe by which it scores. Without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from coevo.config import Recipe
from coevo.config.load import parse_recipe, with_overrides


def is_model(path: Path) -> bool:
    """Whether a path given for a scorer is that of a pretrained model: its folder, or a name as hubs have.

    `runs/nmae` is a misspelt run and no model of an owner `runs`, as long as there is a folder `runs`.
    """
    if path.is_dir():
        return (path / "config.json").is_file() and not (path / "resolved.yaml").is_file()
    hub = not path.is_absolute() and len(path.parts) == 2 and ".." not in path.parts
    return hub and not os.path.lexists(path) and not os.path.lexists(path.parent)


def zero_shot_recipe(model: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a pretrained model that scores as it is: all that is not named has the defaults."""
    base = {"kind": "hub", "path": str(model), "dtype": "auto"}
    recipe = parse_recipe({"name": "zero-shot", "base": base, "scorer": "zero_shot", "lora": None}, f"--scorer {model}")
    return with_overrides(recipe, overrides)
