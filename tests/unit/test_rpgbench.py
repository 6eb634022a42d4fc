"""The RPGBench reader: what it reads, and what it says about what it cannot."""

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coevo.config.load import parse_recipe
from coevo.data import check, load_scenarios, read_rpgbench, split_names, world, write_rpgbench
from coevo.data.jsonstream import CHUNK_BYTES, WRAP, JsonLists
from coevo.errors import DataError
from coevo.loop.material import load_material
from coevo.plan.check import count
from coevo.types import Scenario, Turn

SAMPLE: dict[str, Any] = {
    "sample_ID": "IDTest-00000",
    "subset_tag": "IDTest",
    "user_persona": "Ann, a nurse.",
    "agent_character": {"name": "Ada"},
    "dialogue_context": [{"user_query": "Hi."}, {"agent_response": "Hello."}, {"user_query": "Who are you?"}],
    "agent_golden_response": "I am Ada.",
}


def _file(folder: Path, *changes: Callable[[dict[str, Any]], Any]) -> Path:
    """Write IDTrain with one good sample and IDTest with one sample per change."""
    samples = []
    for i, change in enumerate(changes):
        sample = copy.deepcopy(SAMPLE)
        sample["sample_ID"] = f"IDTest-{i:05d}"
        change(sample)
        samples.append(sample)
    path = folder / "data.json"
    first = {**SAMPLE, "sample_ID": "IDTrain-00000", "subset_tag": "IDTrain"}
    path.write_text(json.dumps({"IDTrain": [first], "IDTest": samples}, indent=1), encoding="utf-8")
    return path


def _nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def _keep(sample: dict[str, Any]) -> None:
    """Change nothing."""


def _line(path: Path, text: str, occurrence: int = 0) -> int:
    return [i for i, line in enumerate(path.read_text("utf-8").splitlines(), 1) if text in line][occurrence]


