"""The audit of any reward function: does it put the reference above bad answers? (method, section 4)

Other than `coevo.rewards.audit`, which takes coevo's own reward apart, this one calls a function as TRL does and knows
nothing of what is in it.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from coevo.config import Audit as Thresholds
from coevo.data import BATTERIES, Case
from coevo.errors import CoevoError, ConfigError, ScoreError
from coevo.prompts import chat_messages
from coevo.rewards.audit import Judged, judged_members
from coevo.rewards.verdict import REWARD, Verdict
from coevo.scoring.given import given_scenarios
from coevo.text import blank
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
        scenarios: with references. Of more than 256, so many are drawn by the seed, from every subset as many as from any
            other. They should not be those that the reward was made from.
        at_least: share of the scenarios in which the reference must be above each bad answer.
        seed: of what the bad answers are made of.
        chat: whether prompts and completions are lists of messages, as TRL gives them where a data set has chats.
        columns: further columns of the data set that the reward reads, from a scenario; beside `sample_id` and `reference`.
        progress: told how many scenarios were done, batch after batch.

    Returns:
        The audit: `passed`, `failures` in words, and by bad answer in what share of the scenarios the reference is above,
        with Wilson's 95 % interval. A bad answer without a number counts as below; one that is worth as much as the
        reference does not.

    Raises:
        ConfigError: no scenario has a reference, or a threshold that is no share.
        DataError: scenarios that cannot be read.
        ScoreError: the reward raises, gives something else than one number or None each, or no reference a number.
    """
    if isinstance(at_least, bool) or not isinstance(at_least, int | float) or not 0 < at_least <= 1:
        raise ConfigError(f"audit: at_least={at_least!r}; expected a share above 0 and at most 1.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"audit: seed={seed!r}; expected a whole number.")
    drawn = _drawn([x for x in given_scenarios("audit", scenarios) if not blank(x.reference)], seed)
    if not drawn:
        raise ConfigError("audit: no scenario has a reference to compare bad answers with; give some that have.")
    cases = BATTERIES["file"](drawn, seed)
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
        members=judged_members(judged, margin=0.0),  # nobody knows in what unit, or how fine, it is
        agreement={},
        n_graded=0,
    )


def _drawn(scenarios: Sequence[Scenario], seed: int) -> list[Scenario]:
    """At most so many, in the order given: turn by turn one of each subset, so that none is left out."""
    if len(scenarios) <= SCENARIOS:
        return list(scenarios)
    by_tag: dict[str, list[Scenario]] = {}
    for x in random.Random(f"coevo audit/{seed}").sample(scenarios, len(scenarios)):
        by_tag.setdefault(x.subset_tag, []).append(x)
    rounds = chain.from_iterable(zip_longest(*by_tag.values()))
    names = {x.sample_id for x in islice((x for x in rounds if x is not None), SCENARIOS)}
    return [x for x in scenarios if x.sample_id in names]


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
    if uneven := next((x for (x, _), row in zip(pairs, rows, strict=True) if row.keys() != names), None):
        raise ScoreError(
            f"audit: columns gave scenario {uneven.sample_id!r} other names than {pairs[0][0].sample_id!r} "
            f"({', '.join(names)}); expected the same for all."
        )
    messages = [chat_messages(x) for x, _ in pairs]
    asked = {
        "prompts": messages if chat else ["\n\n".join(one["content"] for one in prompt) for prompt in messages],
        "completions": [[{"role": "assistant", "content": text}] if chat else text for _, text in pairs],
        **{name: [row[name] for row in rows] for name in names},
    }
    try:
        given = reward(**asked)
    except CoevoError:
        raise
    except Exception as error:
        raise ScoreError(
            f"audit: the reward ended with {type(error).__name__}: {error}; it was called as TRL calls one, with "
            f"{', '.join(asked)}. It may want messages (chat=True), or columns that `columns` gives."
        ) from error
    values = _listed(given)
    if len(values) != len(pairs):
        raise ScoreError(f"audit: the reward gave {len(values)} numbers for {len(pairs)} completions; expected one each.")
    return [_number(value, *pair) for value, pair in zip(values, pairs, strict=True)]


def _listed(given: Any) -> list[Any]:
    """What a reward gave, as a list.

    Raises:
        ScoreError: it is none.
    """
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()
        raise ScoreError(
            "audit: the reward is asynchronous; give a function that awaits it, such as "
            "lambda **asked: asyncio.run(reward(**asked))."
        )
    if hasattr(given, "tolist"):  # tensors and arrays
        given = given.tolist()
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ScoreError(f"audit: the reward gave {given!r:.60}; expected a list of one number or None each completion.")
    return list(given)


def _number(value: Any, scenario: Scenario, text: str) -> float | None:
    """A finite number or None; NaN is what many rewards give for `none`."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isnan(number):
        return None
    if math.isinf(number):
        raise ScoreError(
            f"audit: the reward gave {value!r:.60} for scenario {scenario.sample_id} and the completion {text[:60]!r}; "
            "expected a finite number, or None."
        )
    return number
