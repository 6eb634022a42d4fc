"""A whole run: walks the plan phase by phase, each on a fresh base, and takes up where an earlier process stopped."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from transformers.utils import logging as transformers_logging

from coevo.config import Recipe
from coevo.lm import dist
from coevo.loop import ablation, coevolution, corl, methods, phases, tracking
from coevo.loop.context import Context, seed_of
from coevo.loop.folder import RunFolder
from coevo.loop.material import load_material
from coevo.loop.plan import PhasePlan, plan
from coevo.loop.progress import Progress, Silent
from coevo.loop.templates import check_templates
from coevo.train.common import last_checkpoint, on_deepspeed, steps_done

Runner = Callable[[Context, PhasePlan, bool], dict[str, Any]]

RUNNERS: dict[tuple[str, str | None], Runner] = {
    ("pretrain", None): phases.run_pretrain,
    ("sft", "rpm"): phases.run_sft,
    ("sft", "scorer"): phases.run_sft,
    ("sft", "second"): phases.run_sft,
    ("sft", "simulator"): phases.run_sft,
    ("audit", "scorer"): phases.run_audit,
    ("evaluate", "rpm"): phases.run_evaluate,
    ("grpo", "simulator"): coevolution.run_simulator,
    ("harvest", "simulator"): coevolution.run_harvest,
    ("grpo", "rpm"): coevolution.run_rpm,
    ("accept", "rpm"): coevolution.run_accept,
    ("tune", "reasoner"): corl.run_reasoner_sft,
    ("tune", "scorer"): corl.run_scorer_sft,
    ("tune", "plain"): corl.run_plain_sft,
    ("grpo", "reasoner"): corl.run_reasoner,
    ("grpo", "scorer"): corl.run_scorer,
    ("ablation", "scorer"): ablation.run_ablation,
    **{(kind, "rpm"): run for kind, run in methods.RUNNERS.items()},
}
"""(kind, role) of a planned phase -> what runs it."""


def train(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
) -> Path:
    """Runs a recipe to its end, or from where the run in `out` stopped.

    Args:
        recipe: what to do.
        out: the run folder; new, unless `resume`.
        resume: continue the run in `out`, which must be of the same recipe.
        progress: who is told.
        only: names of the phases to run, each of which needs some of those before it; None runs all.

    Returns:
        The run folder.

    Raises:
        CoevoError: any input, setting or checkpoint that does not fit; the folder keeps what was finished.
    """
    progress = progress or Silent()
    material = load_material(recipe)
    start_processes()
    check_templates(recipe, fetch=True)
    if resume:
        folder, _ = RunFolder.open(out)
    else:
        folder = RunFolder.create(out, recipe)
    context = Context(recipe, folder, material, plan(recipe), progress)
    with tracking.tracker(recipe, folder) as log:
        context.log_metrics = log
        for phase in context.plan:
            if only is None or phase.name in only:
                _run_phase(context, phase)
    return folder.root


def start_processes() -> None:
    """Joins the process group that accelerate launched, if any, before anything is written or loaded."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # the DeepSpeed path of accelerate is not taken when the CPU is asked for by name
    cuda = torch.cuda.is_available()
    PartialState(cpu=not cuda and not on_deepspeed(), **({"backend": "gloo"} if on_deepspeed() and not cuda else {}))
    # deprecations of arguments that TRL itself passes are nobody's business here
    warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|trl|peft|accelerate)")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # TRL prints the whole row of a completion that could not be scored; `unscored` counts it and rollouts.jsonl has it
    logging.getLogger("trl").setLevel(logging.ERROR)


def _run_phase(context: Context, phase: PhasePlan) -> None:
    folder = context.folder
    if folder.facts(phase.name) is not None:
        context.progress.done(phase.name)
        return
    began = time.monotonic()
    resumable = last_checkpoint(folder.phase(phase.name) / "checkpoints")
    step = steps_done(resumable) if resumable else -1
    folder.rewind(phase.name, step)
    if dist.is_main() and resumable is None:
        shutil.rmtree(folder.phase(phase.name), ignore_errors=True)
    dist.barrier()
    folder.phase(phase.name).mkdir(parents=True, exist_ok=True)
    context.progress.phase(phase.name, phase.units)
    if step > 0:
        context.progress.advance(step, "resumed")
    seed_everything(seed_of(context.recipe.seed, phase.name))
    _fresh_engine()
    facts = RUNNERS[phase.kind, phase.role](context, phase, resumable is not None)
    # a phase that trains nothing has files of its own to list, and so finishes itself
    if phase.updates:
        folder.finish(phase.name, facts)
    folder.clock(phase.name, time.monotonic() - began)
    context.progress.done(phase.name)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def seed_everything(seed: int) -> None:
    """Seeds every generator that a library may draw from, so that a phase does not depend on those before it."""
    import random

    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _fresh_engine() -> None:
    """Forgets the last phase's accelerator: DeepSpeed writes one trainer's batch sizes into the shared plugin."""
    AcceleratorState._reset_state(reset_partial_state=False)
