"""The client of an endpoint, which sends questions to nobody else and reads no answer without end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from coevo.config.access import check_library

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

MOST_BYTES = 8 * 2**20
"""Of one answer: 100,000 tokens with every character as a JSON escape are about 3 MB."""


class Unfit(Exception):
    """An answer that is not read to its end; says why."""


def client(url: str, key: str | None, timeout_s: float) -> AsyncOpenAI:
    """A client that makes each call once, follows no redirect, and reads so many bytes of an answer.

    Raises:
        ConfigError: the `openai` library is missing.
    """
    check_library()
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # of what is compressed nobody knows the size beforehand
    plain = {"Accept-Encoding": "identity"}
    inner = DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout_s, event_hooks={"response": [_limit]})
    # retries are ours, as each is counted; without a key the library insists on some text
    return AsyncOpenAI(
        base_url=url, api_key=key or "none", timeout=timeout_s, max_retries=0, http_client=inner, default_headers=plain
    )


def target(response: httpx2.Response) -> str:
    """Host and port that a redirect leads to."""
    parts = urlsplit(urljoin(str(response.request.url), response.headers.get("location", "")))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def _limit(response: httpx2.Response) -> None:
    """Called before the body is read."""
    import httpx2

    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Unfit(f"HTTP {response.status_code}: the answer is compressed, which was not asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _limited(response.stream)


def _limited(inner: httpx2.AsyncByteStream) -> httpx2.AsyncByteStream:
    import httpx2

    class Limited(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in inner:
                size += len(chunk)
                if size > MOST_BYTES:
                    raise Unfit(f"the answer has more than {MOST_BYTES // 2**20} MB")
                yield chunk

        async def aclose(self) -> None:
            await inner.aclose()

    return Limited()
