"""Files of JSON lines that a run appends to and may have to take rows out of, however long they have grown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from coevo.errors import CheckpointError
from coevo.files import fsync, writing

_COPIED_AT_ONCE = 1 << 20


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line that a kill cut short is left out.

    Raises:
        CheckpointError: a line is no JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield _parsed(path, number, line)


def dump_row(row: Mapping[str, Any]) -> str:
    """One JSON line, keys in the row's own order: a character card is read in the order it was written in."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def drop_rows(path: Path, goes: Callable[[dict[str, Any]], bool]) -> None:
    """Takes rows out of a JSON-lines file, and with them a last line that a kill cut short.

    One pass, a line at a time. Where no row goes nothing is written; rows at the end are cut off; the file is written anew
    only where others follow one that goes.

    Raises:
        CheckpointError: a line is no JSON object.
        StorageError: the disk is full.
    """
    if not path.exists():
        return
    first, position = None, 0
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path), ExitStack() as opened:
        file, rest = opened.enter_context(path.open("rb")), None
        opened.callback(temporary.unlink, missing_ok=True)
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") or goes(_parsed(path, number, line)):
                first = position if first is None else first
            elif first is not None:
                if rest is None:
                    rest = opened.enter_context(temporary.open("wb"))
                    _copy_head(path, first, rest)
                rest.write(line)
            position += len(line)
        if rest is not None:
            rest.close()
            fsync(temporary)
            temporary.replace(path)
        elif first is not None:
            os.truncate(path, first)


def copy_rows(source: Path, target: Path, phases: Collection[str]) -> None:
    """Adds the rows of these phases to another JSON-lines file.

    Raises:
        CheckpointError: a line is no JSON object.
        StorageError: the disk is full.
    """
    rows = (dump_row(row) for row in read_rows(source) if row.get("phase") in phases)
    with writing(target), target.open("a", encoding="utf-8") as file:
        file.writelines(rows)
        file.flush()
        os.fsync(file.fileno())


def _copy_head(path: Path, size: int, target: IO[bytes]) -> None:
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _COPIED_AT_ONCE))):
            target.write(block)
            size -= len(block)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise CheckpointError(
            f"{path}:{number}: not a JSON object: {line[:60]!r}. The file was edited or damaged; restore it, or start a new "
            "run."
        )
    return row
