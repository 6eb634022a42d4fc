"""Reward models: sequence classifiers with one output, as they are trained on pairs of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from coevo.errors import CheckpointError, ScoreError
from coevo.lm.check import refuse_pointers
from coevo.lm.likelihood import encode_pair, render
from coevo.lm.lineage import weight_files
from coevo.lm.loading import load_tokenizer, local_directory, refuse_no_words

BATCH = 8
"""Answers that are read together."""


def check_reward_model(path: str | Path) -> Any:
    """The tokenizer of a reward model, whose weights are not loaded.

    Raises:
        CheckpointError: its files are damaged or missing, or it has more than one output.
    """
    directory = local_directory(path)
    refuse_pointers(directory)
    weight_files(directory)  # raises if there are none
    try:
        outputs = AutoConfig.from_pretrained(directory, trust_remote_code=False).num_labels
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # of a damaged file, neither raises a narrower one
        raise CheckpointError(f"{path}: no reward model can be loaded ({type(error).__name__}: {error}).") from error
    if outputs != 1:
        raise CheckpointError(f"{path}: has {outputs} outputs; expected a reward model, which has one.")
    refuse_no_words(path, tokenizer)
    return tokenizer if tokenizer.chat_template is None else load_tokenizer(directory)


class RewardModel:
    """A frozen reward model. One with a chat template reads the conversation; one without, question and answer as a pair."""

    def __init__(self, path: str | Path) -> None:
        """Loads it.

        Args:
            path: a folder with safetensors weights, or a hub id.

        Raises:
            CheckpointError: it cannot be loaded, its head is not among its weights, or it has more than one output.
        """
        self._path, directory = path, local_directory(path)
        self._tokenizer: Any = check_reward_model(path)
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                directory, use_safetensors=True, trust_remote_code=False, dtype="auto", output_loading_info=True
            )
        except Exception as error:  # transformers raises no narrower one for what is no classifier
            raise CheckpointError(f"{path}: no reward model can be loaded ({type(error).__name__}: {error}).") from error
        if report["missing_keys"]:
            named = ", ".join(sorted(report["missing_keys"])[:3])
            raise CheckpointError(f"{path}: has no weights for {named}, so its scores would be random. Give a reward model.")
        self._pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = self._pad
        self._model: Any = (model.cuda() if torch.cuda.is_available() else model).eval()
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def score(self, prompts: Sequence[Sequence[dict[str, str]]], answers: Sequence[str]) -> list[float | None]:
        """The model's output for each answer; None for one that is too long for it.

        Args:
            prompts: chat messages up to the answer.
            answers: one a prompt.

        Raises:
            ScoreError: an output that is no finite number.
        """
        rows = [self._encode(messages, answer) for messages, answer in zip(prompts, answers, strict=True)]
        fit = [place for place, ids in enumerate(rows) if self._limit is None or len(ids) <= self._limit]
        found: list[float | None] = [None] * len(rows)
        order = sorted(fit, key=lambda place: len(rows[place]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for place, value in zip(batch, self._forward([rows[place] for place in batch]), strict=True):
                if not math.isfinite(value):
                    raise ScoreError(
                        f"{self._path}: the reward model gives {value} for the answer {answers[place][:80]!r}; "
                        "expected a finite number. Its weights are damaged, or too large for their precision."
                    )
                found[place] = value
        return found

    def _encode(self, messages: Sequence[dict[str, str]], answer: str) -> list[int]:
        if self._tokenizer.chat_template is None:
            return list(self._tokenizer(messages[-1]["content"], answer)["input_ids"])
        prompt, response = encode_pair(self._tokenizer, render(self._tokenizer, messages), answer)
        return [*prompt, *response]

    @torch.inference_mode()
    def _forward(self, rows: Sequence[list[int]]) -> list[float]:
        # on the right: the output is read off the last token that is no padding
        width, device = max(map(len, rows)), self._model.device
        ids_BT = torch.full((len(rows), width), self._pad)
        mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
        for row, ids in enumerate(rows):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
        out = self._model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
        return [float(x) for x in out.logits[:, 0].float().tolist()]
