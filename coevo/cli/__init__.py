"""The command line: one module a command. Nothing else prints; help and bad input answer without torch."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from coevo import stop
from coevo.cli import (
    ablation,
    arena,
    audit,
    calibrate,
    chat,
    compare,
    completion,
    data,
    experiment,
    export,
    gate,
    generate,
    init,
    judge,
    report,
    reward,
    score,
    serve,
    train,
    view,
)
from coevo.cli.console import EXIT_ERROR, Parser, complain, is_main, refuse_other_encodings, say, warn
from coevo.cli.streams import settle
from coevo.cli.train import EXIT_INTERRUPTED, EXIT_STOPPED
from coevo.errors import CoevoError
from coevo.nearest import did_you_mean, near_path

USERS_ERRNO = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
    )
)
"""What the system refuses for a reason that a user can put right: rights, space, names."""
OVERRIDING = ("train", "audit", "score")
"""Commands that take key=value."""
READ = ("recipe", "file", "folder", "folders", "data", "responses", "scorer", "reasoner", "resume", "local")
"""Arguments that name what must be there."""
COMMANDS = (
    init, train, audit, experiment, generate, chat, arena, serve, score, judge, gate, export, reward, data, report, compare,
    view, ablation, calibrate, completion,
)  # fmt: skip
"""In the order of `coevo --help`."""
LOADING = frozenset(
    (
        "train",
        "audit",
        "experiment",
        "generate",
        "chat",
        "arena",
        "serve",
        "export",
        "score",
        "judge",
        "reward",
        "ablation",
        "calibrate",
    )
)
"""Commands that load models."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, or 2 for anything a user can put right, 130 when interrupted, or 143 when stopped by SIGTERM.
    """
    settle()
    # OpenMP reads it when torch loads: threads that wait in a loop beside a busy process run at a tenth of their speed
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = argparse.Namespace()
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parse(words)
        if options.command in LOADING:
            refuse_other_encodings(words)
        return options.run(options)
    except CoevoError as error:
        complain(_with_near(error, options))
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in USERS_ERRNO:
            raise
        # a write that fails does not know its file
        where = "" if error.filename is None else f"{error.filename}: "
        warn(f"coevo: {where}{error.strerror}; check the path, its rights and the space left.")
        return EXIT_ERROR
    except KeyboardInterrupt:
        # commands that have more to say about it say it themselves
        warn("\ncoevo: interrupted.")
        return EXIT_INTERRUPTED
    except stop.Stopped:
        # a run that is under way says it itself
        if is_main():
            warn("\ncoevo: stopped by SIGTERM. No phase was under way.")
        return EXIT_STOPPED


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, commands = make_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(EXIT_ERROR)
    options, rest = parser.parse_known_args(arguments)
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        commands[options.command].error(_unknown_option(commands[options.command], unknown[0], arguments))
    if hasattr(options, "recipe"):
        # key=value may stand anywhere among the options, which argparse alone does not allow
        words = [word for word in (options.recipe, *rest) if word is not None]
        options.overrides = [word for word in words if "=" in word]
        rest = [word for word in words if word not in options.overrides]
        options.recipe = rest.pop(0) if rest else None
    if options.command == "score":
        options.overrides += [word for word in rest if "=" in word]
        rest = [word for word in rest if word not in options.overrides]
    if rest:
        commands[options.command].error(f"unknown argument(s): {' '.join(rest)}")
    return options


def _unknown_option(parser: Parser, word: str, arguments: Sequence[str]) -> str:
    """What to write instead: a key of a recipe is no option."""
    option, separator, value = word.partition("=")
    if not separator:
        after = [*arguments[arguments.index(word) + 1 :], ""][0]
        value = after if after and not after.startswith("-") else "VALUE"
    command = parser.prog.rpartition(" ")[2]
    if command in OVERRIDING and option.startswith("--"):
        # pydantic: help does without
        from coevo.config.load import keys_like

        keys = keys_like(option[2:].replace("-", "_"), evaluation=command == "score")
        if keys:
            words = " or ".join(f"{key}={value}" for key in keys)
            return f"unknown option {option}; a recipe's keys are set without dashes: {words}"
    return f"unknown option {option}.{did_you_mean(option, parser.options())}"


def _with_near(error: CoevoError, options: argparse.Namespace) -> CoevoError:
    """The error, and the path that is nearest to one that it names and that is not there."""
    for name in READ:
        value = getattr(options, name, None)
        for given in map(str, value if isinstance(value, list) else [value] if value else []):
            if given in str(error) and not os.path.lexists(given):
                near = near_path(Path(given))
                if near is not None:
                    return CoevoError(f"{error} Did you mean {near}?")
    return error


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # slow to import, for what is seldom asked
        from importlib.metadata import PackageNotFoundError, version

        try:
            say(f"coevo {version('coevo')}")
        except PackageNotFoundError:
            say("coevo, version unknown: it is not installed; pip install -e . in the checkout")
        parser.exit()


def make_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and of each command."""
    parser = Parser(
        prog="coevo",
        description="Measures how a role-playing model breaks under shifted users, characters and dialogues, and "
        "co-evolves a user simulator and the model against it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which coevo this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser, commands.choices
