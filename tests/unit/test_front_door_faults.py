"""Faults that an attacker found at the front door: rewards over HTTP, TRL's columns, generate, scorers, Inspect."""

from __future__ import annotations

import asyncio
import http.server
import importlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import coevo
from coevo import cli
from coevo.cli.listening import refuse_taken_port
from coevo.cli.reward import _in_url
from coevo.config.load import load_recipe
from coevo.data.write import write_rpgbench
from coevo.errors import CheckpointError, ConfigError, DataError, EndpointError, ScoreError
from coevo.plan.plan import plan
from coevo.rewards import remote, served
from coevo.runs.folder import RunFolder
from coevo.scoring.scorer import Ask
from coevo.types import Score
from tests.unit.test_python import PLAIN, XS, Letters, asked
from tests.unit.test_python import served as serving

ROOT = Path(__file__).resolve().parents[2]
ONE = {"completions": ["a"], "sample_id": [XS[0].sample_id]}
GOOD = {"rewards": [1.0], "parts": [{}], "statuses": ["ok"]}


class Held(Letters):
    """Letters that wait until they are let go, and know what they were asked."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def score(self, asks: list[Ask]) -> list[Score]:
        self.texts += [ask.text for ask in asks]
        self.begun.set()
        assert self.go.wait(60)
        return super().score(asks)


# --- the client of the reward server --------------------------------------------------------------------------------------


@contextmanager
def saying(content: bytes) -> Iterator[str]:
    """The address of a server that says the same to everybody, whatever it is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answer(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing of HTTP\r\n\r\n", "no reward came"),
        (b"", "no reward came"),
        (answer(b"{", length=100), "no reward came"),
        (answer(b"{}", "500 Oh", length=100), "HTTP 500 Oh"),
        (answer(b"[" * 100_000, "500 Oh"), "HTTP 500 Oh"),
        (answer(b"<html>"), "expected JSON"),
        (answer(b"[" * 100_000), "expected JSON"),
        (answer(b"\xff"), "expected JSON"),
        (answer(b"[1]"), r"expected a JSON object; \[1\] came"),
        (answer(b"{}"), "expected a list of 1 rewards; None came"),
        *[
            (answer(json.dumps(GOOD | {name: value}).encode()), message)
            for name, value, message in [
                ("rewards", [1.0, 2.0], "a list of 1 rewards"),
                ("rewards", {"0": 1.0}, "a list of 1 rewards"),
                ("rewards", ["1"], r"a finite number or null in rewards\[0\]; '1' came"),
                ("rewards", [True], r"rewards\[0\]; True came"),
                ("rewards", [math.nan], r"rewards\[0\]; nan came"),
                ("rewards", [-math.inf], r"rewards\[0\]; -inf came"),
                ("rewards", [10**400], r"rewards\[0\]"),
                ("parts", [1.0], r"an object of finite numbers in parts\[0\]; 1.0 came"),
                ("parts", [{"x": None}], r"parts\[0\]"),
                ("parts", "a", "a list of 1 parts"),
                ("statuses", [None], r"a text in statuses\[0\]; None came"),
                ("statuses", None, "a list of 1 statuses; None came"),
            ]
        ],
    ],
)
def test_an_answer_that_is_none_is_named(content: bytes, message: str) -> None:
    with saying(content) as url:
        reward = coevo.RemoteReward(url)
        with pytest.raises(EndpointError, match=message) as caught:
            reward(prompts=[""], **ONE)
        assert url in str(caught.value) and reward.last == []


@pytest.mark.parametrize(
    "url",
    ["http://", "https:///reward", "http://:80", "http://host:notaport", "http://host:99999", "http://host:0", "http://[::1",
     "http://a b", " http://host", "http://host\n", "http://höst", "http://host?x=1", "http://host#x", "http://host/?", "http://u:p@host",
     "ftp://host", "host", "", None, b"http://host"],
)  # fmt: skip
def test_what_is_no_address(url: Any) -> None:
    with pytest.raises(ScoreError, match="is no address; expected one such as http://127"):
        coevo.RemoteReward(url)


