"""The game of an iteration (method section 5): simulator phase, harvest, RPM phase, acceptance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from coevo.errors import ScoreError
from coevo.lm import dist
from coevo.loop.context import Context, seed_of
from coevo.loop.estimator import estimator, prepare
from coevo.loop.folder import dump_row, write_atomic
from coevo.loop.phases import pool_rows, save_learnt
from coevo.loop.plan import PhasePlan
from coevo.loop.players import Judges, RPMReward, Sample, SimulatorReward, draw_frame, passes
from coevo.scoring.gates import thresholds
from coevo.scoring.reasoner import Estimator
from coevo.scoring.rewards import Fit, fits
from coevo.train.grpo import Completion, train_grpo
from coevo.types import Scenario, Turn

MORE_UNSCORED = 0.05
"""A new RPM may have so much larger a share of ID answers that cannot be scored, and no more."""
REAL_TURNS = 512
"""Real user turns that the gates' thresholds are read off."""


def scenario_row(x: Scenario) -> dict[str, Any]:
    """A scenario as plain data for a JSON line."""
    return asdict(x)


def scenario_of(row: dict[str, Any]) -> Scenario:
    """The scenario back from its row."""
    turns = tuple(Turn(turn["role"], turn["text"]) for turn in row["dialogue"])
    return Scenario(**{**row, "dialogue": turns})


def simulator_reward_for(context: Context, phase: PhasePlan, frames: Sequence[Scenario]) -> SimulatorReward:
    """The reward of one iteration's simulator phase, with everything in it frozen."""
    recipe = context.recipe
    assert phase.iteration is not None
    start = context.scorer(context.phase_name("sft-simulator"), role="simulator")
    if context.thresholds is None:
        # start simulator and real turns are the run's, so every phase has the same ones
        context.thresholds = thresholds(start, context.material.real_turns[:REAL_TURNS], recipe.loop.simulator)
    earlier = pool_rows(context, before=phase.iteration)
    judges = Judges(
        rpm=context.load(context.current_rpm(phase.iteration), trainable=False),
        scorer=estimator(context),
        start=start,
        limits=context.thresholds,
        pool=Counter(row["scenario"]["dialogue"][-1]["text"] for row in earlier),
    )
    if context.material.source.reference == "carry":
        asked = {frame.parent for frame in frames}
        prepare(context, judges.scorer, [x for x in context.material.id_train if x.sample_id in asked])
    return SimulatorReward(context, phase, judges, {frame.sample_id: frame for frame in frames})


