"""Trackers beside metrics.jsonl, none of which may stop a run: wandb, and TensorBoard, MLflow and trackio by accelerate.

wandb is offline unless a key is set and the server answers; keys are never read here.
"""

from __future__ import annotations

import io
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from coevo import dist
from coevo.config import Recipe
from coevo.files import write_atomic
from coevo.runs.folder import RunFolder

Log = Callable[[dict[str, Any]], None]
Say = Callable[[str], None]
T = TypeVar("T")
CONNECTED_WITHIN_S = 5
BEGUN_WITHIN_S = 30


@contextmanager
def tracker(recipe: Recipe, folder: RunFolder, say: Say) -> Iterator[Log]:
    """Yields a function that logs one metrics row to every tracker of the recipe; only the main process logs.

    A tracker that cannot begin, or that fails on the way, is no reason to stop: `say` is told, and it is left out. A server
    of wandb's that cannot be reached, or refuses the key, is done without: the run is logged offline.
    """
    with ExitStack() as opened:
        begun: dict[str, Begun] = {}
        for name in recipe.tracking.to if dist.is_main() else ():
            begin = _wandb if name == "wandb" else _by_accelerate
            if found := _tried(f"{name} cannot be logged to", say, partial(begin, name, recipe, folder, say)):
                begun[name] = found[0]
                opened.callback(_tried, f"{name} may lack its last rows", say, found[0][1])

        def log_row(row: dict[str, Any]) -> None:
            numbers = {f"{row['phase']}/{k}": v for k, v in row.items() if isinstance(v, int | float)}
            for name, (log, _) in list(begun.items()):
                if not _tried(f"{name} is logged to no longer", say, partial(log, numbers, row["step"])):
                    del begun[name]

        yield log_row


def _tried(trouble: str, say: Say, action: Callable[[], T]) -> tuple[T] | None:
    """(what it returns,); None where it fails in whatever way of whatever library, and `say` is told."""
    try:
        return (action(),)
    except Exception as error:  # noqa: BLE001
        found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        say(f"{trouble}: {found}. metrics.jsonl has every row all the same.")
        return None


Begun = tuple[Callable[[dict[str, float], int], None], Callable[[], None]]
"""(what logs numbers of a step, what ends it)."""


def _by_accelerate(name: str, recipe: Recipe, folder: RunFolder, say: Say) -> Begun:
    """A tracker of accelerate's, in the run's folder where its own variables name no other place.

    Raises:
        OSError: the server that MLFLOW_TRACKING_URI names does not answer; MLflow itself would try for minutes.
    """
    from accelerate import tracking

    project, root = recipe.tracking.project, folder.root.resolve()
    one: Any
    if name == "tensorboard":
        one = tracking.TensorBoardTracker("tensorboard", root)
    elif name == "trackio":
        one = tracking.TrackioTracker(project, name=f"{recipe.name}-{_identity(folder, 'trackio')}", resume="allow")
    else:
        server = os.environ.setdefault("MLFLOW_TRACKING_URI", (root / "mlruns").as_uri())
        if server.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        elif server.startswith("http") and (problem := unreachable(server)):
            raise OSError(f"{server}: {problem}")
        known = folder.root / "mlflow-id.txt"
        run_id = known.read_text().strip() if known.exists() else None
        one = tracking.MLflowTracker(experiment_name=project, run_id=run_id, run_name=recipe.name)
    # trackio prints
    with redirect_stdout(io.StringIO()):
        one.start()
    if name == "mlflow":
        write_atomic(folder.root / "mlflow-id.txt", one.tracker.info.run_id)

    def finish() -> None:
        with redirect_stdout(io.StringIO()):
            one.finish()

    return (lambda numbers, step: one.log(numbers, step=step)), finish


def _identity(folder: RunFolder, name: str) -> str:
    """What a tracker knows a run by when it goes on."""
    path = folder.root / f"{name}-id.txt"
    if not path.exists():
        write_atomic(path, secrets.token_hex(4))
    return path.read_text().strip()


def _wandb(name: str, recipe: Recipe, folder: RunFolder, say: Say) -> Begun:
    run = _begin(recipe, folder, say)
    return (lambda numbers, step: run.log(numbers)), run.finish


def _begin(recipe: Recipe, folder: RunFolder, say: Say) -> Any:
    import wandb

    identity = _identity(folder, "wandb")

    def begin(mode: Literal["online", "offline"]) -> Any:
        return wandb.init(
            project=recipe.tracking.project,
            name=recipe.name,
            id=identity,
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
