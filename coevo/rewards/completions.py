"""What TRL hands to a reward function, read and checked. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from coevo.errors import ScoreError
from coevo.text import blank, normalised

Status = Literal["ok", "truncated", "empty"]
KEY = "sample_id"
"""Column of a training data set that says which scenario a prompt is."""


def keys_of(columns: Mapping[str, Any], n: int) -> Sequence[str]:
    """Each completion's scenario.

    Raises:
        ScoreError: there is no column `sample_id`, or it has not one name for each of the `n` completions.
    """
    keys = columns.get(KEY)
    if keys is None:
        others = ", ".join(map(repr, columns)) or "no other column"
        raise ScoreError(
            f"reward: the training data has no column {KEY!r}, so that nobody knows which scenario a completion answers; "
            f"add it to the data set ({others} came)."
        )
    if len(keys) != n:
        raise ScoreError(f"reward: {n} completions and {len(keys)} {KEY}s; expected one each.")
    wrong = next((key for key in keys if not isinstance(key, str)), None)
    if wrong is not None:
        raise ScoreError(f"reward: a {KEY} is {wrong!r}; expected the scenario's name, a text.")
    found: Sequence[str] = keys
    return found


def texts_of(completions: Sequence[Any]) -> list[str]:
    """Each completion as text: itself, or the content of the last of its chat messages. Half a surrogate pair becomes "?".

    Raises:
        ScoreError: something else.
    """
    return [normalised(_text(one).encode("utf-8", "replace").decode()) for one in completions]


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    last = completion[-1] if isinstance(completion, Sequence) and completion else None
    content = last.get("content") if isinstance(last, Mapping) else None
    if not isinstance(content, str):
        raise ScoreError(f"reward: a completion is a {type(completion).__name__}; expected a text, or messages of text.")
    return content


def statuses_of(texts: Sequence[str], completion_ids: Any, end_ids: Collection[int]) -> list[Status]:
    """Whether each completion was cut off by the length limit, is empty, or is whole.

    Args:
        texts: as of `texts_of`.
        completion_ids: the completions' tokens, as TRL gives them; or None.
        end_ids: tokens that end a completion; without any, every completion counts as ended.
    """
    cut = [False] * len(texts)
    if end_ids and completion_ids is not None:
        cut = [not len(ids) or int(ids[-1]) not in end_ids for ids in completion_ids]
    return ["truncated" if c else "empty" if blank(text) else "ok" for c, text in zip(cut, texts, strict=True)]
