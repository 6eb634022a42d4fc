"""A reward behind HTTP, for trainers that run in other processes. The only import of FastAPI.

POST /reward   {"sample_id": ["…"], "completions": ["…"], "statuses": ["ok"]}
               -> {"rewards": [0.3], "parts": [{"…": 1.2}], "statuses": ["ok"], "scorer": "…"}
GET  /health   -> {"scenarios": 120, "scorer": "…"}
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coevo.errors import CoevoError
from coevo.rewards.completions import texts_of
from coevo.rewards.remid import REMIDReward
from coevo.text import blank

MOST = 4096
"""Completions that one request may hold."""
LONGEST = 1_000_000
"""Characters of one text; a longer completion has the status `too_long`, as one that is longer than the scorer reads."""
GONE = 499
"""The status for a client that no longer listens, as of nginx; HTTP has none."""
Text = Annotated[str, Field(max_length=LONGEST)]


class Batch(BaseModel):
    """What is asked."""

    model_config = ConfigDict(extra="forbid")

    sample_id: Annotated[list[Text], Field(min_length=1, max_length=MOST)]
    """Each completion's scenario."""
    completions: Annotated[list[str], Field(max_length=MOST)]
    statuses: Annotated[list[Literal["ok", "truncated", "empty"]], Field(max_length=MOST)] | None = None
    """`truncated`: the length limit cut it off. None: all are whole."""


def application(reward: REMIDReward) -> FastAPI:
    """The service of one reward. Requests are answered one after another; whose client has gone meanwhile is left out."""
    app = FastAPI(title="coevo reward", docs_url=None, redoc_url=None)
    # one model, and torch's kernels use all cores as it is; who waits here holds no thread
    lock = asyncio.Lock()

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        said = f"{place}: {first['msg']}; expected sample_id, completions and, perhaps, statuses, a list each."
        return JSONResponse({"detail": said.encode("utf-8", "replace").decode()}, 422)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"scenarios": len(reward.scenarios), "scorer": reward.version}

    @app.post("/reward")
    async def rewarded(batch: Batch, request: Request) -> dict[str, Any]:
        given = batch.statuses or ["ok"] * len(batch.completions)
        if not len(batch.sample_id) == len(batch.completions) == len(given):
            sizes = f"{len(batch.sample_id)} sample_ids, {len(batch.completions)} completions and {len(given)} statuses"
            raise HTTPException(422, f"{sizes}; expected one of each for every completion.")
        async with lock:
            if await request.is_disconnected():
                raise HTTPException(GONE, "the client has gone.")
            try:
                return await asyncio.to_thread(_answer, reward, batch, given)
            except CoevoError as error:
                raise HTTPException(422, str(error)) from None

    return app


def _answer(reward: REMIDReward, batch: Batch, given: Sequence[str]) -> dict[str, Any]:
    # a text that is too long to look at is not scored, and costs the others of its call nothing
    texts = texts_of([text if len(text) <= LONGEST else "" for text in batch.completions])
    statuses = [_status(*one) for one in zip(batch.completions, texts, given, strict=True)]
    found = reward.rate(batch.sample_id, texts, statuses)
    return {
        "rewards": [one.total for one in found],
        "parts": [dict(one.parts) for one in found],
        "statuses": [one.status for one in found],
        "scorer": reward.version,
    }


def _status(came: str, text: str, given: str) -> str:
    if len(came) > LONGEST:
        return "too_long"
    return "empty" if given == "ok" and blank(text) else given
