"""What every trainer shares: arguments for this machine, the step hook, resumable checkpoints, and the checks after a phase.

TRL's private ways change between releases; every import of it is in this package (see docs/operations.md for the pins).
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback
from trl.trainer import utils as trl_utils

from coevo import dist, stop
from coevo.config import SFT
from coevo.errors import CheckpointError, ConfigError, TrainingError
from coevo.lm.generation import bare_defaults, equal_prompts_once
from coevo.lm.lineage import tensors_hash, whole_tensor
from coevo.lm.value import belongs_to_head, unwrapped
from coevo.train.checkpoints import newest, seal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

T = TypeVar("T")
StepHook = Callable[[int, dict[str, float]], None]
"""Called on every process after each logged step with the step's number (from 1) and its metrics."""


@dataclass(frozen=True)
class Job:
    """One training phase, as a trainer sees it."""

    model: PreTrainedModel
    """Freshly loaded; what is trainable in it is what will be trained."""
    tokenizer: PreTrainedTokenizerBase
    checkpoints: Path
    seed: int
    resume: bool
    on_step: StepHook
    gradient_checkpointing: bool = False
    bf16: bool = False
    """Compute in bfloat16, whatever the dtype of the weights that are trained."""
    phase: str = "training"
    """Its name, for messages."""


def on_deepspeed() -> bool:
    """Whether accelerate launched this process for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def shared_arguments(job: Job, config: Any, sequences: int) -> dict[str, Any]:
    """Arguments that every TRL config takes.

    Args:
        job: the phase.
        config: a recipe's block of SFT or of an algorithm with rewards.
        sequences: sequences per update over all processes; divided here into processes and backward passes.

    Raises:
        ConfigError: the batch does not divide.
    """
    world = dist.world_size()
    per_device, rest = divmod(sequences, world * config.accumulation)
    if rest or not per_device:
        raise ConfigError(
            f"{sequences} sequences per update do not divide among {world} process(es) × accumulation "
            f"{config.accumulation}; choose a multiple of {world * config.accumulation}."
        )
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(job.checkpoints),
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": config.accumulation,
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.max_grad_norm,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": job.seed,
        "data_seed": job.seed,
        "bf16": job.bf16,
        # a loss that is no number is not to be shown as the mean of those before it
        "logging_nan_inf_filter": False,
        # accelerate takes its DeepSpeed path only when the CPU is not asked for by name
        "use_cpu": not cuda and not on_deepspeed(),
        # without a backend by name, DeepSpeed on a CPU leaves every process alone with a world of one
        "ddp_backend": "gloo" if world > 1 and not cuda else None,
        "gradient_checkpointing": job.gradient_checkpointing,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": cuda,
    }


def repeats(rows: Sequence[T], epochs: int, seed: int) -> list[T]:
    """All passes over the rows, each in its own order, as one epoch: resuming is bit-identical only within an epoch."""
    rng = random.Random(seed)
    return [row for _ in range(epochs) for row in rng.sample(rows, len(rows))]


def tuning_arguments(job: Job, config: SFT, rows: int) -> dict[str, Any]:
    """Arguments of a trainer that goes once through so many rows of a data set.

    Raises:
        ConfigError: the batch does not divide.
    """
    return shared_arguments(job, config, config.batch_size) | {
        "num_train_epochs": 1,
        "lr_scheduler_type": config.schedule,
        "adam_beta2": config.adam_beta2,
        "warmup_steps": round(config.warmup * (rows // config.batch_size)),
        "dataloader_drop_last": True,
        "max_length": None,
    }


class Hook(TrainerCallback):
    """Hands each step's metrics on, ends a training that diverges or is to stop, and marks checkpoints that are whole."""

    def __init__(self, job: Job, updates: int = 1) -> None:
        """`updates`: of the optimizer, to one step as the recipe counts them."""
        self._job = job
        self._updates = updates
        self.step = 0
        """The last one that was finished."""
        self.stopped = False
        """Whether training ended before its end because a process was asked to stop."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called on every process after each update; asked to stop, they agree at a step's end, save and end together."""
        whole = state.global_step % self._updates == 0
        if whole and any(dist.gather([stop.asked()])):
            control.should_save = control.should_training_stop = self.stopped = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Called by the trainer after each step and before it saves, and once at the end with totals, which are left out.

        Raises:
            TrainingError: loss, gradient or, where they are to be saved, weights are no numbers.
        """
        if not logs or "train_runtime" in logs:
            return
        self.step = state.global_step // self._updates
        for key, name in (("loss", "the loss"), ("grad_norm", "the gradient's norm")):
            if not math.isfinite(logs.get(key, 0.0)):
                raise diverged(self._job, self.step, f"{name} is {logs[key]}")
        if control.should_save:
            refuse_bad_weights(self._job, self.step)
        self._job.on_step(self.step, {key: value for key, value in logs.items() if _is_reproducible(key)})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called on every process when its part of a checkpoint is written."""
        dist.barrier()
        if dist.is_main():
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step // self._updates)
        dist.barrier()


