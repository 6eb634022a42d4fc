"""A page on this machine's own address, made anew when what it shows has changed."""

from __future__ import annotations

import hashlib
import html
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from coevo.errors import CoevoError
from coevo.escape import visible

LOOPBACK = "127.0.0.1"
IDLE = 4
"""After a page was made, so many times as long none is."""
WATCHED = ("*.jsonl", "*.json", "resolved.yaml", "evaluation/*", "pool/*", "phases/*/done.json")
"""What of a run folder the report reads. The adapters, which change often and are large, are not among it."""


class Page(Protocol):
    """Something that is shown."""

    def version(self) -> str:
        """A name of its present state: another one when it has changed."""

    def html(self, version: str) -> str:
        """The page of this state."""


class FilePage:
    """A page that lies in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def version(self) -> str:
        """Of the file's time and size."""
        return _digest([self._path])

    def html(self, version: str) -> str:
        """The file's content."""
        return self._path.read_text(encoding="utf-8")


class RunPage:
    """The report of a run folder, made without touching the folder: the run may be under way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self) -> str:
        """Of the times and sizes of the files that the report reads."""
        return _digest(sorted(path for pattern in WATCHED for path in self._folder.glob(pattern)))

    def html(self, version: str) -> str:
        """The report; pictures are drawn only where there are no charts, as who has no JavaScript does not follow a run."""
        # pydantic, numpy and matplotlib: an address that is taken is said before they are loaded
        from coevo.report.charts import library
        from coevo.report.html import render
        from coevo.report.plots import draw
        from coevo.report.read import read_run

        run = read_run(self._folder)
        return render(run, {} if library() else draw(run), live=version)


class Server(ThreadingHTTPServer):
    """Shows one page on the loopback address."""

    daemon_threads = True

    def __init__(self, port: int, page: Page) -> None:
        """Listens.

        Raises:
            OSError: the port is taken or forbidden.
        """
        super().__init__((LOOPBACK, port), _Handler)
        self._page = page
        self._version, self._content = "", b""
        self._again = 0.0
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may call this server: a page elsewhere whose name leads here is not to read it."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def made(self) -> tuple[str, bytes]:
        """The latest page and the state that it shows; what is wrong with the folder if none could be made yet."""
        with self._lock:
            version = self._page.version()
            begun = time.monotonic()
            if version != self._version and begun >= self._again:
                try:
                    self._content = self._page.html(version).encode("utf-8", "replace")
                    self._version = version
                except (CoevoError, OSError) as error:
                    # a file may be half written just now: the next look finds it whole
                    if not self._version:
                        self._content = _trouble(error)
                now = time.monotonic()
                # a run that trains changes all the time, and needs the machine more than its page does
                self._again = now + IDLE * (now - begun)
            return self._version, self._content


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """The page at `/`, the name of its state at `/version`."""
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(403, "this server answers to its own address alone")
        elif self.path == "/":
            self._answer(self.server.made()[1], "text/html; charset=utf-8")
        elif self.path == "/version":
            self._answer(self.server.made()[0].encode(), "text/plain; charset=utf-8")
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the command's."""

    def _answer(self, content: bytes, kind: str) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            # the reader has gone
            self.close_connection = True


def _digest(paths: list[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.update(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\0".encode(errors="surrogateescape"))
    return found.hexdigest()[:16]


def _trouble(error: Exception) -> bytes:
    """A page that says what is wrong, and looks again."""
    text = html.escape(visible(str(error)))
    return (
        '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>coevo view</title>'
        f'<p style="font: 16px system-ui; white-space: pre-wrap">{text}</p>'
    ).encode()
