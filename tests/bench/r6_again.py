"""What R6, the reward for real text, says of a run's answers before and after, by a scorer that rewarded nothing too.

    python -m tests.bench.r6_again RUN

RUN is a folder of `coevo train` with `evaluation.second_scorer` and the weights of kind real_text. Its test answers are
those that the two evaluations wrote; the answers to held-out ID scenarios (`data.dev`) are written anew, greedily, as in
acceptance. Nothing is written into the folder. Answers that run into the limit count, as in the reward; the interval is of
the paired change, 2,000 resamples of scenarios.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coevo.layout import align
from coevo.loop.context import Context
from coevo.loop.estimator import estimator, others
from coevo.loop.material import load_material
from coevo.loop.phases import SharedScorer
from coevo.maths.stats import bootstrap_mean
from coevo.plan.plan import plan
from coevo.progress import Silent
from coevo.rewards.parts import Fit, answered, fits, remi
from coevo.runs.folder import RunFolder, read_rows
from coevo.runs.record import with_own_data
from coevo.scoring.evaluate import Scores
from coevo.types import Scenario

Answers = Sequence[tuple[str, str]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    root = parser.parse_args().run
    folder, recipe = RunFolder.open(root)
    recipe = with_own_data(root, recipe)
    phases = plan(recipe)
    context = Context(recipe, folder, load_material(recipe), phases, Silent())
    tests, before, after = _evaluated(context, root)
    dev = [x for x in context.material.id_dev if context.fits("rpm", x)]
    first, last = (
        context.phase_name("sft-rpm"),
        next(phase.name for phase in reversed(phases) if phase.name.endswith(f"rpm-{recipe.loop.iterations}")),
    )
    sets: dict[str, tuple[Sequence[Scenario], Answers, Answers]] = {
        "ID, held out": (dev, _written(context, first, dev), _written(context, last, dev))
    }
    for shift in dict.fromkeys(x.shift for x in tests):
        places = [n for n, x in enumerate(tests) if x.shift == shift]
        sets[f"{shift}, tests"] = (
            [tests[n] for n in places],
            [before[n] for n in places],
            [after[n] for n in places],
        )
    second = context.scorer(context.phase_name("sft-second"))
    scorers: dict[str, Scores] = {"rewards": estimator(context), "rewards nothing": second}
    lines = [["", "n", "at the limit", "scorer that", "before", "after", "change"]]
    for name, (scenarios, old, new) in sets.items():
        for who, scorer in scorers.items():
            worth = [_worth(context, scorer, scenarios, answers) for answers in (old, new)]
            lines.append([name, str(len(scenarios)), f"{_cut(old)} -> {_cut(new)}", who, *_figures(*worth)])
            print(" · ".join(lines[-1]), flush=True)
    print("\nR6 less the reference's, in nats per root of a token; 0 is the reference's level.\n")
    print(align(lines))


def _evaluated(context: Context, root: Path) -> tuple[list[Scenario], Answers, Answers]:
    known = {x.sample_id: x for x in context.material.tests}
    rows = [list(read_rows(root / "evaluation" / f"{name}.jsonl")) for name in ("sft", "final")]
    assert [row["sample_id"] for row in rows[0]] == [row["sample_id"] for row in rows[1]]
    # what loops or echoes was whole: the status is of the measure
    said = [[(row["response"], row["status"] if row["status"] == "truncated" else "ok") for row in half] for half in rows]
    return [known[row["sample_id"]] for row in rows[0]], said[0], said[1]


def _written(context: Context, phase: str, scenarios: Sequence[Scenario]) -> Answers:
    return [(a.text, a.status) for a in context.respond(context.load(phase, trainable=False), f"rpm/{phase}", scenarios)]


def _worth(context: Context, scorer: Scores, scenarios: Sequence[Scenario], answers: Answers) -> np.ndarray:
    """R6 less the reference's, (N,); NaN for what has none."""
    foreign, weights = others(context, scorer), context.recipe.weights  # type: ignore[arg-type]
    shared = SharedScorer(scorer)
    own = fits(shared, scenarios, [x.reference for x in scenarios], False, foreign)
    found = answered(shared, scenarios, answers, False, foreign)
    both = zip(found, own, strict=True)
    return np.array([remi(f, r, weights) if isinstance(f, Fit) and isinstance(r, Fit) else np.nan for f, r in both])


def _cut(answers: Answers) -> int:
    return sum(status == "truncated" for _, status in answers)


def _figures(old: np.ndarray, new: np.ndarray) -> list[str]:
    known = ~np.isnan(old) & ~np.isnan(new)
    change = bootstrap_mean(new[known] - old[known], 2000, 0)
    means = f"{old[known].mean():.2f}", f"{new[known].mean():.2f}"
    return [*means, f"{change.value:+.2f} [{change.low:.2f}, {change.high:.2f}]"]


if __name__ == "__main__":
    main()
