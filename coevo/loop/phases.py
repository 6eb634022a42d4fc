"""Phases that need no adversary: pretraining, supervised fine-tuning, evaluation. Each runs on a freshly loaded base."""

from __future__ import annotations

import json
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from coevo import dist
from coevo.config import (
    REASONING_FRAME,
    REQUEST_TO_THINK,
    SFT,
    FileData,
    Pretrain,
    Recipe,
    RewardWeights,
    ScorerSFT,
    SimulatorSFT,
    SmallBase,
)
from coevo.data import BATTERIES
from coevo.errors import ConfigError, DataError
from coevo.files import write_atomic
from coevo.lm.likelihood import encode_pair, loses_text, render
from coevo.lm.lineage import atomic_directory
from coevo.lm.small import build_base, train_tokenizer
from coevo.loop.beside import beside, shared
from coevo.loop.context import Context, room, seed_of
from coevo.loop.estimator import estimator, others, prepare
from coevo.plan.plan import PhasePlan
from coevo.prompts import (
    AGREED,
    ALL,
    NO_PERSONA,
    NOT_AGREED,
    NOTHING,
    Part,
    Prompts,
    Role,
)
from coevo.rewards.audit import audit
from coevo.rewards.verdict import conclusion, table
from coevo.runs.folder import dump_row, read_rows
from coevo.scoring.evaluate import Measurement, measure
from coevo.scoring.scorer import Ask, Scores
from coevo.train.sft import train_sft
from coevo.types import Scenario, Score

Row = tuple[list[int], list[int]]
DROPS: tuple[frozenset[Part], ...] = (NO_PERSONA, frozenset(("c",)), frozenset(("d",)), ALL)


@dataclass(frozen=True, slots=True)
class SFTExample:
    """One text that a role is taught, after a prompt."""

    sample_id: str
    role: Role | Literal["judge"]
    messages: list[dict[str, str]]
    target: str
    reasoning: str = ""
    """What of the prompt is a reasoning, which has a limit of its own."""


def sft_example(
    prompts: Prompts, role: Role, x: Scenario, drop: frozenset[Part] = NOTHING, reasoning: str = ""
) -> SFTExample:
    """What a role is taught of a scenario: its response, the user's query, or the reasoning.

    Args:
        prompts: of the run.
        role: rpm, scorer, simulator or reasoner.
        x: the scenario.
        drop: components that it does not see.
        reasoning: what the reasoner is to write, or what the scorer is shown.
    """
    target = {"simulator": x.query, "reasoner": reasoning}.get(role, x.reference)
    shown = reasoning if role == "scorer" and not drop else ""
    return SFTExample(x.sample_id, role, prompts.messages(role, x, drop, shown), target, shown)


LOOKED_AT = 128
"""Texts of a phase that are read back from their tokens, to see whether the tokenizer loses any of them."""
TOKENIZER_SCENARIOS = 6000
"""A tokenizer's merges are settled by so many scenarios; more cost time and change little."""


def no_extra() -> dict[str, float]:
    """A phase whose trainer measures everything itself."""
    return {}


