"""From one row a scenario to the evaluation dict: means by subset and by shift, R-EMID, 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from coevo.config import Evaluation
from coevo.maths.stats import Floats, Measure, interval, mean_draws, stratum_seed
from coevo.types import COMPONENTS, shift_of

MEASURES = ("mi_response", "mi_reference", "remi", "register_gap", "likelihood_gap")
PER_TOKEN = ("remi_per_token", "register_gap_per_token")
"""R-EMI and M of nats per token, each text by its own length: on real text, where lengths differ, beside the sums."""
EXACT = ("share_right", "exact_remi", "exact_likelihood_gap")
"""What only the world knows: null for other data."""


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario's numbers, in nats (the released procedure: per token); NaN where there is none: `status` says why."""

    sample_id: str
    subset_tag: str
    persona: str
    query: str
    response: str
    reference: str
    status: str
    """`ok`; the response's `truncated`, `empty`, `missing`, `loop` or `echo`; the score's `too_long` or `reasoning`;
    `reference_...`; `no_negatives`."""
    n_negatives: int = 0
    """How many other contexts scored both response and reference; the rest are left out for both."""
    mi_response: float = math.nan
    mi_reference: float = math.nan
    remi: float = math.nan
    register_gap: float = math.nan
    likelihood_gap: float = math.nan
    component_u: float = math.nan
    component_c: float = math.nan
    component_d: float = math.nan
    share_right: float = math.nan
    """Known of every response, also of one that could not be scored."""
    exact_remi: float = math.nan
    exact_likelihood_gap: float = math.nan
    remi_per_token: float = math.nan
    """D1(y)/n - D1(y*)/n*; NaN in the released procedure, whose every number is per token."""
    register_gap_per_token: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """For one line of JSON, which has no NaN: null in its place."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Row:
        """The inverse of `to_dict`; other keys are ignored, absent numbers are NaN."""
        values: dict[str, Any] = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        values |= {name: math.nan for name, value in values.items() if value is None}
        return cls(**values)


def summarise(rows: Sequence[Row], config: Evaluation, seed: int, *, model: str, scorer: str) -> dict[str, Any]:
    """The evaluation dict: measures by subset and by shift with 95 % intervals, R-EMID against the ID subset.

    Rows whose status is not `ok` are counted in `statuses` and left out of the means of responses and references alike,
    except that share_right is over all responses. A measure without any number is null. Components stay paired because
    every measure of a subset resamples with the same seed; subsets are resampled independently of each other.
    """
    tags = list(dict.fromkeys(row.subset_tag for row in rows))
    by_tag = {tag: [row for row in rows if row.subset_tag == tag] for tag in tags}
    estimates = {tag: _subset(by_tag[tag], config.resamples, stratum_seed(seed, tag)) for tag in tags}
    id_remi = _mean([estimates[tag].get("remi") for tag in tags if shift_of(tag) == "id"])
    subsets, shifts = {}, {}
    for tag in tags:
        subsets[tag] = {"shift": shift_of(tag), **_counts(by_tag[tag]), **_entry(estimates[tag], id_remi, shift_of(tag))}
    for shift in dict.fromkeys(map(shift_of, tags)):
        members = [tag for tag in tags if shift_of(tag) == shift]
        names = dict.fromkeys(name for tag in members for name in estimates[tag])
        means = {name: _mean([estimates[tag].get(name) for tag in members]) for name in names}
        known = {name: mean for name, mean in means.items() if mean is not None}
        counts = _counts([row for tag in members for row in by_tag[tag]])
        shifts[shift] = {"subsets": members, **counts, **_entry(known, id_remi, shift)}
    released = config.estimator == "released"
    scale = "token_mean" if released else "sum"
    stamp = {"model": model, "scorer": scorer, "estimator": config.estimator, "scale": scale}
    design = {
        "negatives": "subset" if released else config.negatives,
        "k": config.k,
        "resamples": config.resamples,
        "seed": seed,
    }
    return {**stamp, **design, "subsets": subsets, "shifts": shifts}


def difference(before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
    """After minus before, paired by scenario: `summarise` makes of it the change of every measure, R-EMID's too.

    Pairing takes out what makes scenarios easy or hard for both, so these intervals are narrower than what the two
    measurements' own intervals suggest. A scenario that one of the two lacks is left out; one that only one of the two
    scored has the status `unpaired`.
    """
    # a number that one of the two lacks is NaN in the difference, so only scenarios scored for both count
    names = (*MEASURES, *(f"component_{z}" for z in COMPONENTS), *EXACT, *PER_TOKEN)
    by_id = {row.sample_id: row for row in before}
    pairs = [(by_id[row.sample_id], row) for row in after if row.sample_id in by_id]
    return [
        replace(
            new,
            status="ok" if old.status == new.status == "ok" else "unpaired",
            **{name: getattr(new, name) - getattr(old, name) for name in names},
        )
        for old, new in pairs
    ]


def remid_margin(rows: Sequence[Row], config: Evaluation, seed: int, first: str, second: str) -> Measure:
    """R-EMID under one shift minus R-EMID under another. The ID subset cancels: it is R-EMI(second) - R-EMI(first).

    Drawn as in `summarise`, so that the three intervals belong together. Both shifts must have a scored row.
    """
    means = []
    for shift in (second, first):
        tags = dict.fromkeys(row.subset_tag for row in rows if shift_of(row.subset_tag) == shift)
        by_tag = {tag: [row for row in rows if row.subset_tag == tag] for tag in tags}
        estimates = [_estimate(by_tag[tag], "remi", config.resamples, stratum_seed(seed, tag)) for tag in tags]
        means.append(_mean(estimates))
    assert means[0] is not None and means[1] is not None, "a margin is of two shifts with scored rows"
    return interval(means[0].value - means[1].value, means[0].draws - means[1].draws)


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A mean and its bootstrap draws (R,)."""

    value: float
    draws: Floats

    def to_dict(self) -> dict[str, float]:
        return interval(self.value, self.draws).to_dict()


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row.status] = statuses.get(row.status, 0) + 1
    exact_n = sum(math.isfinite(row.exact_likelihood_gap) for row in rows)
    return {"n": len(rows), "statuses": statuses, "exact_n": exact_n}


