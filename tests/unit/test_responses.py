"""The reader of responses: what it takes, and what it says about what it cannot."""

import json
from pathlib import Path

import pytest

from coevo.data import write_rpgbench
from coevo.data.responses import MOST_PROBLEMS, read_answers
from coevo.errors import DataError
from coevo.types import Scenario, Turn

SIZES = {"IDTrain": 2, "IDTest": 3, "OOD1Test": 2}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three splits: IDTrain of 2 scenarios, IDTest of 3, OOD1Test of 2."""
    turns = (Turn("user", "Who are you?"),)
    path = tmp_path / "data.json"
    write_rpgbench(
        path,
        [
            Scenario(f"{split}-{i}", split, "german" if split == "OOD1Test" else split, "Ann", "Ada", turns, "I am Ada.")
            for split, n in SIZES.items()
            for i in range(n)
        ],
    )
    return path


def row(sample_id: str = "IDTest-0", response: object = "Hello.", model: object = "a", **more: object) -> dict[str, object]:
    return {"sample_ID": sample_id, "response": response, "model": model, **more}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def test_models_may_share_a_file_and_spread_over_files(data: Path, tmp_path: Path) -> None:
    first = lines(tmp_path / "1.jsonl", row("IDTest-1", "b says", "b"), row("IDTest-0", "a says", note=[1]), row("IDTest-2"))
    second = lines(tmp_path / "2.jsonl", row("IDTest-1", "a again", status="truncated"))
    answers = read_answers(data, [first, second])
    assert [x.sample_id for x in answers.scenarios] == ["IDTest-0", "IDTest-1", "IDTest-2"]
    assert list(answers.by_model) == ["b", "a"], "in order of first appearance"
    assert [(r.text, r.status) for r in answers.by_model["a"]] == [
        ("a says", "ok"),
        ("a again", "truncated"),
        ("Hello.", "ok"),
    ]
    assert [r.status for r in answers.by_model["b"]] == ["missing", "ok", "missing"]
    assert answers.missing("b") == ["IDTest-0", "IDTest-2"] and answers.missing("a") == []


def test_models_that_look_the_same_are_said_to_be_two(data: Path, tmp_path: Path) -> None:
    models = ("mine", "mine ", "Mi\u200bne", "mine-2")
    answers = read_answers(
        data, [lines(tmp_path / "r.jsonl", *(row(f"IDTest-{i}", model=m) for m in models for i in range(3)))]
    )
    assert answers.notes()[:2] == [
        f"The models 'mine' and {other} differ in case or space alone, and are taken for two."
        for other in ("'mine '", "'Mi\\u200bne'")
    ]
    assert "mine-2" not in " ".join(answers.notes())


def test_splits_without_a_response_are_left_out_and_named(data: Path, tmp_path: Path) -> None:
    answers = read_answers(data, [lines(tmp_path / "r.jsonl", row("OOD1Test-1"), row("IDTest-0"))])
    assert answers.splits == ("IDTest", "OOD1Test") and len(answers.scenarios) == 5
    assert answers.unanswered == {"IDTrain": 2} and answers.unused == {}


def test_splits_asked_for_are_taken_whole_and_other_responses_counted(data: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "r.jsonl", row("IDTrain-0"), row("IDTrain-1"), row("IDTest-0"))
    answers = read_answers(data, [file], ["IDTest", "OOD1Test"])
    assert [r.status for r in answers.by_model["a"]] == ["ok"] + 4 * ["missing"]
    assert answers.unused == {"IDTrain": 2} and answers.unanswered == {}


def test_a_blank_response_is_a_status_and_blank_lines_are_nothing(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows = [row("IDTest-0", ""), row("IDTest-1", " \u200b\n"), row("IDTest-2", "日本語")]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(r).encode() for r in rows))
    assert [r.status for r in read_answers(data, [path]).by_model["a"]] == ["empty", "empty", "ok"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"sample_ID": "IDTest-0", "respon', r"r\.jsonl:2: malformed JSON, .*write one JSON object a line"),
        (b"[1, 2]", r"r\.jsonl:2: is \[1, 2\] \(a list\); expected an object"),
        (b'"text"', r"r\.jsonl:2: is 'text' \(text\); expected an object"),
        (b'{"a": 1, "a": 2}', r"r\.jsonl:2: found the field 'a' twice in one object"),
        (b'{"a": NaN}', r"r\.jsonl:2: found NaN; expected a finite number"),
        (b"[" * 100_000, r"r\.jsonl:2: (JSON that is nested too deeply|malformed JSON)"),
        (b'{"response": "\xff"}', r"r\.jsonl:2: byte 14 \(0xff\) is not valid UTF-8"),
        ({"response": "x", "model": "a"}, r"r\.jsonl:2: field sample_ID: is missing"),
        ({"sample_id": "IDTest-0", "response": "x", "model": "a"}, r"field sample_ID: is missing.*rename 'sample_id'"),
        (row(7), r"r\.jsonl:2: field sample_ID: is 7 \(a number\); expected the scenario's sample_ID.*write it as text"),
        (row("IDTest-99"), r"field sample_ID: is 'IDTest-99', which .*data\.json does not have; .*nearest: IDTest-"),
        (row("something else"), r"field sample_ID: is 'something else', .*check that --data is the file"),
        (row(response=None), r"field response: is None \(null\); expected text"),
        (row(response=["x"]), r"field response: is \['x'\] \(a list\); expected text"),
        (row(response="\ud83d"), r"field response: .*half of a surrogate pair"),
        (row(response="a\0"), r"field response: .*null character"),
        (row(model=""), r"field model: is '' \(text\); expected a name of one line"),
        (row(model="a\nb"), r"field model: .*expected a name of one line"),
        (row(model=None), r"field model: is None \(null\); expected the model's name"),
        (row(status="cut"), r"field status: is 'cut' \(text\); expected ok or truncated"),
        (row(status=["x"]), r"field status: is \['x'\] \(a list\); expected ok or truncated"),
        (row("IDTest-1"), r"r\.jsonl:2: field sample_ID: is 'IDTest-1', which model 'a' answers at .*r\.jsonl:1 too"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_line_is_named_with_its_remedy(line: object, message: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = json.dumps(row("IDTest-1")).encode() + b"\n"
    path.write_bytes(good + (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    with pytest.raises(DataError, match=f"(?s)1 problem.*{message}"):
        read_answers(data, [path])


def test_all_problems_are_counted_and_the_first_listed(data: Path, tmp_path: Path) -> None:
    first = lines(tmp_path / "1.jsonl", *(row(f"gone-{i}") for i in range(70)))
    second = lines(tmp_path / "2.jsonl", {"sample_ID": 1, "model": 2})
    with pytest.raises(DataError) as caught:
        read_answers(data, [first, second])
    # 70 unknown ids, and one line with a wrong sample_ID, a wrong model and no response
    message = str(caught.value)
    assert message.startswith("73 problem(s)") and "By field: sample_ID 71, model 1, response 1." in message
    assert len(message.splitlines()) == 1 + MOST_PROBLEMS


@pytest.mark.parametrize("content", [None, b"", b" \n\n"])
def test_a_file_that_holds_nothing_is_refused(content: bytes | None, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"r\.jsonl: (cannot be read|holds no response)"):
        read_answers(data, [path])


def test_splits_that_are_unknown_or_unanswered_are_refused(data: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "r.jsonl", row())
    with pytest.raises(DataError, match=r"has no split 'IDTset'.*nearest: IDTest"):
        read_answers(data, [file], ["IDTset"])
    with pytest.raises(DataError, match=r"no response belongs to the split\(s\) OOD1Test; the responses are to IDTest"):
        read_answers(data, [file], ["OOD1Test"])
