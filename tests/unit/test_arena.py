"""Two models side by side: hidden order, votes that are never lost, and what they say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.cards import Card
from coevo.errors import ConfigError, DataError
from coevo.talk.arena import Side, Standing, Votes, drawn, go_on
from coevo.talk.session import Talk
from coevo.types import Response, Scenario, Turn

SIDES = (Side("runs/one", "v1"), Side("runs/two", "v2"))


class Voice:
    """Says its name and what it heard."""

    room = 100

    def __init__(self, name: str, *_: object) -> None:
        self.name = Path(name).name
        self.identity = {"version": f"hash of {self.name}"}
        self.seen: list[tuple[str, ...]] = []

    def prepare(self) -> None: ...

    load = prepare

    def say(self, x: Scenario, seed: int, on_text: Callable[[str], None] | None = None) -> Response:
        self.seen.append(tuple(turn.text for turn in x.dialogue))
        return Response(x.sample_id, f"{self.name}: {x.query} \x1b[2J", self.name, "ok")

    def prompt(self, x: Scenario) -> list[int]:
        return [0] * sum(self.count(turn.text) for turn in x.dialogue)

    def count(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def arena(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def played(typed: str, *words: str, a: str = "one", b: str = "two") -> list[dict[str, Any]]:
        monkeypatch.setattr("coevo.diagnosis.generate.Responder", Voice)
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        file = tmp_path / "votes" / "arena.jsonl"
        assert cli.main(["arena", a, b, "--character", "Ada, a poet", "--votes", str(file), *words]) == 0
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    return played


def test_a_session_of_votes(arena: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    rows = arena("Hi.\nwhat?\n1\nAnd?\ntie\nWell?\nskip\nBye.\n2\nLost.\n", "--temperature", "0", "--seed", "5")
    shown = capsys.readouterr()
    assert "'what?' is no vote" in shown.err and "\x1b" not in shown.out + shown.err and r"\x1b[2J" in shown.out
    assert len(rows) == 4, "at the end of input an answer without a vote is not counted"
    assert [row["choice"] for row in rows][1:3] == ["tie", "both bad"]
    first = rows[0]
    assert first["choice"] == first["first_shown"], "1 is who was shown first"
    assert first["answers"] == {
        "a": {"text": "one: Hi. \x1b[2J", "status": "ok"},
        "b": {"text": "two: Hi. \x1b[2J", "status": "ok"},
    }
    assert first["messages"] == [{"role": "user", "text": "Hi."}] and first["time"].endswith("+00:00")
    assert first["sampling"] == {"max_new_tokens": 256, "temperature": 0.0, "seed": 5}
    assert first["a"] == {"model": "one", "version": "hash of one"} and first["character"] == "Ada"
    # the winner's answer goes on; of a tie the first shown; where both are bad nothing does
    told = [turn["text"] for turn in rows[3]["messages"]]
    winners = [row["answers"][row["first_shown"]]["text"] for row in rows[:2]]
    assert told == ["Hi.", winners[0], "And?", winners[1], "Bye."]
    assert rows[3]["choice"] != rows[3]["first_shown"]
    # names are told at the end alone
    before, _, after = shown.out.partition("A is one, B is two.")
    assert "ties 1, both bad 1" in after and "is one" not in before


def test_votes_of_earlier_sessions_are_counted_whoever_was_called_a(
    arena: Callable[..., list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = arena("Hi.\n1\n")
    winner = {"a": "one", "b": "two"}[rows[0]["choice"]]
    arena("Hi.\n1\n/end\n", a="one", b="three")
    capsys.readouterr()
    assert len(arena("/nope\n/end\n", a="two", b="one")) == 2
    shown = capsys.readouterr()
    assert "1 earlier vote between these two is counted." in shown.out and "there is no /nope" in shown.err
    a, b = (int(winner == name) for name in ("two", "one"))
    assert f"With the earlier votes: A {a}, B {b}, ties 0" in shown.out
    arena("Hi.\n1\n", a="x/one", b="one")
    assert "A and B are the same model" in capsys.readouterr().err


def test_the_order_is_by_seed_and_balanced() -> None:
    talk = Talk(Card("Ada", "Ada"))
    voices = (Voice("one"), Voice("two"))
    orders = []
    for _ in range(400):
        talk.turns = [Turn("user", "Hi.")]
        orders.append(drawn(talk, voices, 3).order[0])
    again = Talk(Card("Ada", "Ada"), turns=[Turn("user", "Hi.")])
    assert [drawn(again, voices, 3).order[0] for _ in range(50)] == orders[:50]
    # 400 fair coins: 200 with a standard deviation of 10
    assert 150 < orders.count("a") < 250
    pair = drawn(again, voices, 3)
    pair.answers["a"] = Response("chat", "", "one", "empty")
    go_on(again, pair, "a")
    assert again.turns == [Turn("user", "Hi.")], "an empty answer is none to go on with"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ("", "No vote names a winner."),
        # Wilson of 5 of 5: [1 / (1 + 1.96^2 / 5), 1] = [57, 100]
        ("aaaaa", "A won 100 % [57, 100] of the 5 votes that name a winner; ties and both bad are left out. A is preferred"),
        ("bbbbb", "B is preferred, by this voter"),
        ("aaa", "Too few votes to say which is better: the interval includes one half."),
        ("a", "of the 1 vote that name"),
    ],
)
def test_what_votes_say(choices: str, said: str) -> None:
    assert said in str(Standing.of([*choices, "tie", "both bad"]))  # type: ignore[list-item]


def test_a_file_of_votes(tmp_path: Path) -> None:
    path = tmp_path / "arena.jsonl"
    whole = {"a": {"model": "x", "version": "v1"}, "b": {"model": "y", "version": "v2"}, "choice": "a"}
    path.write_text(json.dumps(whole) + '\n{"a": {"mod')  # cut by a kill
    with Votes(path) as votes:
        with pytest.raises(ConfigError, match="another coevo arena adds to it"):
            Votes(path)
        votes.add({**whole, "choice": "tie"})
        # on the disk at once
        assert [json.loads(line)["choice"] for line in path.read_text().splitlines()] == ["a", "tie"]
        assert votes.of(SIDES) == ["a", "tie"] and votes.of((SIDES[1], SIDES[0])) == ["b", "tie"]
    path.write_text(json.dumps(whole))  # an editor left the end of line out
    with Votes(path) as votes:
        votes.add(whole)
    assert len(path.read_text().splitlines()) == 2
    path.write_text('{"choice": "c"}\n')
    with pytest.raises(DataError, match=r"arena.jsonl, line 1: .* Expected votes of coevo arena"):
        Votes(path)


def test_what_cannot_begin(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = ["arena", "nowhere", "nobody", "--votes", str(tmp_path / "v.jsonl"), "--character"]
    assert cli.main([*call, "ada.png"]) == 2 and "no such file; give a character card" in capsys.readouterr().err
    assert cli.main([*call, "Ada"]) == 2 and "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
