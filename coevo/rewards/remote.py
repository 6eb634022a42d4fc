"""A reward that another process gives: the client of `coevo reward --serve`. Without torch, standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coevo.errors import EndpointError, ScoreError
from coevo.rewards.completions import KEY, keys_of, statuses_of, texts_of

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
        """Takes the server's address, and the trained model's tokens that end a completion, as `REMIDReward`."""
        if not url.startswith(("http://", "https://")):
            raise ScoreError(f"RemoteReward: {url!r} is no address; expected one such as http://127.0.0.1:8600")
        self._url = url.rstrip("/")
        self._end_ids = frozenset(end_ids)
        self._timeout_s = timeout_s
        self.parts: list[Mapping[str, float]] = []
        """The unweighted parts of each reward of the last call."""

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        """As `REMIDReward`.

        Raises:
            EndpointError: the server is not there, or says why it cannot answer.
        """
        texts = texts_of(completions)
        keys, statuses = keys_of(columns, len(texts)), statuses_of(texts, completion_ids, self._end_ids)
        rewards: list[float | None] = []
        self.parts = []
        for start in range(0, len(texts), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            rewards += self._asked(list(keys[some]), texts[some], statuses[some])
        return rewards

    def _asked(self, keys: list[str], texts: list[str], statuses: Sequence[str]) -> list[float | None]:
        found = self._post("/reward", {KEY: keys, "completions": texts, "statuses": statuses})
        if len(found.get("rewards", ())) != len(texts) or len(found.get("parts", ())) != len(texts):
            raise EndpointError(f"{self._url}: expected {len(texts)} rewards with their parts; it gave others.")
        self.parts += found["parts"]
        return found["rewards"]  # type: ignore[no-any-return]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            raise EndpointError(f"{self._url}: {_detail(error)}") from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise EndpointError(f"{self._url}: no reward came ({reason}); is coevo reward --serve running there?") from None


def _detail(error: urllib.error.HTTPError) -> str:
    """What the server said of a request that it refused."""
    try:
        detail = json.loads(error.read(65536)).get("detail")
    except (ValueError, AttributeError):
        detail = None
    return detail if isinstance(detail, str) else f"HTTP {error.code} {error.reason}"
