"""Results kept by content hash, so that work that was killed is not done again: rows in one file, arrays in one each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coevo import dist
from coevo.files import Journal, write_atomic

DIGEST_BYTES = 32


class Store(Journal):
    """A journal that every process of a distributed run opens: all see all rows, and the main one writes."""

    def __init__(self, path: Path, shape: Any = Any) -> None:
        if dist.is_main():
            # locks, and drops a torn last line, before the others read
            super().__init__(path, shape=shape)
        dist.barrier()
        if not dist.is_main():
            super().__init__(path, writes=False, shape=shape)
        dist.barrier()


def save_array(path: Path, array: Any) -> None:
    """Writes an array as numpy's own file, and after it the hash of its bytes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    content = file.getvalue()
    write_atomic(path, content + hashlib.sha256(content).digest())


def load_array(path: Path, say: Callable[[str], None]) -> Any:
    """What `save_array` wrote; None where nothing is, or where it is damaged, which is said."""
    if not path.exists():
        return None
    whole = path.read_bytes()
    content, digest = whole[:-DIGEST_BYTES], whole[-DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == digest:
        return np.load(io.BytesIO(content), allow_pickle=False)
    say(f"{path}: cut short, changed, or of an earlier coevo; its vectors are computed again.")
    return None
