"""The pace of a run, drawn for a person."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from coevo.cli.console import is_main, say
from coevo.escape import visible

COUNTABLE = 1_000_000
"""From so many units on, a share says more than a number."""


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

    The time that remains is said once it is known: of a phase after its first steps, of later ones by those of their kind
    that are done, in the proportion of the plan's estimates. While a kind has not been seen, it is said as a least.
    """

    def __init__(self, phases: Sequence[Timed], every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        # here, so that --help stays quick
        from coevo.pace import Pace, Steps, to_go
        from coevo.plan.table import duration

        self._duration, self._to_go, self._steps_of, self._clock = duration, to_go, Steps, clock
        self._pace = Pace()
        self._phases = {phase.name: phase for phase in phases}
        self._order = [phase.name for phase in phases]
        self._finished: set[str] = set()
        self._live = sys.stdout.isatty()
        self._every_s = 0.2 if self._live else every_s
        self._name = ""
        self._units = 0
        self._steps = Steps(0, 0.0)
        self._note = ""
        self._began = self._shown = 0.0

    def phase(self, name: str, units: int) -> None:
        """A phase begins."""
        self._name, self._units, self._note = name, units, ""
        self._began = self._clock()
        self._steps = self._steps_of(units, self._began)
        self._draw(force=True)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Units done, and the figure of the moment."""
        self._steps.advance(units, self._clock())
        self._note = note or self._note
        self._draw()

    def done(self, name: str) -> None:
        """A phase has ended, or was done already."""
        self._finished.add(name)
        if name != self._name:
            say(f"[{self._place(name)}] {name}: done before")
            return
        elapsed = self._clock() - self._began
        self._pace.saw(self._work(name), elapsed)
        self._name = ""
        self._line(f"[{self._place(name)}] {name}: done in {self._duration(elapsed)}{self._remaining(0.0)}", end="\n")

    def say(self, text: str) -> None:
        """A line that a person should read."""
        self._line(text, end="\n")

    def _draw(self, force: bool = False) -> None:
        now = self._clock()
        if not force and now - self._shown < self._every_s:
            return
        self._shown = now
        note = f" · {self._note}" if self._note else ""
        counted = self._units < COUNTABLE
        done = f"{self._steps.done}/{self._units}" if counted else f"{self._steps.done / self._units:.0%}"
        place = f"[{self._place(self._name)}] {self._name} {done}{note}"
        self._line(f"{place} · {self._duration(now - self._began)}{self._remaining(self._steps.left(now))}")

    def _remaining(self, begun_s: float | None) -> str:
        """Time to go, given what is left of the phase in hand; nothing while that is not known."""
        if begun_s is None:
            return ""
        todo = [self._work(name) for name in self._order if name not in self._finished and name != self._name]
        if not todo and not self._name:
            return ""
        seconds, all_known = self._pace.left(todo, begun_s)
        return self._to_go(seconds, all_known, self._duration(seconds))

    def _work(self, name: str) -> tuple[str, float | None]:
        """A phase's kind, the first word of its name (`rpm` of `08-rpm-1`), and its estimate."""
        kind = re.match(r"(?:\d+-)?([^\W\d]+)", name)
        return (kind[1] if kind else name), self._phases[name].seconds_estimate

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
