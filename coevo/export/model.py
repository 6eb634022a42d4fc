"""A run's final role-playing model as a folder that plain transformers, PEFT and vLLM load, checked by loading it so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from coevo.config import Recipe
from coevo.config.methods import Thinking
from coevo.diagnosis.generate import trained
from coevo.errors import CheckpointError, CoevoError, ConfigError
from coevo.export.asking import FORMAT_FILE
from coevo.export.card import Facts, model_card
from coevo.lm.likelihood import encode_pair
from coevo.lm.lineage import atomic_directory
from coevo.lm.loading import local_directory, save_full
from coevo.loop.context import Policies
from coevo.loop.material import load_material
from coevo.prompts import Role
from coevo.types import Scenario

CLOSE_NATS = 1e-3
"""Nats per token by which a reloaded model may differ from the run's, computed as the run does: in its dtype, with the
adapter merged."""
CLOSE_HALF_NATS = 0.05
"""The same of an adapter beside a base in bfloat16 or float16, where it rounds otherwise than one that is merged."""
COMPARED = 8
"""References whose likelihoods are compared, of as many subsets as there are."""


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
    def role(self) -> Role:
        """As which it is asked."""
        return "thinker" if isinstance(self.recipe.method, Thinking) else "rpm"

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


def write_settings(found: Source, to: Path, facts: Facts) -> None:
    """How it is asked: generation_config.json with the ends of a text that coevo stops at, and prompt_format.json."""
    base, tokenizer = local_directory(found.policies.base), found.policies.tokenizer
    try:
        inherited = GenerationConfig.from_pretrained(base)
    except OSError:
        inherited = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base))
    known = inherited.eos_token_id
    # the template's own end of turn need not be among the base's
    ends = {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])} - {None}
    penalty = found.recipe.evaluation.repetition_penalty
    settings = GenerationConfig(
        bos_token_id=inherited.bos_token_id,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        **({} if penalty == 1 else {"repetition_penalty": penalty}),
    )
    settings.save_pretrained(to)
    (to / FORMAT_FILE).write_text(facts.asking.to_json(), encoding="utf-8")


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it is to the run's own model."""

    to: Path
    merged: bool
    difference_nats: float | None
    """The largest difference of a reference's log-likelihood, per token, loaded as others load it; None if no scenario could
    be read again."""
    merged_nats: float | None
    """The same with the adapter merged, as the run has it."""
    compared: int
    dtype: str
    """What was compared in."""

    def __str__(self) -> str:
        if self.difference_nats is None:
            return "the run's data are not here, so its likelihoods were not compared with the run's"
        text = (
            f"loaded again in {self.dtype}, its log-likelihoods of {self.compared} references are the run's own within "
            f"{self.difference_nats:.1g} nats per token"
        )
        if self.difference_nats > CLOSE_NATS:
            text += f" beside its base, which rounds otherwise, and within {self.merged_nats:.1g} merged, as the run has it"
        return text


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
    to = to.absolute()
    refuse_taken(to)
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
        device = next(own.parameters()).device
        del own
        facts = Facts.of(run, found.recipe, found.base, found.policies, found.phase, merge, to.name)
        write_settings(found, work, facts)
        beside, merged = _compared(work, found, merge, texts, expected, device)
        exported = Exported(to, merge, beside, merged, len(texts), facts.dtype)
        said = str(exported)
        (work / "README.md").write_text(model_card(facts, f"{said[0].upper()}{said[1:]}."), encoding="utf-8")
        for file in work.iterdir():
            file.chmod(0o644)  # safetensors writes weights for their owner alone
        refuse_taken(to)
    return exported


def refuse_taken(to: Path) -> None:
    """Looks whether a folder may be written.

    Raises:
        ConfigError: there is something.
    """
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise ConfigError(f"--to {to} exists and is not empty; expected a new folder.")


def _texts(found: Source) -> list[tuple[list[int], int]]:
    """Token ids of a prompt with its reference, and where the reference begins; of scenarios of the run's own data."""
    try:
        material = load_material(found.recipe)
    except (CoevoError, OSError):  # the data may have gone with another machine
        return []
    pairs = []
    for x in _spread([x for x in (*material.tests, *material.id_dev) if x.reference]):
        prompt, response = encode_pair(found.policies.tokenizer, found.policies.prompt(found.role, x), x.reference)
        if len(prompt) + len(response) <= found.recipe.longest:
            pairs.append(([*prompt, *response], len(prompt)))
        if len(pairs) == COMPARED:
            break
    return pairs


def _spread(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """One of each subset, then a second of each, and so on: another language has other tokens."""
    seen: dict[str, int] = {}
    places = []
    for x in scenarios:
        places.append(seen.setdefault(x.subset_tag, 0))
        seen[x.subset_tag] += 1
    return [x for _, x in sorted(zip(places, scenarios, strict=True), key=lambda pair: pair[0])]


def _compared(
    work: Path,
    found: Source,
    merge: bool,
    texts: Sequence[tuple[list[int], int]],
    expected: Sequence[float],
    device: torch.device,
) -> tuple[float | None, float | None]:
    """The largest difference per token, loaded as others load it and merged; on the device where the run's was computed.

    Raises:
        CheckpointError: one is too large to be rounding.
    """
    again: Any = _as_others_load(work, found, merge).to(device)
    if not texts:
        return None, None
    half = found.policies.dtype != torch.float32
    beside = _refuse_other(again, texts, expected, CLOSE_HALF_NATS if half and not merge else CLOSE_NATS)
    if merge or not half:
        return beside, beside
    return beside, _refuse_other(again.merge_and_unload(), texts, expected, CLOSE_NATS)


def _refuse_other(model: Any, texts: Sequence[tuple[list[int], int]], expected: Sequence[float], limit: float) -> float:
    seen = [likelihood(model, ids, start) for ids, start in texts]
    gaps = [abs(one - other) / (len(ids) - start) for one, other, (ids, start) in zip(seen, expected, texts, strict=True)]
    # NaN is no number below the limit, wherever it stands
    wrong = [gap for gap in gaps if not gap <= limit]
    if wrong:
        raise CheckpointError(
            f"the exported model differs from the run's by {wrong[0]:.4f} nats per token over {len(gaps)} references; "
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
    facts = Facts.of(run, found.recipe, found.base, found.policies, found.phase, not found.is_adapter, "final")
    with atomic_directory(to) as work:
        if found.is_adapter:
            write_adapter(found, work)
        else:
            found.policies.tokenizer.save_pretrained(work)
        write_settings(found, work, facts)
        where = str((to if found.is_adapter else found.folder).resolve())
        (work / "README.md").write_text(facts.short(found.phase, where, str(to.resolve())), encoding="utf-8")
    return to
