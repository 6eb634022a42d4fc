"""Asking a judge: each question until its answer can be read, no answer twice, and nothing lost to a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

from coevo.errors import ScoreError
from coevo.files import Journal, content_key
from coevo.judge.parse import Unreadable
from coevo.prompts import judge_again

Messages = Sequence[dict[str, str]]
Read = Callable[[str], dict[str, Any]]
"""From an answer to a verdict by dimension; raises Unreadable."""
FIRST, CHUNK = 16, 256
"""Questions that are asked and read before more are: a judge that nothing can be read of is found out by the first few."""
_QUOTED = 2000
"""Characters of an unreadable answer that are shown to the judge again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge wrote, and what it cost. Token counts are None where the endpoint does not give them."""

    text: str
    finish: str
    """As the endpoint says it: `stop`, `length` for one that met its token limit, ..."""
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. Nothing was paid, nothing is kept, and the same call asks again."""

    status: Literal["refused", "unavailable", "too_long"]
    """`refused`: the endpoint will not answer this question. `unavailable`: it did not, after every retry. `too_long`: the
    question has no room in a local model."""
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a question ended."""

    status: Literal["ok", "unreadable", "refused", "unavailable", "too_long"]
    verdict: dict[str, Any]
    """By dimension; empty unless the status is `ok`."""
    reason: str
    """Why there is none."""
    answers: tuple[Answer, ...]
    """All that were paid for, the unreadable ones too; a verdict was read off the last."""


class Judge(Protocol):
    """A language model that answers questions."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its answers depend on, beside the question: an answer is kept under both."""

    def answer(self, asks: Mapping[str, Messages], take: Callable[[str, Answer | Failure], None]) -> None:
        """Answers each question once, in any order, and hands it to `take` as soon as it is there.

        Raises:
            EndpointError: it is out of reach; what was taken stays.
        """


@dataclass
class _State:
    messages: Messages
    answers: list[Answer] = field(default_factory=list)
    verdict: dict[str, Any] | None = None
    fault: str = ""
    failure: Failure | None = None


class Session:
    """One judge, one way to read it, and the journal of its answers."""

    def __init__(self, judge: Judge, read: Read, journal: Journal, attempts: int) -> None:
        """Takes a judge, a reader, a journal, and how many answers may be paid for until one can be read."""
        self._judge, self._read, self._journal, self._attempts = judge, read, journal, attempts
        self._states: dict[str, _State] = {}
        self._advance: Callable[[], None] = lambda: None
        self.paid: list[Answer] = []
        """Answers that came in now, rather than from the journal."""

    def unanswered(self, questions: Sequence[Messages]) -> list[Messages]:
        """Questions that `ask` would have to ask, each once."""
        found = {self._key(messages): messages for messages in questions}
        return [messages for key, messages in found.items() if self._open(self._recalled(key, messages))]

    def ask(self, questions: Sequence[Messages], advance: Callable[[], None] = lambda: None) -> list[Judgement]:
        """The judgement of each question, in order; equal questions are asked once.

        Args:
            questions: chat messages.
            advance: called for each of them when it is settled.

        Raises:
            EndpointError: the judge is out of reach.
            ScoreError: nothing could be read of the first answers.
        """
        self._advance = advance
        keys = [self._key(messages) for messages in questions]
        fresh = {key: messages for key, messages in zip(keys, questions, strict=True) if key not in self._states}
        for _ in range(len(keys) - len(fresh)):
            advance()
        for chunk in _chunks(fresh):
            self._settle(chunk)
            if len(self._states) < len(set(keys)) and all(s.verdict is None for s in self._states.values()):
                raise ScoreError(self._nothing_read())
        return [_judgement(self._states[key]) for key in keys]

    def _settle(self, chunk: Mapping[str, Messages]) -> None:
        for key, messages in chunk.items():
            self._states[key] = self._recalled(key, messages)
            if not self._open(self._states[key]):
                self._advance()
        while asks := {key: self._next(self._states[key]) for key in chunk if self._open(self._states[key])}:
            self._judge.answer(asks, self._take)

    def _key(self, messages: Messages) -> str:
        return content_key(dict(self._judge.identity), list(messages))

    def _recalled(self, key: str, messages: Messages) -> _State:
        state = _State(messages)
        while state.verdict is None and _row(key, state) in self._journal:
            self._add(state, Answer(**self._journal[_row(key, state)]))
        return state

    def _open(self, state: _State) -> bool:
        return state.verdict is None and state.failure is None and len(state.answers) < self._attempts

    def _next(self, state: _State) -> Messages:
        if not state.answers:
            return state.messages
        # some endpoints refuse an empty message
        return judge_again(state.messages, state.answers[-1].text[:_QUOTED].strip() or "-", state.fault)

    def _take(self, key: str, found: Answer | Failure) -> None:
        state = self._states[key]
        if isinstance(found, Failure):
            state.failure = found
        else:
            # on disk before anything else: it has been paid for
            self._journal.add({_row(key, state): asdict(found)})
            self.paid.append(found)
            self._add(state, found)
        if not self._open(state):
            self._advance()

    def _add(self, state: _State, answer: Answer) -> None:
        asked = self._next(state)[-1]["content"]
        state.answers.append(answer)
        try:
            # some servers send the question back before the answer, and a reply that is judged may hold a verdict of its own
            state.verdict = self._read(answer.text.rpartition(asked)[2])
        except Unreadable as error:
            state.fault = str(error)
            if answer.finish == "length":
                state.fault += " (the answer was cut at its token limit)"

    def _nothing_read(self) -> str:
        state = next(iter(self._states.values()))
        wrote = f"; it wrote {state.answers[-1].text[:300]!r}" if state.answers else ""
        return (
            f"Of the judge's first {len(self._states)} questions none was judged: {_judgement(state).reason}{wrote}. No "
            "more are asked. Give a model that follows the form, more --max-tokens, or parameters that the endpoint takes."
        )


def _row(key: str, state: _State) -> str:
    return f"{key}.{len(state.answers)}"


def _chunks(asks: Mapping[str, Messages]) -> Iterator[dict[str, Messages]]:
    items, size = iter(asks.items()), FIRST
    while chunk := dict(islice(items, size)):
        yield chunk
        size = CHUNK


def _judgement(state: _State) -> Judgement:
    answers = tuple(state.answers)
    if state.verdict is not None:
        return Judgement("ok", state.verdict, "", answers)
    if state.failure is not None:
        return Judgement(state.failure.status, {}, state.failure.reason, answers)
    return Judgement("unreadable", {}, state.fault, answers)
