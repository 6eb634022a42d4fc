"""`coevo experiment`: methods × bases × seeds, measured under the same shifts, in one report."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.cli.console import Commands, command, count, path, say, warn
from coevo.cli.judge import check_options
from coevo.cli.report import show_experiment
from coevo.cli.train import EXIT_INTERRUPTED, unchecked_models
from coevo.errors import ConfigError

if TYPE_CHECKING:
    from coevo.experiment.matrix import Experiment
    from coevo.plan.plan import PhasePlan

MOST_JOBS = 4
"""Cells at a time where nobody says: each takes some gigabytes of memory."""
EXPERIMENT_EXAMPLES = """examples:
  coevo experiment recipes/paper/world.yaml --dry-run
  coevo experiment recipes/paper/world.yaml --quick
  coevo experiment recipes/paper/world.yaml --out experiments/world --jobs 2
  coevo experiment recipes/paper/qwen3-4b-methods.yaml \\
      --launch "accelerate launch --config_file launch/accelerate/zero2.yaml --num_processes 8 -m coevo"

Killed or interrupted, the same command goes on where it was. A cell that fails stops no other. docs/experiments.md has the
file's keys and how to read the report.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    experiment = command(commands, "experiment", "compare training methods under the same shifts", EXPERIMENT_EXAMPLES)
    experiment.add_argument("file", type=path, metavar="FILE", help="a YAML file; docs/experiments.md lists its keys")
    experiment.add_argument("--out", type=path, metavar="DIR", help="its folder; default experiments/NAME")
    experiment.add_argument("--quick", action="store_true", help="only the methods and seeds of the file's block `quick`")
    experiment.add_argument(
        "--jobs", type=count, metavar="N", help="cells at a time; default 1 with a GPU, else one a core, at most 4"
    )
    experiment.add_argument("--launch", metavar="COMMAND", help="what starts coevo, such as accelerate launch … -m coevo")
    experiment.add_argument("--dry-run", action="store_true", help="print cells and costs; touch nothing")
    experiment.set_defaults(run=_experiment)


def _experiment(options: argparse.Namespace) -> int:
    from coevo.experiment.matrix import read_experiment

    experiment = read_experiment(options.file, options.quick)
    # slow to import: a bad file is told before
    from coevo.experiment.pool import failures
    from coevo.experiment.run import plans, run

    if experiment.judge is not None:
        try:
            check_options(experiment.judge, asks=not options.dry_run)
        except ConfigError as error:
            raise ConfigError(f"{options.file}: judge: {error}") from None
    out = options.out or Path("experiments") / experiment.matrix.name
    if options.dry_run:
        phases = plans(experiment)
        unchecked = unchecked_models(cell.recipe for cell in (*experiment.estimators, *experiment.cells))
        _show(experiment, phases, options.jobs or 1)
        for line in unchecked:
            say(line)
        return 0
    jobs = options.jobs or _jobs()
    launch = _words(options.launch) if options.launch is not None else [sys.executable, "-m", "coevo"]
    if not launch:
        raise ConfigError("--launch: no command given; for example: --launch 'accelerate launch -m coevo'")
    if "RANK" in os.environ:
        raise ConfigError("coevo experiment starts processes itself: do not launch it; say how with --launch.")
    say(f"{experiment.matrix.name}: {len(experiment.cells)} cells, {jobs} at a time -> {out}")
    try:
        outcome = run(experiment, out, jobs, launch, say)
    except KeyboardInterrupt:
        warn("\ncoevo: interrupted. The same command goes on where it was.")
        return EXIT_INTERRUPTED
    show_experiment(out)
    failures(outcome)
    return 0


def _words(launch: str) -> list[str]:
    try:
        return shlex.split(launch)
    except ValueError as error:
        raise ConfigError(f"--launch {launch}: {error}; expected words as in a shell.") from None


def _jobs() -> int:
    import torch

    return 1 if torch.cuda.is_available() else min(MOST_JOBS, os.cpu_count() or 1)


def _show(experiment: Experiment, phases: dict[str, list[PhasePlan]], jobs: int) -> None:
    from coevo.experiment.run import to_run
    from coevo.layout import align
    from coevo.plan.table import assumptions, duration

    todo = to_run(experiment, phases)
    rows = []
    seconds: list[float | None] = []
    for cell in (*experiment.estimators, *experiment.cells):
        own = [phase.seconds_estimate for phase in todo[cell.name]]
        seconds.append(None if None in own else sum(s for s in own if s is not None))
        rows.append([cell.name, f"{len(todo[cell.name])} of {len(phases[cell.name])}", duration(seconds[-1])])
    total = None if None in seconds else sum(s for s in seconds if s is not None) / jobs
    say(
        align([["cell", "phases of its own", "about"], *rows, ["all, " + f"{jobs} at a time", "", duration(total)]], names=1)
    )
    say("\nMeasuring every cell by every estimator comes on top. " + assumptions(experiment.cells[0].recipe))
