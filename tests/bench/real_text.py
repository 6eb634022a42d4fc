"""Rewards of real text put to the audit, with a pretrained model as the scorer, without any tuning.

    python -m tests.bench.real_text MODEL FILE --scenes choose|check|shifted --scores FILE.jsonl [key=value ...]

MODEL is a folder or hub id, FILE dialogues in the RPGBench layout. `choose` takes scenes from the first two fifths of
IDTrain, on which weights may be chosen, `check` its last ones, `shifted` from the OOD splits; the negatives' contexts come
from the fifth in the middle. Likelihoods are kept in --scores as
they come: run again, it goes on, and another choice of weights (`echo=6 overshoot=0`) costs nothing. It prints the audit by
the default reward and by R6. Of the drama file `drama_alternatives.json` has another right answer, written by hand, for each
scene of `check` and for eight of `choose`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coevo.config import Audit, RealText, RewardWeights
from coevo.config.load import parse_yaml
from coevo.data import BATTERIES, Scenario, read_rpgbench
from coevo.lm.lineage import weights_hash
from coevo.lm.loading import load_policy, load_tokenizer, local_directory
from coevo.prompts import INSTRUCT
from coevo.rewards.audit import audit
from coevo.rewards.verdict import table
from coevo.scoring.real_text import Others, draw_others
from coevo.scoring.scorer import Ask, PromptKey, Scorer
from coevo.types import Score

PROMPT, RESPONSE = 512, 64
"""Longest prompt and reference taken, in tokens, as `recipes/smollm2.yaml` has them."""
ALTERNATIVES = Path(__file__).with_name("drama_alternatives.json")
"""sample_ID -> another right answer."""
MOST = 64
"""Scenes of a part."""
ORDER = sorted(range(MOST), key=lambda place: f"{place:06b}"[::-1])
"""In which they are taken: the first few are as evenly spread as all."""
HELD_OUT = 96
"""Samples at the end of IDTrain, of which nothing is looked at before the weights are chosen."""
CONTEXTS_AT_ONCE = 2
"""Contexts whose likelihoods are asked for together, and kept."""


@dataclass
class Kept:
    """A scorer that writes down what it said, and says it again."""

    scorer: Scorer
    path: Path
    until: float
    """Processor's clock at which it stops; it goes on from there when run again."""
    known: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self.known |= json.loads(line)

    @property
    def version(self) -> str:
        """The scorer's."""
        return self.scorer.version

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked; those that are known are not worked out again."""
        names = [self._name(ask) for ask in asks]
        new = {name: ask for name, ask in zip(names, asks, strict=True) if name not in self.known and ask.text}
        groups: dict[PromptKey, list[str]] = {}
        for name, ask in new.items():
            groups.setdefault(ask.context, []).append(name)
        for start in range(0, len(groups), CONTEXTS_AT_ONCE):
            if time.monotonic() > self.until:
                raise SystemExit(f"stopped with {sum(n not in self.known for n in new)} to go; run it again")
            asked = [name for group in list(groups.values())[start : start + CONTEXTS_AT_ONCE] for name in group]
            found = self.scorer.score([new[name] for name in asked])
            told = {name: [s.logprob_nats, s.n_tokens] for name, s in zip(asked, found, strict=True) if s.status == "ok"}
            self.known |= told
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
        return [
            Score(self.known[n][0], int(self.known[n][1])) if n in self.known else Score(float("nan"), 0, "empty")
            for n in names
        ]

    def _name(self, ask: Ask) -> str:
        asked = json.dumps(
            [self.version, self.scorer.prompts.messages("scorer", ask.scenario, ask.drop), ask.text], ensure_ascii=False
        )
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def scenes(path: Path, which: str, tokens: Any, weights: RealText, count: int) -> tuple[list[Scenario], Others]:
    """Evenly spread scenes of a part of the file that are not too long, and the negatives."""

    def short(x: Scenario) -> bool:
        prompt = "\n".join(m["content"] for m in INSTRUCT.messages("scorer", x))
        return len(tokens(prompt)["input_ids"]) <= PROMPT - 40 and 8 <= len(tokens(x.reference)["input_ids"]) <= RESPONSE

    train = list(read_rpgbench(path, ["IDTrain"]))
    n = len(train)
    parts = {"choose": train[: 4 * n // 10], "bank": train[4 * n // 10 : 6 * n // 10], "check": train[-HELD_OUT:]}
    if which == "shifted":
        parts[which] = [x for k in (1, 2, 3) for x in read_rpgbench(path, [f"OOD{k}Test"])]
    usable = [x for x in parts[which] if short(x)]
    written = json.loads(ALTERNATIVES.read_text(encoding="utf-8"))
    spread = [usable[place * len(usable) // MOST] for place in ORDER[:count]]
    spread = [replace(x, alternatives=(written[x.sample_id],)) if x.sample_id in written else x for x in spread]
    return spread, draw_others(short, parts["bank"], weights, 0)


def main() -> None:
    """Scores, and prints both audits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("weights", nargs="*", metavar="key=value")
    parser.add_argument("--scenes", choices=("choose", "check", "shifted"), required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after so many; run again to go on")
    parser.add_argument("--count", type=int, default=8, help=f"scenes, at most {MOST}; more of them go on from fewer")
    options = parser.parse_args()
    given = {key: parse_yaml(text, key) for key, _, text in (pair.partition("=") for pair in options.weights)}
    weights = RealText.model_validate({"kind": "real_text"} | given)
    model = load_policy(options.model, None, trainable=False, dtype="bfloat16")
    version = weights_hash(local_directory(options.model))
    scorer = Scorer(model, load_tokenizer(options.model), version, INSTRUCT, PROMPT + RESPONSE + 200, 4096)
    kept = Kept(scorer, options.scores, time.monotonic() + 60 * options.minutes)
    chosen, others = scenes(options.file, options.scenes, scorer.tokenizer, weights, options.count)
    cases = BATTERIES["file"](chosen, 0)
    config = Audit(at_least=0.9)
    real = audit(kept, cases, weights, config, 0, others=others)
    print(table(audit(kept, cases, RewardWeights(), config, 0)))
    print(table(real))


if __name__ == "__main__":
    main()
