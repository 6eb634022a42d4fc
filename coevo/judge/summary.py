"""From judgements to means: per dimension, subset and shift, with 95 % intervals; what was not judged, counted and named.

Shape suffixes: N responses, M measures (dimensions, and their mean), R resamples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo.config.rubric import OVERALL, Rubric
from coevo.judge.parse import Choice
from coevo.judge.session import Answer, Judgement
from coevo.maths.stats import Floats, interval, mean_draws, stratum_seed
from coevo.types import shift_of

TIE = "tie"
POINTS: Mapping[Choice, int] = {"A": 1, "B": -1, "tie": 0}


@dataclass(frozen=True, slots=True)
class Scored:
    """One response and its scores."""

    model: str
    sample_id: str
    subset_tag: str
    judgement: Judgement | None
    """None if the response was never shown to the judge."""
    response_status: str
    """Of the response: `ok`, or why it was not shown."""

    @property
    def status(self) -> str:
        """`ok`, why the response was not shown (`missing`, `empty`, `truncated`), or why there is no score."""
        return self.response_status if self.judgement is None else self.judgement.status

    @property
    def reason(self) -> str:
        """Why the judge gave no score; empty if it did, or was not asked."""
        return self.judgement.reason if self.judgement else ""

    def to_dict(self) -> dict[str, Any]:
        """A line of scores.jsonl."""
        record: dict[str, Any] = {"model": self.model, "sample_id": self.sample_id, "subset_tag": self.subset_tag}
        return record | {"status": self.status} | _told(self.judgement, "scores")


@dataclass(frozen=True, slots=True)
class Compared:
    """Two responses to one scenario, shown in both orders."""

    models: tuple[str, str]
    sample_id: str
    subset_tag: str
    orders: tuple[Judgement, Judgement] | None
    """The first with the first model's response as A, the second with it as B; None if they were never shown."""
    response_status: str

    @property
    def status(self) -> str:
        """`ok` if both orders were judged."""
        if self.orders is None:
            return self.response_status
        return next((order.status for order in self.orders if order.status != "ok"), "ok")

    @property
    def reason(self) -> str:
        """Why an order was not judged; empty if both were, or were not asked."""
        return next((order.reason for order in self.orders or () if order.reason), "")

    @property
    def points(self) -> dict[str, tuple[int, int]]:
        """Dimension -> for the first model, in each order: 1 it is better, -1 it is worse, 0 a tie."""
        if self.orders is None or self.status != "ok":
            return {}
        first, second = (order.verdict for order in self.orders)
        return {name: (POINTS[first[name]], -POINTS[second[name]]) for name in first}

    def to_dict(self) -> dict[str, Any]:
        """A line of scores.jsonl; a winner is one in both orders."""
        winners = {name: TIE if a != b or not a else self.models[a < 0] for name, (a, b) in self.points.items()}
        record: dict[str, Any] = {"models": self.models, "sample_id": self.sample_id, "subset_tag": self.subset_tag}
        record |= {"status": self.status, "winner": winners}
        return record | {"orders": [_told(order, "better") for order in self.orders or ()]}


def _told(judgement: Judgement | None, field: str) -> dict[str, Any]:
    if judgement is None:
        return {field: {}, "reason": "", "answers": 0}
    answers = judgement.answers
    return {
        field: judgement.verdict,
        "reason": judgement.reason,
        "raw": answers[-1].text if answers else "",
        "answers": len(answers),
        **tokens(answers),
    }


def tokens(answers: Sequence[Answer]) -> dict[str, int | None]:
    """Tokens of all answers together, None if the endpoint left one uncounted."""
    known = [(a.prompt_tokens, a.completion_tokens) for a in answers]
    read = [sum(n for n in column if n is not None) if None not in column else None for column in zip(*known, strict=True)]
    return dict(zip(("prompt_tokens", "completion_tokens"), read or (0, 0), strict=True))


def scores(rows: Sequence[Scored], rubric: Rubric, resamples: int, seed: int) -> dict[str, Any]:
    """Model -> subsets and shifts, each with counts and the mean score of every dimension and of them all."""

    def values(row: Scored) -> list[float]:
        assert row.judgement is not None
        found = [float(row.judgement.verdict[name]) for name in rubric.names]
        return [*found, math.fsum(found) / len(found)]

    models = dict.fromkeys(row.model for row in rows)
    by_model = {model: [row for row in rows if row.model == model] for model in models}
    names = (*rubric.names, OVERALL)
    return {model: _by_subset(own, names, values, resamples, seed) for model, own in by_model.items()}


