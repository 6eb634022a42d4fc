"""The model card of an exported model: what it is, what was measured, how it is prompted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coevo.config import FileData, Recipe
from coevo.escape import plain, plain_code
from coevo.export.asking import EXAMPLE, FORMAT_FILE, Asking
from coevo.export.licence import licence
from coevo.files import sha256_of
from coevo.lm.lineage import read_lineage
from coevo.loop.context import Policies
from coevo.records import read_json
from coevo.report import shapes
from coevo.report.read import AFTER, AGAIN, BEFORE
from coevo.scoring.claims import LEAST, scored, shown
from coevo.types import Lineage

SHIFTS = {"user": "other users", "character": "other characters", "dialogue": "other dialogues"}


@dataclass(frozen=True)
class Facts:
    """What a card says."""

    name: str
    recipe_sha256: str
    method: str
    data: str
    base: str
    """A hub id, or a folder."""
    own_base: str
    """What a base is that was not given by anybody; empty for others."""
    merged: bool
    folder: str
    before: Mapping[str, Any] | None
    """evaluation/sft.json, or None."""
    after: Mapping[str, Any] | None
    asking: Asking
    lineage: Lineage
    dtype: str
    """What the run computed in: the base may be stored in another."""

    @classmethod
    def of(cls, run: Path, recipe: Recipe, base: str, policies: Policies, phase: str, merged: bool, folder: str) -> Facts:
        """Read off a run.

        Raises:
            DataError: an evaluation that is damaged.
        """
        return cls(
            name=recipe.name,
            recipe_sha256=sha256_of(run / "resolved.yaml"),
            method=recipe.method.kind,
            data=_data(recipe),
            base=base,
            own_base=_own_base(recipe),
            merged=merged,
            folder=folder,
            before=_evaluation(run, BEFORE),
            after=_evaluation(run, AFTER),
            asking=Asking.of(policies),
            lineage=read_lineage(policies.folder.policy(phase)),
            dtype=str(policies.dtype).removeprefix("torch."),
        )

    @property
    def kind(self) -> str:
        """In words."""
        return "full weights" if self.merged else "a LoRA adapter"

    @property
    def base_is_here(self) -> bool:
        """Whether the base is a folder of this machine, which nobody else has by this name."""
        return Path(self.base).exists()

    def code(self, folder: str, tokenizer: str = "") -> str:
        """Lines that ask the model; the tokenizer may lie in another folder."""
        name = "AutoModelForCausalLM" if self.merged else "AutoPeftModelForCausalLM"
        own = "" if self.merged else f"from peft import {name}\n"
        imported = f"{name}, AutoTokenizer, GenerationConfig" if self.merged else "AutoTokenizer, GenerationConfig"
        beside = tokenizer or folder
        dialogue = [{"role": "user", "content": EXAMPLE.dialogue[0].text}]
        return f"""from jinja2.sandbox import ImmutableSandboxedEnvironment
{own}from transformers import {imported}

persona, character = {EXAMPLE.persona!r}, {EXAMPLE.character!r}
dialogue = {json.dumps(dialogue)}

