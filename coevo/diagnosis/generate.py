"""Responses of a model to scenarios, as `diagnose`, `coevo score` and `coevo judge` take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coevo.config.methods import Thinking
from coevo.errors import CheckpointError, ConfigError
from coevo.lm.generation import generate as written
from coevo.lm.likelihood import encode_prompt
from coevo.loop.context import Policies, seed_of
from coevo.plan.plan import plan
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.runs.folder import RunFolder
from coevo.scoring.given import given_scenarios
from coevo.scoring.probe import probe
from coevo.types import Response, Scenario

AT_ONCE = 256
"""Responses between two reports of progress."""
COLDEST, HOTTEST = 0.01, 100.0
"""Colder than this, float32 cannot hold the logits; greedy is 0. Hotter, every token is as likely as any other."""


def generate(
    model: str | Path,
    scenarios: Sequence[Scenario],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """One response to each scenario, in order.

    Args:
        model: a run of `coevo train`, whose last accepted RPM answers; or the folder or hub id of a chat model, which is
            asked with coevo's prompts for pretrained models.
        scenarios: to be answered, each with a name of its own; their references are not looked at.
        max_new_tokens: a response that reaches them has the status `truncated`.
        temperature: 0 is greedy; else 0.01 to 100.
        seed: of what is drawn; each scenario draws by seed and place.
        name: what the responses' model is called; by default the last part of `model`, of `.` the folder's name.
        progress: told how many responses are done, of how many.

    Raises:
        CheckpointError: `model` is neither, or its RPM has not been trained.
        ConfigError: a run whose model thinks first, or a setting out of range.
        DataError: no scenario, two of one name, or one that cannot be answered.
    """
    path = _path(model)
    _check(max_new_tokens, temperature, seed, name)
    scenarios = given_scenarios("generate", scenarios)
    if is_model(path):
        policies, phase = Policies(zero_shot_recipe(path), RunFolder(path), []), None
        probe(policies.tokenizer, policies.prompts, ["rpm"])
    else:
        policies, phase = _trained(path)
    loaded = policies.load(phase, trainable=False)
    tokenizer, called = policies.tokenizer, name or _name(path)
    responses: list[Response] = []
    for start in range(0, len(scenarios), AT_ONCE):
        part = scenarios[start : start + AT_ONCE]
        texts = written(
            loaded,
            tokenizer,
            [encode_prompt(tokenizer, policies.prompt("rpm", x)) for x in part],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=[seed_of(seed, "generate", start + place) for place in range(len(part))],
            repetition_penalty=policies.recipe.evaluation.repetition_penalty if temperature == 0 else 1.0,
        )
        responses += [Response(x.sample_id, found.text, called, found.status) for x, found in zip(part, texts, strict=True)]
        if progress:
            progress(len(responses), len(scenarios))
    return responses


def _path(model: str | Path) -> Path:
    if not isinstance(model, str | Path) or not str(model) or "\0" in str(model):
        raise ConfigError(f"generate: model={model!r}; expected a run of coevo train, or the folder or hub id of a model.")
    return Path(model)


def _name(path: Path) -> str:
    """The last part of a path; of `.` and `..`, which name no folder, the folder's own."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def _check(max_new_tokens: int, temperature: float, seed: int, name: str | None) -> None:
    """Looks before a model is loaded.

    Raises:
        ConfigError: a setting that cannot be.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ConfigError(f"generate: max_new_tokens={max_new_tokens!r}; expected a whole number of at least 1.")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not (temperature == 0 or COLDEST <= temperature <= HOTTEST):
        raise ConfigError(
            f"generate: temperature={temperature!r}; expected 0, which is greedy, or a number of {COLDEST} to {HOTTEST:.0f}."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"generate: seed={seed!r}; expected a whole number.")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"generate: name={name!r}; expected a text.")


def _trained(run: Path) -> tuple[Policies, str]:
    folder, recipe = RunFolder.open(run)
    planned = plan(recipe)
    policies = Policies(recipe, folder, [phase.name for phase in planned])
    if isinstance(recipe.method, Thinking):
        raise ConfigError(f"{run}: its model thinks before it answers, and generate does not tell the two apart yet.")
    phase = policies.final_rpm(planned)
    if folder.facts(phase) is None:
        raise CheckpointError(f"{run}: phase {phase} has not finished; go on with: coevo train --resume {run}")
    return policies, phase
