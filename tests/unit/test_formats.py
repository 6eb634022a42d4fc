"""Chat logs of other programs as scenarios: what is read, what is left out and counted, what is refused."""

from __future__ import annotations

import json
import random
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coevo import cli
from coevo.cli.data import FORMATS
from coevo.data import load_scenarios
from coevo.data.cards import parse_card
from coevo.data.formats import READERS, UNKNOWN, Conversation, convert, read_conversations
from coevo.errors import DataError
from coevo.types import Turn

SHAREGPT = {
    "id": "c1",
    "system": "You are Ada.",
    "conversations": [
        {"from": "gpt", "value": "*waves*"},
        {"from": "human", "value": "Hi.\r\n"},
        {"from": "human", "value": "Who are you?"},
        {"from": "gpt", "value": "Ada."},
        {"from": "tool", "value": "{}"},
        {"from": "human", "value": "Bye."},
    ],
}
OPENAI = {
    "messages": [
        {"role": "system", "content": "You are Ada."},
        {"role": "user", "content": [{"type": "text", "text": "Hi."}, {"type": "text", "text": "You?"}]},
        {"role": "assistant", "content": "Ada."},
        {"role": "assistant", "content": None},
    ],
    "persona": "Joe",
}
TAVERN = [
    {"user_name": "Joe", "character_name": "Ada", "create_date": "2024-01-01"},
    {"name": "Ada", "is_user": False, "mes": "Welcome."},
    {"name": "Joe", "is_user": True, "mes": "Hi."},
    {"name": "x", "is_user": False, "is_system": True, "mes": "Model changed."},
    {"name": "Ada", "is_user": False, "mes": "Yes?", "swipes": ["No?", "Yes?"]},
]
COSER = {
    "book": "Persuasion",
    "character_profiles": {"Anne": "A daughter.", "Wentworth": "A captain."},
    "conversation": [
        {
            "scenario": "At the inn.",
            "dialogues": [
                {"character": "Anne", "message": "[He is here.] Good day."},
                {"character": "Environment", "message": "It rains."},
                {"character": "Wentworth", "message": "(bows) Miss Elliot."},
                {"character": "Louisa", "message": "Captain!"},
                {"character": "Wentworth", "message": "Yes."},
            ],
        }
    ],
}


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def read(path: Path, format_: str = "", **options: str) -> tuple[str, list[Conversation]]:
    name, found = read_conversations(path, format_, options)
    return name, list(found)


# --- what is read ------------------------------------------------------------------------------------------------------


def test_sharegpt(tmp_path: Path) -> None:
    name, (one,) = read(lines(tmp_path / "a.jsonl", SHAREGPT))
    assert name == "sharegpt" and (one.name, one.system) == ("c1", "You are Ada.")
    assert one.turns == (
        Turn("agent", "*waves*"), Turn("user", "Hi.\n\nWho are you?"), Turn("agent", "Ada."), Turn("user", "Bye.")
    )  # fmt: skip
    assert one.left_out == ("message of a tool",) and one.place.endswith("a.jsonl:1")


@pytest.mark.parametrize("form", ["lines", "list", "parquet", "column of JSON"])
def test_openai_in_every_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    plain = OPENAI | {"messages": [OPENAI["messages"][0], {"role": "user", "content": "Hi.\nYou?"}, *OPENAI["messages"][2:]]}
    if form == "lines":
        lines(path, OPENAI)
    elif form == "list":
        path.write_text("\ufeff " + json.dumps([OPENAI], indent=1), encoding="utf-8")
    else:
        record = plain if form == "parquet" else plain | {"messages": json.dumps(OPENAI["messages"])}
        pq.write_table(pa.Table.from_pylist([record]), path)
    name, (one,) = read(path)
    assert name == "openai" and (one.system, one.persona) == ("You are Ada.", "Joe")
    assert one.turns == (Turn("user", "Hi.\nYou?"), Turn("agent", "Ada.")) and one.left_out == ("empty message",)


def test_sillytavern(tmp_path: Path) -> None:
    name, (one,) = read(lines(tmp_path / "a.jsonl", *TAVERN))
    assert name == "sillytavern" and (one.name, one.persona, one.character) == ("Ada-2024-01-01", "Joe", "Ada")
    assert [turn.text for turn in one.turns] == ["Welcome.", "Hi.", "Yes?"] and one.left_out == ("message of the program",)


