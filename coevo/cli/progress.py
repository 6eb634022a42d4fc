"""The pace of a run, drawn for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

from coevo.cli.console import is_main, say
from coevo.escape import visible


class Timed(Protocol):
    """What is known beforehand of a phase of a run, or of a stage of a diagnosis."""

    @property
    def name(self) -> str:
        """As the work itself calls it."""

    @property
    def seconds_estimate(self) -> float | None:
        """At a reference rate; None if it is not known."""


class ConsoleProgress:
    """Draws a run's pace: one moving line on a terminal, a line now and then in a log. Silent on all but the main rank.

    The time that remains is the plan's estimate, corrected by how the phases so far compared with theirs.
    """

    def __init__(self, phases: Sequence[Timed], every_s: float = 10.0) -> None:
        from coevo.loop.table import duration  # here, so that --help stays quick

        self._duration = duration
        self._phases = {phase.name: phase for phase in phases}
        self._order = [phase.name for phase in phases]
        self._finished: set[str] = set()
        self._live = sys.stdout.isatty()
        self._every_s = 0.2 if self._live else every_s
        self._name = ""
        self._units = self._done = 0
        self._note = ""
        self._began = self._shown = 0.0
        self._spent_s = self._expected_s = 0.0

    def phase(self, name: str, units: int) -> None:
        """A phase begins."""
        self._name, self._units, self._done, self._note = name, units, 0, ""
        self._began = time.monotonic()
        self._draw(force=True)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Units done, and the figure of the moment."""
        self._done = min(self._done + units, self._units)
        self._note = note or self._note
        self._draw()

    def done(self, name: str) -> None:
        """A phase has ended, or was done already."""
        self._finished.add(name)
        if name != self._name:
            say(f"[{self._place(name)}] {name}: done before")
            return
        elapsed = time.monotonic() - self._began
        self._spent_s += elapsed
        self._expected_s += self._phases[name].seconds_estimate or 0.0
        self._name = ""
        self._line(f"[{self._place(name)}] {name}: done in {self._duration(elapsed)}{self._remaining(0.0, 0.0)}", end="\n")

    def say(self, text: str) -> None:
        """A line that a person should read."""
        self._line(text, end="\n")

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._shown < self._every_s:
            return
        self._shown = now
        share = self._done / self._units if self._units else 0.0
        note = f" · {self._note}" if self._note else ""
        place = f"[{self._place(self._name)}] {self._name} {self._done}/{self._units}{note}"
        self._line(f"{place} · {self._duration(now - self._began)}{self._remaining(share, now - self._began)}")

    def _remaining(self, share: float, elapsed: float) -> str:
        """Time to go, from the pace so far; nothing while there is no pace yet."""
        planned = self._phases[self._name].seconds_estimate if self._name else 0.0
        todo = [self._phases[n].seconds_estimate for n in self._order if n not in self._finished and n != self._name]
        if planned is None or None in todo:
            return ""
        expected, spent = self._expected_s + share * planned, self._spent_s + (elapsed if share else 0.0)
        pace = spent / expected if expected > 0.5 else 1.0
        left = pace * ((1 - share) * planned + sum(seconds or 0.0 for seconds in todo))
        return f" · about {self._duration(left)} to go"

    def _place(self, name: str) -> str:
        return f"{self._order.index(name) + 1}/{len(self._order)}"

    def _line(self, text: str, end: str = "") -> None:
        if not is_main():
            return
        text = visible(text)
        if self._live:
            sys.stdout.write(f"\r\x1b[2K{text}{end}")
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
