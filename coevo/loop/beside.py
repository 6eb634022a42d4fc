"""Who gives the parts of a run's reward that are not its scorer's: a judge behind an endpoint, a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coevo import dist
from coevo.config import access
from coevo.config.training import JudgePart, RewardModelPart
from coevo.errors import CoevoError, ConfigError
from coevo.files import Journal
from coevo.judge.endpoint import Endpoint
from coevo.judge.parse import read_scores
from coevo.judge.session import Answer, Session
from coevo.lm.reward_model import RewardModel
from coevo.loop.context import Context
from coevo.prompts import Prompts, judge_messages
from coevo.rewards.beside import Beside, Reads
from coevo.types import Scenario

ATTEMPTS = 3
"""Answers to one question that may be paid for until one can be read."""


def beside(context: Context) -> Beside:
    """The parts beside the scorer's own of the recipe's reward; a reward model is loaded once a run."""
    if context.beside is None:
        weights = context.recipe.weights
        readers: dict[str, Reads] = {}
        if weights.judge is not None:
            # a process each: two must not write one file
            readers["judge"] = judged(weights.judge, context.folder.root / "cache" / f"judge-{dist.rank()}.jsonl")
        if weights.reward_model is not None:
            readers["reward_model"] = scored(weights.reward_model, context.prompts)
        context.beside = Beside(weights.functions, readers)
    return context.beside


def judged(part: JudgePart, journal: Path) -> Reads:
    """A judge's mean score over a rubric's dimensions, 0 the worst and 1 the best; no answer is paid for twice.

    Raises:
        ConfigError: rubric, endpoint or key that cannot be.
    """
    address = access.address_of(part)
    try:
        rubric, key = access.check(part.rubric, address, part.key_env)
    except ConfigError as error:
        raise ConfigError(f"weights.judge: {access.in_a_recipe(str(error))}") from None
    least, span = rubric.scale.least, rubric.scale.most - rubric.scale.least

    def read(scenarios: Sequence[Scenario], texts: Sequence[str]) -> list[float | None]:
        questions = [judge_messages(rubric, x, [text]) for x, text in zip(scenarios, texts, strict=True)]
        with Journal(journal, shape=Answer) as kept:
            session = Session(Endpoint(address, key), partial(read_scores, rubric=rubric), kept, ATTEMPTS)
            try:
                found = session.ask(questions)
            except CoevoError as error:
                raise type(error)(f"weights.judge: {access.in_a_recipe(str(error))}") from error
        return [
            (sum(one.verdict.values()) / len(one.verdict) - least) / span if one.status == "ok" else None for one in found
        ]

    return read


def scored(part: RewardModelPart, prompts: Prompts) -> Reads:
    """A reward model's output for each response.

    Raises:
        CheckpointError: no reward model.
    """
    model = RewardModel(part.path)
    return lambda scenarios, texts: model.score([prompts.messages("rpm", x) for x in scenarios], texts)


def shared(part: Beside) -> Beside:
    """The same where all processes ask about the same responses: each asks about its share."""

    def share(reads: Reads) -> Reads:
        def read(scenarios: Sequence[Scenario], texts: Sequence[str]) -> list[float | None]:
            def work(pairs: Sequence[tuple[Scenario, str]]) -> list[float | None]:
                return reads([x for x, _ in pairs], [text for _, text in pairs]) if pairs else []

            return dist.share_out(work, list(zip(scenarios, texts, strict=True)))

        return read

    return Beside(part.functions, {name: share(reads) for name, reads in part.readers.items()})
