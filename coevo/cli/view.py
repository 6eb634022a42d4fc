"""`coevo view`: the report of a folder in a browser; that of a run follows it while it trains."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coevo.cli.console import Commands, command, path, say, whole
from coevo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from coevo.report.serve import Page

VIEW_EXAMPLES = """examples:
  coevo view runs/quickstart
  coevo view runs/quickstart --port 8900

The page of a run is made anew when the run has moved on, and loads itself again; nothing in the folder is touched.
Only this machine can reach it. From another one: ssh -L 8700:127.0.0.1:8700 HOST
"""
PAGES = ("report/report.html", "report.html")
"""Where an experiment and a diagnosis have their page."""


def add(commands: Commands) -> None:
    """Adds the command."""
    view = command(
        commands, "view", "show the report of a folder in a browser, and follow a run while it trains", VIEW_EXAMPLES
    )
    view.add_argument("folder", type=path, metavar="DIR")
    view.add_argument("--port", type=whole, default=8700, metavar="N", help="default 8700; 0 takes any that is free")
    view.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    if not 0 <= options.port < 65536:
        raise ConfigError(f"--port {options.port}: expected 0 to 65535.")
    source = _source(options.folder)
    from coevo.report.serve import Server

    try:
        server = Server(options.port, source)
    except OSError as error:
        raise ConfigError(f"--port {options.port}: cannot listen there ({error.strerror}); choose another.") from None
    with server:
        say(f"{server.address}; Ctrl-C ends.")
        server.serve_forever()
    return 0


def _source(folder: Path) -> Page:
    """What makes the page of a folder.

    Raises:
        CheckpointError: nothing in it has one.
    """
    from coevo.report.serve import FilePage, RunPage

    if (folder / "resolved.yaml").is_file():
        return RunPage(folder)
    for name in PAGES:
        if (folder / name).is_file():
            return FilePage(folder / name)
    raise CheckpointError(
        f"{folder} holds no run and no page: expected resolved.yaml or report.html. Give the folder that coevo train --out "
        "named, or that of coevo experiment or score."
    )
