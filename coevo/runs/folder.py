"""The run folder: the whole truth of a run. Writes are atomic; a phase is done when its manifest is written, last of all.

Layout: docs/operations.md. Wall-clock times live in `timing.jsonl` alone, so that everything else is bit-identical between
a run and its resumed twin.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coevo import dist
from coevo.config import Recipe
from coevo.config.load import dump_recipe
from coevo.errors import CheckpointError, ConfigError
from coevo.files import content_key, locked, sha256_of, write_atomic, writing
from coevo.prompts import TODAY
from coevo.records import Json, Shape, checked
from coevo.runs.record import (
    CODE_FILE,
    ENVIRONMENT_FILE,
    RECIPE_FILE,
    data_record,
    part_hashes,
    read_resolved,
    refuse_taken,
    run_key,
)
from coevo.runs.streams import drop_rows, dump_row, read_rows

__all__ = ["STREAMS", "TIMING_FILE", "RunFolder", "dump_row", "held", "read_resolved", "read_rows"]

PACKAGES = ("coevo", "torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "numpy")
STREAMS = ("metrics.jsonl", "rollouts.jsonl")
TIMING_FILE = "timing.jsonl"


class _Done(Shape):
    """What a finished phase left behind."""

    facts: Json
    manifest: dict[str, str]


_DONE: TypeAdapter[Any] = TypeAdapter(_Done)


class RunFolder:
    """Paths and writes of one run. On all but the main process every write does nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path, recipe: Recipe) -> RunFolder:
        """Makes a new folder and records recipe, code and environment.

        Raises:
            ConfigError: the folder exists and is not empty; it is left untouched.
        """
        refuse_taken(root)
        folder = cls(root)
        dist.barrier()
        if dist.is_main():
            text = dump_recipe(recipe)
            begun = {"recipe_sha256": hashlib.sha256(text.encode()).hexdigest(), "data": data_record(recipe)}
            begun["functions"] = part_hashes(recipe.weights)
            write_atomic(root / ENVIRONMENT_FILE, json.dumps(_environment() | begun, indent=2) + "\n")
            write_atomic(root / CODE_FILE, _git("diff", "HEAD"))
            # the recipe last: a folder with a recipe is one that can be resumed
            write_atomic(root / RECIPE_FILE, text)
        dist.barrier()
        return folder

    @classmethod
    def open(cls, root: Path) -> tuple[RunFolder, Recipe]:
        """Opens an existing run.

        Raises:
            CheckpointError: it is none, or its recipe is not the one that it was begun with.
        """
        return cls(root), read_resolved(root)

    # phases ------------------------------------------------------------------------------------------------------

    def phase(self, name: str) -> Path:
        """The phase's folder."""
        return self.root / "phases" / name

    def policy(self, name: str) -> Path:
        """Where the phase's trained policy is."""
        return self.phase(name) / "policy"

    def done(self, name: str) -> bool:
        """Whether the phase has finished."""
        return (self.phase(name) / "done.json").exists()

    def facts(self, name: str) -> dict[str, Any] | None:
        """What a finished phase left behind, or None if it has not finished.

        Raises:
            CheckpointError: the phase is another run's, or a file of it is missing or changed since.
        """
        if not self.done(name):
            return None
        done = self._done(name)
        self._refuse_others(name, done)
        for relative, digest in done["manifest"].items():
            file = self.root / relative
            if not file.exists() or sha256_of(file) != digest:
                raise CheckpointError(
                    f"{file}: {'changed' if file.exists() else 'missing'} since phase {name} finished (expected sha256 "
                    f"{digest[:12]}…). Restore it, or delete {self.phase(name)} and those after it to run them again."
                )
        return done["facts"]

    def _refuse_others(self, name: str, done: Mapping[str, Any]) -> None:
        """A phase's manifest vouches for its files, not for their being this run's: a copied folder brings its own."""
        own, remedy = self._own(name), "Restore the run's own, or delete it and those after it to run them again."
        if own is not None and done["run"] not in (None, own):
            raise CheckpointError(
                f"{self.phase(name)}: is another phase's folder, or was run by another recipe or on other data than "
                f"{self.root} was begun with, so that its numbers do not belong here. {remedy}"
            )
        files = [file for file in self.policy(name).glob("*") if file.is_file() and not file.name.startswith(".")]
        strange = sorted({str(file.relative_to(self.root)) for file in files} - set(done["manifest"]))
        if strange:
            raise CheckpointError(
                f"{self.root / strange[0]}: not written by phase {name}, or {self.phase(name)} is another phase's folder. "
                f"{remedy}"
            )

    def manifest(self, name: str) -> dict[str, str]:
        """Files of a finished phase, from the run's root, with their sha256."""
        return self._done(name)["manifest"]

    def processes(self, name: str) -> int | None:
        """How many processes a finished phase was run by; None if that was not recorded."""
        return self._done(name)["processes"]

    def _done(self, name: str) -> dict[str, Any]:
        path = self.phase(name) / "done.json"
        try:
            done = checked(json.loads(path.read_bytes()), _DONE)
            later = {key: done.get(key) for key in ("processes", "run")}
            return {"facts": done["facts"], "manifest": done["manifest"], **later}
        except (ValueError, RecursionError):
            raise CheckpointError(
                f"{path}: damaged; expected what phase {name} left behind as JSON. Restore it, or delete {self.phase(name)} "
                "and those after it to run them again."
            ) from None

    def finish(self, name: str, facts: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        """Marks a phase as done: a manifest of its policy and of `files`, written last; its checkpoints go."""
        if dist.is_main():
            policy = self.policy(name)
            every = [*(sorted(policy.rglob("*")) if policy.exists() else []), *files]
            manifest = {str(f.relative_to(self.root)): sha256_of(f) for f in every if f.is_file()}
            done = {"facts": facts, "manifest": manifest, "processes": dist.world_size()}
            self._mark(name, done)
            shutil.rmtree(self.phase(name) / "checkpoints", ignore_errors=True)
        dist.barrier()

    def take_over(self, name: str, donor: RunFolder) -> None:
        """Marks a phase whose files were copied from another run as done here."""
        self._mark(name, donor._done(name))

    def _mark(self, name: str, done: Mapping[str, Any]) -> None:
        """Written last; it says whose the phase is, as a folder of another run may be copied in its place."""
        text = json.dumps({**done, "run": self._own(name)}, indent=2) + "\n"
        write_atomic(self.phase(name) / "done.json", text)

    def _own(self, name: str) -> str | None:
        """What says that a phase is of this run; None where it was begun before that was recorded."""
        run = run_key(self.root)
        return None if run is None else content_key(run, name)

    # streams -----------------------------------------------------------------------------------------------------

    def append(self, stream: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to a JSON-lines file at the run's root; they are on disk before a checkpoint that comes after them."""
        if dist.is_main():
            path = self.root / stream
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.writelines(dump_row(row) for row in rows)
                file.flush()
                os.fsync(file.fileno())

    def rewind(self, steps: Mapping[str, int]) -> None:
        """Drops the rows that unfinished phases wrote after a step; they will be written again.

        Args:
            steps: phase -> the step that it goes on from; -1 for one that begins anew.
        """

        def goes(row: Mapping[str, Any]) -> bool:
            kept = steps.get(str(row.get("phase")))
            return kept is not None and row.get("step", 0) > kept

        if dist.is_main():
            for stream in STREAMS:
                (self.root / stream).touch()
                drop_rows(self.root / stream, goes)
            drop_rows(self.root / TIMING_FILE, lambda row: False)
        dist.barrier()

    def clock(self, phase: str, seconds: float) -> None:
        """Notes how long a phase took, in seconds."""
        self.append(TIMING_FILE, [{"phase": phase, "elapsed_s": round(seconds, 2), "ended": time.time()}])


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Keeps every other coevo from writing into a folder while the block runs; of a distributed run, rank 0 holds the lock.

    Raises:
        ConfigError: another one writes into it, who is named on all ranks.
    """
    with ExitStack() as stack:
        refusal = ""
        if dist.is_main():
            try:
                stack.enter_context(locked(root))
            except ConfigError as error:
                refusal = str(error)
        refusal = dist.gather([refusal])[0]
        if refusal:
            raise ConfigError(refusal)
        yield


def _git(*arguments: str) -> str:
    """What git says of the code that runs, or nothing where there is no checkout."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(here), *arguments]
        # the code is UTF-8 whatever the locale
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _environment() -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "revision": _git("rev-parse", "HEAD").strip(),
        "processes": dist.world_size(),
        "cpus": os.cpu_count(),
        # what a chat template that asks which day it is has been told
        "template_date": TODAY.date().isoformat(),
    }