def test_an_address_may_have_a_path() -> None:
    for url in ("http://[::1]:8600", "https://host/rewards/", "HTTP://host"):
        coevo.RemoteReward(url)
    with saying(answer(json.dumps(GOOD).encode())) as url:
        assert coevo.RemoteReward(url + "/some/path/")(prompts=[""], **ONE) == [1.0]


def test_one_text_that_is_too_long_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "LONGEST", 1000)
    monkeypatch.setattr(remote, "AT_ONCE", 2)
    for weights in (None, PLAIN):
        reward = coevo.REMIDReward(Letters(), XS, weights, end_ids=[9])
        texts: list[object] = ["abc", "x" * 1001, "", XS[0].reference, "x" * 1001]
        ids = [[9], [9], [9], [9], [1]]
        here = asked(reward, texts[:4], completion_ids=ids[:4])
        with serving(reward) as url:
            there = coevo.RemoteReward(url, end_ids=[9])
            assert asked(there, texts, completion_ids=ids) == [*here, None] and here[1] is None
        assert [one.status for one in there.last] == ["ok", "too_long", "empty", "ok", "too_long"]
        assert [there.last[0], there.last[3]] == [reward.last[0], reward.last[3]]
        assert there.parts == [one.parts for one in there.last] and there.parts[1] == {} and there.parts[0]


# --- the server -----------------------------------------------------------------------------------------------------------


def post(url: str, text: str) -> socket.socket:
    """A request whose answer nobody has read yet."""
    body = json.dumps({"sample_id": [XS[0].sample_id], "completions": [text]}).encode()
    host, port = url.removeprefix("http://").split(":")
    one = socket.create_connection((host, int(port)))
    head = f"POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    one.sendall(head.encode() + body)
    return one


def test_health_answers_while_many_wait_and_who_has_gone_is_not_computed() -> None:
    scorer = Held()
    with serving(coevo.REMIDReward(scorer, XS, PLAIN)) as url:
        waiting = [post(url, "first")]
        assert scorer.begun.wait(30)
        waiting += [post(url, f"waits {n}") for n in range(50)]
        gone = [post(url, f"gone {n}") for n in range(3)]
        time.sleep(0.5)
        start = time.monotonic()
        with urllib.request.urlopen(f"{url}/health", timeout=10) as found:
            assert json.load(found)["scorer"] == "letters" and time.monotonic() - start < 5
        for one in gone:
            one.close()
        time.sleep(0.5)
        scorer.go.set()
        for one in waiting:
            assert b"200 OK" in one.recv(65536)
            one.close()
    assert "waits 49" in scorer.texts and not [text for text in scorer.texts if text.startswith("gone")]


SERVER = """
import sys, threading
from coevo import cli
from coevo.diagnosis import scorers
from tests.unit.test_python import Letters

class Slow(Letters):
    def score(self, asks):
        print("computing", flush=True)
        threading.Event().wait(120)

scorers.load_scorer = lambda path: Slow()
sys.exit(cli.main(["reward", "--serve", "--scorer", "x", "--weights", "plain", *sys.argv[1:]]))
"""


