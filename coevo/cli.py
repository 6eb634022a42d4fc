"""The command line: `coevo train | data | report`. Nothing else prints; help and bad input answer without torch."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.errors import CheckpointError, CoevoError, ConfigError, DataError

if TYPE_CHECKING:
    from coevo.config import Recipe
    from coevo.loop.plan import PhasePlan

USERS_ERRNO = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)
)
"""What the system refuses for a reason that a user can put right: rights, space, names."""
MOST_PROBLEMS = 50
"""Problems of a file that `data check` prints one by one."""
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

TRAIN_EXAMPLES = """examples:
  coevo train recipes/quickstart.yaml --dry-run
  coevo train recipes/quickstart.yaml --out runs/quickstart
  coevo train recipes/quickstart.yaml seed=1 loop.rpm.steps=30 --out runs/seed-1
  coevo train --resume runs/quickstart
  accelerate launch --config_file launch/accelerate/ddp.yaml -m coevo train recipes/quickstart.yaml
"""
WORLD_EXAMPLES = """examples:
  coevo data world --out world.json
  coevo data world --out small.json --train 100 --test 10 --seed 7
"""
CHECK_EXAMPLES = """examples:
  coevo data check world.json
"""
REPORT_EXAMPLES = """examples:
  coevo report runs/quickstart
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, or 2 for anything a user can put right, or 130 when interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a terminal that cannot show a name shows its escape
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options = _parse(sys.argv[1:] if arguments is None else list(arguments))
        return options.run(options)
    except CoevoError as error:
        _complain(error)
        return EXIT_ERROR
    except BrokenPipeError:
        # the reader of our output has gone, as `head` does; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in USERS_ERRNO:
            raise
        sys.stderr.write(f"coevo: {error.filename}: {error.strerror}; check the path, its rights and the space left.\n")
        return EXIT_ERROR


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command == "train":
        # key=value may stand anywhere among the options, which argparse alone does not allow
        words = [word for word in (options.recipe, *rest) if word is not None]
        options.overrides = [word for word in words if "=" in word and not word.startswith("-")]
        rest = [word for word in words if word not in options.overrides]
        options.recipe = rest.pop(0) if rest and not rest[0].startswith("-") else None
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
    train = _command(commands, "train", "run a recipe from start to table", TRAIN_EXAMPLES)
    train.usage = "coevo train [RECIPE] [key=value ...] [--out DIR] [--dry-run] [--until PHASE] [--resume RUN]"
    train.add_argument("recipe", nargs="?", metavar="RECIPE", help="a YAML file; docs/recipes.md lists its keys")
    train.add_argument("--out", type=_path, metavar="DIR", help="the run folder, new or empty; default runs/NAME")
    train.add_argument("--dry-run", action="store_true", help="print phases, sizes and costs; touch nothing")
    train.add_argument("--resume", type=_path, metavar="RUN", help="continue the run in this folder")
    train.add_argument("--until", metavar="PHASE", help="stop after this phase, named without its number: pretrain, rpm-1")
    train.set_defaults(run=_train)

    data = _command(commands, "data", "make or check a data file", WORLD_EXAMPLES + CHECK_EXAMPLES.partition("\n")[2])
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    world = _command(kinds, "world", "write the world's scenarios in the RPGBench layout", WORLD_EXAMPLES)
    world.add_argument("--out", type=_path, required=True, metavar="FILE", help="where to; must not exist")
    world.add_argument("--train", type=_count, default=2000, metavar="N", help="IDTrain samples (default 2000)")
    world.add_argument("--test", type=_count, default=100, metavar="N", help="samples per test subset (default 100)")
    world.add_argument("--seed", type=_whole, default=0, metavar="S", help="default 0")
    world.set_defaults(run=_world)
    check = _command(kinds, "check", "validate a file in the RPGBench layout", CHECK_EXAMPLES)
    check.add_argument("file", type=_path, metavar="FILE")
    check.set_defaults(run=_check)

    report = _command(commands, "report", "rebuild tables and plots of a run", REPORT_EXAMPLES)
    report.add_argument("folder", type=_path, metavar="RUN")
    report.set_defaults(run=_report)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, purpose: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=purpose,
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path: it is empty or has a null character")
    return Path(text)


def _whole(text: str) -> int:
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of at most 18 digits")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number above 0 and below 10^9")
    return int(text)


