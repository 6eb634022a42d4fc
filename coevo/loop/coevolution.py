"""The game of an iteration (method section 5): simulator phase, harvest, RPM phase, acceptance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from coevo import dist
from coevo.errors import ScoreError
from coevo.files import write_atomic
from coevo.loop.beside import beside
from coevo.loop.context import Context, seed_of
from coevo.loop.estimator import estimator, others, prepare
from coevo.loop.material import REAL_TURNS
from coevo.loop.phases import pool_rows, save_learnt
from coevo.loop.rewards import Judges, RPMReward, Sample, SimulatorReward, draw_frame, passes
from coevo.maths.stats import bootstrap_mean
from coevo.plan.plan import PhasePlan
from coevo.rewards.gates import thresholds
from coevo.rewards.parts import Fit, answered, remi_nats
from coevo.rewards.remid import REMIDReward, references
from coevo.runs.folder import dump_row
from coevo.scoring.reasoner import Estimator
from coevo.train.algorithms import TRAINERS
from coevo.train.grpo import Completion
from coevo.types import Scenario, Turn

MORE_UNSCORED = 0.05
"""A new RPM may have so much larger a share of ID answers that cannot be scored, and no more."""
MOST_REPEATS = 4
"""Times that the RPM may meet a turn of a harvest on average before the run says so."""
FRESH_POWER = 0.5
"""Fresh turns are drawn by rank of regret to this power: the half with most regret has 7 in 10 of the draws. What the RPM
answers as well as the reference has next to nothing to teach."""
LEARNT_RESAMPLES = 2000


def scenario_row(x: Scenario) -> dict[str, Any]:
    """A scenario as plain data for a JSON line."""
    return asdict(x)


def scenario_of(row: dict[str, Any]) -> Scenario:
    """The scenario back from its row."""
    turns = tuple(Turn(turn["role"], turn["text"]) for turn in row["dialogue"])
    return Scenario(**{**row, "dialogue": turns, "alternatives": tuple(row.get("alternatives", ()))})


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
        scorer=estimator(context, phase.iteration),
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
    learnt = TRAINERS[config.algorithm](job, prompts, reward, config, recipe.limits.turn)
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
    """The trained simulator, and for a share past ones, write the turns that the RPM will meet; passes enter the pool.

    Its parent writes every turn as well: the pairs say what the phase taught.
    """
    recipe, config = context.recipe, context.recipe.loop
    assert phase.iteration is not None
    frames = draw_frames(context, phase, config.harvest)
    reward = simulator_reward_for(context, phase, frames)
    current = context.current_simulator(phase.iteration + 1)
    past = [context.current_simulator(k) for k in range(2, phase.iteration + 1)] or [context.current_simulator(1)]
    rng = random.Random(seed_of(recipe.seed, phase.name, "population"))
    origin = {f.sample_id: rng.choice(past) if rng.random() < config.past_share else current for f in frames}
    parent = context.current_simulator(phase.iteration)
    written: dict[str, list[Sample]] = {}
    for name in sorted({*origin.values(), parent, current}):
        # parent and current both write every turn, so that what the phase taught is measured pair by pair
        mine = [f for f in frames if name in (parent, current, origin[f.sample_id])]
        model = context.load(name, trainable=False)
        written[name] = []
        for start in range(0, len(mine), 128):
            written[name] += _write_turns(context, phase, reward, model, mine[start : start + 128])
    chosen = [(name, s) for name, samples in written.items() for s in samples if origin[s.completion.key] == name]
    reward.log([sample for _, sample in chosen], step=0)
    passed = [(name, s) for name, s in chosen if passes(s.reward.parts) and "regret" in s.reward.parts]
    kept = [_pool_row(phase, name, s) | {"scorer": reward.version} for name, s in passed]
    path = context.folder.root / "pool" / f"iteration-{phase.iteration}.jsonl"
    if dist.is_main():
        write_atomic(path, "".join(dump_row(row) for row in kept))
    dist.barrier()
    if not kept:
        raise ScoreError(
            f"phase {phase.name}: none of {len(chosen)} turns passed every gate, so the RPM has nothing to train on. "
            "Warm the simulator up longer (simulator_sft.epochs), or look at its turns in rollouts.jsonl."
        )
    by_tag = Counter(row["scenario"]["subset_tag"] for row in kept)
    learnt = {}
    if parent != current:
        learnt = what_was_learnt(written[parent], written[current], seed_of(recipe.seed, phase.name, "intervals"))
    row = {"phase": phase.name, "role": "simulator", "iteration": phase.iteration, "step": 0, "n": len(frames)}
    context.folder.append("metrics.jsonl", [row | learnt])
    facts = {"written": len(chosen), "kept": len(kept), "by_tag": dict(sorted(by_tag.items())), "learnt": learnt}
    context.folder.finish(phase.name, facts, [path])
    share = 1 - config.rpm.id_share - (config.rpm.replay_share if pool_rows(context, before=phase.iteration) else 0)
    if notice := few_turns(share * config.rpm.steps * config.rpm.prompts, len(kept), len(chosen)):
        context.progress.say(f"{phase.name}: {notice}")
    return facts


def few_turns(fresh: float, kept: int, written: int) -> str:
    """What to say if the RPM will meet the same few turns over and over; nothing if it will not.

    Args:
        fresh: prompts of the RPM's phase that are turns of this harvest.
        kept: turns that passed every gate, at least one.
        written: turns in all.
    """
    if fresh <= MOST_REPEATS * kept:
        return ""
    return (
        f"only {kept} of {written} turns passed every gate, and {fresh:.0f} of the RPM's prompts are these, each about "
        f"{fresh / kept:.0f} times: it may learn them by heart. Raise loop.harvest, or the share that passes "
        "(simulator_sft.samples and epochs; rollouts.jsonl names the gates that shut)."
    )


def _write_turns(
    context: Context, phase: PhasePlan, reward: SimulatorReward, model: Any, frames: Sequence[Scenario]
) -> list[Sample]:
    """Writes and judges one batch of turns, shared out over the processes; one seed a frame, whoever writes."""

    def work(share: Sequence[Scenario]) -> list[Completion]:
        seeds = [seed_of(context.recipe.seed, phase.name, frame.sample_id) for frame in share]
        written = context.write(model, "simulator", share, seeds, context.recipe.loop.simulator.temperature)
        return [Completion(f.sample_id, g.text, g.token_ids, g.status) for f, g in zip(share, written, strict=True)]

    samples: list[Sample] = dist.share_out(reward.judge, dist.share_out(work, frames))
    context.progress.advance(len(frames))
    return samples


def _pool_row(phase: PhasePlan, origin: str, sample: Sample) -> dict[str, Any]:
    assert sample.scenario is not None
    return {
        "scenario": scenario_row(sample.scenario),
        "regret": sample.reward.parts["regret"],
        "iteration": phase.iteration,
        "origin": origin,
    }


def what_was_learnt(before: Sequence[Sample], after: Sequence[Sample], seed: int) -> dict[str, float]:
    """What a simulator's phase changed, on frames that it was not trained on.

    Args:
        before: turns of the simulator that began the phase.
        after: turns of the one that came out of it, on the same frames.
        seed: of the bootstrap.

    Returns:
        For `reward` (S1 x S2, nats; 0 for a turn that a gate shuts), `pass_rate` and `regret` (S1 of pairs in which both
        could be scored): `X_parent`, `X_trained`, and the paired `X_change` with its 95 % interval `X_low`, `X_high`.
    """
    old = {s.completion.key: s.reward for s in before}
    pairs = [(old[s.completion.key], s.reward) for s in after]
    measures: dict[str, list[tuple[float | None, float | None]]] = {
        "reward": [(a.total, b.total) for a, b in pairs],
        "pass_rate": [(float(passes(a.parts)), float(passes(b.parts))) for a, b in pairs],
        "regret": [(a.parts.get("regret"), b.parts.get("regret")) for a, b in pairs],
    }
    found: dict[str, float] = {}
    for name, values in measures.items():
        both = np.array([(a, b) for a, b in values if a is not None and b is not None], dtype=np.float64)
        if len(both):
            change = bootstrap_mean(both[:, 1] - both[:, 0], LEARNT_RESAMPLES, seed)
            means = {"parent": both[:, 0].mean(), "trained": both[:, 1].mean()}
            means |= {"change": change.value, "low": change.low, "high": change.high}
            found |= {f"{name}_{key}": round(float(number), 6) for key, number in means.items()}
    return found


def rpm_reward_for(context: Context, phase: PhasePlan, scenarios: Sequence[Scenario]) -> RPMReward:
    """The reward of one iteration's RPM phase, with everything in it frozen."""
    assert phase.iteration is not None
    scorer = estimator(context, phase.iteration)
    prepare(context, scorer, scenarios)
    reward = remid_reward(context, scorer, scenarios)
    wanted = {x.parent for x in scenarios if x.parent}
    parents = [x for x in context.material.id_train if x.sample_id in wanted and context.fits("rpm", x)]
    prepare(context, scorer, parents)
    rpm = context.current_rpm(phase.iteration)
    answers = context.respond(context.load(rpm, trainable=False), rpm, parents, advance=False)
    reward.take_baselines(parents, [(a.text, a.status) for a in answers])
    return RPMReward(context, phase, reward)


