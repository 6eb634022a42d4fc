"""`coevo data world | convert | check | stats | split | shift`: make, look at or divide a data file."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.cli.console import Commands, command, count, path, say, warn, whole
from coevo.cli.endpoint import add_endpoint, address
from coevo.cli.progress import ConsoleProgress
from coevo.errors import ConfigError, DataError
from coevo.progress import Stage
from coevo.types import Scenario

if TYPE_CHECKING:
    from coevo.formats import Conversation
    from coevo.formats.stats import Stats

MOST_PROBLEMS = 50
"""Problems of a file that `data check` prints one by one."""
WORLD_EXAMPLES = """examples:
  coevo data world --out world.json
  coevo data world --out small.json --train 100 --test 10 --seed 7
"""
CHECK_EXAMPLES = """examples:
  coevo data check world.json
"""


CONVERT_EXAMPLES = """examples:
  coevo data convert chats.jsonl --out mine.json
  coevo data convert chats/*.jsonl --format sillytavern --out mine.json --persona "Ann, 30, a nurse"
  coevo data convert chats.jsonl --cards cards/ --out mine.json
  coevo data convert log.csv --columns conversation:chat_id,role:who,content:text --character "Ada, a poet" --out mine.json
"""
STATS_EXAMPLES = """examples:
  coevo data stats dialogues.json
  coevo data stats dialogues.json --model Qwen/Qwen3-4B --plot lengths.png
"""
SPLIT_EXAMPLES = """examples:
  coevo data split mine.json --by character --out split.json
  coevo data split mine.json --by user --test 0.2 --out split.json
"""
SHIFT_EXAMPLES = """examples:
  coevo data shift mine.json --out shifted.json
  coevo data shift mine.json --out shifted.json --manner "in German" "curtly and in lower case" --writer Qwen/Qwen3-4B
"""
FORMATS = ("rpgbench", "sharegpt", "openai", "sillytavern", "coser", "table")
WHAT_IT_IS = {
    "character:held_out": "characters of whom nothing is trained on",
    "character:anonymised": "ID tests with the character's name hidden",
    "dialogue:long": "last turns of the longest conversations",
    "WordLevelComposition": "ID tests with the words of each message shuffled",
}


def add(commands: Commands) -> None:
    """Adds the commands."""
    examples = "".join(
        text.partition("\n")[2]
        for text in (WORLD_EXAMPLES, CONVERT_EXAMPLES, CHECK_EXAMPLES, STATS_EXAMPLES, SPLIT_EXAMPLES, SHIFT_EXAMPLES)
    )
    data = command(commands, "data", "make, check or divide a data file", f"examples:\n{examples}")
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    world = command(kinds, "world", "write the world's scenarios in the RPGBench layout", WORLD_EXAMPLES)
    world.add_argument("--out", type=path, required=True, metavar="FILE", help="where to; must not exist")
    world.add_argument("--train", type=count, default=2000, metavar="N", help="IDTrain samples (default 2000)")
    world.add_argument("--test", type=count, default=100, metavar="N", help="samples per test subset (default 100)")
    world.add_argument("--seed", type=whole, default=0, metavar="S", help="default 0")
    world.set_defaults(run=_world)
    check = command(kinds, "check", "validate a file in the RPGBench layout", CHECK_EXAMPLES)
    check.add_argument("file", type=path, metavar="FILE")
    check.set_defaults(run=_check)
    convert = command(kinds, "convert", "make scenarios of chat logs, in the RPGBench layout", CONVERT_EXAMPLES)
    convert.add_argument(
        "files", type=path, nargs="+", metavar="FILE", help="JSON Lines, JSON, Parquet, CSV, or hub:OWNER/NAME"
    )
    convert.add_argument("--out", type=path, required=True, metavar="FILE", help="where to; must not exist")
    convert.add_argument("--format", choices=FORMATS, help="recognised by content if omitted")
    convert.add_argument("--columns", metavar="NAME:COLUMN,…", help="of a table: conversation, role and content")
    convert.add_argument("--persona", default="", metavar="TEXT", help="who the user is, where a chat does not say it")
    convert.add_argument("--character", default="", metavar="TEXT", help="whom the agent plays, where no chat says it")
    convert.add_argument("--cards", type=path, metavar="PATH", help="character cards: a .json, .png or .charx, or a folder")
    convert.add_argument(
        "--per-conversation", type=count, default=4, metavar="N", help="answers taken of a chat, evenly spaced; default 4"
    )
    convert.set_defaults(run=_convert)
    stats = command(kinds, "stats", "languages, lengths, near copies and likely personal data", STATS_EXAMPLES)
    stats.add_argument("file", type=path, metavar="FILE", help="scenarios in the RPGBench layout")
    stats.add_argument("--model", metavar="MODEL", help="folder or hub id, to count in its tokens; characters if omitted")
    stats.add_argument("--plot", type=path, metavar="FILE", help="also draw the lengths, as a PNG")
    stats.set_defaults(run=_stats)
    split = command(kinds, "split", "divide scenarios into IDTrain and IDTest, nobody on both sides", SPLIT_EXAMPLES)
    split.add_argument("file", type=path, metavar="FILE", help="scenarios in the RPGBench layout; its splits are lost")
    split.add_argument("--out", type=path, required=True, metavar="FILE", help="where to; must not exist")
    split.add_argument("--by", choices=("character", "user", "conversation"), default="character", help="default character")
    split.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="of the groups; default 0.1")
    split.add_argument("--seed", type=whole, default=0, metavar="S", help="default 0")
    split.set_defaults(run=_split)
    shift = command(kinds, "shift", "make shifted test sets of a team's own scenarios", SHIFT_EXAMPLES)
    shift.add_argument("file", type=path, metavar="FILE", help="scenarios in the RPGBench layout; its splits are lost")
    shift.add_argument("--out", type=path, required=True, metavar="FILE", help="where to; must not exist")
    shift.add_argument("--test", type=float, default=0.1, metavar="SHARE", help="that each test set takes; default 0.1")
    shift.add_argument("--most", type=count, default=100, metavar="N", help="scenarios of a test set; default 100")
    shift.add_argument("--seed", type=whole, default=0, metavar="S", help="default 0")
    shift.add_argument(
        "--manner", nargs="+", default=[], metavar="TEXT", help="how users write, after 'a user who writes': 'in German'"
    )
    shift.add_argument("--writer", metavar="MODEL", help="who rewrites: a folder, hub id or, at --endpoint, a name")
    shift.add_argument("--max-tokens", type=count, default=256, metavar="N", help="of a rewritten message; default 256")
    add_endpoint(shift)
    shift.set_defaults(run=_shift)


def _world(options: argparse.Namespace) -> int:
    from coevo.data import world, write_rpgbench

    _absent(options.out)
    scenarios = []
    for split, tags in world.SPLITS.items():
        # ShiftTrain is what a recipe trains scorer and simulator on; the layout's files have IDTrain and the tests
        if split != "ShiftTrain":
            wanted = options.train if split == "IDTrain" else options.test * len(tags)
            scenarios += world.generate(split, wanted, options.seed)
    write_rpgbench(options.out, scenarios)
    say(f"{options.out}: {len(scenarios):,} scenarios in {len(world.SPLITS) - 1} splits")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from coevo.cards import read_cards
    from coevo.data import write_rpgbench
    from coevo.formats import convert

    _absent(options.out)
    cards = read_cards(options.cards) if options.cards else []
    columns, formats = _columns(options.columns), Counter[str]()

    def every() -> Iterator[Conversation]:
        for file in options.files:
            name, conversations = _opened(file, options.format or "", columns)
            formats[name] += 1
            for one in conversations:
                yield replace(one, name=f"{file.stem}-{one.name}") if len(options.files) > 1 else one

    asked = {"persona": options.persona, "character": options.character, "cards": cards}
    found = convert(every(), per_conversation=options.per_conversation, **asked)
    write_rpgbench(options.out, found.scenarios)
    said = ", ".join(f"{n} of {name}" if len(options.files) > 1 else name for name, n in formats.items())
    say(f"{found.conversations:,} conversations ({said}) -> {len(found.scenarios):,} scenarios in {options.out}")
    _tell({f"{reason}, first at {found.first[reason]}": n for reason, n in found.left_out.most_common()}, found.notes)
    say(f"Next: coevo data shift {options.out} --out shifted.json")
    return 0


def _opened(name: Path, format_: str, columns: dict[str, str]) -> tuple[str, Iterator[Conversation]]:
    """The conversations of a file, or of a data set of the hub."""
    from coevo.formats import read_conversations, read_hub
    from coevo.formats.hub import PREFIX

    if str(name).startswith(PREFIX):
        from datasets import load_dataset

        return read_hub(str(name), load_dataset, format_, columns)
    return read_conversations(name, format_, columns)


def _stats(options: argparse.Namespace) -> int:
    from coevo.data import load_scenarios
    from coevo.formats.stats import stats

    count_, unit = _counter(options.model)
    scenarios = load_scenarios(options.file)
    progress = ConsoleProgress([Stage("scenarios", None)])
    progress.phase("scenarios", len(scenarios))
    found = stats(scenarios, count_, unit, progress.advance)
    progress.done("scenarios")
    say(_stats_table(found))
    for kind, names in found.personal.items():
        warn(
            f"{len(names):,} scenarios seem to hold a {kind}, such as {', '.join(names[:3])}: look before you train on them"
        )
    for other, name, where in found.across[:3]:
        warn(f"{other} is a near copy of {name} ({where}): what is trained on one cannot be tested on the other")
    if len(found.across) > 3:
        warn(f"{len(found.across):,} near copies in two splits; the first three are above")
    if inside := len(found.near) - len(found.across):
        warn(f"{inside:,} scenarios are near copies of an earlier one of their split: each counts anew")
    if options.plot:
        from coevo.formats.plots import lengths

        say(str(lengths(found, options.plot)))
    return 0


def _counter(model: str | None) -> tuple[Callable[[str], int], str]:
    if model is None:
        return len, "characters"
    from coevo.lm.loading import load_tokenizer, local_directory

    tokenizer = load_tokenizer(local_directory(model))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), "tokens"


def _stats_table(found: Stats) -> str:
    from coevo.formats.stats import quartiles
    from coevo.layout import align

    head = ["split", "scenarios", "languages", "messages", f"prompt, {found.unit}", f"reference, {found.unit}"]
    rows = [head]
    for split, languages in found.languages.items():
        total = languages.total()
        told = ", ".join(f"{name} {n / total:.0%}" for name, n in languages.most_common(3))
        each = ["/".join(map(str, quartiles(by[split]))) for by in (found.messages, found.prompts, found.references)]
        rows.append([split, f"{total:,}", told, *each])
    return f"{align(rows, names=1)}\nmessages and lengths: the middle / 95 % within / the longest"


def _split(options: argparse.Namespace) -> int:
    from coevo.data import load_scenarios, write_rpgbench
    from coevo.formats import split_by

    _absent(options.out)
    found = split_by(load_scenarios(options.file), options.by, test=options.test, seed=options.seed)
    write_rpgbench(options.out, [*found.train, *found.test])
    say(f"{options.out}: {len(found.train):,} scenarios in IDTrain, {len(found.test):,} in IDTest, no {options.by} in both")
    if found.shared:
        warn(f"{len(found.shared):,} tests have query and reference of a training scenario, the first is {found.shared[0]}")
    say(f"Next: coevo data check {options.out}")
    return 0


def _columns(given: str | None) -> dict[str, str]:
    """conversation:a,role:b,content:c as a mapping.

    Raises:
        ConfigError: it is no such list.
    """
    pairs = [pair.partition(":") for pair in given.split(",")] if given else []
    columns = {name.strip(): column.strip() for name, _, column in pairs}
    if given and (set(columns) != {"conversation", "role", "content"} or not all(columns.values())):
        raise ConfigError(f"--columns {given!r}: expected conversation:COLUMN,role:COLUMN,content:COLUMN.")
    return columns


def _shift(options: argparse.Namespace) -> int:
    from coevo.data import load_scenarios, write_rpgbench
    from coevo.formats.testsets import divide

    _absent(options.out)
    if bool(options.manner) != bool(options.writer):
        raise ConfigError("--manner and --writer go together: how users are to write, and the model that writes it.")
    found = divide(load_scenarios(options.file), test=options.test, most=options.most, seed=options.seed)
    if options.manner:
        found.scenarios.extend(_rewritten(options, [x for x in found.scenarios if x.split == "IDTest"]))
    write_rpgbench(options.out, found.scenarios)
    journal_of(options.out).unlink(missing_ok=True)
    for (split, tag), n in Counter((x.split, x.subset_tag) for x in found.scenarios).items():
        say(f"{split:12} {tag:22} {n:7,} scenarios, {WHAT_IT_IS.get(tag, 'in distribution')}")
    _tell(found.left_out, found.notes)
    say(f"{options.out}: {len(found.scenarios):,} scenarios. Next: coevo data check {options.out}")
    return 0


def _tell(left_out: Mapping[str, int], notes: Sequence[str]) -> None:
    """What was not taken, by reason, and what a user of the file must know."""
    for reason, n in left_out.items():
        warn(f"left out: {n:,} × {reason}")
    for note in notes:
        warn(note)


def journal_of(out: Path) -> Path:
    """Where a model's answers are kept until the file is written; the same call goes on from there."""
    return out.with_name(f".{out.name}.part")


def _rewritten(options: argparse.Namespace, parents: list[Scenario]) -> list[Scenario]:
    """The ID tests as users of other manners would write them."""
    from coevo.judge.endpoint import Endpoint
    from coevo.judge.local import Local
    from coevo.prepare.manners import rewrite, tag_of

    tags = [tag_of(manner) for manner in options.manner]
    parameters = {"temperature": 0.0, "max_tokens": options.max_tokens}
    writer = (
        Endpoint(*address(options, options.writer, parameters))
        if options.endpoint
        else Local(options.writer, options.max_tokens, 0.0, 0)
    )
    messages = sum(turn.role == "user" for x in parents for turn in x.dialogue)
    progress, made = ConsoleProgress([Stage(tag, None) for tag in tags]), []
    for tag, manner in zip(tags, options.manner, strict=True):
        progress.phase(tag, messages + len(parents))
        found = rewrite(parents, manner, writer, journal_of(options.out), progress.advance)
        progress.done(tag)
        say(str(found))
        made += found.scenarios
    return made


def _absent(out: Path) -> None:
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} exists; expected a new file. Choose another name, or delete it first.")


def _check(options: argparse.Namespace) -> int:
    from coevo.data import check

    found = check(options.file)
    for (split, tag), n in found.n_samples.items():
        key = (split, tag)
        prompt, reference = found.n_prompt_characters[key] / n, found.n_reference_characters[key] / n
        lengths = f"prompt {prompt:6.0f} characters, reference {reference:5.0f}, on average"
        say(f"{split:12} {tag:22} {n:7,} samples  {lengths}")
    for note in found.notes:
        warn(f"{options.file}: {note}")
    if found.ok:
        say(f"{options.file}: " + (f"can be read; {len(found.notes)} remark(s) above" if found.notes else "nothing wrong"))
        return 0
    for problem in found.problems[:MOST_PROBLEMS]:
        warn(str(problem))
    by_field = ", ".join(f"{field} {n:,}" for field, n in found.n_problems.most_common())
    listed = "" if len(found.problems) <= MOST_PROBLEMS else f"the first {MOST_PROBLEMS} of them "
    raise DataError(
        f"{options.file}: {len(found.problems):,} problem(s), {listed}listed above; each names its place and remedy. "
        f"By field: {by_field}."
    )
