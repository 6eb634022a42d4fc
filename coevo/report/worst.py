"""The answers that lost most, by what recurs among them, so that a reader sees a failure and not ten cards."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from coevo.report.contexts import Context, context_of
from coevo.report.read import Run, lost_most
from coevo.scoring.summary import Row

MOST = 40
"""Answers that are looked at; no more than a tenth of all that have a score, but ten at the least."""
SHARED, LIFT = 3, 2.0
"""A group has so many answers, and its share among the worst is so many times its share among all; either without those
that are in a group already."""
SCRIPTS = {
    "LATIN": "Latin letters",
    "CJK": "Chinese characters",
    "HIRAGANA": "Japanese kana",
    "KATAKANA": "Japanese kana",
    "HANGUL": "Korean letters",
    "CYRILLIC": "Cyrillic letters",
    "ARABIC": "Arabic letters",
    "DEVANAGARI": "Devanagari letters",
    "GREEK": "Greek letters",
    "HEBREW": "Hebrew letters",
    "THAI": "Thai letters",
}
"""First word of a letter's Unicode name, and what a reader calls the writing."""


@dataclass(frozen=True, slots=True)
class Card:
    """One answer, the same scenario before, and its character and dialogue where they are at hand."""

    row: Row
    earlier: Row | None
    context: Context | None


@dataclass(frozen=True, slots=True)
class Group:
    """Answers that share a failure, the worst first."""

    title: str
    note: str
    cards: tuple[Card, ...]


def groups(run: Run, contexts: Mapping[str, Context]) -> list[Group]:
    """The worst answers by what they share, the largest group first; at last those that share nothing."""
    every = [row for row in run.rows_after or run.rows_before if row.status == "ok"]
    worst = lost_most(run, max(10, min(MOST, len(every) // 10)))
    cards = [Card(row, earlier, context_of(row, contexts)) for row, earlier in worst]
    # what tells most about a failure comes first: an answer is in one group alone
    kinds: list[Callable[[Row], str]] = [_same_text, _other_writing, _subset]
    found = []
    left, others = cards, every
    for kind in kinds:
        for key, members in _by(left, kind).items():
            if not key or len(members) < SHARED:
                continue
            alike = [row for row in others if kind(row) == key]
            if len(members) * len(others) >= LIFT * len(left) * len(alike):
                of_all = sum(kind(row) == key for row in every)
                note = f"{len(members)} of the {len(cards)} worst, {of_all} of all {len(every)} with a score."
                found.append(Group(key, note, tuple(members)))
                left = [card for card in left if card not in members]
                others = [row for row in others if kind(row) != key]
    found.sort(key=lambda group: -len(group.cards))
    if left:
        title = "Others, which share no text, writing or subset" if found else "They share no text, writing or subset"
        found.append(Group(title, f"{len(left)} of the {len(cards)} worst.", tuple(left)))
    return found


def unscored(run: Run) -> str:
    """How many of the latest answers have no score, and why; empty if all have one."""
    rows = run.rows_after or run.rows_before
    counts = Counter(row.status for row in rows if row.status != "ok")
    if not counts:
        return ""
    reasons = ", ".join(f"{status} {count}" for status, count in counts.most_common())
    return f"{counts.total()} of {len(rows)} answers have no score and are not among these: {reasons}."


def writing(text: str) -> str:
    """What most letters of a text are written in; empty of a text without letters."""
    names = chain.from_iterable(unicodedata.name(c, "").split()[:1] for c in text if c.isalpha())
    counts = Counter(SCRIPTS.get(name, "other letters") for name in names)
    # Japanese is written in Chinese characters too, Chinese never in kana
    if counts["Japanese kana"]:
        counts["Japanese kana"] += counts.pop("Chinese characters", 0)
    return counts.most_common(1)[0][0] if counts else ""


def _same_text(row: Row) -> str:
    text = " ".join(row.response.split())
    return f"The same answer: “{text[:120]}{'…' if len(text) > 120 else ''}”" if text else "An answer without text"


def _other_writing(row: Row) -> str:
    answer, reference = writing(row.response), writing(row.reference)
    return f"Answers in {answer} where the reference has {reference}" if answer and reference and answer != reference else ""


def _subset(row: Row) -> str:
    return f"All of the subset {row.subset_tag}"


def _by(cards: Sequence[Card], kind: Callable[[Row], str]) -> dict[str, list[Card]]:
    found: dict[str, list[Card]] = {}
    for card in cards:
        found.setdefault(kind(card.row), []).append(card)
    return found
