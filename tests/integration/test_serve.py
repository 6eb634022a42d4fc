"""`coevo serve` in a process of its own: the run's own answers, one model behind one door, and an end without rest."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from coevo.diagnosis.generate import Responder, Sampling
from coevo.export.asking import EXAMPLE
from coevo.text import normalised
from coevo.types import Scenario, Turn
from tests.integration.conftest import ROOT, SMOKE, environment
from tests.integration.conftest import coevo as command

for needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(needed, reason="coevo serve needs it; coevo[dev] has it")

BASE = str(resources.files("coevo.lm") / "builtin")
LONGER = replace(EXAMPLE, dialogue=(*EXAMPLE.dialogue, Turn("agent", "Ada."), Turn("user", "And then?")))


@contextmanager
def serving(model: str | Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The server's address once it answers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "coevo", "serve", str(model), "--port", str(port), "--name", "mine"]
    with log.open("wb") as out:
        process = subprocess.Popen(call, stdout=out, stderr=subprocess.STDOUT, env=environment(), cwd=ROOT)
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait(30)


def asked(url: str, body: dict[str, Any], **headers: str) -> tuple[int, str]:
    """Status and content."""
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def messages(log: Path, x: Scenario) -> list[dict[str, str]]:
    """Those that the command printed, for further turns."""
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("curl ")]
    printed = json.loads(subprocess.run(["bash", "-c", f'set -- {line}; echo "${{@: -1}}"'], capture_output=True).stdout)
    told = printed["messages"]
    told[0]["content"] = told[0]["content"].replace("Ada Lovelace, a mathematician.", str(x.character))
    roles = {"user": "user", "agent": "assistant"}
    return [told[0], *({"role": roles[turn.role], "content": turn.text} for turn in x.dialogue)]


def said(url: str, told: list[Any], **settings: Any) -> str:
    status, content = asked(url, {"model": "mine", "messages": told, "max_tokens": 24, **settings})
    assert status == 200, content
    return str(json.loads(content)["choices"][0]["message"]["content"])


def test_answers_are_the_runs_own_from_a_run_and_from_its_export(tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    done = command("train", SMOKE, "method=sft", "--out", run)
    assert done.returncode == 0, done.stderr[-2000:]
    assert command("export", run, "--to", exported, "--merge").returncode == 0
    own, before = Responder(run, Sampling(24)), Responder(BASE, Sampling(24))
    own.prepare()
    before.prepare()
    expected = [own.say(x, 0).text for x in (EXAMPLE, LONGER)]
    assert expected[0] != before.say(EXAMPLE, 0).text, "training changed the answer"
    for model in (run, exported):
        with serving(model, tmp_path / "log") as (url, _):
            found = [said(url, messages(tmp_path / "log", x), temperature=0) for x in (EXAMPLE, LONGER)]
        assert [normalised(text) for text in found] == expected
    # the adapter alone has no base beside it
    refused = command("serve", run / "final")
    assert refused.returncode == 2 and "holds a LoRA adapter without its base; give the run itself" in refused.stderr


def test_one_model_behind_one_door(tmp_path: Path) -> None:
    with serving(BASE, tmp_path / "log") as (url, process):
        told = messages(tmp_path / "log", EXAMPLE)
        greedy = said(url, told, temperature=0)
        own = Responder(BASE, Sampling(24))
        own.prepare()
        assert normalised(greedy) == own.say(EXAMPLE, 0).text, "no markup of Qwen3, whose architecture it has"
        draws = [said(url, told, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
        assert greedy != draws[0] == draws[1] != draws[2], "a temperature samples, by the seed"
        parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in told]
        assert said(url, parts, temperature=0) == greedy
        from openai import OpenAI

        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        assert [model.id for model in client.models.list()] == ["mine"]
        pieces = client.chat.completions.create(
            model="mine",
            messages=told,
            temperature=0,
            max_tokens=24,
            stream=True,  # type: ignore[call-overload]
        )
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == greedy
        body = {"model": "mine", "messages": told, "max_tokens": 4}
        for wrong, why in (
            ({"model": "other"}, "pinned to 'mine'"),
            ({"messages": []}, "expected a list of messages"),
            ({"messages": [{"role": "user", "content": 5}]}, "the chat template does not take them"),
            ({"max_tokens": 5000}, "exceed the model's 1024 positions"),
            ({"temperature": -1}, "temperature: -1; expected 0, which is greedy"),
            ({"top_p": "x"}, "top_p: x; expected a number above 0"),
            ({"top_p": 7}, "top_p: 7"),
            ({"seed": "s"}, "seed: s"),
            ({"frequency_penalty": "x"}, "could not convert"),
            ({"generation_config": "{}"}, "generation_config: is not taken here"),
        ):
            status, content = asked(url, {**body, **wrong})
            assert status == 400 and why in content, (wrong, content)
        # a page elsewhere whose name leads here, and one that sends what needs no preflight
        assert asked(url, body, Host="evil.example:80")[0] == 400
        assert asked(url, body, **{"Content-Type": "text/plain"})[0] == 422
        for path in ("/reset", "/load_model", "/docs", "/openapi.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(urllib.request.Request(f"{url}{path}", b"{}"), timeout=30)
        assert "Traceback" not in (tmp_path / "log").read_text()
        port = url.rpartition(":")[2]
        taken = command("serve", BASE, "--port", port)
        assert taken.returncode == 2 and f"--port {port}: cannot listen there (Address already in use)" in taken.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and "coevo: interrupted." in (tmp_path / "log").read_text()


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_leaves_nothing(tmp_path: Path, busy: bool) -> None:
    with serving(BASE, tmp_path / "log") as (url, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert not children, "the server is this process and no other"
        if busy:
            body = json.dumps({"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 900, "temperature": 1})
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as one:
                head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                one.sendall(f"{head}{body}".encode())
                time.sleep(0.5)
        process.terminate()
        process.wait(60)
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{url}/health", timeout=5)


def test_what_cannot_be_served(tmp_path: Path) -> None:
    def refused(*words: str | Path, **extra: str) -> str:
        done = command("serve", *words, **extra)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    assert "no run and no model is there" in refused(tmp_path)
    assert "--port 0: expected 1 to 65535" in refused(BASE, "--port", "0")
    model = tmp_path / "model"
    model.mkdir()
    for file in ("config.json", "model.safetensors"):
        (model / file).write_bytes((Path(BASE) / file).read_bytes())
    assert "tokenizer" in refused(model)
    for file in Path(BASE).iterdir():
        if file.is_file():
            (model / file.name).write_bytes(file.read_bytes())
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model" in refused(model)
    weights.write_bytes((Path(BASE) / "model.safetensors").read_bytes())
    (model / "prompt_format.json").write_text('{"system": 5}')
    assert "prompt_format.json" in refused(model)
    assert "there is no command vllm; install vLLM" in refused(model, "--engine", "vllm", PATH="/usr/bin:/bin")


def test_vllm_is_called_with_the_model_and_its_name(tmp_path: Path) -> None:
    """vLLM itself is not here: what it would be called with."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "vllm $$ $@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = command("serve", BASE, "--engine", "vllm", "--name", "mine", "--port", "8765", PATH=path)
    assert done.returncode == 0, done.stderr
    called = done.stdout.splitlines()[-1]
    assert f" serve {BASE} --host 127.0.0.1 --port 8765 --served-model-name mine --allowed-origins []" in called
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "resolved.yaml").touch()
    done = command("serve", tmp_path / "run", "--engine", "vllm", PATH=path)
    assert done.returncode == 2 and "--merge, then serve DIR" in done.stderr
