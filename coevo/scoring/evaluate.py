"""From responses to the measures of the method: R-EMI, the register gap M, R-EMID and their intervals.

Three steps, so that a distributed run can share out the middle one: `plan` says which likelihoods are needed, any
`score_fn` gives them, `assemble` turns them into one row a scenario. `measure` is the three in turn, ending in the
evaluation dict.

Every text, response or reference, is asked for under the same contexts: its own; K others (`club`, `l1out`) or none
(`learned_marginal`, M4); and its own without reasoning, without u, without c, without d (A1). M4 is therefore a design with
one negative. For a scorer without reasoning the own context and the one without reasoning are one question.

`released` is the procedure of the paper's code, for figures to set beside the paper's: CLUB of nats per token, its
negatives random pairs of a subset. A response then has as many negatives as were drawn for it, or none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coevo.config import Evaluation
from coevo.errors import ScoreError
from coevo.maths.information import Agg, circulant_offsets, neighbours, random_pairs
from coevo.maths.stats import Floats, stratum_seed
from coevo.prompts import ALL, NO_REASONING, NOTHING, Part
from coevo.scoring.guards import fault
from coevo.scoring.readings import (
    ASKS_PER_CALL,
    COMPONENTS,
    N_PLAIN,
    RELEASED_PAIRS,
    Cache,
    Truth,
    elsewhere_of,
    pack,
    read,
    released_elsewhere,
    row_of,
    unpack,
)
from coevo.scoring.real_text import seen
from coevo.scoring.scorer import Ask, PromptKey, Scores
from coevo.scoring.summary import Row, summarise
from coevo.types import Response, Scenario, Score

ScoreFn = Callable[[Sequence[Ask]], list[Score]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One evaluation: a row a scenario, and the evaluation dict made of them."""

    rows: list[Row]
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which likelihoods an evaluation needs, and where each goes."""

    scenarios: Sequence[Scenario]
    responses: Sequence[Response]
    """In the scenarios' order."""
    agg: Agg
    negatives: list[list[int]]
    """By scenario, the places of its K negatives; none for the learned marginal, which has the empty context."""
    asks: list[Ask]
    slots: list[tuple[int, bool]]
    """By block of asks (one text under all its contexts): the scenario's place, and whether it is the reference."""
    keys: list[str]
    """By scenario, where its reference's likelihoods are in the cache."""
    released: bool
    """Whether negatives are random pairs and likelihoods are per token."""

    def contexts(self, place: int) -> list[tuple[Scenario, frozenset[Part]]]:
        """What the texts of one scenario are asked under: own, negatives, own without r, own without each component."""
        own = self.scenarios[place]
        others = [(self.scenarios[other], NOTHING) for other in self.negatives[place]]
        if not others and not self.released:
            others = [(own, ALL)]
        return [(own, NOTHING), *others, (own, NO_REASONING), *((own, frozenset((z,))) for z in COMPONENTS)]

    def by_context(self) -> list[int]:
        """Places of the asks in the order to score them: all that are asked under one context in a row.

        The asks stand by text, and a circulant design asks for a context's K + 1 texts far apart; in a row, they meet in
        one call of the scorer, which then computes the context once.
        """
        places: dict[PromptKey, list[int]] = {}
        for place, ask in enumerate(self.asks):
            places.setdefault(ask.context, []).append(place)
        return [place for group in places.values() for place in group]


def measure(
    scorer: Scores,
    scenarios: Sequence[Scenario],
    responses: Sequence[Response],
    config: Evaluation,
    seed: int,
    *,
    reference_cache: Cache | None = None,
    truth: Truth | None = None,
    progress: Callable[[int, int], None] | None = None,
    score_fn: ScoreFn | None = None,
) -> Measurement:
    """Measures one model's responses against the references (E1, E2, D1-D3, A1).

    Args:
        scorer: the frozen scorer; its version is stamped on the result.
        scenarios: of every subset; the ID subset is the one whose shift is `id`.
        responses: one per scenario, of one model, in any order.
        config: estimator, negatives, K and bootstrap.
        seed: fixes the design and the bootstrap. Two models measured with one seed are paired.
        reference_cache: read and filled, so that an evaluation before and one after score the references once.
        truth: a world's exact density, for share_right and the exact measures.
        progress: told how many likelihoods are done, of how many.
        score_fn: scores a list of asks, by default `scorer.score`; a distributed run shares the list out here.

    Raises:
        ScoreError: responses that do not fit the scenarios, or a subset with nothing to contrast with.
    """
    cache = {} if reference_cache is None else reference_cache
    score_fn = score_fn or scorer.score
    planned = plan(scorer.version, scenarios, responses, config, seed, cache)
    order = planned.by_context()
    found: dict[int, Score] = {}
    for start in range(0, len(order), ASKS_PER_CALL):
        places = order[start : start + ASKS_PER_CALL]
        found |= zip(places, score_fn([planned.asks[place] for place in places]), strict=True)
        if progress:
            progress(len(found), len(order))
    rows = assemble(planned, [found[place] for place in range(len(order))], cache, truth)
    return Measurement(rows, summarise(rows, config, seed, model=responses[0].model, scorer=scorer.version))


