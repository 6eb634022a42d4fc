"""What commands that answer over HTTP need: a port that is free, and an end by Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from coevo.cli.console import warn
from coevo.cli.train import EXIT_INTERRUPTED
from coevo.errors import ConfigError


def answer(server: Any) -> None:
    """Answers until Ctrl-C, and then what has been asked; a second Ctrl-C ends the process in the middle of that.

    Args:
        server: a `uvicorn.Server`.

    Raises:
        KeyboardInterrupt: by the first Ctrl-C, at the end.
    """
    first, seen = server.handle_exit, []

    def asked(number: int, frame: Any) -> None:
        if number == signal.SIGINT and server.should_exit:
            warn("\ncoevo: interrupted; what was being computed is lost.")
            # the thread that computes cannot be stopped, and Python would wait for it
            os._exit(EXIT_INTERRUPTED)
        seen.append(number)
        first(number, frame)

    server.handle_exit = asked
    server.run()
    # uvicorn sends itself the signal again at its end, which asyncio may by then no longer hear
    if signal.SIGINT in seen:
        raise KeyboardInterrupt


def refuse_taken_port(host: str, port: int) -> None:
    """Looks before a model is loaded.

    Raises:
        ConfigError: nothing can listen there.
    """
    if not 0 < port < 65536:
        raise ConfigError(f"--port {port}: expected 1 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except (OSError, UnicodeError) as error:
        # of a name that no name server could be asked about, such as "..", only the encoding says so
        why = error.strerror if isinstance(error, OSError) else "no host's name"
        raise ConfigError(f"--host {host} --port {port}: cannot listen there ({why}); choose another.") from None