def diverged(job: Job, step: int, what: str) -> TrainingError:
    """The error that ends a phase whose numbers are none; `what` says which, and it is the same on all processes."""
    dtype = str(next(job.model.parameters()).dtype).removeprefix("torch.")
    if dtype == "float16":
        cause = (
            "The base is in float16, which ends at 65,504, and its activations most likely exceed that. In a new run set "
            "base.dtype to bfloat16 or float32"
        )
    else:
        cause = (
            f"With weights in {dtype}, the learning rate is most likely too high, or the base itself gives no numbers. In a "
            "new run lower learning_rate or max_grad_norm, or take another base"
        )
    return TrainingError(
        f"phase {job.phase}, step {step}: {what}, so that nothing can be learnt any more. {cause}. Nothing of this step was "
        "saved and earlier checkpoints are kept, but the same step would follow them again."
    )


def refuse_bad_weights(job: Job, step: int) -> None:
    """All processes call it together.

    Raises:
        TrainingError: a trained weight is not a number, or infinite.
    """
    bad = [name for name, p in job.model.named_parameters() if p.requires_grad and not _is_finite(p)]
    found = dist.gather(bad[:1])
    if found:
        raise diverged(job, step, f"the weight {found[0]} holds numbers that are not finite")


def _is_finite(parameter: torch.Tensor) -> bool:
    sharded = hasattr(parameter, "ds_id") or hasattr(parameter, "full_tensor")
    return bool((whole_tensor(parameter) if sharded else parameter.detach()).isfinite().all())


def _is_reproducible(key: str) -> bool:
    # num_tokens counts from zero again in a resumed trainer
    return not (key.startswith("profiling/") or "time" in key or "_per_second" in key or key in ("total_flos", "num_tokens"))


@contextmanager
def completions_only_head() -> Iterator[None]:
    """Lets TRL's fused head skip the prompt's positions on a CPU too, where they are three quarters of its work.

    TRL 1.16 projects every position unless the device has Triton, for the sake of compilers that want fixed shapes; the
    masked positions are zeroed either way, so loss and gradients are the same numbers (tests/unit/test_train.py).
    """
    original = trl_utils._use_triton
    trl_utils._use_triton = lambda device: device.type == "cpu" or original(device)
    try:
        yield
    finally:
        trl_utils._use_triton = original


def run(trainer: Trainer, job: Job) -> bool:
    """Trains `job.model` in place, from the last whole checkpoint or the start.

    Returns:
        Whether training changed the weights; True without a look after a resume, when the start is no longer at hand.

    Raises:
        CheckpointError: nothing was trainable, or something else than `default` was or was changed.
        TrainingError: loss, gradient or weights are no numbers any more.
        Stopped: this process was asked to stop, and a checkpoint of the last step is written.
    """
    trainable = [name for name, p in job.model.named_parameters() if p.requires_grad]
    adapters = getattr(job.model, "peft_config", None)
    strangers = [name for name in trainable if ".default." not in name and not belongs_to_head(name)]
    if not trainable or (adapters is not None and strangers):
        raise CheckpointError(
            f"Phase expected to train {'the adapter `default`' if adapters else 'all weights'}, but the trainable set is "
            f"{trainable[:3] or 'empty'}. Load the policy with trainable=True."
        )
    # its dictionaries on standard output would drown the progress that the run reports
    trainer.remove_callback(PrinterCallback)
    before, others = _hashes(job.model, adapters is not None)
    checkpoint = newest(job.checkpoints) if job.resume else None
    _train(trainer, job, checkpoint)
    after, others_after = _hashes(job.model, adapters is not None)
    if others_after != others:
        raise CheckpointError("Training changed weights outside the adapter `default`; its policy cannot be told apart.")
    return checkpoint is not None or after != before


def _train(trainer: Trainer, job: Job, checkpoint: Path | None) -> None:
    """Trains to the end, to the first numbers that are none, or to the end of the step in which a stop is asked for."""
    base: Any = unwrapped(job.model)
    hook = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Hook))
    # the recipe says how a trainer samples, and not the base's generation_config.json
    with stop.finishing(), completions_only_head(), bare_defaults(base), equal_prompts_once(base):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except RuntimeError as error:
            if "probability tensor contains" not in str(error):
                raise
            raise diverged(job, hook.step + 1, "the probabilities that completions are drawn by are no numbers") from error
        if hook.stopped:
            raise stop.Stopped(f"Phase {job.phase} has a checkpoint of its step {hook.step}.")
    refuse_bad_weights(job, hook.step)


def _hashes(model: PreTrainedModel, adapter: bool) -> tuple[str, str]:
    """Hashes of what is to be trained, and of everything else (the base under an adapter)."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and ".ref." not in name}
    return tensors_hash(model, trainable_only=True), tensors_hash(model, names=frozen) if adapter else ""