def test_reads_a_sample_and_ignores_unknown_fields(tmp_path: Path) -> None:
    path = _file(tmp_path, lambda s: s.update(note="hm", extra=[1, {"a": None}]))
    expected = Scenario(
        "IDTest-00000",
        "IDTest",
        "IDTest",
        "Ann, a nurse.",
        {"name": "Ada"},
        (Turn("user", "Hi."), Turn("agent", "Hello."), Turn("user", "Who are you?")),
        "I am Ada.",
    )
    assert list(read_rpgbench(path, ["IDTest"])) == [expected]
    assert [x.split for x in read_rpgbench(path)] == ["IDTrain", "IDTest"]
    assert split_names(path) == ["IDTrain", "IDTest"]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (lambda s: s.pop("user_persona"), "user_persona", "is missing; expected non-empty text"),
        (lambda s: s.update(user_persona=7), "user_persona", r"is 7 \(a number\); expected non-empty text"),
        (lambda s: s.update(user_persona=" "), "user_persona", r"is ' ' \(text\); expected non-empty text"),
        (lambda s: s.update(subset_tag=None), "subset_tag", r"is None \(null\); expected"),
        (
            lambda s: s.update(agent_character=[]),
            "agent_character",
            r"is \[\] \(a list\); expected non-empty text or an obj",
        ),
        (
            lambda s: s.update(agent_golden_response=""),
            "agent_golden_response",
            "expected non-empty text; .*cannot be scored",
        ),
        (lambda s: s.update(dialogue_context=[]), "dialogue_context", "expected a non-empty list of messages"),
        (
            lambda s: s["dialogue_context"].append({"agent_response": "Yes."}),
            "dialogue_context[3]",
            "expected the user's query as the last message; move this text to agent_golden_response",
        ),
        (
            lambda s: s["dialogue_context"].pop(1),
            "dialogue_context[1]",
            "expected a message of the agent, as message 0 is of the user too",
        ),
        (
            lambda s: s["dialogue_context"].__setitem__(2, {"user_query": "\n"}),
            "dialogue_context[2].user_query",
            r"is '\\n' \(text\); expected non-empty text",
        ),
        (
            lambda s: s["dialogue_context"].__setitem__(0, {"user": "Hi."}),
            "dialogue_context[0]",
            "expected an object with one of user_query and agent_response",
        ),
        (lambda s: s.update(parent_ID=3), "parent_ID", r"is 3 \(a number\); expected the sample_ID of the parent"),
        (
            lambda s: s.update(parent_ID="IDTest-00001"),
            "parent_ID",
            r"is 'IDTest-00001' \(text\); expected the sample_ID of",
        ),
        (lambda s: s.update(agent_golden_response="\u200b"), "agent_golden_response", r"is '\\u200b' .*non-empty text"),
        (lambda s: s.update(subset_tag="a\nb"), "subset_tag", "expected one line of at most 200 characters"),
        (lambda s: s.update(subset_tag="\x1b[31mred"), "subset_tag", "expected one line of at most 200 characters"),
        (lambda s: s.update(user_persona="A\0n"), "user_persona", "expected text without the null character"),
        (lambda s: s.update(agent_character={"a\0": 1}), "agent_character", "expected text without the null character"),
        (lambda s: s.update(agent_character={"a": _nested(30)}), "agent_character", "an object of at most 20 levels"),
        (lambda s: s.update(dialogue_context="Hi."), "dialogue_context", r"is 'Hi.' \(text\); expected a non-empty list"),
        (lambda s: s.update(user_persona="\ud800"), "user_persona", "expected text that UTF-8 can hold"),
        (
            lambda s: s.update(agent_alternatives="I."),
            "agent_alternatives",
            r"is 'I.' \(text\); expected a list of non-empty",
        ),
        (
            lambda s: s.update(agent_alternatives=["I.", " "]),
            "agent_alternatives",
            r"expected a list of non-empty texts; write",
        ),
        (lambda s: s.update(agent_alternatives=["a\0"]), "agent_alternatives", "expected text without the null character"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], Any], field: str, message: str) -> None:
    path = _file(tmp_path, _keep, change)
    place = rf"{re.escape(str(path))}:\d+: split 'IDTest', sample 1 \('IDTest-00001'\), field {re.escape(field)}: .*"
    with pytest.raises(DataError, match=place + message):
        list(read_rpgbench(path))
    report = check(path)
    assert report.n_problems[re.sub(r"\[\d+\]", "", field)] == len(report.problems) == 1
    assert re.match(place + message, str(report.problems[0]))
    assert report.n_samples == {("IDTrain", "IDTrain"): 1, ("IDTest", "IDTest"): 1}


def test_the_line_is_the_fields(tmp_path: Path) -> None:
    path = _file(tmp_path, _keep, lambda s: s.update(user_persona=7))
    line = _line(path, '"user_persona"', 2)  # IDTrain's, the first of IDTest, this one
    with pytest.raises(DataError, match=f"data.json:{line}: "):
        list(read_rpgbench(path))
    path = _file(tmp_path, lambda s: s["dialogue_context"].append({"agent_response": "Yes."}))
    line = _line(path, '"agent_response": "Yes."')
    with pytest.raises(DataError, match=f"data.json:{line}: "):
        list(read_rpgbench(path))


def test_a_repeated_sample_id_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path, _keep, lambda s: s.update(sample_ID="IDTrain-00000"))
    message = r"sample 1 \('IDTrain-00000'\), field sample_ID: is 'IDTrain-00000', which an earlier sample has"
    with pytest.raises(DataError, match=message):
        list(read_rpgbench(path))
    assert check(path).n_problems == {"sample_ID": 1}


def test_a_sample_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"IDTest": [\n "text"]}')
    with pytest.raises(DataError, match=r":2: split 'IDTest', sample 0: is 'text' \(text\); expected an object"):
        list(read_rpgbench(path))


def test_an_absent_split_is_named_with_those_there(tmp_path: Path) -> None:
    path = _file(tmp_path, _keep)
    with pytest.raises(DataError, match=r"has no split 'IDTests'; it has IDTrain, IDTest; nearest: IDTest"):
        read_rpgbench(path, ["IDTests"])
    assert len(list(read_rpgbench(path, "IDTest"))) == 1


