"""What `coevo data stats` says of a file, on texts whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coevo import cli
from coevo.data import world, write_rpgbench
from coevo.formats.stats import _is_card, quartiles, stats
from coevo.types import Scenario, Turn

WORDS = "the harbour is quiet tonight and the lamps are lit along the wall"


def scenario(name: str, query: str = WORDS, split: str = "IDTrain", **more: object) -> Scenario:
    made = Scenario(name, split, split, "a nurse", "Ada", (Turn("user", query),), "I shall walk with you to the end of it.")
    return replace(made, **more)  # type: ignore[arg-type]


def test_languages_lengths_and_messages() -> None:
    german = "Guten Abend, ich suche ein Zimmer für die Nacht, können Sie mir bitte helfen?"
    found = stats([scenario("a"), scenario("b", german), scenario("c", "...")], lambda text: len(text.split()), "words")
    assert found.languages["IDTrain"] == {"en": 1, "de": 1, "none": 1}
    # persona 2 words, character 1, query 13
    assert found.prompts["IDTrain"][0] == 2 + 1 + 13 and found.references["IDTrain"] == [10] * 3
    assert found.messages["IDTrain"] == [1, 1, 1]
    assert quartiles([5, 1, 2, 3, 4]) == [3, 5, 5]


def test_near_copies_are_found_and_others_not() -> None:
    xs = [
        scenario("a"),
        scenario("b", WORDS.replace("quiet", "Quiet") + "!", split="IDTest"),
        scenario("c", "where can a stranger find some bread and a bed in this town", reference="Ask the baker."),
        scenario("d", WORDS, parent="a", split="OOD3Test"),
        scenario("short", "Yes.", reference="No."), scenario("short 2", "Yes.", reference="No."),
    ]  # fmt: skip
    found = stats(xs)
    assert [pair[0] for pair in found.across] == ["b"] and found.across[0][2] == "IDTrain and IDTest"
    assert not [pair for pair in found.near if {"c", "d", "short 2"} & {pair[0]}], "d is made of a"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to joe.smith@example.org, please", "email"),
        ("call me on +44 20 7946 0958 tonight", "telephone"),
        ("my card is 4111 1111 1111 1111", "payment card"),
        ("there are 4111 1111 1111 1112 stars", ""),
        ("I was born in 1984 at 12 Mill Lane", ""),
        ("meet @ noon", ""),
    ],
)
def test_likely_personal_data(text: str, kind: str) -> None:
    assert dict(stats([scenario("a", text)]).personal) == ({kind: ["a"]} if kind else {})
    assert not _is_card("0000 0000 0000 0000")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = [
        scenario("a", f"{WORDS} joe@example.org"),
        scenario("b", WORDS, split="IDTest"),
        *world.generate("IDTest", 4, seed=0),
    ]
    write_rpgbench(tmp_path / "mine.json", mine)
    assert cli.main(["data", "stats", str(tmp_path / "mine.json"), "--plot", str(tmp_path / "l.png")]) == 0
    shown = capsys.readouterr()
    assert "prompt, characters" in shown.out and "1 scenarios seem to hold a email, such as a" in shown.err
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
