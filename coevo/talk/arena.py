"""Two models side by side: one dialogue, two answers to each message in hidden order, and the votes as they are kept."""

from __future__ import annotations

import fcntl
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, Self

from pydantic import TypeAdapter

from coevo.errors import ConfigError
from coevo.files import writing
from coevo.maths.stats import Measure, wilson
from coevo.records import Shape, read_lines
from coevo.talk.session import Speaker, Talk
from coevo.text import blank
from coevo.types import Response, Turn

Choice = Literal["a", "b", "tie", "both bad"]
SIDES: tuple[Literal["a", "b"], Literal["a", "b"]] = ("a", "b")


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    model: str
    """As it was given on the command line."""
    version: str
    """Stamp of its weights and of how it reads; equal for equal models, whatever they are called."""


class _Who(Shape):
    model: str
    version: str


class Vote(Shape):
    """A line of the votes' file. Other fields are kept for readers: messages, answers, order, sampling, time."""

    a: _Who
    b: _Who
    choice: Choice


_SHAPE: TypeAdapter[Vote] = TypeAdapter(Vote)


@dataclass(frozen=True)
class Pair:
    """Two answers to one message, in the order in which they are shown."""

    order: tuple[Literal["a", "b"], Literal["a", "b"]]
    answers: dict[str, Response]
    """By side."""

    @property
    def shown(self) -> list[Response]:
        """The first and the second."""
        return [self.answers[side] for side in self.order]


def drawn(talk: Talk, speakers: tuple[Speaker, Speaker], seed: int) -> Pair:
    """Both answers to the last message. Nothing is added to the dialogue yet.

    Raises:
        DataError: the user has said nothing, or the message is too long for one of them.
    """
    shown = [talk.shown(speaker)[0] for speaker in speakers]
    talk.draws += 1
    answers = [speaker.say(x, talk.draws) for speaker, x in zip(speakers, shown, strict=True)]
    first, second = SIDES if random.Random(f"arena {seed} {talk.draws}").random() < 0.5 else SIDES[::-1]
    return Pair((first, second), dict(zip(SIDES, answers, strict=True)))


def go_on(talk: Talk, pair: Pair, choice: Choice) -> None:
    """Continues the dialogue with the winner's answer, of a tie with the first shown; both bad, without the message."""
    if choice == "both bad":
        talk.undo()
        return
    kept = pair.answers[pair.order[0] if choice == "tie" else choice]
    if not blank(kept.text):
        talk.turns.append(Turn("agent", kept.text))


def vote_row(talk: Talk, pair: Pair, choice: Choice, sides: tuple[Side, Side], sampling: dict[str, Any]) -> dict[str, Any]:
    """A vote as it is kept; `talk` stands before the answers."""
    return {
        "a": asdict(sides[0]),
        "b": asdict(sides[1]),
        "choice": choice,
        "first_shown": pair.order[0],
        "character": talk.card.name,
        "user": talk.user,
        "persona": talk.persona,
        "messages": [{"role": turn.role, "text": turn.text} for turn in talk.turns],
        "answers": {side: {"text": pair.answers[side].text, "status": pair.answers[side].status} for side in SIDES},
        "sampling": sampling,
        "draw": talk.draws,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Votes:
    """A file of votes, a JSON object a line, that one process at a time adds to. A line that a kill cut short is dropped.

    Raises:
        ConfigError: another process adds to it.
        DataError: a line is no vote.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab")
        try:
            self._take(path)
        except BaseException:
            self._file.close()
            raise

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--votes {path}: another coevo arena adds to it; end it, or name another file.") from None
        self._path = path
        remedy = "Expected votes of coevo arena; name another file by --votes."
        self.rows: list[dict[str, Any]] = list(read_lines(path, _SHAPE, remedy))
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            # what has no end was cut by a kill, unless an editor left the last end of line out
            whole = content.rfind(b"\n") + 1
            if len(self.rows) > sum(1 for line in content[:whole].splitlines() if line.strip()):
                self._file.write(b"\n")
                self._file.flush()
            else:
                self._file.truncate(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a vote: it is on the disk when this returns.

        Raises:
            StorageError: the disk is full.
        """
        with writing(self._path):
            self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.rows.append(row)

    def of(self, sides: tuple[Side, Side]) -> list[Choice]:
        """The choices between these two models, whichever was called A."""
        wanted = [side.version for side in sides]
        flipped: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie", "both bad": "both bad"}
        found: list[Choice] = []
        for row in self.rows:
            versions = [row["a"]["version"], row["b"]["version"]]
            if versions == wanted:
                found.append(row["choice"])
            elif versions == wanted[::-1]:
                found.append(flipped[row["choice"]])
        return found


@dataclass(frozen=True)
class Standing:
    """How two models stand."""

    wins: int
    """Votes for A."""
    losses: int
    """Votes for B."""
    ties: int
    bad: int

    @classmethod
    def of(cls, choices: Sequence[Choice]) -> Standing:
        """Counts votes."""
        found = Counter(choices)
        return cls(found["a"], found["b"], found["tie"], found["both bad"])

    @property
    def share(self) -> Measure | None:
        """A's share of the votes that name a winner, with Wilson's 95 % interval; None without one. Ties are left out."""
        return wilson(self.wins, self.wins + self.losses) if self.wins + self.losses else None

    def __str__(self) -> str:
        counts = f"A {self.wins}, B {self.losses}, ties {self.ties}, both bad {self.bad}."
        share = self.share
        if share is None:
            return f"{counts} No vote names a winner."
        decided = self.wins + self.losses
        text = (
            f"{counts} A won {100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of the {decided} "
            f"vote{'s' if decided > 1 else ''} that name a winner; ties and both bad are left out."
        )
        if share.low <= 0.5 <= share.high:
            return f"{text} Too few votes to say which is better: the interval includes one half."
        return f"{text} {'A' if share.value > 0.5 else 'B'} is preferred, by this voter on these dialogues."
