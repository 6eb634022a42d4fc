"""What a program hands to the front door, read and checked before anything is loaded or scored. Without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from coevo.data.jsonstream import has_surrogate
from coevo.errors import ConfigError, DataError, ScoreError
from coevo.prompts import character_text
from coevo.types import Scenario, Score

ScorerLike = TypeVar("ScorerLike")


def given_scenarios(who: str, scenarios: Iterable[Scenario]) -> list[Scenario]:
    """The scenarios as a list, of any iterable.

    Args:
        who: the public name that was called, for the message.
        scenarios: as given.

    Raises:
        DataError: none, something that is no Scenario, two of one name, a dialogue that does not end with the user, or text
            that UTF-8 cannot hold.
    """
    if isinstance(scenarios, str | bytes | Mapping) or not isinstance(scenarios, Iterable):
        kind = type(scenarios).__name__
        raise DataError(f"{who}: scenarios is a {kind}; expected a list, as of coevo.load_scenarios(FILE).")
    found = list(scenarios)
    if not found:
        raise DataError(f"{who}: there is no scenario; give at least one, as of coevo.load_scenarios(FILE).")
    for place, x in enumerate(found):
        if not isinstance(x, Scenario):
            raise DataError(f"{who}: scenario {place} is a {type(x).__name__}; expected a coevo.Scenario.")
        if why := _wrong(x):
            raise DataError(f"{who}: scenario {place} ({x.sample_id!r}): {why}")
    name, count = Counter(x.sample_id for x in found).most_common(1)[0]
    if count > 1:
        raise DataError(f"{who}: {count} scenarios are called {name!r}; expected a sample_id of its own for each.")
    return found


def _wrong(x: Scenario) -> str:
    """What keeps a scenario from being read; empty if nothing does."""
    if not x.dialogue or x.dialogue[-1].role != "user":
        return "its dialogue does not end with a message of the user; expected the query as the last turn."
    texts = {"persona": x.persona, "reference": x.reference, "character": character_text(x.character)}
    texts |= {f"dialogue[{place}]": turn.text for place, turn in enumerate(x.dialogue)}
    for name, text in texts.items():
        if not isinstance(text, str):
            return f"{name} is a {type(text).__name__}; expected a text."
        if has_surrogate(text):
            return f"{name} holds half of a surrogate pair, which UTF-8 cannot hold; remove it."
    return ""


def given_scorer(who: str, scorer: ScorerLike) -> ScorerLike:
    """The scorer itself.

    Raises:
        ConfigError: it has no `score` and `version`; a name in its place is the usual case.
    """
    if isinstance(getattr(scorer, "version", None), str) and callable(getattr(scorer, "score", None)):
        return scorer
    named = f"the text {scorer!r}" if isinstance(scorer, str) else f"a {type(scorer).__name__}"
    raise ConfigError(
        f"{who}: the scorer is {named}; expected one of coevo.load_scorer(RUN or MODEL), or an object with `version`, "
        "a text, and `score(asks)`."
    )


def asked(scorer: Any, asks: Sequence[Any]) -> list[Score]:
    """What a scorer says of the asks; somebody else's scorer is not trusted with numbers that are none.

    Raises:
        ScoreError: not one score each, or an `ok` one whose number is not finite or that counts no token. Left alone it
            would go into means and rewards as silently as any other.
    """
    scores: list[Score] = list(scorer.score(asks))
    if len(scores) != len(asks):
        raise ScoreError(f"scorer {_name(scorer)}: {len(scores)} scores for {len(asks)} texts; expected one each, in order.")
    for ask, score in zip(asks, scores, strict=True):
        if score.status == "ok" and not (_finite(score.logprob_nats) and score.n_tokens > 0):
            raise ScoreError(
                f"scorer {_name(scorer)}: {score.logprob_nats} nats over {score.n_tokens} tokens for {ask.text[:60]!r} in "
                f"scenario {ask.scenario.sample_id!r}; expected a finite number over at least one token, or a status other "
                "than ok."
            )
    return scores


def _finite(value: float) -> bool:
    return float("-inf") < value < float("inf")


def _name(scorer: Any) -> str:
    return repr(str(getattr(scorer, "version", ""))[:25])
