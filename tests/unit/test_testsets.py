"""Test sets of a team's own data: nobody and no conversation is on both sides, and what cannot be made is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from coevo import cli
from coevo.data import check, load_scenarios, world, write_rpgbench
from coevo.errors import DataError
from coevo.formats.divide import conversation_of
from coevo.formats.testsets import ANONYMISED, HELD_OUT, HIDDEN, LONG, WORDS, anonymised, divide
from coevo.types import Scenario, Turn, shift_of

SPLITS = {"IDTrain", "IDTest", "OOD2Test", "OOD3Test"}


def conversations(characters: int = 8, each: int = 10, turns: int = 3) -> list[Scenario]:
    """Conversations of 1 to `turns` questions, each cut into one scenario a question."""
    made = []
    for c in range(characters):
        for k in range(each):
            said: tuple[Turn, ...] = ()
            for t in range(1 + (c * each + k) % turns):
                said = (*said, Turn("user", f"question {t} of {c}/{k}"))
                character = {"name": f"Character{c} Smith", "craft": f"craft {c}"}
                made.append(Scenario(f"{c}-{k}-{t}", "IDTrain", "IDTrain", "a user", character, said, f"answer {t}"))
                said = (*said, Turn("agent", f"answer {t}"))
    return made


def test_nobody_is_on_both_sides(tmp_path) -> None:
    found = divide(conversations())
    splits = {split: [x for x in found.scenarios if x.split == split] for split in SPLITS}
    # 8 characters and a tenth: one, with its 10 conversations of 20 scenarios but for rounding
    (held,) = {x.character["name"] for x in splits["OOD2Test"] if x.subset_tag == HELD_OUT}
    assert not [x for x in found.scenarios if x.character["name"] == held and x.subset_tag != HELD_OUT]
    trained = {conversation_of(x) for x in splits["IDTrain"]}
    tested = [x for x in found.scenarios if x.split != "IDTrain" and x.parent is None]
    assert tested and trained.isdisjoint(conversation_of(x) for x in tested)
    # 70 conversations left, 7 of them long: their last turns alone
    long = [x for x in splits["OOD3Test"] if x.subset_tag == LONG]
    assert len(long) == 7 and {len(x.dialogue) for x in long} == {5}
    assert found.left_out == Counter({"earlier turns of the long conversations": 14}) and found.notes == []
    tags = Counter(x.subset_tag for x in found.scenarios)
    assert tags[WORDS] == tags["IDTest"] == tags[ANONYMISED] and {shift_of(tag) for tag in tags} == {
        "id", "character", "dialogue"
    }  # fmt: skip
    # every scenario is somewhere, or counted
    assert sum(x.parent is None for x in found.scenarios) + found.left_out.total() == len(conversations())
    write_rpgbench(tmp_path / "data.json", found.scenarios)
    report = check(tmp_path / "data.json")
    assert report.ok and not [note for note in report.notes if "copies of samples of IDTrain" in note]


def test_the_seed_draws_and_a_test_set_has_at_most_so_many() -> None:
    first, again, other = divide(conversations(), most=5), divide(conversations(), most=5), divide(conversations(), seed=1)
    assert first.scenarios == again.scenarios and [x.sample_id for x in first.scenarios] != [
        x.sample_id for x in other.scenarios
    ]
    assert max(Counter(x.subset_tag for x in first.scenarios if x.split != "IDTrain").values()) == 5
    assert sum(x.parent is None for x in first.scenarios) + first.left_out.total() == len(conversations())


def test_a_character_is_its_name() -> None:
    # a lorebook tells of it in every second scenario
    made = [
        replace(x, character=x.character | {"lore": "a storm"} if n % 2 else x.character)
        for n, x in enumerate(conversations())
    ]
    found = divide(made)
    (held,) = {x.character["name"] for x in found.scenarios if x.subset_tag == HELD_OUT}
    assert not [x for x in found.scenarios if x.character["name"] == held and x.subset_tag != HELD_OUT]
    trained = {conversation_of(x) for x in found.scenarios if x.split == "IDTrain"}
    assert trained.isdisjoint(conversation_of(x) for x in found.scenarios if x.split != "IDTrain" and x.parent is None)


def test_test_sets_are_made_of_what_was_said_and_not_of_test_sets() -> None:
    once = divide(conversations()).scenarios
    again = divide(once)
    made = sum(x.parent is not None for x in once)
    assert made and again.left_out["made of others already, and made again"] == made
    assert len({x.sample_id for x in again.scenarios}) == len(again.scenarios)


def test_a_greeting_alone_begins_many_conversations() -> None:
    made = [replace(x, dialogue=(Turn("agent", "Welcome."), *x.dialogue), character="Ada") for x in conversations(1, 40, 1)]
    found = divide(made)
    assert sum(x.split == "IDTest" for x in found.scenarios) == 4, "a tenth of 40"


def test_shuffled_words_keep_words_and_reference() -> None:
    found = divide(conversations()).scenarios
    by_id = {x.sample_id: x for x in found}
    for x in (x for x in found if x.subset_tag == WORDS):
        parent = by_id[x.parent or ""]
        assert x.reference == parent.reference and parent.split == "IDTest"
        assert [sorted(t.text.split()) for t in x.dialogue] == [sorted(t.text.split()) for t in parent.dialogue]


def test_what_cannot_be_made_is_said() -> None:
    one = [replace(x, character="a nurse") for x in conversations(turns=1)]
    found = divide([replace(x, persona=x.sample_id) for x in one])
    assert {x.subset_tag for x in found.scenarios} == {"IDTrain", "IDTest", WORDS}
    assert [note.partition(": ")[0] for note in found.notes] == [HELD_OUT, LONG, ANONYMISED]
    with pytest.raises(DataError, match=r"1 conversations .* expected at least 10"):
        divide(conversations(1, 1))
    with pytest.raises(DataError, match="expected a share above 0"):
        divide(conversations(), test=0.5)


@pytest.mark.parametrize(
    ("name", "said", "shown"),
    [
        ("Ada Lovelace", "Dear ada, are you Lovelace of Adaville?", f"Dear {HIDDEN}, are you {HIDDEN} of Adaville?"),
        ("Jo", "Jo, a joke?", f"{HIDDEN}, a joke?"),
        ("山田", "私は山田です", f"私は{HIDDEN}です"),
        ("Dr. (X)", "Is it Dr. (X)?", f"Is it {HIDDEN}?"),
    ],
)
def test_a_hidden_name(name: str, said: str, shown: str) -> None:
    x = Scenario("a", "IDTest", "IDTest", "u", {"name": name, "bio": [said]}, (Turn("user", said),), "Yes.")
    made = anonymised(x)
    assert made is not None and made.dialogue[0].text == shown and made.character == {"name": HIDDEN, "bio": [shown]}
    assert made.parent == "a" and made.reference == "Yes."


def test_a_name_that_must_be_said_is_not_hidden() -> None:
    x = Scenario("a", "IDTest", "IDTest", "u", {"name": "Ada"}, (Turn("user", "Who are you?"),), "I am Ada.")
    assert anonymised(x) is None and anonymised(replace(x, character="Ada", reference="Yes")) is None
    assert anonymised(replace(x, character={"craft": "nurse"})) is None


def test_a_tag_of_ones_own(tmp_path) -> None:
    assert [shift_of(tag) for tag in ("user:dialect", "character:x", "dialogue:long", "other:x", "user")] == [
        "user", "character", "dialogue", "id", "user"
    ]  # fmt: skip
    x = replace(world.generate("IDTest", 1, seed=0)[0], subset_tag="User:dialect")
    with pytest.raises(DataError, match="expected 'user:dialect', as a tag of another spelling is read as in-distribution"):
        write_rpgbench(tmp_path / "data.json", [x])


def test_the_command(tmp_path, capsys) -> None:
    write_rpgbench(tmp_path / "mine.json", conversations())
    words = ["data", "shift", str(tmp_path / "mine.json"), "--out", str(tmp_path / "out.json")]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "characters of whom nothing is trained on" in shown.out and "coevo data check" in shown.out
    assert "left out: 14 × earlier turns of the long conversations" in shown.err
    assert len(load_scenarios(tmp_path / "out.json")) > 100
    assert cli.main(words) == 2 and "expected a new file" in capsys.readouterr().err


def test_the_command_that_splits(tmp_path, capsys) -> None:
    write_rpgbench(tmp_path / "mine.json", conversations())
    words = ["data", "split", str(tmp_path / "mine.json"), "--by", "character", "--out", str(tmp_path / "out.json")]
    assert cli.main(words) == 0 and "no character in both" in capsys.readouterr().out
    found = load_scenarios(tmp_path / "out.json")
    train, test = ({x.character["name"] for x in found if x.split == split} for split in ("IDTrain", "IDTest"))
    assert len(train) == 7 and len(test) == 1 and train.isdisjoint(test) and len(found) == len(conversations())
    assert cli.main([*words[:4], "user", *words[5:-1], str(tmp_path / "x.json")]) == 2
    assert "160 scenarios have 1 different users" in capsys.readouterr().err.replace(str(len(conversations())), "160")


def test_a_data_set_of_the_hub_is_read_by_its_name(tmp_path, capsys, monkeypatch) -> None:
    asked = []

    def load(name: str, *, split: str, streaming: bool) -> list[dict[str, object]]:
        asked.append((name, split, streaming))
        said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
        return [{"messages": [{"role": "system", "content": "You are Ada."}, *said]}]

    monkeypatch.setattr("datasets.load_dataset", load)
    assert cli.main(["data", "convert", "hub:me/chats:test", "--out", str(tmp_path / "a.json")]) == 0
    assert asked == [("me/chats", "test", True)] and len(load_scenarios(tmp_path / "a.json")) == 1
