"""Sharing work out, with two processes acted by two calls that each know the other's part."""

from __future__ import annotations

import pytest

from coevo import dist


def run_two(monkeypatch, work, items, group):
    """What each of two processes does with its share, and what both return."""
    parts: list[list] = []
    shares: list[list] = []

    def gather(mine):
        parts.append(mine[0])
        return [*parts, *[[None] * (len(items) - len(parts[0]))] * (2 - len(parts))]

    monkeypatch.setattr(dist, "_running", lambda: True)
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "gather", gather)
    for rank in range(2):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        result = dist.share_out(lambda share: (shares.append(list(share)), work(share))[1], items, group)
    return shares, result


@pytest.mark.parametrize(
    "group, first, second",
    [
        (None, ["a1", "a2", "c1", "c2"], ["b1", "b2", "a3"]),  # every other item
        (lambda item: item[0], ["a1", "a2", "a3", "c1", "c2"], ["b1", "b2"]),  # a and c, then b
    ],
)
def test_results_come_back_in_order(monkeypatch, group, first, second):
    items = ["a1", "b1", "a2", "b2", "c1", "a3", "c2"]
    shares, result = run_two(monkeypatch, lambda share: [item.upper() for item in share], items, group)
    assert shares == [first, second]
    assert result == ["A1", "B1", "A2", "B2", "C1", "A3", "C2"]


def test_one_process_does_it_all():
    assert dist.share_out(lambda share: [len(share)] * len(share), ["a", "b"], group=lambda item: item) == [2, 2]
