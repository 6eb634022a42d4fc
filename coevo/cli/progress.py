"""The pace of a run, drawn for a person."""

from __future__ import annotations

import atexit
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
    """Draws a run's pace: a bar on a terminal (rich), a line now and then in a log. Silent on all but the main rank.

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
        self._bar = Bar() if sys.stdout.isatty() and is_main() else None
        self._every_s = 0.2 if self._bar else every_s
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
        if self._bar:
            self._bar.stop()
        say(f"[{self._place(name)}] {name}: done in {self._duration(elapsed)}{self._remaining(0.0)}")

    def say(self, text: str) -> None:
        """A line that a person should read."""
        say(text)

    def _draw(self, force: bool = False) -> None:
        now = self._clock()
        if not force and now - self._shown < self._every_s:
            return
        self._shown = now
        note = f" · {self._note}" if self._note else ""
        counted = self._units < COUNTABLE
        done = f"{self._steps.done}/{self._units}" if counted else f"{self._steps.done / self._units:.0%}"
        place = f"[{self._place(self._name)}] {self._name}"
        said = f"{done}{note} · {self._duration(now - self._began)}{self._remaining(self._steps.left(now))}"
        if self._bar:
            self._bar.draw(visible(place), visible(said), self._steps.done, self._units)
        else:
            say(f"{place} {said}")

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


class Bar:
    """One bar of rich at the bottom of a terminal; what is printed meanwhile goes above it."""

    def __init__(self) -> None:
        # here, so that --help stays quick
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._progress = Progress(*columns, transient=True, auto_refresh=False)
        self._task = self._progress.add_task("", said="")
        atexit.register(self.stop)  # an error would else leave the terminal without its cursor

    def draw(self, place: str, said: str, done: int, units: int) -> None:
        """The bar of one phase."""
        self._progress.update(self._task, description=place, said=said, completed=done, total=units)
        self._progress.start()
        self._progress.refresh()

    def stop(self) -> None:
        """Takes it off the screen."""
        self._progress.stop()
