"""`coevo train`: run a recipe, or go on with a run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coevo import stop
from coevo.cli.console import Commands, command, is_main, path, refuse_other_encodings, say, warn
from coevo.cli.progress import ConsoleProgress
from coevo.cli.report import show_report
from coevo.errors import ConfigError

if TYPE_CHECKING:
    from coevo.config import Recipe
    from coevo.plan.plan import PhasePlan

EXIT_INTERRUPTED = 130
EXIT_STOPPED = 143
TRAIN_EXAMPLES = """examples:
  coevo train recipes/quickstart.yaml --dry-run
  coevo train recipes/quickstart.yaml --out runs/quickstart
  coevo train recipes/quickstart.yaml seed=1 loop.rpm.steps=30 --out runs/seed-1
  coevo train --resume runs/quickstart
  accelerate launch --config_file launch/accelerate/ddp.yaml --num_processes 8 -m coevo train recipes/quickstart.yaml
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    train = command(commands, "train", "run a recipe from start to table", TRAIN_EXAMPLES)
    train.usage = "coevo train [RECIPE] [key=value ...] [--out DIR] [--dry-run] [--until PHASE] [--resume RUN]"
    train.add_argument("recipe", nargs="?", metavar="RECIPE", help="a YAML file; docs/recipes.md lists its keys")
    train.add_argument("--out", type=path, metavar="DIR", help="the run folder, new or empty; default runs/NAME")
    train.add_argument("--dry-run", action="store_true", help="print phases, sizes and costs; touch nothing")
    train.add_argument("--resume", type=path, metavar="RUN", help="continue the run in this folder")
    train.add_argument("--until", metavar="PHASE", help="stop after this phase, named without its number: pretrain, rpm-1")
    train.set_defaults(run=_train)


@stop.listening()
def _train(options: argparse.Namespace) -> int:
    recipe, out = recipe_and_folder(options)
    from coevo.plan.plan import plan

    phases = _up_to(plan(recipe), options.until)
    tell_overlap(recipe)
    if options.dry_run:
        show_plan(recipe, phases)
        return 0
    if code := run_phases(recipe, out, phases, resume=options.resume is not None):
        return code
    if options.until is not None:
        say(f"stopped after {options.until} as asked; go on with: coevo train --resume {out}")
    elif is_main():
        show_report(out)
        from coevo.export.model import write_final

        say(f"the final model: {write_final(out)}; its README.md says how to load it")
        say(f"Next: coevo chat {out} --character CARD, or coevo export {out} --to DIR --merge")
    return 0


def tell_overlap(recipe: Recipe) -> None:
    """Says which tests are trained on, where the recipe allows it."""
    from coevo.plan.check import count, overlap

    # a recipe that does not allow it has been refused
    found = overlap(recipe, count(recipe)) if getattr(recipe.data, "allow_overlap", False) else None
    if found:
        say(f"data.allow_overlap is on. {found}. What is measured on those tests is memory.")


def show_plan(recipe: Recipe, phases: Sequence[PhasePlan]) -> None:
    """Prints what would be done, and what that costs.

    Raises:
        CheckpointError: a model on this machine that the recipe names is not fit for it.
    """
    from coevo.plan.table import assumptions, prompts_in_use, table

    unchecked = unchecked_models([recipe])
    say(table(phases))
    say("\n" + "\n".join([prompts_in_use(recipe), assumptions(recipe), *unchecked]))


def unchecked_models(recipes: Iterable[Recipe]) -> list[str]:
    """Checks the models that recipes name, as far as they are on this machine; says which are not.

    Raises:
        CheckpointError: one that is there is not fit for its recipe.
    """
    from coevo.plan.check import named_models

    named = {
        (*named_models(recipe).items(), recipe.longest, recipe.lora, recipe.reading): recipe
        for recipe in recipes
        if named_models(recipe)
    }
    if not named:
        # what follows imports torch, which the shipped base need not wait for
        return []
    from coevo.loop.base import check_models

    return list(dict.fromkeys(line for recipe in named.values() for line in check_models(recipe, fetch=False)))


def run_phases(recipe: Recipe, out: Path, phases: Sequence[PhasePlan], resume: bool) -> int:
    """Runs phases of a recipe and draws their pace.

    Returns:
        0; or the exit code if it was interrupted or asked to stop, and has then said how to go on.
    """
    try:
        say(f"{recipe.name}: {len(phases)} phases -> {out}")
        from coevo.loop.run import train

        train(recipe, out, resume=resume, progress=ConsoleProgress(phases), only=[phase.name for phase in phases])
    except KeyboardInterrupt:
        _say_how_to_go_on(out, "interrupted.")
        return EXIT_INTERRUPTED
    except stop.Stopped as stopped:
        _say_how_to_go_on(out, "stopped by SIGTERM.", str(stopped) or "Finished phases and whole checkpoints are kept.")
        return EXIT_STOPPED
    return 0


def _say_how_to_go_on(out: Path, *what: str) -> None:
    if is_main():
        begun = (out / "resolved.yaml").exists()
        told = (*what, f"Continue with: coevo train --resume {out}") if begun else (what[0], "Nothing had been written.")
        warn(f"\ncoevo: {' '.join(told)}")


def _up_to(phases: list[PhasePlan], until: str | None) -> list[PhasePlan]:
    """The phases up to and with the one named; all if none is named."""
    names = [phase.name.partition("-")[2] for phase in phases]
    if until is None:
        return phases
    if until not in names:
        raise ConfigError(f"--until {until}: no such phase in this recipe; expected one of {', '.join(names)}.")
    return phases[: names.index(until) + 1]


def recipe_and_folder(options: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe to run and the run folder, checked as far as that goes without writing.

    Raises:
        ConfigError: bad recipe, a folder that is taken, or a recipe other than the resumed run's.
        CheckpointError: the folder to resume holds no run, or recipe or data are not those that it was begun with.
    """
    from coevo.config.load import load_recipe
    from coevo.runs.record import read_resolved, with_own_data

    if options.resume is None:
        if options.recipe is None:
            name = options.command
            raise ConfigError(f"{name}: no recipe given; for example: coevo {name} recipes/quickstart.yaml")
        recipe = load_recipe(options.recipe, options.overrides)
        out = options.out or Path("runs") / recipe.name
        refuse_other_encodings([str(out)])
        if not options.dry_run:
            _refuse_taken(out)
        return recipe, out
    if options.out is not None and options.out.resolve() != options.resume.resolve():
        raise ConfigError(f"--out {options.out}: --resume {options.resume} names the run folder already; omit --out.")
    recipe = read_resolved(options.resume)
    if options.recipe is None:
        given = read_resolved(options.resume, options.overrides)
    else:
        given = load_recipe(options.recipe, options.overrides)
    if given != recipe:
        raise ConfigError(
            f"--resume {options.resume}: the recipe given differs from the run's in "
            f"{', '.join(_differing(given, recipe))}. "
            "A run keeps its recipe: leave the recipe and overrides away, or start a new run with --out."
        )
    return with_own_data(options.resume, recipe), options.resume


def _refuse_taken(out: Path) -> None:
    from coevo.runs.record import refuse_taken

    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder that is new or empty.")
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "nothing may be written in it" if above.is_dir() else "it is a file"
        raise ConfigError(f"--out {out} cannot be made in {above}: {reason}; choose another folder.")
    refuse_taken(out)


def _differing(left: Recipe, right: Recipe) -> list[str]:
    """Dotted names of the keys in which two recipes differ."""
    return sorted({key for key, _ in _flat(left.model_dump()).items() ^ _flat(right.model_dump()).items()})


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = repr(value)
    return flat
