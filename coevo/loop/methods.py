"""What is done to the RPM after its SFT, the loop apart: on ID scenarios alone, without a simulator.

A method is a block in `coevo.config.methods`, and a row of `RUNNERS` for each sort of phase that is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from coevo import dist
from coevo.config import SFT
from coevo.config.methods import DPO, Online, RejectionSFT, Sampled, ThinkGRPO, ThinkSFT
from coevo.errors import DataError, ScoreError
from coevo.files import write_atomic
from coevo.lm.likelihood import encode_prompt, encode_response
from coevo.loop.augment import write_copies
from coevo.loop.coevolution import remid_reward, scenario_of, scenario_row
from coevo.loop.context import Context, room, seed_of
from coevo.loop.estimator import estimator, prepare
from coevo.loop.material import WorldTruth
from coevo.loop.phases import Row, SFTExample, encode, no_extra, save_learnt, sft_example
from coevo.loop.rewards import RPMReward, Sample
from coevo.loop.think import ThinkReward
from coevo.plan.plan import PhasePlan
from coevo.prompts import Role
from coevo.rewards.selection import Rated, best, pairs
from coevo.runs.folder import dump_row, read_rows
from coevo.scoring.thinking import think
from coevo.train.algorithms import TRAINERS
from coevo.train.dpo import PairRow, train_dpo
from coevo.train.grpo import Completion
from coevo.train.sft import train_sft
from coevo.types import Scenario

SAMPLED_AT_ONCE = 256
"""Answers written and scored between two reports of progress."""


# --- ID scenarios -----------------------------------------------------------------------------------------------------


def id_scenarios(context: Context, phase: PhasePlan, count: int | None) -> list[Scenario]:
    """ID training scenarios in a seeded order: so many, again and again if there are fewer; None takes each once.

    Each has a name of its own, `SAMPLE#PLACE`.

    Raises:
        DataError: none fits the token limits.
    """
    # a request to think has room of its own beyond the limit
    usable = [x for x in context.material.id_train if context.fits("rpm", x)]
    if not usable:
        raise DataError(
            f"phase {phase.name}: none of {len(context.material.id_train)} ID scenarios fits limits.prompt="
            f"{context.recipe.limits.prompt} tokens; raise it."
        )
    rng = Random(seed_of(context.recipe.seed, phase.name, "scenarios"))
    wanted = len(usable) if count is None else count
    chosen: list[Scenario] = []
    while len(chosen) < wanted:
        chosen += rng.sample(usable, min(len(usable), wanted - len(chosen)))
    return [replace(x, sample_id=f"{x.sample_id}#{place}") for place, x in enumerate(chosen)]


def id_reward(context: Context, phase: PhasePlan, scenarios: Sequence[Scenario]) -> RPMReward:
    """The RPM's reward (R2 + R4, and R3 where it is weighed) on ID scenarios, with everything in it frozen."""
    scorer = estimator(context)
    prepare(context, scorer, scenarios)
    kind = ThinkReward if phase.kind == "think_online" else RPMReward
    return kind(context, phase, remid_reward(context, scorer, scenarios))


# --- augmentation -----------------------------------------------------------------------------------------------------


