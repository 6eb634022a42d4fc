"""Character cards and lorebooks: every version and file, macros, round trips, what is triggered, and hostile files."""

from __future__ import annotations

import base64
import io
import json
import random
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from coevo.cards import Card, Entry, Lorebook, parse_card, parse_lorebook, read_card, read_cards, write_card
from coevo.cards.files import BLANK, PNG, _chunk, _chunks
from coevo.errors import DataError

RPBENCH = Path("../shared/data/rpbench/rpbench_character.jsonl")
DATA: dict[str, Any] = {
    "name": "Ada", "description": "{{char}} knows {{user}}.", "personality": "curious", "scenario": "A café.",
    "first_mes": "*waves at {{USER}}*", "mes_example": "<START>\n{{user}}: Hi.\n{{char}}: Hello.",
    "creator_notes": "SECRET NOTES", "system_prompt": "{{original}} Be brief.", "post_history_instructions": "Stay <BOT>.",
    "alternate_greetings": ["Hm, <USER>?"], "tags": ["x"], "extensions": {"depth": {"n": 1}}, "my own field": [1, 2.5, None],
}  # fmt: skip
V2 = {"spec": "chara_card_v2", "spec_version": "2.0", "data": DATA, "outer": True}
V3 = {"spec": "chara_card_v3", "spec_version": "3.0", "data": DATA | {"nickname": "Addie", "assets": []}}
V1 = {key: DATA[key] for key in ("name", "description", "personality", "scenario", "first_mes", "mes_example")}


# --- what a prompt sees ---------------------------------------------------------------------------------------------------


def test_texts_go_where_they_belong_and_notes_nowhere() -> None:
    card = parse_card(V2, "card")
    found = card.character("Joe {{char}}")
    assert found == {
        "name": "Ada", "instructions": "Be brief.", "description": "Ada knows Joe {{char}}.", "personality": "curious",
        "scenario": "A café.", "example messages": "***\nJoe {{char}}: Hi.\nAda: Hello.", "above all": "Stay Ada.",
    }, "a macro in the user's name is text"  # fmt: skip
    assert "SECRET" not in json.dumps(found) and card.creator_notes == "SECRET NOTES"
    assert (card.greeting("Joe"), card.greeting("Joe", 1), card.greeting("Joe", 2)) == ("*waves at Joe*", "Hm, Joe?", "")
    # version 3's nickname is what {{char}} means
    assert parse_card(V3, "card").character("Joe")["description"] == "Addie knows Joe."
    assert parse_card(V1, "card").character("Joe")["personality"] == "curious"


# --- files ----------------------------------------------------------------------------------------------------------------


def test_a_json_card_survives(tmp_path: Path) -> None:
    for raw in (V1, V2, V3):
        write_card(parse_card(raw, "card"), tmp_path / "a.json")
        assert read_card(tmp_path / "a.json").raw == raw


def test_a_png_keeps_its_picture_and_other_chunks(tmp_path: Path) -> None:
    other = _chunk("Comment", b"mine")
    picture = BLANK[:-12] + other + _chunk("chara", base64.b64encode(b"{}")) + BLANK[-12:]
    path = tmp_path / "a.png"
    write_card(parse_card(V3, "card"), path, picture)
    written = path.read_bytes()
    assert read_card(path).raw == V3
    kept = [whole for kind, content, whole in _chunks(written, path) if not content.startswith((b"chara\0", b"ccv3\0"))]
    assert b"".join([PNG, *kept]) == BLANK[:-12] + other + BLANK[-12:]
    # both chunks, for readers of either version; a second round changes nothing
    assert written.count(b"tEXtccv3") == written.count(b"tEXtchara") == 1
    write_card(read_card(path), path, written)
    assert path.read_bytes() == written
    # the newer chunk counts
    two = _chunk("chara", base64.b64encode(json.dumps(V2).encode())) + _chunk(
        "ccv3", base64.b64encode(json.dumps(V3).encode())
    )
    path.write_bytes(BLANK[:-12] + two + BLANK[-12:])
    assert read_card(path).nickname == "Addie"


def test_compressed_chunks_are_read(tmp_path: Path) -> None:
    coded = base64.b64encode(json.dumps(V2).encode())
    packed = b"chara\0\0" + zlib.compress(coded)
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + b"\0\0\0\0"
    (tmp_path / "z.png").write_bytes(BLANK[:-12] + chunk + BLANK[-12:])
    assert read_card(tmp_path / "z.png").name == "Ada"
    text = b"chara\0\1\0\0\0" + zlib.compress(coded)
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + b"\0\0\0\0"
    (tmp_path / "i.png").write_bytes(BLANK[:-12] + chunk + BLANK[-12:])
    assert read_card(tmp_path / "i.png").name == "Ada"


def with_raw(card: Card, **changes: Any) -> Card:
    """A card with fields of its raw form changed."""
    return parse_card({**card.raw, "data": {**card.raw["data"], **changes}}, card.name)


def charx(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "/").replace("card/json", "card.json"), content)
    return out.getvalue()


