"""What every phase of a run works with: the folder's models, its data, and where the current policies are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from coevo import dist
from coevo.config import REASONING_FRAME, HubBase, Limits, Recipe
from coevo.config.methods import Coevolution, ThinkGRPO, Thinking, ThinkSFT
from coevo.data import SOURCES
from coevo.lm.check import check_weights
from coevo.lm.embedding import Embedder
from coevo.lm.generation import Generated, generate
from coevo.lm.likelihood import encode_prompt, render
from coevo.lm.lineage import identity, settings_hash, weights_hash
from coevo.lm.loading import (
    load_policy,
    load_tokenizer,
    local_directory,
    new_adapter,
    save_full,
    save_policy,
    stored_dtype,
)
from coevo.loop.material import Material
from coevo.plan.plan import PhasePlan
from coevo.progress import Progress
from coevo.prompts import Role
from coevo.rewards.beside import Beside
from coevo.rewards.gates import Thresholds
from coevo.runs.folder import RunFolder
from coevo.scoring.probe import probe
from coevo.scoring.scorer import Scorer
from coevo.scoring.thinking import Thought, split
from coevo.train.common import Job
from coevo.types import Response, Scenario

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NO_LIMIT = 1 << 30
"""Longest prompt and response, in tokens, of a model that says nothing of its positions."""


def seed_of(*parts: object) -> int:
    """A seed that depends on nothing but its parts: the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % (2**31)


def room(limits: Limits, role: str) -> int:
    """Tokens at most of what a role writes, the marks of a thought included."""
    thought = limits.reasoning + REASONING_FRAME + limits.response
    return {"simulator": limits.turn, "reasoner": limits.reasoning, "thinker": thought}.get(role, limits.response)


@dataclass(frozen=True)
class LoRASeeded:
    """A recipe's LoRA shape with the seed of its first weights."""

    r: int
    alpha: int
    dropout: float
    seed: int


