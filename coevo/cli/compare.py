"""`coevo compare`: runs beside each other."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, path, say

COMPARE_EXAMPLES = """examples:
  coevo compare runs/grpo runs/dpo
  coevo compare runs/base runs/more-steps runs/other-rewards

It says what the recipes differ in, what each run ended at, and how far each is from the first, paired by scenario where both
were measured by one scorer on the same scenarios; where not, why not.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    compare = command(commands, "compare", "set finished runs beside each other", COMPARE_EXAMPLES)
    compare.add_argument("folders", type=path, nargs="+", metavar="RUN")
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from coevo.report.compare import comparison

    say(comparison(options.folders))
    return 0
