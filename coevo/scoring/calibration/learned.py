"""A learned scorer against the exact truth: R-EMID of eight responders under eleven shifts, and attribution by A1.

Two truths are held against the estimates, each with negatives from the subset and from the pool: `definition`, by the
responder's own density, and `scored`, what a perfect scorer of references would measure of these responders. The same
estimates with the exact density, on the same texts and contexts, say how much of a miss is the draw's and not the scorer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo.data import world
from coevo.data.world import exact
from coevo.data.world.draws import Ints, log_design, log_marginal, read_contexts, read_replies
from coevo.data.world.exact import COMPONENTS, POOL, TAGS, only
from coevo.data.world.responders import REFERENCE, Responder
from coevo.errors import ScoreError
from coevo.maths.information import Floats
from coevo.maths.stats import interval, mean_draws
from coevo.prompts import ALL, NOTHING, Component
from coevo.scoring.calibration.attribution import ASKED, judged
from coevo.scoring.calibration.bracket import pointwise_estimates
from coevo.scoring.calibration.cast import FAILURES, HOME, SHARED_FAILURES, SHIFTED, dialled
from coevo.scoring.calibration.coverage import circle
from coevo.scoring.calibration.ranks import spearman
from coevo.scoring.calibration.settings import Result, Settings, Tick, verdict
from coevo.scoring.calibration.shelf import Shelf
from coevo.scoring.evaluate import Scores
from coevo.scoring.scorer import Ask
from coevo.types import Scenario

SINGLE: tuple[frozenset[Component], ...] = (NOTHING, ALL, *(frozenset((z,)) for z in COMPONENTS))
"""What each text is scored without, in its own scenario: the first columns of its likelihoods."""
ASKS_PER_CALL = 2048
TRUTHS = ("definition, subset", "definition, pool", "scored, subset", "scored, pool")
DEFAULT = ("club", "sum")
"""The estimate and scale that the verdicts are about."""
Estimate = tuple[str, str, str]
"""Estimate, negatives, scale."""


@dataclass(frozen=True)
class Stage:
    """The scenarios of every test subset, and the contexts that each text is scored in."""

    scenarios: list[Scenario]
    where: Mapping[str, Ints]
    """By negatives: (N, K+1), places of the contexts, own first."""

    @property
    def n(self) -> int:
        """Scenarios of a subset."""
        return len(self.scenarios) // len(TAGS)

    def of(self, tag: str) -> slice:
        """Where a subset's scenarios are."""
        first = TAGS.index(tag) * self.n
        return slice(first, first + self.n)


def learned(scorer: Scores, settings: Settings, shelf: Shelf, tick: Tick) -> Result:
    """Rank correlations of estimated and exact R-EMID, and who A1 blames, by a scorer.

    Raises:
        ScoreError: a text that the scorer cannot score; names it.
    """
    stage = _stage(settings)
    failing = {f"fails: {name}": Responder(name, fault) for name, (_, fault) in {**FAILURES, **SHARED_FAILURES}.items()}
    asked = {law.name: (law, True) for law in (REFERENCE, *dialled())} | {
        name: (law, False) for name, law in failing.items()
    }
    texts = {name: _texts(law, stage, settings.seed) for name, (law, _) in asked.items()}
    total = sum(len(stage.scenarios) * _width(stage, contrasts) for _, contrasts in asked.values())
    done, nats = 0, {}
    for name, (_, contrasts) in asked.items():
        start = done

        def so_far(n: int, start: int = start) -> None:
            tick(start + n, total)

        nats[name] = shelf.arrays(
            f"{scorer.version[:16]}-{name}",
            lambda name=name, contrasts=contrasts, so_far=so_far: _score(scorer, stage, texts[name], contrasts, so_far),
        )
        done += len(stage.scenarios) * _width(stage, contrasts)
        tick(done, total)
    points = _points(stage, texts, nats, settings)
    blamed = _attribution(stage, nats)
    return {
        "scorer": scorer.version,
        "points": points,
        "correlations": _correlations(points),
        "information": _information(stage, texts, nats),
        "attribution": blamed,
        "verdicts": [*_rank_verdicts(points), *_blame_verdicts(blamed)],
    }


# --- likelihoods ----------------------------------------------------------------------------------------------------


