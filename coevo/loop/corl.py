"""CoRL (method section 5): reasoner and scorer trained in turn, each phase on a fresh base with its parent's adapter.

Cold start of both on reasoned samples; then, iteration by iteration, (a) the reasoner by GRPO against the scorer in force,
(b) the scorer by SFT on what the reasoner now writes, then by GRPO with the match reward. A refresh is one more such round
in the midst of the game, which meets the pool's scenarios too. No phase sees a test scenario:
`Material.refuse_tests` stands before every training.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coevo import dist
from coevo.config import CoRL, ScorerSFT
from coevo.errors import DataError
from coevo.loop.coevolution import scenario_of
from coevo.loop.context import Context, seed_of
from coevo.loop.corl_rewards import MatchReward, ReasonerReward
from coevo.loop.estimator import keep, reasoner, reasoner_phase, scorer_phase
from coevo.loop.phases import DROPS, SFTExample, encode, no_extra, pool_rows, save_learnt, sft_example
from coevo.plan.naming import played_before
from coevo.plan.plan import PhasePlan
from coevo.prompts import NO_REASONING, NOTHING
from coevo.scoring.agreement import agreement_nats, judgement
from coevo.train.grpo import train_grpo
from coevo.train.sft import train_sft
from coevo.types import Scenario

JUDGED = 256
"""Scenarios on which the base's judgement is tried before it rewards."""


def config_of(context: Context) -> CoRL:
    """The recipe's CoRL section, in a phase that there is only with one."""
    assert context.recipe.corl is not None
    return context.recipe.corl


def material_of(context: Context, phase: PhasePlan) -> tuple[list[tuple[Scenario, str]], list[Scenario]]:
    """The cold start's reasoned samples and the later phases' scenarios, none of them tested on.

    Raises:
        DataError: one of them is.
    """
    corpus = context.material.corpus
    assert corpus is not None
    cold, later = corpus.split(config_of(context).cold_start, seed_of(context.recipe.seed, "corl"))
    later += _met(context, phase)
    context.material.refuse_tests([*(x for x, _ in cold), *later], f"phase {phase.name}")
    return cold, later


def _met(context: Context, phase: PhasePlan) -> list[Scenario]:
    """For a refresh, the pool's scenarios up to it. The simulator may by chance have written a test's; that is left out."""
    played = played_before(context.recipe, phase.iteration)
    rows = pool_rows(context, before=played + 1) if played else []
    return [x for x in (scenario_of(row["scenario"]) for row in rows) if not context.material.is_tested(x)]


def run_reasoner_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Cold start of the reasoner on reasoned samples."""
    config = config_of(context).reasoner_sft
    cold, _ = material_of(context, phase)
    examples = [sft_example(context.prompts, "reasoner", x, reasoning=text) for x, text in cold[: config.samples]]
    return _tune(context, phase, resume, examples, config)


def run_scorer_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The scorer by SFT: on the cold start's reasonings, or (b) on what this iteration's reasoner writes."""
    recipe = context.recipe
    cold, later = material_of(context, phase)
    if phase.iteration is None:
        config = recipe.scorer_sft
        return _tune(context, phase, resume, scorer_examples(context, phase, cold[: config.samples], config), config)
    config = config_of(context).scorer_tune
    chosen = _draw(later, config.samples or len(later), seed_of(recipe.seed, phase.name, "scenarios"))
    written = keep(context, reasoner(context, reasoner_phase(context, phase.iteration)), chosen)
    usable = [(x, r.text) for x, r in zip(chosen, written, strict=True) if r.status == "ok"]
    statuses = dict(sorted(Counter(r.status for r in written).items()))
    parent = scorer_phase(context, phase.iteration - 1)
    if len(usable) < config.batch_size:
        why_not = (
            f"only {len(usable)} of {len(written)} reasonings are whole ({statuses}), fewer than one update's batch of "
            f"{config.batch_size}; the scorer stays its parent. Give the reasoner a longer cold start."
        )
        model = context.load(parent, trainable=True)
        return save_learnt(context, phase, model, parent, False, why_not) | {"reasonings": statuses}
    examples = scorer_examples(context, phase, usable, config)
    return _tune(context, phase, resume, examples, config, parent) | {"reasonings": statuses}


def run_plain_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """For the ablation: a scorer that never saw a reasoning, on the cold start's very samples and dropped components."""
    config = context.recipe.scorer_sft
    cold, _ = material_of(context, phase)
    chosen = cold[: config.samples]
    twin = replace(phase, name=context.phase_name("sft-scorer"))
    reasoned = scorer_examples(context, twin, chosen, config)
    plain = [
        sft_example(context.prompts, "scorer", x) if taught.reasoning else taught
        for (x, _), taught in zip(chosen, reasoned, strict=True)
    ]
    return _tune(context, phase, resume, plain, config)


def scorer_examples(
    context: Context, phase: PhasePlan, reasoned: Sequence[tuple[Scenario, str]], config: ScorerSFT
) -> list[SFTExample]:
    """Examples with context dropout: r alone, or u, c, d or all three together with r, which would leak them (M4, A1)."""
    rng = random.Random(seed_of(context.recipe.seed, phase.name))
    drops = (NO_REASONING, *DROPS)
    examples = []
    for x, text in reasoned:
        drop = rng.choice(drops) if rng.random() < config.context_dropout else NOTHING
        examples.append(sft_example(context.prompts, "scorer", x, drop, text))
    return examples


