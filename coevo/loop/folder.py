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
from pathlib import Path
from typing import Any

from coevo.config import Recipe
from coevo.errors import CheckpointError, ConfigError
from coevo.files import write_atomic
from coevo.lm import dist
from coevo.recipe import dump_recipe, load_recipe

PACKAGES = ("coevo", "torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "datasets", "numpy")
STREAMS = ("metrics.jsonl", "rollouts.jsonl")
_BEFORE_THE_RECIPE = frozenset(
    ("environment.json", "code.diff", ".environment.json.tmp", ".code.diff.tmp", ".resolved.yaml.tmp")
)
"""What a kill while a folder is made leaves in it; nothing that a run needs."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError:
                raise CheckpointError(
                    f"{path}:{number}: not valid JSON: {line[:60]!r}. The file was edited or damaged; restore it, or "
                    "start a new run."
                ) from None


def dump_row(row: Mapping[str, Any]) -> str:
    """One JSON line, keys in the row's own order: a character card is read in the order it was written in."""
    return json.dumps(row, ensure_ascii=False) + "\n"


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
        if root.exists() and any(file.name not in _BEFORE_THE_RECIPE for file in root.iterdir()):
            raise ConfigError(
                f"{root} exists and is not empty. Continue it with `coevo train --resume {root}`, or choose another --out."
            )
        folder = cls(root)
        dist.barrier()
        if dist.is_main():
            write_atomic(root / "environment.json", json.dumps(_environment(), indent=2) + "\n")
            write_atomic(root / "code.diff", _git("diff", "HEAD"))
            # the recipe last: a folder with a recipe is one that can be resumed
            write_atomic(root / "resolved.yaml", dump_recipe(recipe))
        dist.barrier()
        return folder

    @classmethod
    def open(cls, root: Path) -> tuple[RunFolder, Recipe]:
        """Opens an existing run.

        Raises:
            CheckpointError: it is none.
        """
        return cls(root), read_resolved(root)

    # phases ------------------------------------------------------------------------------------------------------

    def phase(self, name: str) -> Path:
        """The phase's folder."""
        return self.root / "phases" / name

    def policy(self, name: str) -> Path:
        """Where the phase's trained policy is."""
        return self.phase(name) / "policy"

    def facts(self, name: str) -> dict[str, Any] | None:
        """What a finished phase left behind, or None if it has not finished.

        Raises:
            CheckpointError: a file of the phase is missing or changed since.
        """
        path = self.phase(name) / "done.json"
        if not path.exists():
            return None
        done = self._done(name)
        for relative, digest in done["manifest"].items():
            file = self.root / relative
            if not file.exists() or _sha256(file) != digest:
                raise CheckpointError(
                    f"{file}: {'changed' if file.exists() else 'missing'} since phase {name} finished (expected sha256 "
                    f"{digest[:12]}…). Restore it, or delete {self.phase(name)} and those after it to run them again."
                )
        return done["facts"]

    def manifest(self, name: str) -> dict[str, str]:
        """Files of a finished phase, from the run's root, with their sha256."""
        return self._done(name)["manifest"]

    def _done(self, name: str) -> dict[str, Any]:
        path = self.phase(name) / "done.json"
        try:
            done: dict[str, Any] = json.loads(path.read_bytes())
            return {"facts": done["facts"], "manifest": done["manifest"]}
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{path}: damaged; expected what phase {name} left behind as JSON. Restore it, or delete {self.phase(name)} "
                "and those after it to run them again."
            ) from None

    def finish(self, name: str, facts: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        """Marks a phase as done: a manifest of its policy and of `files`, written last; its checkpoints go."""
        if dist.is_main():
            policy = self.policy(name)
            every = [*(sorted(policy.rglob("*")) if policy.exists() else []), *files]
            manifest = {str(f.relative_to(self.root)): _sha256(f) for f in every if f.is_file()}
            write_atomic(self.phase(name) / "done.json", json.dumps({"facts": facts, "manifest": manifest}, indent=2) + "\n")
            shutil.rmtree(self.phase(name) / "checkpoints", ignore_errors=True)
        dist.barrier()

    # streams -----------------------------------------------------------------------------------------------------

    def append(self, stream: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows to a JSON-lines file at the run's root."""
        if dist.is_main():
            with (self.root / stream).open("a", encoding="utf-8") as file:
                file.writelines(dump_row(row) for row in rows)

    def rewind(self, phase: str, step: int) -> None:
        """Drops the rows that an unfinished phase wrote after `step`; they will be written again."""
        if dist.is_main():
            for stream in STREAMS:
                path = self.root / stream
                kept = [r for r in read_rows(path) if r["phase"] != phase or r["step"] <= step]
                write_atomic(path, "".join(dump_row(row) for row in kept))
        dist.barrier()

    def clock(self, phase: str, seconds: float) -> None:
        """Notes how long a phase took, in seconds."""
        self.append("timing.jsonl", [{"phase": phase, "elapsed_s": round(seconds, 2), "ended": time.time()}])


def read_resolved(root: Path) -> Recipe:
    """The recipe of an existing run folder.

    Raises:
        CheckpointError: the folder is no run.
    """
    path = root / "resolved.yaml"
    if not path.exists():
        raise CheckpointError(f"{root} holds no run: resolved.yaml is missing. Give the folder that --out named.")
    return load_recipe(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    }
