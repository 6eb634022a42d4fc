"""One conversation of a team's own, whatever its format, and the rows of files that conversations are read from."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.data.jsonstream import Refused, clipped, json_type, strict_decoder
from coevo.errors import DataError
from coevo.files import what_it_is
from coevo.types import Turn

LONGEST_LINE = 16 * 2**20
"""Bytes of a line of JSON Lines: a conversation of millions of words is none."""
LARGEST_JSON = 2 * 2**30
"""Bytes of a JSON file that is held as a whole."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, in order; the agent may begin."""

    name: str
    """Unique in its file."""
    turns: tuple[Turn, ...]
    place: str
    """`file:line` or `file, record n`, for messages."""
    system: str = ""
    """The system prompt, empty for none."""
    persona: str = ""
    """Who the user is, where the format says it."""
    character: str | Mapping[str, Any] = ""
    """Who the agent is, where the format says it."""
    left_out: tuple[str, ...] = ()
    """Messages that are no part of the dialogue, by reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file."""

    place: str
    value: dict[str, Any]

    def fault(self, field: str, value: Any, expected: str, remedy: str) -> DataError:
        """What is wrong with one of its fields."""
        found = f"is {clipped(value)} ({json_type(value)})" if value is not None else "is missing"
        return DataError(f"{self.place}, field {field}: {found}; expected {expected}; {remedy}.")


def rows(path: Path) -> Iterator[Row]:
    """The records of a file: JSON Lines, a JSON list of objects, Parquet or CSV, told by its first bytes.

    Raises:
        DataError: it cannot be opened, is none of these, or breaks its format; names the line or record.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check the path.") from None
    if head.startswith(b"PAR1"):
        yield from _parquet(path)
        return
    found = what_it_is(head, path)
    if found:
        raise DataError(f"{path}: {found}")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise DataError(f"{path}: is empty; expected conversations.")
    if start.startswith(b"["):
        yield from _list(path)
    elif start.startswith(b"{"):
        yield from _lines(path)
    else:
        yield from _csv(path)


def _lines(path: Path) -> Iterator[Row]:
    decoder = strict_decoder()
    with path.open("rb") as file:
        for number in range(1, sys.maxsize):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                return
            place = f"{path}:{number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{place}: the line has more than {LONGEST_LINE:,} bytes; expected one record; split it.")
            text = _decoded(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, place).strip()
            if text:
                value, end = _parsed(decoder, text, place)
                if end != len(text):
                    raise DataError(f"{place}: {clipped(text[end:])} follows the record; expected one object a line.")
                yield Row(place, _object(value, place))


def _list(path: Path) -> Iterator[Row]:
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise DataError(f"{path}: has {size:,} bytes; a JSON list is held as a whole, so write JSON Lines: jq -c '.[]' FILE")
    text = _decoded(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path))
    decoder, place = strict_decoder(), len(text) - len(text.lstrip()) + 1
    for number in range(sys.maxsize):
        place = _skipped(text, place)
        if text[place : place + 1] == "]" and not text[place + 1 :].strip():
            return
        if number:
            if text[place : place + 1] != ",":
                raise DataError(f"{path}, record {number}: {clipped(text[place : place + 30])} found; expected ',' or ']'.")
            place = _skipped(text, place + 1)
        where = f"{path}, record {number}"
        value, place = _parsed(decoder, text, where, place)
        yield Row(where, _object(value, where))


def _skipped(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {error.start} (0x{data[error.start]:02x}) is not valid UTF-8; convert the file, for example "
            "with iconv -f ENCODING -t UTF-8."
        ) from None


def _parsed(decoder: json.JSONDecoder, text: str, place: str, start: int = 0) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: malformed JSON, {error.msg} at {clipped(text[error.pos : error.pos + 30])}; correct it, or write the "
            "file again."
        ) from None
    except Refused as error:
        raise DataError(f"{place}: {error.args[0]} found; expected {error.args[1]}.") from None
    except RecursionError:
        raise DataError(f"{place}: the JSON is nested too deeply; expected records of a few levels.") from None


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: is {clipped(value)} ({json_type(value)}); expected an object a record.")
    return value


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(256):
            for value in batch.to_pylist():
                yield Row(f"{path}, record {number}", value)
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no Parquet file that can be read ({str(error)[:200]}); write it again.") from None


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            if reader.fieldnames is None or len(reader.fieldnames) < 2:
                raise DataError(
                    f"{path}: begins with neither {{ nor [, and its first line names no columns of a CSV; expected JSON "
                    "Lines, a JSON list, Parquet or CSV."
                )
            for value in reader:
                if None in value or None in value.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: has not the {len(reader.fieldnames)} columns of the first line."
                    )
                yield Row(f"{path}:{reader.line_num}", dict(value))
        except csv.Error as error:
            raise DataError(
                f"{path}:{reader.line_num}: broken CSV ({error}); quote texts that hold commas and quotes."
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: is not valid UTF-8 ({error.reason} at byte {error.start}); convert the file."
            ) from None


def joined(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Neighbouring messages of one speaker as one, with a blank line between."""
    made: list[Turn] = []
    for turn in turns:
        if made and made[-1].role == turn.role:
            made[-1] = Turn(turn.role, f"{made[-1].text}\n\n{turn.text}")
        else:
            made.append(turn)
    return tuple(made)