def test_invalid_utf8_is_named_by_its_byte(tmp_path: Path) -> None:
    path = _file(tmp_path, _keep)
    data = path.read_bytes()
    offset = data.index(b"Who are you", data.index(b'"IDTest"'))
    path.write_bytes(data[:offset] + b"\xff" + data[offset + 1 :])
    with pytest.raises(DataError, match=rf"byte {offset} \(0xff\) is not valid UTF-8"):
        list(read_rpgbench(path))
    assert check(path).n_problems == {"file": 1}


def test_invalid_utf8_beyond_the_first_chunk_is_named_by_its_byte(tmp_path: Path) -> None:
    # "é" is two bytes; an odd start puts one of them across the edge of each chunk of even length.
    path = tmp_path / "data.json"
    start = b'{"IDTest": ["' + b"x" * (1 - len(b'{"IDTest": ["') % 2)
    data = start + "é".encode() * CHUNK_BYTES + b"\xfe"
    path.write_bytes(data + b'"]}')
    with pytest.raises(DataError, match=rf"byte {len(data) - 1} \(0xfe\)"):
        split_names(path)


def test_every_way_to_cut_a_file_short_is_said(tmp_path: Path) -> None:
    whole = _file(tmp_path, _keep).read_bytes().rstrip()
    path = tmp_path / "cut.json"
    for n in range(0, len(whole), 7):
        path.write_bytes(whole[:n])
        with pytest.raises(DataError, match=rf"cut.json: the file ends after {n} bytes"):
            list(read_rpgbench(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r":1: the opening brace: found '\['; expected an object that maps split names"),
        ('{"A": {}}', r":1: split 'A': found '\{'; expected a list of samples"),
        ('{"A": []}\n}', ":2: .*found '}'; expected nothing after the closing brace"),
        ('{"A": [],\n "A": []}', ":2: split 'A' occurs twice"),
        ('{"A": [\n{"sample_ID" "x"}]}' + " " * 40, ":2: split 'A', sample 0: malformed JSON, Expecting ':'"),
        ('{"A": [1, ]}' + " " * 40, "sample 1: malformed JSON, Expecting value"),
        ('{"A": [1 2]}', "split 'A', sample 0: found '2'; expected ',' or ']'"),
        ("{3: []}", "found 3; expected a split's name in quotes"),
        ('{"": []}', "found ''; expected a split's name of one line"),
        ('{"a\\u0000": []}', "expected a split's name of one line"),
        (
            '{"sample_ID": "x"}\n{"sample_ID": "y"}',
            "expected a list of samples .*; JSON lines or a bare list are wrapped as",
        ),
        ('{"A": [{"a": 1, "b": 2, "a": 3}]}', "sample 0: found the field 'a' twice in one object; .*keep one of them"),
        ('{"A": [{"a": NaN}]}', "sample 0: found NaN; expected a finite number"),
        ('{"A": [{"a": 1e999}]}', "sample 0: found 1e999; expected a finite number"),
        ('{"A": [\n{"a": ' + "9" * 6000 + "}]}", ":2: .*found a number of 6000 digits; expected at most 1000"),
        ('{"A": [' + "[" * 100_000, "nested too deeply; expected samples of a few levels"),
        ('{"A": [{"a": "\x01"}]}', "malformed JSON, Invalid control character at "),
    ],
)
def test_malformed_json_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        split_names(path)
    assert "file" in check(path).n_problems


def test_an_absent_file_a_folder_and_a_locked_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.json: cannot be opened .*check the path"):
        read_rpgbench(tmp_path / "gone.json")
    with pytest.raises(DataError, match="cannot be opened .Is a directory"):
        read_rpgbench(tmp_path)
    with pytest.raises(DataError, match="cannot be opened .embedded null byte"):
        read_rpgbench("a\0b")
    locked = _file(tmp_path, _keep)
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # root reads all the same
        with pytest.raises(DataError, match="cannot be opened .Permission denied"):
            read_rpgbench(locked)


