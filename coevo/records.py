"""JSON that coevo wrote and reads again, checked where it is read: a damaged file is named with line, field and value.

What is checked is what a reader of the file relies on; further fields pass. Without torch.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from coevo.errors import CoevoError, DataError

MOST = 1e12
"""No figure of coevo's comes near it, and sums of what is below it stay finite."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=-MOST, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Json = dict[str, Any]
T = TypeVar("T")


class Shape(BaseModel):
    """What must be in a record; further fields are left alone. No text for a number, and no number that is none."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, arbitrary_types_allowed=False)


class Broken(ValueError):
    """What is wrong with a record, to be said with the place where it stands."""


def read_json(path: Path, shape: TypeAdapter[Any], remedy: str, error: type[CoevoError] = DataError) -> Json:
    """A JSON object, checked.

    Args:
        path: the file.
        shape: what it must hold.
        remedy: what a person can do about a damaged one; a sentence.
        error: of what kind a complaint is.

    Raises:
        CoevoError: it cannot be read, is no JSON, or lacks what it must hold.
    """
    try:
        return checked(_loads(path.read_bytes(), exact=True), shape)
    except Broken as problem:
        raise error(f"{path}: {problem}. {remedy}") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}. {remedy}") from None


def read_lines(
    path: Path, shape: TypeAdapter[Any], remedy: str, error: type[CoevoError] = DataError, exact: bool = False
) -> Iterator[Json]:
    """The JSON objects of a file of lines, each checked; none if there is no such file.

    A last line without its end is left out: it is being written just now, or a kill cut it short.

    Args:
        path: the file.
        shape: what each line must hold.
        remedy: as of `read_json`.
        error: as of `read_json`.
        exact: whether NaN and infinity are refused in fields too that the shape does not name.

    Raises:
        CoevoError: it cannot be read, or a line is no JSON or lacks what it must hold.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and not _is_json(line):
                    return
                if line.strip():
                    yield _line(path, number, line, shape, remedy, error, exact)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}. {remedy}") from None


def _line(
    path: Path, number: int, line: bytes, shape: TypeAdapter[Any], remedy: str, error: type[CoevoError], exact: bool
) -> Json:
    try:
        return checked(_loads(line, exact), shape)
    except Broken as problem:
        raise error(f"{path}, line {number}: {problem}. {remedy}") from None


def _is_json(line: bytes) -> bool:
    try:
        _loads(line, exact=False)
    except Broken:
        return False
    return True


def _loads(content: bytes, exact: bool) -> Any:
    try:
        text = content.decode("utf-8")
        if not exact:
            return json.loads(text)
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as problem:
        raise Broken(f"not valid JSON: not UTF-8 at byte {problem.start}") from None
    except RecursionError:
        raise Broken("not valid JSON: nested too deeply") from None
    except ValueError as problem:
        raise Broken(f"not valid JSON: {problem}") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is beyond what a number can be")
    return value


def checked(record: Any, shape: TypeAdapter[Any]) -> Json:
    """The record itself, if it has the shape.

    Raises:
        Broken: with the first field that has not, its value and what was expected.
    """
    try:
        shape.validate_python(record)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        raise Broken(_complaint(first["loc"], first["type"], first["msg"], first["input"])) from None
    found: Json = record
    return found


def _complaint(location: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    where = f"field {'.'.join(map(str, location))}" if location else "the record"
    if kind == "missing":
        return f"{where} is missing"
    expected = message.removeprefix("Input should be ").partition(" or instance of ")[0].replace("dictionary", "object")
    return f"{where} is {reprlib.repr(value)}; expected {expected}"
