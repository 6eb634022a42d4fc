"""The few collective operations that coevo needs, which are the identity in a single process.

Torch is not imported here: where nobody has, there is no process group either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def _running() -> bool:
    group = _group()
    return group is not None and group.is_available() and group.is_initialized()


def _group() -> Any:
    """`torch.distributed`, if anybody has imported it."""
    return sys.modules.get("torch.distributed")


def rank() -> int:
    """This process's number, 0 in a single process."""
    return _group().get_rank() if _running() else 0


def world_size() -> int:
    """How many processes share the work."""
    return _group().get_world_size() if _running() else 1


def is_main() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process is here."""
    if _running():
        _group().barrier()


def gather(rows: Sequence[T]) -> list[T]:
    """Concatenates every process's rows in rank order, on all processes."""
    if not _running():
        return list(rows)
    parts: list[list[T]] = [[] for _ in range(world_size())]
    _group().all_gather_object(parts, list(rows))
    return [row for part in parts for row in part]


def share_out(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], group: Callable[[T], Hashable] | None = None
) -> list[R]:
    """Runs `work` on this process's share of `items` and returns everyone's results in the order of `items`.

    Process r takes items r, r + world, ...: the order of a seeded list is the same for every number of processes. With
    `group`, what it calls equal stays together, and process r takes groups r, r + world, ... in order of appearance.
    """
    if not _running():
        return list(work(items))
    groups: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(group(item) if group else place, []).append(place)
    shares = [list(chain(*list(groups.values())[r :: world_size()])) for r in range(world_size())]
    done = gather([list(work([items[place] for place in shares[rank()]]))])
    merged: list[R | None] = [None] * len(items)
    for places, part in zip(shares, done, strict=True):
        for place, result in zip(places, part, strict=True):
            merged[place] = result
    return merged  # type: ignore[return-value]