# train ----------------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    recipe, out = _recipe_and_folder(options)
    from coevo.loop.plan import assumptions, plan, table

    phases = _up_to(plan(recipe), options.until)
    if options.dry_run:
        _say(table(phases))
        _say("\n" + assumptions(recipe))
        return 0
    _say(f"{recipe.name}: {len(phases)} phases -> {out}")
    try:
        from coevo.loop.run import train

        progress = ConsoleProgress(phases)
        train(recipe, out, resume=options.resume is not None, progress=progress, until=options.until)
    except KeyboardInterrupt:
        if _is_main():
            begun = (out / "resolved.yaml").exists()
            remedy = f"Continue with: coevo train --resume {out}" if begun else "Nothing had been written."
            sys.stderr.write(f"\ncoevo: interrupted. {remedy}\n")
        return EXIT_INTERRUPTED
    if options.until is not None:
        _say(f"stopped after {options.until} as asked; go on with: coevo train --resume {out}")
    elif _is_main():
        _show_report(out)
    return 0


def _up_to(phases: list[PhasePlan], until: str | None) -> list[PhasePlan]:
    """The phases up to and with the one named; all if none is named."""
    names = [phase.name.partition("-")[2] for phase in phases]
    if until is None:
        return phases
    if until not in names:
        raise ConfigError(f"--until {until}: no such phase in this recipe; expected one of {', '.join(names)}.")
    return phases[: names.index(until) + 1]


