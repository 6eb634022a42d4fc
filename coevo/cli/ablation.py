"""`coevo ablation`: what reasoning and CoRL are worth, over one run or several seeds."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, count, path, say

ABLATION_EXAMPLES = """examples:
  coevo train recipes/corl/world.yaml --until ablation --out runs/corl-0
  coevo ablation runs/corl-0
  coevo ablation runs/corl-0 runs/corl-1 runs/corl-2 --out runs/corl
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    purpose = "perplexity of the references with reasoning and CoRL, and without"
    ablation = command(commands, "ablation", purpose, ABLATION_EXAMPLES)
    ablation.add_argument("folders", type=path, nargs="+", metavar="RUN", help="runs of one recipe that differ by seed")
    ablation.add_argument("--resamples", type=count, default=2000, metavar="N", help="bootstrap draws (default 2000)")
    ablation.add_argument("--out", type=path, metavar="DIR", help="also write ablation.json and ablation.md there")
    ablation.set_defaults(run=_ablation)


def _ablation(options: argparse.Namespace) -> int:
    from coevo.report.ablation import pooled, write
    from coevo.scoring.ablation import markdown

    table = pooled(options.folders, options.resamples)
    say(markdown(table))
    for file in write(table, options.out) if options.out is not None else ():
        say(str(file))
    return 0
