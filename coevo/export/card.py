"""The model card of an exported model: what it is, what was measured, how it is prompted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.config import FileData, Recipe
from coevo.escape import plain, plain_code
from coevo.lm.likelihood import render
from coevo.lm.lineage import read_lineage
from coevo.lm.loading import local_directory
from coevo.loop.context import Policies
from coevo.scoring.claims import shown
from coevo.types import Scenario, Turn

EXAMPLE = Scenario(
    "example", "Chat", "Chat", "Joe, a nurse.", "Ada Lovelace, a mathematician.", (Turn("user", "Who are you?"),), ""
)
SHIFTS = {"user": "other users", "character": "other characters", "dialogue": "other dialogues"}


@dataclass(frozen=True)
class Facts:
    """What a card says."""

    name: str
    recipe: str
    method: str
    data: str
    base: str
    licence: str
    merged: bool
    folder: str
    before: Mapping[str, Any] | None
    """evaluation/sft.json, or None."""
    after: Mapping[str, Any] | None
    messages: list[dict[str, str]]
    """That ask for the example's answer."""
    arguments: str
    """Of apply_chat_template, beside the messages."""
    same_prompt: bool
    """Whether these messages by the plain template are what coevo's model was taught to read."""
    sha256: str
    dtype: str
    """What the run computed in: the base may be stored in another."""

    @classmethod
    def of(cls, run: Path, recipe: Recipe, base: str, policies: Policies, merged: bool, folder: str) -> Facts:
        """Read off a run."""
        data = recipe.data
        messages = policies.prompts.messages("rpm", EXAMPLE)
        arguments, same = _plainly(policies.tokenizer, messages)
        return cls(
            name=recipe.name,
            recipe=str(run / "resolved.yaml"),
            method=recipe.method.kind,
            data=f"{data.path.name} (splits {data.train_split}; tests {', '.join(data.test_splits)})"
            if isinstance(data, FileData)
            else "the synthetic world of coevo",
            base=base,
            licence=_licence(base),
            merged=merged,
            folder=folder,
            before=_evaluation(run, "sft"),
            after=_evaluation(run, "final"),
            messages=messages,
            arguments=arguments,
            same_prompt=same,
            sha256=_hash(policies),
            dtype=str(policies.dtype).removeprefix("torch."),
        )

    def code(self, folder: str, tokenizer: str = "") -> str:
        """Lines that ask the model; the tokenizer may lie in another folder."""
        name = "AutoModelForCausalLM" if self.merged else "AutoPeftModelForCausalLM"
        package = "transformers" if self.merged else "peft"
        return f"""from {package} import {name}
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({tokenizer or folder!r})
model = {name}.from_pretrained({folder!r}, dtype={self.dtype!r})
messages = {json.dumps(self.messages, ensure_ascii=False)}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{self.arguments}
)
answer = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0][inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""

    def short(self, phase: str, where: str, here: str) -> str:
        """RUN/final/README.md.

        Args:
            phase: that wrote the weights.
            where: they are.
            here: the folder of the README and the tokenizer.
        """
        kind = "full weights" if self.merged else f"a LoRA adapter on {plain(self.base)}"
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
base_model: {base_json}
library_name: {library}
tags: [role-play, coevo]
---

# {name}

A role-playing model: {kind}, trained with coevo (method `{method}`) from {base}, whose licence is: {licence}.

- Data: {data}.
- Recipe: {recipe}. Weights: sha256 {sha256}…
- {checked}

## What was measured

{measured}

## Limits

It was measured on the tests above and on nothing else. R-EMID says what a reply tells of its scene, by one scorer; it says
nothing of harm, of truth, or of languages that the scorer does not read.

## How to ask it

```python
{code}```

{prompt}
The first message names the character and the user, in this form; the dialogue follows in turns.

{elsewhere}
"""


