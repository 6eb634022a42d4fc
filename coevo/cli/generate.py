"""`coevo generate`: a model's responses to a file's scenarios."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coevo.cli.console import Commands, command, count, path, say, warn, whole
from coevo.cli.endpoint import add_endpoint, address
from coevo.cli.progress import ConsoleProgress
from coevo.cli.train import EXIT_INTERRUPTED
from coevo.errors import ConfigError
from coevo.progress import Stage

if TYPE_CHECKING:
    from coevo.diagnosis.answers import Writer
    from coevo.diagnosis.generate import Sampling

GENERATE_EXAMPLES = """examples:
  coevo generate --data dialogues.json --model runs/quickstart
  coevo generate --data dialogues.json --model Qwen/Qwen3-4B --splits IDTest OOD1Test --out responses/qwen.jsonl
  coevo generate --data dialogues.json --model my-model --endpoint http://localhost:8000/v1 --no-key --temperature 0.7

A run of coevo train answers with its last accepted role-playing model; any other model is asked with coevo's prompts for
pretrained models. Of a model that thinks first, the thought is left out. Killed or interrupted, the same call goes on.
The file is what coevo score and coevo judge read.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    generate = command(commands, "generate", "have a model answer the scenarios of a file", GENERATE_EXAMPLES)
    generate.add_argument("--data", type=path, required=True, metavar="FILE", help="scenarios in the RPGBench layout")
    generate.add_argument(
        "--model",
        required=True,
        metavar="RUN|MODEL",
        help="a run, or a model: folder, hub id or, at --endpoint, name",
    )
    generate.add_argument("--out", type=path, metavar="FILE", help="a new file; default responses/NAME.jsonl")
    generate.add_argument("--splits", nargs="+", metavar="SPLIT", help="of the file; all but IDTrain if omitted")
    generate.add_argument("--name", metavar="NAME", help="what the file calls the model; default the last part of --model")
    generate.add_argument("--max-tokens", type=count, default=256, metavar="N", help="of a response; default 256")
    generate.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    generate.add_argument("--seed", type=whole, default=0, metavar="S", help="of what is drawn; default 0")
    add_endpoint(generate)
    generate.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    from coevo.data import load_scenarios, split_names
    from coevo.diagnosis.answers import write_answers
    from coevo.diagnosis.generate import Sampling

    sampling = Sampling(options.max_tokens, options.temperature, options.seed)
    sampling.check()
    out = options.out or Path("responses") / f"{options.name or Path(options.model).resolve().name}.jsonl"
    if out.exists():
        raise ConfigError(f"--out {out} exists; expected a new file. Choose another name, or delete it first.")
    splits = options.splits or [name for name in split_names(options.data) if name != "IDTrain"]
    if not splits:
        raise ConfigError(f"{options.data} has no split but IDTrain; name it with --splits IDTrain to have it answered.")
    scenarios = load_scenarios(options.data, splits)
    writer, asked = _writer(options, sampling)
    say(f"{len(scenarios)} scenarios of {', '.join(splits)}; {writer.name} -> {out}")
    progress = ConsoleProgress([Stage("responses", None)])
    progress.phase("responses", len(scenarios))
    try:
        counts = write_answers(writer, scenarios, out, asked, lambda n: progress.advance(n) if n else None)
    except KeyboardInterrupt:
        warn("\ncoevo: interrupted. The same call goes on where it was.")
        return EXIT_INTERRUPTED
    progress.done("responses")
    _told(counts, out, options.data)
    return 0


def _writer(options: argparse.Namespace, sampling: Sampling) -> tuple[Writer, dict[str, Any]]:
    """Who answers, and the settings that each line names."""
    from coevo.diagnosis import answers

    if options.endpoint:
        from coevo.prompts import named

        parameters = answers.parameters(sampling)
        place, key = address(options, options.model, parameters)
        return answers.Remote(place, key, named("instruct"), options.name), {"model": options.model, **parameters}
    from coevo.diagnosis.generate import Responder

    responder = Responder(options.model, sampling, options.name)
    responder.prepare()
    return answers.Local(responder), {"model": options.model, **responder.identity}


def _told(counts: Counter[str], out: Path, data: Path) -> None:
    """What came, and what to do next."""
    say(f"{out}: {sum(counts.values())} responses, {', '.join(f'{n} {status}' for status, n in counts.most_common())}")
    if counts["truncated"]:
        warn(f"{counts['truncated']} responses reached --max-tokens and break off; coevo score counts them and scores none.")
    say(f"Next: coevo score --data {data} --responses {out} --scorer RUN|MODEL")
