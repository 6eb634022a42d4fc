"""The estimator of a run: the scorer that rewards and evaluates, with its reasoner where CoRL trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from coevo import dist
from coevo.config import REASONING_FRAME, RealText
from coevo.errors import ConfigError
from coevo.files import write_atomic
from coevo.loop.context import Context, Policies, seed_of
from coevo.plan.naming import estimator_kinds, reasoner_kind, scorer_kind
from coevo.runs.folder import dump_row, read_rows
from coevo.scoring.real_text import Others, draw_others
from coevo.scoring.reasoner import Estimator, ReasonedScorer, Reasoner, scenario_key
from coevo.types import Reasoning, Scenario

BATCH = 256
"""Reasonings written between two reports of progress."""


def estimator(context: Context, iteration: int | None = None) -> Estimator:
    """What every likelihood of an iteration of the game is made of; None is the first one, which also evaluates."""
    scorer, writer = estimator_kinds(context.recipe, iteration)
    plain = context.scorer(context.phase_name(scorer)) if scorer else context.zero_shot()
    return plain if writer is None else ReasonedScorer(plain, reasoner(context, context.phase_name(writer)))


def reasoner_phase(context: Context, iteration: int) -> str:
    """Name of the phase that wrote the reasoner in force after so many iterations of CoRL; 0 is the cold start."""
    return context.phase_name(reasoner_kind(iteration))


def scorer_phase(context: Context, iteration: int) -> str:
    """The same of the scorer."""
    return context.phase_name(scorer_kind(iteration))


def reasoner(policies: Policies, name: str) -> Reasoner:
    """The reasoner that phase `name` wrote, frozen, with what the run has kept of its reasonings."""
    limits, corl = policies.recipe.limits, policies.recipe.corl
    version = policies.version(name)
    return Reasoner(
        policies.load(name, trainable=False),
        policies.tokenizer,
        version,
        policies.sections,
        policies.prompts,
        max_prompt=limits.prompt + REASONING_FRAME,
        max_new_tokens=limits.reasoning,
        temperature=corl.temperature if corl else 0.0,
        known=_kept(policies, version),
    )


def others(context: Context, scorer: Estimator) -> Others | None:
    """The contexts that R6 compares with, from what scorers are tuned on; None where the reward is another. All call it.

    Raises:
        ConfigError: too few scenarios fit the limits and, with a reasoner, have a whole reasoning.
    """
    weights = context.recipe.weights
    if not isinstance(weights, RealText):
        return None
    seed = seed_of(context.recipe.seed, "others")
    found = draw_others(lambda x: context.fits("scorer", x), context.material.shift_train, weights, seed)
    if isinstance(scorer, ReasonedScorer):
        prepare(context, scorer, found.bank)
        reasonings = scorer.reasoner.reason(found.bank)
        found = replace(found, bank=tuple(x for x, r in zip(found.bank, reasonings, strict=True) if r.status == "ok"))
    if len(found.bank) < weights.least_scenarios:
        raise ConfigError(
            f"{context.recipe.weights_key}.negatives={weights.negatives}: only {len(found.bank)} training scenarios can be "
            f"read within limits.prompt{' and have a whole reasoning' if context.recipe.corl else ''}, and "
            f"{weights.least_scenarios} are needed; raise the limit, or lower it."
        )
    return found


def prepare(context: Context, scorer: Estimator, scenarios: Sequence[Scenario]) -> None:
    """Writes the reasonings of scenarios that will be asked about again and again, and keeps them in the run folder.

    All processes call it; each writes its share. What is kept is read back by a resumed run, so that it sees the very same
    reasonings. Does nothing for a scorer without one.
    """
    if isinstance(scorer, ReasonedScorer) and isinstance(scorer.reasoner, Reasoner):
        keep(context, scorer.reasoner, scenarios)


def keep(context: Context, writer: Reasoner, scenarios: Sequence[Scenario]) -> list[Reasoning]:
    """The reasonings of scenarios in their order; those that are new are written, shared out, and kept in the run folder."""
    keys = [scenario_key(x) for x in scenarios]
    missing = {key: x for key, x in zip(keys, scenarios, strict=True) if key not in writer.known}

    def work(share: Sequence[Scenario]) -> list[Reasoning]:
        return [r for start in range(0, len(share), BATCH) for r in writer.write(share[start : start + BATCH])]

    writer.known.update(zip(missing, dist.share_out(work, list(missing.values())), strict=True))
    if missing and dist.is_main():
        rows = [{"scenario": key, **asdict(reasoning)} for key, reasoning in writer.known.items()]
        write_atomic(_path(context, writer.version), "".join(map(dump_row, rows)))
    dist.barrier()
    return [writer.known[key] for key in keys]


def _path(policies: Policies, version: str) -> Path:
    return policies.folder.root / "reasonings" / f"{version[:16]}.jsonl"


def _kept(policies: Policies, version: str) -> dict[str, Reasoning]:
    return {
        row["scenario"]: Reasoning(row["text"], row["status"], row["structure"])
        for row in read_rows(_path(policies, version))
    }
