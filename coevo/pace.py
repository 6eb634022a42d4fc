"""How long what is left will take, by what has been seen. What has not been seen yet is not guessed at. Without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STEPS = 3
"""Reports of a phase before its pace is known. The first one also holds loading and warming up, and is left out."""
Work = tuple[str, float | None]
"""Its kind, and the plan's estimate in seconds at a reference rate; None if there is none."""


@dataclass
class _Seen:
    spent_s: float = 0.0
    planned_s: float = 0.0
    n: int = 0
    least_s: float = float("inf")


class Pace:
    """What work of each kind has taken, beside its estimates. Kinds differ: writing texts is not as far off as training."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def saw(self, work: Work, elapsed_s: float) -> None:
        """Work that is done."""
        kind, planned_s = work
        seen = self._seen.setdefault(kind, _Seen())
        seen.spent_s += elapsed_s
        seen.planned_s += planned_s or 0.0
        seen.n += 1
        seen.least_s = min(seen.least_s, elapsed_s)

    def expected(self, work: Work) -> float | None:
        """How long work of this kind should take, in seconds; None if none has been seen.

        In the proportion of the estimates, but never less than the shortest so far: starting up is in no estimate.
        """
        kind, planned_s = work
        seen = self._seen.get(kind)
        if seen is None:
            return None
        if not planned_s or not seen.planned_s:
            return seen.spent_s / seen.n
        return max(seen.least_s, planned_s * seen.spent_s / seen.planned_s)

    def left(self, todo: Iterable[Work], begun_s: float = 0.0) -> tuple[float, bool]:
        """Seconds that are known to be left, and whether that is all: of a kind not seen yet nothing is known.

        Args:
            todo: work that has not begun.
            begun_s: what is left of the work in hand.
        """
        expected = [self.expected(work) for work in todo]
        return begun_s + sum(seconds for seconds in expected if seconds is not None), None not in expected


class Steps:
    """The pace of one phase, by its own reports."""

    def __init__(self, units: int, now_s: float) -> None:
        self._units, self.done, self._reports = units, 0, 0
        self._first_s = self._last_s = now_s
        self._first_done = 0

    def advance(self, units: int, now_s: float) -> None:
        """Units done."""
        self.done = min(self.done + units, self._units)
        self._reports += 1
        self._last_s = now_s
        if self._reports == 1:
            self._first_s, self._first_done = now_s, self.done

    def left(self, now_s: float) -> float | None:
        """Seconds to the end of the phase; None while its pace is not known."""
        since = self.done - self._first_done
        if self._reports < STEPS or since <= 0:
            return None
        pace = (self._last_s - self._first_s) / since
        return max(0.0, pace * (self._units - self.done) - (now_s - self._last_s))


def to_go(seconds: float, all_known: bool, duration: str) -> str:
    """The end of a line of progress: so long in words, or at least so long; empty where nothing is known."""
    if seconds <= 0 and not all_known:
        return ""
    return f" · {'about' if all_known else 'at least'} {duration} to go"
