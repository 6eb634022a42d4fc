"""Whether a judge can be asked: its rubric, its address and its key, before anything else is looked at. Without torch."""

from __future__ import annotations

import os
import string
from typing import Any
from urllib.parse import urlsplit

from coevo.errors import ConfigError
from coevo.scoring.judge.client import check_library
from coevo.scoring.judge.endpoint import Address
from coevo.scoring.judge.rubric import Rubric, load_rubric
from coevo.tuning import JudgePart


def check(rubric: str, judge: Any, key_name: str | None) -> tuple[Rubric, str | None]:
    """The rubric, and the endpoint's key where there is one, without a look at data.

    Raises:
        ConfigError: rubric, endpoint or key that cannot be.
    """
    found, key = load_rubric(rubric), None
    if isinstance(judge, Address):
        check_library()
        _check_url(judge.url)
        key = read_key(key_name) if key_name else None
    return found, key


def address_of(part: JudgePart) -> Address:
    """Where the judge of a reward's part is."""
    return Address(part.endpoint, part.model, {"temperature": 0.0, "max_tokens": part.max_tokens}, part.concurrency)


def read_key(name: str) -> str:
    """The key in an environment variable.

    Raises:
        ConfigError: it is not set, or no header could carry it. The message does not show it.
    """
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"{name} is not set, and the endpoint's key is read from it; export it, name another variable with --key-env, "
            "or give --no-key for a server that asks for none."
        )
    if not set(key) <= set(string.ascii_letters + string.digits + string.punctuation):
        raise ConfigError(f"{name} holds characters that no key has (a space, a line end, no ASCII); set it anew.")
    return key


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError("--endpoint is no URL; for example: https://api.openai.com/v1") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--endpoint has a name or password in it, which would be written down; use --key-env instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not port_is_fine:
        raise ConfigError(f"--endpoint {url}: expected http(s)://HOST[:PORT]/PATH, for example https://api.openai.com/v1")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ConfigError(f"--endpoint {url}: leave out /chat/completions, which is put after it.")
