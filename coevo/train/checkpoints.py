"""Checkpoints that vouch for themselves: a mark with the hashes of all their files, written last.

The trainer writes adapter or weights, optimizer, scheduler, its own state, and the random state of every process.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo import dist
from coevo.errors import ConfigError
from coevo.files import content_key, fsync, sha256_of, write_atomic

COMPLETE = "complete"
"""Mark of a checkpoint that was written to its end: steps done, number of processes, and file -> sha256."""


@dataclass(frozen=True)
class Start:
    """Where an unfinished phase goes on from."""

    checkpoint: Path | None
    """None: it begins anew."""
    step: int
    """Of the recipe; -1 where the phase begins anew."""
    processes: int
    """That wrote the checkpoint; each has its own random state and share of the data in it."""
    notes: tuple[str, ...]
    """Newer checkpoints that were passed over, each with the reason, and what else a person must know."""

    def check_processes(self, phase: Path) -> None:
        """Refuses another number of processes than the checkpoint was written by.

        Raises:
            ConfigError: it names both numbers.
        """
        if self.checkpoint is not None and self.processes != dist.world_size():
            raise ConfigError(
                f"{self.checkpoint}: written by {self.processes} process(es), and resumed by {dist.world_size()}: random "
                "states and shares of the data would be others, and so the weights. Launch the same number "
                f"(--num_processes {self.processes}), or delete {phase} to have the phase begin anew."
            )


def seal(checkpoint: Path, step: int) -> None:
    """Marks a checkpoint as whole, once all of it is on disk; for the main process, when every one has written its part."""
    paths = sorted(checkpoint.rglob("*"))
    for path in paths:
        fsync(path)
    files = {str(path.relative_to(checkpoint)): sha256_of(path) for path in paths if path.is_file()}
    write_atomic(checkpoint / COMPLETE, json.dumps(_signed(step, dist.world_size(), files), indent=1) + "\n")
    fsync(checkpoint.parent)


def last_checkpoint(folder: Path) -> Start:
    """The newest checkpoint that is whole. The main process reads it through, and deletes newer ones that are not."""
    found = [_newest_whole(folder)] if dist.is_main() else [None]
    start = dist.gather(found)[0]
    assert start is not None
    return start


def newest(folder: Path) -> Path | None:
    """The newest checkpoint, of those that `last_checkpoint` has left."""
    return max((path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()), key=_updates, default=None)


def _newest_whole(folder: Path) -> Start:
    notes: list[str] = []
    for path in sorted(folder.glob("checkpoint-*"), key=_updates, reverse=True):
        mark = _mark(path)
        fault = "it was not written to its end" if mark is None else _damage(path, mark)
        if mark is not None and fault is None:
            if "files" not in mark:
                notes.append(f"{path.name} was written before hashes were recorded, so that damage to it cannot be seen")
            return Start(path, mark["step"], mark["processes"], tuple(notes))
        notes.append(f"{path.name} is passed over: {fault}")
        shutil.rmtree(path, ignore_errors=True)
    return Start(None, -1, dist.world_size(), tuple(notes))


def _signed(step: int, processes: int, files: dict[str, str]) -> dict[str, Any]:
    """A mark, with a hash of its own."""
    return {"step": step, "processes": processes, "files": files, "key": content_key(step, processes, files)}


def _mark(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint's mark says; None where there is none that can be read."""
    try:
        mark = json.loads((checkpoint / COMPLETE).read_bytes())
        if isinstance(mark, int):
            # an earlier coevo wrote the step alone
            return {"step": mark, "processes": len(list(checkpoint.glob("rng_state*.pth"))) or 1}
        return mark if mark == _signed(mark["step"], mark["processes"], mark["files"]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _damage(checkpoint: Path, mark: dict[str, Any]) -> str | None:
    """What is wrong with a checkpoint that was whole once."""
    for name, digest in mark.get("files", {}).items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} has changed since it was written"
    return None


def _updates(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1