def test_ctrl_c_ends_the_server_and_a_second_one_at_once(tmp_path: Path) -> None:
    write_rpgbench(tmp_path / "data.json", XS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", SERVER, "--data", str(tmp_path / "data.json"), "--port", str(port)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for busy in (False, True):
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        # what is read below ends with the server
        limit = threading.Timer(60, server.kill)
        limit.start()
        try:
            read_until(server, f"http://127.0.0.1:{port}/reward")
            one = connected(port)
            if busy:
                with post(f"http://127.0.0.1:{port}", "abc"):
                    read_until(server, "computing")
                    server.send_signal(signal.SIGINT)
                    with pytest.raises(subprocess.TimeoutExpired):
                        server.wait(1)
                    server.send_signal(signal.SIGINT)
                    server.wait(5)
            else:
                one.close()
                server.send_signal(signal.SIGINT)
            told = server.communicate(timeout=20)[1]
            assert server.returncode == 130 and "coevo: interrupted" in told and "Traceback" not in told, told
        finally:
            limit.cancel()
            server.kill()
            server.communicate()


def read_until(server: subprocess.Popen[str], line: str) -> None:
    """Reads what it says, up to a line."""
    assert server.stdout is not None and line in (one.rstrip() for one in server.stdout)


def connected(port: int) -> socket.socket:
    """A connection, as soon as somebody listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("host", ["..", "a" * 70, "no such host"])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(ConfigError, match=r"--host .* --port 8600: cannot listen there \(.+\); choose another"):
        refuse_taken_port(host, 8600)


def test_an_address_of_version_6_is_shown_in_brackets() -> None:
    assert [_in_url(host) for host in ("::1", "127.0.0.1", "localhost")] == ["[::1]", "127.0.0.1", "localhost"]


# --- what TRL hands over --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ONE | {"completion_ids": []}, "1 completions and 0 completion_ids; expected one list each"),
        (ONE | {"completion_ids": [[1], [2]]}, "1 completions and 2 completion_ids"),
        (ONE | {"completion_ids": 3}, "completion_ids is 3; expected a list"),
        (ONE | {"completion_ids": [3]}, "one of completion_ids is 3; expected a list"),
        (ONE | {"completion_ids": [None]}, "one of completion_ids is None"),
        (ONE | {"completion_ids": ["ab"]}, "one of completion_ids is 'ab'"),
        ({"completions": "abc", "sample_id": [XS[0].sample_id] * 3}, "completions is 'abc'; expected a list of texts"),
        ({"completions": None, "sample_id": [XS[0].sample_id]}, "completions is None"),
        (ONE | {"sample_id": 3}, "sample_id is 3; expected a list of the scenarios' names"),
        ({"completions": ["x"] * 3, "sample_id": "abc"}, "sample_id is 'abc'; expected a list"),
    ],
)
def test_columns_that_are_no_lists(call: dict[str, Any], message: str) -> None:
    for reward in (coevo.REMIDReward(Letters(), XS, PLAIN, end_ids=[9]), coevo.RemoteReward("http://x", end_ids=[9])):
        with pytest.raises(ScoreError, match=message):
            reward(prompts=[""], **call)


# --- generate -------------------------------------------------------------------------------------------------------------


def silent(*_: object, **__: object) -> Any:
    raise AssertionError("a model was loaded")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        *[({"temperature": t}, "generate: temperature=") for t in (math.nan, math.inf, -1, 1e-300, 1e300, True, "1", None)],
        *[({"max_new_tokens": n}, "generate: max_new_tokens=") for n in (0, -1, True, 2.0, math.nan, "8", None)],
        *[({"seed": seed}, "generate: seed=") for seed in (True, 1.5, "0", None)],
        ({"name": 3}, "generate: name=3"),
        *[({"model": model}, "generate: model=") for model in (3, None, "", "a\0b")],
    ],
)
def test_settings_are_refused_before_a_model_is_loaded(
    keys: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("coevo.diagnosis.generate")
    monkeypatch.setattr(module, "Policies", silent)
    with pytest.raises(ConfigError, match=message):
        coevo.generate(**{"model": "some/model", "scenarios": XS, **keys})


@pytest.mark.parametrize(
    ("scenarios", "message"),
    [
        ([XS[0], replace(XS[1], dialogue=())], XS[1].sample_id),
        ([replace(XS[0], dialogue=(*XS[0].dialogue, coevo.Turn("agent", "Yes.")))], XS[0].sample_id),
        ([*XS[:2], XS[0]], XS[0].sample_id),
    ],
)
def test_scenarios_that_cannot_be_answered_are_named(
    scenarios: list[coevo.Scenario], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("coevo.diagnosis.generate"), "Policies", silent)
    with pytest.raises(DataError, match=message):
        coevo.generate("some/model", scenarios)


def test_a_model_that_is_here_has_its_folders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("coevo.diagnosis.generate")

    class Nothing:
        tokenizer = prompts = None
        recipe = types.SimpleNamespace(evaluation=types.SimpleNamespace(repetition_penalty=1.0))
        load = prompt = staticmethod(lambda *_, **__: None)

        def __init__(self, *_: object) -> None:
            pass

    written = [types.SimpleNamespace(text="a", status="ok")]
    fakes = {
        "Policies": Nothing,
        "probe": lambda *_: None,
        "encode_prompt": lambda *_: [],
        "generated": lambda *_, **__: written,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(module, name, fake)
    below = tmp_path / "mine" / "below"
    below.mkdir(parents=True)
    for folder in (below.parent, below):
        (folder / "config.json").write_text("{}")
    monkeypatch.chdir(below.parent)
    named = {".": "mine", "below": "below", "below/..": "mine", "some/model": "model"}
    assert {path: coevo.generate(path, XS[:1])[0].model for path in named} == named
    assert coevo.generate(".", XS[:1], name="other")[0].model == "other"


# --- scorers of damaged runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """A run whose scorer says that it has finished, and the file that says so."""
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml")
    folder = RunFolder.create(tmp_path / "run", recipe)
    done = folder.phase(next(phase.name for phase in plan(recipe) if phase.name.endswith("sft-scorer"))) / "done.json"
    done.parent.mkdir(parents=True)
    return tmp_path / "run", done


@pytest.mark.parametrize(
    "content",
    [
        "[]", "null", "3", "{}", "{", '"facts manifest"', "[" * 100_000, '{"facts": ' + "[" * 100_000,
        '{"facts": {}, "manifest": null}', '{"facts": {}, "manifest": []}', '{"facts": {}, "manifest": {"a": 3}}',
        '{"facts": null, "manifest": {}}', '{"facts": [], "manifest": {}}',
    ],
)  # fmt: skip
def test_a_mark_that_is_damaged_is_named(content: str, run: tuple[Path, Path]) -> None:
    root, done = run
    done.write_text(content)
    with pytest.raises(CheckpointError, match=r"done\.json: damaged; expected what phase"):
        coevo.load_scorer(root)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"data": []}', '{"data": 3}'])
def test_what_a_run_was_begun_with_is_read_or_refused(content: str, run: tuple[Path, Path]) -> None:
    root, _ = run
    (root / "environment.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"environment\.json: damaged"):
        coevo.load_scorer(root)


def test_a_lineage_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    from coevo.lm.lineage import read_lineage

    (tmp_path / "lineage.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"lineage\.json: not valid JSON"):
        read_lineage(tmp_path)


# --- Inspect --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def inspect_adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter; on a machine without Inspect with as much of it as the adapter uses."""
    faked = importlib.util.find_spec("inspect_ai") is None
    if faked:
        names: dict[str, Any] = dict.fromkeys(("Scorer", "Target", "TaskState"), object)
        names |= {"scorer": lambda **_: lambda made: made, "mean": lambda: None, "stderr": lambda: None}
        for module in ("inspect_ai", "inspect_ai.scorer", "inspect_ai.solver"):
            fake = types.ModuleType(module)
            fake.__dict__.update(names, Score=types.SimpleNamespace)
            monkeypatch.setitem(sys.modules, module, fake)
    yield importlib.import_module("coevo.adapters.inspect")
    if faked:
        del sys.modules["coevo.adapters.inspect"], coevo.adapters.inspect  # type: ignore[attr-defined]


def test_inspect_loads_once_and_off_the_event_loop(inspect_adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(name: str) -> Letters:
        loads.append(threading.current_thread().name)
        time.sleep(0.5)
        return Letters()

    monkeypatch.setattr(inspect_adapter, "load_scorer", load)
    monkeypatch.setattr(inspect_adapter, "load_scenarios", lambda path: XS)
    score = inspect_adapter.r_emi(scorer="loaded once", data="xs")
    said = types.SimpleNamespace(completion=XS[0].reference, choices=[])
    state = types.SimpleNamespace(output=said, sample_id=XS[0].sample_id)

    async def many() -> tuple[list[Any], int]:
        ticks = 0
        scoring = asyncio.gather(*(score(state, None) for _ in range(8)))
        while not scoring.done():
            await asyncio.sleep(0.02)
            ticks += 1
        return await scoring, ticks

    found, ticks = asyncio.run(many())
    assert len(loads) == 1 and loads != [threading.main_thread().name] and ticks >= 10
    assert [one.value for one in found] == pytest.approx([0.0] * 8)


def test_the_command_line_says_which_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reward", "--serve", "--scorer", "x", "--data", "y", "--host", ".."]) == 2
    assert "--host .. --port 8600: cannot listen there" in capsys.readouterr().err