tokenizer = AutoTokenizer.from_pretrained({beside!r})
model = {name}.from_pretrained({folder!r}, dtype={self.dtype!r})
settings = GenerationConfig.from_pretrained({beside!r}, max_new_tokens={self.asking.max_new_tokens})
{self.asking.messages_code()}
{self.asking.prompt_code()}
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
answer = model.generate(**inputs, generation_config=settings)
text = tokenizer.decode(answer[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print({self.asking.reply_code()})
"""

    def short(self, phase: str, where: str, here: str) -> str:
        """RUN/final/README.md.

        Args:
            phase: that wrote the weights.
            where: they are.
            here: the folder of the README and the tokenizer.
        """
        kind = self.kind if self.merged else f"{self.kind} on {plain(self.base)}"
        return f"""# {plain(self.name)}: the final role-playing model

Weights: {plain(where)} (phase {plain(phase)}), {kind}.

- Talk to it: `coevo chat RUN --character CARD`
- Answers to a file: `coevo generate --data FILE --model RUN`
- Full weights, checked, with a model card: `coevo export RUN --to DIR --merge`
- From Python:

```python
{self.code(where, here)}```
"""


_CARD = """---
{head}
---

# {name}

A role-playing model: {kind}, trained with coevo (method `{method}`) from {base}, whose licence is: {licence}.

- Data: {data}.
- Recipe: {recipe}, sha256 {recipe_sha256}…; coevo {version}.
- Weights: sha256 {sha256}…, of the phase {phase}; they began from {parent}; base: sha256 {base_sha256}….
- {checked}

## What was measured

{measured}

## Limits

It was measured on the tests above and on nothing else. R-EMID says what a reply tells of its scene, by one scorer, which is
the run's own and may have been trained on; it says nothing of harm, of truth, or of languages that the scorer does not read.

## How to ask it

```python
{code}```

{prompt}
`dialogue` is in turns of `user` and `assistant`. A character that is an object is written `key: value; key: value`, a list
in it `one / two`. No text may hold the chat template's control tokens. `{format_file}` says the same to other programs.

{elsewhere}
"""


def model_card(facts: Facts, checked: str) -> str:
    """README.md of the exported folder; `checked` says how it was compared."""
    lineage, asking = facts.lineage, facts.asking
    return _CARD.format(
        head="\n".join(_head(facts)),
        name=plain(facts.name),
        kind=facts.kind,
        method=facts.method,
        base=plain(facts.base) + (f" ({facts.own_base})" if facts.own_base else ""),
        licence=plain(licence(facts.base, facts.own_base)),
        data=plain(facts.data),
        recipe=plain_code(facts.name),
        recipe_sha256=facts.recipe_sha256[:16],
        version=_version(),
        sha256=lineage.sha256[:16],
        phase=plain(lineage.phase),
        parent=f"weights of sha256 {lineage.parent[:16]}…" if lineage.parent else "the base",
        base_sha256=lineage.base[:16],
        checked=checked,
        measured="\n".join(_measured(facts)),
        code=facts.code(facts.folder),
        prompt="This gives the very prompt that it was taught to read."
        if not asking.differs
        else f"This is near to the prompt that it was taught to read, but {plain(asking.differs)}; `coevo chat` gives it.",
        format_file=FORMAT_FILE,
        elsewhere=_elsewhere(facts),
    )


def _head(facts: Facts) -> list[str]:
    """The hub's fields. It refuses a base that is no id of its own."""
    base = [] if facts.base_is_here else [f"base_model: {json.dumps(facts.base)}"]
    return [*base, f"library_name: {'transformers' if facts.merged else 'peft'}", "tags: [role-play, coevo]"]


def _data(recipe: Recipe) -> str:
    data = recipe.data
    if isinstance(data, FileData):
        return f"the file {data.path.name} (training split {data.train_split}; tests {', '.join(data.test_splits)})"
    return f"the synthetic world of coevo ({data.train:,} training scenarios, {data.test:,} tests a subset)"


def _own_base(recipe: Recipe) -> str:
    if recipe.pretrain is not None:
        return "pretrained by this very run"
    return "the small base that ships with coevo" if recipe.base.path == "builtin" else ""


def _measured(facts: Facts) -> list[str]:
    """R-EMI at home and R-EMID by shift, before and after."""
    if facts.after is None and facts.before is None:
        return ["Nothing: the run has no evaluation."]
    rows = ["| | before | after |", "|---|---:|---:|"]
    names = {"id": "R-EMI at home", **{shift: f"R-EMID under {said}" for shift, said in SHIFTS.items()}}
    for shift, said in names.items():
        measure = "remi" if shift == "id" else "remid"
        cells = [_cell(one, shift, measure) for one in (facts.before, facts.after)]
        rows.append(f"| {said} | {' | '.join(cells)} |")
    scale = str((facts.after or facts.before or {}).get("scale", ""))
    unit = "nats per token" if scale == "token_mean" else "nats per response"
    rows += ["", f"In {unit}, 95 % intervals in brackets. R-EMID above 0 is a loss under the shift."]
    few = _few(facts.after or facts.before or {})
    if few:
        rows.append(f"Fewer than {LEAST} responses have a score in {plain(few)}: too few for an interval to be believed.")
    return rows


def _cell(evaluation: Mapping[str, Any] | None, shift: str, measure: str) -> str:
    found = ((evaluation or {}).get("shifts", {}).get(shift) or {}).get(measure)
    return shown(found, str((evaluation or {}).get("scale", ""))) if found else "not measured"


def _few(evaluation: Mapping[str, Any]) -> str:
    counts = {tag: scored(entry) for tag, entry in evaluation.get("subsets", {}).items()}
    return ", ".join(f"{tag} ({n})" for tag, n in counts.items() if n < LEAST)


def _elsewhere(facts: Facts) -> str:
    """Programs that were not run when the card was written."""
    folder = plain_code(facts.folder)
    if facts.merged:
        served = "`vllm serve DIR`; GGUF, by llama.cpp: `python convert_hf_to_gguf.py DIR`"
    else:
        served = "`vllm serve BASE --enable-lora --lora-modules rpm=DIR`; for a GGUF, export full weights"
        folder += f" and BASE {plain_code(facts.base)}"
    return f"vLLM: {served}; DIR is {folder}. Neither was run when this card was written."


def _evaluation(run: Path, name: str) -> dict[str, Any] | None:
    path = run / "evaluation" / f"{name}.json"
    return read_json(path, shapes.EVALUATION, AGAIN) if path.is_file() else None


def _version() -> str:
    try:
        return version("coevo")
    except PackageNotFoundError:
        return "of a checkout"
