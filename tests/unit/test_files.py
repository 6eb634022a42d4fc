"""Files that are not what was expected, and names that the locale cannot hold: each said, with the remedy."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.config.load import load_recipe
from coevo.config.rubric import load_rubric
from coevo.data import check, read_rpgbench
from coevo.data.responses import read_answers
from coevo.errors import CoevoError
from coevo.experiment.matrix import read_experiment
from coevo.files import what_it_is

SAMPLE = {
    "sample_ID": "a",
    "subset_tag": "IDTest",
    "user_persona": "Ann",
    "agent_character": "Dora",
    "dialogue_context": [{"user_query": "Rain?"}],
    "agent_golden_response": "Rain.",
}
DATA = json.dumps({"IDTest": [SAMPLE]})
ROW = '{"sample_ID": "a", "response": "Hm.", "model": "m"}\n'


def _answers(path: Path) -> Any:
    data = path.with_name("good.json")
    data.write_text(DATA)
    return read_answers(data, [path])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "data": (DATA, lambda path: list(read_rpgbench(path))),
    "responses": (ROW, _answers),
    "recipe": ("name: x\n", load_recipe),
    "rubric": ("name: x\n", lambda path: load_rubric(str(path))),
    "experiment": ("name: x\n", read_experiment),
}
"""What is read -> its text, and by what."""
FORMS: dict[str, tuple[Callable[[str], bytes], str]] = {
    "gz": (lambda text: gzip.compress(text.encode()), r"is compressed with gzip; .*gunzip -c '.*my file\.gz' > '.*my file'"),
    "16": (lambda text: text.encode("utf-16"), r"is UTF-16 text; .*iconv -f UTF-16 -t UTF-8 '.*' > '.*my file\.utf8\.16'"),
    "be": (lambda text: text.encode("utf-16-be"), r"is UTF-16 text; .*iconv -f UTF-16BE -t UTF-8"),
    "le": (lambda text: text.encode("utf-16-le"), r"is UTF-16 text; .*iconv -f UTF-16LE -t UTF-8"),
    "32": (lambda text: text.encode("utf-32"), r"is UTF-32 text; .*iconv -f UTF-32 -t UTF-8"),
    "zip": (lambda text: b"PK\x03\x04" + text.encode(), r"is a zip archive, .*unzip '"),
    "lfs": (
        lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        r"is a Git LFS pointer.*git lfs pull",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS)
def test_what_a_file_is_is_said_with_the_command_that_makes_it_text(reader: str, form: str, tmp_path: Path) -> None:
    text, read = READERS[reader]
    write, message = FORMS[form]
    path = tmp_path / f"my file.{form}"
    path.write_bytes(write(text))
    with pytest.raises(CoevoError, match=rf"my file\.{form}: {message}"):
        read(path)


@pytest.mark.parametrize("reader", ["data", "responses", "recipe"])
def test_a_byte_order_mark_is_passed_over(reader: str, tmp_path: Path) -> None:
    text, read = READERS[reader]
    path = tmp_path / "marked"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(path)


def test_joined_files_have_marks_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    other = ROW.replace('"m"', '"n"')
    path.write_bytes(b"\xef\xbb\xbf" + ROW.encode() + b"\xef\xbb\xbf" + other.encode())
    assert list(_answers(path).by_model) == ["m", "n"]


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"PAR1\x15\0", "Parquet"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\0", "SQLite"),
        (b"ARROW1\0\0", "Arrow"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ],
)
def test_other_kinds_are_known(head: bytes, word: str) -> None:
    assert word in str(what_it_is(head, Path("x")))


@pytest.mark.parametrize("text", ["", "{", "{}", "[\n", "name: x", "a\0", "日本語", "PARt", "BZh", "%"])
def test_text_is_no_other_kind(text: str) -> None:
    assert what_it_is(text.encode(), Path("x")) is None


# --- check in linear time ---------------------------------------------------------------------------------------------


def test_a_file_with_many_fields_or_many_faulty_turns_is_checked_at_once(tmp_path: Path) -> None:
    """On one core: 20,000 fields with one twice took 14 s, 3,000 faulty turns 7 s; now about 0.2 s each."""
    path = tmp_path / "data.json"
    began = time.process_time()
    fields = ", ".join(f'"k{n}": "v"' for n in (*range(20_000), 19_999))
    path.write_text(f'{{"IDTest": [{{"agent_character": {{{fields}}}}}]}}')
    assert "the field 'k19999' twice" in str(check(path).problems[0])
    turns = [{"user_query": "Rain?"}, *({"user_query": ""} for _ in range(3000))]
    path.write_text(json.dumps({"IDTest": [SAMPLE | {"dialogue_context": turns}]}, indent=1))
    problems = check(path).problems
    assert len(problems) == 6000
    # line 1 is the brace, 2 the split, 3 the sample, 4 to 7 its fields before the dialogue, 8 its bracket; each turn has 3
    assert problems[2999].place.startswith(f"{path}:{10 + 3 * 3000}:") and "dialogue_context[3000]" in problems[2999].place
    assert time.process_time() - began < 4


# --- names in another locale ------------------------------------------------------------------------------------------


def _called(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "coevo", *words]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)


def test_a_name_that_the_locale_cannot_hold_is_refused_with_the_remedy(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: größe\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["--out", str(tmp_path / "größe")], []):
        done = _called("train", str(recipe), *words, **ascii_only)
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        assert b"the locale's encoding is ascii" in done.stderr and b"Set LC_ALL=C.UTF-8" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_other_names_go_through_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "größe.json"
    path.write_text(DATA)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = _called("data", "check", str(path), **ascii_only)
    assert done.returncode == 0 and b"nothing wrong" in done.stdout
    assert _called("data", "check", str(path), PYTHONIOENCODING="ascii", PYTHONUTF8="1").returncode == 0


def test_a_name_that_is_not_utf8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "recipe.yaml", "--out", os.fsdecode(b"runs/\xff")]) == 2
    assert "this name is not UTF-8" in capsys.readouterr().err
