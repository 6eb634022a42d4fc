"""`coevo score`: what finished models lose under which shift, from their responses alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from coevo.cli.console import Commands, command, is_main, path, say, warn, whole
from coevo.cli.progress import ConsoleProgress
from coevo.cli.report import show_diagnosis
from coevo.cli.train import EXIT_INTERRUPTED
from coevo.errors import ConfigError

SCORE_EXAMPLES = """a response is one line of JSON; a file may hold several models:
  {"sample_ID": "IDTest-00000", "response": "Good evening.", "model": "mine"}

examples:
  coevo train recipes/quickstart.yaml --out runs/q --until sft-scorer
  coevo data world --out world.json --test 50
  coevo score --data world.json --responses mine.jsonl --scorer runs/q --out scores/mine
  coevo score --data world.json --responses a.jsonl b.jsonl --scorer runs/q k=16 negatives=subset
  coevo score --data world.json --responses a.jsonl --scorer runs/q estimator=released
  coevo score --data world.json --responses mine.jsonl --scorer runs/corl-world
  coevo score --data dialogues.json --responses mine.jsonl --scorer Qwen/Qwen3-4B k=3

A pretrained model in place of a run scores as it is, without any training.
A scorer that CoRL trained reads each scenario with a reasoning, which its run's reasoner writes first.
Killed or interrupted, the same call goes on where it was. docs/score.md says how to read the report.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    score = command(commands, "score", "diagnose finished models from their responses", SCORE_EXAMPLES)
    score.usage = (
        "coevo score --data FILE --responses FILE [FILE ...] --scorer RUN|MODEL [--reasoner RUN] [--out DIR] "
        "[--splits SPLIT ...] [--seed S] [key=value ...]"
    )
    score.add_argument("--data", type=path, required=True, metavar="FILE", help="scenarios in the RPGBench layout")
    score.add_argument(
        "--responses", type=path, nargs="+", action="extend", required=True, metavar="FILE", help="responses as JSON Lines"
    )
    score.add_argument(
        "--scorer",
        type=path,
        required=True,
        metavar="RUN|MODEL",
        help="a run folder whose scorer has been trained, or a pretrained model's folder or hub id",
    )
    score.add_argument(
        "--reasoner", type=path, metavar="RUN", help="for a scorer of CoRL: whose reasonings it reads; default its own run's"
    )
    score.add_argument("--out", type=path, metavar="DIR", help="the result folder; default scores/NAME of the first file")
    score.add_argument(
        "--splits", nargs="+", action="extend", metavar="SPLIT", help="default: those that a response belongs to"
    )
    score.add_argument("--seed", type=whole, metavar="S", help="of design and bootstrap; default the run's")
    score.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of the run's evaluation: estimator, negatives, k, resamples"
    )
    score.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    from coevo.diagnosis.request import Question, prepare, stages

    files, splits, overrides = _sorted_out(options)
    out = options.out or Path("scores") / files[0].stem
    request = prepare(Question(options.data, files, options.scorer, out, options.reasoner, splits, options.seed, overrides))
    models = ", ".join(request.answers.by_model)
    say(f"{len(request.answers.scenarios)} scenarios of {', '.join(request.answers.splits)}; models {models} -> {out}")
    try:
        from coevo.diagnosis.run import score

        score(request, ConsoleProgress(stages(request)))
    except KeyboardInterrupt:
        if is_main():
            warn(f"\ncoevo: interrupted. The same call goes on where it was; what is done is in {out}.")
        return EXIT_INTERRUPTED
    if is_main():
        show_diagnosis(out)
    return 0


def _sorted_out(options: argparse.Namespace) -> tuple[tuple[Path, ...], tuple[str, ...] | None, tuple[str, ...]]:
    """Files, splits and overrides: a key=value that follows a list of files or splits is argparse's part of that list."""
    words = [*map(str, options.responses), *(options.splits or [])]
    overrides = (*options.overrides, *filter(_is_override, words))
    files = tuple(file for file in options.responses if not _is_override(str(file)))
    splits = tuple(split for split in options.splits or [] if not _is_override(split))
    if not files:
        raise ConfigError("--responses: no file given; for example: --responses mine.jsonl")
    return files, splits or None, overrides


def _is_override(word: str) -> bool:
    return "=" in word and not Path(word).exists()
