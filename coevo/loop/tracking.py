"""wandb beside metrics.jsonl. Offline unless a key is set and the server answers; the key itself is never read here."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from coevo import dist
from coevo.config import Recipe
from coevo.files import write_atomic
from coevo.runs.folder import RunFolder

Log = Callable[[dict[str, Any]], None]
CONNECTED_WITHIN_S = 5
BEGUN_WITHIN_S = 30


@contextmanager
def tracker(recipe: Recipe, folder: RunFolder, say: Callable[[str], None]) -> Iterator[Log]:
    """Yields a function that logs one metrics row; does nothing where the recipe does not ask for wandb.

    A server that cannot be reached, or refuses the key, is no reason to wait or to stop: `say` is told, and the run is
    logged offline.
    """
    if not recipe.tracking.wandb or not dist.is_main():
        yield lambda row: None
        return
    run = _begin(recipe, folder, say)
    try:
        yield lambda row: run.log({f"{row['phase']}/{k}": v for k, v in row.items() if isinstance(v, int | float)})
    finally:
        run.finish()


def _begin(recipe: Recipe, folder: RunFolder, say: Callable[[str], None]) -> Any:
    import wandb

    identity = folder.root / "wandb-id.txt"
    if not identity.exists():
        write_atomic(identity, secrets.token_hex(4))

    def begin(mode: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=recipe.tracking.project,
            name=recipe.name,
            id=identity.read_text().strip(),
            resume="allow",
            mode=mode,
            dir=str(folder.root),
            config=recipe.model_dump(mode="json"),
            settings=wandb.Settings(init_timeout=BEGUN_WITHIN_S),
        )

    if not os.environ.get("WANDB_API_KEY"):
        return begin("offline")
    server = wandb.setup().settings.base_url
    problem = unreachable(server)
    if problem is None:
        try:
            return begin("online")
        except (wandb.Error, ValueError) as error:
            problem = " ".join(str(error).split())[:200]
            # else its service still holds the run's id
            wandb.teardown()
    say(f"wandb: {server} cannot be used ({problem}); going on offline. Later: wandb sync {folder.root}/wandb/offline-run-*")
    return begin("offline")


def unreachable(server: str) -> str | None:
    """Why nothing answers at a server's address, or at the proxy that stands before it; None if something does."""
    address = urlsplit(server)
    host = address.hostname or ""
    proxy = "" if proxy_bypass(host) else getproxies().get(address.scheme, "")
    if proxy:
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=CONNECTED_WITHIN_S).close()
    except (OSError, ValueError) as error:
        return str(error)
    return None
