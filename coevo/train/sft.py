"""Supervised fine-tuning through TRL's SFTTrainer, on rows whose scored span is already exact."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from coevo.config import SFT
from coevo.errors import CheckpointError, ConfigError
from coevo.train.common import Hook, Job, repeats, run, tuning_arguments

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
    rows = repeats(rows, config.epochs, job.seed)
    dataset = Dataset.from_dict(
        {
            "input_ids": [prompt + response for prompt, response in rows],
            "labels": [[IGNORED] * len(prompt) + response for prompt, response in rows],
        }
    )
    arguments = tuning_arguments(job, config, len(rows)) | {
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
        callbacks=[Hook(job)],
    )
    if not run(trainer, job):
        raise CheckpointError("Tuning changed no weight: learning rate or gradients are zero. See metrics.jsonl.")
