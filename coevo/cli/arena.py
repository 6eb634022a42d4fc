"""`coevo arena`: two models play one character side by side, unnamed, and the user votes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coevo.cli.chat import add_scene, card_of, told_of
from coevo.cli.console import Commands, command, path, say, stream, warn, whole
from coevo.errors import CoevoError, StorageError

if TYPE_CHECKING:
    from coevo.talk.arena import Choice, Pair, Side, Votes
    from coevo.talk.session import Speaker, Talk

ARENA_EXAMPLES = """examples:
  coevo arena runs/sft runs/mine --character cards/ada.png
  coevo arena runs/mine Qwen/Qwen3-4B --character "Ada, a poet" --persona joe.txt --user Joe --votes votes/joe.jsonl
  printf 'Who are you?\\n1\\n/end\\n' | coevo arena runs/sft runs/mine --character ada.json

Write a line; both models answer it, in an order that is drawn anew each time. Vote 1 or 2 for the better one, tie, or bad
for both bad (skip is the same). The dialogue goes on with the winner's answer, after a tie with the first; after bad your
line is taken back. Each vote is written to the file at once. /end, Ctrl-D or Ctrl-C ends and says which was which, with the
votes of earlier sessions between the same two models counted in. Both models are in memory at once, even on a shared base.
"""
VOTES: dict[str, str] = {
    "1": "1",
    "2": "2",
    "tie": "tie",
    "t": "tie",
    "bad": "both bad",
    "b": "both bad",
    "skip": "both bad",
}
ASKED = "1, 2, tie or bad? "


def add(commands: Commands) -> None:
    """Adds the command."""
    arena = command(commands, "arena", "compare two models blindly in a dialogue, by votes", ARENA_EXAMPLES)
    arena.add_argument("a", metavar="A", help="a run's model, or a chat model's folder or hub id")
    arena.add_argument("b", metavar="B", help="the other; both are loaded, so there must be memory for two")
    add_scene(arena)
    arena.add_argument(
        "--votes", type=path, default=Path("arena.jsonl"), metavar="FILE", help="is added to; default arena.jsonl"
    )
    arena.add_argument("--seed", type=whole, default=0, metavar="S", help="of answers and their order; default 0")
    arena.set_defaults(run=_arena)


def _arena(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from coevo.talk.session import Talk

    talk = Talk(card_of(options.character), options.user, told_of(options.persona))
    # with torch: a card that is not there is said before
    from coevo.diagnosis.generate import Responder, Sampling
    from coevo.talk.arena import Side, Votes

    sampling = Sampling(options.max_tokens, options.temperature, options.seed)
    speakers = (Responder(options.a, sampling), Responder(options.b, sampling))
    for speaker in speakers:
        speaker.prepare()
    first, second = speakers
    sides = (Side(options.a, first.identity["version"]), Side(options.b, second.identity["version"]))
    with Votes(options.votes) as votes:
        # a draw that a session before had gives the same order and, as likely, the same answers
        talk.draws = len(votes.rows)
        earlier = len(votes.of(sides))
        if sides[0].version == sides[1].version:
            warn("coevo: A and B are the same model: votes between them show how far apart chance alone puts two.")
        for speaker in speakers:
            speaker.load()
        _begin(talk, options.votes, earlier)
        try:
            _play(talk, speakers, votes, sides, asdict(sampling))
        except KeyboardInterrupt:
            stream("\n")
        _reveal(votes, sides, earlier)
    return 0


def _begin(talk: Talk, path: Path, earlier: int) -> None:
    say(f"Two models play {talk.card.name}. Vote {ASKED.rstrip('? ')} after each pair; /end or Ctrl-D ends. Votes: {path}")
    if earlier:
        say(
            f"{earlier} earlier vote{'s' if earlier > 1 else ''} between these two {'are' if earlier > 1 else 'is'} counted."
        )
    if greeting := talk.begin():
        say(f"{talk.card.name}: {greeting}")


def _play(
    talk: Talk, speakers: tuple[Speaker, Speaker], votes: Votes, sides: tuple[Side, Side], sampling: dict[str, Any]
) -> None:
    """Messages and votes, until /end or the end of input."""
    from coevo.talk.arena import drawn, go_on, vote_row

    while (line := _line(f"{talk.user}: ")) is not None:
        if line.startswith("/"):
            warn(f"there is no {line.split()[0]}; there is /end.")
            continue
        before = list(talk.turns)
        try:
            talk.hear(line)
            pair = drawn(talk, speakers, sampling["seed"])
        except StorageError:
            raise
        except CoevoError as error:
            talk.turns = before
            warn(f"coevo: {error}")
            continue
        for number, response in enumerate(pair.shown, 1):
            _show(number, response.text, response.status)
        choice = _vote(pair)
        if choice is None:
            return
        votes.add(vote_row(talk, pair, choice, sides, sampling))
        go_on(talk, pair, choice)
        say(_went_on(pair, choice))


def _show(number: int, text: str, status: str) -> None:
    notes = {"truncated": " (reached --max-tokens)", "empty": "(an empty answer)"}
    say(f"[{number}] {text}{notes.get(status, '')}")


def _vote(pair: Pair) -> Choice | None:
    """What the user chooses; None at the end of input, where nothing is counted."""
    while (line := _line(ASKED)) is not None:
        word = VOTES.get(line.casefold())
        if word in ("1", "2"):
            return pair.order[int(word) - 1]
        if word is not None:
            return "tie" if word == "tie" else "both bad"
        warn(f"{line[:40]!r} is no vote; {ASKED}(/end ends without one)")
    return None


def _went_on(pair: Pair, choice: Choice) -> str:
    if choice == "both bad":
        return "noted; your line is taken back, write another."
    if choice == "tie":
        return "noted; the dialogue goes on with [1]."
    return f"noted; the dialogue goes on with [{pair.order.index(choice) + 1}]."


def _line(asked: str) -> str | None:
    """A line of the user that is not blank; None for /end or the end of input."""
    live = sys.stdin.isatty()
    while True:
        if live:
            stream(asked)
        line = sys.stdin.readline()
        if not line or line.strip() in ("/end", "/quit"):
            return None
        if line.strip():
            if not live:
                say(f"{asked}{line.strip()}")
            return line.strip()


def _reveal(votes: Votes, sides: tuple[Side, Side], earlier: int) -> None:
    from coevo.talk.arena import Standing

    choices = votes.of(sides)
    say(f"A is {sides[0].model}, B is {sides[1].model}.")
    if earlier and len(choices) > earlier:
        say(f"This session: {Standing.of(choices[earlier:])}")
    say(f"{'With the earlier votes' if earlier else 'Votes'}: {Standing.of(choices)}")
