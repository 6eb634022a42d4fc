"""Whether A1 names the component that a responder mistakes, on data whose law nobody knows: scenarios of a file.

The responder answers every scenario as if one component were another one, with a real reference: see `swaps`. The
references stand beside it in their own scenarios, so that R-EMI_z = I_z(Y_theta) - I_z(Y*) compares the same texts, and what
one text has more to say than another cancels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from coevo.calibration.attribution import ASKED, judged
from coevo.calibration.cache import Cache
from coevo.calibration.counterfactuals import Swap, swap
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.errors import DataError
from coevo.files import content_key
from coevo.maths.information import Floats, component_remi
from coevo.maths.stats import bootstrap_mean, stratum_seed
from coevo.prompts import character_text
from coevo.scoring.evaluate import Scores
from coevo.scoring.scorer import Ask
from coevo.types import COMPONENTS, Component, Scenario

CASES = 20
"""Cases a component at least: every subset is dealt into as many disjoint parts as that takes."""
FEWEST = 10
"""Scenarios a case at least; fewer say nothing."""
CHUNK = 16
"""Scenarios scored at once: their asks share prompts."""
DROPS: tuple[frozenset[Component], ...] = (frozenset(), *(frozenset((z,)) for z in COMPONENTS))
"""What is not shown: nothing, u, c, d."""
WORDS: Mapping[Component, str] = {"u": "user", "c": "character", "d": "dialogue"}
Array = np.ndarray[Any, Any]
Swaps = Mapping[Component, Swap]


def attribute(scorer: Scores, scenarios: Sequence[Scenario], settings: Settings, cache: Cache, tick: Tick) -> Result:
    """Losses in u, c and d (A1) of responders that mistake one of them, by subset, and who is blamed in every case.

    Args:
        scorer: without reasoning, and trained on none of the scenarios.
        scenarios: with references, of one or several subsets.
        settings: seed and resamples are taken.
        cache: keeps the likelihoods.
        tick: told how many scenarios are done.

    Raises:
        DataError: a subset that is too small for its cases, or a component that is the same throughout it.
    """
    swaps = exchanged(scenarios, settings.seed)
    tags = np.array([x.subset_tag for x in scenarios])
    deal(tags, np.ones(len(scenarios), dtype=bool), settings.seed)  # too few of a subset: said before an hour of scoring
    nats = _score(scorer, scenarios, swaps, cache, tick)
    lost = losses(nats)
    scored = np.array(~np.isnan(lost).any(axis=(1, 2)))
    parts = deal(tags, scored, settings.seed)
    cases = [
        {"tag": tag, "part": part, "n": len(places)} | judged(component, _means(lost[places, own]))
        for own, component in enumerate(COMPONENTS)
        for (tag, part), places in parts.items()
    ]
    populations = {"all": scored} | {tag: scored & (tags == tag) for tag in dict.fromkeys(tags.tolist())}
    return {
        "scorer": scorer.version,
        "seed": settings.seed,
        "n": len(scenarios),
        "unscored": [x.sample_id for x, known in zip(scenarios, scored, strict=True) if not known],
        "shared": {z: np.bincount([made[z].shared for made in swaps], minlength=3).tolist() for z in COMPONENTS},
        "uses": _uses(nats[scored, 0], settings),
        "losses": [
            _loss(component, tag, lost[where, own], settings)
            for own, component in enumerate(COMPONENTS)
            for tag, where in populations.items()
        ],
        "cases": cases,
        "verdicts": [_verdict(component, [c for c in cases if c["component"] == component]) for component in COMPONENTS],
    }


def exchanged(scenarios: Sequence[Scenario], seed: int) -> list[Swaps]:
    """By scenario, its three swaps; donors are of its own subset.

    Raises:
        DataError: a scenario for which no other of its subset has another value of a component.
    """
    subsets: dict[str, list[Scenario]] = {}
    for x in scenarios:
        subsets.setdefault(x.subset_tag, []).append(x)
    found: list[Swaps] = []
    for x in scenarios:
        rng = random.Random(f"coevo swaps/{seed}/{x.sample_id}")
        swaps = {z: swap(x, z, subsets[x.subset_tag], rng) for z in COMPONENTS}
        missing = [z for z, made in swaps.items() if made is None]
        if missing:
            raise DataError(
                f"{x.sample_id}: no other scenario of subset {x.subset_tag!r} has another {WORDS[missing[0]]}, so a "
                "responder that mistakes it cannot be made; give a file with more of the subset, or without it."
            )
        found.append({z: made for z, made in swaps.items() if made is not None})
    return found


def losses(nats: Floats) -> Floats:
    """A1 of every responder: (N, 3, 3), scenario x mistaken component x component; NaN where a likelihood is.

    Args:
        nats: (N, 4, 4), the reference in x, and in x with another u, c, d; each without nothing, u, c, d.
    """
    reference, responses = nats[:, 0], nats[:, 1:]
    found = np.empty((len(nats), 3, 3))
    for own in range(3):
        for z in range(3):
            found[:, own, z] = component_remi(
                responses[:, own, 0], responses[:, own, 1 + z], reference[:, 0], reference[:, 1 + z]
            )
    return found


def deal(tags: Array, scored: Array, seed: int) -> dict[tuple[str, int], Array]:
    """Each subset's scored places in random order, dealt into disjoint parts: CASES of them or a few more in all.

    Raises:
        DataError: parts of fewer than FEWEST scenarios.
    """
    names = list(dict.fromkeys(tags.tolist()))
    n_parts = math.ceil(CASES / max(1, len(names)))
    parts: dict[tuple[str, int], Array] = {}
    for tag in names:
        places = np.flatnonzero((tags == tag) & scored)
        if len(places) < n_parts * FEWEST:
            raise DataError(
                f"subset {tag!r} has {len(places)} scenarios that can be scored; {CASES} cases over {len(names)} subset(s), "
                f"of at least {FEWEST} scenarios each, take {n_parts * FEWEST}. Give a file with more of it or without it, "
                "or take a scorer whose run has larger limits."
            )
        shuffled = np.random.default_rng(stratum_seed(seed, tag)).permutation(places)
        parts |= {(tag, part): chosen for part, chosen in enumerate(np.array_split(shuffled, n_parts))}
    return parts


def _text(x: Scenario) -> list[Any]:
    return [x.persona, character_text(x.character), [turn.text for turn in x.dialogue], x.reference]


def _score(scorer: Scores, scenarios: Sequence[Scenario], swaps: Sequence[Swaps], cache: Cache, tick: Tick) -> Floats:
    """(N, 4, 4) nats; NaN for what cannot be scored. Each chunk is kept: a large scorer takes an hour for all."""
    found = []
    for start in range(0, len(scenarios), CHUNK):
        chunk = [
            (x, [x, *(made[z].shown for z in COMPONENTS)])
            for x, made in zip(scenarios[start : start + CHUNK], swaps[start : start + CHUNK], strict=True)
        ]
        texts = [_text(shown) for _, settings in chunk for shown in settings]
        key = f"blame/{scorer.version}/{content_key(texts)}"
        found.append(cache.arrays(key, partial(_score_chunk, scorer, chunk))["nats"])
        tick(start + len(chunk), len(scenarios))
    return np.concatenate(found)


def _score_chunk(scorer: Scores, chunk: Sequence[tuple[Scenario, Sequence[Scenario]]]) -> dict[str, Floats]:
    # without the component that was swapped, prompts are those of x: the scorer computes them once
    asks = [Ask(shown, x.reference, drop) for x, settings in chunk for shown in settings for drop in DROPS]
    values = [score.logprob_nats if score.status == "ok" else math.nan for score in scorer.score(asks)]
    return {"nats": np.reshape(values, (len(chunk), 1 + len(COMPONENTS), len(DROPS)))}


def _means(lost: Floats) -> dict[Component, float]:
    return {z: float(value) for z, value in zip(COMPONENTS, lost.mean(axis=0), strict=True)}


def _uses(reference: Floats, settings: Settings) -> dict[Component, dict[str, float]]:
    """I_z of the references in their own scenarios: what there is to lose."""
    return {
        z: bootstrap_mean(reference[:, 0] - reference[:, 1 + place], settings.resamples, settings.seed).to_dict()
        for place, z in enumerate(COMPONENTS)
    }


def _loss(component: Component, tag: str, lost: Floats, settings: Settings) -> Result:
    """Mean losses with intervals, and by how much the mistaken component loses more than each other one."""
    own = COMPONENTS.index(component)
    seed = stratum_seed(settings.seed, tag)

    def mean(values: Floats) -> dict[str, float]:
        return bootstrap_mean(values, settings.resamples, seed).to_dict()

    return {
        "component": component,
        "tag": tag,
        "n": len(lost),
        "lost": {z: mean(lost[:, place]) for place, z in enumerate(COMPONENTS)},
        "more_than": {z: mean(lost[:, place] - lost[:, own]) for place, z in enumerate(COMPONENTS) if z != component},
    }


def _verdict(component: Component, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    right = sum(case["right"] for case in cases)
    return verdict(
        f"A1 by the scorer, on a file: answers to another {WORDS[component]} lose most in {component}",
        "at least 19 of 20",
        f"{right} of {len(cases)}",
        right >= ASKED * len(cases),
    )
