"""`coevo report`: rebuild tables and plots of a run, an experiment, a diagnosis or judgements."""

from __future__ import annotations

import argparse
from pathlib import Path

from coevo.cli.console import Commands, command, path, say
from coevo.errors import CheckpointError

REPORT_EXAMPLES = """examples:
  coevo report runs/quickstart
  coevo report scores/mine
  coevo report judged/mine
  coevo report experiments/world
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    report = command(
        commands, "report", "rebuild tables and plots of a run, an experiment, a diagnosis or judgements", REPORT_EXAMPLES
    )
    report.add_argument("folder", type=path, metavar="DIR")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    if (options.folder / "experiment.json").is_file():
        show_experiment(options.folder)
        return 0
    if (options.folder / "result.json").is_file():
        show_diagnosis(options.folder)
        return 0
    if (options.folder / "summary.json").is_file():
        show_judgement(options.folder)
        return 0
    if not (options.folder / "resolved.yaml").is_file():
        raise CheckpointError(
            f"{options.folder} holds no run: resolved.yaml is missing. Give the folder that coevo train --out named, "
            "or that of coevo experiment, score or judge."
        )
    show_report(options.folder)
    return 0


def show_report(folder: Path) -> None:
    """Builds the report of a run folder, then prints its table and where its files are."""
    from coevo import report

    report.build(folder)
    say(report.console_table(folder))
    for file in sorted((folder / "report").iterdir()):
        say(str(file))


def show_experiment(folder: Path) -> None:
    """Builds the report of an experiment's folder, then prints its main tables and where the files are."""
    from coevo.experiment import report

    written = report.build(folder)
    say(report.console(folder))
    say("")
    for file in written:
        say(str(file))


def show_diagnosis(folder: Path) -> None:
    """Builds the report of a result folder, then prints the diagnosis in words and where the files are."""
    from coevo.diagnosis import report as score

    written = score.build(folder)
    for line in score.sentences(folder):
        say(line)
    say("")
    for file in [folder / score.RESULT_FILE, *written]:
        say(str(file))


def show_judgement(folder: Path) -> None:
    """Builds the table of a result folder, then prints it and where the files are."""
    from coevo.judge import report as judge

    written = judge.build(folder)
    say(judge.console(folder))
    say("")
    for file in [folder / judge.RESULT_FILE, folder / "scores.jsonl", *written]:
        say(str(file))
