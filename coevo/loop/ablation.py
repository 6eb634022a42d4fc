"""The ablation: how likely the tests' references are with reasoning and CoRL, without CoRL, and without reasoning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from coevo import dist
from coevo.errors import DataError
from coevo.files import write_atomic
from coevo.lm.likelihood import encode_response
from coevo.loop.context import Context, seed_of
from coevo.loop.estimator import keep, reasoner, reasoner_phase, scorer_phase
from coevo.plan.plan import PhasePlan
from coevo.prompts import NO_REASONING, NOTHING
from coevo.runs.folder import dump_row
from coevo.scoring import ablation
from coevo.scoring.ablation import Reading
from coevo.scoring.scorer import Ask, Scorer
from coevo.types import Reasoning, Scenario, Score


def run_ablation(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Reads every test's reference with each variant, and writes the readings, the table, and the table as Markdown."""
    corl = context.recipe.corl
    assert corl is not None
    tests = [x for x in context.material.tests if context.fits("scorer", x)]
    if not tests:
        raise DataError(f"phase {phase.name}: no test scenario fits limits.prompt; raise it.")
    readings = [*_reasoned(context, ablation.CORL, corl.iterations, tests), *_others(context, tests)]
    if corl.iterations:
        readings += _reasoned(context, ablation.COLD, 0, tests)
    seed = seed_of(context.recipe.seed, "ablation")
    table = ablation.tabulate([readings], context.recipe.evaluation.resamples, seed)
    context.progress.advance(len(tests))
    root = context.folder.root / "evaluation"
    texts = {
        "ablation.jsonl": "".join(dump_row(reading.to_dict()) for reading in readings),
        "ablation.json": json.dumps(table, indent=1, ensure_ascii=False) + "\n",
        "ablation.md": ablation.markdown(table),
    }
    if dist.is_main():
        for name, text in texts.items():
            write_atomic(root / name, text)
    dist.barrier()
    facts = {"n": len(tests), "left_out": len(context.material.tests) - len(tests)}
    context.folder.finish(phase.name, facts, [root / name for name in texts])
    return facts


def _reasoned(context: Context, variant: str, iteration: int, tests: Sequence[Scenario]) -> list[Reading]:
    """The scorer after so many iterations of CoRL, with the reasonings of the reasoner beside it."""
    written = keep(context, reasoner(context, reasoner_phase(context, iteration)), tests)
    return _read(variant, context.scorer(scorer_phase(context, iteration)), tests, written)


def _others(context: Context, tests: Sequence[Scenario]) -> Iterator[Reading]:
    """Without reasoning, in training or at reading alone; and, in the world, with the oracle's and with the truth."""
    assert context.recipe.corl is not None
    material = context.material
    yield from _read(ablation.WITHOUT, context.scorer(context.phase_name("sft-plain")), tests)
    final = context.scorer(scorer_phase(context, context.recipe.corl.iterations))
    yield from _read(ablation.WITHHELD, final, tests)
    if material.truth is None:
        return
    yield from _read(ablation.ORACLE, final, tests, [Reasoning(material.reasoning(x)) for x in tests])
    for x in tests:
        n_tokens = len(encode_response(context.tokenizer, x.reference))
        yield Reading(x.sample_id, x.subset_tag, ablation.EXACT, Score(material.truth.log_density(x, x.reference), n_tokens))


def _read(
    variant: str, scorer: Scorer, tests: Sequence[Scenario], reasonings: Sequence[Reasoning] | None = None
) -> list[Reading]:
    """Each reference in its scenario with its reasoning, or without any; one without a whole reasoning has that status."""
    given: Sequence[Reasoning | None] = [None] * len(tests) if reasonings is None else reasonings
    asks = [
        Ask(x, x.reference, NO_REASONING) if r is None else Ask(x, x.reference, NOTHING, r.text)
        for x, r in zip(tests, given, strict=True)
    ]
    scores = dist.share_out(scorer.score, asks)
    unread = Score(float("nan"), 0, "reasoning")
    return [
        Reading(x.sample_id, x.subset_tag, variant, score if r is None or r.status == "ok" else unread)
        for x, r, score in zip(tests, given, scores, strict=True)
    ]
