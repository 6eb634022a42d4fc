"""How a run tells what it is doing. The command line draws it; tests and libraries leave it silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Receives the run's pace. Only the main process reports."""

    def phase(self, name: str, units: int) -> None:
        """A phase begins that consists of so many units (updates, scenarios)."""

    def advance(self, units: int = 1, note: str = "") -> None:
        """Units done, and the figure of the moment."""

    def done(self, name: str) -> None:
        """A phase has ended, or was done already."""

    def say(self, text: str) -> None:
        """A line that a person should read, such as samples that were left out."""


class Silent:
    """Reports nothing."""

    def phase(self, name: str, units: int) -> None:
        """Ignored."""

    def advance(self, units: int = 1, note: str = "") -> None:
        """Ignored."""

    def done(self, name: str) -> None:
        """Ignored."""

    def say(self, text: str) -> None:
        """Ignored."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the work, for the display of its pace."""

    name: str
    seconds_estimate: float | None
    """At the reference rate of `plan`; None if the size of the base is not known."""
