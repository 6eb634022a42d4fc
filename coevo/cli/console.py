"""What every command needs: how arguments are read, and how a line reaches a person."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from coevo.errors import CoevoError, ConfigError, DataError, TrainingError
from coevo.escape import visible
from coevo.nearest import did_you_mean

EXIT_ERROR = 2
Commands = argparse._SubParsersAction  # argparse has no public name for it


class Parser(argparse.ArgumentParser):
    """A parser whose complaints name the nearest word that it knows."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = did_you_mean(str(value), known) or f" Expected one of {', '.join(known)}."
            raise argparse.ArgumentError(action, f"there is no {str(value)[:80]!r}.{near}")

    def error(self, message: str) -> NoReturn:
        """The usage and what is wrong, exit code 2."""
        self.print_usage(sys.stderr)
        warn(f"{self.prog}: error: {message}")
        sys.exit(EXIT_ERROR)

    def options(self) -> list[str]:
        """Every option that it knows."""
        return list(self._option_string_actions)


def command(commands: Commands, name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
    """A new command with its purpose and its examples in `--help`."""
    return commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def path(text: str) -> Path:
    """An argument that is a path."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path: it is empty or has a null character")
    return Path(text)


def whole(text: str) -> int:
    """An argument that is a whole number."""
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of at most 18 digits")
    return int(text)


def count(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number above 0 and below 10^9")
    return int(text)


def refuse_other_encodings(arguments: Sequence[str]) -> None:
    """Refuses names that the libraries which load and save models would read as others.

    They take every path for UTF-8, while Python reads and writes names in the locale's encoding.

    Raises:
        ConfigError: an argument, or the folder that relative names begin in, is not ASCII and the locale is not UTF-8; or it
            is not UTF-8 in a locale that is.
    """
    encoding = sys.getfilesystemencoding()
    words = list(arguments)
    with contextlib.suppress(OSError):
        # a folder that was deleted has no name
        words.append(str(Path.cwd()))
    for word in words:
        # what is not UTF-8 is read as halves of surrogate pairs
        if word.isascii() or (encoding == "utf-8" and not any("\ud800" <= character <= "\udfff" for character in word)):
            continue
        shown = word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if encoding == "utf-8":
            raise ConfigError(f"{shown}: this name is not UTF-8; expected one that is; rename it.")
        raise ConfigError(
            f"{shown}: this name is not ASCII, and the locale's encoding is {encoding}; expected UTF-8, or names in ASCII. "
            "Set LC_ALL=C.UTF-8, unset PYTHONUTF8, and call again."
        )


def is_main() -> bool:
    """Whether this process is the one that speaks; accelerate and torchrun number them in RANK.

    A RANK without the address at which the ranks meet is left over from something else.
    """
    return os.environ.get("RANK", "0") == "0" or "MASTER_ADDR" not in os.environ


def say(text: str) -> None:
    """One line on standard output."""
    if is_main():
        print(visible(text), flush=True)


def stream(piece: str) -> None:
    """A part of a line on standard output, as it comes."""
    if is_main():
        sys.stdout.write(visible(piece))
        sys.stdout.flush()


def warn(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{visible(text)}\n")


def complain(error: CoevoError) -> None:
    """Errors of recipe and data are the same on every rank and told once; others may be one rank's own."""
    if is_main():
        warn(f"coevo: {error}")
    elif not isinstance(error, (ConfigError, DataError, TrainingError)):
        warn(f"coevo, rank {os.environ['RANK']}: {error}")
