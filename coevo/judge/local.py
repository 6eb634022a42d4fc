"""A judge on this machine: any causal model that coevo.lm loads, answering greedily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coevo.judge.session import Answer, Failure, Messages
from coevo.lm.generation import generate
from coevo.lm.likelihood import encode_prompt, render
from coevo.lm.lineage import identity
from coevo.lm.loading import load_base, load_tokenizer, local_directory
from coevo.prompts import SHORT
from coevo.scoring.probe import probe

BATCH = 8
"""Questions that are answered together; what a kill loses."""


class Local:
    """A model in this process. Loaded when the first question is asked."""

    def __init__(self, path: str, max_tokens: int, temperature: float, seed: int) -> None:
        """Takes a hub id or a directory, the limit of an answer in tokens, the temperature (0 is greedy) and its seed.

        Raises:
            CheckpointError: no such model.
        """
        self._path = local_directory(path)
        self._parameters = {"max_tokens": max_tokens, "temperature": temperature}
        if temperature:
            self._parameters["seed"] = seed
        self._identity = {"local": identity(self._path, self._path), "parameters": self._parameters}
        self._loaded: tuple[Any, Any] | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Hash of the model with its tokenizer and chat template, and the parameters; where it lies does not matter."""
        return self._identity

    def answer(self, asks: Mapping[str, Messages], take: Callable[[str, Answer | Failure], None]) -> None:
        """Answers each question once, in batches; a question without room gets `too_long`."""
        if self._loaded is None:
            # cuda if there is one: a judge of any use is too large for a CPU
            tokenizer = load_tokenizer(self._path)
            probe(tokenizer, SHORT, ["judge"])
            self._loaded = _on_device(load_base(self._path, local=True).eval()), tokenizer
        model, tokenizer = self._loaded
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        max_tokens = int(self._parameters["max_tokens"])
        prompts = {}
        for key, messages in asks.items():
            prompt = encode_prompt(tokenizer, render(tokenizer, messages))
            if limit is not None and len(prompt) + max_tokens > limit:
                reason = f"{len(prompt)} tokens, and {max_tokens} for the answer, exceed the model's {limit}"
                take(key, Failure("too_long", reason))
            else:
                prompts[key] = prompt
        keys = list(prompts)
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            written = generate(
                model,
                tokenizer,
                [prompts[key] for key in batch],
                max_new_tokens=max_tokens,
                temperature=self._parameters["temperature"],
                seeds=[(int(key, 16) + int(self._parameters.get("seed", 0))) % 2**62 for key in batch],
            )
            for key, text in zip(batch, written, strict=True):
                finish = "length" if text.status == "truncated" else "stop"
                take(key, Answer(text.text, finish, len(prompts[key]), len(text.token_ids)))


def _on_device(model: Any) -> Any:
    import torch

    return model.to("cuda") if torch.cuda.is_available() else model
