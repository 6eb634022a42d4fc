"""`coevo judge` in a process of its own: without torch, killed and interrupted, and against `transformers serve`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import cycle, islice

import pytest

from coevo.data import world, write_rpgbench
from tests.helpers.judge_server import ALL, JudgeServer, every_third
from tests.integration.conftest import ROOT, environment

AT_ONCE = 4
RUBRIC = """name: tiny
about: A rubric that a small model has room for.
source: this test
scale: {least: 1, most: 9}
dimensions:
  - {name: wit, asks: Is it witty.}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty scenarios, a response to each, and a rubric."""
    folder = tmp_path_factory.mktemp("data")
    scenarios = list(world.generate("IDTest", 30, seed=0))
    write_rpgbench(folder / "world.json", scenarios)
    rows = [{"sample_ID": x.sample_id, "response": x.reference, "model": "mine"} for x in scenarios]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    (folder / "tiny.yaml").write_text(RUBRIC)
    return folder, scenarios


def process(*arguments, script="from coevo.cli import main\nimport sys\nsys.exit(main(sys.argv[1:]))"):
    # what a test environment adds to the path stays
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = environment(OPENAI_API_KEY="sk-test", NO_PROXY="127.0.0.1", PYTHONPATH=path)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a shell's background job ignores interrupts, and so would its children
    return subprocess.Popen(command, **pipes, text=True, env=env, cwd=ROOT, preexec_fn=_heed_interrupts)


def _heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(*arguments, **options):
    started = process(*arguments, **options)
    out, err = started.communicate(timeout=300)
    assert started.returncode == 0, out[-2000:] + err[-2000:]
    return out


def asked(data, server, out):
    folder = data[0]
    words = ["judge", "--data", folder / "world.json", "--responses", folder / "mine.jsonl", "--rubric", "pingpong"]
    return [*words, "--endpoint", server.url, "--model", "m", "--out", out, "--concurrency", AT_ONCE]


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_an_endpoint_is_asked_without_torch(data, tmp_path):
    script = (
        "import sys\nfrom coevo.cli import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'trl', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    with JudgeServer() as server:
        assert "Everything was judged." in finish(*asked(data, server, tmp_path / "out"), script=script)
    assert len(server.sound) == 30


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_what_is_stopped_goes_on_and_pays_for_nothing_twice(data, tmp_path, how):
    out, journal = tmp_path / "out", tmp_path / "out" / "cache" / "answers.jsonl"
    with JudgeServer(delay_s=0.2) as server:
        running = process(*asked(data, server, out))
        deadline = time.monotonic() + 300
        while len(lines(journal)) < 6:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.01)
        running.send_signal(how)
        _, err = running.communicate(timeout=300)
        assert "Traceback" not in err and not (out / "summary.json").exists()
        time.sleep(0.5)  # what a killed client left with the server
        paid, kept = sum(server.sound.values()), len(lines(journal))
        assert 6 <= kept < 30
        if how == signal.SIGINT:
            # the answers under way were waited for
            assert running.returncode == 130 and "The same call goes on where it was" in err and kept == paid
        else:
            # nothing can save an answer that comes in after a kill
            assert paid - AT_ONCE <= kept <= paid
        finish(*asked(data, server, out))
        again = sum(n - 1 for n in server.sound.values())
        assert len(server.sound) == 30 and again == paid - kept
    assert json.loads((out / "summary.json").read_text())["unjudged"] == {"mine": {}}
    with JudgeServer() as server:
        finish(*asked(data, server, tmp_path / "straight"))
    assert lines(out / "scores.jsonl") == lines(tmp_path / "straight" / "scores.jsonl")


def test_three_calls_of_ten_fail_in_every_way_and_the_scores_are_those_of_a_sound_server(data, tmp_path):
    with JudgeServer() as server:
        finish(*asked(data, server, tmp_path / "straight"))
    with JudgeServer(every_third()) as server:
        patience = ["--attempts", 8, "--retries", 8, "--timeout", 15]
        finish(*asked(data, server, tmp_path / "out"), *patience)
    scored = [
        [json.loads(line)["scores"] for line in lines(tmp_path / name / "scores.jsonl")] for name in ("out", "straight")
    ]
    assert scored[0] == scored[1] and len(server.sound) == 30 and set(server.sound.values()) == {1}
    assert set(server.faults) == set(ALL) and sum(server.faults.values()) == pytest.approx(0.3 * len(server.calls), abs=1.5)
    [call] = [json.loads(line) for line in lines(tmp_path / "out" / "calls.jsonl")]
    assert call["faults"]["timeout"] == server.faults["hang"] == 1


# --- a real server and a local model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_judge(data, tmp_path_factory):
    """The built-in base, taught to answer three questions with a score of 7."""
    import torch

    from coevo.config.rubric import load_rubric
    from coevo.lm import encode_prompt, load_base, load_tokenizer, render, save_base
    from coevo.lm.small import END
    from coevo.prompts import judge_messages

    folder, scenarios = data
    builtin = ROOT / "coevo" / "lm" / "builtin"
    tokenizer, model = load_tokenizer(builtin), load_base(builtin, dtype="float32").train()
    rubric = load_rubric(str(folder / "tiny.yaml"))
    samples = []
    for x in scenarios[:3]:
        prompt = encode_prompt(tokenizer, render(tokenizer, judge_messages(rubric, x, [x.reference])))
        answer = encode_prompt(tokenizer, f'{{"scores": {{"wit": 7}}}}{END}')
        samples.append((torch.tensor([prompt + answer]), len(prompt)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def loss_of(ids, begin):
        return torch.nn.functional.cross_entropy(model(ids).logits[0, begin - 1 : -1], ids[0, begin:])

    for ids, begin in islice(cycle(samples), 150):
        loss = loss_of(ids, begin)
        if loss < 0.01:
            with torch.no_grad():
                if max(loss_of(*sample) for sample in samples) < 0.01:
                    break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    else:
        pytest.fail("the small judge has not learnt its answer")
    path = tmp_path_factory.mktemp("judge") / "model"
    save_base(path, model, tokenizer)
    return path


def scores(out):
    rows = [json.loads(line) for line in lines(out / "scores.jsonl")]
    return {row["sample_id"]: row["scores"].get("wit", row["status"]) for row in rows}


def test_transformers_serve_and_the_same_model_loaded_here_give_the_same_scores(data, small_judge, tmp_path):
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name, reason="transformers serve needs it; coevo[dev] has it")
    folder, scenarios = data
    words = [
        "judge",
        "--data",
        folder / "world.json",
        "--responses",
        folder / "three.jsonl",
        "--rubric",
        folder / "tiny.yaml",
    ]
    words += ["--max-tokens", 40]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # without the command's own look for updates
    script = "import sys\nfrom transformers.cli.transformers import app\nsys.exit(app())"
    log = (tmp_path / "serve.log").open("w")
    arguments = ["serve", small_judge, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", script, *map(str, arguments)]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(PYTHONPATH=path))
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "serve.log")
        endpoint = ["--endpoint", f"http://127.0.0.1:{port}/v1", "--model", small_judge, "--no-key", "--concurrency", 1]
        finish(*words, *endpoint, "--out", tmp_path / "served")
    finally:
        server.terminate()
        server.wait(30)
    finish(*words, "--local", small_judge, "--out", tmp_path / "local")
    ids = [x.sample_id for x in scenarios]
    expected = dict.fromkeys(ids[:3], 7) | dict.fromkeys(ids[3:], "missing")
    assert scores(tmp_path / "served") == scores(tmp_path / "local") == expected
    paid = [json.loads((tmp_path / name / "summary.json").read_text())["answers"] for name in ("served", "local")]
    assert paid[0]["n"] == paid[1]["n"] == 3 and paid[0]["prompt_tokens"] == paid[1]["prompt_tokens"] > 300


def test_a_local_judge_without_room_says_so(data, tmp_path):
    folder, _ = data
    started = process(
        *("judge", "--data", folder / "world.json", "--responses", folder / "three.jsonl", "--rubric", "charactereval"),
        *("--local", ROOT / "coevo" / "lm" / "builtin", "--out", tmp_path / "out"),
    )
    _, err = started.communicate(timeout=300)
    assert started.returncode == 2 and "Nothing could be judged (too_long 3, missing 27)" in err, err
    row = json.loads(lines(tmp_path / "out" / "scores.jsonl")[0])
    assert row["status"] == "too_long" and "exceed the model's 1024" in row["reason"]


def _wait_for(url, server, log):
    deadline = time.monotonic() + 480
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])
