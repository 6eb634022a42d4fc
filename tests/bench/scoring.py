"""What shared prefixes spare: every pair fed whole against each prompt computed once, side by side in one process.

    python -m tests.bench.scoring [evaluation] [evaluation-again] [reward] [long]
        [--tokens-per-batch N] [--repeats N] [--contexts N]

`evaluation` is a circulant design on the world: 12 subsets of 50 scenarios, K = 4, references included, and
`evaluation-again` the same with the references' likelihoods known. `reward` is one call of GRPO's: 64 completions in 8
groups, each in its own context and in none. Both on the base that ships. `long` has contexts of 1,000 tokens with 17
responses of 100 each, on random weights, and beside these two the released code's procedure: see `tests.bench.long`.
Seconds are of processor time, the least of the repeats; on a GPU, of wall time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from coevo.config import Evaluation, Limits
from coevo.data import world
from coevo.lm.likelihood import score_pairs
from coevo.lm.loading import load_policy, load_tokenizer
from coevo.lm.prefix import Pair
from coevo.rewards.parts import fits
from coevo.scoring.evaluate import measure
from coevo.scoring.scorer import Scorer
from coevo.types import Response, Scenario, Score
from tests.bench import long

BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))
TOKENIZER = load_tokenizer(BUILTIN)
LIMITS = Limits()


def answers(scenarios: Sequence[Scenario]) -> list[str]:
    """References in which one slot in five is drawn at random."""
    rng = random.Random(4)
    return [world.sample_reference(world.parse_scenario(x), rng, noise=0.2) for x in scenarios]


def evaluation(scorer: Scorer, again: bool = False) -> None:
    """A run's first evaluation, or its last, which reads the references' likelihoods from the first."""
    tests = [
        x for split, tags in world.SPLITS.items() if split.endswith("Test") for x in world.generate(split, 50 * len(tags), 0)
    ]
    said = [Response(x.sample_id, text, "rpm") for x, text in zip(tests, answers(tests), strict=True)]
    design, cache = Evaluation(k=4, resamples=20), {}
    if again:
        measure(
            mock.Mock(version="", score=lambda asks: [Score(0.0, 1)] * len(asks)),
            tests,
            said,
            design,
            0,
            reference_cache=cache,
        )
    measure(scorer, tests, said, design, 0, reference_cache=cache)


def reward(scorer: Scorer) -> None:
    """One call of the RPM's reward."""
    group = [x for x in world.generate("ShiftTrain", 8, seed=3) for _ in range(8)]
    fits(scorer, group, answers(group))


def asked(ask: Callable[[Scorer], None]) -> list[Pair]:
    """The pairs that the scorer would have scored."""
    pairs: list[Pair] = []

    def listen(model: Any, tokenizer: Any, some: Sequence[Pair], **limits: int) -> list[Score]:
        pairs.extend(some)
        return [Score(0.0, 1)] * len(some)

    with mock.patch("coevo.scoring.scorer.score_pairs", listen):
        start = time.process_time()
        ask(Scorer(mock.Mock(), TOKENIZER, "", LIMITS.prompt + LIMITS.response))
        print(f"  {len(pairs)} pairs; {time.process_time() - start:.2f} s to write, encode and order them")
    return pairs


WORKLOADS: dict[str, Callable[[], list[Pair]]] = {
    "evaluation": lambda: asked(evaluation),
    "evaluation-again": lambda: asked(lambda scorer: evaluation(scorer, again=True)),
    "reward": lambda: asked(reward),
}


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[list[int]]:
    """[forward calls, tokens fed], padding included."""
    counts = [0, 0]

    def count(module: Any, args: Any, inputs: dict[str, Any]) -> None:
        counts[0] += 1
        counts[1] += inputs["input_ids"].numel()

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    yield counts
    handle.remove()


def run(model: Any, pairs: list[Pair], budget: int, share: bool) -> tuple[float, list[int], torch.Tensor]:
    """Seconds, counts and nats of scoring the pairs once."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    rule = mock.patch("coevo.lm.likelihood.can_share", lambda model: share)
    with rule, counted(model) as counts:
        start = clock()
        scores = score_pairs(model, TOKENIZER, pairs, max_length=2048, tokens_per_batch=budget)
        return clock() - start, counts, torch.tensor([score.logprob_nats for score in scores], dtype=torch.float64)


def compare(name: str, budget: int, repeats: int) -> None:
    """Prints one workload's table."""
    print(name)
    pairs = WORKLOADS[name]()
    model = load_policy(BUILTIN, None, trainable=False, dtype="float32")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    # each distinct prompt once but for its last token, and each response after that token but for its own last
    prompts = {tuple(prompt) for prompt, _ in pairs}
    floor = sum(len(prompt) - 1 for prompt in prompts) + sum(len(response) for _, response in pairs)
    print(f"  {len(prompts)} prompts; at least {floor} tokens must be fed, padding apart")
    found = [[run(model, pairs, budget, share) for share in (False, True)] for _ in range(repeats)]
    seconds = [min(both[k][0] for both in found) for k in range(2)]
    for label, second, (_, (calls, tokens), _) in zip(("whole", "shared"), seconds, found[0], strict=True):
        print(f"  {label:6} {second:8.2f} s  {len(pairs) / second:7.0f} pairs/s  {calls:5} calls  {tokens:8} tokens fed")
    (_, whole, first), (_, shared, second_) = found[0]
    print(f"  tokens {whole[1] / shared[1]:.2f} times fewer, {seconds[0] / seconds[1]:.2f} times as fast; ", end="")
    print(f"largest difference {(first - second_).abs().max():.1e} nats")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*WORKLOADS, "long"]
    parser.add_argument("workloads", nargs="*", default=[], choices=[*names, []], metavar="WORKLOAD")
    parser.add_argument("--tokens-per-batch", type=int, default=LIMITS.tokens_per_batch)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contexts", type=int, default=2, help="of long")
    options = parser.parse_args()

    def resident(model: Any, pairs: list[Pair], share: bool) -> tuple[float, torch.Tensor]:
        seconds, _, nats = run(model, pairs, options.tokens_per_batch, share)
        return seconds, nats

    for name in options.workloads or names:
        if name != "long":
            compare(name, options.tokens_per_batch, options.repeats)
            continue
        for shape in long.shapes():
            long.compare(shape, resident, options.contexts, options.repeats)


if __name__ == "__main__":
    main()
