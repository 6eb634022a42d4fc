"""A judge behind an OpenAI-compatible endpoint: many calls at once, each with its time limit, retries and back-off."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from coevo.config.access import Address
from coevo.errors import EndpointError
from coevo.judge.client import Unfit, client, target
from coevo.judge.session import Answer, Failure, Messages

if TYPE_CHECKING:
    from openai import APIStatusError

AGAIN = frozenset((408, 409, 425, 429))
"""Statuses below 500 that may pass."""
NEVER = frozenset((401, 402))
"""Statuses by which an endpoint refuses us, whatever the question: no valid key, no credit."""
NEVER_AT_FIRST = frozenset((403, 404, 405))
"""The same, unless it has answered before: then it refuses this question (403 is also said of a text's content)."""
DEAD_AFTER = 3
"""Questions in a row that are given up after all retries, no answer between them: the endpoint is then taken for dead."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""The first wait before a retry, and the longest one, each times a random number between a half and one."""
LONGEST_ASKED_WAIT_S = 600.0
"""A longer wait than that is not granted, though the endpoint asks for it."""
SHORTEST_SECRET = 8
"""Characters. Servers without keys are given words such as EMPTY, which are no secret and may well be said."""
_CLIPPED = 300

Take = Callable[[str, Answer | Failure], None]
Create = Callable[..., Awaitable[Any]]
"""The client's call for one completion."""


class Endpoint:
    """A judge behind an endpoint. The key is sent to it and to nobody else: no message and no file has it."""

    def __init__(self, address: Address, key: str | None) -> None:
        """Takes the address, and a key unless the endpoint asks for none."""
        self._address, self._key = address, key
        self.faults: Counter[str] = Counter()
        """Calls that failed, by kind: `timeout`, `connection`, `broken answer`, or the HTTP status."""
        self._answered = False
        self._given_up = 0
        self._dead = ""
        self._not_before = 0.0
        self._stop = asyncio.Event()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model and parameters. The address is no part of it: the same server on another port is the same judge."""
        return {"model": self._address.model, "parameters": dict(self._address.parameters)}

    def answer(self, asks: Mapping[str, Messages], take: Take) -> None:
        """Answers each question once, several at a time.

        When it is interrupted or an error ends it, no new call is begun, and those in flight, which will be paid for, are
        waited for and taken; a second interrupt does not wait.

        Raises:
            EndpointError: the endpoint is dead, or refuses us.
            ConfigError: the `openai` library is missing.
        """
        asyncio.run(self._answer(asks, take))
        if self._dead:
            raise EndpointError(self._dead)

    async def _answer(self, asks: Mapping[str, Messages], take: Take) -> None:
        self._stop = asyncio.Event()
        todo = iter(asks.items())
        async with client(self._address.url, self._key, self._address.timeout_s) as server:
            # here, since the library imports much of itself at this, which is not the endpoint's time
            create = server.chat.completions.with_raw_response.create
            width = min(self._address.concurrency, len(asks))
            workers = [asyncio.create_task(self._work(create, todo, take)) for _ in range(width)]
            try:
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                self._stop.set()
                await asyncio.wait(workers)
            for worker in workers:
                worker.result()

    async def _work(self, create: Create, todo: Iterator[tuple[str, Messages]], take: Take) -> None:
        # all workers draw from one iterator
        for key, messages in todo:
            if self._stop.is_set():
                return
            found = await self._ask(create, messages)
            if found is not None:
                take(key, found)
            self._note(found)

    def _note(self, found: Answer | Failure | None) -> None:
        if isinstance(found, Answer):
            self._answered, self._given_up = True, 0
        elif found is not None and found.status == "unavailable":
            self._given_up += 1
            if self._given_up >= DEAD_AFTER:
                self._die(f"does not answer ({found.reason}; {DEAD_AFTER} questions in a row were given up)")

    def _die(self, what: str) -> None:
        self._dead = self._dead or f"The endpoint {self._address.url} {what}."
        self._stop.set()

    async def _ask(self, create: Create, messages: Messages) -> Answer | Failure | None:
        """One question: an answer, why there is none, or None if the session stopped while it waited for its retry."""
        reason = ""
        for retry in range(self._address.retries + 1):
            if not await self._pause():
                return None
            tried = await self._try(create, messages)
            if not isinstance(tried, _Fault):
                return tried
            self.faults[tried.kind] += 1
            reason = tried.reason
            if tried.wait_s is not None:
                # the others would be refused as well
                self._not_before = max(self._not_before, time.monotonic() + min(tried.wait_s, LONGEST_ASKED_WAIT_S))
            if retry < self._address.retries:
                backoff = min(FIRST_WAIT_S * 2**retry, LONGEST_WAIT_S)
                if not await self._sleep(backoff * random.uniform(0.5, 1.0)):
                    return None
        return Failure("unavailable", f"{reason}, after {self._address.retries} retries")

    async def _try(self, create: Create, messages: Messages) -> Answer | Failure | _Fault | None:
        import openai

        address = self._address
        try:
            async with asyncio.timeout(address.timeout_s):
                reply = await create(model=address.model, messages=list(messages), extra_body=dict(address.parameters))
            return self._read(reply.text)
        except (TimeoutError, openai.APITimeoutError):
            return _Fault("timeout", f"no answer within {address.timeout_s:g} s")
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APIConnectionError as error:
            return _Fault("connection", self._hide(f"no connection ({_cause(error)})"))
        except ValidationError:
            return _Fault("broken answer", "the answer is no chat completion")
        except Unfit as error:
            return _Fault("broken answer", str(error))

    def _refused(self, error: APIStatusError) -> Failure | _Fault | None:
        status = error.status_code
        reason = f"HTTP {status}: {self._hide(' '.join(error.response.text.split()))[:_CLIPPED]}"
        if status >= 500 or status in AGAIN:
            return _Fault(str(status), reason, _retry_after(error.response.headers.get("retry-after")))
        self.faults[str(status)] += 1
        if 300 <= status < 400:
            host = self._hide(target(error.response))[:_CLIPPED]
            self._die(f"redirects to {host}, which is not followed, as the questions would go there")
            return None
        if status in NEVER or (status in NEVER_AT_FIRST and not self._answered):
            self._die(f"refuses to serve {self._address.model}: {reason}. Check the key, the model's name and the path")
            return None
        return Failure("refused", reason)

    async def _pause(self) -> bool:
        while (left := self._not_before - time.monotonic()) > 0:
            if not await self._sleep(left):
                return False
        return not self._stop.is_set()

    async def _sleep(self, seconds: float) -> bool:
        """Whether the session still goes on after so many seconds."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def _read(self, body: str) -> Answer | _Fault:
        completion = _Completion.model_validate_json(body)
        if not completion.choices:
            return _Fault("broken answer", "the answer has no choices")
        choice, usage = completion.choices[0], completion.usage or _Usage()
        # half of a surrogate pair cannot be written down
        text = (choice.message.content or "").encode("utf-8", "replace").decode("utf-8")
        return Answer(self._hide(text), choice.finish_reason or "", usage.prompt_tokens, usage.completion_tokens)

    def _hide(self, text: str) -> str:
        """A server's words without our key, which some servers repeat."""
        secret = self._key is not None and len(self._key) >= SHORTEST_SECRET
        return text.replace(self._key or "", "[key]") if secret else text


@dataclass(frozen=True, slots=True)
class _Fault:
    """A call that failed in a way that may pass."""

    kind: str
    reason: str
    wait_s: float | None = None
    """What the endpoint asks us to wait."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What is read of a chat completion; the client's own types take anything."""

    choices: list[_Choice]
    usage: _Usage | None = None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    """The innermost reason, which says more than the client's `Connection error.`"""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__)[:_CLIPPED]