def remid_reward(context: Context, scorer: Estimator, scenarios: Sequence[Scenario]) -> REMIDReward:
    """The run's reward on these scenarios, their references scored; all processes call it."""
    foreign, parts = others(context, scorer), beside(context)
    reward = REMIDReward(scorer, scenarios, context.recipe.weights, others=foreign, beside=parts)
    reward.take_references()
    return reward


def run_rpm(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Phase 2: the RPM learns on ID, fresh and replayed scenarios, the simulator frozen."""
    recipe, config = context.recipe, context.recipe.loop.rpm
    assert phase.iteration is not None
    parent = context.current_rpm(phase.iteration)
    scenarios = prompt_mix(context, phase)
    reward = rpm_reward_for(context, phase, scenarios)
    model = context.load(parent, trainable=True)
    prompts = [(x.sample_id, context.prompt("rpm", x)) for x in scenarios]
    job = context.job(phase, model, resume, reward.figures)
    learnt = TRAINERS[config.algorithm](job, prompts, reward, config, recipe.limits.response)
    return save_learnt(context, phase, model, parent, learnt)


def prompt_mix(context: Context, phase: PhasePlan) -> list[Scenario]:
    """The RPM's prompts in their order: ID anchors, fresh turns of this iteration, replayed ones of earlier ones."""
    config = context.recipe.loop.rpm
    assert phase.iteration is not None
    rng = random.Random(seed_of(context.recipe.seed, phase.name, "diet"))
    entries = pool_rows(context, before=phase.iteration + 1)
    fresh = [row for row in entries if row["iteration"] == phase.iteration]
    older = [row for row in entries if row["iteration"] < phase.iteration]
    adversarial = context.recipe.loop.simulator.regret > 0
    ages = [phase.iteration - row["iteration"] for row in older]
    weights = replay_weights([row["regret"] for row in older], ages, power=1.0 if adversarial else 0.0)
    fresh_weights = rank_weights([row["regret"] for row in fresh], FRESH_POWER if adversarial else 0.0)
    usable = [x for x in context.material.id_train if context.fits("rpm", x)]
    anchors: list[Scenario] = []
    chosen: list[Scenario] = []
    for index in range(config.steps * config.prompts):
        draw = rng.random()
        if draw < config.id_share:
            anchors = anchors or rng.sample(usable, len(usable))
            x = anchors.pop()
        elif draw < config.id_share + config.replay_share and older:
            x = scenario_of(rng.choices(older, weights)[0]["scenario"])
        else:
            x = scenario_of(rng.choices(fresh, fresh_weights)[0]["scenario"])
        chosen.append(replace(x, sample_id=f"{x.sample_id}#{index}"))
    return chosen


def replay_weights(regrets: Sequence[float], ages: Sequence[int], staleness: float = 0.3, power: float = 1.0) -> list[float]:
    """Prioritised level replay (Jiang et al. 2021): 1/rank of regret, mixed with staleness.

    Args:
        regrets: nats; the highest has rank 1.
        ages: iterations since the scenario entered the pool.
        staleness: share of the weight that goes by age.
        power: of the rank; 0 leaves regret out of it.

    Returns:
        Weights that sum to 1; none for an empty pool.
    """
    if not regrets:
        return []
    by_age = np.asarray(ages, dtype=float)
    age_share = by_age / by_age.sum() if by_age.sum() else np.full(len(ages), 1 / len(ages))
    return list((1 - staleness) * np.asarray(rank_weights(regrets, power)) + staleness * age_share)


def rank_weights(regrets: Sequence[float], power: float) -> list[float]:
    """rank^-power of each regret, the highest of rank 1; the weights sum to 1."""
    ranks = np.empty(len(regrets))
    ranks[np.argsort(-np.asarray(regrets), kind="stable")] = np.arange(1, len(regrets) + 1)
    weights = ranks**-power
    return list(weights / weights.sum())


def run_accept(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The new RPM is kept only if R-EMI, or R6, on held-out ID scenarios has not fallen by more than the tolerance."""
    assert phase.iteration is not None
    scorer, weights = estimator(context, phase.iteration), context.recipe.weights
    foreign = others(context, scorer)
    dev = [x for x in context.material.id_dev if context.fits("rpm", x)]
    prepare(context, scorer, dev)
    reference = references(scorer, dev, foreign=foreign)
    found = {}
    for key, name in (("old", context.current_rpm(phase.iteration)), ("new", context.phase_name("rpm", phase.iteration))):
        answers = context.respond(context.load(name, trainable=False), name, dev)
        fit = dist.share_out(
            lambda part: answered(scorer, [x for x, _ in part], [said for _, said in part], others=foreign),
            [(x, (a.text, a.status)) for x, a in zip(dev, answers, strict=True)],
        )
        found[key] = {
            x.sample_id: remi_nats(f, r, weights)
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
        f"id_{'r6' if foreign else 'remi'}_change_nats": round(change, 6) if np.isfinite(change) else None,
        "n": len(shared),
        "more_unscored": round(lost, 6),
    }
    row = {"phase": phase.name, "role": "rpm", "iteration": phase.iteration, "step": 0, "kept": float(kept)}
    context.folder.append("metrics.jsonl", [row | {k: v for k, v in facts.items() if k != "kept" and v is not None}])
    measure, verdict = "R6" if foreign else "R-EMI", "kept" if kept else "refused"
    context.progress.say(f"{phase.name}: {measure} on ID changed by {change:+.2f} nats; the new RPM is {verdict}")
    context.folder.finish(phase.name, facts)
    return facts