def run_pretrain(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Trains tokenizer and small base on noisy answers, so that it knows every language and is sure of none."""
    recipe, config = context.recipe, context.recipe.pretrain
    assert isinstance(config, Pretrain) and isinstance(recipe.base, SmallBase)
    scenarios = context.material.pretrain(config, seed_of(recipe.seed, "pretrain"))
    tokenizer_dir = context.folder.phase(phase.name) / "tokenizer"
    if dist.is_main() and not tokenizer_dir.exists():
        with atomic_directory(tokenizer_dir) as work:
            texts = _texts(context, scenarios[:TOKENIZER_SCENARIOS], reasoned=any(config.reasoning_shares))
            train_tokenizer(texts, recipe.base.vocab).save_pretrained(work)
    dist.barrier()
    context.use_tokenizer(tokenizer_dir)
    encoded = encode(context, phase, pretraining_examples(context, config, scenarios))
    if context.material.truth is None:
        # a file is all the text there is: a model that learnt from its replies alone would hardly learn to write
        encoded = [(prompt[:1], prompt[1:] + response) for prompt, response in encoded]
    model = build_base(context.tokenizer, recipe.base, seed=seed_of(recipe.seed, "base"))
    train_sft(context.job(phase, model, resume, no_extra), encoded, config)
    context.save_base(phase, model)
    return {"rows": len(encoded)}


def pretraining_examples(context: Context, config: Pretrain, scenarios: Sequence[Scenario]) -> list[SFTExample]:
    """What a small base is taught of each scenario, by the recipe's shares."""
    material, prompts = context.material, context.prompts
    rng = random.Random(seed_of(context.recipe.seed, "pretrain-roles"))
    kinds = ("rpm", "simulator", "reasoner", "scorer", "judge")
    bounds = list(accumulate((*config.role_shares, *config.reasoning_shares)))
    examples = []
    for x in scenarios:
        kind = kinds[bisect_right(bounds, rng.random() * bounds[-1])]
        drop = rng.choice(DROPS) if rng.random() < 0.1 else NOTHING
        if rng.random() < config.short_history:
            x = replace(x, dialogue=x.dialogue[-1:])
        if kind == "judge":
            sound = material.sound_reference(x, rng)
            candidate = rng.choice((sound, sound, x.reference, rng.choice(scenarios).reference))
            asked = prompts.agreement_messages(material.reasoning(x), candidate)
            statement = AGREED if material.agrees(x, candidate) else NOT_AGREED
            examples.append(SFTExample(x.sample_id, "judge", asked, statement))
        elif kind in ("rpm", "simulator"):
            examples.append(sft_example(prompts, kind, material.example(kind, x), drop))  # type: ignore[arg-type]
        else:
            examples.append(sft_example(prompts, kind, x, reasoning=material.reasoning(x)))  # type: ignore[arg-type]
    return examples


def _texts(context: Context, scenarios: Sequence[Scenario], reasoned: bool) -> Iterator[str]:
    """What a tokenizer of this run will have to read and write."""
    for x in scenarios:
        yield from (message["content"] for role in ("rpm", "simulator") for message in context.prompts.messages(role, x))
        yield from (x.reference, x.query)
        if reasoned:
            asked = context.prompts.agreement_messages(context.material.reasoning(x), x.reference)
            yield from (*(message["content"] for message in asked), AGREED, NOT_AGREED)


def run_sft(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Tunes one role: the RPM on clean ID samples, a scorer with context dropout, the simulator on user turns.

    The second scorer, which rewards nothing, shares no sample with the first, and begins from another seed.
    """
    recipe, material = context.recipe, context.material
    rng = random.Random(seed_of(recipe.seed, phase.name))
    configs: dict[str, SFT | None] = {
        "rpm": recipe.rpm_sft,
        "scorer": recipe.scorer_sft,
        "second": recipe.scorer_sft,
        "simulator": recipe.simulator_sft,
    }
    assert phase.role is not None
    config, source = configs[phase.role], material.taught(phase.role)
    assert config is not None, "planned as run_as_given"
    role: Any = "scorer" if phase.role == "second" else phase.role
    chosen = rng.sample(source, min(config.samples or len(source), len(source)))
    rows: list[SFTExample] = []
    for x in chosen:
        drop: frozenset[Part] = NOTHING
        if isinstance(config, ScorerSFT) and rng.random() < config.context_dropout:
            drop = rng.choice(DROPS)
        if isinstance(config, SimulatorSFT) and rng.random() < config.context_dropout:
            drop = NO_PERSONA
        rows.append(sft_example(context.prompts, role, material.example(role, x), drop))
    encoded = encode(context, phase, rows)
    if len(encoded) < config.batch_size:
        key = f"{'scorer' if phase.role == 'second' else phase.role}_sft"
        raise ConfigError(
            f"phase {phase.name}: {len(encoded)} of {len(rows)} samples are within the token limits, fewer than "
            f"one update's {key}.batch_size={config.batch_size}; raise "
            f"limits.prompt or {key}.samples, or lower the batch."
        )
    model = context.load(None, trainable=True, adapter="second" if phase.role == "second" else "adapter")
    train_sft(context.job(phase, model, resume, no_extra), encoded, config)
    context.save(phase, model, parent=None)
    return {"rows": len(encoded), "skipped": len(rows) - len(encoded)}


def run_as_given(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """The RPM before the game is the base as it is: a new adapter, which adds nothing to it, or a copy of its weights."""
    model = context.load(None, trainable=True)
    context.save(phase, model, parent=None)
    context.folder.finish(phase.name, {})
    return {}


def encode(context: Context, phase: PhasePlan, examples: Sequence[SFTExample]) -> list[Row]:
    """Token ids of each example; those over the limits are counted, listed in the phase's folder, and left out.

    Raises:
        DataError: every row is over the limits.
    """
    limits = context.recipe.limits
    if lost := loses_text(context.tokenizer, [taught.target for taught in examples[:LOOKED_AT]]):
        context.progress.say(f"{phase.name}: {lost}")
    kept: list[Row] = []
    skipped = []
    for taught in examples:
        text = render(context.tokenizer, taught.messages, thinks=taught.role == "thinker")
        prompt, response = encode_pair(context.tokenizer, text, taught.target)
        most = limits.prompt + (limits.reasoning + REASONING_FRAME if taught.reasoning else 0)
        most += REQUEST_TO_THINK if taught.role == "thinker" else 0
        if len(prompt) > most or len(response) > room(limits, taught.role) or not response:
            sizes = {"prompt": len(prompt), "response": len(response)}
            skipped.append({"sample_id": taught.sample_id, "role": taught.role, **sizes})
        else:
            kept.append((prompt, response))
    if not kept:
        raise DataError(
            f"phase {phase.name}: all {len(examples)} samples are over limits.prompt={limits.prompt} or "
            f"limits.response={limits.response}/turn={limits.turn}/reasoning={limits.reasoning} tokens; raise them. "
            f"First: {skipped[:1]}"
        )
    if skipped:
        name = context.folder.phase(phase.name) / "skipped.jsonl"
        if dist.is_main():
            write_atomic(name, "".join(dump_row(row) for row in skipped))
        context.progress.say(
            f"{phase.name}: {len(skipped)} of {len(examples)} samples are over the token limits; see {name}"
        )
    return kept


def run_audit(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Puts the RPM's reward to the test of bad answers, and stops the run if it fails (method, section 4).

    Before the game, and again before each iteration that a refreshed estimator is to reward.

    Raises:
        ConfigError: the reward fails, and `audit.on_failure` is `stop`.
        ScoreError: there is no scenario to audit it on.
    """
    recipe, folder, kind = context.recipe, context.folder, context.recipe.data.kind
    config = recipe.audit.model_copy(update={"at_least": recipe.audit.share(kind)})
    scenarios = [x for x in context.material.real_turns[: config.scenarios] if context.fits("scorer", x)]
    cases = BATTERIES[kind](scenarios, seed_of(recipe.seed, "battery"))
    scorer = estimator(context, phase.iteration)
    prepare(context, scorer, scenarios)
    seed, foreign = seed_of(recipe.seed, "audit"), others(context, scorer)
    parts = shared(beside(context))
    verdict = audit(SharedScorer(scorer), cases, recipe.weights, config, seed, context.progress.advance, foreign, parts)
    path = folder.root / "evaluation" / f"{phase.name.split('-', 1)[1]}.json"
    if dist.is_main():
        write_atomic(path, json.dumps(verdict.to_dict(), indent=1, ensure_ascii=False) + "\n")
    dist.barrier()
    if not verdict.passed and config.on_failure == "stop":
        raise ConfigError(
            f"recipe {recipe.name}: its reward must not train anything yet.\n{table(verdict)}\n"
            f"{_remedy(recipe)}Where a part alone is above, give it more weight ({recipe.weights_key}). Where none is, the "
            "scorer does not know the difference: tune it for longer (scorer_sft.samples, scorer_sft.epochs, "
            "corl.iterations) or on a better base. Then start a new run; audit.on_failure=warn would go on all the same."
        )
    if not verdict.passed:
        context.progress.say(f"{phase.name}: {conclusion(verdict)}\nThe run goes on, as audit.on_failure=warn says.")
    facts = {"passed": verdict.passed}
    folder.finish(phase.name, facts, [path])
    return facts


def _remedy(recipe: Recipe) -> str:
    """What may help before all else: on real text summed nats pay for blandness, whoever scores."""
    plain = isinstance(recipe.weights, RewardWeights)
    known = f"On real text try {recipe.weights_key}.kind=real_text first. "
    return known if plain and isinstance(recipe.data, FileData) else ""


class SharedScorer:
    """A scorer whose asks are shared out over the processes."""

    def __init__(self, scorer: Scores) -> None:
        self._scorer = scorer

    @property
    def version(self) -> str:
        """As the scorer's own."""
        return self._scorer.version

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; all processes call it together."""
        return dist.share_out(self._scorer.score, asks, group=lambda ask: ask.context)


def run_evaluate(context: Context, phase: PhasePlan, resume: bool) -> dict[str, Any]:
    """Measures the RPM in force on every test subset and writes JSON beside one row per scenario, of either scorer."""
    final = phase.name.endswith("final")
    first = context.current_rpm(1)
    rpm = context.final_rpm(context.plan) if final else first
    files = _first_again(context) if final and rpm == first else _evaluation(context, phase, rpm, final)
    paths = {context.folder.root / "evaluation" / name: text for name, text in files.items()}
    if dist.is_main():
        for path, text in paths.items():
            write_atomic(path, text)
    dist.barrier()
    context.folder.finish(phase.name, {"model": f"rpm/{rpm}"}, list(paths))
    return {"model": f"rpm/{rpm}"}


def _first_again(context: Context) -> dict[str, str]:
    """The last evaluation's files where it is of the very model of the first: measures are a function of model and seed."""
    second = ("-second.jsonl",) if context.recipe.evaluation.second_scorer else ()
    folder = context.folder.root / "evaluation"
    return {f"final{end}": (folder / f"sft{end}").read_text(encoding="utf-8") for end in (".json", ".jsonl", *second)}


def _evaluation(context: Context, phase: PhasePlan, rpm: str, final: bool) -> dict[str, str]:
    """The files, by their names, of the evaluation of the RPM that a phase wrote."""
    recipe = context.recipe
    tests = [x for x in context.material.tests if context.fits("rpm", x)]
    over_long = Counter(x.subset_tag for x in context.material.tests) - Counter(x.subset_tag for x in tests)
    if over_long:
        listed = ", ".join(f"{tag} {count}" for tag, count in sorted(over_long.items()))
        context.progress.say(f"{phase.name}: test scenarios over limits.prompt were left out: {listed}")
    responses = context.respond(context.load(rpm, trainable=False), f"rpm/{rpm}", tests)
    scorer = estimator(context)
    prepare(context, scorer, tests)
    # the first evaluation scores the references and the last one reads them, so that either can be run again alike
    cache_path = context.folder.root / "evaluation" / "references.json"
    cache = json.loads(cache_path.read_text(encoding="utf-8")) if final else {}

    def measured_by(scores: Scores) -> Measurement:
        seed, truth = seed_of(recipe.seed, "evaluation"), context.material.truth
        return measure(SharedScorer(scores), tests, responses, recipe.evaluation, seed, reference_cache=cache, truth=truth)

    name = "final" if final else "sft"
    measured = measured_by(scorer)
    summary = measured.summary | {"over_long": dict(over_long)}
    rows = {f"{name}.jsonl": measured.rows}
    if recipe.evaluation.second_scorer:
        second = measured_by(context.scorer(context.phase_name("sft-second")))
        summary["second_scorer"] = second.summary
        rows[f"{name}-second.jsonl"] = second.rows
    files = {f"{name}.json": json.dumps(summary, indent=1, ensure_ascii=False) + "\n"}
    files |= {file: "".join(dump_row(row.to_dict()) for row in found) for file, found in rows.items()}
    return files if final else files | {cache_path.name: json.dumps(cache)}


NO_SIGNAL = (
    "no group of completions had two different rewards, so nothing was learnt and the policy is its parent's. Look at the "
    "parts in rollouts.jsonl."
)


def save_learnt(
    context: Context, phase: PhasePlan, model: Any, parent: str, learnt: bool, why_not: str = NO_SIGNAL
) -> dict[str, Any]:
    """Saves what a policy has become. That it learnt nothing is said, and the run goes on."""
    if not learnt:
        context.progress.say(f"{phase.name}: {why_not}")
    context.save(phase, model, parent)
    return {"parent": parent, "learnt": learnt}


def pool_rows(context: Context, before: int | None = None) -> list[dict[str, Any]]:
    """Every pool entry, of iterations before the given one if it is given; scenarios are read back into records."""
    rows: deque[dict[str, Any]] = deque(maxlen=context.recipe.loop.pool_size)
    for k in range(1, context.recipe.loop.iterations + 1):
        if before is None or k < before:
            rows.extend(read_rows(context.folder.root / "pool" / f"iteration-{k}.jsonl"))
    return list(rows)


def with_id(scenario: Scenario, sample_id: str) -> Scenario:
    """The scenario under another name."""
    return replace(scenario, sample_id=sample_id)
