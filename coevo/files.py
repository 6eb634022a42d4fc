"""What a kill cannot halve: whole files, and a dict on disk that grows line by line. Without torch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from pydantic import TypeAdapter

from coevo.errors import CheckpointError, ConfigError

KEY_LENGTH = 32
"""Hexadecimal digits of a key: 128 bits."""


def write_atomic(path: Path, text: str) -> None:
    """Writes a file so that a kill leaves the old one or the new one: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def content_key(*parts: Any) -> str:
    """A hash of plain values, the same on every machine."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]


class Journal:
    """A dict from content key to a JSON value, in one append-only file; `add` returns when the rows are on disk.

    A last line that a kill cut short is dropped, and `torn_bytes` says how long it was. `shape` is the type that values
    have, as pydantic reads it.

    Raises:
        ConfigError: another process is writing the file.
        CheckpointError: a line in the middle of the file cannot be read, or its value is of another shape.
    """

    def __init__(self, path: Path, writes: bool = True, shape: Any = Any) -> None:
        self._file: IO[bytes] | None = _locked(path) if writes else None
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        self.torn_bytes = len(content) - len(whole)
        row: TypeAdapter[Any] = TypeAdapter(tuple[str, shape])
        self._rows = dict(_parsed(path, number, line, row) for number, line in enumerate(whole.splitlines(), start=1))
        if self._file is not None and self.torn_bytes:
            self._file.truncate(len(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    def add(self, rows: Mapping[str, Any]) -> None:
        """Keeps new rows."""
        self._rows.update(rows)
        if self._file is not None and rows:
            lines = (json.dumps([key, value], ensure_ascii=False, allow_nan=False) for key, value in rows.items())
            self._file.write("".join(f"{line}\n" for line in lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())


def _locked(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"{path.parent.parent} is in use by another coevo; wait, or choose another --out.") from None
    return file


def _parsed(path: Path, number: int, line: bytes, row: TypeAdapter[Any]) -> tuple[str, Any]:
    try:
        row.validate_json(line, strict=True)
        key, value = json.loads(line)
        return str(key), value
    except (ValueError, TypeError):
        raise CheckpointError(
            f"{path}:{number}: not a row of this cache: {line[:60]!r}. The file was edited or damaged; delete it to have "
            "its content computed again."
        ) from None
