"""Attribution by a density that knows only which words the context has: what words alone say of user, character, dialogue.

    python -m tests.bench.word_cache FILE --out DIR [--fit SPLIT ...] [--judge SPLIT ...] [--seed S]

Of every word w, p(w | x) is a mixture of its share in what is fitted on and of its shares in the persona, the card and the
dialogue, as far as these are shown; the four weights are fitted by EM. Beside a scorer that fails `coevo calibrate --data`
it tells whether there is anything to be seen in the file.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from coevo.calibration import file_report as report
from coevo.calibration.cache import Cache
from coevo.calibration.file_attribution import attribute
from coevo.calibration.report import console
from coevo.calibration.settings import Settings
from coevo.data import read_rpgbench
from coevo.prompts import character_text
from coevo.scoring.scorer import Ask
from coevo.types import COMPONENTS, Scenario, Score

END = "</s>"
UNSEEN = 20_000
"""Words that exist and were not seen; each counts as half a sight."""
ROUNDS = 8


@cache
def shares(text: str) -> dict[str, float]:
    """Word -> its share in a text."""
    counts = Counter(words(text))
    return {word: n / counts.total() for word, n in counts.items()}


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def shown(x: Scenario) -> dict[str, dict[str, float]]:
    dialogue = "\n".join(turn.text for turn in x.dialogue)
    return {"u": shares(x.persona), "c": shares(character_text(x.character)), "d": shares(dialogue)}


class WordCache:
    """A scorer in the library's sense."""

    def __init__(self, fitted: Sequence[Scenario], name: str) -> None:
        self.version = f"word-cache/{name}"
        said = [words(text) for x in fitted for text in (x.reference, *(turn.text for turn in x.dialogue))]
        self._seen = Counter(word for text in said for word in (*text, END))
        self._whole = self._seen.total() + 0.5 * (len(self._seen) + UNSEEN)
        self._weights = {"": 0.7} | dict.fromkeys(COMPONENTS, 0.1)
        for _ in range(ROUNDS):
            expected: Counter[str] = Counter()
            for x in fitted:
                context = shown(x)
                for word in (*words(x.reference), END):
                    parts = self._parts(word, context)
                    for name, part in parts.items():
                        expected[name] += part / sum(parts.values())
            self._weights = {name: expected[name] / expected.total() for name in self._weights}

    def __str__(self) -> str:
        return "weights: " + ", ".join(f"{name or 'any text'} {weight:.3f}" for name, weight in self._weights.items())

    def score(self, asks: Sequence[Ask]) -> list[Score]:
        """Likelihoods in the order asked."""
        return [self._score(ask) for ask in asks]

    def _score(self, ask: Ask) -> Score:
        context = {z: law for z, law in shown(ask.scenario).items() if z not in ask.drop}
        whole = self._weights[""] + sum(self._weights[z] for z in context)
        text = (*words(ask.text), END)
        return Score(sum(math.log(sum(self._parts(word, context).values()) / whole) for word in text), len(text))

    def _parts(self, word: str, context: dict[str, dict[str, float]]) -> dict[str, float]:
        parts = {"": self._weights[""] * (self._seen[word] + 0.5) / self._whole}
        return parts | {z: self._weights[z] * law.get(word, 0.0) for z, law in context.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fit", nargs="+", default=["IDTrain"])
    parser.add_argument("--judge", nargs="+", default=["IDTest", "OOD1Test", "OOD2Test", "OOD3Test"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scorer = WordCache(list(read_rpgbench(options.file, options.fit)), "+".join(options.fit))
    print(scorer)
    settings = Settings(seed=options.seed)
    judged = list(read_rpgbench(options.file, options.judge))
    result = attribute(scorer, judged, settings, Cache(options.out, settings), lambda done, total: None)
    report.write(options.out, result)
    print(console(result))


if __name__ == "__main__":
    main()
