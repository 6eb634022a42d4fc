"""The command line: one module a command. Nothing else prints; help and bad input answer without torch."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence

from coevo import stop
from coevo.cli import ablation, audit, calibrate, data, experiment, judge, report, score, train
from coevo.cli.console import complain, is_main, refuse_other_encodings, warn
from coevo.cli.streams import settle
from coevo.cli.train import EXIT_INTERRUPTED, EXIT_STOPPED
from coevo.errors import CoevoError

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
EXIT_ERROR = 2
COMMANDS = (train, audit, experiment, score, judge, data, report, ablation, calibrate)
"""In the order of `coevo --help`."""
LOADING = frozenset(("train", "audit", "experiment", "score", "judge", "ablation", "calibrate"))
"""Commands that load models."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, or 2 for anything a user can put right, 130 when interrupted, or 143 when stopped by SIGTERM.
    """
    settle()
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parse(words)
        if options.command in LOADING:
            refuse_other_encodings(words)
        return options.run(options)
    except CoevoError as error:
        complain(error)
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
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if hasattr(options, "recipe"):
        # key=value may stand anywhere among the options, which argparse alone does not allow
        words = [word for word in (options.recipe, *rest) if word is not None]
        options.overrides = [word for word in words if "=" in word and not word.startswith("-")]
        rest = [word for word in words if word not in options.overrides]
        options.recipe = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if options.command == "score":
        options.overrides += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in options.overrides]
    if rest:
        parser.error(f"{options.command}: unknown argument(s): {' '.join(rest)}; see coevo {options.command} --help")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="coevo",
        description="Measures how a role-playing model breaks under shifted users, characters and dialogues, and "
        "co-evolves a user simulator and the model against it.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser
