"""What a learned scorer is asked in a calibration: the texts of every responder, in their own contexts and in others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo.calibration.cache import Cache
from coevo.calibration.coverage import circle
from coevo.calibration.settings import Settings, Tick
from coevo.data import world
from coevo.data.world.draws import Contexts, Ints, read_contexts
from coevo.data.world.exact import TAGS
from coevo.data.world.responders import REFERENCE, Responder
from coevo.errors import ScoreError
from coevo.maths.information import Floats
from coevo.prompts import ALL, NOTHING, Part
from coevo.scoring.evaluate import Scores
from coevo.scoring.scorer import Ask
from coevo.types import COMPONENTS, Scenario

SINGLE: tuple[frozenset[Part], ...] = (NOTHING, ALL, *(frozenset((z,)) for z in COMPONENTS))
"""What each text is scored without, in its own scenario: the first columns of its likelihoods."""
ASKS_PER_CALL = 2048


@dataclass(frozen=True)
class Stage:
    """The scenarios of every test subset, subset after subset, and the contexts that each text is scored in."""

    scenarios: list[Scenario]
    contexts: Contexts
    """The same as indices."""
    where: Mapping[str, Ints]
    """By negatives: (N, K+1), places of the contexts, own first."""

    @property
    def n(self) -> int:
        """Scenarios of a subset."""
        return len(self.scenarios) // len(TAGS)

    def of(self, tag: str, n: int | None = None) -> slice:
        """Where a subset's scenarios are, or the first n of them."""
        first = TAGS.index(tag) * self.n
        return slice(first, first + (n or self.n))


@dataclass(frozen=True)
class Scored:
    """One responder's texts and their likelihoods."""

    texts: list[str]
    nats: Floats
    """(N, C): columns as `SINGLE`, then the negatives from the subset and from the pool, where contrasts were asked for."""
    tokens: Floats
    """(N,)."""

    def design(self, stage: Stage, negatives: str) -> Floats:
        """(N, K+1), nats, own context first."""
        first = len(SINGLE)
        for name, where in stage.where.items():
            last = first + where.shape[1] - 1
            if name == negatives:
                return np.concatenate([self.nats[:, :1], self.nats[:, first:last]], axis=1)
            first = last
        raise KeyError(negatives)

    def without(self, drop: frozenset[Part]) -> Floats:
        """(N,), nats, in their own contexts without some components."""
        return self.nats[:, SINGLE.index(drop)]


def set_stage(settings: Settings) -> Stage:
    """The test scenarios of a calibration."""
    scenarios = []
    for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test"):
        scenarios += world.generate(split, settings.scenarios * len(world.SPLITS[split]), settings.seed)
    scenarios.sort(key=lambda x: TAGS.index(x.subset_tag))
    rng = np.random.default_rng(settings.seed)
    everyone = np.arange(len(scenarios))
    groups = {"subset": np.split(everyone, len(TAGS)), "pool": [everyone]}
    where = {name: circle(members, settings.k, settings.seed, rng) for name, members in groups.items()}
    return Stage(scenarios, read_contexts(scenarios), where)


def hear(
    scorer: Scores, stage: Stage, asked: Mapping[str, tuple[Responder, bool]], cache: Cache, seed: int, tick: Tick
) -> dict[str, Scored]:
    """Every responder's texts, scored; what the cache holds is not asked again.

    Args:
        scorer: the scorer to judge.
        stage: scenarios and contexts.
        asked: by name, who answers, and whether the texts are wanted in the contexts of others as well.
        cache: keeps the likelihoods.
        seed: of the answers.
        tick: told how many likelihoods are done.

    Raises:
        ScoreError: a text that cannot be scored; names it.
    """
    columns = {name: _columns(stage, contrasts) for name, (_, contrasts) in asked.items()}
    total, done, found = sum(column.size for column in columns.values()), 0, {}
    for name, (law, _) in asked.items():
        texts = [x.reference for x in stage.scenarios]
        if law is not REFERENCE:
            texts = [response.text for response in law.respond(stage.scenarios, seed)]
        before = done

        def compute(name: str = name, texts: list[str] = texts, before: int = before) -> dict[str, Any]:
            return _score(scorer, stage, texts, columns[name], lambda n: tick(before + n, total))

        found[name] = Scored(texts, **cache.arrays(f"{scorer.version[:16]}-{name}", compute))
        done += columns[name].size
        tick(done, total)
    return found


def _columns(stage: Stage, contrasts: bool) -> Ints:
    """(N, C), the place of the scenario that each text is scored in."""
    own = np.repeat(np.arange(len(stage.scenarios))[:, None], len(SINGLE), axis=1)
    others = [where[:, 1:] for where in stage.where.values()] if contrasts else []
    return np.concatenate([own, *others], axis=1)


def _score(
    scorer: Scores, stage: Stage, texts: Sequence[str], context: Ints, so_far: Callable[[int], None]
) -> dict[str, Any]:
    """Likelihoods of one responder's texts, as the fields of `Scored`."""
    # asked by context, so that a scorer that shares a context's prefix among its texts can
    order = np.argsort(context, axis=None, kind="stable")
    nats, tokens = np.empty(context.shape), np.zeros(len(texts))
    for start in range(0, len(order), ASKS_PER_CALL):
        text, column = np.unravel_index(order[start : start + ASKS_PER_CALL], context.shape)
        asks = [
            Ask(stage.scenarios[context[t, c]], texts[t], SINGLE[c] if c < len(SINGLE) else NOTHING)
            for t, c in zip(text, column, strict=True)
        ]
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
