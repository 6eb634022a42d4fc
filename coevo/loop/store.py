"""Results kept by content hash in one append-only file, so that work that was killed is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coevo.files import Journal
from coevo.lm import dist


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
