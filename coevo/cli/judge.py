"""`coevo judge`: a language model's scores of responses, or its choice between two models'."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from coevo.cli.console import Commands, command, count, is_main, path, say, warn, whole
from coevo.cli.progress import ConsoleProgress
from coevo.cli.report import show_judgement
from coevo.cli.train import EXIT_INTERRUPTED
from coevo.errors import ConfigError

if TYPE_CHECKING:
    from coevo.judge.endpoint import Address
    from coevo.judge.run import LocalModel, Prices

JUDGE_EXAMPLES = """rubrics: paper (one score), coser (4 dimensions), charactereval (12), pingpong (3), or a YAML file

examples:
  export OPENAI_API_KEY=...
  coevo judge --data world.json --responses mine.jsonl --endpoint https://api.openai.com/v1 --model gpt-4.1-mini \\
      --rubric coser --price-in 0.4 --price-out 1.6 --out judged/mine --dry-run
  coevo judge --data world.json --responses a.jsonl b.jsonl --pairwise --endpoint http://localhost:8000/v1 --no-key \\
      --model Qwen/Qwen3-32B --rubric pingpong --out judged/ab
  coevo judge --data world.json --responses mine.jsonl --local Qwen/Qwen3-4B --rubric paper --out judged/local

Killed, interrupted or cut off from the endpoint, the same call goes on where it was, and pays for no answer twice.
docs/judge.md says how to read the result and how to write a rubric.
"""
_SECRET = re.compile(r"(api.?key|authorization|password|secret)[\"']?\s*[:=]", re.IGNORECASE)
_OWN_FIELDS = ("model", "messages", "stream", "n")
"""Fields of a request that are not the user's to set."""


def add(commands: Commands) -> None:
    """Adds the command."""
    judge = command(commands, "judge", "have a language model judge responses by a rubric", JUDGE_EXAMPLES)
    judge.add_argument("--data", type=path, required=True, metavar="FILE", help="scenarios in the RPGBench layout")
    judge.add_argument(
        "--responses", type=path, nargs="+", action="extend", required=True, metavar="FILE", help="responses as JSON Lines"
    )
    judge.add_argument("--rubric", required=True, metavar="NAME|FILE", help="what is judged; see below")
    judge.add_argument("--pairwise", action="store_true", help="compare two models, each pair in both orders")
    judge.add_argument("--out", type=path, metavar="DIR", help="the result folder; default judged/NAME of the first file")
    judge.add_argument("--splits", nargs="+", action="extend", metavar="SPLIT", help="default: those with a response")
    judge.add_argument("--dry-run", action="store_true", help="say how much would be asked, about, and ask nothing")
    judge.add_argument("--seed", type=whole, default=0, metavar="S", help="of the intervals, and of --local; default 0")
    judge.add_argument("--resamples", type=count, default=1000, metavar="N", help="of the bootstrap; default 1000")
    where = judge.add_argument_group("the judge")
    either = where.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "--endpoint", metavar="URL", help="base of an OpenAI-compatible server, such as http://localhost:8000/v1"
    )
    either.add_argument("--local", metavar="DIR|HUB_ID", help="a model that is loaded here")
    where.add_argument("--model", metavar="NAME", help="of the model at the endpoint")
    where.add_argument(
        "--key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="holds the key; default OPENAI_API_KEY"
    )
    where.add_argument("--no-key", action="store_true", help="the endpoint asks for no key")
    where.add_argument("--max-tokens", type=count, default=1024, metavar="N", help="of an answer; default 1024")
    where.add_argument("--temperature", type=_amount, default=0.0, metavar="T", help="default 0")
    where.add_argument(
        "--extra",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="more fields of a request; null removes one",
    )
    pace = judge.add_argument_group("calls")
    pace.add_argument("--concurrency", type=count, default=8, metavar="N", help="calls at once; default 8")
    pace.add_argument("--timeout", type=_amount, default=120.0, metavar="SECONDS", help="of a call; default 120")
    pace.add_argument(
        "--retries", type=whole, default=6, metavar="N", help="of a call that failed and cost nothing; default 6"
    )
    pace.add_argument(
        "--attempts", type=count, default=3, metavar="N", help="answers paid for until one can be read; default 3"
    )
    pace.add_argument("--price-in", type=_amount, metavar="PRICE", help="of a million tokens that the judge reads")
    pace.add_argument("--price-out", type=_amount, metavar="PRICE", help="of a million tokens that it writes")
    judge.set_defaults(run=_judge)