def _subset(rows: Sequence[Row], resamples: int, seed: Sequence[int]) -> dict[str, _Estimate]:
    names = (*MEASURES, *(f"component_{z}" for z in COMPONENTS), *EXACT, *PER_TOKEN)
    estimates = {name: _estimate(rows, name, resamples, seed) for name in names}
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}


def _estimate(rows: Sequence[Row], name: str, resamples: int, seed: Sequence[int]) -> _Estimate | None:
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
    known = values[np.isfinite(values)]
    return _Estimate(float(known.mean()), mean_draws(known, resamples, seed)) if len(known) else None


def _mean(estimates: Sequence[_Estimate | None]) -> _Estimate | None:
    known = [estimate for estimate in estimates if estimate is not None]
    if not known:
        return None
    value = float(np.mean([estimate.value for estimate in known]))
    return _Estimate(value, np.mean([estimate.draws for estimate in known], axis=0))


def _entry(estimates: Mapping[str, _Estimate], id_remi: _Estimate | None, shift: str) -> dict[str, Any]:
    def read(name: str) -> dict[str, float] | None:
        return estimates[name].to_dict() if name in estimates else None

    entry: dict[str, Any] = {name: read(name) for name in (*MEASURES, *EXACT, *PER_TOKEN)}
    entry["components"] = {z: read(f"component_{z}") for z in COMPONENTS}
    if shift != "id" and id_remi is not None:
        remi = estimates.get("remi")
        entry["remid"] = remi and _Estimate(id_remi.value - remi.value, id_remi.draws - remi.draws).to_dict()
    return entry
