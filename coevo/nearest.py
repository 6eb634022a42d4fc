"""What a person may have meant: the nearest known word, and the nearest file that is there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST_ENTRIES = 1000
"""Of a folder, that are looked at."""
_SHIPPED = Path("recipes")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean …?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def near_path(path: Path) -> Path | None:
    """A file or folder that is there and has nearly this path, or the name of a shipped recipe; None if there is none."""
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        names = _names(found)
        if part not in (".", "..", *names):
            near = difflib.get_close_matches(part, names, n=1, cutoff=0.7) or [f"{part}.yaml"]
            if near[0] not in names:
                return _recipe(path)
            part = near[0]
        found /= part
    return found if found != path and os.path.lexists(found) else None


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except OSError:
        return []


def _recipe(path: Path) -> Path | None:
    if len(path.parts) != 1:
        return None
    names = {recipe.stem: recipe for recipe in _SHIPPED.rglob("*.yaml")}
    near = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.7)
    return names[near[0]] if near else None
