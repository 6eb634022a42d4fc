"""`coevo calibrate`: set the estimates against the world's exact truth, or A1 against components swapped in a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.cli.console import Commands, command, path, say, whole
from coevo.cli.progress import ConsoleProgress
from coevo.errors import ConfigError
from coevo.progress import Stage

if TYPE_CHECKING:
    from coevo.scoring.scorer import Scorer

CALIBRATE_EXAMPLES = """examples:
  coevo calibrate --out calibration
  coevo calibrate --out calibration --scorer runs/quickstart
  coevo calibrate --out glance --quick
  coevo calibrate --out attribution --scorer runs/drama --data drama.json

With --data it asks one thing of the scorer, on scenarios whose law nobody knows: whether answers that mistake the user,
the character or the dialogue lose most in that component.

Run again with the same --out after an interruption: parts that are there are kept.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    purpose = "set every estimate against the world's exact truth"
    calibrate = command(commands, "calibrate", purpose, CALIBRATE_EXAMPLES)
    calibrate.add_argument("--out", type=path, required=True, metavar="DIR", help="new, empty, or of the same settings")
    calibrate.add_argument(
        "--scorer", type=path, metavar="RUN|MODEL", help="a run, or a pretrained model, whose scorer is judged"
    )
    calibrate.add_argument(
        "--data", type=path, metavar="FILE", help="scenarios in the RPGBench layout: attribution on them, and nothing else"
    )
    calibrate.add_argument("--quick", action="store_true", help="two minutes; too coarse to judge by")
    calibrate.add_argument("--seed", type=whole, default=0, metavar="S", help="default 0")
    calibrate.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    if options.data is not None:
        return _attribute(options)
    # numpy, matplotlib and, for a scorer, torch: help stays quick without them
    from coevo.calibration import PARTS, QUICK, Settings, calibrate, report

    scorer = None
    if options.scorer is not None:
        scorer = _scorer(options.scorer)
    settings = replace(QUICK if options.quick else Settings(), seed=options.seed)
    names = [*PARTS, *(["learned"] if scorer else [])]
    result = calibrate(options.out, settings, scorer, Parts(names))
    files = report.write(options.out, result)
    say("\n" + report.console(result))
    for file in files:
        say(str(file))
    return 0


def _attribute(options: argparse.Namespace) -> int:
    if options.scorer is None:
        raise ConfigError(
            f"--data {options.data}: nobody knows the law of a file; give a scorer to judge: --scorer RUN or MODEL."
        )
    if options.quick:
        raise ConfigError("--quick makes the world's parts smaller, and --data has none of them; omit one of the two.")
    from coevo.calibration import Settings
    from coevo.calibration import file_report as report
    from coevo.calibration.cache import Cache
    from coevo.calibration.file_attribution import attribute
    from coevo.calibration.report import console
    from coevo.diagnosis.scorers import unseen

    scorer, scenarios = _scorer(options.scorer), unseen(options.scorer, options.data)
    settings, pace = replace(Settings(), seed=options.seed), Parts(["attribution"])
    cache = Cache(options.out, settings)
    result = attribute(scorer, scenarios, settings, cache, lambda done, total: pace("attribution", done, total))
    files = report.write(options.out, result)
    say("\n" + console(result))
    for file in files:
        say(str(file))
    return 0


def _scorer(run: Path) -> Scorer:
    """A scorer that gives every likelihood."""
    from coevo.diagnosis.scorers import load_scorer
    from coevo.loop.run import start_processes
    from coevo.plan.zero_shot import is_model
    from coevo.runs.record import read_resolved
    from coevo.scoring.scorer import Scorer

    if not is_model(run) and read_resolved(run).corl is not None:
        raise ConfigError(
            f"--scorer {run}: its recipe sets corl, so that scorer reads each scenario with a reasoning. A calibration "
            "needs every likelihood, and a scenario whose reasoning is not whole has none. Give a run without corl."
        )
    start_processes()
    found = load_scorer(run)
    assert isinstance(found, Scorer), "without corl there is no reasoner"
    return found


class Parts:
    """A calibration's parts as the display of a run's pace has them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._progress = ConsoleProgress([Stage(name, None) for name in names])
        self._part, self._done = "", 0

    def __call__(self, part: str, done: int, total: int) -> None:
        """Told after each unit of a part."""
        if part != self._part:
            self._progress.phase(part, total)
            self._part, self._done = part, 0
        self._progress.advance(done - self._done)
        self._done = done
        if done >= total:
            self._progress.done(part)
            self._part = ""
