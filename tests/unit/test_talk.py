"""Talking to a character: what the model is shown, what is taken back, how a chat is kept, and what a user types."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.cards import parse_card, write_card
from coevo.errors import DataError
from coevo.talk.session import Talk
from coevo.types import Response, Scenario, Turn

CARD = parse_card(
    {
        "name": "Mara", "description": "{{char}} knows {{user}}.", "first_mes": "Come in, {{user}}.",
        "creator_notes": "SECRET",
        "character_book": {"entries": [{"keys": ["lamp"], "content": "The lamp is broken."}], "scan_depth": 1},
    },
    "card",
)  # fmt: skip


class Echo:
    """Answers with what it heard, twenty tokens of room, a token a word."""

    name = "echo"
    room = 20

    def __init__(self, **_: object) -> None:
        self.seen: list[Scenario] = []
        self.seeds: list[int] = []

    def say(self, x: Scenario, seed: int, on_text: Callable[[str], None] | None = None) -> Response:
        self.seen.append(x)
        self.seeds.append(seed)
        text = "" if "silence" in x.query else f"{x.query} {seed}"
        if on_text and text:
            on_text(text)
        return Response(x.sample_id, text, self.name, "ok" if text else "empty")

    def prompt(self, x: Scenario) -> list[int]:
        return [0] * sum(self.count(turn.text) for turn in x.dialogue)

    def count(self, text: str) -> int:
        return len(text.split())


def test_a_dialogue_with_undo_and_retry() -> None:
    talk, echo = Talk(CARD, "Joe"), Echo()
    assert talk.begin() == "Come in, Joe." and not talk.undo() and not talk.retract(), "a greeting is not taken back"
    with pytest.raises(DataError, match="it is the user's turn"):
        talk.answer(echo)
    talk.hear(" The lamp? ")
    talk.answer(echo)
    assert talk.turns == [Turn("agent", "Come in, Joe."), Turn("user", "The lamp?"), Turn("agent", "The lamp? 1")]
    assert echo.seen[0].character == {"name": "Mara", "lore": "The lamp is broken.", "description": "Mara knows Joe."}
    assert echo.seen[0].persona == "Joe" and "SECRET" not in str(echo.seen[0])
    assert talk.retract() and talk.answer(echo).text == "The lamp? 2", "another draw"
    talk.hear("Thanks.")
    assert "lore" not in talk.shown(echo)[0].character and talk.lore(echo) == []
    talk.answer(echo)
    assert talk.undo() and [turn.text for turn in talk.turns][-1] == "The lamp? 2"
    assert talk.undo() and [turn.text for turn in talk.turns] == ["Come in, Joe."]


def test_an_empty_answer_leaves_the_users_turn() -> None:
    talk, echo = Talk(CARD), Echo()
    talk.hear("silence")
    assert talk.answer(echo).status == "empty" and [turn.role for turn in talk.turns] == ["user"]
    talk.hear("please")
    assert talk.turns == [Turn("user", "silence\n\nplease")]
    with pytest.raises(DataError, match="the message is empty"):
        talk.hear("\u200b ")
    talk.hear("a\ud800")
    assert talk.turns[-1].text.endswith("a?")


def test_what_has_no_room_is_forgotten_from_the_beginning() -> None:
    talk, echo = Talk(CARD), Echo()
    talk.turns = [Turn("user", "a " * 9), Turn("agent", "b " * 9), Turn("user", "c " * 9)]
    x, left = talk.shown(echo)
    # 27 words, 20 have room: the first message goes
    assert left == 1 and [turn.text[0] for turn in x.dialogue] == ["b", "c"] and len(talk.turns) == 3
    talk.turns = [Turn("user", "c " * 21)]
    with pytest.raises(DataError, match="more tokens than the model has room for, 20"):
        talk.shown(echo)


def test_a_chat_is_kept_as_sillytavern_does(tmp_path: Path) -> None:
    talk, echo, path = Talk(CARD, "Joe"), Echo(), tmp_path / "chat.jsonl"
    talk.begin()
    talk.hear("Hi.\nYou?")
    talk.answer(echo)
    talk.save(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["user_name"] == "Joe" and rows[0]["character_name"] == "Mara"
    assert [(row["name"], row["is_user"], row["mes"]) for row in rows[1:]] == [
        ("Mara", False, "Come in, Joe."), ("Joe", True, "Hi.\nYou?"), ("Mara", False, "Hi.\nYou? 1")
    ]  # fmt: skip
    again = Talk(CARD)
    again.load(path)
    assert (again.turns, again.user) == (talk.turns, "Joe")
    (tmp_path / "other.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(DataError, match="is openai; expected a chat that SillyTavern or coevo chat saved"):
        again.load(tmp_path / "other.jsonl")


def chat(monkeypatch: pytest.MonkeyPatch, typed: str, *words: str) -> tuple[int, Echo]:
    echo = Echo()
    echo.prepare = echo.load = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr("coevo.diagnosis.generate.Responder", lambda *_: echo)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return cli.main(["chat", "model", *words]), echo


def test_what_a_user_types(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_card(CARD, tmp_path / "mara.png")
    typed = "lamp \x1b[2J\n\n/lore\n/retry\n/undo\n/undo\n/save\n/nope\n/card nothing.png\n/card /\n"
    typed += "/card Bo, a cook\n/help\nhello\n"
    code, echo = chat(monkeypatch, typed, "--character", str(tmp_path / "mara.png"), "--user", "Joe", "--persona", "a nurse")
    shown = capsys.readouterr()
    assert code == 0 and "Mara: Come in, Joe." in shown.out and "\x1b" not in shown.out + shown.err
    assert r"Mara: lamp \x1b[2J 1" in shown.out and "- lamp: The lamp is broken." in shown.out
    assert r"Mara: lamp \x1b[2J 2" in shown.out and "taken back." in shown.out and "nothing to take back" in shown.out
    assert "expected a file's name" in shown.err and "there is no /nope" in shown.err
    assert "--character /: is no file" in shown.err
    assert "--character nothing.png: no such file" in shown.err and "Bo goes on." in shown.out and "Bo: hello 3" in shown.out
    assert echo.seen[-1].character == {"name": "Bo", "description": "Bo, a cook"} and echo.seen[-1].persona == "a nurse"


def test_a_chat_that_cannot_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", "nowhere", "--character", "ada.png"]) == 2
    assert "no such file; give a character card" in capsys.readouterr().err
    assert cli.main(["chat", "nowhere", "--character", "Ada", "--temperature", "-1"]) == 2
    assert "temperature=-1.0" in capsys.readouterr().err


def test_the_last_words_are_whole_words() -> None:
    """The stream of a real tokenizer says what the whole text says."""
    from importlib import resources

    from coevo.diagnosis.generate import Responder, Sampling

    base = str(resources.files("coevo.lm") / "builtin")
    responder = Responder(base, Sampling(max_new_tokens=24, temperature=0.8))
    responder.prepare()
    said: list[str] = []
    x = Scenario("a", "Chat", "Chat", "Ann", "Dora, a baker", (Turn("agent", "Hello."), Turn("user", "Who are you?")), "")
    response: Any = responder.say(x, 1, said.append)
    assert len(said) > 1 and "".join(said).strip() == response.text
    assert responder.say(x, 1).text == response.text != responder.say(x, 2).text