def test_coser(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", COSER)
    name, (one,) = read(path)
    # Wentworth speaks most beside Anne, who begins
    assert name == "coser" and one.character == {
        "name": "Wentworth", "profile": "A captain.", "scenario": "At the inn.", "book": "Persuasion"
    }  # fmt: skip
    assert one.turns[0] == Turn("user", "Anne: [He is here.] Good day.\n\nEnvironment: It rains.")
    assert one.turns[1] == Turn("agent", "(bows) Miss Elliot.") and one.persona == "Anne: A daughter."
    _, (other,) = read(path, character="Louisa")
    assert other.character["name"] == "Louisa" and other.turns[1] == Turn("agent", "Captain!")


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('chat,who,text\n1,user,"Hi, you."\n1,assistant,Ho.\n2,human,Hm.\n', encoding="utf-8-sig")
    name, (one, two) = read(path, conversation="chat", role="who", content="text")
    assert name == "table" and one.turns == (Turn("user", "Hi, you."), Turn("agent", "Ho.")) and two.name == "2"
    path.write_text("chat,who,text\n1,user,a\n2,user,b\n1,user,c\n")
    with pytest.raises(DataError, match=r"log.csv:4: conversation '1' began above; sort the rows"):
        read(path, conversation="chat", role="who", content="text")
    with pytest.raises(DataError, match="has no column 'whom'; it has 'chat', 'who', 'text'"):
        read(path, conversation="chat", role="whom", content="text")


def test_the_command_knows_every_format() -> None:
    assert set(FORMATS) == set(READERS)


# --- scenarios -----------------------------------------------------------------------------------------------------------


def conversation(answers: int, **fields: Any) -> Conversation:
    turns = [turn for k in range(answers) for turn in (Turn("user", f"q{k}"), Turn("agent", f"a{k}"))]
    return Conversation("c", tuple(turns), "file:1", **{"character": "Ada", **fields})


def test_each_answer_is_a_scenario() -> None:
    found = convert([conversation(3, persona="Joe")])
    assert [(x.sample_id, x.query, x.reference, len(x.dialogue)) for x in found.scenarios] == [
        ("c-001", "q0", "a0", 1), ("c-003", "q1", "a1", 3), ("c-005", "q2", "a2", 5)
    ]  # fmt: skip
    assert found.notes == [] and not found.left_out and {x.persona for x in found.scenarios} == {"Joe"}


def test_at_most_so_many_evenly_spaced_and_the_last_always() -> None:
    found = convert([conversation(10)], per_conversation=4)
    # of 0 to 9: 9 - 10k/4 rounded down, k = 3, 2, 1, 0
    assert [x.reference for x in found.scenarios] == ["a2", "a4", "a7", "a9"]
    (reason,) = found.left_out
    assert "--per-conversation" in reason and found.left_out[reason] == 6 and found.first[reason] == "file:1"


def test_who_is_who() -> None:
    system = convert([conversation(1, character="", system="You are Bo.")]).scenarios[0]
    assert (system.character, system.persona) == ("You are Bo.", UNKNOWN)
    given = convert([conversation(1, character="")], character={"name": "Cy"}, persona="Joe")
    assert (given.scenarios[0].character, given.scenarios[0].persona, given.notes) == ({"name": "Cy"}, "Joe", [])
    assert "1 of 1 scenarios do not say who the user is" in convert([conversation(1)]).notes[0]
    with pytest.raises(DataError, match="file:1: nothing says whom the agent plays"):
        convert([conversation(1, character="")])


def test_cards_are_whom_the_agent_plays() -> None:
    lore = {"entries": [{"keys": ["q1"], "content": "{{user}} asked before."}]}
    ada, bo = (
        parse_card({"name": name, "description": "{{char}} it is.", "character_book": lore}, "x") for name in ("Ada", "Bo")
    )
    found = convert([conversation(2, persona="Joe", character="BO")], cards=[ada, bo]).scenarios
    assert found[0].character == {"name": "Bo", "description": "Bo it is."}, "q1 has not been said yet"
    assert found[1].character == {"name": "Bo", "lore": "Joe asked before.", "description": "Bo it is."}
    assert convert([conversation(1, character="")], cards=[ada]).scenarios[0].character["name"] == "Ada"
    with pytest.raises(DataError, match="its character is called 'Cy', and no card is; the cards are Ada, Bo"):
        convert([conversation(1, character="Cy")], cards=[ada, bo])


def test_what_gives_no_scenario_is_counted() -> None:
    greeting = Conversation("g", (Turn("agent", "Welcome."), Turn("user", "Hi.")), "file:2", character="Ada")
    found = convert([greeting, conversation(1), conversation(1)])
    assert found.left_out == {
        "last message of a user, which nobody answers": 1, "conversation without an answer to a user": 1
    }  # fmt: skip
    assert [x.sample_id for x in found.scenarios] == ["c-001", "c~2-001"], "names are unique"
    with pytest.raises(DataError, match="of 1 conversations none has an answer"):
        convert([greeting])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = lines(tmp_path / "one.jsonl", SHAREGPT), lines(tmp_path / "two.jsonl", *TAVERN)
    out = tmp_path / "mine.json"
    words = ["data", "convert", str(one), str(two), "--out", str(out)]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "2 conversations (1 of sharegpt, 1 of sillytavern) -> 2 scenarios" in shown.out
    assert "left out: 1 × message of a tool, first at " in shown.err and "Next: coevo data shift" in shown.out
    found = load_scenarios(out)
    assert [x.sample_id for x in found] == ["one-c1-002", "two-Ada-2024-01-01-002"]
    assert found[0].dialogue[0] == Turn("agent", "*waves*"), "the greeting comes first"
    assert cli.main(words) == 2 and "expected a new file" in capsys.readouterr().err
    assert cli.main([*words[:-1], str(tmp_path / "x"), "--columns", "role:a"]) == 2
    assert "expected conversation:COLUMN,role:COLUMN,content:COLUMN" in capsys.readouterr().err


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"a": 1}\n', r"no format is known by its fields \('a'\). Known: sharegpt"),
        (b'{"messages": 3}\n', r"x:1, field messages: is 3 \(a number\); expected a list of messages"),
        (b'{"messages": [3]}\n', r"field messages\[0\].role: is missing; expected one of user, assistant"),
        (b'{"messages": [{"role": "god", "content": "a"}]}\n', r"messages\[0\].role: is 'god' \(text\)"),
        (b'{"messages": [{"role": "user", "content": {"a": 1}}]}\n', r"messages\[0\].content: is {'a': 1}"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "is 'image_url' .*parts of type text"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "remove the half of a surrogate pair"),
        (b'{"messages": []}\n{"messages": [', "x:2: malformed JSON"),
        (b'{"messages": []} {"messages": []}\n', "expected one object a line"),
        (b'{"messages": [], "messages": []}\n', "the field 'messages' twice"),
        (b'{"messages": [], "n": NaN}\n', "NaN found; expected a finite number"),
        (b'{"messages": []}\n[]\n', r"x:2: is \[\] \(a list\); expected an object a record"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}\n', r"x:1: byte .* \(0xff\) is not valid UTF-8"),
        (b'[{"messages": []} {"messages": []}]', "record 1: .* found; expected ',' or ']'"),
        (b'[{"messages": []}', "record 1: '' found"),
        (b"[" * 100_000, "nested too deeply|is \\["),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"PAR1\x00\x00", "is no Parquet file that can be read"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"\x00\x01\x02\x03 binary", "expected JSON Lines|not valid|columns"),
        (b'a,b\n"x\n', "broken CSV|has no column|no format"),
        (b'{"conversation": [{"dialogues": 3}], "book": "x"}', r"conversation\[0\].dialogues: is 3"),
        (b'{"user_name": "a", "character_name": "b"}\n{"mes": 3}', "x:2, field mes: is 3"),
    ],
)
def test_what_cannot_be_read(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        convert(read(tmp_path / "x")[1], character="Ada")


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write(b'{"messages": [{"role": "user", "content": "')
        for _ in range(100):
            file.write(b"a" * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="the line has more than 16,777,216 bytes"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024, "in KiB"


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "x"
    seeds = [
        "".join(json.dumps(record) + "\n" for record in records).encode()
        for records in ([SHAREGPT] * 2, [OPENAI] * 2, TAVERN, [COSER], [[OPENAI]])
    ]
    read_ = 0
    for _ in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.choice([b"", b"[", b'"', b"null", b"\x00", b"\xff", b"9", b"{}"])
        path.write_bytes(bytes(data))
        try:
            convert(read(path)[1], character="Ada")
            read_ += 1
        except DataError:
            pass
    assert 20 < read_ < 380, "both happen"
