"""Reading a large JSON object of lists one element at a time, with line numbers and byte offsets for messages."""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from coevo.errors import DataError
from coevo.files import what_it_is
from coevo.text import blank

CHUNK_BYTES = 1 << 16
LONGEST_NUMBER = 1000
"""Digits of a whole number; Python itself refuses 4,300, and prints none longer."""
WRAP = 'JSON lines or a bare list are wrapped as {"IDTest": [{…}, {…}]}'
_JSON_TYPES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
_LONGEST_TOKEN = 16
"""A JSON error this close to the buffer's end may come of a number, word or escape that is cut there."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element of one list."""

    key: str
    """Name of the list."""
    index: int
    value: Any
    line: int
    """Line on which the element begins, from 1."""
    raw: str
    """Its text, for finding the line of a field."""


def is_label(text: str) -> bool:
    """Whether a name can stand on one line of a table, a log or a terminal."""
    broken = any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
    return len(text) <= 200 and not broken and not blank(text)


class Refused(ValueError):
    """JSON that Python reads and coevo does not: what was found, and what was expected."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; plain JSON readers keep the last of a repeated one in silence."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refused(f"the field {twice!r} twice in one object", "each field once", "keep one of them")
    return fields


def _constant(word: str) -> NoReturn:
    raise Refused(word, "a finite number, as JSON has no other", "write null or text")


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        _constant(digits)
    return value


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise Refused(f"a number of {len(digits)} digits", f"at most {LONGEST_NUMBER}", "write it as text")
    return int(digits)


def strict_decoder() -> json.JSONDecoder:
    """JSON without fields that occur twice, infinities and endless numbers.

    What it will not read raises `Refused` (or JSONDecodeError, or RecursionError for nesting beyond the stack).
    """
    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_real, parse_int=_whole)


def clipped(value: Any) -> str:
    """A value for a message, of 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def json_type(value: Any) -> str:
    """What a JSON value is, in a person's words."""
    return _JSON_TYPES.get(type(value), "null")


def has_surrogate(text: str) -> bool:
    """Whether there is half of a surrogate pair, which UTF-8 cannot hold."""
    return any("\ud800" <= character <= "\udfff" for character in text)


class JsonLists:
    """An open file that holds one JSON object whose values are lists; holds one chunk and one element in memory.

    Raises:
        DataError: the file cannot be opened, is not UTF-8 (with the byte's offset), is cut short, or is not such JSON.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}); expected a JSON file; check the path") from error
        except ValueError as error:
            raise DataError(f"{str(path)!r}: cannot be opened ({error}); expected a JSON file; check the path") from error
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._json = strict_decoder()
        self._buffer = ""
        self._position = 0
        self._line = 1
        self._n_bytes = 0
        self._ended = False
        self._place = "the opening brace"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def elements(self) -> Iterator[Element | str]:
        """Yield, for each list in turn, its key (a str) and then its elements."""
        if self._peek() == "\ufeff":
            self._advance(1)
        self._take("{", "an object that maps split names to lists of samples", WRAP)
        seen: set[str] = set()
        while self._peek() != "}" or seen:
            self._place = "a split's name"
            key = self._value()[0]
            if not isinstance(key, str):
                raise self._malformed(f"{key!r}", "a split's name in quotes")
            if not is_label(key):
                raise self._malformed(f"{key[:80]!r}", "a split's name of one line, 1 to 200 characters")
            if key in seen:
                raise DataError(f"{self._path}:{self._line}: split {key!r} occurs twice; expected once; merge the two")
            seen.add(key)
            yield key
            self._place = f"split {key!r}"
            self._take(":", "':' after the split's name")
            yield from self._list(key)
            if not self._comma("}"):
                break
        self._place = "after the last split"
        self._take("}", "'}' at the end of the file")
        if self._peek():
            raise self._malformed(repr(self._peek()), "nothing after the closing brace")

    def _list(self, key: str) -> Iterator[Element]:
        self._take("[", f"a list of samples in split {key!r}", WRAP)
        index = 0
        while self._peek() != "]" or index:
            self._place = f"split {key!r}, sample {index}"
            self._peek()
            line = self._line
            value, raw = self._value()
            yield Element(key, index, value, line, raw)
            index += 1
            if not self._comma("]"):
                break
        self._take("]", f"']' after the samples of split {key!r}")

    def _comma(self, closer: str) -> bool:
        if self._peek() == closer:
            return False
        self._take(",", f"',' or '{closer}'")
        return True

    def _take(self, token: str, expected: str, remedy: str = "correct this line") -> None:
        found = self._peek()
        if found != token:
            raise self._malformed(repr(found), expected, remedy) if found else self._cut_short()
        self._advance(1)

    def _peek(self) -> str:
        """Skip white space and return the next character, or nothing at the end."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in " \t\r\n":
                    return character
                self._advance(1)
            if not self._fill():
                return ""

    def _value(self) -> tuple[Any, str]:
        """Decode one JSON value; return it and its text."""
        if not self._peek():
            raise self._cut_short()
        while True:
            buffer, start = self._buffer, self._position
            try:
                value, end = self._json.raw_decode(buffer, start)
            except json.JSONDecodeError as error:
                text = buffer.rstrip()
                cut = error.msg.startswith("Unterminated string") or error.pos > len(buffer) - _LONGEST_TOKEN
                if cut and self._fill():
                    continue
                if error.pos >= len(text) or (cut and not text.endswith(("}", "]"))):
                    raise self._cut_short() from error
                line = self._line + buffer.count("\n", start, error.pos)
                raise DataError(
                    f"{self._path}:{line}: {self._place}: malformed JSON, {error.msg.removesuffix(' at')} at "
                    f"{buffer[error.pos : error.pos + 30]!r}; correct this line or write the file again"
                ) from error
            except Refused as error:
                raise self._malformed(*error.args) from None
            except RecursionError:
                raise self._malformed("JSON that is nested too deeply", "samples of a few levels") from None
            if end == len(self._buffer) and self._fill():
                continue
            raw = self._buffer[self._position : end]
            self._advance(end - self._position)
            return value, raw

    def _advance(self, n: int) -> None:
        self._line += self._buffer.count("\n", self._position, self._position + n)
        self._position += n

    def _fill(self) -> bool:
        """Read on; at least as much as is held, so that long values cost linear time. False at the end."""
        if self._ended:
            return False
        held = self._buffer[self._position :]
        pending = len(self._decoder.getstate()[0])
        data = self._file.read(max(CHUNK_BYTES, 2 * len(held)))
        found = what_it_is(data, self._path) if not self._n_bytes else None
        if found:
            raise DataError(f"{self._path}: {found}")
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            offset = self._n_bytes - pending + error.start
            raise DataError(
                f"{self._path}: byte {offset} (0x{error.object[error.start]:02x}) is not valid UTF-8 ({error.reason}), "
                f"in or after {self._place}; expected UTF-8; convert the file, for example with iconv -f ENCODING -t UTF-8"
            ) from error
        self._n_bytes += len(data)
        self._ended = not data
        self._buffer, self._position = held + text, 0
        return bool(data)

    def _malformed(self, found: str, expected: str, remedy: str = "correct this line") -> DataError:
        return DataError(f"{self._path}:{self._line}: {self._place}: found {found}; expected {expected}; {remedy}")

    def _cut_short(self) -> DataError:
        return DataError(
            f"{self._path}: the file ends after {self._n_bytes} bytes, in {self._place} (begun on line {self._line}); "
            "expected complete JSON; the file is cut short, copy or write it again"
        )
