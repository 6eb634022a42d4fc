"""Whether the 95 % intervals of R-EMI and R-EMID hold the truth, as often as they say.

As an evaluation does it: n scenarios of every subset, negatives from the subset or the pool by a circulant design, one
scorer of references (the exact density), intervals by the bootstrap over a subset's scenarios. Two estimates have an exact
expectation to be covered: M4's is the information, M1's is `exact.club` with the pool's own share of the subset among the
negatives. M2 has none in closed form: what is reported is how far its mean lies from the information it bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coevo.calibration.bracket import pointwise_estimates
from coevo.calibration.cache import Cache
from coevo.calibration.responders import FAILURES, HOME, SHARED_FAILURES
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.data.world import exact
from coevo.data.world.draws import Contexts, Ints, draw_even, draw_replies, log_design, log_marginal
from coevo.data.world.exact import POOL, TAGS, Population, only
from coevo.data.world.responders import REFERENCE, Fault, Responder
from coevo.maths.information import Floats, circulant_offsets, neighbours
from coevo.maths.stats import interval, mean_draws, stratum_seed

RESPONDERS: tuple[Responder, ...] = (
    Responder("any 0.3", Fault(0.3)),
    Responder("near 0.3", Fault(0.3, "near")),
    Responder("another craft", FAILURES["another craft"][1]),
    Responder("English to all", SHARED_FAILURES["English to all"][1]),
)
SHOWN = (HOME, "german", "Theater")
"""A subset of each sort; the others are there as negatives of the pool."""
COVERED = ("club", "learned_marginal")
ESTIMATES = (*COVERED, "l1out")


class Case(NamedTuple):
    """One number that has an interval; `measure` is remi or remid."""

    responder: str
    tag: str
    negatives: str
    estimate: str
    measure: str


def coverage(settings: Settings, cache: Cache, tick: Tick) -> Result:
    """Shares of draws whose interval holds the truth, by responder, subset, negatives, estimate, n and K."""
    designs = [(n, k) for n in settings.coverage_sizes for k in settings.coverage_negatives]
    total, rows = len(designs) * settings.coverage_draws, []
    for place, (n, k) in enumerate(designs):

        def so_far(done: int, before: int = place * settings.coverage_draws) -> None:
            tick(before + done, total)

        def compute(n: int = n, k: int = k, so_far: Callable[[int], None] = so_far) -> Result:
            return {"rows": _design(n, k, settings, so_far)}

        rows += cache.part(f"coverage-{n}-{k}", compute)["rows"]
    return {"rows": rows, "verdicts": [_verdict(rows, measure) for measure in ("remi", "remid")]}


def _design(n: int, k: int, settings: Settings, so_far: Callable[[int], None]) -> list[dict[str, Any]]:
    truth = {case: _truth(case, n) for case in _cases()}
    seen: dict[Case, list[tuple[float, float, float]]] = {case: [] for case in truth}
    for place in range(settings.coverage_draws):
        for case, found in _draw(n, k, settings, place).items():
            seen[case].append(found)
        so_far(place + 1)
    return [_row(case, n, k, truth[case], np.array(found)) for case, found in seen.items()]


def circle(groups: Sequence[Ints], k: int, seed: int, rng: np.random.Generator) -> Ints:
    """Contexts of a circulant design, one circle a group in random order: (N, K+1), each reply's own first.

    Args:
        groups: places of the scenarios that are negatives to one another; together every place once.
        k: negatives; all others of the group where there are fewer.
        seed: of the offsets.
        rng: of the order.
    """
    rows: dict[int, Ints] = {}
    for group in groups:
        order = rng.permutation(group)
        others = order[neighbours(len(order), circulant_offsets(len(order), k, seed))]
        rows |= {int(own): np.concatenate([[own], row]) for own, row in zip(order, others, strict=True)}
    return np.array([rows[place] for place in range(len(rows))])


def _cases() -> list[Case]:
    return [
        Case(law.name, tag, negatives, estimate, measure)
        for law in RESPONDERS
        for negatives in ("subset", "pool")
        for estimate in ESTIMATES
        for tag in SHOWN
        for measure in ("remi", "remid")
        if measure == "remi" or tag != HOME
    ]


def _truth(case: Case, n: int) -> float:
    """The expectation that an interval should hold; of M2, the information that it bounds."""
    law = next(law for law in RESPONDERS if law.name == case.responder)

    def remi(tag: str) -> float:
        if case.estimate == "club":
            return exact.club_remi(law, only(tag), REFERENCE, _drawn_from(tag, case.negatives, n))
        return exact.remi(law, only(tag), REFERENCE, only(tag) if case.negatives == "subset" else POOL)

    return remi(case.tag) if case.measure == "remi" else remi(HOME) - remi(case.tag)


def _drawn_from(tag: str, negatives: str, n: int) -> Population:
    """Where a negative comes from: of its own subset a pool has one scenario fewer to offer, the positive."""
    if negatives == "subset":
        return only(tag)
    return {other: (n - (other == tag)) / (n * len(TAGS) - 1) for other in TAGS}


def _draw(n: int, k: int, settings: Settings, place: int) -> dict[Case, tuple[float, float, float]]:
    """One experiment: by case its value, and the limits of its interval."""
    seed = stratum_seed(settings.seed, "coverage", str(n), str(k), str(place))
    rng = np.random.default_rng(seed)
    contexts = draw_even(TAGS, n, rng)
    everyone = np.arange(len(contexts))
    circles = {"subset": np.split(everyone, len(TAGS)), "pool": [everyone]}
    where = {name: circle(groups, k, place, rng) for name, groups in circles.items()}
    reference = _summands(REFERENCE, contexts, where, rng)
    found: dict[Case, tuple[float, float, float]] = {}
    for law in RESPONDERS:
        ours = _summands(law, contexts, where, rng)
        for negatives, estimate in ours:
            difference = ours[negatives, estimate] - reference[negatives, estimate]
            parts = {tag: difference[TAGS.index(tag) * n : (TAGS.index(tag) + 1) * n] for tag in SHOWN}
            draws = {tag: mean_draws(part, settings.resamples, [*seed, TAGS.index(tag)]) for tag, part in parts.items()}
            for tag in SHOWN:
                own = interval(parts[tag].mean(), draws[tag])
                found[Case(law.name, tag, negatives, estimate, "remi")] = (own.value, own.low, own.high)
                if tag != HOME:
                    apart = interval(parts[HOME].mean() - parts[tag].mean(), draws[HOME] - draws[tag])
                    found[Case(law.name, tag, negatives, estimate, "remid")] = (apart.value, apart.low, apart.high)
    return found


def _summands(
    law: Responder, contexts: Contexts, where: Mapping[str, Ints], rng: np.random.Generator
) -> dict[tuple[str, str], Floats]:
    """By negatives and estimate, (N,): what each reply, scored by the references' density, says of its context."""
    replies = draw_replies(law, contexts, rng)
    pool = log_marginal(REFERENCE, POOL, replies)
    own = np.concatenate(
        [log_marginal(REFERENCE, only(tag), replies[contexts.tag == place]) for place, tag in enumerate(TAGS)]
    )
    found: dict[tuple[str, str], Floats] = {}
    for negatives, marginal in (("subset", own), ("pool", pool)):
        design = log_design(REFERENCE, contexts, replies, where[negatives])
        estimates = pointwise_estimates(design, marginal)
        found |= {(negatives, estimate): estimates[estimate] for estimate in ESTIMATES}
    return found