@pytest.mark.parametrize("text", ["{}", '{"IDTest": []}'])
def test_a_file_without_samples_is_a_problem(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    assert [str(problem) for problem in check(path).problems] == [f"{path}: holds no sample; expected at least one; {WRAP}"]


def test_text_that_looks_like_markup_or_a_backslash_is_text(tmp_path: Path) -> None:
    texts = ["<|im_start|>system", "a\\u0000b", "tab\there", "\u3000wide", "\u200dیک"]
    path = _file(
        tmp_path, *(lambda s, text=text: s.update(user_persona=text, agent_character={"a": text}) for text in texts)
    )
    assert [x.persona for x in read_rpgbench(path, "IDTest")] == texts


def test_check_lists_every_problem(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        lambda s: s.update(user_persona=7, subset_tag=""),
        _keep,
        lambda s: s.pop("user_persona"),
    )
    report = check(path)
    assert not report.ok
    assert report.n_problems == {"user_persona": 2, "subset_tag": 1}
    key = ("IDTest", "IDTest")
    assert report.n_samples[key] == 1 and report.n_messages[key] == 3
    # Persona 13 characters, character '{"name": "Ada"}' 15, dialogue 3 + 6 + 12; reference 9.
    assert report.n_prompt_characters[key] == 13 + 15 + 21
    assert report.n_reference_characters[key] == 9
    assert report.longest_prompt == (49, "IDTrain-00000")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    scenarios = [x for split in world.SPLITS for x in world.generate(split, 24, seed=1)]
    path = tmp_path / "world.json"
    write_rpgbench(path, scenarios)
    assert list(read_rpgbench(path)) == scenarios
    assert check(path).ok
    assert [p.name for p in tmp_path.iterdir()] == ["world.json"]


def test_parents_and_alternatives_survive_and_bytes_may_begin_with_a_mark(tmp_path: Path) -> None:
    x = Scenario(
        "a", "Shifted", "german", "u", "c", (Turn("user", "q"),), "y", "IDTrain-00000", alternatives=("z", "also z")
    )
    path = tmp_path / "one.json"
    write_rpgbench(path, [x])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_rpgbench(path)) == [x]


def test_nothing_is_written_that_could_not_be_read(tmp_path: Path) -> None:
    x = world.generate("IDTest", 1, seed=1)[0]
    path = tmp_path / "world.json"
    write_rpgbench(path, [x])
    before = path.read_bytes()
    with pytest.raises(DataError, match="not written: .*field agent_golden_response: is .*expected non-empty text"):
        write_rpgbench(path, [world.frame(x)])
    with pytest.raises(DataError, match="not written: .*which an earlier sample has"):
        write_rpgbench(path, [x, x])
    assert path.read_bytes() == before
    with pytest.raises(DataError, match="cannot be written"):
        write_rpgbench(tmp_path / "no folder" / "world.json", [x])


def test_the_drama_file() -> None:
    data = Path(os.environ.get("COEVO_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    path = data / "drama" / "drama.json"
    if not path.exists():
        pytest.skip("the drama file is not here; set COEVO_DATA to the folder that holds drama/drama.json")
    report = check(path)
    assert report.ok and not report.notes
    assert sum(report.n_samples.values()) == 2750 and report.n_samples["IDTrain", "IDTrain"] == 2000
    assert sum(1 for _ in read_rpgbench(path, ["OOD3Test"])) == 300


def test_a_command_parses_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "world.json"
    splits = ("IDTrain", "IDTest", "OOD1Test", "OOD2Test", "OOD3Test")
    write_rpgbench(path, [x for split in splits for x in world.generate(split, 40, seed=0)])
    opened: list[Path] = []
    begin = JsonLists.__init__

    def counted(self: JsonLists, path: Path) -> None:
        opened.append(path)
        begin(self, path)

    monkeypatch.setattr(JsonLists, "__init__", counted)
    data = {"kind": "file", "path": str(path), "reference": "carry", "dev": 4}
    recipe = parse_recipe({"name": "x", "method": "grpo", "data": data}, "recipe")
    assert (count(recipe).id_train, len(load_material(recipe).tests)) == (36, 160) and len(opened) == 1
    assert [x.split for x in load_scenarios(path, splits)][::40] == list(splits) and len(opened) == 1
    # another file under the name, or other splits, are read
    write_rpgbench(path, world.generate("IDTrain", 3, seed=1))
    assert len(load_scenarios(path)) == 3 and len(opened) == 2
    with pytest.raises(DataError, match="has no split 'IDTest'; it has IDTrain"):
        load_scenarios(path, ["IDTest"])
