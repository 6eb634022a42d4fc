"""YAML that people write: bombs of every kind are refused at once, by the place, wherever YAML is read."""

import time
from pathlib import Path

import pytest

from coevo.cli.judge import _extra
from coevo.config.load import load_recipe
from coevo.config.rubric import load_rubric
from coevo.errors import ConfigError
from coevo.experiment.matrix import read_experiment
from coevo.yamlfile import MOST_VALUES, parse_yaml

LEVELS = 9
"""Of nine aliases each: 9^9 values from ten lines."""


def _aliases(first: str, rest: str, last: str) -> str:
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {rest.format(', '.join([f'*a{i - 1}'] * LEVELS))}" for i in range(1, LEVELS + 1)]
    return "\n".join(["name: x", *lines, last])


BOMBS = {
    "aliases": (_aliases("[x, x, x, x, x, x, x, x, x]", "[{}]", ""), "line 5, .*more than 5,000 keys and values"),
    "merge keys": (_aliases("{x: 1, y: 2}", "{{<<: [{}]}}", ""), "line 6, .*more than 5,000 keys and values"),
    "values": ("name: x\nloop: [" + "1, " * 100_000 + "1]", "line 2, .*more than 5,000 keys and values"),
    "lists": ("name: " + "[" * 5000, "line 1, column 56: .*at most 50 levels"),
    "mappings": ("name: " + "{a: " * 5000, "at most 50 levels"),
    "blocks": ("\n".join(" " * i + f"k{i}:" for i in range(600)), "line 50, .*at most 50 levels"),
    "levels of aliases": (
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 900))]),
        "at most 50 levels",
    ),
    "itself": ("name: &a [*a]", r"the alias \*a stands within"),
    "a long text": ("name: " + "x" * 600_000, "more than 500,000 characters"),
    "a long comment": ("# " + "x\n# " * 1_000_000, "more than 2,000,000 bytes"),
    "base 60": ("seed: 1" + ":1" * 200_000, "a value of 400,001 characters that is no text"),
    "a control character": ("name: x\nloop: \x1b[2J", r"line 2: .*the character U\+001B"),
    "a key twice": ("name: x\nname: y", "line 2, column 1: .*'name' occurs twice"),
    "a number twice": ("name: x\nloop: {1: a, 0x1: b}", "line 2, column 14: .*'0x1' occurs twice"),
    "2,000 unknown keys": ("name: x\n" + "".join(f"key{i}: 1\n" for i in range(2000)), "problem"),
}
READERS = {
    "recipe": load_recipe,
    "experiment": lambda path: read_experiment(Path(path)),
    "rubric": lambda path: load_rubric(str(path)),
}


CASES = [(bomb, "recipe") for bomb in BOMBS]
CASES += [(bomb, reader) for bomb in ("aliases", "merge keys", "2,000 unknown keys") for reader in ("experiment", "rubric")]


@pytest.mark.parametrize(("bomb", "reader"), CASES)
def test_a_bomb_is_refused_at_once_in_every_file(bomb: str, reader: str, tmp_path: Path) -> None:
    text, message = BOMBS[bomb]
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        READERS[reader](path)
    assert time.process_time() - began < 2
    assert str(path) in str(caught.value) and len(str(caught.value)) < 20_000


def test_many_problems_are_counted_and_a_few_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BOMBS["2,000 unknown keys"][0], encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    told = str(caught.value).splitlines()
    assert "2,000 problem(s)" in told[0] and len(told) == 22 and told[-1] == "  … and 1,980 more; is it the right file?"


def test_overrides_and_fields_of_a_request_go_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x", encoding="utf-8")
    bomb = "[" + ", ".join(["&a [x, x, x, x, x, x, x, x, x]", *["*a"] * 600]) + "]"
    for text in (bomb, "[" * 5000, "1" + ":1" * 900):
        with pytest.raises(ConfigError, match=r"override 'loop.shifts=.*not valid YAML"):
            load_recipe(path, [f"loop.shifts={text}"])
        with pytest.raises(ConfigError, match=r"--extra stop=.*not valid YAML"):
            _extra(f"stop={text}")


def test_what_a_person_writes_is_read() -> None:
    lines = [f"k{i}: {{a: 1, b: [x, y]}}" for i in range(MOST_VALUES // 9)]
    assert len(parse_yaml("\n".join(lines), "here")) == len(lines)
    merged = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n", "here")
    assert merged["b"] == {"x": 1, "y": 3} and merged["c"] == [{"x": 1, "y": 2}] * 2
    assert parse_yaml('text: "' + "x" * 100_000 + '"', "here")["text"] == "x" * 100_000
