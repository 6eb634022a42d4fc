"""Direct preference optimisation through TRL's DPOTrainer, on pairs whose scored spans are already exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from coevo.config.methods import DPO
from coevo.errors import CheckpointError, ConfigError
from coevo.train.common import Hook, Job, repeats, run, tuning_arguments


@dataclass(frozen=True, slots=True)
class PairRow:
    """Token ids of two answers to one prompt, as `encode_pair` makes them."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class _Exact(DPOTrainer):
    """A DPOTrainer that takes token ids as they are: TRL's own would tokenise texts anew, across the prompt's border."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def train_dpo(job: Job, pairs: Sequence[PairRow], config: DPO) -> None:
    """Trains on pairs, against the model that `job.model` is at the start.

    Metrics a step are TRL's: `loss`, `rewards/chosen`, `rewards/rejected`, `rewards/margins` (beta times log ratios, nats)
    and `rewards/accuracies` (share of pairs that are the right way round).

    Raises:
        ConfigError: fewer pairs than one update takes.
        CheckpointError: no weight changed.
    """
    tune = config.tune
    if len(pairs) < tune.batch_size:
        raise ConfigError(
            f"{len(pairs)} pairs are fewer than one update's batch_size={tune.batch_size}: nothing would be trained. "
            "Lower method.tune.batch_size or method.margin_nats, or sample more (method.prompts, method.group, a higher "
            "method.temperature)."
        )
    rows = repeats(pairs, tune.epochs, job.seed)
    columns = {"prompt_ids": "prompt", "chosen_ids": "chosen", "rejected_ids": "rejected"}
    arguments = tuning_arguments(job, tune, len(rows)) | {
        "beta": config.beta,
        "loss_type": [config.loss],
        "label_smoothing": config.label_smoothing,
    }
    trainer = _Exact(
        model=job.model,
        args=DPOConfig(**arguments),
        train_dataset=Dataset.from_dict({name: [getattr(row, key) for row in rows] for name, key in columns.items()}),
        processing_class=job.tokenizer,
        callbacks=[Hook(job)],
    )
    if not run(trainer, job):
        raise CheckpointError("DPO changed no weight: learning rate or gradients are zero. See metrics.jsonl.")
