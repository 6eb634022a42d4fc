"""What TRL hands to a reward function, read and checked. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from coevo.errors import ConfigError, ScoreError
from coevo.scoring.thinking import split
from coevo.text import blank

Status = Literal["ok", "truncated", "empty"]
KEY = "sample_id"
"""Column of a training data set that says which scenario a prompt is."""


def keys_of(columns: Mapping[str, Any], n: int) -> list[str]:
    """Each completion's scenario.

    Raises:
        ScoreError: there is no column `sample_id`, or it is not a list of one name for each of the `n` completions.
    """
    keys = columns.get(KEY)
    if keys is None:
        others = ", ".join(map(repr, columns)) or "no other column"
        raise ScoreError(
            f"reward: the training data has no column {KEY!r}, so that nobody knows which scenario a completion answers; "
            f"add it to the data set ({others} came)."
        )
    keys = _listed(keys, KEY, "the scenarios' names")
    if len(keys) != n:
        raise ScoreError(f"reward: {n} completions and {len(keys)} {KEY}s; expected one each.")
    wrong = next((key for key in keys if not isinstance(key, str)), None)
    if wrong is not None:
        raise ScoreError(f"reward: a {KEY} is {wrong!r}; expected the scenario's name, a text.")
    return keys


def _listed(values: Any, name: str, of: str) -> list[Any]:
    """One column as a list; a text alone is no list of its letters."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ScoreError(f"reward: {name} is {values!r:.60}; expected a list of {of}, one for each completion.")
    return list(values)


def texts_of(completions: Sequence[Any]) -> list[str]:
    """Each completion as text: itself, or the content of the last of its chat messages, without a thought before it.

    Half a surrogate pair becomes "?". A thought that never ends leaves nothing.

    Raises:
        ScoreError: something else, or one text where a list of them belongs.
    """
    listed = _listed(completions, "completions", "texts, or of lists of chat messages")
    return [split(_text(one).encode("utf-8", "replace").decode(), ()).response for one in listed]


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    last = completion[-1] if isinstance(completion, Sequence) and completion else None
    content = last.get("content") if isinstance(last, Mapping) else None
    if not isinstance(content, str):
        raise ScoreError(f"reward: a completion is a {type(completion).__name__}; expected a text, or messages of text.")
    return content


def tokens_that_end(who: str, end_ids: Collection[int]) -> frozenset[int]:
    """The tokens, as a set.

    Raises:
        ConfigError: something else; every completion would count as cut off.
    """
    wrong = [token for token in end_ids if isinstance(token, bool) or not isinstance(token, int)]
    if wrong:
        raise ConfigError(
            f"{who}: end_ids holds {wrong[0]!r}; expected numbers of tokens, such as tokenizer.eos_token_id. A tokenizer "
            "without one gives None: leave end_ids empty, or name the token that ends an answer."
        )
    return frozenset(end_ids)


def statuses_of(texts: Sequence[str], completion_ids: Any, end_ids: Collection[int]) -> list[Status]:
    """Whether each completion was cut off by the length limit, is empty, or is whole.

    Args:
        texts: as of `texts_of`.
        completion_ids: the completions' tokens, as TRL gives them; or None.
        end_ids: tokens that end a completion; without any, every completion counts as ended.

    Raises:
        ScoreError: `completion_ids` is not a list of tokens for each completion.
    """
    cut = [False] * len(texts)
    if completion_ids is not None:
        ids = _listed(completion_ids, "completion_ids", "lists of tokens")
        if len(ids) != len(texts):
            raise ScoreError(f"reward: {len(texts)} completions and {len(ids)} completion_ids; expected one list each.")
        cut = [bool(end_ids) and _last(tokens) not in end_ids for tokens in ids]
    return ["truncated" if c else "empty" if blank(text) else "ok" for c, text in zip(cut, texts, strict=True)]


def _last(tokens: Any) -> int | None:
    """The last token; None where there is none."""
    try:
        return int(tokens[-1]) if len(tokens) else None
    except (TypeError, ValueError, LookupError):
        raise ScoreError(
            f"reward: one of completion_ids is {tokens!r:.60}; expected a list of a completion's tokens."
        ) from None