def _judge(options: argparse.Namespace) -> int:
    # pydantic, numpy: --help does without
    from coevo.judge.run import Question, outlook, prepare, stages

    judge = _judge_of(options)
    question = Question(
        data=options.data,
        files=tuple(options.responses),
        rubric=options.rubric,
        judge=judge,
        out=options.out or Path("judged") / options.responses[0].stem,
        splits=tuple(options.splits) if options.splits else None,
        pairwise=options.pairwise,
        attempts=options.attempts,
        seed=options.seed,
        resamples=options.resamples,
        prices=_prices(options),
        key_name=None if options.no_key or options.dry_run or options.local else options.key_env,
    )
    request = prepare(question)
    say(_outlook(outlook(request), question.out))
    if options.dry_run:
        return 0
    try:
        from coevo.judge.run import judge as ask

        ask(request, ConsoleProgress(stages(request)))
    except KeyboardInterrupt:
        if is_main():
            warn(f"\ncoevo: interrupted. The same call goes on where it was; its answers are in {question.out}.")
        return EXIT_INTERRUPTED
    show_judgement(question.out)
    return 0


class _Raising(argparse.ArgumentParser):
    """Bad options are an error of who gave them, wherever they were written."""

    def error(self, message: str) -> NoReturn:
        """Instead of the usage."""
        raise ConfigError(message)


def check_options(words: Sequence[str], asks: bool) -> None:
    """Finds what is wrong with a judge's options before there is anything to judge.

    Args:
        words: options of `coevo judge` without its data, responses and result folder.
        asks: whether it is to be asked, for which the key must be there.

    Raises:
        ConfigError: options that it does not take, or a rubric, endpoint or key that cannot be.
    """
    refused = {"--data", "--responses", "--out", "--pairwise", "--dry-run", "--help", "-h"}
    found = refused & {word.partition("=")[0] for word in words}
    if found:
        raise ConfigError(f"{', '.join(sorted(found))} cannot be given here; leave it out.")
    parser = _Raising(allow_abbrev=False)
    add(parser.add_subparsers())
    options, rest = parser.parse_known_args(["judge", *words, "--data", "-", "--responses", "-"])
    if rest:
        # without what follows it, which may be a key
        raise ConfigError(f"unknown option {rest[0].partition('=')[0]}; coevo judge --help lists them.")
    from coevo.judge.run import check

    key_name = None if options.no_key or options.local or not asks else options.key_env
    check(options.rubric, _judge_of(options), key_name)
    _prices(options)


def _judge_of(options: argparse.Namespace) -> Address | LocalModel:
    if options.local:
        if options.model or options.extra or options.price_in is not None or options.price_out is not None:
            raise ConfigError("--local goes without --model, --extra and prices, which belong to --endpoint.")
        from coevo.judge.run import LocalModel

        return LocalModel(options.local, options.max_tokens, options.temperature, options.seed)
    if not options.model:
        raise ConfigError("--endpoint needs --model, the name of the model there.")
    if options.retries < 0 or not options.timeout:
        raise ConfigError(f"--retries {options.retries}, --timeout {options.timeout:g}: expected at least 0, and above 0.")
    from coevo.judge.endpoint import Address

    parameters: dict[str, Any] = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    parameters |= dict(map(_extra, options.extra))
    parameters = {name: value for name, value in parameters.items() if value is not None}
    url = options.endpoint.rstrip("/")
    return Address(url, options.model, parameters, options.concurrency, options.timeout, options.retries)


def _extra(word: str) -> tuple[str, Any]:
    name, separator, text = word.partition("=")
    if _SECRET.search(word):
        raise ConfigError(
            f"--extra {name.split()[0]} seems to hold a key, which would be written down; use --key-env instead."
        )
    if not separator or not name or name in _OWN_FIELDS:
        raise ConfigError(f"--extra {word}: expected KEY=VALUE, and not {', '.join(_OWN_FIELDS)}; a value is YAML or JSON.")
    from coevo.yamlfile import parse_yaml

    value = parse_yaml(text, f"--extra {word}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(f"--extra {word}: the value is not YAML that JSON can hold; quote it.") from None
    return name, value


def _prices(options: argparse.Namespace) -> Prices | None:
    given = options.price_in, options.price_out
    if given == (None, None):
        return None
    if None in given:
        raise ConfigError("--price-in and --price-out go together; give 0 for what is free.")
    from coevo.judge.run import Prices

    return Prices(*given)


def _outlook(found: dict[str, Any], out: Path) -> str:
    kept = found["questions"] - found["to_ask"]
    text = (
        f"{found['questions']} questions, {kept} of them answered before or twice the same; {found['to_ask']} to ask: about "
    )
    text += f"{found['prompt_tokens']:,} tokens to read and {found['completion_tokens']:,} to write"
    return text + ("" if found["cost"] is None else f", cost about {found['cost']:.2f}") + f" -> {out}"


def _amount(text: str) -> float:
    """An argument that is a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 0 to 10^9")
    return value
