"""Reading what a judge wrote: scores or a comparison, whole and within the scale, or a reason why not. Never a guess."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from coevo.config.rubric import Rubric
from coevo.data.jsonstream import Refused, clipped, strict_decoder
from coevo.prompts import COMPARED, SCORED

Choice = Literal["A", "B", "tie"]
_LONGEST = 100_000
"""Characters of an answer that are searched; what comes after is a judge that has run away."""
_READ_AGAIN = 10
"""Times so many characters that an answer is read, a brace that begins no object being read past and searched again."""
_DEEPEST = 20
"""Levels of an object in an answer; a verdict has two."""
_THINKING, _THOUGHT = "<think>", "</think>"


class Unreadable(ValueError):
    """An answer that gives no verdict; says why, in words that the judge can act on."""


def read_scores(text: str, rubric: Rubric) -> dict[str, int]:
    """Dimension -> score.

    Raises:
        Unreadable: no such object, two that differ, a dimension too few or too many, or a value that is not a whole number
            of the scale.
    """
    least, most = rubric.scale.least, rubric.scale.most
    found = _only(text, SCORED, rubric)
    for name, value in found.items():
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        if not whole or not least <= value <= most:
            raise Unreadable(f"{SCORED}.{name} is {clipped(value)}, expected a whole number from {least} to {most}")
    return {name: int(found[name]) for name in rubric.names}


def read_choices(text: str, rubric: Rubric) -> dict[str, Choice]:
    """Dimension -> the better reply, as they were shown.

    Raises:
        Unreadable: as in `read_scores`, or a value that is not A, B or tie.
    """
    found = _only(text, COMPARED, rubric)
    choices: dict[str, Choice] = {}
    for name in rubric.names:
        value = found[name]
        plain = value.strip().lower() if isinstance(value, str) else None
        choice: Choice | None = "A" if plain == "a" else "B" if plain == "b" else "tie" if plain == "tie" else None
        if choice is None:
            raise Unreadable(f'{COMPARED}.{name} is {clipped(value)}, expected "A", "B" or "tie"')
        choices[name] = choice
    return choices


def _only(text: str, field: str, rubric: Rubric) -> dict[str, Any]:
    """The one object under `field`, with exactly the rubric's dimensions."""
    found = [value[field] for value in _objects(_spoken(text)) if field in value]
    if not found:
        raise Unreadable(f'there is no JSON object with the field "{field}" in it')
    if any(other != found[0] for other in found[1:]):
        raise Unreadable(f'there are {len(found)} objects with the field "{field}", and they differ')
    value = found[0]
    if not isinstance(value, dict):
        raise Unreadable(f'"{field}" is {clipped(value)}, expected an object with {", ".join(rubric.names)}')
    missing = [name for name in rubric.names if name not in value]
    unknown = [name for name in value if name not in rubric.names]
    if missing or unknown:
        said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {clipped(unknown)} too"] * bool(unknown)
        raise Unreadable(f'"{field}" {" and ".join(said)}, expected exactly {", ".join(rubric.names)}')
    return value


def _spoken(text: str) -> str:
    """What comes after a judge's thinking."""
    said = text[:_LONGEST].rpartition(_THOUGHT)[2]
    if _THINKING in said:
        raise Unreadable("the thinking has no end")
    return said


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, outermost ones only.

    Raises:
        Unreadable: braces within braces, more than a verdict has, which would be read again from each of them.
    """
    decoder, place, read = strict_decoder(), text.find("{"), 0
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            if _deeper(value, _DEEPEST):
                raise RecursionError
        except (json.JSONDecodeError, Refused) as error:
            # to no known place if it was refused
            read += getattr(error, "pos", len(text)) - place
            if read > _READ_AGAIN * _LONGEST:
                raise Unreadable("its braces begin too many things that are no JSON object") from None
            end = place + 1
        except RecursionError:
            raise Unreadable(f"its JSON is nested too deeply, expected at most {_DEEPEST} levels") from None
        else:
            yield value
        place = text.find("{", end)


def _deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more levels; asks no further than one level beyond them."""
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(_deeper(inner, levels - 1) for inner in (value.values() if isinstance(value, dict) else value))
