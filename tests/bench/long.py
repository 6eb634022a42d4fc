"""The scoring plan beside the two procedures that it is measured against, on long contexts with K = 16.

A design is one scenario's: its context of 1,000 tokens, and 17 responses of 100. Three procedures score the same pairs:

    released  the released code's: each design is a reward call of its own, see `tests.bench.released`
    resident  one model that stays, every pair fed whole, batches by length
    plan      the same with each context computed once, as coevo scores

By tokens the plan can be 17 × 1,100 / (1,000 + 17 × 100) = 6.9 times as fast as `resident`.

How many pairs a call of the released code has is the trainer's affair: its GRPO has batches of 4 completions a device, 8 of
them accumulated, and a reward call gets 4 completions or 32, by the release of TRL. The call that is timed has 17, which is
between. The seconds of starting and loading are shown apart, and with them what calls of 4 and 32 would come to.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from coevo.lm.prefix import Pair

CONTEXT, RESPONSE, RESPONSES = 1000, 100, 17
LIMIT = RESPONSES * (CONTEXT + RESPONSE) / (CONTEXT + RESPONSES * RESPONSE)
OTHER_CALLS = (4, 32)
TOLERANCE_NATS = 1e-4
"""In float32. In bfloat16 the order of a sum alone moves a likelihood by more."""
# hidden, intermediate, layers, heads, key-value heads, head dimensions, vocabulary, tied embeddings
SHAPES = {
    "29 M": (512, 1408, 9, 8, 4, 64, 4096, True),
    "Qwen3-0.6B": (1024, 3072, 28, 16, 8, 128, 151_936, True),
    "Qwen3-4B": (2560, 9728, 36, 32, 8, 128, 151_936, True),
    "Qwen3-8B": (4096, 12288, 36, 32, 8, 128, 151_936, False),
}
Run = Callable[[PreTrainedModel, list[Pair], bool], tuple[float, torch.Tensor]]
"""(model, pairs, whether contexts are shared) -> seconds and nats in one resident model."""


def build(name: str) -> PreTrainedModel:
    """Random weights: float32 for the small shape, bfloat16 for Qwen3's."""
    fields = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size "
        "tie_word_embeddings"
    )
    config = Qwen3Config(max_position_embeddings=2048, **dict(zip(fields.split(), SHAPES[name], strict=True)))
    dtype = torch.float32 if config.vocab_size == 4096 else torch.bfloat16
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)


def designs(contexts: int) -> list[list[Pair]]:
    """Random ids; the responses are each context's own."""
    rng = random.Random(0)

    def draw(length: int) -> list[int]:
        return [rng.randrange(5, 4096) for _ in range(length)]

    return [[(context, draw(RESPONSE)) for _ in range(RESPONSES)] for context in [draw(CONTEXT) for _ in range(contexts)]]


def seconds_spent(children: bool = False) -> float:
    """Processor time of this process or of those that it started and that have ended; on a GPU, wall time."""
    if torch.cuda.is_available():
        return time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def released(folder: str, design: Sequence[Pair]) -> tuple[float, float, list[float]]:
    """Seconds of starting and loading, seconds of scoring, and nats, of one reward call."""
    start = seconds_spent(children=True)
    command = [sys.executable, "-m", "tests.bench.released", folder]
    child = subprocess.run(command, input=json.dumps(design), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(child.stdout)
    return seconds_spent(children=True) - start - found["scoring_s"], found["scoring_s"], found["nats"]


def matrix_rate(model: PreTrainedModel) -> float:
    """Floating-point operations a second of one square product in the model's type, the best of ten."""
    size, best = (8192 if model.device.type == "cuda" else 1024), float("inf")
    left = torch.randn(size, size, device=model.device, dtype=model.dtype)
    for _ in range(10):
        start = seconds_spent()
        (left @ left)[0, 0].item()
        best = min(best, seconds_spent() - start)
    return 2 * size**3 / best


def work(model: PreTrainedModel, contexts: int, shared: bool) -> float:
    """Floating-point operations that the pairs need, counted as 2 a multiplication, padding apart.

    Each fed token goes through every layer's matrices and attends to what is before it; each response's token needs the
    output head once.
    """
    config = model.config
    heads = config.num_attention_heads * config.head_dim
    embeddings = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for p in model.parameters()) - embeddings * (1 if config.tie_word_embeddings else 2)

    def tokens(first: int, last: int) -> float:
        attended = (last * (last + 1) - first * (first + 1)) / 2
        return 2 * layers * (last - first) + 4 * config.num_hidden_layers * heads * attended

    end, prefix = CONTEXT + RESPONSE - 1, CONTEXT - 1
    fed = tokens(0, prefix) + RESPONSES * tokens(prefix, end) if shared else RESPONSES * tokens(0, end)
    return contexts * (fed + RESPONSES * RESPONSE * 2 * embeddings)


def compare(name: str, run: Run, contexts: int, repeats: int) -> None:
    """Prints one shape's table.

    Raises:
        SystemExit: in float32 the three do not agree.
    """
    model = build(name)
    calls = designs(contexts)
    pairs = [pair for call in calls for pair in call]
    print(f"{name}, {model.dtype}, {model.device.type}; {contexts} × {RESPONSES} pairs", flush=True)
    run(model, pairs, True)  # the model stays: what only its first calls cost is not counted
    resident, plan, fresh, rates = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for _ in range(repeats):
            rates.append(matrix_rate(model))
            plan.append(run(model, pairs, True))
            resident.append(run(model, pairs, False))
            fresh.append([released(folder, call) for call in calls])
    load, alone = (min(sum(call[part] for call in found) for found in fresh) for part in (0, 1))
    whole, shared = (min(seconds for seconds, _ in found) for found in (resident, plan))
    print(f"  {'':42}{'s':>9}{'pairs/s':>10}   the plan is")
    for label, seconds in (
        ("released: start, load, batches of 4", load + alone),
        ("  without start and load", alone),
        *((f"  the same in calls of {n}", load / contexts * len(pairs) / n + alone) for n in OTHER_CALLS),
        ("resident, batches by length", whole),
        ("plan", shared),
    ):
        print(f"  {label:42}{seconds:9.3f}{len(pairs) / seconds:10.2f}{seconds / shared:9.2f} ×")
    print(f"  limit by tokens: {RESPONSES} × {CONTEXT + RESPONSE} / ({CONTEXT} + {RESPONSES} × {RESPONSE}) = {LIMIT:.2f}")
    rate, (much, least) = max(rates), (work(model, contexts, shared=share) for share in (False, True))
    print(f"  {much / 1e12:.2f} TFLOP whole, {least / 1e12:.2f} planned: {much / least:.2f} times less")
    whole_share, plan_share = much / whole / rate, least / shared / rate
    print(f"  matrix rate {rate / 1e12:.3f} TFLOP/s, of which resident reaches {whole_share:.0%}, plan {plan_share:.0%}")
    expected = plan[0][1]
    others = resident[0][1], torch.tensor([x for call in fresh[0] for x in call[2]], dtype=torch.float64)
    difference = max((nats - expected).abs().max().item() for nats in others)
    print(f"  largest difference {difference:.1e} nats of {-expected.mean():.0f}")
    if model.dtype == torch.float32 and not difference <= TOLERANCE_NATS:
        raise SystemExit(f"likelihoods differ by {difference:.1e} nats, expected at most {TOLERANCE_NATS:.0e}")


def shapes() -> list[str]:
    """Qwen3's only where there is a GPU."""
    return list(SHAPES) if torch.cuda.is_available() else list(SHAPES)[:1]
