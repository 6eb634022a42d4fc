"""A reward that another process gives: the client of `coevo reward --serve`. Without torch, standard library only."""

from __future__ import annotations

import http.client
import json
import reprlib
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from coevo.errors import EndpointError, ScoreError
from coevo.rewards.completions import KEY, keys_of, statuses_of, texts_of, tokens_that_end
from coevo.types import Reward

TIMEOUT_S = 600.0
AT_ONCE = 1024
"""Completions of one request."""


class RemoteReward:
    """TRL's reward function, asked of a server; its numbers are those of the `REMIDReward` behind it.

    Example:
        >>> reward = RemoteReward("http://127.0.0.1:8600", end_ids=[tokenizer.eos_token_id])    # doctest: +SKIP
        >>> trainer = GRPOTrainer(model, reward_funcs=reward, train_dataset=rows)               # doctest: +SKIP
    """

    __name__ = "remid"

    def __init__(self, url: str, *, end_ids: Collection[int] = (), timeout_s: float = TIMEOUT_S) -> None:
        """Takes the server's address, and the trained model's tokens that end a completion, as `REMIDReward`.

        Raises:
            ScoreError: `url` is no address.
        """
        if not _is_address(url):
            raise ScoreError(f"RemoteReward: {url!r} is no address; expected one such as http://127.0.0.1:8600")
        self._url = url.rstrip("/").removesuffix("/reward")
        self._end_ids = tokens_that_end("RemoteReward", end_ids)
        self._timeout_s = timeout_s
        self.last: list[Reward] = []
        """Rewards of the last call, with their parts and statuses."""

    @property
    def parts(self) -> list[Mapping[str, float]]:
        """The unweighted parts of each reward of the last call; none for what could not be scored."""
        return [reward.parts for reward in self.last]

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        """As `REMIDReward`.

        Raises:
            ScoreError: no column `sample_id`, or columns of other lengths.
            EndpointError: the server is not there, says why it cannot answer, or answers with something else than rewards.
        """
        texts = texts_of(completions)
        keys, statuses = keys_of(columns, len(texts)), statuses_of(texts, completion_ids, self._end_ids)
        rewards: list[Reward] = []
        for start in range(0, len(texts), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            rewards += self._asked(keys[some], texts[some], statuses[some])
        self.last = rewards
        return [reward.total for reward in rewards]

    def _asked(self, keys: list[str], texts: list[str], statuses: Sequence[str]) -> list[Reward]:
        answer = self._post("/reward", {KEY: keys, "completions": texts, "statuses": statuses})
        if not isinstance(answer, dict):
            raise self._strange("a JSON object", answer)
        totals = self._column(answer, "rewards", len(texts), "a finite number or null", lambda x: x is None or _is_number(x))
        parts = self._column(answer, "parts", len(texts), "an object of finite numbers", _is_numbers)
        named = self._column(answer, "statuses", len(texts), "a text", lambda x: isinstance(x, str))
        return [Reward(*one) for one in zip(totals, parts, named, strict=True)]

    def _column(self, answer: Mapping[str, Any], name: str, n: int, each: str, right: Callable[[Any], bool]) -> list[Any]:
        column = answer.get(name)
        if not isinstance(column, list) or len(column) != n:
            raise self._strange(f"a list of {n} {name}", column)
        for place, value in enumerate(column):
            if not right(value):
                raise self._strange(f"{each} in {name}[{place}]", value)
        return column

    def _strange(self, expected: str, came: Any) -> EndpointError:
        return EndpointError(
            f"{self._url}: its answer is not that of coevo reward --serve: expected {expected}; {reprlib.repr(came)} came. "
            "Check the address, and that the same version of coevo runs there."
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        content = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise EndpointError(f"{self._url}: {_detail(error)}") from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", error) or type(error).__name__
            raise EndpointError(f"{self._url}: no reward came ({reason}); is coevo reward --serve running there?") from None
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._strange("JSON", content) from None


def _is_address(url: Any) -> bool:
    """Whether it names a host that rewards can be asked of over HTTP; a path may follow, as behind a proxy."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        found = urllib.parse.urlsplit(url)
        port = found.port
    except ValueError:
        return False
    further = "?" in url or "#" in url or "@" in found.netloc
    return found.scheme in ("http", "https") and bool(found.hostname) and port != 0 and not further


def _is_number(value: Any) -> bool:
    # neither NaN nor a whole number of a thousand digits passes
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(number) for number in value.values())


def _detail(error: urllib.error.HTTPError) -> str:
    """What the server said of a request that it refused."""
    try:
        detail = json.loads(error.read(65536)).get("detail")
    except (http.client.HTTPException, OSError, ValueError, AttributeError, RecursionError):
        detail = None
    return detail if isinstance(detail, str) else f"HTTP {error.code} {error.reason}"
