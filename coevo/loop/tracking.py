"""wandb beside metrics.jsonl. Offline unless a key is set; the key itself is never read or logged here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from coevo.config import Recipe
from coevo.files import write_atomic
from coevo.lm import dist
from coevo.loop.folder import RunFolder

Log = Callable[[dict[str, Any]], None]


@contextmanager
def tracker(recipe: Recipe, folder: RunFolder) -> Iterator[Log]:
    """Yields a function that logs one metrics row; does nothing where the recipe does not ask for wandb."""
    if not recipe.tracking.wandb or not dist.is_main():
        yield lambda row: None
        return
    import wandb

    identity = folder.root / "wandb-id.txt"
    if not identity.exists():
        write_atomic(identity, secrets.token_hex(4))
    run = wandb.init(
        project=recipe.tracking.project,
        name=recipe.name,
        id=identity.read_text().strip(),
        resume="allow",
        mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
        dir=str(folder.root),
        config=recipe.model_dump(mode="json"),
    )
    try:
        yield lambda row: run.log({f"{row['phase']}/{k}": v for k, v in row.items() if isinstance(v, int | float)})
    finally:
        run.finish()
