"""The audit of any reward function: does it put the reference above bad answers? (method, section 4)

Other than `coevo.rewards.audit`, which takes coevo's own reward apart, this one calls a function as TRL does and knows
nothing of what is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coevo.config import Audit as Thresholds
from coevo.data import BATTERIES, Case
from coevo.errors import ConfigError, ScoreError
from coevo.prompts import chat_messages
from coevo.rewards.audit import Judged, judged_members
from coevo.rewards.verdict import REWARD, Verdict
from coevo.types import Scenario

RewardFunction = Callable[..., Sequence[float | None]]
"""As TRL calls it: `reward(prompts=…, completions=…, **columns)`."""
SCENARIOS = 256
"""The audit's figures hardly move with more."""
CASES_PER_CALL = 32


def audit(
    reward: RewardFunction,
    scenarios: Sequence[Scenario],
    *,
    at_least: float = 0.9,
    seed: int = 0,
    chat: bool = False,
    columns: Callable[[Scenario], Mapping[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verdict:
    """Puts a reward function to the test of bad answers.

    In each scenario the reward is asked about the reference and about up to nine bad answers: one that would fit anyone,
    another scenario's reference, the query echoed, a loop, padding, half of the reference, nothing, fluent nonsense, and
    instructions to whoever scores. A reward that a person fools so will be fooled by a model that is trained on it.

    Args:
        reward: any function with TRL's signature; `REMIDReward` is one.
        scenarios: with references; the first 256 are taken. They should not be those that the reward was made from.
        at_least: share of the scenarios in which the reference must be above each bad answer.
        seed: of what the bad answers are made of.
        chat: whether prompts and completions are lists of messages, as TRL gives them where a data set has chats.
        columns: further columns of the data set that the reward reads, from a scenario; beside `sample_id` and `reference`.
        progress: told how many scenarios were done, batch after batch.

    Returns:
        The audit: `passed`, `failures` in words, and by bad answer in what share of the scenarios the reference is above,
        with Wilson's 95 % interval. A bad answer without a number counts as below.

    Raises:
        ConfigError: no scenario.
        ScoreError: the reward gives something else than one number or None each, or no reference a number.
    """
    if not scenarios:
        raise ConfigError("audit: there is no scenario; give some, with references.")
    if not 0 < at_least <= 1:
        raise ConfigError(f"audit: at_least={at_least}; expected a share above 0 and at most 1.")
    cases = BATTERIES["file"]([x for x in scenarios if x.reference.strip()][:SCENARIOS], seed)
    judged: list[Judged] = []
    for start in range(0, len(cases), CASES_PER_CALL):
        batch = cases[start : start + CASES_PER_CALL]
        judged += _judged(reward, batch, chat, columns)
        if progress:
            progress(len(batch))
    if not judged:
        raise ScoreError(
            f"audit: the reward gives none of {len(cases)} references a number; it has nothing to compare with."
        )
    return Verdict(
        scorer=getattr(reward, "version", ""),
        weights={},
        at_least=at_least,
        agreement_at_least=Thresholds().agreement,
        n=len(judged),
        unscored=len(cases) - len(judged),
        members=judged_members(judged),
        agreement={},
        n_graded=0,
    )


def _judged(
    reward: RewardFunction, cases: Sequence[Case], chat: bool, columns: Callable[[Scenario], Mapping[str, Any]] | None
) -> list[Judged]:
    texts = [list(dict.fromkeys((case.scenario.reference, *case.bad.values(), *case.good))) for case in cases]
    flat = [(case.scenario, text) for case, mine in zip(cases, texts, strict=True) for text in mine]
    values = iter(_asked(reward, flat, chat, columns))
    found = []
    for case, mine in zip(cases, texts, strict=True):
        worth: dict[str, dict[str, float] | str] = {}
        for text in mine:
            value = next(values)
            # a right answer without a number is not above a bad one; a bad one without a number is below
            none = {REWARD: -math.inf} if text in case.good else "unscored"
            worth[text] = none if value is None else {REWARD: value}
        if not isinstance(worth[case.scenario.reference], str):
            found.append(Judged(case, worth))
    return found


def _asked(
    reward: RewardFunction,
    pairs: Sequence[tuple[Scenario, str]],
    chat: bool,
    columns: Callable[[Scenario], Mapping[str, Any]] | None,
) -> list[float | None]:
    rows = [{"sample_id": x.sample_id, "reference": x.reference, **(columns(x) if columns else {})} for x, _ in pairs]
    names = rows[0].keys()
    messages = [chat_messages(x) for x, _ in pairs]
    given = reward(
        prompts=messages if chat else ["\n\n".join(one["content"] for one in prompt) for prompt in messages],
        completions=[[{"role": "assistant", "content": text}] if chat else text for _, text in pairs],
        **{name: [row[name] for row in rows] for name in names},
    )
    values = list(given)
    if len(values) != len(pairs):
        raise ScoreError(f"audit: the reward gave {len(values)} numbers for {len(pairs)} completions; expected one each.")
    return [_number(value, *pair) for value, pair in zip(values, pairs, strict=True)]


def _number(value: Any, scenario: Scenario, text: str) -> float | None:
    """A finite number or None; NaN is what many rewards give for `none`."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise ScoreError(
            f"audit: the reward gave {value!r} for scenario {scenario.sample_id} and the completion {text[:60]!r}; expected "
            "a finite number, or None."
        )
    return number
