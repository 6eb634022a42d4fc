"""Whether a judge can be asked: its rubric, its address and its key, before anything else is looked at. Without torch."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from coevo.config.rubric import Rubric, load_rubric
from coevo.config.training import JudgePart
from coevo.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """Where the judge is, and how patient we are with it."""

    url: str
    """Its base, which `/chat/completions` is put after."""
    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request beside model and messages, such as `temperature` and `max_tokens`."""
    concurrency: int = 8
    timeout_s: float = 120.0
    """Of one call, from its beginning to its last byte."""
    retries: int = 6
    """Of one call, after failures that cost nothing."""


def check_library() -> None:
    """Whether the client library is there.

    Raises:
        ConfigError: it is not.
    """
    try:
        import openai  # noqa: F401
    except ImportError:
        raise ConfigError(
            "--endpoint needs the openai library; install it with: pip install -e '.[judge]' in the checkout"
        ) from None


def check(rubric: str, judge: Any, key_name: str | None) -> tuple[Rubric, str | None]:
    """The rubric, and the endpoint's key where there is one, without a look at data.

    Raises:
        ConfigError: rubric, endpoint or key that cannot be.
    """
    found, key = load_rubric(rubric), None
    if isinstance(judge, Address):
        check_library()
        check_url(judge.url)
        key = read_key(key_name) if key_name else None
    return found, key


def address_of(part: JudgePart) -> Address:
    """Where the judge of a reward's part is."""
    return Address(part.endpoint, part.model, {"temperature": 0.0, "max_tokens": part.max_tokens}, part.concurrency)


_KEYS = {
    "--endpoint": "endpoint",
    "with --key-env": "by key_env",
    "use --key-env instead": "name the key's variable by key_env",
    "give --no-key": "write key_env: null",
    "--rubric": "rubric",
    "--max-tokens": "max_tokens",
}
"""What a message of the command line speaks of -> what a recipe calls it."""


def in_a_recipe(message: str) -> str:
    """A message about options of `coevo judge`, in the words of a recipe's block `judge`."""
    for option, key in _KEYS.items():
        message = message.replace(option, key)
    return message


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


def check_url(url: str) -> None:
    """Looks whether it is an endpoint's address.

    Raises:
        ConfigError: it is not, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError("--endpoint is no URL; for example: https://api.openai.com/v1") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--endpoint has a name or password in it, which would be written down; use --key-env instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not port_is_fine:
        # what stands behind a question mark may be a key
        plain = re.split(r"[?#]", url)[0]
        raise ConfigError(
            f"--endpoint {plain}: expected http(s)://HOST[:PORT]/PATH and nothing behind it, for example https://api.openai.com/v1"
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise ConfigError(f"--endpoint {url}: leave out /chat/completions, which is put after it.")
