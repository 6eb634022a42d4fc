"""What a calibration has computed, kept on disk part by part, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coevo.calibration.settings import Result, Settings
from coevo.errors import ConfigError, DataError
from coevo.files import write_atomic

QUESTION = "settings.json"


class Cache:
    """Parts of one calibration under `root/parts`. Writes are atomic: the old file or the new one, never half of one."""

    def __init__(self, root: Path, settings: Settings) -> None:
        """Opens a new folder, or one of the same settings.

        Raises:
            ConfigError: the folder is taken by something else, or by a calibration of other settings.
        """
        self._parts = root / "parts"
        wanted = json.dumps(settings.to_dict(), indent=2) + "\n"
        question = self._parts / QUESTION
        if question.exists():
            if question.read_text(encoding="utf-8") != wanted:
                raise ConfigError(
                    f"--out {root} holds a calibration of other settings ({question}); choose another folder, or delete it."
                )
        elif root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ConfigError(f"--out {root} exists and holds no calibration; expected a folder that is new or empty.")
        self._parts.mkdir(parents=True, exist_ok=True)
        write_atomic(question, wanted.encode())

    def part(self, name: str, compute: Callable[[], Result]) -> Result:
        """A part's result, computed unless it is there."""
        path = self._path(name, "json")
        if not path.exists():
            write_atomic(path, (json.dumps(compute(), allow_nan=False) + "\n").encode())
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); delete it and run again.") from None

    def arrays(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Arrays by name, computed unless they are there."""
        path = self._path(name, "npz")
        if not path.exists():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **compute())
            write_atomic(path, buffer.getvalue())
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def _path(self, name: str, suffix: str) -> Path:
        # a name has a responder's in it, which need not be a file's
        return self._parts / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.{suffix}"