def plan(
    version: str,
    scenarios: Sequence[Scenario],
    responses: Sequence[Response],
    config: Evaluation,
    seed: int,
    cache: Mapping[str, Any],
) -> Plan:
    """Which likelihoods are needed: none for a response that is not `ok`, none for a reference that is in the cache.

    A response that repeats itself or copies its context is not `ok` either: every scorer finds it likely.
    """
    aligned = [_marked(x, response) for x, response in zip(scenarios, _align(scenarios, responses), strict=True)]
    negatives = _negatives(scenarios, config, seed)
    design = _digest([config.estimator, negatives, [_content(scenario) for scenario in scenarios]])
    planned = Plan(
        scenarios,
        aligned,
        "l1out" if config.estimator == "l1out" else "club",
        negatives,
        [],
        [],
        [f"{version}:{design}:{scenario.sample_id}" for scenario in scenarios],
        config.estimator == "released",
    )
    for place, (scenario, response) in enumerate(zip(scenarios, aligned, strict=True)):
        if response.status != "ok" or not scenario.reference:
            continue
        contexts = planned.contexts(place)
        texts = [(response.text, False)]
        if planned.keys[place] not in cache:
            texts.append((scenario.reference, True))
        for text, is_reference in texts:
            planned.slots.append((place, is_reference))
            planned.asks.extend(Ask(context, text, drop) for context, drop in contexts)
    return planned


def assemble(planned: Plan, scores: Sequence[Score], cache: Cache, truth: Truth | None = None) -> list[Row]:
    """One row a scenario from the plan's likelihoods; references' likelihoods enter the cache.

    Args:
        planned: as made by `plan` with this cache.
        scores: one per ask of the plan, in its order.
        cache: references' likelihoods, read and filled.
        truth: a world's exact density.
    """
    if len(scores) != len(planned.asks):
        raise ScoreError(f"evaluation: {len(planned.asks)} likelihoods asked for, {len(scores)} came back; score each.")
    blocks: dict[int, list[Score]] = {}
    position = 0
    for place, is_reference in planned.slots:
        width = len(planned.contexts(place))
        block = list(scores[position : position + width])
        position += width
        if is_reference:
            cache[planned.keys[place]] = [pack(score) for score in block]
        else:
            blocks[place] = block
    readings = [read(planned, place, blocks.get(place), cache) for place in range(len(planned.scenarios))]
    elsewhere = released_elsewhere(planned, readings) if planned.released else [elsewhere_of(planned, r) for r in readings]
    return [
        row_of(planned, place, reading, outer, truth)
        for place, (reading, outer) in enumerate(zip(readings, elsewhere, strict=True))
    ]


def uses(planned: Plan, cache: Cache) -> dict[Part, Floats]:
    """What of each component there is to lose: I_z of the references (A1), nats, (N,), NaN where it could not be scored.

    Args:
        planned: as made by `plan`.
        cache: holds the references' likelihoods, as `assemble` leaves it.
    """
    nats = np.full((len(planned.keys), N_PLAIN), np.nan)
    for place, key in enumerate(planned.keys):
        if key in cache:
            nats[place] = [unpack(packed).logprob_nats for packed in cache[key][-N_PLAIN:]]
    nats[np.isnan(nats).any(axis=1)] = np.nan
    return {z: nats[:, 0] - nats[:, 1 + place] for place, z in enumerate(COMPONENTS)}


# --- which contexts -------------------------------------------------------------------------------------------------


def _align(scenarios: Sequence[Scenario], responses: Sequence[Response]) -> list[Response]:
    ids = [scenario.sample_id for scenario in scenarios]
    by_id = {response.sample_id: response for response in responses}
    missing = sorted(set(ids) - set(by_id))
    if not ids or missing or len(by_id) != len(responses) or len(set(ids)) != len(ids) or len(ids) != len(responses):
        raise ScoreError(
            f"evaluation: {len(ids)} scenarios and {len(responses)} responses do not match one to one by sample_id "
            f"(without a response: {', '.join(missing[:3]) or 'none'}); give one response per scenario."
        )
    models = sorted({response.model for response in responses})
    if len(models) > 1:
        raise ScoreError(f"evaluation: responses of several models ({', '.join(models)}); measure one model at a time.")
    return [by_id[sample_id] for sample_id in ids]


def _marked(scenario: Scenario, response: Response) -> Response:
    """The response with the status of what no likelihood shows."""
    if response.status != "ok":
        return response
    return replace(response, status=fault(response.text, scenario.reference, list(seen(scenario))))


def _negatives(scenarios: Sequence[Scenario], config: Evaluation, seed: int) -> list[list[int]]:
    """By scenario, the places of its negatives on a circle in random order, one circle a population."""
    negatives: list[list[int]] = [[] for _ in scenarios]
    released = config.estimator == "released"
    if config.estimator == "learned_marginal":
        return negatives
    circles: dict[str, list[int]] = {}
    for place, scenario in enumerate(scenarios):
        circles.setdefault(scenario.subset_tag if released or config.negatives == "subset" else "pool", []).append(place)
    for name, places in circles.items():
        if len(places) < 2:
            raise ScoreError(
                f"evaluation: {name!r} has {len(places)} scenario, and a contrast needs at least 2; "
                "evaluate more of it, or set evaluation.estimator=learned_marginal."
            )
        if released:
            drawn = int(np.random.default_rng(stratum_seed(seed, name)).integers(2**31))
            for context, response in random_pairs(len(places), RELEASED_PAIRS, drawn).tolist():
                negatives[places[response]].append(places[context])
            continue
        # a random order mixes the subsets of a pool, which come one after another
        circle = np.array(places)[np.random.default_rng(stratum_seed(seed, name)).permutation(len(places))]
        contexts = neighbours(len(places), circulant_offsets(len(places), config.k, seed))
        for position, place in enumerate(circle):
            negatives[place] = circle[contexts[position]].tolist()
    return negatives


def _content(scenario: Scenario) -> str:
    character = scenario.character if isinstance(scenario.character, str) else dict(scenario.character)
    turns = [(turn.role, turn.text) for turn in scenario.dialogue]
    return _digest([scenario.sample_id, scenario.persona, character, turns, scenario.reference])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]
