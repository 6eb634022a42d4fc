"""Chat logs of other programs as scenarios: what is read, what is left out and counted, what is refused."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from coevo import cli
from coevo.cards import parse_card
from coevo.cli.data import FORMATS
from coevo.data import load_scenarios, write_rpgbench
from coevo.errors import DataError
from coevo.formats import READERS, UNKNOWN, Conversation, convert, read_conversations, read_hub, split_by
from coevo.formats.convert import persona_in
from coevo.types import Scenario, Turn

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
SAMPLE = {
    "sample_ID": "s1",
    "subset_tag": "german",
    "user_persona": "Joe",
    "agent_character": {"name": "Ada"},
    "dialogue_context": [{"user_query": "q1"}, {"agent_response": "a1"}, {"user_query": "q2"}],
    "agent_golden_response": "gold",
    "SThought": "t",
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


def test_an_openai_list_may_be_called_conversation_and_a_sharegpt_one_have_roles(tmp_path: Path) -> None:
    wildchat = {
        "conversation_id": "w",
        "conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    }
    name, (one,) = read(lines(tmp_path / "a.jsonl", wildchat))
    assert (name, one.name, len(one.turns)) == ("openai", "w", 2)
    name, (one,) = read(lines(tmp_path / "b.jsonl", {"conversations": wildchat["conversation"]}))
    assert (name, one.turns) == ("sharegpt", (Turn("user", "q"), Turn("agent", "a")))


def test_a_system_message_within_the_dialogue_does_not_tell_earlier_turns_what_comes(tmp_path: Path) -> None:
    said = [
        ("system", "You are Ada."),
        ("user", "q"),
        ("assistant", "a"),
        ("system", "Ada dies."),
        ("user", "?"),
        ("bot", "!"),
    ]
    record = {"messages": [{"role": role, "content": text} for role, text in said]}
    _, (one,) = read(lines(tmp_path / "a.jsonl", record))
    assert one.system == "You are Ada." and len(one.turns) == 4
    assert one.left_out == ("system message within the dialogue",)


@pytest.mark.parametrize("head", [{"chat_metadata": {}, "user_name": "unused", "character_name": "unused"}, None])
def test_sillytavern_of_today_has_the_names_in_the_messages(head: dict[str, Any] | None, tmp_path: Path) -> None:
    messages = [line | {"is_system": False} for line in TAVERN[1:3] + TAVERN[4:]]
    name, (one,) = read(lines(tmp_path / "a.jsonl", *([head] if head else []), *messages))
    assert name == "sillytavern" and (one.character, one.persona, one.name) == ("Ada", "Joe", "Ada")
    assert [turn.text for turn in one.turns] == ["Welcome.", "Hi.", "Yes?"], "without a head no message is taken for it"


def test_coser_counts_the_scenes_in_which_nobody_can_be_played(tmp_path: Path) -> None:
    alone = {"dialogues": [{"character": "Anne", "message": "Alone."}]}
    path = lines(tmp_path / "a.jsonl", COSER | {"conversation": [alone, *COSER["conversation"]]})
    _, (first, second) = read(path)
    assert first.left_out == ("conversation of less than two speakers",) and not first.turns and second.turns
    _, found = read(path, character="Louisa")
    assert [one.left_out for one in found] == [("conversation in which Louisa says nothing",), ()]


def test_samples_a_line_each_keep_their_reference_alone(tmp_path: Path) -> None:
    name, conversations = read(lines(tmp_path / "a.jsonl", SAMPLE, SAMPLE | {"sample_ID": "s2", "subset_tag": "x"}))
    found = convert(conversations)
    assert name == "rpgbench" and [x.sample_id for x in found.scenarios] == ["s1-003", "s2-003"]
    one = found.scenarios[0]
    assert (one.reference, one.query, one.persona, one.character) == ("gold", "q2", "Joe", {"name": "Ada"})
    assert found.left_out == {"field SThought of a sample": 2, "shift of a subset_tag": 1}
    with pytest.raises(DataError, match=r"a.jsonl:1.*field user_persona: is missing"):
        read(lines(tmp_path / "a.jsonl", {key: value for key, value in SAMPLE.items() if key != "user_persona"}))


def test_a_data_set_of_the_hub_is_read_as_a_stream(tmp_path: Path) -> None:
    asked = []

    def load(name: str, /, *, split: str, streaming: bool) -> Any:
        asked.append((name, split, streaming))
        return iter([OPENAI])

    read_hub("hub:team/chats", load)
    name, found = read_hub("hub:team/chats:dev", load)
    assert name == "openai" and [one.place for one in found] == ["hub:team/chats:dev, record 0"]
    assert asked == [("team/chats", "train", True), ("team/chats", "dev", True)]
    lines(tmp_path / "train.jsonl", SHAREGPT, SHAREGPT)
    name, found = read_hub(f"hub:{tmp_path}", load_dataset)
    assert name == "sharegpt" and [one.turns[0].text for one in found] == ["*waves*"] * 2


@pytest.mark.parametrize("name", ["hub:", "hub:a:b:c", "hub:/no/such/folder", "hub:{folder}:dev"])
def test_a_data_set_that_cannot_be_loaded_is_named(name: str, tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", SHAREGPT)
    with pytest.raises(
        DataError, match=r"hub:.*(expected hub:OWNER/NAME|cannot be read at record 0 .*check owner, name and split)"
    ):
        read_hub(name.format(folder=tmp_path), load_dataset)


def test_the_command_knows_every_format(tmp_path: Path) -> None:
    # samples a line each are recognised by content; the command may name them too
    assert set(FORMATS) == set(READERS)
    with pytest.raises(DataError, match="no format is called 'word'; expected one of sharegpt"):
        read(lines(tmp_path / "a.jsonl", OPENAI), "word")


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


@pytest.mark.parametrize(
    ("system", "persona"),
    [
        ("You are Ada.\nUser persona: Ann, a nurse.\nBe brief.", "Ann, a nurse."),
        ("# User Profile\n\nAnn.\nA nurse.\n\nBe brief.", "Ann.\nA nurse."),
        ("**About the user:** Ann", "Ann"),
        ("The user is always right.\nUser: Hi!\nAda: Ho!", ""),
        ("User persona:\n# Rules\nBe brief.", ""),
        ("Ask for the user profile first.", ""),
    ],
)
def test_a_persona_is_read_off_a_system_prompt_that_names_it(system: str, persona: str) -> None:
    assert persona_in(system) == persona
    found = convert([conversation(1, character="", system=system)], persona="Joe")
    assert found.scenarios[0].persona == (persona or "Joe") and found.scenarios[0].character == system
    assert found.notes == (
        ["1 personas were read off system prompts (user persona: …); look at some of them."] * bool(persona)
    )


def test_null_characters_are_taken_out_of_texts(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a\0b"}, {"role": "assistant", "content": "c"}]
    _, (one,) = read(lines(tmp_path / "a.jsonl", {"messages": messages, "persona": "J\0oe", "character": "\0Ada"}))
    assert (one.turns[0].text, one.persona, one.character) == ("ab", "Joe", "Ada")


def test_a_text_that_no_file_can_hold_costs_its_scenarios_alone(tmp_path: Path) -> None:
    broken = [Turn("user", "q0"), Turn("agent", "a0"), Turn("user", "\ud800"), Turn("agent", "a1")]
    found = convert([Conversation("b", tuple(broken), "file:7", character="Ada"), conversation(1)])
    assert [x.reference for x in found.scenarios] == ["a0", "a0"]  # of b the answer before the broken text
    (reason,) = found.left_out
    assert "dialogue_context.user_query is not text that UTF-8 can hold" in reason and found.first[reason] == "file:7"
    write_rpgbench(tmp_path / "x.json", found.scenarios)  # what is kept can be written


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


# --- splits --------------------------------------------------------------------------------------------------------------


def of(character: Any, persona: str, *said: str, name: str) -> Scenario:
    turns = tuple(Turn("user" if (len(said) - place) % 2 else "agent", text) for place, text in enumerate(said))
    return Scenario(name, "any", "any", persona, character, turns, f"answer to {said[-1]}")


PEOPLE = [of(f"c{k % 10}", f"u{k % 6}", "Welcome.", f"q{k}", name=f"{k}") for k in range(60)]


@pytest.mark.parametrize(
    ("by", "groups"),
    # a quarter of 10 characters and of 6 users, rounded to even: 2 and 2; 60 conversations have a first message each: 15
    [("character", 2), ("user", 2), ("conversation", 15)],
)
def test_nobody_is_on_both_sides(by: Any, groups: int) -> None:
    key = {"character": lambda x: x.character, "user": lambda x: x.persona, "conversation": lambda x: x.dialogue[1].text}[by]
    found = split_by(PEOPLE, by, test=0.25)
    train, test = ({key(x) for x in side} for side in (found.train, found.test))
    assert not train & test and len(test) == groups and len(found.train) + len(found.test) == 60
    assert {(x.split, x.subset_tag) for x in found.train} == {("IDTrain", "IDTrain")}
    assert {(x.split, x.subset_tag) for x in found.test} == {("IDTest", "IDTest")}
    assert split_by(PEOPLE, by, test=0.25) == found != split_by(PEOPLE, by, test=0.25, seed=1)


@pytest.mark.parametrize("key", ["name", "description"])
def test_what_a_lorebook_tells_at_one_turn_makes_nobody_another(key: str) -> None:
    told = {"lore": "It rains.", "further lore": "It pours."}
    turns = []
    for k in range(10):
        turns.append(of({key: f"c{k}"}, "u", "Welcome.", f"q{k}", name=f"{k}"))
        turns.append(of({key: f"c{k}"} | told, "u", "Welcome.", f"q{k}", "a", "b", name=f"{k} later"))
    for by in ("character", "conversation"):
        found = split_by(turns, by, test=0.3)
        assert len(found.test) == 6 and not {x.dialogue[1] for x in found.train} & {x.dialogue[1] for x in found.test}


def test_too_few_groups_are_refused_and_copies_reported() -> None:
    with pytest.raises(
        DataError, match="60 scenarios have 1 different users: too few .* at least 5. Divide by something else"
    ):
        split_by([of(x.character, "u", "q", name=x.sample_id) for x in PEOPLE], "user")
    with pytest.raises(DataError, match="test=1: expected a share of the users above 0 and below 1"):
        split_by(PEOPLE, "user", test=1)
    copies = [of(f"c{k}", "u", "The same?", name=f"{k}") for k in range(10)]
    found = split_by(copies, "character")
    assert found.shared == [x.sample_id for x in found.test] and len(found.test) == 1
    assert split_by(PEOPLE, "character").shared == []


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
        (
            b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "a"}]}',
            "none has an answer .* 1 × scenario whose dialogue_context.user_query is not text that UTF-8 can hold",
        ),
        (b'{"messages": [], "character": 5}\n', r"x:1, field character: is 5 \(a number\); expected a text"),
        (b'{"messages": [], "persona": [1]}\n', r"x:1, field persona: is \[1\] \(a list\); expected a text"),
        (b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}', r"content: is \[.* expected a text"),
        (b'{"messages": "[{"}', r"is '\[{' \(text\); expected a list of messages, or its JSON"),
        (b'[{"messages": []}] x', "record 1: 'x' found; expected nothing after the list"),
        (b'[{"messages": []}, {"messages": "\xff"}]', r"x: byte 33 \(0xff\) is not valid UTF-8"),
        (b"a,a\n1,2\n", "two columns are called 'a'"),
        (b'{"book": "x", "character_profiles": [1], "conversation": []}', "character_profiles: is .* expected an object"),
        (b'{"mes": "a", "is_user": "false"}', r"x:1, field is_user: is 'false' \(text\); expected true or false"),
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


@pytest.mark.parametrize(
    ("start", "sign", "message"),
    [
        (b'{"messages": [{"role": "user", "content": "', b"a", "the line has more than 16,777,216 bytes"),
        (b'[{"messages": [{"role": "user", "content": "', b"a", "record 0: no record ends within 16,777,216 characters"),
        (b"id,text\n", b"a", "x:2: the line has more than 16,777,216 characters"),
        (b"", b"\0", "x:1: the line has more than 16,777,216 characters"),
    ],
    ids=["lines", "list", "csv", "binary"],
)
def test_a_line_without_end_is_not_held(start: bytes, sign: bytes, message: str, tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(start)
        for _ in range(100):
            file.write(sign * 2**20)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(DataError, match=message):
            read(tmp_path / "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # a line of 16 MiB as bytes and as text, thrice where what is read at once is twice what is held: at most 150 MiB
    assert peak < 150 * 2**20 and time.monotonic() - began < 2


def test_a_list_is_read_as_a_stream(tmp_path: Path) -> None:
    # characters of several bytes, so that chunks of 64 KiB end within them, and records of very different lengths
    texts = ["中é😀" * (7**k % 5000) + str(k) for k in range(40)]
    records = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]} for text in texts]
    (tmp_path / "x").write_text(json.dumps(records, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    _, found = read(tmp_path / "x")
    assert [one.turns[0].text for one in found] == texts and found[-1].place.endswith("x, record 39")


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    texts = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"messages": texts}), path)
    with pytest.raises(DataError, match="record 0 or after: a text is not valid UTF-8"):
        read(path)
    card = pa.table({"messages": [OPENAI["messages"][:1]], "character": [{"age": float("nan")}]})
    pq.write_table(pa.table({"messages": pa.array(["[]"]), "character": card["character"]}), path)
    with pytest.raises(DataError, match="field character: is {'age': nan} .*expected an object of texts, numbers"):
        read(path)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(40):
        path.write_bytes(whole[: rng.randrange(5, len(whole) - 1)])
        with pytest.raises(DataError):
            read(path)


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "x"
    seeds = [
        "".join(json.dumps(record) + "\n" for record in records).encode()
        for records in ([SHAREGPT] * 2, [OPENAI] * 2, TAVERN, [COSER], [SAMPLE], [[OPENAI]])
    ]
    read_ = 0
    for _ in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.choice([b"", b"[", b'"', b"null", b"\x00", b"\xff", b"9", b"{}"])
        path.write_bytes(bytes(data))
        try:
            write_rpgbench(tmp_path / "made.json", convert(read(path)[1], character="Ada").scenarios)
            read_ += 1
        except DataError as error:
            assert not str(error).startswith("not written"), "what convert gives can be written"
    assert 20 < read_ < 380, "both happen"
