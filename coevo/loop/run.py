"""A whole run: walks the plan phase by phase, each on a fresh base, and takes up where an earlier process stopped."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from transformers.utils import logging as transformers_logging

from coevo import dist, stop
from coevo.config import FileData, Recipe
from coevo.errors import ConfigError
from coevo.files import writing
from coevo.lm.contexts import release_memory
from coevo.loop import ablation, coevolution, corl, methods, phases, tracking
from coevo.loop.base import check_models, remember_base
from coevo.loop.context import Context, seed_of
from coevo.loop.material import load_material
from coevo.plan.plan import PhasePlan, plan
from coevo.progress import Progress, Silent
from coevo.runs.folder import RunFolder, held
from coevo.runs.record import begun_with, refuse_other_parts, refuse_taken, with_own_data
from coevo.train.checkpoints import Start, last_checkpoint
from coevo.train.common import on_deepspeed

Runner = Callable[[Context, PhasePlan, bool], dict[str, Any]]

RUNNERS: dict[tuple[str, str | None], Runner] = {
    ("pretrain", None): phases.run_pretrain,
    ("sft", "rpm"): phases.run_sft,
    ("as_given", "rpm"): phases.run_as_given,
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
    if resume:
        RunFolder.open(out)
        recipe = with_own_data(out, recipe)
        refuse_other_parts(out, recipe)
    else:
        refuse_taken(out)
    material = load_material(recipe)
    start_processes()
    check_models(recipe, fetch=True)
    every, folder = plan(recipe), RunFolder(out)
    phases = [phase for phase in every if only is None or phase.name in only]
    # a run that is finished may be one that nobody can write into
    finished = resume and all(folder.done(phase.name) for phase in phases)
    with nullcontext() if finished else held(out):
        if not resume:
            RunFolder.create(out, recipe)
        if not finished:
            remember_base(folder, recipe)
        with writing(out, f"Go on with: coevo train --resume {out}"):
            _run(Context(recipe, folder, material, every, progress), phases)
    return out


def _run(context: Context, phases: Sequence[PhasePlan]) -> None:
    starts = _starts(context, phases)
    with tracking.tracker(context.recipe, context.folder, context.progress.say) as log:
        context.log_metrics = log
        for phase in phases:
            _run_phase(context, phase, starts.get(phase.name))


def _starts(context: Context, phases: Sequence[PhasePlan]) -> dict[str, Start]:
    """Where each unfinished phase goes on from; rows that it wrote after that are dropped. What is not as it was is said.

    Raises:
        ConfigError: a phase under way was begun by another number of processes.
    """
    folder, say = context.folder, context.progress.say
    starts = {
        phase.name: last_checkpoint(folder.phase(phase.name) / "checkpoints")
        for phase in phases
        if not folder.done(phase.name)
    }
    for name, start in starts.items():
        for note in start.notes:
            say(f"{name}: {note}.")
        if start.checkpoint is not None:
            start.check_processes(folder.phase(name))
            if start.notes:
                say(f"{name}: goes on from {start.checkpoint.name}, step {start.step}.")
        elif start.notes:
            say(f"{name}: no whole checkpoint is left, so that it begins anew.")
    folder.rewind({name: start.step for name, start in starts.items()})
    if starts:
        for note in _changed(context):
            say(note)
    return starts


def _changed(context: Context) -> list[str]:
    """What is other than when the run was begun, or was not recorded then, and does not keep it from going on."""
    folder, notes = context.folder, []
    begun, world = begun_with(folder.root), dist.world_size()
    if "recipe_sha256" not in begun:
        data = " and data file" if isinstance(context.recipe.data, FileData) else ""
        notes.append(
            f"The run was begun before hashes were recorded: whether its recipe{data} changed since cannot be seen."
        )
    finished = [phase.name for phase in context.plan if folder.done(phase.name)]
    others = {name: n for name in finished if (n := folder.processes(name)) not in (None, world)}
    if others:
        last = max(others)
        notes.append(
            f"{last} was run by {others[last]} process(es), and the run goes on with {world}: finished phases stay as they "
            "are; later ones round otherwise and sample by other random states than they would have."
        )
    return notes


def start_processes() -> None:
    """Joins the process group that accelerate launched, if any, before anything is written or loaded.

    Raises:
        ConfigError: the environment holds a part of what a launcher sets.
    """
    _check_launch()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # what accelerate's own configuration, or a variable left from it, says would compute otherwise than the recipe does
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    # the DeepSpeed path of accelerate is not taken when the CPU is asked for by name
    cuda = torch.cuda.is_available()
    PartialState(cpu=not cuda and not on_deepspeed(), **({"backend": "gloo"} if on_deepspeed() and not cuda else {}))
    # TRL itself passes the arguments that these warnings are about, so a user can do nothing about them
    warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|trl|peft|accelerate)")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # TRL prints the whole row of a completion that could not be scored; `unscored` counts it and rollouts.jsonl has it
    logging.getLogger("trl").setLevel(logging.ERROR)


def _check_launch() -> None:
    """Refuses variables of a launcher that are not all there; the libraries would wait for ranks that never come."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    numbers = {name: os.environ[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if os.environ.get(name)}
    alone = numbers.get("WORLD_SIZE", "1") == "1" and numbers.get("RANK", "0") == "0" and "LOCAL_RANK" not in numbers
    # without a GPU, ranks may be started by hand with no number within their machine
    needed = ["WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", *(["LOCAL_RANK"] if torch.cuda.is_available() else [])]
    missing = [name for name in needed if not os.environ.get(name)]
    if alone or (not missing and all(number.isdecimal() for number in numbers.values())):
        return
    found = ", ".join(f"{name}={number}" for name, number in numbers.items())
    without = f"without {', '.join(missing)}" if missing else "where whole numbers are expected"
    raise ConfigError(
        f"The environment has {found} {without}: left over from a launcher, which sets them all. For one process, remove "
        f"them (unset {' '.join(numbers)}); for several, start with accelerate launch --config_file "
        "launch/accelerate/ddp.yaml --num_processes N -m coevo ..."
    )


def _run_phase(context: Context, phase: PhasePlan, start: Start | None) -> None:
    stop.obey()
    folder = context.folder
    if start is None:
        folder.facts(phase.name)
        context.progress.done(phase.name)
        return
    began = time.monotonic()
    if dist.is_main() and start.checkpoint is None:
        shutil.rmtree(folder.phase(phase.name), ignore_errors=True)
    dist.barrier()
    folder.phase(phase.name).mkdir(parents=True, exist_ok=True)
    context.progress.phase(phase.name, phase.units)
    if start.step > 0:
        context.progress.advance(start.step, "resumed")
    seed_everything(seed_of(context.recipe.seed, phase.name))
    _fresh_engine()
    facts = RUNNERS[phase.kind, phase.role](context, phase, start.checkpoint is not None)
    # a phase that trains nothing has files of its own to list, and so finishes itself
    if phase.updates:
        folder.finish(phase.name, facts)
    folder.clock(phase.name, time.monotonic() - began)
    context.progress.done(phase.name)
    release_memory()


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
