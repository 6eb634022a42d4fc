"""Responses of a model to scenarios, as `diagnose`, `coevo score` and `coevo judge` take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coevo.config.methods import Thinking
from coevo.errors import CheckpointError, ConfigError
from coevo.lm.generation import Generated
from coevo.lm.generation import generate as generated
from coevo.lm.likelihood import encode_prompt
from coevo.loop.context import Policies, seed_of
from coevo.plan.plan import plan
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.prompts import Role
from coevo.runs.folder import RunFolder
from coevo.scoring.given import given_scenarios
from coevo.scoring.probe import probe
from coevo.scoring.thinking import split
from coevo.types import Response, Scenario

AT_ONCE = 256
"""Responses between two reports of progress."""
COLDEST, HOTTEST = 0.01, 100.0
"""Colder than this, float32 cannot hold the logits; greedy is 0. Hotter, every token is as likely as any other."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How responses are drawn; written down beside each."""

    max_new_tokens: int = 256
    """Of what the model writes, a thought included."""
    temperature: float = 0.0
    """0 is greedy; else 0.01 to 100."""
    seed: int = 0
    """Of what is drawn; each scenario draws by seed and place."""

    def check(self) -> None:
        """Looks before a model is loaded.

        Raises:
            ConfigError: a setting that cannot be.
        """
        count, heat = self.max_new_tokens, self.temperature
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"generate: max_new_tokens={count!r}; expected a whole number of at least 1.")
        number = isinstance(heat, int | float) and not isinstance(heat, bool)
        if not number or not (heat == 0 or COLDEST <= heat <= HOTTEST):
            raise ConfigError(
                f"generate: temperature={heat!r}; expected 0, which is greedy, or a number of {COLDEST} to {HOTTEST:.0f}."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"generate: seed={self.seed!r}; expected a whole number.")


class Responder:
    """A model that answers scenarios, loaded when it is first asked."""

    def __init__(self, model: str | Path, sampling: Sampling, name: str | None = None) -> None:
        """Takes what `generate` takes.

        Raises:
            CheckpointError: `model` is neither a run with a trained RPM nor a model.
            ConfigError: a setting out of range.
        """
        path = _path(model)
        sampling.check()
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"generate: name={name!r}; expected a text.")
        self.name = name or _name(path)
        self._sampling = sampling
        self._thinks = False
        self._loaded: Any = None
        self._path = path

    def prepare(self) -> None:
        """Opens run or model and looks whether it can be asked; loads no weights.

        Raises:
            CheckpointError: it is neither, or its RPM has not been trained.
        """
        if is_model(self._path):
            self._policies, self._phase = Policies(zero_shot_recipe(self._path), RunFolder(self._path), []), None
            probe(self._policies.tokenizer, self._policies.prompts, ["rpm"])
        else:
            self._policies, self._phase = trained(self._path)
            self._thinks = isinstance(self._policies.recipe.method, Thinking)

    def load(self) -> None:
        """Loads the weights, unless they are there."""
        self._loaded = self._loaded or self._policies.load(self._phase, trainable=False)

    @property
    def identity(self) -> dict[str, Any]:
        """All that its answers depend on, beside the scenario and its place."""
        return {"version": self._policies.version(self._phase), **asdict(self._sampling)}

    def answer(self, scenarios: Sequence[Scenario], places: Sequence[int]) -> list[Response]:
        """One response to each scenario; `places` are theirs in the whole, by which they draw."""
        policies, sampling = self._policies, self._sampling
        self.load()
        role: Role = "thinker" if self._thinks else "rpm"
        written = generated(
            self._loaded,
            policies.tokenizer,
            [encode_prompt(policies.tokenizer, policies.prompt(role, x)) for x in scenarios],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seeds=[seed_of(sampling.seed, "generate", place) for place in places],
            repetition_penalty=policies.recipe.evaluation.repetition_penalty if sampling.temperature == 0 else 1.0,
        )
        return [self._response(x, one) for x, one in zip(scenarios, written, strict=True)]

    def say(self, x: Scenario, seed: int, on_text: Callable[[str], None] | None = None) -> Response:
        """The next message of one dialogue, told as it is written."""
        policies, sampling = self._policies, self._sampling
        self.load()
        (written,) = generated(
            self._loaded,
            policies.tokenizer,
            [self.prompt(x)],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seeds=[seed_of(sampling.seed, "chat", seed)],
            on_text=None if self._thinks else on_text,
        )
        return self._response(x, written)

    def prompt(self, x: Scenario) -> list[int]:
        """The tokens that the model reads."""
        role: Role = "thinker" if self._thinks else "rpm"
        return encode_prompt(self._policies.tokenizer, self._policies.prompt(role, x))

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._policies.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def room(self) -> int:
        """Tokens that a prompt may have, so that an answer still fits."""
        self.load()
        limit = getattr(self._loaded.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        return int(limit) - self._sampling.max_new_tokens

    def _response(self, x: Scenario, written: Generated) -> Response:
        if not self._thinks:
            return Response(x.sample_id, written.text, self.name, written.status)
        method = self._policies.recipe.method
        assert isinstance(method, Thinking)
        # the user sees what follows the thought; its sections are the trainer's
        shown = split(written.text, (), written.status, method.marks)
        return Response(x.sample_id, shown.response, self.name, shown.status)


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
    """One response to each scenario, in order. `coevo generate` writes them to a file and goes on where it was stopped.

    Args:
        model: a run of `coevo train`, whose last accepted RPM answers, without its thought if it thinks first; or the folder
            or hub id of a chat model, which is asked with coevo's prompts for pretrained models.
        scenarios: to be answered, each with a name of its own; their references are not looked at.
        max_new_tokens: a response that reaches them has the status `truncated`; a thought counts too.
        temperature: 0 is greedy; else 0.01 to 100.
        seed: of what is drawn; each scenario draws by seed and place.
        name: what the responses' model is called; by default the last part of `model`, of `.` the folder's name.
        progress: told how many responses are done, of how many.

    Raises:
        CheckpointError: `model` is neither, or its RPM has not been trained.
        ConfigError: a setting out of range.
        DataError: no scenario, two of one name, or one that cannot be answered.
    """
    responder = Responder(model, Sampling(max_new_tokens, temperature, seed), name)
    scenarios = given_scenarios("generate", scenarios)
    responder.prepare()
    responses: list[Response] = []
    for start in range(0, len(scenarios), AT_ONCE):
        part = scenarios[start : start + AT_ONCE]
        responses += responder.answer(part, range(start, start + len(part)))
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


def trained(run: Path) -> tuple[Policies, str]:
    """The models of a run, and the phase that wrote the role-playing model that it ends with.

    Raises:
        CheckpointError: it is no run, or that phase has not finished.
    """
    folder, recipe = RunFolder.open(run)
    planned = plan(recipe)
    policies = Policies(recipe, folder, [phase.name for phase in planned])
    phase = policies.final_rpm(planned)
    if folder.facts(phase) is None:
        raise CheckpointError(f"{run}: phase {phase} has not finished; go on with: coevo train --resume {run}")
    return policies, phase
