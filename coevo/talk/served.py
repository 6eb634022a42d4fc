"""A model as an OpenAI-compatible chat endpoint of this machine.

The requests are answered by the parts that `transformers serve` is made of. Its own front is left out: it ignores a
temperature where the folder's generation config is greedy, lists the hub's cache as its models, loads any model that a
request names, and answers to any host's name. Here there is one model, loaded as coevo loads it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cli.serving import utils
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import GenerationState

HOSTS = ("127.0.0.1", "localhost")
"""What a request may call this server: a page elsewhere whose name leads here is not to read it."""
MOST_TOKENS = 1024
"""Of an answer, where the request does not say."""


@dataclass(frozen=True)
class Served:
    """A loaded model, and how it is asked."""

    name: str
    """What requests call it."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Its chat template is the model's, with what coevo writes after it; see `ending_in`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the chat template, beside the messages."""

    @property
    def positions(self) -> int | None:
        """Tokens that the model has room for, prompt and answer; None if its config does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def prompt_tokens(self, messages: Any, arguments: Mapping[str, Any]) -> int:
        """Tokens of a prompt.

        Raises:
            HTTPException: 400, the chat template does not take the messages.
        """
        try:
            found: Any = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, **{**self.arguments, **arguments}
            )
        except Exception as error:  # noqa: BLE001  # a template's own refusal, or messages of no such form
            raise HTTPException(400, f"messages: the chat template does not take them ({error}).") from None
        return len(found["input_ids"])


def ending_in(tokenizer: PreTrainedTokenizerBase, opening: str) -> None:
    """Has the chat template end every prompt by a text, as coevo does where the model begins to write."""
    if opening:
        template = str(tokenizer.get_chat_template()).removesuffix("\n")
        tokenizer.chat_template = f"{template}{{% if add_generation_prompt %}}{{{{ {json.dumps(opening)} }}}}{{% endif %}}"


def set_defaults(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives the model coevo's end tokens, and plain sampling at temperature 1, which is what a request without one means.

    Nothing else of the base's sampling is kept: no top_k, which transformers has at 50, and no penalty.
    """
    inherited = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = {tokenizer.eos_token_id, *(inherited if isinstance(inherited, list) else [inherited])} - {None}
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0, top_k=0, top_p=1.0
    )


class _OneModel(ModelManager):
    """Gives the handlers the model that is loaded, whatever they ask for."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.force_model = served.name
        self._served = served

    @staticmethod
    def process_model_name(model_id: str) -> str:
        """The name as it is: it has no revision."""
        return model_id

    def load_model_and_processor(self, *_: Any, **__: Any) -> Any:
        """What is loaded."""
        return self._served.model, self._served.tokenizer


def application(served: Served) -> FastAPI:
    """`/v1/chat/completions`, streamed or not, `/v1/models` and `/health`; requests are answered one after another."""
    app = FastAPI(title="coevo serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    # by the architecture alone transformers guesses how an answer is marked up: of a Qwen3 with a chat template of another
    # form it would give the prompt as part of the answer
    utils._RESPONSE_TEMPLATE_FALLBACKS.clear()
    handler = ChatCompletionHandler(_OneModel(served), GenerationState(), dict(served.arguments))

    @app.exception_handler(ValueError)
    async def refused(_: Request, error: ValueError) -> JSONResponse:
        # of a setting that transformers looks at, such as a stop that is no text
        return JSONResponse({"detail": str(error)}, 400)

    @app.post("/v1/chat/completions")
    async def completed(request: Request, body: dict[str, Any]) -> Response:
        return await handler.handle_request(checked(served, body), str(uuid.uuid4()))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": served.name, "object": "model", "created": 0, "owned_by": "coevo"}]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": served.name}

    return app


def checked(served: Served, body: Mapping[str, Any]) -> dict[str, Any]:
    """A request that the model can answer, with a limit of tokens.

    Raises:
        HTTPException: 400, with the field, its value and what was expected.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise HTTPException(400, f"messages: {str(messages)[:80]}; expected a list of messages with role and content.")
    heat = body.get("temperature")
    if heat is not None and not (type(heat) in (int, float) and (heat == 0 or 0.01 <= heat <= 100)):
        raise HTTPException(400, f"temperature: {str(heat)[:80]}; expected 0, which is greedy, or 0.01 to 100.")
    given = body.get("max_completion_tokens", body.get("max_tokens"))
    if given is not None and not (type(given) is int and given >= 1):
        raise HTTPException(400, f"max_tokens: {str(given)[:80]}; expected a whole number of at least 1.")
    if body.get("generation_config") is not None:
        raise HTTPException(400, "generation_config: is not taken here; give temperature, top_p, seed, stop or max_tokens.")
    arguments = body.get("chat_template_kwargs") or {}
    if not isinstance(arguments, dict):
        raise HTTPException(400, f"chat_template_kwargs: {str(arguments)[:80]}; expected an object.")
    share = body.get("top_p")
    if share is not None and not (type(share) in (int, float) and 0 < share <= 1):
        raise HTTPException(400, f"top_p: {str(share)[:80]}; expected a number above 0 and at most 1.")
    if body.get("seed") is not None and type(body["seed"]) is not int:
        raise HTTPException(400, f"seed: {str(body['seed'])[:80]}; expected a whole number.")
    length = served.prompt_tokens([_as_text(message) for message in messages], arguments)
    room = MOST_TOKENS if served.positions is None else served.positions - length
    if room < (given or 1):
        raise HTTPException(
            400, f"messages: {length} tokens and {given or 1} new ones exceed the model's {served.positions} positions."
        )
    rest = {name: value for name, value in body.items() if name not in ("max_completion_tokens", "max_tokens")}
    return {**rest, "max_tokens": given or min(MOST_TOKENS, room)}


def _as_text(message: Any) -> Any:
    """A message whose content is a list of parts of text, which some clients send, as one text."""
    if isinstance(message, dict) and isinstance(message.get("content"), list):
        parts = [
            part.get("text", "") for part in message["content"] if isinstance(part, dict) and part.get("type") == "text"
        ]
        return {**message, "content": " ".join(map(str, parts))}
    return message
