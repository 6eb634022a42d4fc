"""A learned scorer against the exact truth: R-EMID of eight responders under eleven shifts, and attribution by A1.

Two truths are held against the estimates, each with negatives from the subset and from the pool: `definition`, by the
responder's own density, and `scored`, what a perfect scorer of references would measure of these responders. The same
estimates with the exact density, on the same texts and contexts, say how much of a miss is the draw's and not the scorer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coevo.calibration.attribution import ASKED, judged
from coevo.calibration.bracket import pointwise_estimates
from coevo.calibration.cache import Cache
from coevo.calibration.likelihoods import Scored, Stage, hear, set_stage
from coevo.calibration.responders import FAILURES, HOME, SHARED_FAILURES, SHIFTED, dialled
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.data.world import exact
from coevo.data.world.draws import log_design, log_marginal, read_replies
from coevo.data.world.exact import POOL, TAGS, only
from coevo.data.world.responders import REFERENCE, Responder
from coevo.maths.correlation import spearman
from coevo.maths.information import Floats
from coevo.maths.stats import interval, mean_draws
from coevo.prompts import ALL, NOTHING, Part
from coevo.scoring.evaluate import Scores
from coevo.types import COMPONENTS

TRUTHS = ("definition, subset", "definition, pool", "scored, subset", "scored, pool")
DEFAULT = ("club", "sum")
"""The estimate and scale that the verdicts are about."""
ASKED_RANKS = 0.95
EVERY_FAILURE = {**FAILURES, **SHARED_FAILURES}
Summands = Mapping[str, Floats]
"""By "density estimate negatives scale": (N,), what each text says of its context."""


def learned(scorer: Scores, settings: Settings, cache: Cache, tick: Tick) -> Result:
    """Rank correlations of estimated and exact R-EMID, and who A1 blames, by a scorer.

    Raises:
        ScoreError: a text that the scorer cannot score; names it.
    """
    stage = set_stage(settings)
    asked = {law.name: (law, True) for law in (REFERENCE, *dialled())}
    asked |= {f"fails: {name}": (Responder(name, fault), False) for name, (_, fault) in EVERY_FAILURE.items()}
    scored = hear(scorer, stage, asked, cache, settings.seed, tick)
    summands = {law.name: _summands(stage, scored[law.name]) for law in (REFERENCE, *dialled())}
    remi = {
        law.name: {key: values - summands[REFERENCE.name][key] for key, values in summands[law.name].items()}
        for law in dialled()
    }
    points = _points(stage, remi, settings)
    blamed = _attribution(stage, scored)
    return {
        "scorer": scorer.version,
        "points": points,
        "correlations": _correlations(points),
        "grid": _grid(stage, scored, points),
        "information": _information(stage, summands[REFERENCE.name]),
        "attribution": blamed,
        "verdicts": [*_rank_verdicts(points), *_blame_verdicts(blamed)],
    }


def _summands(stage: Stage, scored: Scored) -> dict[str, Floats]:
    replies = read_replies(scored.texts)
    found = {}
    for negatives, where in stage.where.items():
        design, marginal = scored.design(stage, negatives), scored.without(ALL)
        for scale, unit in (("sum", np.ones(len(design))), ("token_mean", scored.tokens)):
            for name, values in pointwise_estimates(design / unit[:, None], marginal / unit).items():
                found[f"learned {name} {negatives} {scale}"] = values
        if negatives == "pool":
            marginal = log_marginal(REFERENCE, POOL, replies)
        else:
            marginal = np.concatenate([log_marginal(REFERENCE, only(tag), replies[stage.of(tag)]) for tag in TAGS])
        for name, values in pointwise_estimates(log_design(REFERENCE, stage.contexts, replies, where), marginal).items():
            found[f"exact {name} {negatives} sum"] = values
    return found


# --- R-EMID ---------------------------------------------------------------------------------------------------------


def _points(stage: Stage, remi: Mapping[str, Summands], settings: Settings) -> list[dict[str, Any]]:
    """A point for each responder and shift: the truths, every estimate, and the default one's interval."""
    points = []
    for law in dialled():
        shown = remi[law.name][f"learned {DEFAULT[0]} pool {DEFAULT[1]}"]
        for tag in SHIFTED:
            parts = (stage.of(HOME), stage.of(tag))
            draws = [mean_draws(shown[p], settings.resamples, [settings.seed, i]) for i, p in enumerate(parts)]
            value = shown[parts[0]].mean() - shown[parts[1]].mean()
            points.append(
                {
                    "responder": law.name,
                    "tag": tag,
                    "truth": _truths(law, tag),
                    "estimates": {
                        key: float(values[parts[0]].mean() - values[parts[1]].mean())
                        for key, values in remi[law.name].items()
                    },
                    "interval": interval(value, draws[0] - draws[1]).to_dict(),
                }
            )
    return points


def _truths(law: Responder, tag: str) -> dict[str, float]:
    found = {}
    for reading, density in (("definition", None), ("scored", REFERENCE)):
        for negatives in ("subset", "pool"):
            values = [exact.remi(law, only(t), density, POOL if negatives == "pool" else only(t)) for t in (HOME, tag)]
            found[f"{reading}, {negatives}"] = values[0] - values[1]
    return found


