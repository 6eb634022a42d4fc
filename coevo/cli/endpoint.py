"""Options of commands that have texts written by a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coevo.cli.console import count

if TYPE_CHECKING:
    from coevo.config.access import Address


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    where = parser.add_argument_group("an endpoint in place of a model here")
    where.add_argument("--endpoint", metavar="URL", help="base of an OpenAI-compatible server: http://localhost:8000/v1")
    where.add_argument(
        "--key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="holds the key; default OPENAI_API_KEY"
    )
    where.add_argument("--no-key", action="store_true", help="the endpoint asks for no key")
    where.add_argument("--concurrency", type=count, default=8, metavar="N", help="calls at once; default 8")


def address(options: argparse.Namespace, model: str, parameters: Mapping[str, Any]) -> tuple[Address, str | None]:
    """Where a model is, and the key.

    Raises:
        ConfigError: no such address, no key where one is needed, or no client library.
    """
    from coevo.config.access import Address, check_library, check_url, read_key

    url = options.endpoint.rstrip("/")
    check_library()
    check_url(url)
    return Address(url, model, parameters, options.concurrency), None if options.no_key else read_key(options.key_env)
