"""`coevo audit`: whether a recipe's reward prefers the reference to bad answers, before anything is trained on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coevo import stop
from coevo.cli.console import Commands, command, is_main, path, say
from coevo.cli.train import recipe_and_folder, run_phases, show_plan

if TYPE_CHECKING:
    from coevo.plan.plan import PhasePlan

AUDIT_EXAMPLES = """examples:
  coevo audit recipes/quickstart.yaml
  coevo audit recipes/quickstart.yaml loop.rpm.weights.register_gap=0 --out runs/information-alone
  coevo audit --resume runs/quickstart
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    audit = command(commands, "audit", "put a recipe's reward to the test of bad answers", AUDIT_EXAMPLES)
    audit.usage = "coevo audit [RECIPE] [key=value ...] [--out DIR] [--dry-run] [--resume RUN]"
    audit.add_argument("recipe", nargs="?", metavar="RECIPE", help="a YAML file; docs/recipes.md lists its keys")
    audit.add_argument("--out", type=path, metavar="DIR", help="the run folder, new or empty; default runs/NAME")
    audit.add_argument("--dry-run", action="store_true", help="print phases, sizes and costs; touch nothing")
    audit.add_argument("--resume", type=path, metavar="RUN", help="audit the run in this folder, which may be under way")
    audit.set_defaults(run=_audit)


def _needed(phases: Sequence[PhasePlan]) -> list[PhasePlan]:
    """The first audit and what it rests on: base, scorer and reasoner; what else a run does before it can wait."""
    first = next(place for place, phase in enumerate(phases) if phase.kind == "audit")
    tuned = [
        p for p in phases[:first] if p.kind == "pretrain" or (p.kind != "ablation" and p.role in ("scorer", "reasoner"))
    ]
    return [*tuned, phases[first]]


@stop.listening()
def _audit(options: argparse.Namespace) -> int:
    recipe, out = recipe_and_folder(options)
    from coevo.plan.plan import plan

    phases = _needed(plan(recipe))
    if options.dry_run:
        show_plan(recipe, phases)
        return 0
    if code := run_phases(recipe, out, phases, resume=options.resume is not None):
        return code
    if is_main():
        from coevo import report

        say(report.audit_table(out))
        say(f"train it with: coevo train --resume {out}")
    return 0
