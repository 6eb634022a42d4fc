"""The two players' rewards as GRPO sees them: frozen models around pure functions, with every part logged."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coevo import dist
from coevo.data.shifts import Unreadable
from coevo.loop.context import Context, seed_of
from coevo.loop.estimator import others
from coevo.loop.material import Material
from coevo.plan.plan import PhasePlan
from coevo.prompts import character_text
from coevo.rewards import gates as gate
from coevo.rewards.parts import Fit, answered, regret, repetition, simulator_reward
from coevo.rewards.remid import REMIDReward
from coevo.scoring.guards import fault
from coevo.scoring.reasoner import Estimator
from coevo.scoring.scorer import Ask, Scorer
from coevo.train.grpo import Completion
from coevo.types import Reward, Scenario, Turn

HARD_GATES = ("shift", "whole", "fluency", "persona", "carry")
"""Gates that are 0 or 1; a turn passes when all that it has are 1 (`carry` is for carried references). Novelty is a factor
between."""
CARRY_TOLERANCE = 0.1
"""A carried reference may lose so many nats per token under the written query; more, and the meaning was not kept."""
REPETITIVE = 0.6
"""Share of repeated tokens from which a response counts as a loop, in the log."""


@dataclass(frozen=True)
class Sample:
    """One completion with its reward; what rollouts.jsonl holds."""

    completion: Completion
    reward: Reward
    scenario: Scenario | None = None
    """The scenario that a simulator's turn made, where it made one."""
    answer: str = ""
    """How an RPM answered the turn."""
    reason: str = ""
    """Why a turn made no scenario."""
    thought: str = ""
    """What an RPM that thinks first wrote in all; its completion is then the response alone."""


def draw_frame(material: Material, tag: str, rng: random.Random, sample_id: str) -> Scenario:
    """A scenario of the shift asked for whose query is blank, on a random ID parent."""
    parent = rng.choice(material.id_train)
    return replace(material.source.frame(parent, tag, rng), sample_id=sample_id)


