"""The reward of a role-playing model as one object: negative R-EMID and likelihood (R1, R2, R4), or R6 for real text.

`REMIDReward` holds all that such a reward needs: the frozen scorer, the scenarios, their references' likelihoods and the
baseline b(x). TRL calls it as it stands; a run of coevo wraps it for logging; `coevo reward --serve` puts it behind HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coevo import dist
from coevo.config import RealText, RewardWeights
from coevo.errors import ConfigError, DataError
from coevo.nearest import did_you_mean
from coevo.rewards.beside import Beside
from coevo.rewards.completions import keys_of, statuses_of, texts_of, tokens_that_end
from coevo.rewards.parts import Fit, answered, fits, remi, rpm_reward
from coevo.scoring.given import given_scenarios, given_scorer
from coevo.scoring.real_text import Others, draw_others
from coevo.scoring.reasoner import Estimator, ReasonedScorer
from coevo.scoring.scorer import Scorer, Scores
from coevo.types import Response, Reward, Scenario


class REMIDReward:
    """What a response is worth in its scenario, in nats; with R6, in nats per root of a token.

    Example:
        >>> reward = REMIDReward(load_scorer("runs/scorer"), load_scenarios("dialogues.json"))   # doctest: +SKIP
        >>> reward(prompts=["…"], completions=["I am Ada."], sample_id=["IDTest-00000"])         # doctest: +SKIP
        [0.31]

    All completions of one prompt share the scenario's reference and baseline, and are scored with one reading of its prompt;
    batches are made by length inside. It can be pickled, with its scorer, unless `beside` reads a judge or a reward model.
    """

    __name__ = "remid"
    """TRL logs a reward under this name."""

    def __init__(
        self,
        scorer: Estimator | Scores,
        scenarios: Sequence[Scenario],
        weights: RewardWeights | RealText | None = None,
        *,
        end_ids: Collection[int] = (),
        others: Others | None = None,
        beside: Beside | None = None,
        seed: int = 0,
    ) -> None:
        """Holds what is needed; nothing is scored yet.

        Args:
            scorer: frozen; of `coevo.load_scorer`.
            scenarios: every scenario that a prompt can be of, by its `sample_id`.
            weights: `RealText` (R6) by default; `RewardWeights` is for texts as short and regular as the world's.
            end_ids: the trained model's tokens that end a completion. With them, a completion that ends in none of them was
                cut off by the length limit, and is treated so; without them, every completion counts as ended.
            others: the contexts that R6 compares with; drawn from the scenarios by default.
            beside: who gives the parts beside the scorer's own; by default the functions of the weights.
            seed: of that draw.

        Raises:
            ConfigError: no scorer, or too few scenarios that it can read for R6.
            DataError: no scenario, two of one name, or one that cannot be read.
        """
        self.scorer = given_scorer("REMIDReward", scorer)
        scenarios = given_scenarios("REMIDReward", scenarios)
        self.weights = RealText() if weights is None else weights
        self.scenarios = {x.sample_id: x for x in scenarios}
        self.others = others or self._drawn(scenarios, seed)
        self.references: dict[str, Fit | str] = {}
        """By sample_id: how y* fits, or the status that says why it cannot be scored."""
        self.baselines: dict[str, float] = {}
        """b(x), by the sample_id of the ID parent; see `take_baselines`."""
        self.last: list[Reward] = []
        """Rewards of the last call, with their parts and statuses."""
        self._beside = beside or Beside(self.weights.functions)
        self._end_ids = tokens_that_end("REMIDReward", end_ids)

    def _drawn(self, scenarios: Sequence[Scenario], seed: int) -> Others | None:
        if not isinstance(self.weights, RealText):
            return None
        found = draw_others(lambda x: readable(self.scorer, x), scenarios, self.weights, seed)
        if len(found.bank) < self.weights.least_scenarios:
            raise ConfigError(
                f"REMIDReward: {len(found.bank)} of {len(scenarios)} scenarios can be read by the scorer, and R6 with "
                f"negatives={self.weights.negatives} needs {self.weights.least_scenarios} of different content; give more "
                "scenarios, or fewer negatives."
            )
        return found

    @property
    def version(self) -> str:
        """The scorer's."""
        return self.scorer.version

    @property
    def parts(self) -> list[Mapping[str, float]]:
        """The unweighted parts of each reward of the last call; none for what could not be scored."""
        return [reward.parts for reward in self.last]

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        """TRL's reward function.

        Args:
            prompts: not looked at; the scenario says what the prompt was.
            completions: texts, or chat messages, of which the last one counts.
            completion_ids: their tokens, as TRL gives them; used with `end_ids`.
            columns: the data set's; `sample_id` names each completion's scenario.

        Returns:
            A reward each; None for what cannot be scored, which TRL leaves out of a group. `last` says why: `empty`,
            `too_long`, `reasoning`, or, of the scenario's reference, the same with `reference_` before it.

        Raises:
            ScoreError: no column `sample_id`, or columns of other lengths.
            DataError: a name that no scenario has.
        """
        texts = texts_of(completions)
        keys = keys_of(columns, len(texts))
        self.last = self.rate(keys, texts, statuses_of(texts, completion_ids, self._end_ids))
        return [reward.total for reward in self.last]

    def rate(self, keys: Sequence[str], texts: Sequence[str], statuses: Sequence[str]) -> list[Reward]:
        """Rewards with their parts. No process waits for another, if `take_references` was called before.

        Args:
            keys: each response's scenario, by sample_id.
            texts: the responses.
            statuses: `ok`; `truncated` for one that the length limit cut off; `empty`.

        Raises:
            DataError: a key that no scenario has.
        """
        scenarios = [self.scenario(key) for key in keys]
        reasoned = self.weights.agreement > 0
        found = answered(self.scorer, scenarios, list(zip(texts, statuses, strict=True)), reasoned, self.others)
        missing = {x.sample_id: x for x in scenarios if x.sample_id not in self.references}
        if missing:
            new = list(missing.values())
            self.references |= zip(missing, fits(self.scorer, new, _ideal(new), reasoned, self.others), strict=True)
        references = [self.references[key] for key in keys]
        further = self._beside.worth(scenarios, texts, found, references)
        rewards = []
        for status, x, fit, reference, more in zip(statuses, scenarios, found, references, further, strict=True):
            if isinstance(fit, Fit) and isinstance(reference, Fit) and not isinstance(more, str):
                anchor = x.shift == "id"
                baseline = 0.0 if anchor else self.baselines.get(x.parent or "", 0.0)
                rewards.append(rpm_reward(fit, reference, baseline, self.weights, anchor, more))
            else:
                named = (fit, f"reference_{reference}" if isinstance(reference, str) else reference, more)
                why = next(one for one in named if isinstance(one, str))
                rewards.append(Reward(None, {}, status if status != "ok" else why))
        return rewards

    def scenario(self, key: str) -> Scenario:
        """The scenario of a name.

        Raises:
            DataError: there is none.
        """
        if key not in self.scenarios:
            near = did_you_mean(str(key), list(self.scenarios))
            raise DataError(f"REMIDReward: no scenario is called {key!r}, of {len(self.scenarios)}.{near}")
        return self.scenarios[key]

    def take_references(self) -> None:
        """Scores every reference beforehand. All processes call it together; each scores its share."""
        found = references(self.scorer, list(self.scenarios.values()), self.weights.agreement > 0, self.others)
        self.references |= found

    def take_baselines(self, parents: Sequence[Scenario], answers: Sequence[Response | tuple[str, str]]) -> list[str]:
        """b(x) of R1 from what the policy answers before it is trained. All processes call it together.

        Without baselines, b(x) is 0: a shifted scenario then earns R-EMI and not negative R-EMID, which moves every reward
        of a group alike.

        Args:
            parents: the ID scenarios that shifted ones were made of; of one that comes several times the mean counts.
            answers: of the policy to each: `Response`s, or (text, status).

        Returns:
            sample_ids of the parents that have no baseline, as no answer or no reference of theirs has a score.

        Raises:
            ConfigError: not one answer each, an answer to another scenario, or something that is none.
        """
        if len(parents) != len(answers):
            raise ConfigError(
                f"take_baselines: {len(answers)} answers to {len(parents)} parents; expected a (text, status) each."
            )
        said = [_said(x, one) for x, one in zip(parents, answers, strict=True)]
        own = dist.share_out(
            lambda part: answered(self.scorer, [x for x, _ in part], [one for _, one in part], others=self.others),
            list(zip(parents, said, strict=True)),
        )
        reference = references(self.scorer, parents, foreign=self.others)
        found: dict[str, list[float]] = {x.sample_id: [] for x in parents}
        for x, fit in zip(parents, own, strict=True):
            ideal = reference[x.sample_id]
            if isinstance(fit, Fit) and isinstance(ideal, Fit):
                found[x.sample_id].append(remi(fit, ideal, self.weights))
        for name, values in found.items():
            # one that was known of an earlier policy is not this one's
            self.baselines.pop(name, None)
            if values:
                self.baselines[name] = sum(values) / len(values)
        return [name for name, values in found.items() if not values]


