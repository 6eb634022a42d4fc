"""M1 to M4 with the exact density against the exact mutual information, over N and K.

Each law is scored by its own density, so every estimate is of the definition, I(X; Y). M2 and M3 err by about +chi/2N
and -chi/2N, with chi = E p(y|x)/p(y) - 1, so that their mean (`middle`) has no error of first order in 1/N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from coevo.calibration.cache import Cache
from coevo.calibration.responders import HOME, LAWS
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.data.world import exact
from coevo.data.world.draws import draw_contexts, draw_replies, log_marginal, log_matrix
from coevo.data.world.exact import POOL, Population, only
from coevo.data.world.responders import Responder
from coevo.maths.information import Floats, circulant_offsets, full_design, outside
from coevo.maths.stats import bootstrap_mean, stratum_seed

POPULATIONS: Mapping[str, Population] = {"subset": only(HOME), "pool": POOL}
ESTIMATES = ("club", "l1out", "infonce", "middle", "learned_marginal")
TOLERANCE = 0.05
MARGIN = 2.0
"""Nats below log N from which on the nearer of M2 and M3 is judged."""


def pointwise_estimates(design: Floats, marginal: Floats | None = None) -> dict[str, Floats]:
    """The summands of M1 to M3, their middle and, with log q(y | nothing), M4: each (N,), nats.

    M3's mean over contexts has the positive in it: log-mean-exp over K+1 from that over K and the positive.
    """
    own, k = design[:, 0], design.shape[1] - 1
    others = outside(design, "l1out")
    found = {"club": own - outside(design, "club"), "l1out": own - others}
    found["infonce"] = own - np.logaddexp(own, others + math.log(k)) + math.log(k + 1)
    found["middle"] = (found["l1out"] + found["infonce"]) / 2
    if marginal is not None:
        found["learned_marginal"] = own - marginal
    return found


def bracket(settings: Settings, cache: Cache, tick: Tick) -> Result:
    """Estimates over the grid of N and K, and how often M2 and M3 hold the truth between them."""
    cases = [(law, where) for law in LAWS for where in POPULATIONS]
    each = sum(n * n * _draws(settings, n) for n in _sizes(settings))
    results = []
    for place, (law, where) in enumerate(cases):

        def so_far(done: int, before: int = place * each) -> None:
            tick(before + done, each * len(cases))

        def compute(law: Responder = law, where: str = where, so_far: Callable[[int], None] = so_far) -> Result:
            return _case(law, where, settings, so_far)

        results.append(cache.part(f"bracket-{law.name}-{where}", compute))
    return {"cases": results, "verdicts": _verdicts(results, settings)}


def _case(law: Responder, where: str, settings: Settings, so_far: Callable[[int], None]) -> Result:
    population = POPULATIONS[where]
    truth = {"information": exact.information(law, population), "club": exact.club(law, population)}
    case: Result = {"law": law.name, "negatives": where, **truth, "grid": [], "main": None}
    done = 0
    for n in _sizes(settings):
        singles = []
        for place in range(_draws(settings, n)):
            singles.append(_draw(law, population, n, settings, place))
            done += n * n
            so_far(done)
        case["grid"] += list(_grid(singles, n))
        if n == settings.main_size:
            case["main"] = _main(singles, truth)
    return case


def _sizes(settings: Settings) -> list[int]:
    return sorted({*settings.sizes, settings.main_size})


def _draws(settings: Settings, n: int) -> int:
    return settings.main_draws if n == settings.main_size else settings.grid_draws


def _draw(law: Responder, population: Population, n: int, settings: Settings, place: int) -> dict[str, Any]:
    """One experiment: estimates by K, and the span of the limits with all contexts."""
    seed = stratum_seed(settings.seed, law.name, "-".join(population), str(n), str(place))
    rng = np.random.default_rng(seed)
    contexts = draw_contexts(population, n, rng)
    replies = draw_replies(law, contexts, rng)
    design = full_design(log_matrix(law, contexts, replies))
    marginal = log_marginal(law, population, replies)
    by_k: dict[int, dict[str, float]] = {}
    for k in (*(k for k in settings.negatives if k < n - 1), n - 1):
        # the full design's column s is the context s further on, so that a circulant design is some of its columns
        chosen = design[:, [0, *circulant_offsets(n, k, settings.seed + place)]]
        summands = pointwise_estimates(chosen, marginal)
        by_k[k] = {name: float(values.mean()) for name, values in summands.items()}
    low = bootstrap_mean(summands["infonce"], settings.resamples, seed).low
    high = bootstrap_mean(summands["l1out"], settings.resamples, seed).high
    return {"by_k": by_k, "low": low, "high": high}


def _grid(singles: list[dict[str, Any]], n: int) -> Iterator[dict[str, Any]]:
    for k in singles[0]["by_k"]:
        values = {name: np.array([single["by_k"][k][name] for single in singles]) for name in ESTIMATES}
        yield {
            "n": n,
            "k": k,
            "draws": len(singles),
            "mean": {name: float(v.mean()) for name, v in values.items()},
            "sd": {name: float(v.std(ddof=1)) if len(v) > 1 else None for name, v in values.items()},
        }


def _main(singles: list[dict[str, Any]], truth: Mapping[str, float]) -> dict[str, Any]:
    information = truth["information"]
    last = [single["by_k"][max(single["by_k"])] for single in singles]
    nearer = [min(abs(e["l1out"] - information), abs(e["infonce"] - information)) / information for e in last]
    middle = [abs(e["middle"] - information) / information for e in last]
    loose = [abs(e["club"] - truth["club"]) / truth["club"] for e in last]
    return {
        "draws": len(singles),
        "span_holds": float(np.mean([s["low"] <= information <= s["high"] for s in singles])),
        "nearer_error": float(np.mean(nearer)),
        "nearer_within": float(np.mean([e <= TOLERANCE for e in nearer])),
        "middle_error": float(np.mean(middle)),
        "club_error": float(np.mean(loose)),
        "club_within": float(np.mean([e <= TOLERANCE for e in loose])),
    }


def _verdicts(cases: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    limit = math.log(settings.main_size) - MARGIN
    small = [c for c in cases if c["information"] < limit]
    span = min(c["main"]["span_holds"] for c in cases)
    n = f"N = {settings.main_size:,}"
    worst = max(small, key=lambda c: c["main"]["nearer_error"])
    middle = max(small, key=lambda c: c["main"]["middle_error"])
    loose = max(c["main"]["club_error"] for c in cases)

    def told(case: dict[str, Any], key: str) -> str:
        name = f"{case['law']}, {case['negatives']}, I = {case['information']:.2f}"
        return f"mean error at most {case['main'][key]:.1%} ({name})"

    return [
        verdict(
            f"{n}: from M3's lower to M2's upper 95 % limit lies the exact information",
            "at least 95 % of draws in every case",
            f"{span:.0%} of draws at least, {len(cases)} cases",
            span >= 0.95,
        ),
        verdict(
            f"{n}, I < log N - 2: the nearer of M2 and M3 is within 5 % of it",
            "mean error at most 5 % in every case",
            told(worst, "nearer_error"),
            worst["main"]["nearer_error"] <= TOLERANCE,
        ),
        verdict(
            f"{n}, I < log N - 2: the middle of M2 and M3 is within 5 % of it",
            "mean error at most 5 % in every case",
            told(middle, "middle_error"),
            middle["main"]["middle_error"] <= TOLERANCE,
        ),
        verdict(
            f"{n}: M1 is within 5 % of I + KL(p(x)p(y) || p(x,y))",
            "mean error at most 5 % in every case",
            f"mean error at most {loose:.1%}",
            loose <= TOLERANCE,
        ),
    ]
