"""One conversation of a team's own, whatever its format, and the rows of files that conversations are read from."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from coevo.data.jsonstream import CHUNK_BYTES, Refused, clipped, json_type, strict_decoder
from coevo.errors import DataError
from coevo.files import what_it_is
from coevo.types import Turn

LONGEST_LINE = 16 * 2**20
"""Bytes of a line, or of a record of a list: a conversation of millions of words is none."""


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
    """What is no part of the dialogue, by reason."""
    last_alone: bool = False
    """Whether the last answer alone is a reference, as where the format marks it as one."""


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
    except ValueError as error:  # a null character in the path
        raise DataError(f"{str(path)!r}: cannot be opened ({error}); check the path.") from None
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
            if line.isspace() and len(line) <= LONGEST_LINE:
                continue
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
    with path.open("rb") as file:
        held = _Held(file, path)
        held.next_sign()
        held.at += 1
        for number in range(sys.maxsize):
            where = f"{path}, record {number}"
            if held.next_sign() == "]":
                held.at += 1
                if held.next_sign():
                    raise DataError(f"{where}: {clipped(held.shown())} found; expected nothing after the list.")
                return
            if number:
                if held.next_sign() != ",":
                    raise DataError(f"{where}: {clipped(held.shown())} found; expected ',' or ']'.")
                held.at += 1
                held.next_sign()
            yield Row(where, _object(held.value(where), where))


class _Held:
    """The part of a file that is held: from the record that is being read on."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = strict_decoder()
        self._text, self._ended, self._bytes = "", False, 0
        self.at = 0

    def next_sign(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in " \t\r\n":
                    return self._text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def shown(self) -> str:
        """What stands here, for a message."""
        return self._text[self.at : self.at + 30]

    def value(self, where: str) -> Any:
        """The JSON value that begins here."""
        while True:
            try:
                value, self.at = _parsed(self._json, self._text, where, self.at)
                return value
            except _Malformed:
                if len(self._text) - self.at > LONGEST_LINE:
                    raise DataError(
                        f"{where}: no record ends within {LONGEST_LINE:,} characters; one is broken, or too long."
                    ) from None
                if not self._more():
                    raise

    def _more(self) -> bool:
        """Reads on, at least as much as is held, so that long records cost linear time. False at the end."""
        if self._ended:
            return False
        rest = self._text[self.at :]
        data = self._file.read(max(CHUNK_BYTES, 2 * len(rest)))
        pending = len(self._decoder.getstate()[0])
        try:
            self._text, self.at = rest + self._decoder.decode(data, final=not data), 0
        except UnicodeDecodeError as error:
            raise _not_utf8(str(self._path), self._bytes - pending + error.start, error.object[error.start]) from None
        self._bytes, self._ended = self._bytes + len(data), not data
        return True


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(place, error.start, data[error.start]) from None


def _not_utf8(place: str, at: int, byte: int) -> DataError:
    return DataError(
        f"{place}: byte {at} (0x{byte:02x}) is not valid UTF-8; convert the file, for example with "
        "iconv -f ENCODING -t UTF-8."
    )


class _Malformed(DataError):
    """No JSON, or JSON that goes on beyond what is held."""


def _parsed(decoder: json.JSONDecoder, text: str, place: str, start: int = 0) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _Malformed(
            f"{place}: malformed JSON, {error.msg.removesuffix(' at')} at {clipped(text[error.pos : error.pos + 30])}; "
            "correct it, or write the file again."
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

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(256):
            for value in batch.to_pylist():
                yield Row(f"{path}, record {number}", value)
                number += 1
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, record {number} or after: a text is not valid UTF-8 ({error.reason}); write it again."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is no Parquet file that can be read ({str(error)[:200]}); write it again.") from None


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(_short_lines(file, path), strict=True)
        try:
            _check_columns(path, reader.fieldnames or ())
            for value in reader:
                if None in value or None in value.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: has not the {len(reader.fieldnames or ())} columns of the first line."
                    )
                yield Row(f"{path}:{reader.line_num}", dict(value))
        except csv.Error as error:
            raise DataError(
                f"{path}:{reader.line_num}: broken CSV ({error}); quote texts that hold commas and quotes."
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: is not valid UTF-8 ({error.reason} at byte {error.start} of what was read); convert the file."
            ) from None


def _short_lines(file: TextIO, path: Path) -> Iterator[str]:
    for number in range(1, sys.maxsize):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{path}:{number}: the line has more than {LONGEST_LINE:,} characters; expected JSON Lines, a JSON list, "
                "Parquet or CSV."
            )
        yield line


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if len(names) < 2:
        raise DataError(
            f"{path}: begins with neither {{ nor [, and its first line names no columns of a CSV; expected JSON "
            "Lines, a JSON list, Parquet or CSV."
        )
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{path}:1: two columns are called {clipped(twice)}; expected a name of its own for each.")


def joined(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Neighbouring messages of one speaker as one, with a blank line between."""
    made: list[Turn] = []
    for turn in turns:
        if made and made[-1].role == turn.role:
            made[-1] = Turn(turn.role, f"{made[-1].text}\n\n{turn.text}")
        else:
            made.append(turn)
    return tuple(made)
