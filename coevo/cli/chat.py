"""`coevo chat`: talk to a run's model, or any chat model, as it plays a character."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.cli.console import Commands, command, count, path, say, stream, warn, whole
from coevo.errors import CoevoError, ConfigError

if TYPE_CHECKING:
    from coevo.cards import Card
    from coevo.talk.session import Speaker, Talk

CHAT_EXAMPLES = """examples:
  coevo chat runs/mine --character cards/ada.png
  coevo chat Qwen/Qwen3-4B --character ada.json --user Joe --persona "Joe, 40, a nurse who speaks German"
  printf 'Who are you?\\n/save chat.jsonl\\n' | coevo chat runs/mine --character "Ada, a poet" --temperature 0

In the chat: /undo takes your last message back, /retry draws another answer, /card FILE changes the character, /lore shows
what the lorebook adds now, /save FILE and /load FILE keep the chat as SillyTavern does, /help says all this, /quit ends.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    chat = command(commands, "chat", "talk to a model that plays a character", CHAT_EXAMPLES)
    chat.add_argument("model", metavar="RUN|MODEL", help="a run's model, or a chat model's folder or hub id")
    add_scene(chat)
    chat.add_argument("--load", type=path, metavar="FILE", help="a saved chat to go on with")
    chat.add_argument("--seed", type=whole, default=0, metavar="S", help="default 0")
    chat.set_defaults(run=_chat)


def add_scene(parser: argparse.ArgumentParser) -> None:
    """Adds who talks to whom, and how answers are drawn."""
    parser.add_argument("--character", required=True, metavar="CARD|TEXT", help="a .json, .png or .charx; or words")
    parser.add_argument("--user", default="User", metavar="NAME", help="your name; default User")
    parser.add_argument("--persona", default="", metavar="TEXT|FILE", help="who you are, in words or in a text file")
    parser.add_argument("--max-tokens", type=count, default=256, metavar="N", help="of an answer; default 256")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="default 0.8; 0 is greedy")


def _chat(options: argparse.Namespace) -> int:
    from coevo.diagnosis.generate import Responder, Sampling
    from coevo.talk.session import Talk

    talk = Talk(card_of(options.character), options.user, told_of(options.persona))
    speaker = Responder(options.model, Sampling(options.max_tokens, options.temperature, options.seed))
    speaker.prepare()
    speaker.load()
    say(f"{speaker.name} plays {talk.card.name}. /help lists what can be done; /quit or Ctrl-D ends.")
    if options.load:
        talk.load(options.load)
        _show(talk)
    elif greeting := talk.begin():
        say(f"{talk.card.name}: {greeting}")
    for line in _lines(talk):
        if not _done(line, talk, speaker):
            break
    return 0


def told_of(given: str) -> str:
    """Who the user is: the words themselves, or those of a text file.

    Raises:
        DataError: the file is no text.
    """
    from coevo.files import utf8_text

    file = Path(given) if len(given) < 256 else None
    return (utf8_text(file) if file and file.is_file() else given).strip()


def card_of(given: str) -> Card:
    """A character: a card's file, or words.

    Raises:
        ConfigError: no such file.
        DataError: it is no card.
    """
    from coevo.cards import Card, read_card

    file = Path(given)
    if len(given) < 256 and file.is_file():
        return read_card(file)
    if len(given) < 256 and file.exists():
        raise ConfigError(f"--character {given}: is no file; give a character card, or say in words who it is.")
    if file.suffix.casefold() in (".json", ".png", ".charx"):
        raise ConfigError(f"--character {given}: no such file; give a character card, or say in words who it is.")
    name = given.partition(",")[0].strip()[:100]
    return Card(name, given)


def _lines(talk: Talk) -> Iterator[str]:
    """What the user writes, line by line, until the end of input."""
    live = sys.stdin.isatty()
    while True:
        try:
            if live:
                stream(f"{talk.user}: ")
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            stream("\n")
            return
        if not line:
            return
        if line.strip():
            if not live:
                say(f"{talk.user}: {line.rstrip()}")
            yield line


def _done(line: str, talk: Talk, speaker: Speaker) -> bool:
    """Does what a line asks for; False to end. An error is said and the chat goes on."""
    word, _, rest = line.strip().partition(" ")
    try:
        if not word.startswith("/"):
            talk.hear(line)
            _answer(talk, speaker)
        elif word == "/quit":
            return False
        elif word in _ASKED:
            _ASKED[word](talk, speaker, rest.strip())
        else:
            warn(f"there is no {word}; there are {', '.join(_ASKED)} and /quit.")
    except CoevoError as error:
        warn(f"coevo: {error}")
    except OSError as error:
        warn(f"coevo: {error.filename}: {error.strerror}")
    return True


def _answer(talk: Talk, speaker: Speaker) -> None:
    stream(f"{talk.card.name}: ")
    told: list[str] = []

    def on_text(piece: str) -> None:
        told.append(piece)
        stream(piece)

    try:
        response = talk.answer(speaker, on_text)
    except KeyboardInterrupt:
        stream("\n")
        warn("interrupted; /retry draws another answer.")
        return
    stream("\n" if told else f"{response.text}\n")
    if response.status == "truncated":
        warn("the answer reached --max-tokens.")
    elif response.status == "empty":
        warn("the answer was empty; /retry draws another.")


def _retry(talk: Talk, speaker: Speaker, _: str) -> None:
    talk.retract()
    _answer(talk, speaker)


def _undo(talk: Talk, _: Speaker, __: str) -> None:
    say("taken back." if talk.undo() else "there is nothing to take back.")


def _swap(talk: Talk, _: Speaker, rest: str) -> None:
    talk.card = card_of(rest)
    say(f"{talk.card.name} goes on." if talk.turns else f"{talk.card.name}: {talk.begin()}")


def _lore(talk: Talk, speaker: Speaker, _: str) -> None:
    found = talk.lore(speaker)
    for entry in found:
        say(f"- {entry.name or ', '.join(entry.keys) or 'always'}: {talk.card.filled(entry.content, talk.user)}")
    if not found:
        say("the lorebook adds nothing here.")


def _save(talk: Talk, _: Speaker, rest: str) -> None:
    if not rest:
        raise ConfigError("/save FILE: expected a file's name.")
    talk.save(Path(rest))
    say(f"{rest}: {len(talk.turns)} messages.")


def _load(talk: Talk, _: Speaker, rest: str) -> None:
    talk.load(Path(rest))
    _show(talk)


def _help(_: Talk, __: Speaker, ___: str) -> None:
    say(CHAT_EXAMPLES.partition("In the chat: ")[2].rstrip())


def _show(talk: Talk) -> None:
    for turn in talk.turns:
        say(f"{talk.user if turn.role == 'user' else talk.card.name}: {turn.text}")


_ASKED: dict[str, Callable[[Talk, Speaker, str], None]] = {
    "/retry": _retry,
    "/undo": _undo,
    "/card": _swap,
    "/lore": _lore,
    "/save": _save,
    "/load": _load,
    "/help": _help,
}