def run_simulator(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Phase 1: the simulator learns to write turns of the shifts asked for that the frozen RPM answers badly."""
    recipe, config = context.recipe, context.recipe.loop.simulator
    assert phase.iteration is not None
    frames = draw_frames(context, phase, config.steps * config.prompts)
    reward = simulator_reward_for(context, phase, frames)
    parent = context.current_simulator(phase.iteration)
    model = context.load(parent, trainable=True)
    prompts = [(frame.sample_id, context.prompt("simulator", frame)) for frame in frames]
    job = context.job(phase, model, resume, reward.figures)
    learnt = train_grpo(job, prompts, reward, config, recipe.limits.turn)
    return save_learnt(context, phase, model, parent, learnt)


def draw_frames(context: Context, phase: PhasePlan, count: int) -> list[Scenario]:
    """Scenarios whose query is still to be written: random ID parents, the scheduled shifts in turn."""
    rng = random.Random(seed_of(context.recipe.seed, phase.name, "frames"))
    tags = context.recipe.loop.shifts
    frames: list[Scenario] = []
    attempts = 0
    while len(frames) < count:
        attempts += 1
        frame = draw_frame(context.material, tags[len(frames) % len(tags)], rng, f"{phase.name}/{len(frames):05d}")
        if context.fits("simulator", frame):
            frames.append(frame)
        elif attempts > 20 * count:
            raise ScoreError(
                f"phase {phase.name}: only {len(frames)} of {count} frames fit limits.prompt="
                f"{context.recipe.limits.prompt} tokens; raise it."
            )
    return frames


def run_harvest(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The trained simulator, and for a share past ones, write the turns that the RPM will meet; passes enter the pool."""
    recipe, config = context.recipe, context.recipe.loop
    assert phase.iteration is not None
    frames = draw_frames(context, phase, config.harvest)
    reward = simulator_reward_for(context, phase, frames)
    current = context.phase_name("simulator", phase.iteration)
    past = [context.phase_name("simulator", k) for k in range(1, phase.iteration)] or [context.phase_name("sft-simulator")]
    rng = random.Random(seed_of(recipe.seed, phase.name, "population"))
    origin = {f.sample_id: rng.choice(past) if rng.random() < config.past_share else current for f in frames}
    rows: list[dict[str, Any]] = []
    for name in sorted(set(origin.values())):
        mine = [frame for frame in frames if origin[frame.sample_id] == name]
        model = context.load(name, trainable=False)
        for start in range(0, len(mine), 128):
            rows += _harvest(context, phase, reward, model, name, mine[start : start + 128])
    kept = [row for row in rows if row.pop("passed")]
    path = context.folder.root / "pool" / f"iteration-{phase.iteration}.jsonl"
    if dist.is_main():
        write_atomic(path, "".join(dump_row(row) for row in kept))
    dist.barrier()
    if not kept:
        raise ScoreError(
            f"phase {phase.name}: none of {len(rows)} turns passed every gate, so the RPM has nothing to train on. "
            "Warm the simulator up longer (simulator_sft.epochs), or look at its turns in rollouts.jsonl."
        )
    by_tag = Counter(row["scenario"]["subset_tag"] for row in kept)
    facts = {"written": len(rows), "kept": len(kept), "by_tag": dict(sorted(by_tag.items()))}
    context.folder.finish(phase.name, facts, [path])
    return facts


def _harvest(
    context: Context, phase: PhasePlan, reward: SimulatorReward, model: Any, name: str, frames: Sequence[Scenario]
) -> list[dict[str, Any]]:
    """Writes and judges one batch of turns, shared out over the processes."""

    def work(share: Sequence[Scenario]) -> list[Completion]:
        seeds = [seed_of(context.recipe.seed, phase.name, frame.sample_id) for frame in share]
        written = context.write(model, "simulator", share, seeds, context.recipe.loop.simulator.temperature)
        return [Completion(f.sample_id, g.text.strip(), g.token_ids, g.status) for f, g in zip(share, written, strict=True)]

    samples: list[Sample] = dist.share_out(reward.judge, dist.share_out(work, frames))
    context.progress.advance(len(frames))
    reward.log(samples, step=0)
    rows = []
    for sample in samples:
        passed = sample.scenario is not None and passes(sample.reward.parts)
        rows.append(
            {
                "passed": passed and "regret" in sample.reward.parts,
                "scenario": scenario_row(sample.scenario) if sample.scenario else {},
                "regret": sample.reward.parts.get("regret"),
                "iteration": phase.iteration,
                "origin": name,
            }
        )
    return rows


def rpm_reward_for(context: Context, phase: PhasePlan, scenarios: Sequence[Scenario]) -> RPMReward:
    """The reward of one iteration's RPM phase, with everything in it frozen."""
    assert phase.iteration is not None
    scorer = estimator(context)
    prepare(context, scorer, scenarios)
    reward = RPMReward(context, phase, scorer, {x.sample_id: x for x in scenarios})
    reward.references = _references(scorer, scenarios, reasoned=context.recipe.loop.rpm.weights.agreement > 0)
    reward.baselines = _baselines(context, scorer, context.current_rpm(phase.iteration), scenarios)
    return reward


def run_rpm(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Phase 2: the RPM learns on ID, fresh and replayed scenarios, the simulator frozen."""
    recipe, config = context.recipe, context.recipe.loop.rpm
    assert phase.iteration is not None
    parent = context.current_rpm(phase.iteration)
    scenarios = diet(context, phase)
    reward = rpm_reward_for(context, phase, scenarios)
    model = context.load(parent, trainable=True)
    prompts = [(x.sample_id, context.prompt("rpm", x)) for x in scenarios]
    job = context.job(phase, model, resume, reward.figures)
    learnt = train_grpo(job, prompts, reward, config, recipe.limits.response)
    return save_learnt(context, phase, model, parent, learnt)


def diet(context: Context, phase: PhasePlan) -> list[Scenario]:
    """The RPM's prompts in their order: ID anchors, fresh turns of this iteration, replayed ones of earlier ones."""
    config = context.recipe.loop.rpm
    assert phase.iteration is not None
    rng = random.Random(seed_of(context.recipe.seed, phase.name, "diet"))
    entries = pool_rows(context, before=phase.iteration + 1)
    fresh = [row for row in entries if row["iteration"] == phase.iteration]
    older = [row for row in entries if row["iteration"] < phase.iteration]
    weights = replay_weights([row["regret"] for row in older], [phase.iteration - row["iteration"] for row in older])
    usable = [x for x in context.material.id_train if context.fits("rpm", x)]
    bags: dict[str, list[Scenario]] = {"id": [], "fresh": []}
    chosen: list[Scenario] = []
    for index in range(config.steps * config.prompts):
        draw = rng.random()
        if draw < config.id_share:
            bags["id"] = bags["id"] or rng.sample(usable, len(usable))
            x = bags["id"].pop()
        elif draw < config.id_share + config.replay_share and older:
            x = scenario_of(rng.choices(older, weights)[0]["scenario"])
        else:
            bags["fresh"] = bags["fresh"] or [scenario_of(row["scenario"]) for row in rng.sample(fresh, len(fresh))]
            x = bags["fresh"].pop()
        chosen.append(replace(x, sample_id=f"{x.sample_id}#{index}"))
    return chosen


def replay_weights(regrets: Sequence[float], ages: Sequence[int], staleness: float = 0.3) -> list[float]:
    """Prioritised level replay (Jiang et al. 2021): 1/rank of regret, mixed with staleness.

    Args:
        regrets: nats; the highest has rank 1.
        ages: iterations since the scenario entered the pool.
        staleness: share of the weight that goes by age.

    Returns:
        Weights that sum to 1; none for an empty pool.
    """
    if not regrets:
        return []
    ranks = np.empty(len(regrets))
    ranks[np.argsort(-np.asarray(regrets), kind="stable")] = np.arange(1, len(regrets) + 1)
    by_rank, by_age = 1 / ranks, np.asarray(ages, dtype=float)
    age_share = by_age / by_age.sum() if by_age.sum() else np.full(len(ages), 1 / len(ages))
    return list((1 - staleness) * by_rank / by_rank.sum() + staleness * age_share)


def _references(scorer: Estimator, scenarios: Sequence[Scenario], reasoned: bool = False) -> dict[str, Fit | str]:
    """Likelihoods of y*, on which every reward of the phase is relative; by sample id."""
    found = dist.share_out(lambda part: fits(scorer, part, [x.reference for x in part], reasoned), scenarios)
    return {x.sample_id: fit for x, fit in zip(scenarios, found, strict=True)}


def _baselines(context: Context, scorer: Estimator, rpm: str, scenarios: Sequence[Scenario]) -> dict[str, float]:
    """b(x) of R1: the ID parent's remi under the policy that begins the phase; by the parent's sample id."""
    wanted = {x.parent for x in scenarios if x.parent}
    parents = [x for x in context.material.id_train if x.sample_id in wanted and context.fits("rpm", x)]
    prepare(context, scorer, parents)
    answers = context.respond(context.load(rpm, trainable=False), rpm, parents, advance=False)
    own = dist.share_out(
        lambda part: fits(scorer, [x for x, _ in part], [t for _, t in part]),
        [(x, a.text if a.status == "ok" else "") for x, a in zip(parents, answers, strict=True)],
    )
    reference = _references(scorer, parents)
    values = {}
    for x, fit in zip(parents, own, strict=True):
        ideal = reference[x.sample_id]
        if isinstance(fit, Fit) and isinstance(ideal, Fit):
            values[x.sample_id] = fit.information - ideal.information
    return values


def run_accept(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The new RPM is kept only if R-EMI on held-out ID scenarios has not fallen by more than the tolerance."""
    assert phase.iteration is not None
    scorer = estimator(context)
    dev = [x for x in context.material.id_dev if context.fits("rpm", x)]
    prepare(context, scorer, dev)
    reference = _references(scorer, dev)
    found = {}
    for key, name in (("old", context.current_rpm(phase.iteration)), ("new", context.phase_name("rpm", phase.iteration))):
        answers = context.respond(context.load(name, trainable=False), name, dev)
        texts = [a.text if a.status == "ok" else "" for a in answers]
        fit = dist.share_out(
            lambda part: fits(scorer, [x for x, _ in part], [t for _, t in part]), list(zip(dev, texts, strict=True))
        )
        found[key] = {
            x.sample_id: f.information - r.information
            for x, f in zip(dev, fit, strict=True)
            if isinstance(f, Fit) and isinstance(r := reference[x.sample_id], Fit)
        }
    shared = sorted(found["old"].keys() & found["new"].keys())
    lost = (len(found["old"]) - len(found["new"])) / len(dev)
    change = float(np.mean([found["new"][i] - found["old"][i] for i in shared])) if shared else float("-inf")
    # an answer that cannot be scored is left out of the mean, so the share of those has a limit of its own
    kept = change >= -context.recipe.loop.tolerance_nats and lost <= MORE_UNSCORED
    facts = {
        "kept": kept,
        "id_remi_change_nats": round(change, 6) if np.isfinite(change) else None,
        "n": len(shared),
        "more_unscored": round(lost, 6),
    }
    row = {"phase": phase.name, "role": "rpm", "iteration": phase.iteration, "step": 0, "kept": float(kept)}
    context.folder.append("metrics.jsonl", [row | {k: v for k, v in facts.items() if k != "kept" and v is not None}])
    context.progress.say(
        f"{phase.name}: R-EMI on ID changed by {change:+.2f} nats; the new RPM is {'kept' if kept else 'refused'}"
    )
    context.folder.finish(phase.name, facts)
    return facts
