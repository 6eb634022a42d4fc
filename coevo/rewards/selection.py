"""Which of several answers to a prompt are learnt from: the best one, or the best against the worst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer to one prompt with its reward."""

    sample_id: str
    text: str
    reward: float | None
    """Nats; None if it could not be scored: it is then neither best nor worst."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which one is worth more."""

    sample_id: str
    chosen: str
    rejected: str
    margin: float
    """The difference of their rewards, in nats."""


def best(answers: Iterable[Rated]) -> list[Rated]:
    """The answer of each prompt with the highest reward, the first of equals; prompts in order of appearance.

    A prompt without an answer that could be scored is left out.
    """
    return [max(group, key=_reward) for group in _scored(answers)]


def pairs(answers: Iterable[Rated], margin: float = 0.0) -> list[Pair]:
    """The best and the worst answer of each prompt, where texts differ and rewards do, by at least `margin` nats."""
    found = []
    for group in _scored(answers):
        top, bottom = max(group, key=_reward), min(group, key=_reward)
        difference = _reward(top) - _reward(bottom)
        if top.text != bottom.text and difference > 0 and difference >= margin:
            found.append(Pair(top.sample_id, top.text, bottom.text, difference))
    return found


def _reward(answer: Rated) -> float:
    assert answer.reward is not None
    return answer.reward


def _scored(answers: Iterable[Rated]) -> Sequence[list[Rated]]:
    groups: dict[str, list[Rated]] = {}
    for answer in answers:
        if answer.reward is not None:
            groups.setdefault(answer.sample_id, []).append(answer)
    return list(groups.values())