class Policies:
    """The models of a run folder: its base, and what its phases have trained on it."""

    def __init__(self, recipe: Recipe, folder: RunFolder, phases: Sequence[str]) -> None:
        self.recipe = recipe
        self.folder = folder
        self.prompts = recipe.prompt_set
        self._phases = list(phases)
        self._tokenizer: Any = None

    def phase_name(self, kind: str, iteration: int | None = None) -> str:
        """Name of the phase of this sort, such as `06-simulator-1`."""
        suffix = kind if iteration is None else f"{kind}-{iteration}"
        return next(name for name in self._phases if name.split("-", 1)[1] == suffix)

    @property
    def base(self) -> Path | str:
        """The base model that every policy of this run sits on."""
        if self.recipe.pretrain is not None:
            return self.folder.policy(self.phase_name("pretrain"))
        if self.recipe.base.path == "builtin":
            return Path(str(resources.files("coevo.lm") / "builtin"))
        return self.recipe.base.path  # type: ignore[return-value]

    @property
    def base_hash(self) -> str:
        """Content hash of the base's weights."""
        return weights_hash(local_directory(self.base))

    def version(self, name: str | None) -> str:
        """Stamp of the numbers that the policy of phase `name` gives, or (None) the base: see `lineage.identity`."""
        base = local_directory(self.base)
        return identity(self.folder.policy(name) if name else base, base, self.recipe.reading)

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        if self._tokenizer is None:
            self.use_tokenizer(self.base)
        return self._tokenizer

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of a reasoning's sections, in their order."""
        corl = self.recipe.corl
        return (corl.sections if corl else None) or SOURCES[self.recipe.data.kind].sections

    def use_tokenizer(self, directory: Path | str) -> None:
        """Takes the base's tokenizer, from a place of its own while the base that it belongs to is still being trained.

        Raises:
            ConfigError: its chat template does not show every role all that it is to read.
        """
        tokenizer, method = load_tokenizer(directory, self.recipe.template), self.recipe.method
        probe(tokenizer, self.prompts, marks=method.marks if isinstance(method, Thinking) else None)
        self._tokenizer = tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """What every model of this run computes in."""
        return self._dtype_of(self.base) if isinstance(self.recipe.base, HubBase) else torch.float32

    def _dtype_of(self, path: Path | str) -> torch.dtype:
        """What a pretrained model computes in: the recipe's `base.dtype`, or its own where that is not said."""
        name = self.recipe.base.dtype if isinstance(self.recipe.base, HubBase) else "auto"
        return stored_dtype(path) if name == "auto" else getattr(torch, name)

    def load(self, name: str | None, *, trainable: bool, adapter: str = "adapter") -> PreTrainedModel:
        """Loads the policy that phase `name` wrote, on a fresh base; None is the base itself, or a new adapter on it.

        A new adapter's first weights are drawn by the run's seed and the word `adapter`. Whatever is trained is in float32,
        as PEFT has adapters: an update of 1e-5 is less than the distance between two bfloat16 numbers of a weight's size.
        """
        lora = self.recipe.lora
        dtype = torch.float32 if trainable and lora is None else self.dtype
        directory = self.folder.policy(name) if name else None
        model: Any = load_policy(self.base, directory, trainable=trainable, dtype=dtype)
        if trainable and name is None and lora is not None:
            seed = seed_of(self.recipe.seed, adapter)
            model = new_adapter(model, LoRASeeded(lora.r, lora.alpha, lora.dropout, seed))
        return model if trainable else self._placed(model)

    def load_other(self, path: str) -> tuple[PreTrainedModel, Any]:
        """A model that is none of the run's, by folder or hub id: frozen, with its tokenizer."""
        tokenizer = load_tokenizer(path)
        probe(tokenizer, self.prompts, ["rewriter"])
        model: Any = load_policy(path, None, trainable=False, dtype="auto")
        return self._placed(model), tokenizer

    def _placed(self, model: Any) -> Any:
        return model.to(torch.device("cuda", torch.cuda.current_device())) if torch.cuda.is_available() else model

    def scorer(self, name: str | None, role: Role = "scorer", embedder: Embedder | None = None) -> Scorer:
        """A frozen policy, or (None) the base itself, as a scorer."""
        return Scorer(
            self.load(name, trainable=False),
            self.tokenizer,
            self.version(name),
            self.prompts,
            max_length=self.recipe.longest,
            tokens_per_batch=self.recipe.limits.tokens_per_batch,
            role=role,
            embedder=embedder,
        )

    def zero_shot(self, embedder: Embedder | None = None) -> Scorer:
        """A pretrained model as a scorer, as it is: the run's base, or the recipe's `scorer.base` with its own tokenizer.

        The limits of a recipe are in tokens of its base, so what this one can read is limited by its positions alone.

        Raises:
            CheckpointError: its folder is not fit for it; see `coevo.lm.check`.
            ConfigError: its chat template does not show the scorer all that it is to read.
        """
        own = self.recipe.scorer.base
        path = own or self.base
        directory = local_directory(path)
        check_weights(directory)
        tokenizer = load_tokenizer(directory, {} if own else self.recipe.template)
        probe(tokenizer, self.prompts, ["scorer"])
        model: Any = self._placed(load_policy(directory, None, trainable=False, dtype=self._dtype_of(path)))
        return Scorer(
            model,
            tokenizer,
            identity(directory, directory, self.prompts.stamp if own else self.recipe.reading),
            self.prompts,
            max_length=getattr(model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT,
            tokens_per_batch=self.recipe.limits.tokens_per_batch,
            embedder=embedder,
        )

    # text --------------------------------------------------------------------------------------------------------

    def prompt(self, role: Role, scenario: Scenario, drop: frozenset[Any] = frozenset(), reasoning: str = "") -> str:
        """The rendered prompt, as training, generation and scoring all see it."""
        return render(self.tokenizer, self.prompts.messages(role, scenario, drop, reasoning), thinks=role == "thinker")

    def fits(self, role: Role, scenario: Scenario) -> bool:
        """Whether the prompt, without any reasoning, is within the recipe's limit."""
        return len(encode_prompt(self.tokenizer, self.prompt(role, scenario))) <= self.recipe.limits.prompt

    def write(
        self, model: PreTrainedModel, role: Role, scenarios: Sequence[Scenario], seeds: Sequence[int], temperature: float
    ) -> list[Generated]:
        """One text per scenario from a frozen policy, on this process alone."""
        limits = self.recipe.limits
        return generate(
            model,
            self.tokenizer,
            [encode_prompt(self.tokenizer, self.prompt(role, x)) for x in scenarios],
            max_new_tokens=room(limits, role),
            temperature=temperature,
            seeds=seeds,
            repetition_penalty=self.recipe.evaluation.repetition_penalty if temperature == 0 else 1.0,
        )

    # where things are --------------------------------------------------------------------------------------------

    def current_rpm(self, iteration: int) -> str:
        """The RPM in force before the given iteration's RPM phase: the last one that was accepted."""
        for k in range(iteration - 1, 0, -1):
            facts = self.folder.facts(self.phase_name("accept", k))
            if facts is not None and facts["kept"]:
                return self.phase_name("rpm", k)
        return self.phase_name("sft-rpm")

    def final_rpm(self, plan: Sequence[PhasePlan]) -> str:
        """The RPM that the run ends with: the loop's last accepted one, or what the method trained last."""
        if isinstance(self.recipe.method, Coevolution):
            return self.current_rpm(self.recipe.loop.iterations + 1)
        return [phase.name for phase in plan if phase.role == "rpm" and phase.updates][-1]


class Context(Policies):
    """One run in progress."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, material: Material, plan: Sequence[PhasePlan], progress: Progress
    ) -> None:
        super().__init__(recipe, folder, [phase.name for phase in plan])
        self.material = material
        self.plan = list(plan)
        self.progress = progress
        self.log_metrics: Callable[[dict[str, Any]], None] = lambda row: None
        self.thresholds: Thresholds | None = None
        self.beside: Beside | None = None
        """Of the simulator's gates, once they have been read off real turns."""

    # training ----------------------------------------------------------------------------------------------------

    def job(self, phase: PhasePlan, model: PreTrainedModel, resume: bool, extra: Callable[[], dict[str, float]]) -> Job:
        """A training job that logs every step to the run folder; `extra` adds what the rewards measured."""

        def on_step(step: int, metrics: dict[str, float]) -> None:
            row: dict[str, Any] = {"phase": phase.name, "role": phase.role, "iteration": phase.iteration, "step": step}
            # TRL logs None where no completion of a step could be scored; `unscored` counts those. Loss and gradient are
            # numbers here: the trainer ends a phase at one that is none
            row |= {k: round(v, 6) for k, v in (metrics | extra()).items() if v is not None and math.isfinite(v)}
            self.folder.append("metrics.jsonl", [row])
            self.log_metrics(row)
            shown = next((k for k in ("share_right", "regret", "reward", "loss") if k in row), None)
            self.progress.advance(1, f"{shown} {row[shown]:.2f}" if shown else "")

        return Job(
            model=model,
            tokenizer=self.tokenizer,
            checkpoints=self.folder.phase(phase.name) / "checkpoints",
            seed=seed_of(self.recipe.seed, phase.name),
            resume=resume,
            on_step=on_step,
            gradient_checkpointing=isinstance(self.recipe.base, HubBase) and self.recipe.base.gradient_checkpointing,
            bf16=self.dtype == torch.bfloat16,
            phase=phase.name,
        )

    def save(self, phase: PhasePlan, model: PreTrainedModel, parent: str | None) -> None:
        """Writes the trained policy with its lineage; all processes call it."""
        save_policy(
            model,
            self.folder.policy(phase.name),
            role=phase.role or "base",
            base_hash=self.base_hash,
            parent_hash=weights_hash(self.folder.policy(parent)) if parent else None,
            phase=phase.name,
            base_settings=settings_hash(local_directory(self.base)),
            prompts=self.recipe.reading,
        )

    def save_base(self, phase: PhasePlan, model: PreTrainedModel) -> None:
        """Writes a freshly pretrained base with its tokenizer, as a model folder that any tool can load."""
        save_full(model, self.folder.policy(phase.name), self.tokenizer)

    def respond(
        self, model: PreTrainedModel, name: str, scenarios: Sequence[Scenario], advance: bool = True
    ) -> list[Response]:
        """Greedy responses, shared out over the processes; `advance` where the phase counts scenarios.

        Of a model that thinks first, the response alone: nothing that evaluates it sees its reasoning.
        """
        thinks = self.thinks(name)
        role: Role = "thinker" if thinks else "rpm"

        def work(share: Sequence[Scenario]) -> list[Response]:
            texts: list[Response] = []
            for start in range(0, len(share), 256):
                part = share[start : start + 256]
                written = self.write(model, role, part, [0] * len(part), temperature=0.0)
                for x, g in zip(part, written, strict=True):
                    shown = self.thought(g.text, g.status) if thinks else None
                    text, status = (shown.response, shown.status) if shown else (g.text, g.status)
                    texts.append(Response(x.sample_id, text, name, status))
                if advance:
                    self.progress.advance(len(part) * dist.world_size())
            return texts

        return dist.share_out(work, scenarios)

    def thought(self, text: str, status: str) -> Thought:
        """What a model that thinks first has written, in its two parts."""
        method = self.recipe.method
        assert isinstance(method, ThinkSFT | ThinkGRPO)
        return split(text, self.material.thinking, status, method.marks)

    # where things are --------------------------------------------------------------------------------------------

    def current_simulator(self, iteration: int) -> str:
        """The simulator in force before the given iteration's simulator phase."""
        trained = iteration > 1 and not self.recipe.loop.frozen_simulator
        return self.phase_name("simulator", iteration - 1) if trained else self.phase_name("sft-simulator")

    def thinks(self, name: str) -> bool:
        """Whether the policy that phase `name` wrote is one that thinks first."""
        thinking = {phase.name for phase in self.plan if phase.kind in ("think_sft", "think_online")}
        return name.removeprefix("rpm/") in thinking
