"""`coevo init`: a first recipe for a team's own data and base."""

from __future__ import annotations

import argparse
import os

from coevo.cli.console import Commands, command, path, say, warn
from coevo.errors import ConfigError

INIT_EXAMPLES = """examples:
  coevo init --data dialogues.json --base Qwen/Qwen3-4B --out mine.yaml
  coevo init --data dialogues.json --base models/my-rpm --tuned --out mine.yaml && coevo train mine.yaml --dry-run

It looks at the data, the base and this machine, asks nothing, and writes a recipe with a reason at each number. It is
checked as --dry-run checks it.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    init = command(commands, "init", "write a first recipe for data and a base of yours", INIT_EXAMPLES)
    init.add_argument("--data", type=path, required=True, metavar="FILE", help="RPGBench layout, with IDTrain and tests")
    init.add_argument("--base", required=True, metavar="MODEL", help="folder or hub id of a chat model")
    init.add_argument("--out", type=path, required=True, metavar="FILE", help="the recipe; must not exist")
    init.add_argument("--tuned", action="store_true", help="the base plays your characters already: no SFT comes first")
    init.add_argument("--yes", action="store_true", help="for scripts that expect it; nothing is asked anyway")
    init.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    if os.path.lexists(options.out):
        raise ConfigError(f"--out {options.out} exists; expected a new file. Choose another name, or delete it first.")
    from coevo.config.load import load_recipe
    from coevo.files import write_atomic
    from coevo.plan.plan import plan
    from coevo.plan.table import duration
    from coevo.prepare.init import Machine, measure, missing, recipe_text

    sizes = measure(options.data, options.base)
    write_atomic(options.out, recipe_text(options.out, options.data, options.base, sizes, Machine.here(), options.tuned))
    for line in missing(sizes):
        warn(f"{options.data}: {line}")
    try:
        phases = plan(load_recipe(options.out))
    except ConfigError as error:
        raise ConfigError(f"{options.out} was written, and does not fit yet: {error}") from None
    known = [phase.seconds_estimate for phase in phases]
    seconds = [s for s in known if s is not None]
    took = (
        f", about {duration(sum(seconds))} on one data-centre GPU, and far longer on a CPU"
        if len(seconds) == len(known)
        else ""
    )
    say(f"{options.out}: {len(phases)} phases{took}.")
    say(f"Next: coevo train {options.out} --dry-run")
    return 0
