"""Files of responses: whole or not there, nothing asked twice, and the same from an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coevo import cli
from coevo.config.access import Address
from coevo.data import world, write_rpgbench
from coevo.data.responses import read_answers
from coevo.diagnosis.answers import Kept, Remote, write_answers
from coevo.errors import ConfigError, EndpointError
from coevo.prompts import named
from coevo.types import Response, Scenario
from tests.helpers.judge_server import JudgeServer

XS = world.generate("IDTest", 6, seed=0)


class Parrot:
    """Says the query, and is interrupted after so many."""

    name = "parrot"

    def __init__(self, most: int = 99, version: str = "1") -> None:
        self.identity: Mapping[str, Any] = {"version": version}
        self.most, self.asked = most, []

    def write(self, scenarios: Mapping[int, Scenario], keep: Kept) -> None:
        for place, x in scenarios.items():
            if len(self.asked) == self.most:
                raise KeyboardInterrupt
            self.asked.append(place)
            status = ("ok", "truncated", "empty")[place % 3]
            keep({place: Response(x.sample_id, "" if status == "empty" else x.query, self.name, status)})


def test_an_interrupted_file_goes_on_and_is_what_score_reads(tmp_path: Path) -> None:
    out, data = tmp_path / "new" / "a.jsonl", tmp_path / "world.json"
    write_rpgbench(data, XS)
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write_answers(Parrot(most=4), XS, out, {})
    assert not out.exists()
    again = Parrot()
    assert write_answers(again, XS, out, {"temperature": 0.0}, done.append) == {"ok": 2, "truncated": 2, "empty": 2}
    assert again.asked == [4, 5] and done == [4, 1, 1] and [file.name for file in out.parent.iterdir()] == ["a.jsonl"]
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["settings"] for row in rows] == [{"temperature": 0.0}] * 6
    found = read_answers(data, [out]).by_model["parrot"]
    assert [(r.sample_id, r.text, r.status) for r in found] == [
        (x.sample_id, "" if place % 3 == 2 else x.query, ("ok", "truncated", "empty")[place % 3])
        for place, x in enumerate(XS)
    ]
    with pytest.raises(ConfigError, match="exists; expected a new file"):
        write_answers(Parrot(), XS, out, {})
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written there"):
        write_answers(Parrot(), XS, tmp_path / "file" / "a.jsonl", {})


def test_another_model_or_another_scenario_is_asked_anew(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_answers(Parrot(most=5), XS, out, {})
    with pytest.raises(KeyboardInterrupt):
        write_answers(other := Parrot(most=5, version="2"), XS, out, {})
    assert other.asked == [0, 1, 2, 3, 4]
    changed = [replace(XS[0], persona="another"), *XS[1:]]
    write_answers(last := Parrot(), changed, out, {})
    assert last.asked == [0, 5]


class Server(JudgeServer):
    """Thinks, and says which model it is."""

    def content(self, question: str, kind: str) -> str:
        return "" if kind == "empty" else f"<think>\nWho is asking?\n</think>\nI read {len(question)} characters."


def remote(server: JudgeServer, retries: int = 2) -> Remote:
    return Remote(Address(server.url, "org/model", {"temperature": 0.0}, 2, 5.0, retries), "secret-key", named("instruct"))


def test_an_endpoint_answers_without_its_thought(tmp_path: Path) -> None:
    with Server(fault=lambda number, _: "500" if number == 1 else "empty" if number == 3 else None) as server:
        assert write_answers(remote(server), XS, tmp_path / "a.jsonl", {}) == {"ok": 5, "empty": 1}
        assert server.keys == {"Bearer secret-key"} and len(server.calls) == 7
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    asked = {len(named("instruct").messages("rpm", x)[0]["content"]) for x in XS}
    told = {row["response"] for row in rows} - {""}
    assert all(row["model"] == "model" for row in rows) and told <= {f"I read {n} characters." for n in asked}
    assert "secret-key" not in (tmp_path / "a.jsonl").read_text()


def test_what_an_endpoint_gives_up_on_is_asked_again_and_the_rest_is_kept(tmp_path: Path) -> None:
    with Server(fault=lambda number, _: "500" if number < 2 else None) as server:
        with pytest.raises(EndpointError, match="1 scenarios have no response .*the same call asks again"):
            # two failures of one question, which has no retry
            write_answers(remote(server, retries=0), XS[:1], tmp_path / "a.jsonl", {})
        with pytest.raises(EndpointError, match="have no response"):
            write_answers(remote(server, retries=0), XS, tmp_path / "a.jsonl", {})
        calls = len(server.calls)
        write_answers(remote(server), XS, tmp_path / "a.jsonl", {})
        assert len(server.calls) == calls + 1


def test_the_command_asks_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "world.json", tmp_path / "m.jsonl"
    write_rpgbench(data, [*XS, *world.generate("IDTrain", 2, seed=0)])
    with Server() as server:
        words = ["generate", "--data", data, "--model", "org/m", "--endpoint", server.url, "--no-key", "--out", out]
        assert cli.main([*map(str, words)]) == 0
    shown = capsys.readouterr().out
    assert "6 scenarios of IDTest; m" in shown and f"Next: coevo score --data {data} --responses {out}" in shown
    assert len(read_answers(data, [out]).by_model["m"]) == 6
    assert cli.main([*map(str, words)]) == 2 and "exists; expected a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--temperature", "nan"], "temperature=nan; expected 0"),
        (["--endpoint", "ftp://x"], "expected http(s)://"),
        (["--splits", "IDTset"], "has no split 'IDTset'"),
        ([], "nowhere"),
    ],
)
def test_what_cannot_be_asked(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rpgbench(tmp_path / "world.json", XS)
    assert cli.main(["generate", "--data", str(tmp_path / "world.json"), "--model", "nowhere", *words]) == 2
    assert said in capsys.readouterr().err