def _stage(settings: Settings) -> Stage:
    scenarios = []
    for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test"):
        scenarios += world.generate(split, settings.scenarios * len(world.SPLITS[split]), settings.seed)
    scenarios.sort(key=lambda x: TAGS.index(x.subset_tag))
    rng = np.random.default_rng(settings.seed)
    everyone = np.arange(len(scenarios))
    groups = {"subset": np.split(everyone, len(TAGS)), "pool": [everyone]}
    return Stage(scenarios, {name: circle(g, settings.k, settings.seed, rng) for name, g in groups.items()})


def _texts(law: Responder, stage: Stage, seed: int) -> list[str]:
    if law is REFERENCE:
        return [x.reference for x in stage.scenarios]
    return [response.text for response in law.respond(stage.scenarios, seed)]


def _width(stage: Stage, contrasts: bool) -> int:
    return len(SINGLE) + (sum(where.shape[1] - 1 for where in stage.where.values()) if contrasts else 0)


def _score(scorer: Scores, stage: Stage, texts: Sequence[str], contrasts: bool, so_far: Any) -> dict[str, Any]:
    """Likelihoods of one responder's texts.

    Returns:
        nats: (N, C), columns as `SINGLE`, then negatives from the subset and from the pool; tokens: (N,).
    """
    columns = [np.concatenate([where[:, 1:] for where in stage.where.values()], axis=1)] if contrasts else []
    own = np.repeat(np.arange(len(texts))[:, None], len(SINGLE), axis=1)
    context = np.concatenate([own, *columns], axis=1)
    # asked by context, so that a scorer that shares a context's prefix among its texts can
    order = np.argsort(context, axis=None, kind="stable")
    nats, tokens = np.empty(context.shape), np.zeros(len(texts))
    for start in range(0, len(order), ASKS_PER_CALL):
        text, column = np.unravel_index(order[start : start + ASKS_PER_CALL], context.shape)
        drops = [SINGLE[c] if c < len(SINGLE) else NOTHING for c in column]
        asks = [Ask(stage.scenarios[context[t, c]], texts[t], drop) for t, c, drop in zip(text, column, drops, strict=True)]
        for t, c, score in zip(text, column, scorer.score(asks), strict=True):
            if score.status != "ok":
                raise ScoreError(
                    f"calibration: the response to {stage.scenarios[t].sample_id!r} is {score.status} in the context of "
                    f"{stage.scenarios[context[t, c]].sample_id!r}; a calibration needs every likelihood. Take a scorer "
                    "whose run has a larger limits.prompt and limits.response."
                )
            nats[t, c], tokens[t] = score.logprob_nats, score.n_tokens
        so_far(min(start + ASKS_PER_CALL, len(order)))
    return {"nats": nats, "tokens": tokens}


def _summands(stage: Stage, scored: Mapping[str, Any], texts: Sequence[str]) -> dict[tuple[str, str, str, str], Floats]:
    """By density, estimate, negatives and scale: (N,), what each text says of its context."""
    contexts, replies = read_contexts(stage.scenarios), read_replies(texts)
    nats, tokens = scored["nats"], scored["tokens"]
    found = {}
    first = len(SINGLE)
    for negatives, where in stage.where.items():
        k = where.shape[1] - 1
        design = np.concatenate([nats[:, :1], nats[:, first : first + k]], axis=1)
        first += k
        for scale, unit in (("sum", 1.0), ("token_mean", tokens)):
            scaled = (design.T / unit).T
            for name, values in pointwise_estimates(scaled, nats[:, 1] / unit).items():
                found["learned", name, negatives, scale] = values
        marginal = _exact_marginal(stage, replies, negatives)
        for name, values in pointwise_estimates(log_design(REFERENCE, contexts, replies, where), marginal).items():
            found["exact", name, negatives, "sum"] = values
    return found


def _exact_marginal(stage: Stage, replies: Ints, negatives: str) -> Floats:
    if negatives == "pool":
        return log_marginal(REFERENCE, POOL, replies)
    return np.concatenate([log_marginal(REFERENCE, only(tag), replies[stage.of(tag)]) for tag in TAGS])


# --- R-EMID ---------------------------------------------------------------------------------------------------------


