"""The reasoner q1 in use, and a scorer that reads each scenario with its reasoning: together R-EMI's q2(y|x,r)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coevo.lm.generation import generate
from coevo.lm.likelihood import encode_prompt, render
from coevo.prompts import Prompts
from coevo.scoring.reasoning import parse
from coevo.scoring.scorer import Ask, Scorer
from coevo.types import Reasoning, Scenario, Score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def scenario_key(scenario: Scenario) -> str:
    """What a reasoning depends on, hashed: persona, character and dialogue, not the sample's name or reference."""
    turns = [(turn.role, turn.text) for turn in scenario.dialogue]
    character = scenario.character if isinstance(scenario.character, str) else dict(scenario.character)
    text = json.dumps([scenario.persona, character, turns], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Reasoner:
    """A frozen reasoner with its sections, limits, version, and the reasonings that are known already."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    version: str
    """Stamp of its weights and its base's settings; reasonings are kept by scenario and version."""
    sections: tuple[str, ...]
    prompts: Prompts
    max_prompt: int
    max_new_tokens: int
    known: MutableMapping[str, Reasoning] = field(default_factory=dict)
    """By `scenario_key`; filled by the caller alone, so that what is written does not depend on what came before."""
    temperature: float = 0.0
    """0 is greedy; above it, a reasoning is drawn by a seed of its scenario's content."""

    def reason(self, scenarios: Sequence[Scenario]) -> list[Reasoning]:
        """The reasoning of each scenario, in order: known, or written now, equal scenarios once."""
        keys = [scenario_key(x) for x in scenarios]
        missing = {key: x for key, x in zip(keys, scenarios, strict=True) if key not in self.known}
        found = dict(zip(missing, self.write(list(missing.values())), strict=True))
        return [found[key] if key in found else self.known[key] for key in keys]

    def write(self, scenarios: Sequence[Scenario]) -> list[Reasoning]:
        """Writes a reasoning for each scenario on this process."""
        asked = [self.prompts.messages("reasoner", x) for x in scenarios]
        prompts = [encode_prompt(self.tokenizer, render(self.tokenizer, one)) for one in asked]
        room = [place for place, prompt in enumerate(prompts) if len(prompt) <= self.max_prompt]
        written = generate(
            self.model,
            self.tokenizer,
            [prompts[place] for place in room],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seeds=[int(scenario_key(scenarios[place])[:8], 16) % 2**31 for place in room],
        )
        result = [Reasoning("", "too_long", 0.0)] * len(scenarios)
        for place, text in zip(room, written, strict=True):
            result[place] = parse(text.text, self.sections, text.status)
        return result


@dataclass(frozen=True)
class Written:
    """Reasonings that are all there already, in the place of the reasoner that wrote them."""

    version: str
    known: Mapping[str, Reasoning]
    """By `scenario_key`."""

    def reason(self, scenarios: Sequence[Scenario]) -> list[Reasoning]:
        """The reasoning of each scenario, in order."""
        return [self.known[scenario_key(x)] for x in scenarios]


@dataclass(frozen=True)
class ReasonedScorer:
    """A scorer that is asked about scenarios and reads each with its reasoning, wherever nothing is dropped.

    It takes a `Scorer`'s place: same questions, same answers, and one more status. With a component dropped, the
    reasoning is not shown, as it would leak it (A1); `drop=NO_REASONING` asks for log q2(y|x) alone.
    """

    scorer: Scorer
    reasoner: Reasoner | Written

    @property
    def version(self) -> str:
        """Of both: the scorer's and the reasoner's hashes, joined by a plus sign."""
        return f"{self.scorer.version}+{self.reasoner.version}"

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; status `reasoning` where a scenario has no whole one."""
        return self.score_by(self.scorer.score, asks)

    def score_by(self, score_fn: Callable[[Sequence[Ask]], list[Score]], asks: Sequence[Ask]) -> list[Score]:
        """The same with the scorer asked through a function, which may keep what it said; it is called once."""
        whole = {id(ask.scenario): ask.scenario for ask in asks if not ask.drop}
        reasonings = dict(zip(whole, self.reasoner.reason(list(whole.values())), strict=True))
        scored: list[Ask] = []
        places: list[int] = []
        for place, ask in enumerate(asks):
            reasoning = None if ask.drop else reasonings[id(ask.scenario)]
            if reasoning is None or reasoning.status == "ok":
                places.append(place)
                scored.append(ask if reasoning is None else replace(ask, reasoning=reasoning.text))
        result = [Score(math.nan, 0, "reasoning")] * len(asks)
        for place, score in zip(places, score_fn(scored), strict=True):
            result[place] = score
        return result


Estimator = Scorer | ReasonedScorer
"""What likelihoods are made of: the scorer alone (EMI), or with its reasoner (R-EMI)."""
