"""An OpenAI-compatible server on loopback, sound or misbehaving, that keeps account of every call.

What it answers to a question is a function of the question alone, so that a run against a server that fails in every way
can be held against one against a sound server.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRANSPORT = ("500", "429", "cut_body", "no_completion", "hang")
"""Failures before an answer: nothing is paid. A cut body has the length it says; a hang lasts until the client goes."""
CONTENT = ("cut_content", "wrong_schema", "out_of_range", "not_whole")
"""Answers that are paid for and cannot be read."""
ALL = (*CONTENT, *TRANSPORT)
"""The hang last, as each costs a test the client's patience."""
ENDLESS_BYTES = 800 * 2**20
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 20


def score_of(question: str, dimension: str, least: int = 1, most: int = 5) -> int:
    """The sound server's score: a hash of what is asked."""
    digest = hashlib.sha256(f"{dimension}\0{question}".encode()).digest()
    return least + int.from_bytes(digest[:4], "big") % (most - least + 1)


def dimensions_of(question: str) -> list[str]:
    """Names of the dimensions, as the prompt lists them."""
    return re.findall(r"^- (\w+): ", question, flags=re.M)


def replies_of(question: str) -> dict[str, str]:
    """The replies A and B of a comparison."""
    mark = re.search(r"carry the mark (\w+)", question)[1]
    parts = re.split(rf"^\[{mark} ([^\]]+)\]\n", question, flags=re.M)
    return {name.removeprefix("reply "): text.rstrip("\n") for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def longer(question: str) -> str:
    """A preference that does not depend on the order: the longer reply, or a tie."""
    replies = replies_of(question)
    a, b = len(replies["A"]), len(replies["B"])
    return "A" if a > b else "B" if b > a else "tie"


class JudgeServer:
    """Serves on a free port of 127.0.0.1 between `with` and its end.

    Attributes:
        calls: requests that came in, as (fault or "sound", the first message's text).
        sound: question -> sound answers given to it.
        most_at_once: the most calls that were in hand at one time.
        keys: Authorization headers seen.
        sent: bytes of an endless answer.
        times: time.monotonic() at which each call came in.
    """

    def __init__(
        self,
        fault: Callable[[int, str], str | None] = lambda number, question: None,
        prefer: Callable[[str], str] = longer,
        delay_s: float = 0.0,
        port: int = 0,
    ) -> None:
        """Takes what goes wrong: from the call's number (from 0) and its question to a fault or None."""
        self.fault, self.prefer, self.delay_s = fault, prefer, delay_s
        self.calls: list[tuple[str, str]] = []
        self.sound: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.most_at_once = self._at_once = 0
        self.sent = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        # a client that has gone, as in a hang, is no news
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def faults(self) -> Counter[str]:
        """Kind -> how many calls failed by it."""
        return Counter(kind for kind, _ in self.calls if kind != "sound")

    def __enter__(self) -> JudgeServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nobody listens on the port."""
        self._server.shutdown()
        self._server.server_close()

    def enter(self, question: str, key: str | None) -> str:
        """Notes a call and says what becomes of it."""
        with self.lock:
            kind = self.fault(len(self.calls), question) or "sound"
            self.calls.append((kind, question))
            self.times.append(time.monotonic())
            self.keys.add(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        return kind

    def leave(self, question: str, kind: str) -> None:
        with self.lock:
            self._at_once -= 1
            self.sound[question] += kind == "sound"

    def content(self, question: str, kind: str) -> str:
        """What the judge writes."""
        names = dimensions_of(question)
        if "Compare reply A" in question:
            verdict: dict[str, object] = {"better": dict.fromkeys(names, self.prefer(question))}
        else:
            most = int(re.search(r"\(worst\) to (\d+)", question)[1])
            verdict = {"scores": {name: score_of(question, name, 1, most) for name in names}}
        broken = {"wrong_schema": {"rating": 3}, "out_of_range": {"scores": dict.fromkeys(names, 99)}}
        broken["not_whole"] = {"scores": dict.fromkeys(names, 2.5)}
        text = json.dumps({"why": "It is a test."} | broken.get(kind, verdict))
        if kind == "echo":
            return f"<|user|>{question}<|agent|>No."
        return text[:-4] if kind == "cut_content" else f"```json\n{text}\n```"


def every_third(kinds: Sequence[str] = ALL) -> Callable[[int, str], str | None]:
    """Of ten calls in a row three fail, by each kind in turn."""

    def fault(number: int, question: str) -> str | None:
        place = {1: 0, 4: 1, 7: 2}.get(number % 10)
        return None if place is None else kinds[(number // 10 * 3 + place) % len(kinds)]

    return fault


def _handler(owner: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
            request = json.loads(body)
            question = request["messages"][0]["content"]
            kind = owner.enter(question, self.headers.get("Authorization"))
            if owner.delay_s:
                time.sleep(owner.delay_s)
            # before the client can know, so that its next call does not count beside this one
            owner.leave(question, kind)
            with suppress(BrokenPipeError, ConnectionResetError):
                self._reply(kind, question, request)

        def _reply(self, kind: str, question: str, request: dict) -> None:
            if kind == "hang":
                # until the client has gone
                self.connection.recv(1)
                self.close_connection = True
            elif kind == "endless":
                self._endless()
            elif kind == "redirect":
                self._send(307, "moved", {"Location": "http://me:secret@127.0.0.2:9/elsewhere?key=1"})
            elif kind == "gzip":
                self._send(200, gzip.compress(b"{}"), {"Content-Encoding": "gzip"})
            elif kind == "escapes":
                self._send(403, "\x1b]0;owned\x07\x1b[2J\u202egnikcatta\r", {})
            elif kind.isdecimal():
                extra = {"Retry-After": "0.05"} if kind == "429" else {}
                # some servers repeat the key in their complaint
                self._send(int(kind), json.dumps({"error": {"message": f"no: {self.headers['Authorization']}"}}), extra)
            elif kind == "no_completion":
                self._send(200, json.dumps({"object": "list", "data": []}))
            else:
                choice = {"index": 0, "message": {"role": "assistant", "content": owner.content(question, kind)}}
                usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
                body = {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"], "usage": usage}
                text = json.dumps(body | {"choices": [choice | {"finish_reason": "stop"}]})
                self._send(200, text[: len(text) // 2] if kind == "cut_body" else text)

        def _endless(self) -> None:
            """A body without a length, until the client has gone; `sent` counts its bytes."""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            while owner.sent < ENDLESS_BYTES:
                self.wfile.write(b"x" * 2**16)
                owner.sent += 2**16

        def _send(self, status: int, text: str | bytes, extra: dict[str, str] | None = None) -> None:
            body = text.encode() if isinstance(text, str) else text
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **(extra or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