def _points(
    stage: Stage, texts: Mapping[str, list[str]], nats: Mapping[str, Any], settings: Settings
) -> list[dict[str, Any]]:
    """A point for each responder and shift: the truths, and every estimate."""
    reference = _summands(stage, nats[REFERENCE.name], texts[REFERENCE.name])
    points = []
    for law in dialled():
        ours = _summands(stage, nats[law.name], texts[law.name])
        remi = {key: values - reference[key] for key, values in ours.items()}
        shown = remi["learned", DEFAULT[0], "pool", DEFAULT[1]]
        for tag in SHIFTED:
            home, away = stage.of(HOME), stage.of(tag)
            draws = [mean_draws(shown[part], settings.resamples, [settings.seed, i]) for i, part in enumerate((home, away))]
            points.append(
                {
                    "responder": law.name,
                    "tag": tag,
                    "truth": _truths(law, tag),
                    "estimates": {
                        " ".join(key): float(values[home].mean() - values[away].mean()) for key, values in remi.items()
                    },
                    "interval": interval(shown[home].mean() - shown[away].mean(), draws[0] - draws[1]).as_json(),
                }
            )
    return points


def _truths(law: Responder, tag: str) -> dict[str, float]:
    found = {}
    for reading, density in (("definition", None), ("scored", REFERENCE)):
        for negatives in ("subset", "pool"):
            home, away = (exact.remi(law, only(t), density, POOL if negatives == "pool" else only(t)) for t in (HOME, tag))
            found[f"{reading}, {negatives}"] = home - away
    return found


def _correlations(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By estimate: Spearman's correlation with each truth over all points."""
    rows = []
    for key in points[0]["estimates"]:
        density, estimate, negatives, scale = key.split(" ")
        values = [point["estimates"][key] for point in points]
        truths = {truth: spearman(values, [point["truth"][truth] for point in points]) for truth in TRUTHS}
        rows.append({"density": density, "estimate": estimate, "negatives": negatives, "scale": scale, "spearman": truths})
    return rows


def _information(stage: Stage, texts: Mapping[str, list[str]], nats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By subset, what the references say of their context: exact, and by each estimate (nats)."""
    summands = _summands(stage, nats[REFERENCE.name], texts[REFERENCE.name])
    rows = []
    for tag in TAGS:
        for negatives, population in (("subset", only(tag)), ("pool", POOL)):
            row: dict[str, Any] = {"tag": tag, "negatives": negatives}
            row["exact"] = exact.information(REFERENCE, only(tag), None, population)
            row["club_exact"] = exact.club(REFERENCE, only(tag), None, population)
            row["estimates"] = {
                f"{density} {estimate}": float(values[stage.of(tag)].mean())
                for (density, estimate, where, scale), values in summands.items()
                if where == negatives and scale == "sum"
            }
            rows.append(row)
    return rows


def _rank_verdicts(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for negatives in ("pool", "subset"):
        for reading in ("definition", "scored"):
            truth = [point["truth"][f"{reading}, {negatives}"] for point in points]
            by_density = {
                density: spearman(
                    [p["estimates"][f"{density} {DEFAULT[0]} {negatives} {DEFAULT[1]}"] for p in points], truth
                )
                for density in ("learned", "exact")
            }
            found.append(
                verdict(
                    f"M1 by the scorer, {negatives}: R-EMID of {len(points)} responders x shifts ranks as the exact one "
                    f"({reading})",
                    "Spearman at least 0.95",
                    f"{by_density['learned']:.3f}; {by_density['exact']:.3f} with the exact density on the same texts",
                    by_density["learned"] >= 0.95,
                )
            )
    return found


# --- A1 -------------------------------------------------------------------------------------------------------------


def _attribution(stage: Stage, nats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who is blamed for each failure in each subset where it shows."""

    def used(name: str, z: Component) -> Floats:
        scored = nats[name]["nats"]
        return scored[:, 0] - scored[:, SINGLE.index(frozenset((z,)))]

    rows = []
    for name, (component, fault) in {**FAILURES, **SHARED_FAILURES}.items():
        for tag in TAGS:
            if "language" in fault.mistakes and exact.tag_attributes(tag)["language"] == "en":
                continue
            part = stage.of(tag)
            lost = {z: float((used(f"fails: {name}", z) - used(REFERENCE.name, z))[part].mean()) for z in COMPONENTS}
            law = Responder(name, fault)
            perfect = {z: exact.component_remi(law, only(tag), z, "shown", POOL) for z in COMPONENTS}
            rows.append({"failure": name, "tag": tag, "exact": perfect} | judged(component, lost))
    return rows


def _blame_verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for what, names in (
        ("what one component alone shows", FAILURES),
        ("what persona and dialogue both show", SHARED_FAILURES),
    ):
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
