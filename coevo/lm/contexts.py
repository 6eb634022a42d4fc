"""Small contexts that keep a side computation from leaking into the rest of the process: RNG, mode, ZeRO-3 setting."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.integrations import deepspeed as hf_deepspeed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fork the CPU's (and the current GPU's) random state, seed the fork, and put the outer state back at the end.

    What is drawn inside depends on `seed` alone, and what is drawn after it is as if nothing had been drawn inside.
    """
    on_gpu = torch.cuda.is_available()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode without gradients; afterwards each submodule has its former mode again.

    Frozen models run in inference mode. One that is being trained gets `no_grad` instead: a tensor that a lazy buffer
    (rotary tables) or ZeRO-3's gathering makes in inference mode would later break its backward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = not any(parameter.requires_grad for parameter in model.parameters())
    model.eval()
    try:
        with torch.no_grad(), torch.inference_mode(frozen):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def plain_local_modules() -> Iterator[None]:
    """Load models as ordinary, unpartitioned modules although DeepSpeed ZeRO-3 is configured in this process.

    transformers partitions whatever `from_pretrained` builds as soon as a ZeRO-3 setting is alive anywhere in the
    process. A frozen side model (scorer, partner policy) is called a different number of times on each rank, which
    hangs when its weights must be gathered, so it is loaded whole while the setting is put aside.
    """
    reference = hf_deepspeed._hf_deepspeed_config_weak_ref
    setting = reference() if reference is not None else None
    hf_deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if setting is not None:
            hf_deepspeed.set_hf_deepspeed_config(setting)


def release_memory() -> None:
    """Gives back what is not used any more, to the GPU's driver and to the system.

    glibc keeps what is freed: after a phase of training that can be all the memory there is, and the next one is killed.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_sharded(model: nn.Module) -> bool:
    """Whether a forward call is collective, because parameters are split over ranks by ZeRO-3 or FSDP2."""
    return any(hasattr(p, "ds_id") or hasattr(p, "full_tensor") for p in model.parameters())


def most_over_ranks(count: int, device: torch.device) -> int:
    """The largest `count` of any rank (all-reduce MAX); `count` itself when nothing is distributed. Collective."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    most = torch.tensor(count, device=device)
    torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return int(most.item())
