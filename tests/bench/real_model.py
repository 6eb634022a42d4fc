"""Where a pretrained model spends its time on a CPU: reading prompts, writing, and what sharing and precision spare.

    OMP_NUM_THREADS=1 python -m tests.bench.real_model MODEL

MODEL is a folder or hub id. Six prompts of 150 to 300 tokens, four completions of 48 tokens each, as a step of GRPO samples
them; processor seconds, so that a busy machine distorts little. The lines are: reading alone, sampling with every prompt
read for each completion, with each prompt read once, and one token after another with keys and values repeated for grouped
heads or not (`TRANSFORMERS_SDPA_FORCE_GQA`); then a step of training on the same 24 rows, forward and backward, with LoRA on
all linear layers, and its parts in bfloat16.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GenerationConfig

from coevo.layout import align
from coevo.lm.generation import equal_prompts_once
from coevo.lm.loading import load_policy, new_adapter
from coevo.lm.prefix import Prefixes
from coevo.loop.context import LoRASeeded

LENGTHS, GROUP, NEW = (300, 280, 260, 220, 200, 150), 4, 48
STEPS = 10
GQA = "TRANSFORMERS_SDPA_FORCE_GQA"


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of a second call; the first one warms up."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    options = parser.parse_args()
    torch.manual_seed(0)
    prompts = [torch.randint(5, 1000, (size,)).tolist() for size in LENGTHS]
    width, rows = max(LENGTHS), [prompt for prompt in prompts for _ in range(GROUP)]
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    settings = GenerationConfig(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0, eos_token_id=2)
    columns = []
    for dtype in ("float32", "bfloat16"):
        column = _measure(_load(options.model, dtype), prompts, ids, mask, settings)
        trainee = _trainee(options.model, dtype)
        column["training, a step, s"] = seconds(partial(_forward_backward, trainee, ids, mask))
        columns.append(column)
    rows_of = [[name, *(f"{column[name]:.1f}" for column in columns)] for name in columns[0]]
    print(align([["", "float32", "bfloat16"], *rows_of]))
    shares = align([[name, f"{share:.0%}"] for name, share in _shares(_trainee(options.model, "bfloat16"), ids, mask)])
    print("\nA step of training in bfloat16, by operation:\n" + shares)


def _load(model: str, dtype: str) -> Any:
    return load_policy(model, None, trainable=False, dtype=dtype)


def _trainee(model: str, dtype: str) -> Any:
    base: Any = load_policy(model, None, trainable=True, dtype=dtype)
    return new_adapter(base, LoRASeeded(16, 32, 0.0, 0)).train()


def _forward_backward(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=NEW).logits
    logits.float().logsumexp(-1).mean().backward()


def _shares(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[tuple[str, float]]:
    """The operations that take at least a fiftieth of a step's processor time, and the share of each."""
    _forward_backward(model, ids, mask)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        _forward_backward(model, ids, mask)
    times = [(event.key, event.self_cpu_time_total) for event in found.key_averages()]
    total = sum(time for _, time in times)
    return sorted(((name, t / total) for name, t in times if t >= total / 50), key=lambda entry: -entry[1])


def _measure(
    model: Any, prompts: list[list[int]], ids: torch.Tensor, mask: torch.Tensor, settings: GenerationConfig
) -> dict[str, float]:
    found: dict[str, float] = {}
    with torch.inference_mode():
        read = seconds(lambda: model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1))
        found["reading, tokens a second"] = int(mask.sum()) / read
        sample = lambda: model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)  # noqa: E731
        found["sampling, every prompt read for each completion, s"] = seconds(sample)
        with equal_prompts_once(model):
            found["sampling, each prompt read once, s"] = seconds(sample)
        prefixes = Prefixes.compute(model, prompts, 0, mask.device)
        for name, flag in (("grouped", "1"), ("repeated", "0")):
            os.environ[GQA] = flag
            written = STEPS * len(ids) / seconds(lambda: _steps(model, prefixes, mask))
            found[f"writing, keys and values {name}, tokens a second"] = written
    return found


def _steps(model: Any, prefixes: Prefixes, mask: torch.Tensor) -> None:
    """Some tokens of every row, after prompts that are in the cache."""
    _, cache = prefixes.of(torch.arange(len(mask)) // GROUP)
    for _ in range(STEPS):
        mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.long)], dim=1)
        model(input_ids=mask[:, -1:] + 5, attention_mask=mask, past_key_values=cache, use_cache=True)


if __name__ == "__main__":
    main()
