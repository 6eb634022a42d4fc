"""The few collective operations that coevo needs, which are the identity in a single process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
R = TypeVar("R")


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 in a single process."""
    return dist.get_rank() if _running() else 0


def world_size() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if _running() else 1


def is_main() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def barrier() -> None:
    """Waits until every process is here."""
    if _running():
        dist.barrier()


def gather(rows: Sequence[T]) -> list[T]:
    """Concatenates every process's rows in rank order, on all processes."""
    if not _running():
        return list(rows)
    parts: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, list(rows))
    return [row for part in parts for row in part]


def share_out(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
    """Runs `work` on this process's share of `items` and returns everyone's results in the order of `items`.

    Process r takes items r, r + world, ...: the order of a seeded list is the same for every number of processes.
    """
    if not _running():
        return list(work(items))
    done = gather([list(work(items[rank() :: world_size()]))])
    merged: list[R | None] = [None] * len(items)
    for r, part in enumerate(done):
        merged[r :: world_size()] = part
    return merged  # type: ignore[return-value]
