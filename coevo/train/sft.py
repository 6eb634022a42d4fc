"""Supervised fine-tuning through TRL's SFTTrainer, on rows whose scored span is already exact."""

from __future__ import annotations

import random
from collections.abc import Sequence

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from coevo.config import SFT
from coevo.errors import CheckpointError, ConfigError
from coevo.train.common import Hook, Job, run, shared_arguments

IGNORED = -100
"""Label of a token that carries no loss."""


def train_sft(job: Job, rows: Sequence[tuple[list[int], list[int]]], config: SFT) -> None:
    """Trains on the response tokens of (prompt ids, response ids) rows.

    The rows come from the same `encode_pair` that scores, so that training and likelihood agree on every token.

    Raises:
        ConfigError: fewer rows than one update takes.
    """
    if len(rows) < config.batch_size:
        raise ConfigError(
            f"{len(rows)} training rows are fewer than one update's batch_size={config.batch_size}: nothing would be "
            "trained. Lower batch_size or give more data."
        )
    rng = random.Random(job.seed)
    # one epoch of shuffled repeats: resuming is bit-identical only within an epoch
    rows = [row for _ in range(config.epochs) for row in rng.sample(rows, len(rows))]
    dataset = Dataset.from_dict(
        {
            "input_ids": [prompt + response for prompt, response in rows],
            "labels": [[IGNORED] * len(prompt) + response for prompt, response in rows],
        }
    )
    arguments = shared_arguments(job, config, config.batch_size)
    steps = len(rows) // config.batch_size
    arguments |= {
        "num_train_epochs": 1,
        "lr_scheduler_type": config.schedule,
        "adam_beta2": config.adam_beta2,
        "warmup_steps": round(config.warmup * steps),
        "dataloader_drop_last": True,
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "packing": False,
        # not by length: in six languages that makes batches of one language, and training swings between them
        "train_sampling_strategy": "random",
    }
    trainer = SFTTrainer(
        model=job.model,
        args=SFTConfig(**arguments),
        train_dataset=dataset,
        processing_class=job.tokenizer,
        callbacks=[Hook(job.on_step)],
    )
    if not run(trainer, job):
        raise CheckpointError("Tuning changed no weight: learning rate or gradients are zero. See metrics.jsonl.")