def _recipe_and_folder(options: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe to run and the run folder, checked as far as that goes without writing.

    Raises:
        ConfigError: bad recipe, a folder that is taken, or a recipe other than the resumed run's.
        CheckpointError: the folder to resume holds no run.
    """
    from coevo.recipe import load_recipe

    if options.resume is None:
        if options.recipe is None:
            raise ConfigError("train: no recipe given; for example: coevo train recipes/quickstart.yaml")
        recipe = load_recipe(options.recipe, options.overrides)
        out = options.out or Path("runs") / recipe.name
        if not options.dry_run:
            _refuse_taken(out)
        return recipe, out
    if options.out is not None and options.out.resolve() != options.resume.resolve():
        raise ConfigError(f"--out {options.out}: --resume {options.resume} names the run folder already; leave --out away.")
    resolved = options.resume / "resolved.yaml"
    if not resolved.is_file():
        raise CheckpointError(f"{options.resume} holds no run: resolved.yaml is missing. Give the folder that --out named.")
    recipe = load_recipe(resolved)
    given = load_recipe(options.recipe or resolved, options.overrides)
    if given != recipe:
        raise ConfigError(
            f"--resume {options.resume}: the recipe given differs from the run's in "
            f"{', '.join(_differing(given, recipe))}. "
            "A run keeps its recipe: leave the recipe and overrides away, or start a new run with --out."
        )
    return recipe, options.resume


def _refuse_taken(out: Path) -> None:
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder that is new or empty.")
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "nothing may be written in it" if above.is_dir() else "it is a file"
        raise ConfigError(f"--out {out} cannot be made in {above}: {reason}; choose another folder.")
    if out.is_dir() and any(out.iterdir()):
        remedy = f"continue it with coevo train --resume {out}, or " if (out / "resolved.yaml").exists() else ""
        raise ConfigError(f"--out {out} exists and is not empty; {remedy}choose another folder. Nothing was changed.")


def _differing(left: Recipe, right: Recipe) -> list[str]:
    """Dotted names of the keys in which two recipes differ."""
    return sorted({key for key, _ in _flat(left.model_dump()).items() ^ _flat(right.model_dump()).items()})


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = repr(value)
    return flat


class ConsoleProgress:
    """Draws a run's pace: one moving line on a terminal, a line now and then in a log. Silent on all but the main rank.

    The time that remains is the plan's estimate, corrected by how the phases so far compared with theirs.
    """

    def __init__(self, phases: Sequence[PhasePlan], every_s: float = 10.0) -> None:
        from coevo.loop.plan import duration  # here, so that --help stays quick

        self._duration = duration
        self._phases = {phase.name: phase for phase in phases}
        self._order = [phase.name for phase in phases]
        self._finished: set[str] = set()
        self._live = sys.stdout.isatty()
        self._every_s = 0.2 if self._live else every_s
        self._name = ""
        self._units = self._done = 0
        self._note = ""
        self._began = self._shown = 0.0
        self._spent_s = self._expected_s = 0.0

    def phase(self, name: str, units: int) -> None:
        """A phase begins."""
        self._name, self._units, self._done, self._note = name, units, 0, ""
        self._began = time.monotonic()
        self._draw(force=True)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Units done, and the figure of the moment."""
        self._done = min(self._done + units, self._units)
        self._note = note or self._note
        self._draw()

    def done(self, name: str) -> None:
        """A phase has ended, or was done already."""
        self._finished.add(name)
        if name != self._name:
            _say(f"[{self._place(name)}] {name}: done before")
            return
        elapsed = time.monotonic() - self._began
        self._spent_s += elapsed
        self._expected_s += self._phases[name].seconds_estimate or 0.0
        self._name = ""
        self._line(f"[{self._place(name)}] {name}: done in {self._duration(elapsed)}{self._remaining(0.0, 0.0)}", end="\n")

    def say(self, text: str) -> None:
        """A line that a person should read."""
        self._line(text, end="\n")

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._shown < self._every_s:
            return
        self._shown = now
        share = self._done / self._units if self._units else 0.0
        note = f" · {self._note}" if self._note else ""
        place = f"[{self._place(self._name)}] {self._name} {self._done}/{self._units}{note}"
        self._line(f"{place} · {self._duration(now - self._began)}{self._remaining(share, now - self._began)}")

    def _remaining(self, share: float, elapsed: float) -> str:
        """Time to go, from the pace so far; nothing while there is no pace yet."""
        planned = self._phases[self._name].seconds_estimate if self._name else 0.0
        todo = [self._phases[n].seconds_estimate for n in self._order if n not in self._finished and n != self._name]
        if planned is None or None in todo:
            return ""
        expected, spent = self._expected_s + share * planned, self._spent_s + (elapsed if share else 0.0)
        pace = spent / expected if expected > 0.5 else 1.0
        left = pace * ((1 - share) * planned + sum(seconds or 0.0 for seconds in todo))
        return f" · about {self._duration(left)} to go"

    def _place(self, name: str) -> str:
        return f"{self._order.index(name) + 1}/{len(self._order)}"

    def _line(self, text: str, end: str = "") -> None:
        if not _is_main():
            return
        if self._live:
            sys.stdout.write(f"\r\x1b[2K{text}{end}")
        else:
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


# data and report ------------------------------------------------------------------------------------------------------


def _world(options: argparse.Namespace) -> int:
    from coevo.data import world, write_rpgbench

    if os.path.lexists(options.out):
        raise ConfigError(f"--out {options.out} exists; expected a new file. Choose another name, or delete it first.")
    scenarios = []
    for split, tags in world.SPLITS.items():
        # ShiftTrain is what a recipe trains scorer and simulator on; the layout's files have IDTrain and the tests
        if split != "ShiftTrain":
            count = options.train if split == "IDTrain" else options.test * len(tags)
            scenarios += world.generate(split, count, options.seed)
    write_rpgbench(options.out, scenarios)
    _say(f"{options.out}: {len(scenarios):,} scenarios in {len(world.SPLITS) - 1} splits")
    return 0


def _check(options: argparse.Namespace) -> int:
    from coevo.data import check

    found = check(options.file)
    for (split, tag), count in found.n_samples.items():
        key = (split, tag)
        prompt, reference = found.n_prompt_characters[key] / count, found.n_reference_characters[key] / count
        lengths = f"prompt {prompt:6.0f} characters, reference {reference:5.0f}, on average"
        _say(f"{split:12} {tag:22} {count:7,} samples  {lengths}")
    if found.ok:
        _say(f"{options.file}: nothing wrong")
        return 0
    for problem in found.problems[:MOST_PROBLEMS]:
        sys.stderr.write(f"{problem}\n")
    by_field = ", ".join(f"{field} {n:,}" for field, n in found.n_problems.most_common())
    listed = "" if len(found.problems) <= MOST_PROBLEMS else f"the first {MOST_PROBLEMS} of them "
    raise DataError(
        f"{options.file}: {len(found.problems):,} problem(s), {listed}listed above; each names its place and remedy. "
        f"By field: {by_field}."
    )


def _report(options: argparse.Namespace) -> int:
    if not (options.folder / "resolved.yaml").is_file():
        raise CheckpointError(
            f"{options.folder} holds no run: resolved.yaml is missing. Give the folder that coevo train --out named."
        )
    _show_report(options.folder)
    return 0


def _show_report(folder: Path) -> None:
    from coevo import report

    report.build(folder)
    _say(report.console_table(folder))
    for path in sorted((folder / "report").iterdir()):
        _say(str(path))


# printing -------------------------------------------------------------------------------------------------------------


def _is_main() -> bool:
    """Whether this process is the one that speaks; accelerate and torchrun number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    if _is_main():
        print(text, flush=True)


def _complain(error: CoevoError) -> None:
    """Errors of recipe and data are the same on every rank and told once; others may be one rank's own."""
    if _is_main():
        sys.stderr.write(f"coevo: {error}\n")
    elif not isinstance(error, (ConfigError, DataError)):
        sys.stderr.write(f"coevo, rank {os.environ['RANK']}: {error}\n")
