"""`coevo serve`: a run's model, or any chat model, as an OpenAI-compatible endpoint of this machine."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coevo.cli.console import Commands, command, say, warn, whole
from coevo.cli.listening import answer, refuse_taken_port
from coevo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from coevo.cli.asked import Asked
    from coevo.loop.context import Policies

HOST = "127.0.0.1"
NEEDED = ("fastapi", "uvicorn", "openai")
SERVE_EXAMPLES = """examples:
  coevo serve runs/mine
  coevo serve exported/mine --port 8001             # of coevo export --merge
  coevo serve Qwen/Qwen3-4B --name qwen
  coevo serve exported/mine --engine vllm           # where vLLM is installed

It answers at http://127.0.0.1:8000/v1/chat/completions, streamed or not, one request after another, until Ctrl-C; a second
Ctrl-C ends in the middle of an answer. What is printed at its start shows how the model is asked: the system message is made
of persona and character, and a request without one gets no character. temperature 0 is greedy and gives what coevo chat
gives; without a temperature it is 1. Only this machine can reach it, and there is no key. From another one:
ssh -L 8000:127.0.0.1:8000 HOST
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    serve = command(commands, "serve", "answer chat requests as an OpenAI-compatible server", SERVE_EXAMPLES)
    serve.add_argument("model", metavar="RUN|PATH", help="a run's model, or a chat model's folder or hub id")
    serve.add_argument("--port", type=whole, default=8000, metavar="N", help="default 8000")
    serve.add_argument("--name", metavar="NAME", help="what requests call the model; default the last part of RUN|PATH")
    serve.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="default transformers, on CPUs and GPUs"
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    refuse_taken_port(HOST, options.port)
    if options.engine == "vllm":
        return _by_vllm(options)
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(
            f"coevo serve needs {' and '.join(lacking)}; install with: pip install -e '.[serve,judge]' in the checkout"
        )
    _refuse_adapter(Path(options.model))
    policies, phase, asked = _opened(options.model)
    name = options.name or _name(options.model)
    say(f"loading {options.model}; once it answers, requests find it at http://{HOST}:{options.port}/v1")

    import uvicorn
    from transformers.utils import logging

    from coevo.talk.served import Served, application, ending_in, set_defaults

    logging.set_verbosity_error()
    model, tokenizer = policies.load(phase, trainable=False), policies.tokenizer
    ending_in(tokenizer, asked.opening)
    set_defaults(model, tokenizer)
    app = application(Served(name, model, tokenizer, asked.arguments))
    _explain(f"http://{HOST}:{options.port}/v1", name, asked)
    answer(uvicorn.Server(uvicorn.Config(app, host=HOST, port=options.port, log_level="warning")))
    return 0


def _opened(given: str) -> tuple[Policies, str | None, Asked]:
    """The models of a run or a chat model, the phase that wrote the one to be served, and how it is asked.

    Raises:
        CheckpointError: it is neither, or its model is not finished or not whole.
        ConfigError: its prompt_format.json is none.
    """
    # a misspelt folder is no hub id
    from coevo.plan.zero_shot import is_model, zero_shot_recipe

    path = Path(given)
    if not is_model(path) and not (path / "resolved.yaml").is_file():
        raise CheckpointError(
            f"{given}: no run and no model is there; expected the folder of a run of coevo train (it holds resolved.yaml), "
            "that of a chat model (config.json), or a hub id such as Qwen/Qwen3-4B."
        )
    from coevo.cli.asked import Asked
    from coevo.diagnosis.generate import trained
    from coevo.export.asking import FORMAT_FILE, Asking
    from coevo.loop.context import Policies
    from coevo.runs.folder import RunFolder

    if not is_model(path):
        policies, phase = trained(path)
        return policies, phase, Asked.of(Asking.of(policies))
    policies = Policies(zero_shot_recipe(path), RunFolder(path), [])
    told = path / FORMAT_FILE
    # opened here, so that a folder without a tokenizer is refused before anything is loaded
    policies.use_tokenizer(policies.base)
    return policies, None, Asked.read(told) if told.is_file() else Asked.of(Asking.of(policies))


def _by_vllm(options: argparse.Namespace) -> int:
    """Becomes `vllm serve`: Ctrl-C and SIGTERM are vLLM's own, and no process is left behind.

    Raises:
        ConfigError: vLLM is not here, or the model is not in a folder that it reads.
    """
    program, path = shutil.which("vllm"), Path(options.model)
    if program is None:
        raise ConfigError("--engine vllm: there is no command vllm; install vLLM (pip install vllm), or leave --engine out.")
    if (path / "resolved.yaml").is_file():
        raise ConfigError(
            f"{path}: --engine vllm reads full weights, no run; first: coevo export {path} --to DIR --merge, then serve DIR."
        )
    _refuse_adapter(path)
    _, _, asked = _opened(options.model)
    name = options.name or _name(options.model)
    if asked.opening:
        raise ConfigError(f"{path}: its prompts end in {asked.opening!r}, which vLLM cannot add; leave --engine vllm out.")
    words = [program, "serve", options.model, "--host", HOST, "--port", str(options.port), "--served-model-name", name]
    # vLLM lets pages of every origin read its answers, unless it is told otherwise
    words += ["--allowed-origins", "[]", "--generation-config", "vllm"]
    if asked.arguments:
        words += ["--default-chat-template-kwargs", json.dumps(dict(asked.arguments))]
    _explain(f"http://{HOST}:{options.port}/v1", name, asked)
    os.execv(program, words)


def _refuse_adapter(path: Path) -> None:
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise CheckpointError(
            f"{path}: holds a LoRA adapter without its base; give the run itself, or full weights: coevo export RUN "
            "--to DIR --merge."
        )


def _name(given: str) -> str:
    return Path(given).name if Path(given).name not in ("", "..") else Path(given).resolve().name


def _explain(url: str, name: str, asked: Asked) -> None:
    """Says how the model is asked, as two examples that can be pasted."""
    messages = asked.messages("Joe, a nurse.", "Ada Lovelace, a mathematician.", "Who are you?")
    body: dict[str, Any] = {"model": name, "messages": messages, "temperature": 0.8, "max_tokens": 256}
    sent = json.dumps(body, ensure_ascii=False)
    say(f"{url} answers as {name}; Ctrl-C ends. The messages of Joe, a nurse, who talks to Ada Lovelace:\n")
    say(f"curl -s {url}/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(sent)}\n")
    say(f'from openai import OpenAI\n\nclient = OpenAI(base_url="{url}", api_key="none")')
    say(f"messages = {messages!r}")
    say(f"reply = client.chat.completions.create(model={name!r}, messages=messages, temperature=0.8, max_tokens=256)")
    say("print(reply.choices[0].message.content)\n")
    if asked.marks:
        say(f"It thinks first: what the user is to see follows {asked.marks[1]}.")
    if asked.differs:
        warn(f"coevo: requests do not give the very prompt that the model was taught to read: {asked.differs}.")