def _tune(
    context: Context,
    phase: PhasePlan,
    resume: bool,
    examples: Sequence[SFTExample],
    config: Any,
    parent: str | None = None,
) -> dict[str, Any]:
    encoded = encode(context, phase, examples)
    model = context.load(parent, trainable=True)
    train_sft(context.job(phase, model, resume, no_extra), encoded, config)
    context.save(phase, model, parent)
    return {"rows": len(encoded), "skipped": len(examples) - len(encoded)}


def run_reasoner(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """(a): the reasoner by GRPO; it is paid for what makes the reference likely to the scorer in force."""
    config = config_of(context).reasoner
    assert phase.iteration is not None
    parent = reasoner_phase(context, phase.iteration - 1)
    prompts = grpo_scenarios(context, phase, config.steps * config.prompts)
    reward = ReasonerReward(context, phase, context.scorer(scorer_phase(context, phase.iteration - 1)), prompts)
    model = context.load(parent, trainable=True)
    rendered = [(x.sample_id, context.prompt("reasoner", x)) for x in prompts]
    learnt = train_grpo(
        context.job(phase, model, resume, reward.figures), rendered, reward, config, context.recipe.limits.reasoning
    )
    return save_learnt(context, phase, model, parent, learnt)


def run_scorer(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """(b), second half: the scorer by GRPO with the match reward, if the base can judge agreement at all."""
    config = config_of(context).scorer
    assert phase.iteration is not None
    parent = context.phase_name("tune-scorer", phase.iteration)
    drawn = grpo_scenarios(context, phase, config.steps * config.prompts)
    written = keep(context, reasoner(context, reasoner_phase(context, phase.iteration)), drawn)
    whole = [(x, r.text) for x, r in zip(drawn, written, strict=True) if r.status == "ok"]
    judge = context.scorer(None)
    told = judged_share(judge, whole[:JUDGED])
    facts = {"judgement": round(told, 6) if np.isfinite(told) else None, "whole_reasonings": len(whole)}
    model = context.load(parent, trainable=True)
    # NaN, for nothing to judge, is not at least anything
    if not told >= config.least_judgement:
        why_not = (
            f"the base tells a scenario's own reference from another's in {told:.2f} of {len(whole[:JUDGED])} cases (0.5 is "
            f"chance; corl.scorer.least_judgement={config.least_judgement}), so its statements are no reward and the scorer "
            "stays its parent. A larger base, or one taught to state agreement (pretrain.reasoning_shares), can tell."
        )
        return save_learnt(context, phase, model, parent, False, why_not) | facts
    # a scenario without a whole reasoning gives its place to the next one that has one
    filled = [whole[place % len(whole)] for place in range(len(drawn))]
    reasoned = [(replace(x, sample_id=f"{x.sample_id}#{place}"), text) for place, (x, text) in enumerate(filled)]
    reward = MatchReward(context, phase, judge, reasoned)
    rendered = [(x.sample_id, context.prompt("scorer", x, NOTHING, text)) for x, text in reasoned]
    learnt = train_grpo(
        context.job(phase, model, resume, reward.figures), rendered, reward, config, context.recipe.limits.response
    )
    return save_learnt(context, phase, model, parent, learnt) | facts


def judged_share(judge: Any, reasoned: Sequence[tuple[Scenario, str]]) -> float:
    """How often the base states more agreement of a scenario's own reference than of the next one's; see `judgement`."""

    def work(share: Sequence[tuple[str, str]]) -> list[float]:
        return agreement_nats(judge, [text for text, _ in share], [candidate for _, candidate in share])

    own = [(text, x.reference) for x, text in reasoned]
    others = [(text, reasoned[(place + 1) % len(reasoned)][0].reference) for place, (_, text) in enumerate(reasoned)]
    found = dist.share_out(work, [*own, *others])
    pairs = zip(own, others, found[: len(own)], found[len(own) :], strict=True)
    told = [(mine, other) for a, b, mine, other in pairs if a[1] != b[1]]
    return judgement([mine for mine, _ in told], [other for _, other in told])


def grpo_scenarios(context: Context, phase: PhasePlan, count: int) -> list[Scenario]:
    """Training scenarios in a seeded order, again and again as needed, each under a name of its own.

    Raises:
        DataError: a scenario is tested on, or none fits the token limits.
    """
    _, later = material_of(context, phase)
    fitting = [x for x in later if context.fits("reasoner", x) and context.fits("scorer", x)]
    if not fitting:
        raise DataError(
            f"phase {phase.name}: none of {len(later)} scenarios fits limits.prompt={context.recipe.limits.prompt} tokens; "
            "raise it."
        )
    chosen = _draw(fitting, count, seed_of(context.recipe.seed, phase.name, "scenarios"))
    return [replace(x, sample_id=f"{x.sample_id}#{place}") for place, x in enumerate(chosen)]


def _draw(scenarios: Sequence[Scenario], count: int, seed: int) -> list[Scenario]:
    """So many scenarios: whole passes, each in its own order, and a part of one."""
    rng = random.Random(seed)
    chosen: list[Scenario] = []
    while len(chosen) < count:
        chosen += rng.sample(scenarios, min(len(scenarios), count - len(chosen)))
    return chosen
