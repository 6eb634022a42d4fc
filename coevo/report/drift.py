"""Two scorers on one change: does the one that never rewarded see the gain too? (method, section 5)

Both were tuned alike, each on its own half of the data. What the RPM learnt of its task both see. What it learnt of the
first scorer's own mistakes only the first sees: then the reward is being gamed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from coevo.maths.correlation import correlate
from coevo.report.read import Record, Run
from coevo.scoring.claims import LEAST, beyond, scored, shown, sign, unread
from coevo.scoring.summary import Row
from coevo.types import shift_of

MEASURES = (("likelihood_gap", "R-EMI + M"), ("remid", "R-EMID"))
"""What is compared: the gap that the rewards close, and the paper's measure."""
RESAMPLES = 300
"""Of a rank correlation, whose time grows with the square of the scenarios."""
LEGEND = (
    "First: the scorer whose likelihoods rewarded the training. Second: one tuned apart, on the other half of the data and "
    "from another seed, which rewarded nothing. First less second: the change by the first minus the change by the second, "
    "paired by scenario. Its interval above 0 in R-EMI + M is drift: the first scorer sees more gain than the second, as it "
    "does where a model learns to please it. A sharper scorer gives larger numbers of nats to the same text, so look first "
    "at whether the second sees a gain at all."
)
RANKS = "How alike the two rank scenarios by R-EMI + M: Spearman's correlation, 1 for the same order."
REASONED = "The first scorer reads reasonings, the second none: a part of what they differ by may be that."


LEADS = {
    "drift": "Drift: the scorer that rewards sees a gain that the second one does not, on {}.",
    "more": "Both scorers see a gain; the one that rewards sees more of it, beyond noise, on {}.",
    "subset": "In the mean the scorer that rewards sees no more gain than the second one, but it does in part, on {}.",
    "unknown": "Whether the scorer that rewards sees more gain than the second one cannot be told on {}.",
}
"""By finding, the worst first, what is said at the beginning."""
NONE = "No drift: the scorer that rewards sees no more gain than the second one, beyond noise."


def stamp(run: Run) -> str:
    """Which two scorers these are; empty without a second one."""
    first, second = run.after or run.before, run.second and (run.second.after or run.second.before)
    return f"First scorer {first['scorer'][:12]}, second scorer {second['scorer'][:12]}." if first and second else ""


def table(run: Run) -> list[list[str]]:
    """Before, after and change per shift, by either scorer; the head first. Nothing but the head without a second scorer."""
    head = ["shift", ""]
    for _, heading in MEASURES:
        head += [f"{heading}, first", "second", "first less second"]
    rows = [head]
    if run.second is None:
        return rows
    moments = {
        "before": (run.before, run.second.before, None),
        "after": (run.after, run.second.after, None),
        "change": (run.change, run.second.change, run.excess),
    }
    for shift in _shifts(run):
        for moment, evaluations in moments.items():
            if evaluations[0] and evaluations[1]:
                cells = [_cell(evaluation, shift, name) for name, _ in MEASURES for evaluation in evaluations]
                rows.append([shift, moment, *cells])
    return rows


def ranks(run: Run) -> list[list[str]]:
    """How alike the two scorers rank scenarios, per shift: Spearman's correlation of R-EMI + M; the head first."""
    rows = [["shift", "scenarios", "before", "after", "change"]]
    for shift, found in correlations(run).items():
        known = [record for record in found.values() if record]
        most = max((record["n"] for record in known), default=0)
        rows.append([shift, str(most), *(_coefficient(found[moment]) for moment in ("before", "after", "change"))])
    return rows


def correlations(run: Run) -> dict[str, dict[str, Record | None]]:
    """By shift and moment, Spearman's correlation of the two scorers' R-EMI + M over scenarios; None where there is none."""
    if run.second is None:
        return {}
    pairs = {
        "before": (run.rows_before, run.second.rows_before),
        "after": (run.rows_after, run.second.rows_after),
        "change": (run.changed_rows, run.second.changed_rows),
    }
    seed = (run.before or run.after or {}).get("seed", 0)
    return {
        shift: {moment: _correlation(first, second, shift, seed) for moment, (first, second) in pairs.items()}
        for shift in _shifts(run)
    }


def verdicts(run: Run) -> list[str]:
    """Per shift, whether the first scorer sees more gain in R-EMI + M than the second, beyond noise; a conclusion first."""
    if run.second is None:
        return []
    if run.after is None:
        return ["Whether the two scorers see the same gain will be said after the last evaluation."]
    if run.excess is None:
        return ["Whether the two scorers see the same gain cannot be said: their evaluations cannot be compared."]
    judged = {shift: _judged(run, shift) for shift in _shifts(run)}
    sentences = [sentence for shift in judged if (sentence := _sentence(run, shift, judged[shift][1]))]
    if not sentences:
        return [
            "Whether the two scorers see the same gain cannot be said: no scenario was scored by both, before and after."
        ]
    by_finding = {kind: [shift for shift, (found, _) in judged.items() if found == kind] for kind in LEADS}
    lead = next((text.format(", ".join(by_finding[kind])) for kind, text in LEADS.items() if by_finding[kind]), NONE)
    return [lead, *([REASONED] if "+" in run.excess["scorer"].partition(" - ")[0] else []), *sentences]


