"""What reasoning and CoRL are worth: perplexity of the references, with and without, by shift and with intervals.

Perplexity is exp(-sum of nats / sum of tokens) over the references of a shift, end of turn included: the scorer's, not the
role-playing model's. Variants are compared on the same scenarios: what one of them cannot score is left out of all. A
variant that scores fewer than half of a shift's scenarios is not compared there, and the table says why.

Shape suffixes: N scenarios, S runs (seeds), V variants, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coevo.errors import ScoreError
from coevo.escape import plain
from coevo.maths.stats import Floats, bootstrap, interval, run_multipliers, stratum_seed
from coevo.scoring.claims import LEAST
from coevo.types import Score, shift_of

CORL, COLD, WITHOUT = "reasoning + CoRL", "without CoRL", "without reasoning"
WITHHELD, ORACLE, EXACT = "CoRL's scorer, no reasoning shown", "CoRL's scorer, oracle's reasoning", "exact density"
VARIANTS = (CORL, COLD, WITHOUT, WITHHELD, ORACLE, EXACT)
"""The paper's three rows, and three that say where a difference comes from: what CoRL's scorer knows by itself and, in the
world alone, what it would do with perfect reasonings, and the least that any scorer can reach."""
SHIFTS = ("id", "user", "character", "dialogue")
LEAST_SCORED = 0.5
"""Share of a shift's scenarios that a variant must score to be compared there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reference, read by one variant."""

    sample_id: str
    subset_tag: str
    variant: str
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """For one line of JSON."""
        nats = self.score.logprob_nats if self.score.status == "ok" else None
        return {
            "sample_id": self.sample_id,
            "subset_tag": self.subset_tag,
            "variant": self.variant,
            "logprob_nats": nats,
            "n_tokens": self.score.n_tokens,
            "status": self.score.status,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Reading:
        """The inverse of `to_dict`."""
        nats = float("nan") if record["logprob_nats"] is None else record["logprob_nats"]
        score = Score(nats, record["n_tokens"], record["status"])
        return cls(record["sample_id"], record["subset_tag"], record["variant"], score)


def tabulate(runs: Sequence[Sequence[Reading]], resamples: int, seed: int) -> dict[str, Any]:
    """The ablation's table from the readings of one run or of several that differ by their seed.

    Perplexities are means over runs of each run's own; intervals come of drawing runs, and scenarios, again. Beside each
    stands its ratio to `reasoning + CoRL`, paired, whose interval says whether the two differ beyond noise. Runs are
    drawn by Student's t of S - 1 degrees of freedom, of logarithms: two or three have wide intervals.

    Args:
        runs: per run, its readings; every run of the same scenarios and variants.
        resamples: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        ScoreError: runs of different scenarios or variants, or a reading twice.
    """
    if not runs or not runs[0]:
        raise ScoreError("ablation: no readings; run a recipe with corl.ablation=true first.")
    tables = [_table(readings) for readings in runs]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise ScoreError(
            "ablation: the runs were measured on different scenarios or variants; give runs of one recipe that differ by "
            "their seed alone."
        )
    variants = [name for name in VARIANTS if any(variant == name for _, _, variant in tables[0])]
    scenarios = list(dict.fromkeys((sample_id, tag) for sample_id, tag, _ in tables[0]))
    if lacking := [(*one, v) for one in scenarios for v in variants if (*one, v) not in tables[0]]:
        raise ScoreError(
            f"ablation.jsonl: {len(lacking)} readings are missing, the first of {lacking[0][0]} by {lacking[0][2]!r}; "
            "expected one of every scenario by every variant. Restore the file, or run the phase `ablation` again."
        )
    entries = {}
    for shift in SHIFTS:
        members = [scenario for scenario in scenarios if shift_of(scenario[1]) == shift]
        if members:
            scores = [[[table[(*member, v)] for v in variants] for member in members] for table in tables]
            entries[shift] = _entry(scores, variants, resamples, stratum_seed(seed, shift))
    return {"unit": "perplexity per token", "runs": len(runs), "resamples": resamples, "seed": seed, "shifts": entries}


def _table(readings: Sequence[Reading]) -> dict[tuple[str, str, str], Score]:
    table = {(r.sample_id, r.subset_tag, r.variant): r.score for r in readings}
    if len(table) < len(readings):
        raise ScoreError(f"ablation.jsonl: {len(readings) - len(table)} readings occur twice; give each run once.")
    return table


def _entry(scores: list[list[list[Score]]], variants: list[str], resamples: int, seed: Sequence[int]) -> dict[str, Any]:
    """One shift: scores by run, scenario and variant (S, N, V)."""
    ok_snv = np.array([[[s.status == "ok" for s in row] for row in run] for run in scores])
    counts = {v: _statuses([row[place] for run in scores for row in run]) for place, v in enumerate(variants)}
    # one that can score next to nothing has no perplexity, and would leave none to the others
    usable = [place for place in range(len(variants)) if ok_snv[:, :, place].mean() >= LEAST_SCORED]
    shared_n = ok_snv[:, :, usable].all(axis=(0, 2)) if usable else np.zeros(len(scores[0]), dtype=bool)
    entry: dict[str, Any] = {"n": int(shared_n.sum()), "n_all": len(scores[0]), "statuses": counts, "variants": {}}
    scores = [[[row[place] for place in usable] for row in run] for run in scores]
    variants = [variants[place] for place in usable]
    if not shared_n.any():
        return entry
    nats_snv = np.array([[[s.logprob_nats for s in row] for row in run] for run in scores])[:, shared_n]
    tokens_snv = np.array([[[s.n_tokens for s in row] for row in run] for run in scores])[:, shared_n]
    value_v, log_rv = _perplexities(nats_snv, tokens_snv, resamples, seed)
    for place, name in enumerate(variants):
        found: dict[str, Any] = {"perplexity": interval(value_v[place], _exp(log_rv[:, place])).to_dict()}
        found["by_run"] = [_perplexity(nats_snv[s, :, place], tokens_snv[s, :, place]) for s in range(len(scores))]
        if CORL in variants and name != CORL:
            first = variants.index(CORL)
            ratio_r = _exp(log_rv[:, place] - log_rv[:, first])
            found["ratio_to_corl"] = interval(value_v[place] / value_v[first], ratio_r).to_dict()
        entry["variants"][name] = found
    return entry


def _perplexities(nats_snv: Floats, tokens_snv: Floats, resamples: int, seed: Sequence[int]) -> tuple[Floats, Floats]:
    """Mean perplexity over runs (V,), and draws of its logarithm (R, V): scenarios, the same for all runs, and runs."""
    by_run_sv = np.exp(-(nats_snv.sum(axis=1) / tokens_snv.sum(axis=1)))

    def statistic(index_rn: Any) -> Floats:
        # one run of the whole table at a time, so that memory does not grow with their number
        pairs = zip(nats_snv, tokens_snv, strict=True)
        by_run = [nats[index_rn].sum(axis=1) / tokens[index_rn].sum(axis=1) for nats, tokens in pairs]
        return np.mean(np.exp(-np.array(by_run)), axis=0)

    log_rv = np.log(bootstrap(statistic, nats_snv.shape[1], resamples, seed))
    log_sv = np.log(by_run_sv)
    drawn_rv = run_multipliers(len(by_run_sv), resamples, [*seed, 1]) @ (log_sv - log_sv.mean(axis=0))
    return by_run_sv.mean(axis=0), log_rv + drawn_rv


def _exp(logs_r: Floats) -> Floats:
    # of two runs a draw may be anywhere; e^700 is as large as a float is
    return np.exp(np.clip(logs_r, -700.0, 700.0))


def _perplexity(nats: Floats, tokens: Floats) -> float:
    return float(np.exp(-nats.sum() / tokens.sum()))


def _statuses(scores: Sequence[Score]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for score in scores:
        counts[score.status] = counts.get(score.status, 0) + 1
    return counts


def markdown(table: Mapping[str, Any]) -> str:
    """The table as Markdown, one row a variant, lower is better, 95 % intervals in brackets."""
    shifts = [shift for shift in SHIFTS if shift in table["shifts"]]
    names = list(dict.fromkeys(v for shift in shifts for v in table["shifts"][shift]["statuses"]))
    lines = ["| perplexity of the reference | " + " | ".join(shifts) + " |", "|---|" + "---:|" * len(shifts)]
    for name in names:
        cells = [_cell(table["shifts"][shift], name) for shift in shifts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    scored = ", ".join(f"{shift} {table['shifts'][shift]['n']} of {table['shifts'][shift]['n_all']}" for shift in shifts)
    note = (
        f"{table['runs']} run(s); scenarios scored by every variant that is compared: {scored}. Lower is better. In "
        "brackets 95 % intervals (scenarios by bootstrap, runs by Student's t). × is the ratio to the first row, paired; "
        "without 1 in it, beyond noise."
    )
    if few := [shift for shift in shifts if table["shifts"][shift]["n"] < LEAST]:
        note += f" Fewer than {LEAST} scenarios, of which no bootstrap makes a 95 % interval: {', '.join(few)}."
    return "\n".join([*lines, "", note]) + "\n"


def _cell(entry: Mapping[str, Any], name: str) -> str:
    found = entry["variants"].get(name)
    if found is None:
        statuses = entry["statuses"][name]
        failed = ", ".join(f"{count} {plain(status)}" for status, count in statuses.items() if status != "ok")
        return f"n/a: of {sum(statuses.values())} not scored {failed}" if failed else "n/a"
    perplexity, ratio = found["perplexity"], found.get("ratio_to_corl")
    text = f"{perplexity['value']:.3f} [{perplexity['low']:.3f}, {perplexity['high']:.3f}]"
    return text if ratio is None else f"{text} ×{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