def references(
    scorer: Scores, scenarios: Sequence[Scenario], reasoned: bool = False, foreign: Others | None = None
) -> dict[str, Fit | str]:
    """How each y* fits its scenario, by sample_id; all processes call it together."""
    found = dist.share_out(lambda part: fits(scorer, part, _ideal(part), reasoned, foreign), scenarios)
    return {x.sample_id: fit for x, fit in zip(scenarios, found, strict=True)}


def _said(x: Scenario, answer: Response | tuple[str, str]) -> tuple[str, str]:
    if isinstance(answer, Response):
        if answer.sample_id != x.sample_id:
            raise ConfigError(f"take_baselines: an answer to {answer.sample_id!r} stands at the parent {x.sample_id!r}.")
        return answer.text, answer.status
    if isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, str) for part in answer):
        return answer
    raise ConfigError(f"take_baselines: an answer is {answer!r:.60}; expected a coevo.Response, or (text, status).")


def readable(scorer: Scores, scenario: Scenario) -> bool:
    """Whether a scenario's prompt and reference are within what the scorer reads at once."""
    inner = scorer.scorer if isinstance(scorer, ReasonedScorer) else scorer
    return not isinstance(inner, Scorer) or inner.reads(scenario)


def _ideal(scenarios: Sequence[Scenario]) -> list[str]:
    return [x.reference for x in scenarios]
