"""coevo's GRPO step beside bare TRL's: the same model, LoRA, prompts, sampling and batches, a reward that costs nothing.

    python -m tests.bench.step [--shapes NAME ...] [--steps N] [--tokens N] [--rounds N] [--out FILE]

`trl` makes a GRPOTrainer and calls train(); `coevo` calls `coevo.train.grpo.train_grpo`, as every phase does. Each runs in
a process of its own, in turns, so that peaks of memory are its own and what else the machine does hits both. Weights are
random: of 29 M in float32 on a CPU, of Qwen3's 0.6 B, 4 B and 8 B shapes in bfloat16 on a GPU, with gradient checkpointing.

A step is from one reward call to the next: training on what was rewarded, then writing the next completions and reading
them under the reference. The first is left out. Floating-point operations are counted as 2 a weight and token: once to
write, once under the reference, twice to train (forward, and backward through the activations, as the weights of LoRA are
few); computing activations again is not counted, attention neither.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from coevo.config import GRPO
from coevo.data import world
from coevo.lm.loading import load_tokenizer
from coevo.train.common import Job
from coevo.train.grpo import Completion, prompt_rows, sampling_arguments, train_grpo
from tests.bench import long

PROMPTS, GROUP, PROMPT_TOKENS, RANK = 8, 8, 512, 16
DENSE_BF16 = 989e12
"""Floating-point operations a second of an H100 or H200 in dense bfloat16, as NVIDIA states them."""
TURNS = ("trl", "coevo")


def work(weights: int, prompt: int, written: int) -> float:
    """Floating-point operations of a step.

    Args:
        weights: that a token is multiplied by: all but the embedding, the output head included.
        prompt: tokens of all prompts, each counted with every completion.
        written: tokens of all completions.
    """
    return 2.0 * weights * (prompt + written) * 4


def texts(tokenizer: Any, prompts: int) -> list[tuple[str, str]]:
    """(key, text) of prompts that have some 512 tokens each."""
    said = [f"{x.character} {x.query} {x.reference} " for x in world.generate("ShiftTrain", 40 * prompts, seed=3)]
    joined = ["".join(said[k::prompts]) for k in range(prompts)]
    return [(str(k), tokenizer.decode(tokenizer(text)["input_ids"][:PROMPT_TOKENS])) for k, text in enumerate(joined)]


def measure(turn: str, shape: str, steps: int, tokens: int) -> dict[str, Any]:
    """One training by one of the two; run in a process of its own."""
    cuda = torch.cuda.is_available()
    tokenizer = load_tokenizer(Path(str(resources.files("coevo.lm") / "builtin")))
    base: Any = long.build(shape)
    weights = sum(p.numel() for p in base.parameters()) - (
        0 if base.config.tie_word_embeddings else base.get_input_embeddings().weight.numel()
    )
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    config = GRPO(steps=steps, prompts=PROMPTS, group=GROUP, accumulation=8, save_steps=10**6)
    rows = texts(tokenizer, PROMPTS) * steps
    rewarded: list[float] = []
    trained: list[float] = []

    def mark(marks: list[float]) -> None:
        if cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    def reward(completions: Sequence[Completion], step: int) -> list[float | None]:
        mark(rewarded)
        return [float(k % GROUP) for k in range(len(completions))]

    def bare(completions: Sequence[Any], **_: Any) -> list[float]:
        mark(rewarded)
        return [float(k % GROUP) for k in range(len(completions))]

    class Clock(TrainerCallback):
        def on_log(self, *_: Any, **__: Any) -> None:
            mark(trained)

    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            model=model,
            tokenizer=tokenizer,
            checkpoints=Path(folder),
            seed=1,
            resume=False,
            on_step=lambda step, metrics: mark(trained),
            gradient_checkpointing=cuda,
            bf16=cuda,
        )
        if turn == "coevo":
            train_grpo(job, rows, reward, config, tokens)
        else:
            arguments = sampling_arguments(job, config, tokens) | {"max_steps": steps, "scale_rewards": config.scale_rewards}
            GRPOTrainer(
                model=model,
                reward_funcs=bare,
                args=GRPOConfig(**arguments),
                train_dataset=prompt_rows(rows),
                processing_class=tokenizer,
                callbacks=[Clock()],
            ).train()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "steps_s": [later - before for before, later in itertools.pairwise(rewarded[1:])],
        "training_s": [end - start for start, end in zip(rewarded[1:], trained[1:], strict=False)],
        "peak_bytes": peak,
        "weights": weights,
        "prompt_tokens": GROUP * sum(len(tokenizer(text)["input_ids"]) for _, text in rows[:PROMPTS]),
        "card": torch.cuda.get_device_name() if cuda else "CPU",
    }


def child(turn: str, shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """The measure of a process of its own, or its last line where it failed, as of memory."""
    command = [sys.executable, "-m", "tests.bench.step", "--child", turn, "--shapes", shape]
    command += ["--steps", str(options.steps), "--tokens", str(options.tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def summary(shape: str, turn: str, found: Sequence[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """One row of the table from all rounds of one of the two."""
    if failed := [one["failed"] for one in found if "failed" in one]:
        return {"shape": shape, "turn": turn, "failed": failed[0]}
    steps = [s for one in found for s in one["steps_s"]]
    training = statistics.median(s for one in found for s in one["training_s"])
    step, first = statistics.median(steps), found[0]
    written = PROMPTS * GROUP * tokens
    row = {
        "shape": shape,
        "turn": turn,
        "card": first["card"],
        "step_s": step,
        "least_s": min(steps),
        "most_s": max(steps),
        "training_s": training,
        "written_per_s": written / (step - training),
        "trained_per_s": (first["prompt_tokens"] + written) / training,
        "peak_gib": max(one["peak_bytes"] for one in found) / 2**30,
    }
    if first["card"] != "CPU":
        row["mfu"] = work(first["weights"], first["prompt_tokens"], written) / step / DENSE_BF16
    return row


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    head = f"{row['shape']:12} {row['turn']:6}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    mfu = f"  MFU {row['mfu']:5.1%}" if "mfu" in row else ""
    return (
        f"{head} {row['step_s']:7.2f} s a step ({row['least_s']:.2f} to {row['most_s']:.2f}), "
        f"{row['training_s']:6.2f} s of it training; {row['written_per_s']:7.0f} tokens/s written, "
        f"{row['trained_per_s']:7.0f} trained; "
        f"{row['peak_gib']:6.2f} GiB{mfu}"
    )


def main() -> None:
    """Reads the command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = [*long.SHAPES] if cuda else [*long.SHAPES][:1]
    parser.add_argument("--shapes", nargs="+", choices=long.SHAPES, default=shapes, metavar="NAME")
    parser.add_argument("--steps", type=int, default=6, help="of a training, the first two of which are not measured")
    parser.add_argument("--tokens", type=int, default=256 if cuda else 32, help="of a completion")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each")
    parser.add_argument("--out", type=Path, help="rows as JSON, written after every shape")
    parser.add_argument("--child", choices=TURNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 3:
        parser.error("--steps: expected 3 or more, as a step is measured between two reward calls after the first")
    if options.child:
        print(json.dumps(measure(options.child, options.shapes[0], options.steps, options.tokens)))
        return
    rows = []
    for shape in options.shapes:
        found: dict[str, list[dict[str, Any]]] = {turn: [] for turn in TURNS}
        for k in range(options.rounds):
            for turn in TURNS if k % 2 == 0 else TURNS[::-1]:
                found[turn].append(child(turn, shape, options))
        rows += [summary(shape, turn, found[turn], options.tokens) for turn in TURNS]
        print("\n".join(line(row) for row in rows[-2:]), flush=True)
        if all("step_s" in row for row in rows[-2:]):
            print(f"{shape:12} coevo / trl: {rows[-1]['step_s'] / rows[-2]['step_s']:.3f}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