def comparison(rows: Sequence[Compared], rubric: Rubric, resamples: int, seed: int) -> dict[str, Any]:
    """The first model's win rate (a tie counts half) by subset and shift, what it is made of, and the position bias."""

    def values(row: Compared) -> list[float]:
        found = [0.5 + 0.5 * (a if a == b else 0) for a, b in row.points.values()]
        return [*found, math.fsum(found) / len(found)]

    judged = [row for row in rows if row.status == "ok"]
    counts = {name: _outcomes([row.points[name] for row in judged]) for name in rubric.names}
    found = _by_subset(rows, (*rubric.names, OVERALL), values, resamples, seed)
    return {"first": rows[0].models[0], "second": rows[0].models[1], **found, "outcomes": counts} | {
        "position": _position(judged, resamples, seed) if judged else None
    }


def _outcomes(points: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Wins, losses, and ties by their kind: both orders say so, or the orders do not agree."""
    kinds = Counter("orders_differ" if a != b else {1: "wins", -1: "losses", 0: "ties"}[a] for a, b in points)
    return {kind: kinds[kind] for kind in ("wins", "losses", "ties", "orders_differ")}


def _position(rows: Sequence[Compared], resamples: int, seed: int) -> dict[str, Any]:
    """How much the judge favours what it is shown first: -1 always the second, 0 no bias, 1 always the first.

    Of a pair, half the difference of its two verdicts on the first model, mean over the dimensions: a judge that only looks
    at the response contributes 0, one that always takes the first place contributes 1.
    """
    pairs = [list(row.points.values()) for row in rows]
    bias = [math.fsum((a - b) / 2 for a, b in points) / len(points) for points in pairs]
    agree = [math.fsum(a == b for a, b in points) / len(points) for points in pairs]
    draws = mean_draws(np.array([bias, agree]).T, resamples, stratum_seed(seed, "position"))
    return {name: _entry(values, draws[:, m]) for m, (name, values) in enumerate((("bias", bias), ("agreement", agree)))}


def _by_subset(
    rows: Sequence[Any], names: Sequence[str], values: Callable[[Any], list[float]], resamples: int, seed: int
) -> dict[str, Any]:
    """Counts and means by subset, and by shift as the unweighted mean over its subsets."""
    tags = list(dict.fromkeys(row.subset_tag for row in rows))
    by_tag = {tag: [row for row in rows if row.subset_tag == tag] for tag in tags}
    values_NM = {tag: np.array([values(row) for row in own if row.status == "ok"]) for tag, own in by_tag.items()}
    draws_RM = {
        tag: mean_draws(known, resamples, stratum_seed(seed, "judge", tag)) for tag, known in values_NM.items() if len(known)
    }
    subsets = {
        tag: {"shift": shift_of(tag), **_counts(own), "means": _means(names, [values_NM[tag]], [draws_RM.get(tag)])}
        for tag, own in by_tag.items()
    }
    shifts = {}
    for shift in dict.fromkeys(map(shift_of, tags)):
        members = [tag for tag in tags if shift_of(tag) == shift]
        known = [tag for tag in members if tag in draws_RM]
        means = _means(names, [values_NM[tag] for tag in known], [draws_RM[tag] for tag in known])
        shifts[shift] = {"subsets": members, **_counts([row for tag in members for row in by_tag[tag]]), "means": means}
    return {"subsets": subsets, "shifts": shifts}


def _counts(rows: Sequence[Any]) -> dict[str, Any]:
    statuses = Counter(row.status for row in rows)
    return {"n": len(rows), "judged": statuses["ok"], "statuses": dict(statuses)}


def _means(names: Sequence[str], values: Sequence[Floats], draws: Sequence[Floats | None]) -> dict[str, Any]:
    """Name -> the mean over subsets' means, with its interval; null where no response was judged."""
    known = [(value, draw) for value, draw in zip(values, draws, strict=True) if draw is not None]
    if not known:
        return dict.fromkeys(names)
    mean_RM = np.mean([draw for _, draw in known], axis=0)
    columns = np.mean([value.mean(axis=0) for value, _ in known], axis=0)
    lone = any(len(value) < 2 for value, _ in known)
    return {
        name: {"value": float(columns[m]), "low": None, "high": None}
        if lone
        else interval(float(columns[m]), mean_RM[:, m]).to_dict()
        for m, name in enumerate(names)
    }


def _entry(values: Sequence[float], draws_R: Floats) -> dict[str, Any]:
    value = math.fsum(values) / len(values)
    if len(values) < 2:
        # the bootstrap of one number has no width, and says nothing
        return {"value": value, "low": None, "high": None}
    return interval(value, draws_R).to_dict()


def unjudged(rows: Sequence[Scored | Compared]) -> dict[str, Any]:
    """Status -> how many have no score for it, their sample_ids, and each reason with its number."""
    statuses = dict.fromkeys(row.status for row in rows if row.status != "ok")
    by_status = {status: [row for row in rows if row.status == status] for status in statuses}
    return {
        status: {
            "n": len(own),
            "sample_ids": [row.sample_id for row in own],
            "reasons": dict(Counter(row.reason for row in own if row.reason).most_common()),
        }
        for status, own in by_status.items()
    }
