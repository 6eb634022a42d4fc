"""A reward behind HTTP, for trainers that run in other processes. The only import of FastAPI.

POST /reward   {"sample_id": ["…"], "completions": ["…"], "statuses": ["ok"]}
               -> {"rewards": [0.3], "parts": [{"…": 1.2}], "statuses": ["ok"], "scorer": "…"}
GET  /health   -> {"scenarios": 120, "scorer": "…"}
"""

from __future__ import annotations

from threading import Lock
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
"""Characters of one completion; what is longer than the scorer reads has the status `too_long`."""
Text = Annotated[str, Field(max_length=LONGEST)]


class Batch(BaseModel):
    """What is asked."""

    model_config = ConfigDict(extra="forbid")

    sample_id: Annotated[list[Text], Field(min_length=1, max_length=MOST)]
    """Each completion's scenario."""
    completions: Annotated[list[Text], Field(max_length=MOST)]
    statuses: Annotated[list[Literal["ok", "truncated", "empty"]], Field(max_length=MOST)] | None = None
    """`truncated`: the length limit cut it off. None: all are whole."""


def application(reward: REMIDReward) -> FastAPI:
    """The service of one reward. Requests are answered one after another."""
    app = FastAPI(title="coevo reward", docs_url=None, redoc_url=None)
    # one model, and torch's kernels use all cores as it is
    lock = Lock()

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        said = f"{place}: {first['msg']}; expected sample_id, completions and, perhaps, statuses, a list each."
        return JSONResponse({"detail": said.encode("utf-8", "replace").decode()}, 422)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"scenarios": len(reward.scenarios), "scorer": reward.version}

    @app.post("/reward")
    def rewarded(batch: Batch) -> dict[str, Any]:
        texts = texts_of(batch.completions)
        statuses = batch.statuses or ["ok"] * len(texts)
        if not len(batch.sample_id) == len(texts) == len(statuses):
            sizes = f"{len(batch.sample_id)} sample_ids, {len(texts)} completions and {len(statuses)} statuses"
            raise HTTPException(422, f"{sizes}; expected one of each for every completion.")
        read = ["empty" if status == "ok" and blank(text) else status for status, text in zip(statuses, texts, strict=True)]
        try:
            with lock:
                found = reward.rate(batch.sample_id, texts, read)
        except CoevoError as error:
            raise HTTPException(422, str(error)) from None
        return {
            "rewards": [one.total for one in found],
            "parts": [dict(one.parts) for one in found],
            "statuses": [one.status for one in found],
            "scorer": reward.version,
        }

    return app