def model_card(facts: Facts, difference: float | None) -> str:
    """README.md of the exported folder."""
    near = "the run's data are not here" if difference is None else f"{difference:.1g}"
    return _CARD.format(
        base_json=json.dumps(facts.base),
        library="transformers" if facts.merged else "peft",
        name=plain(facts.name),
        kind="full weights" if facts.merged else "a LoRA adapter",
        method=facts.method,
        base=plain(facts.base),
        licence=plain(facts.licence),
        data=plain(facts.data),
        recipe=plain_code(facts.recipe),
        sha256=facts.sha256[:16],
        checked=f"Its likelihoods could not be compared with the run's: {near}."
        if difference is None
        else f"Loaded again, its log-likelihoods are the run's own within {near} nats per token.",
        measured="\n".join(_measured(facts)),
        code=facts.code(facts.folder),
        prompt="These messages give the very prompt that it was taught to read."
        if facts.same_prompt
        else "The chat template alone does not give the very prompt that it was taught to read; `coevo chat` does.",
        elsewhere=_elsewhere(facts),
    )


def _measured(facts: Facts) -> list[str]:
    """R-EMI at home and R-EMID by shift, before and after."""
    if facts.after is None and facts.before is None:
        return ["Nothing: the run has no evaluation."]
    rows = ["| | before | after |", "|---|---:|---:|"]
    names = {"id": "R-EMI at home", **{shift: f"R-EMID under {said}" for shift, said in SHIFTS.items()}}
    for shift, said in names.items():
        measure = "remi" if shift == "id" else "remid"
        cells = [_cell(one, shift, measure) for one in (facts.before, facts.after)]
        if any(cell != "not measured" for cell in cells):
            rows.append(f"| {said} | {' | '.join(cells)} |")
    scale = (facts.after or facts.before or {}).get("scale", "")
    return [*rows, "", f"Scale: {plain(str(scale))}, 95 % intervals in brackets. R-EMID above 0 is a loss under the shift."]


def _cell(evaluation: Mapping[str, Any] | None, shift: str, measure: str) -> str:
    found = ((evaluation or {}).get("shifts", {}).get(shift) or {}).get(measure)
    return shown(found, str((evaluation or {}).get("scale", ""))) if found else "not measured"


def _elsewhere(facts: Facts) -> str:
    """Programs that were not run when the card was written."""
    if facts.merged:
        folder = shlex.quote(facts.folder)
        served = f"`vllm serve {folder}`; GGUF, by llama.cpp: `python convert_hf_to_gguf.py {folder}`"
    else:
        adapter = shlex.quote(f"{facts.name}={facts.folder}")
        served = (
            f"`vllm serve {shlex.quote(facts.base)} --enable-lora --lora-modules {adapter}`; for a GGUF, export full weights"
        )
    return f"vLLM: {served}. Neither was run when this card was written."


def _plainly(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[str, bool]:
    """Arguments with which the plain template gives coevo's own prompt, and whether any do."""
    wanted = render(tokenizer, messages)
    for text, arguments in (("", {}), (", enable_thinking=False", {"enable_thinking": False})):
        try:
            if tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **arguments) == wanted:
                return text, True
        except Exception:  # noqa: BLE001  # a template's own refusal
            continue
    return "", False


def _evaluation(run: Path, name: str) -> dict[str, Any] | None:
    path = run / "evaluation" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _licence(base: str) -> str:
    """As the base's own card says it."""
    try:
        card = local_directory(base) / "README.md"
        head = card.read_text(encoding="utf-8").split("---")[1] if card.is_file() else ""
    except (OSError, IndexError, UnicodeDecodeError):
        head = ""
    found = [line.partition(":")[2].strip() for line in head.splitlines() if line.startswith("license:")]
    return found[0] if found and found[0] else "unknown; look at the base"


def _hash(policies: Policies) -> str:
    from coevo.plan.plan import plan

    phase = policies.final_rpm(plan(policies.recipe))
    return read_lineage(policies.folder.policy(phase)).sha256