def run_augment(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Copies of the samples that the SFT was made of, by the world's oracle or by the model that the recipe names."""
    samples = _sft_samples(context)
    copies, facts = write_copies(context, phase, samples)
    context.material.refuse_tests(copies, "augmented SFT")
    path = context.folder.root / "augmented.jsonl"
    if dist.is_main():
        write_atomic(path, "".join(dump_row(scenario_row(x)) for x in copies))
    dist.barrier()
    context.folder.finish(phase.name, facts, [path])
    return facts


def run_augmented_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """SFT from the base on the samples and their copies."""
    copies = [scenario_of(row) for row in read_rows(context.folder.root / "augmented.jsonl")]
    rows = [sft_example(context.prompts, "rpm", x) for x in [*_sft_samples(context), *copies]]
    config = context.recipe.rpm_sft
    assert config is not None, "refused by Recipe"
    return _tune(context, phase, resume, encode(context, phase, rows), config)


def _sft_samples(context: Context) -> list[Scenario]:
    """The samples of the run's own SFT, so that the two differ in the copies alone."""
    source, config = context.material.id_train, context.recipe.rpm_sft
    wanted = config.samples if config else None
    rng = Random(seed_of(context.recipe.seed, context.phase_name("sft-rpm")))
    return rng.sample(source, min(wanted or len(source), len(source)))


# --- rejection sampling and preferences -------------------------------------------------------------------------------


def run_sample(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The SFT model answers ID prompts several times each; every answer is kept with its reward.

    Raises:
        ScoreError: no answer could be scored.
    """
    config, recipe = context.recipe.method, context.recipe
    assert isinstance(config, Sampled)
    scenarios = id_scenarios(context, phase, None)[: phase.samples]
    reward = id_reward(context, phase, scenarios)
    model = context.load(context.phase_name("sft-rpm"), trainable=False)

    def write(share: Sequence[tuple[Scenario, int]]) -> list[Completion]:
        seeds = [seed_of(recipe.seed, phase.name, x.sample_id, k) for x, k in share]
        written = context.write(model, "rpm", [x for x, _ in share], seeds, config.temperature)
        return [Completion(x.sample_id, g.text, g.token_ids, g.status) for (x, _), g in zip(share, written, strict=True)]

    samples: list[Sample] = []
    at_once = max(1, SAMPLED_AT_ONCE // config.group)
    for start in range(0, len(scenarios), at_once):
        part = scenarios[start : start + at_once]
        answers = dist.share_out(write, [(x, k) for x in part for k in range(config.group)])
        samples += dist.share_out(reward.judge, answers)
        context.progress.advance(len(part))
    rated = [Rated(s.completion.key, s.completion.text, s.reward.total) for s in samples]
    path = context.folder.root / "samples.jsonl"
    if dist.is_main():
        write_atomic(path, "".join(dump_row(_sample_row(sample)) for sample in samples))
    dist.barrier()
    facts = what_was_sampled(rated, {x.sample_id: x for x in scenarios}, context.material.truth)
    if not facts["scored"]:
        raise ScoreError(
            f"phase {phase.name}: none of {len(samples)} answers could be scored, so there is nothing to learn from. "
            "See samples.jsonl for their status; in a new run, raise limits.response or tune the RPM for longer (rpm_sft)."
        )
    context.folder.append("metrics.jsonl", [{"phase": phase.name, "role": "rpm", "iteration": None, "step": 0} | facts])
    context.folder.finish(phase.name, facts, [path])
    return facts


def what_was_sampled(
    rated: Sequence[Rated], scenarios: dict[str, Scenario], truth: WorldTruth | None
) -> dict[str, float | int]:
    """How good the answers are: all, and the best of each prompt.

    Returns:
        `answers`, `scored` and `prompts`; the mean `reward` and `reward/best` in nats; in the world `share_right` and
        `share_right/best`.
    """
    top = best(rated)
    scored = [r.reward for r in rated if r.reward is not None]
    figures: dict[str, float] = {}
    if scored:
        figures = {"reward": float(np.mean(scored)), "reward/best": float(np.mean([r.reward for r in top]))}
    if truth is not None and top:
        for name, texts in (("share_right", rated), ("share_right/best", top)):
            figures[name] = float(np.mean([truth.share_right(scenarios[r.sample_id], r.text) for r in texts]))
    counts = {"answers": len(rated), "scored": len(scored), "prompts": len(scenarios)}
    return counts | {name: round(number, 6) for name, number in figures.items()}


def _sample_row(sample: Sample) -> dict[str, Any]:
    return {
        "sample_id": sample.completion.key,
        "completion": sample.completion.text,
        "reward": sample.reward.total,
        "parts": {name: round(number, 6) for name, number in sample.reward.parts.items()},
        "status": sample.reward.status,
    }


def sampled(context: Context) -> tuple[list[Rated], dict[str, Scenario]]:
    """What `run_sample` wrote, and the scenarios by the names that the answers have."""
    rows = list(read_rows(context.folder.root / "samples.jsonl"))
    known = {x.sample_id: x for x in context.material.id_train}
    names = {row["sample_id"]: known[row["sample_id"].rpartition("#")[0]] for row in rows}
    return [Rated(row["sample_id"], row["completion"], row["reward"]) for row in rows], names


def run_rejection_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """SFT, from the SFT model, on the best answer to each prompt."""
    config = context.recipe.method
    assert isinstance(config, RejectionSFT)
    rated, scenarios = sampled(context)
    rows = chosen(context, phase, best(rated), scenarios, config.tune)
    return _tune(context, phase, resume, rows, config.tune, context.phase_name("sft-rpm"))


def chosen(
    context: Context, phase: PhasePlan, answers: Sequence[Rated], scenarios: dict[str, Scenario], config: SFT
) -> Sequence[Row]:
    """Answers as rows for SFT, at most as many as the block takes; `scenarios` by the names that the answers have."""
    kept = _at_most(answers, config.samples, seed_of(context.recipe.seed, phase.name))
    rows = [
        SFTExample(r.sample_id, "rpm", sft_example(context.prompts, "rpm", scenarios[r.sample_id]).messages, r.text)
        for r in kept
    ]
    return encode(context, phase, rows)


def run_dpo(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """DPO, from the SFT model and against it, on the best and the worst answer to each prompt.

    Raises:
        ScoreError: the answers give fewer pairs than one update takes.
    """
    config = context.recipe.method
    assert isinstance(config, DPO)
    rated, scenarios = sampled(context)
    found = pairs(rated, config.margin_nats)
    if len(found) < config.tune.batch_size:
        raise ScoreError(
            f"phase {phase.name}: {len(rated)} answers to {len(scenarios)} prompts give {len(found)} pairs whose rewards "
            f"differ by at least method.margin_nats={config.margin_nats:g}, fewer than one update's batch of "
            f"{config.tune.batch_size}. In a new run, sample more or hotter (method.prompts, method.group, "
            "method.temperature), or lower method.margin_nats or method.tune.batch_size; samples.jsonl has every answer "
            "with its reward."
        )
    chosen = _at_most(found, config.tune.samples, seed_of(context.recipe.seed, phase.name))
    tokenizer = context.tokenizer
    rows = [
        PairRow(
            encode_prompt(tokenizer, context.prompt("rpm", scenarios[pair.sample_id])),
            encode_response(tokenizer, pair.chosen),
            encode_response(tokenizer, pair.rejected),
        )
        for pair in chosen
    ]
    parent = context.phase_name("sft-rpm")
    model = context.load(parent, trainable=True)
    train_dpo(context.job(phase, model, resume, no_extra), rows, config)
    context.save(phase, model, parent)
    return {"pairs": len(rows), "margin_nats": round(float(np.mean([pair.margin for pair in chosen])), 6)}


def _at_most(rows: Sequence[Any], most: int | None, seed: int) -> list[Any]:
    return list(rows) if most is None or len(rows) <= most else Random(seed).sample(rows, most)


# --- online and thinking ----------------------------------------------------------------------------------------------


def run_online(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The policy learns from its own answers to ID prompts: from the SFT model, or from the one that thinks first."""
    config = context.recipe.method
    assert isinstance(config, Online | ThinkGRPO)
    thinks = isinstance(config, ThinkGRPO)
    role: Role = "thinker" if thinks else "rpm"
    parent = context.phase_name("think-sft" if thinks else "sft-rpm")
    scenarios = id_scenarios(context, phase, config.steps * config.prompts)
    reward = id_reward(context, phase, scenarios)
    model = context.load(parent, trainable=True)
    prompts = [(x.sample_id, context.prompt(role, x)) for x in scenarios]
    job = context.job(phase, model, resume, reward.figures)
    learnt = TRAINERS[config.algorithm](job, prompts, reward, config, room(context.recipe.limits, role))
    return save_learnt(context, phase, model, parent, learnt)


def run_think_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """SFT, from the base, on reasonings followed by references."""
    config = context.recipe.method
    assert isinstance(config, ThinkSFT | ThinkGRPO)
    corpus = context.material.thoughts
    assert corpus is not None
    reasoned = _at_most(corpus.reasoned, config.tune.samples, seed_of(context.recipe.seed, phase.name))
    rows = [
        SFTExample(x.sample_id, "thinker", context.prompts.messages("thinker", x), think(text, x.reference, config.marks))
        for x, text in reasoned
    ]
    return _tune(context, phase, resume, encode(context, phase, rows), config.tune)


def _tune(
    context: Context, phase: PhasePlan, resume: bool, rows: Sequence[Row], config: SFT, parent: str | None = None
) -> dict[str, Any]:
    model = context.load(parent, trainable=True)
    train_sft(context.job(phase, model, resume, no_extra), rows, config)
    context.save(phase, model, parent)
    return {"rows": len(rows)}


RUNNERS: dict[str, Callable[[Context, PhasePlan, bool], dict[str, Any]]] = {
    "augment": run_augment,
    "augmented_sft": run_augmented_sft,
    "sample": run_sample,
    "rejection_sft": run_rejection_sft,
    "dpo": run_dpo,
    "online": run_online,
    "think_sft": run_think_sft,
    "think_online": run_online,
}
"""Kind of a planned phase of the role `rpm` -> what runs it: from context, phase and whether it is resumed, the facts."""