def to_dict(run: Run) -> Record | None:
    """For results.json; None without a second scorer."""
    if run.second is None:
        return None
    evaluations = {"before": run.second.before, "after": run.second.after, "change": run.second.change}
    return {**evaluations, "first_less_second": run.excess, "correlations": correlations(run), "verdicts": verdicts(run)}


def _judged(run: Run, shift: str) -> tuple[str, str]:
    """What the two scorers' changes under one shift mean: a finding of `LEADS`, or `none`, and words."""
    assert run.second is not None and run.excess is not None
    scale, name = run.excess["scale"], MEASURES[0][0]
    entry = run.excess["shifts"].get(shift, {})
    records = _records(run, shift)
    if not all(records):
        return "unknown", "cannot be told, as no scenario was scored by both, before and after"
    first, second, excess = (sign(record, scale) for record in records)
    if excess > 0 and scored(entry) >= LEAST:
        # a sharper scorer sees more of a gain that is real; one that the other does not see at all is another matter
        if second > 0:
            return "more", "both see a gain, the first one more: a part of it may be the first one's own taste"
        if first > 0:
            return "drift", "only the scorer that rewards sees a gain: the reward is being gamed"
        return "drift", "the two drift apart"
    subsets = {tag: run.excess["subsets"][tag] for tag in entry["subsets"]}
    if ahead := beyond({tag: e[name] for tag, e in subsets.items() if scored(e) >= LEAST}, scale, 1):
        parts = ", ".join(f"{tag} ({shown(subsets[tag][name], scale, signed=True)})" for tag in ahead)
        return "subset", f"no drift beyond noise in the mean, but the first one sees more on {parts}"
    if doubt := _doubt(run, shift, subsets):
        return "unknown", f"whether they drift apart cannot be told: {doubt}"
    if first > 0 and second <= 0:
        return (
            "unknown",
            "whether they drift apart cannot be told: the first sees a gain, and noise may hide the second's",
        )
    if sign(entry.get("remid"), scale) < 0:
        return "subset", f"no drift beyond noise, but in R-EMID the first one sees more ({shown(entry['remid'], scale)})"
    return "none", "no drift beyond noise"


def _doubt(run: Run, shift: str, subsets: Record) -> str:
    """Why two scorers' agreement on a shift says nothing; empty if it says something."""
    few = [tag for tag, entry in subsets.items() if scored(entry) < LEAST]
    if few:
        return f"fewer than {LEAST} scenarios were scored by both on {', '.join(few)}"
    for name, evaluation in (("first", run.after), ("second", run.second and run.second.after)):
        if evaluation and (deaf := unread({shift: evaluation["shifts"][shift]}, evaluation["scale"])):
            told = shown(deaf[shift], evaluation["scale"])
            return f"to the {name} scorer even the references tell nothing of their contexts, beyond noise ({told})"
    return ""


def _sentence(run: Run, shift: str, words: str) -> str:
    """One shift's changes by either scorer; empty where there are none."""
    assert run.excess is not None
    records = [record for record in _records(run, shift) if record]
    if len(records) < 3:
        return ""
    first, second, excess = (shown(record, run.excess["scale"], signed=True) for record in records)
    moved = f"R-EMI + M changed by {first} by the first scorer and by {second} by the second"
    return f"{shift}: {moved}; {words} (first less second {excess})."


def _records(run: Run, shift: str) -> list[Record | None]:
    """The change of R-EMI + M by the first scorer, by the second, and the first less the second."""
    evaluations = (run.change, run.second.change if run.second else None, run.excess)
    return [e["shifts"].get(shift, {}).get(MEASURES[0][0]) if e else None for e in evaluations]


def _shifts(run: Run) -> list[str]:
    evaluations = [evaluation for evaluation in (run.before, run.after) if evaluation]
    return list(dict.fromkeys(shift for evaluation in evaluations for shift in evaluation["shifts"]))


def _cell(evaluation: Record | None, shift: str, name: str) -> str:
    if evaluation is None:
        return ""
    record = evaluation["shifts"].get(shift, {}).get(name)
    return shown(record, evaluation["scale"]) if record else "n/a"


def _correlation(first: Sequence[Row], second: Sequence[Row], shift: str, seed: int) -> Record | None:
    by_id = {row.sample_id: row.likelihood_gap for row in second}
    pairs = [(r.likelihood_gap, by_id.get(r.sample_id, math.nan)) for r in first if shift_of(r.subset_tag) == shift]
    known = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if len(known) < 2:
        return None
    mine, other = zip(*known, strict=True)
    found: dict[str, Any] = correlate(mine, other, "spearman", resamples=RESAMPLES, seed=seed).to_dict()
    return found if found["value"] is not None else None


def _coefficient(record: Record | None) -> str:
    return f"{record['value']:.2f} [{record['low']:.2f}, {record['high']:.2f}]" if record else "n/a"