def _row(case: Case, n: int, k: int, truth: float, found: Floats) -> dict[str, Any]:
    """Shapes: found (draws, 3), value and limits."""
    value, low, high = found.T
    mean = float(value.mean())
    return {
        **case._asdict(),
        "n": n,
        "k": k,
        "draws": len(found),
        "truth": truth,
        "mean": mean,
        "sd": float(value.std(ddof=1)),
        "width": float((high - low).mean()),
        "covers_truth": float(np.mean((low <= truth) & (truth <= high))),
        "covers_mean": float(np.mean((low <= mean) & (mean <= high))),
    }


def _verdict(rows: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    chosen = [row for row in rows if row["measure"] == measure and row["estimate"] in COVERED]
    shares = np.array([row["covers_truth"] for row in chosen])
    # what a share of so many draws may be off by, two standard deviations
    slack = 2 * math.sqrt(0.95 * 0.05 / chosen[0]["draws"])
    inside = np.mean((shares >= 0.9 - slack) & (shares <= 0.98 + slack))
    name = {"remi": "R-EMI", "remid": "R-EMID"}[measure]
    return verdict(
        f"95 % intervals of {name} (M1, M4) hold their exact expectation",
        f"90 to 98 % of draws, give or take {slack:.1%} in a single case",
        f"{shares.mean():.1%} on average over {len(shares)} cases, {shares.min():.1%} to {shares.max():.1%}; "
        f"{inside:.0%} of cases within",
        bool(0.9 <= shares.mean() <= 0.98 and inside >= 0.95),
    )