def _correlations(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By estimate: Spearman's correlation with each truth over all points."""
    rows = []
    for key in points[0]["estimates"]:
        density, estimate, negatives, scale = key.split(" ")
        if (density, estimate, negatives) == ("learned", "learned_marginal", "subset"):
            continue  # a learned marginal has no negatives; that of the pool is what it was trained to be
        values = [point["estimates"][key] for point in points]
        truths = {truth: spearman(values, [point["truth"][truth] for point in points]) for truth in TRUTHS}
        rows.append({"density": density, "estimate": estimate, "negatives": negatives, "scale": scale, "spearman": truths})
    return rows


def _grid(stage: Stage, scored: Mapping[str, Scored], points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The default estimate from fewer scenarios and fewer negatives: rank correlation with the truths."""
    rows, contrasted = [], [REFERENCE.name, *(law.name for law in dialled())]
    for negatives, where in stage.where.items():
        designs = {name: scored[name].design(stage, negatives) for name in contrasted}
        for k in _halves(where.shape[1] - 1):
            d1 = {name: pointwise_estimates(design[:, : k + 1])[DEFAULT[0]] for name, design in designs.items()}
            for n in _halves(stage.n):
                values = []
                for point in points:
                    remi = d1[point["responder"]] - d1[REFERENCE.name]
                    values.append(remi[stage.of(HOME, n)].mean() - remi[stage.of(point["tag"], n)].mean())
                ranks = {
                    reading: spearman(values, [point["truth"][f"{reading}, {negatives}"] for point in points])
                    for reading in ("definition", "scored")
                }
                rows.append({"negatives": negatives, "n": n, "k": k, "spearman": ranks})
    return rows


def _halves(most: int) -> list[int]:
    """most, and its half, quarter and eighth, in ascending order."""
    return sorted({max(1, most >> shift) for shift in range(4)})


def _information(stage: Stage, summands: Summands) -> list[dict[str, Any]]:
    """By subset, what the references say of their context: exact, and by each estimate (nats)."""
    rows = []
    for tag in TAGS:
        for negatives, population in (("subset", only(tag)), ("pool", POOL)):
            row: dict[str, Any] = {"tag": tag, "negatives": negatives}
            row["exact"] = exact.information(REFERENCE, only(tag), None, population)
            row["club_exact"] = exact.club(REFERENCE, only(tag), None, population)
            row["estimates"] = {}
            for key, values in summands.items():
                density, estimate, where, scale = key.split(" ")
                if (where, scale) == (negatives, "sum"):
                    row["estimates"][f"{density} {estimate}"] = float(values[stage.of(tag)].mean())
            rows.append(row)
    return rows


def _rank_verdicts(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for negatives in ("pool", "subset"):
        for reading in ("definition", "scored"):
            truth = [point["truth"][f"{reading}, {negatives}"] for point in points]
            ranks = {}
            for density in ("learned", "exact"):
                key = f"{density} {DEFAULT[0]} {negatives} {DEFAULT[1]}"
                ranks[density] = spearman([point["estimates"][key] for point in points], truth)
            found.append(
                verdict(
                    f"M1 by the scorer, {negatives}: R-EMID ranks as the exact one ({reading}) over {len(points)} pairs of "
                    "responder and shift",
                    f"Spearman at least {ASKED_RANKS}",
                    f"{ranks['learned']:.3f}; {ranks['exact']:.3f} with the exact density on the same texts",
                    ranks["learned"] >= ASKED_RANKS,
                )
            )
    return found


# --- A1 -------------------------------------------------------------------------------------------------------------


def _attribution(stage: Stage, scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """Who is blamed for each failure, in each subset where it shows."""

    def used(name: str, z: Part) -> Floats:
        return scored[name].without(NOTHING) - scored[name].without(frozenset((z,)))

    rows = []
    for name, (component, fault) in EVERY_FAILURE.items():
        remi = {z: used(f"fails: {name}", z) - used(REFERENCE.name, z) for z in COMPONENTS}
        for tag in TAGS:
            if "language" in fault.mistakes and exact.tag_attributes(tag)["language"] == "en":
                continue
            lost = {z: float(values[stage.of(tag)].mean()) for z, values in remi.items()}
            law = Responder(name, fault)
            perfect = {z: exact.component_remi(law, only(tag), z, "shown", POOL) for z in COMPONENTS}
            rows.append({"failure": name, "tag": tag, "exact": perfect} | judged(component, lost))
    return rows


def _blame_verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    sorts = {"what one component alone shows": FAILURES, "what persona and dialogue both show": SHARED_FAILURES}
    for what, names in sorts.items():
        chosen = [row for row in rows if row["failure"] in names]
        right = sum(row["right"] for row in chosen)
        found.append(
            verdict(
                f"A1 by the scorer: failures of {what} lose most in their component",
                "at least 19 of 20",
                f"{right} of {len(chosen)}",
                right >= ASKED * len(chosen),
            )
        )
    return found