def mean_parts(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean of every part over the samples that have it."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, number in sample.reward.parts.items():
            values.setdefault(name, []).append(number)
    return {name: float(np.mean(numbers)) for name, numbers in sorted(values.items())}


class Logged:
    """A reward as GRPO calls it: judges this process's completions, and logs everyone's."""

    def __init__(self, context: Context, phase: PhasePlan, version: str, scenarios: Mapping[str, Scenario]) -> None:
        self._context = context
        self._phase = phase
        self.version = version
        self._scenarios = scenarios
        """By the keys of the completions."""
        self._figures: dict[str, float] = {}

    def __call__(self, completions: Sequence[Completion], step: int) -> list[float | None]:
        """GRPO's reward of this process's completions."""
        samples = self.judge(completions)
        self.log(dist.gather(samples), step)
        return [sample.reward.total for sample in samples]

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """This process's completions with their rewards; all processes call it together."""
        raise NotImplementedError

    def log(self, samples: Sequence[Sample], step: int) -> None:
        """Figures and rollouts of all processes' samples."""
        self._figures = self._measured(samples)
        self._record(samples, step)

    def figures(self) -> dict[str, float]:
        """What the last step's rewards measured, over all processes."""
        return self._figures

    def _measured(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The step's figures: mean parts, and the share that could not be scored."""
        figures = {f"part/{name}": number for name, number in mean_parts(samples).items()}
        return figures | {"unscored": float(np.mean([s.reward.total is None for s in samples]))}

    def _record(self, samples: Sequence[Sample], step: int) -> None:
        if not dist.is_main():
            return
        role = self._phase.role
        rows = []
        rendered: dict[str, str] = {}
        for sample in samples:
            x = self._scenarios[sample.completion.key]
            if x.sample_id not in rendered:
                rendered[x.sample_id] = self._prompt(x)
            row: dict[str, Any] = {
                "phase": self._phase.name,
                "step": step,
                "role": role,
                "sample_id": x.sample_id,
                "subset_tag": x.subset_tag,
                "prompt": rendered[x.sample_id],
                "completion": sample.completion.text,
                "reward": sample.reward.total,
                "parts": {name: round(number, 6) for name, number in sample.reward.parts.items()},
                "status": sample.reward.status,
                "scorer": self.version,
            }
            if role == "simulator":
                row |= {"answer": sample.answer, "reason": sample.reason, "persona": x.persona}
            if sample.thought:
                row["thought"] = sample.thought
            rows.append(row)
        self._context.folder.append("rollouts.jsonl", rows)

    def _prompt(self, scenario: Scenario) -> str:
        return self._context.prompt("simulator" if self._phase.role == "simulator" else "rpm", scenario)


@dataclass(frozen=True)
class Judges:
    """The frozen models and marks that a simulator's turn is judged by."""

    rpm: Any
    """The role-playing model in force, which answers the turn."""
    scorer: Estimator
    start: Scorer
    """The simulator after its warm start: what reads as fluent and in persona."""
    limits: gate.Thresholds
    pool: Mapping[str, int]
    """How often each turn stands in the pool of earlier iterations."""


class SimulatorReward(Logged):
    """S1 × S2: judges turns by what the frozen RPM answers to them."""

    def __init__(self, context: Context, phase: PhasePlan, judges: Judges, frames: Mapping[str, Scenario]) -> None:
        super().__init__(context, phase, judges.scorer.version, frames)
        self._judges = judges
        self._others = others(context, judges.scorer)
        self._carrying = context.material.source.reference == "carry"
        self._parents = {x.sample_id: x for x in context.material.id_train} if self._carrying else {}

    def _measured(self, samples: Sequence[Sample]) -> dict[str, float]:
        return mean_parts(samples) | {
            "pass_rate": float(np.mean([passes(s.reward.parts) for s in samples])),
            "distinct_turns": len({s.completion.text for s in samples}) / len(samples),
            "unscored": float(np.mean([s.reward.total is None for s in samples])),
        }

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """Gates and regret of this process's turns; all processes call it together."""
        config = self._context.recipe.loop.simulator
        made = [self._scenario(c) for c in completions]
        good = [i for i, x in enumerate(made) if isinstance(x, Scenario)]
        readable = [x for x in made if isinstance(x, Scenario)]
        regrets, answers = self._regrets(readable)
        written = [self._as_written(x, completions[i].text) for i, x in zip(good, readable, strict=True)]
        read = dict(zip(good, gate.naturalness(self._judges.start, written), strict=True))
        kept = dict(zip(good, self._carries(readable), strict=True)) if self._carrying else None
        turns = [c.text for c in completions]
        novel = gate.novelty(turns, dist.gather(turns), self._judges.pool)
        samples = []
        for i, completion in enumerate(completions):
            x, frame = made[i], self._scenarios[completion.key]
            natural = gate.natural_gates(read[i], self._judges.limits) if i in read else {"fluency": 0.0, "persona": 0.0}
            hidden = [frame.persona, character_text(frame.character), *(t.text for t in frame.dialogue if t.role == "agent")]
            hidden += [x.reference] if isinstance(x, Scenario) else []
            opened = {
                "shift": float(isinstance(x, Scenario)),
                "whole": gate.whole(completion.text, completion.status, hidden) * self._says_something(completion, x),
                **natural,
                **({"carry": kept[i]} if kept is not None and i in kept else {}),
                "novelty": novel[i],
            }
            place = good.index(i) if i in read else None
            found = regrets[place] if place is not None else None
            counted = {name: gate for name, gate in opened.items() if name == "shift" or name in config.gates}
            reward = simulator_reward(found, counted, config.pass_nats, config.regret)
            samples.append(
                Sample(
                    completion,
                    reward,
                    x if isinstance(x, Scenario) else None,
                    answers[place] if place is not None else "",
                    x.reason if isinstance(x, Unreadable) else "",
                )
            )
        return samples

    def _carries(self, scenarios: Sequence[Scenario]) -> list[float]:
        """For carried references: 1 where y* is about as likely after the written query as after its parent's own.

        Both are read under the same shift: that another user asks, or that the words are recomposed, is no loss of meaning.
        """
        parents = [self._asked_by_parent(x) for x in scenarios]
        texts = [x.reference for x in scenarios]
        found = self._judges.scorer.score(
            [
                *(Ask(x, y) for x, y in zip(scenarios, texts, strict=True)),
                *(Ask(x, y) for x, y in zip(parents, texts, strict=True)),
            ]
        )
        halves = zip(found[: len(scenarios)], found[len(scenarios) :], strict=True)
        # NaN, for what cannot be scored, is not at least anything: the gate is shut
        return [
            float((new.logprob_nats - old.logprob_nats) / max(new.n_tokens, 1) >= -CARRY_TOLERANCE) for new, old in halves
        ]

    def _says_something(self, completion: Completion, x: Scenario | Unreadable) -> float:
        """0 for a file's turn that repeats itself or copies the dialogue, which likelihoods take for fluent; else 1."""
        if not self._carrying or not isinstance(x, Scenario):
            return 1.0
        seen = [x.persona, character_text(x.character), *(turn.text for turn in x.dialogue[:-1])]
        return float(fault(completion.text, self._parents[x.parent or ""].query, seen) == "ok")

    def _asked_by_parent(self, x: Scenario) -> Scenario:
        made = self._finish(x, self._parents[x.parent or ""].query)
        assert isinstance(made, Scenario), "no query of a file is blank"
        return made

    def _as_written(self, x: Scenario, turn: str) -> Scenario:
        """With the turn as the simulator wrote it, whose fluency counts: a file's shift may have recomposed its words."""
        return replace(x, dialogue=(*x.dialogue[:-1], Turn("user", turn))) if self._carrying else x

    def _scenario(self, completion: Completion) -> Scenario | Unreadable:
        if completion.status != "ok":
            return Unreadable("empty" if completion.status == "empty" else "unfinished", completion.status)
        return self._finish(self._scenarios[completion.key], completion.text)

    def _finish(self, frame: Scenario, query: str) -> Scenario | Unreadable:
        rng = random.Random(seed_of(self._context.recipe.seed, frame.sample_id, query))
        return self._context.material.source.finish(frame, query, rng)

    def _regrets(self, scenarios: Sequence[Scenario]) -> tuple[list[float | None], list[str]]:
        """S1 of each scenario, None where nothing can be scored, and one of the RPM's answers."""
        config = self._context.recipe.loop
        m = config.simulator.rpm_samples
        room = [x for x in scenarios if self._context.fits("rpm", x)]
        repeated = [x for x in room for _ in range(m)]
        seeds = [seed_of(self._context.recipe.seed, x.sample_id, x.query, k) for x in room for k in range(m)]
        answers = self._context.write(self._judges.rpm, "rpm", repeated, seeds, config.simulator.rpm_temperature)
        said = [*((x.reference, "ok") for x in room), *((a.text, a.status) for a in answers)]
        found = answered(self._judges.scorer, [*room, *repeated], said, others=self._others)
        result: dict[str, tuple[float | None, str]] = {}
        for n, x in enumerate(room):
            reference = found[n]
            mine = [f for f in found[len(room) + n * m : len(room) + (n + 1) * m] if isinstance(f, Fit)]
            known = isinstance(reference, Fit) and mine
            number = regret(reference, mine, config.rpm.weights) if known and isinstance(reference, Fit) else None
            result[_identity(x)] = (number, answers[n * m].text)
        missing = (None, "")
        both = [result.get(_identity(x), missing) for x in scenarios]
        return [number for number, _ in both], [text for _, text in both]


def _identity(x: Scenario) -> str:
    return f"{x.sample_id}\x1f{x.query}"


def passes(parts: Mapping[str, float]) -> bool:
    """Whether every hard gate is open."""
    return all(parts.get(f"gate/{name}", 1.0) > 0 for name in HARD_GATES)


class RPMReward(Logged):
    """R1, R2, R4 and, where asked for, R3 of the role-playing model's answers; or R6."""

    def __init__(self, context: Context, phase: PhasePlan, reward: REMIDReward) -> None:
        super().__init__(context, phase, reward.version, reward.scenarios)
        self._reward = reward

    def judge(self, completions: Sequence[Completion]) -> list[Sample]:
        """Rewards of this process's answers; all processes call it together."""
        asked = [c.key for c in completions], [c.text for c in completions], [c.status for c in completions]
        return [Sample(c, reward) for c, reward in zip(completions, self._reward.rate(*asked), strict=True)]

    def _measured(self, samples: Sequence[Sample]) -> dict[str, float]:
        loops = [repetition(s.completion.tokens) for s in samples]
        repeated = {"repetition": float(np.mean(loops)), "loops": float(np.mean([r >= REPETITIVE for r in loops]))}
        return super()._measured(samples) | repeated | self._truth(samples)

    def _truth(self, samples: Sequence[Sample]) -> dict[str, float]:
        """In the world, the share of right slots beside the reward: it is logged, never rewarded."""
        truth = self._context.material.truth
        if truth is None:
            return {}
        shares: dict[str, list[float]] = {"id": [], "shifted": []}
        for s in samples:
            x = self._scenarios[s.completion.key]
            shares["id" if x.shift == "id" else "shifted"].append(truth.share_right(x, s.completion.text))
        every = [*shares["id"], *shares["shifted"]]
        known = {f"share_right/{name}": float(np.mean(numbers)) for name, numbers in shares.items() if numbers}
        return {"share_right": float(np.mean(every)), **known}