def test_a_charx_keeps_its_assets(tmp_path: Path) -> None:
    source = charx(card_json=json.dumps(V3).encode(), assets_icon=bytes(range(256)))
    path = tmp_path / "a.charx"
    path.write_bytes(source)
    card = with_raw(read_card(path), description="another")
    write_card(card, tmp_path / "b.charx", source)
    assert read_card(tmp_path / "b.charx").description == "another"
    assert read_card(tmp_path / "b.charx").raw["data"]["my own field"] == [1, 2.5, None]
    with zipfile.ZipFile(tmp_path / "b.charx") as archive:
        assert archive.read("assets/icon") == bytes(range(256))


def test_a_folder_of_cards(tmp_path: Path) -> None:
    write_card(parse_card(V2, "card"), tmp_path / "a.png")
    write_card(with_raw(parse_card(V3, "card"), name="Bo"), tmp_path / "b.json")
    assert [card.name for card in read_cards(tmp_path)] == ["Ada", "Bo"]
    write_card(with_raw(parse_card(V3, "card"), name="Ada", scenario="other"), tmp_path / "c.json")
    with pytest.raises(DataError, match=r"c.json: a second card is called 'Ada'"):
        read_cards(tmp_path)
    (tmp_path / "c.json").write_text("no card")
    with pytest.raises(DataError, match=r"c.json: no card: malformed JSON"):
        read_cards(tmp_path)


@pytest.mark.skipif(not RPBENCH.exists(), reason="no shared data")
def test_profiles_of_rpbench() -> None:
    cards = read_cards(RPBENCH)
    assert len(cards) == 74
    for card in cards:
        found = card.character("Joe")
        assert found["name"] and found["description"] and card.greeting("Joe"), card.name


# --- lorebooks ------------------------------------------------------------------------------------------------------------


def told(book: Lorebook, *messages: str, **more: Any) -> list[str]:
    return [entry.content for entry in book.triggered(messages, **more)]


def test_an_entry_is_in_when_it_is_spoken_of_and_only_then() -> None:
    book = Lorebook((Entry(("Moor",), "The moor is wide.", order=2), Entry((), "Always.", constant=True, order=1)))
    assert told(book, "A moorhen?") == ["Always.", "The moor is wide."], "case does not count, nor ends of words"
    assert told(book, "A lake.") == ["Always."]
    assert told(book, "The moor!", "Yes.", "No.") == ["Always."], "two messages are looked through"
    card = parse_card(
        {**V2, "data": DATA | {"character_book": {"scan_depth": 1, "entries": [
            {"keys": ["moor"], "content": "{{char}} fears it.", "insertion_order": 1, "enabled": True, "extensions": {}}]}}},
        "card",
    )  # fmt: skip
    assert card.character("Joe", ["the moor"])["lore"] == "Ada fears it." and "lore" not in card.character("Joe", ["a lake"])


@pytest.mark.parametrize(
    ("entry", "text", "is_in"),
    [
        ({"keys": ["Moor"], "case_sensitive": True}, "moor", False),
        ({"keys": ["moor"], "enabled": False}, "moor", False),
        ({"keys": ["m.+r"], "use_regex": True}, "meadower", True),
        ({"keys": ["/M.r/i"], "use_regex": True}, "mor", True),
        ({"keys": ["moor"], "secondary_keys": ["fog"], "selective": True}, "moor", False),
        ({"keys": ["moor"], "secondary_keys": ["fog"], "selective": True}, "fog on the moor", True),
        ({"keys": ["moor"], "secondary_keys": ["fog"], "selective": False}, "moor", True),
        ({"key": ["moor"], "keysecondary": ["a", "b"], "selective": True, "selectiveLogic": 3}, "moor a", False),
        ({"key": ["moor"], "keysecondary": ["a", "b"], "selective": True, "selectiveLogic": 3}, "moor a b", True),
        ({"key": ["moor"], "keysecondary": ["fog"], "selective": True, "selectiveLogic": 2}, "moor fog", False),
        ({"key": ["moor"], "keysecondary": ["a", "b"], "selective": True, "selectiveLogic": 1}, "moor a", True),
        ({"key": ["moor"], "disable": True}, "moor", False),
        ({"keys": [" "]}, "moor", False),
    ],
)
def test_rules_of_an_entry(entry: dict[str, Any], text: str, is_in: bool) -> None:
    book = parse_lorebook({"entries": {"0": entry | {"content": "x"}}}, "book")
    assert told(book, text) == (["x"] if is_in else [])


def test_the_budget_takes_what_matters_most() -> None:
    entries = tuple(Entry(("a",), f"{n}{'x' * 9}", order=n, priority=n) for n in (1, 2, 3))
    book = Lorebook((*entries, Entry((), "always" + "y" * 4, constant=True, order=9)), token_budget=25)
    # 25 characters: the constant one (10), then by priority; in the order of insertion
    assert [text[0] for text in told(book, "a")] == ["3", "a"]
    assert len(told(book, "a", count=lambda text: 1)) == 4


