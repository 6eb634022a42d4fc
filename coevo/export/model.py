"""A run's final role-playing model as a folder that plain transformers, PEFT and vLLM load, checked by loading it so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coevo.config import Recipe
from coevo.diagnosis.generate import trained
from coevo.errors import CheckpointError, ConfigError
from coevo.export.card import Facts, model_card
from coevo.lm.likelihood import encode_pair
from coevo.lm.lineage import atomic_directory
from coevo.lm.loading import local_directory, save_full
from coevo.loop.context import Policies
from coevo.loop.material import load_material
from coevo.types import Scenario

CLOSE_NATS = 1e-3
"""Nats per token by which a reloaded model in float32 may differ from the run's."""
CLOSE_HALF_NATS = 0.05
"""The same in bfloat16 and float16, where an adapter beside its base rounds otherwise than one that is merged."""
COMPARED = 8
"""References whose likelihoods are compared."""


@dataclass(frozen=True)
class Source:
    """The final model of a run."""

    recipe: Recipe
    policies: Policies
    phase: str
    """That wrote it."""

    @property
    def folder(self) -> Path:
        """Its weights."""
        return self.policies.folder.policy(self.phase)

    @property
    def is_adapter(self) -> bool:
        """Whether they are LoRA's, on a base."""
        return (self.folder / "adapter_config.json").is_file()

    @property
    def base(self) -> str:
        """The base, as it can be found again: a hub id, or a folder."""
        base = Path(self.policies.base)
        return str(base.resolve()) if base.exists() else str(base)


def source(run: Path) -> Source:
    """The model that a run ends with.

    Raises:
        CheckpointError: it is no run, or has none yet.
    """
    policies, phase = trained(run)
    return Source(policies.recipe, policies, phase)


def write_adapter(found: Source, to: Path) -> None:
    """A PEFT folder: adapter, tokenizer and chat template. Weights are copied byte for byte."""
    for file in sorted(found.folder.iterdir()):
        if file.name.startswith("adapter_model"):
            shutil.copyfile(file, to / file.name)
    config = json.loads((found.folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = found.base
    (to / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    found.policies.tokenizer.save_pretrained(to)


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to the run's own model."""

    to: Path
    merged: bool
    difference_nats: float | None
    """The largest difference of a reference's log-likelihood, per token; None if no scenario could be read again."""
    compared: int


def export(run: Path, to: Path, merge: bool = False) -> Exported:
    """Writes the final model of a run, loads it again as others do, and compares.

    Args:
        run: a run folder.
        to: a folder that is not there, or empty.
        merge: full weights; else the adapter, where the run trained one.

    Raises:
        CheckpointError: no run, no final model, or what was written gives other likelihoods; nothing is then left.
        ConfigError: `to` holds something.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"--to {to} exists and is not empty; expected a new folder.")
    found = source(run)
    merge = merge or not found.is_adapter
    texts = _texts(found)
    with atomic_directory(to) as work:
        own = found.policies.load(found.phase, trainable=False)
        expected = [likelihood(own, ids, start) for ids, start in texts]
        if merge:
            inner = work / "model"  # save_full makes its own folder
            save_full(own, inner, found.policies.tokenizer)
            for file in list(inner.iterdir()):
                file.rename(work / file.name)
            inner.rmdir()
        else:
            write_adapter(found, work)
        del own
        difference = _compared(work, found, merge, texts, expected)
        facts = Facts.of(run, found.recipe, found.base, found.policies, merge, to.name)
        (work / "README.md").write_text(model_card(facts, difference), encoding="utf-8")
    return Exported(to, merge, difference, len(texts))


def _texts(found: Source) -> list[tuple[list[int], int]]:
    """Token ids of a prompt with its reference, and where the reference begins; of scenarios of the run's own data."""
    try:
        material = load_material(found.recipe)
    except Exception:  # noqa: BLE001  # the data may have gone with another machine
        return []
    scenarios: Sequence[Scenario] = [x for x in (*material.tests, *material.id_dev) if x.reference][:COMPARED]
    pairs = []
    for x in scenarios:
        prompt, response = encode_pair(found.policies.tokenizer, found.policies.prompt("rpm", x), x.reference)
        pairs.append(([*prompt, *response], len(prompt)))
    return pairs


def _compared(
    work: Path, found: Source, merge: bool, texts: Sequence[tuple[list[int], int]], expected: Sequence[float]
) -> float | None:
    """The largest difference, per token.

    Raises:
        CheckpointError: it is too large to be rounding.
    """
    again: Any = _as_others_load(work, found, merge)
    seen = [likelihood(again, ids, start) for ids, start in texts]
    gaps = [abs(one - other) / (len(ids) - start) for one, other, (ids, start) in zip(seen, expected, texts, strict=True)]
    if not gaps:
        return None
    limit = CLOSE_NATS if found.policies.dtype == torch.float32 else CLOSE_HALF_NATS
    if not max(gaps) <= limit:
        raise CheckpointError(
            f"the exported model differs from the run's by {max(gaps):.4f} nats per token over {len(gaps)} references; "
            f"expected at most {limit}. Nothing was written. Please report it, with the base and the versions of peft and "
            "transformers."
        )
    return max(gaps)


def _as_others_load(work: Path, found: Source, merge: bool) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(work)
    if merge:
        return AutoModelForCausalLM.from_pretrained(work, dtype="auto").eval()
    base = AutoModelForCausalLM.from_pretrained(local_directory(found.policies.base), dtype=found.policies.dtype)
    return PeftModel.from_pretrained(base, str(work)).eval()


@torch.no_grad()
def likelihood(model: Any, ids: list[int], start: int) -> float:
    """log p(ids[start:] | ids[:start]), nats, summed."""
    device = next(model.parameters()).device
    logits = model(torch.tensor([ids], device=device)).logits[0, start - 1 : -1].float()
    chosen = torch.tensor(ids[start:], device=device)
    return float(torch.log_softmax(logits, -1).gather(-1, chosen[:, None]).sum())


def write_final(run: Path) -> Path:
    """RUN/final: the adapter, the tokenizer, and how to use them; full weights, which are large, stay where they are."""
    found = source(run)
    to = run / "final"
    with atomic_directory(to) as work:
        if found.is_adapter:
            write_adapter(found, work)
        else:
            found.policies.tokenizer.save_pretrained(work)
        facts = Facts.of(run, found.recipe, found.base, found.policies, not found.is_adapter, "final")
        where = str((to if found.is_adapter else found.folder).resolve())
        (work / "README.md").write_text(facts.short(found.phase, where, str(to.resolve())), encoding="utf-8")
    return to
