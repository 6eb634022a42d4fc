"""A task with a known best answer, small enough to be learnt in seconds: four letters, paid by how many are right.

`python -m tests.helpers.bandit FOLDER lora|full KEY=VALUE…` trains on it from the base in FOLDER/base, under accelerate too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn.functional import cross_entropy

from coevo import dist
from coevo.config.training import PPO
from coevo.lm.lineage import weights_hash
from coevo.lm.loading import load_policy, load_tokenizer, new_adapter, save_policy
from coevo.lm.small import build_base, save_base, train_tokenizer
from coevo.train.common import Job
from coevo.train.grpo import Completion
from coevo.train.ppo import train_ppo

PROMPT = "<|user|>Four letters?<|end|><|agent|>"
LETTERS, ANSWER = "abcd", "cadb"
"""The base says the right letter twice as often as each other one, and so has two in five right."""
SHAPE = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 64, "max_position": 64}
SETTING = {"prompts": 8, "group": 8, "kl": 0.0, "save_steps": 1000}
"""64 completions a step, so that 31 steps are 1,984 of them."""
RATES = {"lora": 5e-3, "full": 1.5e-3}
"""Learning rates; a base of 0.03 M weights wants higher ones than a language model."""
LORA = SimpleNamespace(r=8, alpha=16, dropout=0.0, seed=0)


def letter_base(folder: Path, updates: int = 120) -> Path:
    """A base that answers four letters, each drawn on its own."""
    tokenizer = train_tokenizer(["Four letters?"] * 10, 290)
    model = build_base(tokenizer, SHAPE, seed=1)
    with torch.no_grad():
        # an adapter leaves the output head as it is; one whose letters are told apart so faintly could never be sure of any
        model.get_output_embeddings().weight.mul_(10)
    prompt = torch.tensor(tokenizer(PROMPT)["input_ids"])
    ids = torch.tensor([tokenizer(letter)["input_ids"][0] for letter in LETTERS])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)
    weights = torch.tensor([[2.0 if letter == right else 1.0 for letter in LETTERS] for right in ANSWER])
    for _ in range(updates):
        answers = ids[torch.multinomial(weights, 64, replacement=True, generator=draw).T]
        logits = model(torch.cat([prompt.expand(64, -1), answers], dim=1)).logits[:, len(prompt) - 1 : -1]
        optimizer.zero_grad()
        cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
        optimizer.step()
    save_base(folder / "base", model, tokenizer)
    return folder / "base"


@dataclass
class Bandit:
    """One phase on the task, in a folder of its own."""

    base: Path
    folder: Path
    lora: bool
    config: PPO
    parent: Path | None = None
    resume: bool = False
    scores: Callable[[str], bool] = lambda text: True
    """Whether a completion can be scored."""
    missing: int = 0
    """How many prompts too few there are."""
    log: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    """Of every step, the mean over all processes."""

    def train(self) -> bool:
        """Trains, saves the policy, and returns what the trainer did."""
        model = load_policy(self.base, self.parent, trainable=True, dtype="float32")
        if self.lora and self.parent is None:
            model = new_adapter(model, LORA)
        tokenizer = load_tokenizer(self.base)
        answer = [tokenizer(letter)["input_ids"][0] for letter in ANSWER]

        def reward(completions: Sequence[Completion], step: int) -> list[float | None]:
            assert step == len(self.rewards) + 1 or self.resume
            right = [sum(a == b for a, b in zip(c.tokens, answer, strict=False)) / len(answer) for c in completions]
            everyone = dist.gather(right)
            self.rewards.append(sum(everyone) / len(everyone))
            return [x if self.scores(c.text) else None for c, x in zip(completions, right, strict=True)]

        job = Job(model, tokenizer, self.folder / "checkpoints", 3, self.resume, lambda *row: self.log.append(row))
        prompts = [(str(place), PROMPT) for place in range(self.config.steps * self.config.prompts - self.missing)]
        learnt = train_ppo(job, prompts, reward, self.config, len(ANSWER))
        hashes = {"base_hash": weights_hash(self.base), "parent_hash": weights_hash(self.parent) if self.parent else None}
        save_policy(model, self.folder / "policy", role="rpm", phase="01-bandit", **hashes)
        return learnt


def main() -> None:
    """One training, as a process of a distributed run; rank 0 writes what it saw."""
    from coevo.loop.run import start_processes

    start_processes()
    folder, kind, *settings = sys.argv[1:]
    keys = {key: json.loads(value) for key, value in (setting.split("=") for setting in settings)}
    bandit = Bandit(
        Path(folder) / "base", Path(folder) / "run", kind == "lora", PPO(**(SETTING | {"learning_rate": RATES[kind]} | keys))
    )
    bandit.resume = bandit.folder.exists()
    bandit.train()
    if dist.is_main():
        seen = {"world": dist.world_size(), "rewards": bandit.rewards, "log": bandit.log}
        (Path(folder) / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