def test_books_that_call_each_other_come_to_an_end() -> None:
    book = Lorebook((Entry(("a",), "b"), Entry(("b",), "c"), Entry(("c",), "a")), recursive=True)
    assert sorted(told(book, "a")) == ["a", "b", "c"] and told(book, "z") == []
    assert told(Lorebook(book.entries), "a") == ["b"], "without recursion the first alone"


def test_a_pattern_without_end_does_not_match() -> None:
    book = parse_lorebook({"entries": [{"keys": ["(a+)+$"], "use_regex": True, "content": "x"}]}, "book")
    began = time.monotonic()
    assert told(book, "a" * 5000 + "b") == [] and time.monotonic() - began < 2


# --- hostile files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "expected an object with the fields of a character card"),
        ({"a": 1}, "has 'a'; expected a character card"),
        ({"spec": "chara_card_v9", "data": DATA}, "expected one of chara_card_v2, chara_card_v3"),
        ({"spec": "chara_card_v2", "data": []}, "data: is \\[\\]"),
        (V1 | {"name": ["Ada"]}, "name: is \\['Ada'\\]; expected a text"),
        (V1 | {"name": " "}, "a name of one line"),
        (V1 | {"name": "a\nb"}, "a name of one line"),
        (V1 | {"first_mes": 3}, "first_mes: is 3"),
        (V1 | {"description": "\ud800"}, "text that UTF-8 can hold"),
        (V1 | {"alternate_greetings": "hi"}, "expected a list of texts"),
        (V1 | {"character_book": []}, "character_book: is \\[\\]; expected an object"),
        (V1 | {"character_book": {"entries": [3]}}, "character_book.entries\\[0\\]: is 3"),
        (V1 | {"character_book": {"entries": [{"keys": "moor"}]}}, "entries\\[0\\].keys: is 'moor'; expected a list"),
        (V1 | {"character_book": {"entries": [{"keys": ["("], "use_regex": True}]}}, "expected a regular expression"),
        (V1 | {"character_book": {"entries": [{"keys": [], "selectiveLogic": 7}]}}, "expected 0 to 3"),
        (V1 | {"character_book": {"entries": [{"constant": "yes"}]}}, "expected true or false"),
        (V1 | {"character_book": {"token_budget": 1e300}}, "token_budget: is 1e\\+300; expected a number"),
        ({"npc_profile": 3}, "npc_profile: is 3"),
    ],
)
def test_cards_that_are_none(raw: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_card(raw, "card")


def bomb() -> bytes:
    packed = b"chara\0\0" + zlib.compress(b"A" * 100_000_000)
    return BLANK[:-12] + struct.pack(">I", len(packed)) + b"zTXt" + packed + b"\0\0\0\0" + BLANK[-12:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "malformed JSON"),
        (b"{", "malformed JSON"),
        (b'{"name": "a", "name": "b"}', "the field 'name' twice"),
        (b'{"name": NaN}', "NaN found"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (json.dumps(V1).encode() + b"{}", "follows the card"),
        (json.dumps(V1).encode("utf-16"), "UTF-16"),
        ("{\"name\": \"é\"}".encode("latin-1"), "not valid UTF-8"),
        (BLANK, "holds no character card"),
        (PNG + struct.pack(">I", 2**30) + b"tEXtchara\0", "claims 1,073,741,824 bytes and the file ends before"),
        (BLANK[:-20], "the file ends before|cut short"),
        (BLANK[:-12] + _chunk("chara", b"!!!") + BLANK[-12:], "is not base64"),
        (bomb(), "has more than .* bytes; it is no card"),
        (b"PK\3\4 no zip", "is no zip file"),
        (charx(assets_icon=b"x"), "holds 0 files card.json"),
        (charx(card_json=b"x" * 9 * 2**20), "card's JSON has .* expected at most"),
    ],
)  # fmt: skip
def test_files_that_are_no_cards(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match=message):
        read_card(path)
    assert time.monotonic() - began < 2 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a\\..\\evil", "C:evil"])
def test_a_charx_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("card.json", json.dumps(V3))
        archive.writestr(name, "x")
    (tmp_path / "x").write_bytes(out.getvalue())
    with pytest.raises(DataError, match="outside of its folder"):
        read_card(tmp_path / "x")


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("card.json", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(b" " * 2**20)
    (tmp_path / "x").write_bytes(out.getvalue())
    with pytest.raises(DataError, match="unpacks to 314,572,800 bytes"):
        read_card(tmp_path / "x")


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, path, read_ = random.Random(0), tmp_path / "x", 0
    png = BLANK[:-12] + _chunk("chara", base64.b64encode(json.dumps(V2).encode())) + BLANK[-12:]
    seeds = [json.dumps(V2).encode(), json.dumps(V1).encode(), png, charx(card_json=json.dumps(V3).encode(), assets_a=b"x")]
    for _ in range(600):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.choice([b"", b"\x00", b"\xff", b"[", b'"', b"9", b"null"])
        path.write_bytes(bytes(data))
        try:
            read_card(path).character("Joe", ["hello"])
            read_ += 1
        except DataError:
            pass
    assert 20 < read_ < 580, "both happen"
