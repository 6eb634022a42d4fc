"""Before and after in words and numbers: table.md, results.json, and the table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.errors import DataError
from coevo.layout import align
from coevo.maths.stats import Interval
from coevo.report import drift
from coevo.report.read import Run, read_run
from coevo.scoring import verdict as audit

COLUMNS: tuple[tuple[str, str, float], ...] = (
    ("share_right", "right (%)", 100.0),
    ("remi", "R-EMI", 1.0),
    ("register_gap", "M", 1.0),
    ("likelihood_gap", "R-EMI + M", 1.0),
    ("remid", "R-EMID", 1.0),
)
"""Key in the evaluation dict, heading, and factor of every measure shown; R-EMI never without M beside it."""
ABSENT = "n/a"
LEGEND = (
    "R-EMI: what the responses lost of their context, against the references (nats per response; 0 is the reference's "
    "level, lower is worse). M, the register gap: the likelihood lost that no context explains. R-EMI + M: the whole "
    "likelihood gap. R-EMID: R-EMI on ID minus R-EMI under the shift; above 0, the shift costs. In brackets, 95 % "
    "intervals (bootstrap over scenarios). Change: after minus before, paired by scenario."
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a subset or shift, measured before or after, or the change between."""

    name: str
    shift: str
    moment: str
    """before, after or change."""
    counts: str
    """Scored of all scenarios."""
    cells: tuple[str, ...]
    """One per column of `COLUMNS`."""


def lines(run: Run, level: str) -> list[Line]:
    """The table's lines, for `shifts` (means over subsets) or `subsets`, in the evaluation's order."""
    moments = {"before": run.before, "after": run.after, "change": run.change}
    names = dict.fromkeys(name for evaluation in moments.values() if evaluation for name in evaluation[level])
    return [
        _line(name, moment, evaluation[level][name])
        for name in names
        for moment, evaluation in moments.items()
        if evaluation and name in evaluation[level]
    ]


def stamp(run: Run) -> str:
    """The line without which the numbers mean nothing: how they were measured."""
    evaluation = run.after or run.before
    if not evaluation:
        return "Nothing has been measured yet."
    n = sum(entry["n"] for entry in evaluation["subsets"].values())
    negatives = {"pool": "pool (all subsets together)", "subset": "subset (within each)"}
    return (
        f"Estimator {evaluation['estimator']}; scale {evaluation['scale']} ({unit(evaluation)}); N = {n}; "
        f"K = {negatives_words(evaluation)}; "
        f"negatives {negatives.get(evaluation['negatives'], evaluation['negatives'])}; seed {evaluation['seed']}; "
        f"{evaluation['resamples']} resamples; scorer {evaluation['scorer'][:12]}{_refreshed(run)}."
    )


def _refreshed(run: Run) -> str:
    # the game, which a refresh follows, is of one method alone
    plays = (run.recipe.get("method") or {}).get("kind", "coevolution") == "coevolution"
    every = (run.recipe.get("corl") or {}).get("refresh_every") if plays else None
    return f", the first estimator (the game's was refreshed every {every} iteration(s))" if every else ""


def unit(evaluation: dict[str, Any]) -> str:
    """What the measures are counted in."""
    return "nats per token" if evaluation["scale"] == "token_mean" else "nats per response"


def negatives_words(evaluation: dict[str, Any]) -> str:
    """How many other contexts a response was set against."""
    words = {"learned_marginal": "none (the empty context)", "released": "random pairs, 1,000 a subset"}
    return words.get(evaluation["estimator"], str(evaluation["k"]))


def verdicts(run: Run) -> list[str]:
    """Whether R-EMI on ID moved, then R-EMID per shift: by the paired change, or by the intervals if there is none."""
    if not (run.before and run.after and run.comparable):
        return []
    sentences = [_anchor(run.change)] if run.change else []
    for shift, entry in run.after["shifts"].items():
        before = read_interval(run.before["shifts"].get(shift, {}).get("remid"))
        after = read_interval(entry.get("remid"))
        if before and after:
            change = read_interval(run.change["shifts"].get(shift, {}).get("remid")) if run.change else None
            sentences.append(_verdict(shift, before, after, change))
    return sentences


def decisions(run: Run) -> list[str]:
    """One sentence per iteration on whether its role-playing model was kept; a refused one leaves the old in force."""
    sentences = []
    for row in run.metrics:
        if "kept" in row:
            measure = "R6" if "id_r6_change_nats" in row else "R-EMI"
            change = row.get("id_r6_change_nats", row.get("id_remi_change_nats"))
            moved = "could not be measured" if change is None else f"changed by {change:+.2f} nats"
            outcome = "kept" if row["kept"] else "refused, the one before stays in force"
            sentences.append(f"Iteration {row.get('iteration')}: {measure} on held-out ID {moved}; new model {outcome}.")
    return sentences


def lessons(run: Run) -> list[str]:
    """One sentence per iteration on what its simulator learnt, pair by pair on frames that it was not trained on."""
    sentences = []
    for row in run.metrics:
        if "pass_rate_change" in row:
            parts = [
                f"{title} {row[f'{key}_parent']:.2f} -> {row[f'{key}_trained']:.2f} "
                f"(change {row[f'{key}_change']:+.2f} [{row[f'{key}_low']:.2f}, {row[f'{key}_high']:.2f}])"
                for key, title in (("regret", "regret"), ("pass_rate", "share that passes"), ("reward", "reward"))
                if f"{key}_change" in row
            ]
            sentences.append(f"Iteration {row['iteration']}, simulator on {row['n']} new frames: {'; '.join(parts)}.")
    return sentences


def read_interval(record: dict[str, float] | None) -> Interval | None:
    """An interval of the evaluation dict; None for a measure that is absent or null."""
    return Interval(**record) if record else None


def markdown(run: Run) -> str:
    """table.md."""
    parts = [f"# {run.name}: before and after", *run.missing, stamp(run), LEGEND]
    parts += [*lessons(run), *decisions(run), *verdicts(run)]
    for title, level in (("Means per shift", "shifts"), ("Per subset", "subsets")):
        table = lines(run, level)
        if table:
            parts.append(f"## {title}\n\n{_markdown_table(table, level)}")
    if run.second:
        parts += ["## By a second scorer, which rewards nothing", drift.stamp(run), *drift.verdicts(run)]
        parts.append(_pipes(drift.table(run), names=2))
        parts += [f"{drift.LEGEND} {drift.RANKS}", _pipes(drift.ranks(run), names=1)]
    if run.audit:
        parts += ["## Audit of the reward", audit.heading(run.audit), _pipes(audit.cells(run.audit), names=2)]
        parts.append(audit.conclusion(run.audit))
    return "\n\n".join(parts) + "\n"


def results(run: Run) -> str:
    """results.json: both evaluation dicts, the paired change, and the sentences."""
    record = {
        "run": run.name,
        "before": run.before,
        "after": run.after,
        "change": run.change,
        "second_scorer": drift.as_json(run),
        "audit": run.audit and run.audit.as_json(),
        "lessons": lessons(run),
        "decisions": decisions(run),
        "verdicts": verdicts(run),
        "missing": run.missing,
    }
    return json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def console_table(run_dir: str | Path) -> str:
    """The before/after table as plain text, about 90 characters wide; intervals are in the report."""
    run = read_run(run_dir)
    blocks = [*run.missing, stamp(run)]
    head = ["", *(heading for _, heading, _ in COLUMNS)]
    body: list[list[str]] = []
    for level in ("shifts", "subsets"):
        evaluations = [evaluation[level] for evaluation in (run.before, run.after) if evaluation]
        names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation))
        body += [[_title(name, level), *_arrows(run, level, name)] for name in names]
        if level == "shifts" and names:
            body.append([])
    if body:
        blocks.append(align([head, *body]))
    return "\n".join([*blocks, *lessons(run), *decisions(run), *verdicts(run), *drift.verdicts(run)])


def audit_table(run_dir: str | Path) -> str:
    """The audit of a run's reward as plain text.

    Raises:
        DataError: there is none.
    """
    found = read_run(run_dir).audit
    if found is None:
        raise DataError(f"{run_dir}: its reward has not been audited yet; run coevo audit --resume {run_dir}.")
    return audit.table(found)


def _line(name: str, moment: str, entry: dict[str, Any]) -> Line:
    cells = tuple(_cell(entry.get(key), factor, signed=moment == "change") for key, _, factor in COLUMNS)
    scored = entry["statuses"].get("ok", 0)
    return Line(name, entry.get("shift", name), moment, f"{scored} of {entry['n']}", cells)


def _cell(record: dict[str, float] | None, factor: float, signed: bool) -> str:
    if not record:
        return ABSENT
    value, low, high = (record[name] * factor for name in ("value", "low", "high"))
    digits = 0 if factor == 100.0 and not signed else 1 if factor == 100.0 else 2
    return f"{value:{'+' if signed else ''}.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _verdict(shift: str, before: Interval, after: Interval, change: Interval | None) -> str:
    moved = f"{shift} shift: {before.value:.2f} nats before, {after.value:.2f} after"
    noise = before.overlaps(after) if change is None else change.low <= 0 <= change.high
    paired = "" if change is None else f" (paired change {change.value:+.2f} [{change.low:.2f}, {change.high:.2f}])"
    if noise:
        return f"{moved}{paired}. R-EMID did not move beyond noise."
    direction = "fell" if after.value < before.value else "rose"
    overlap = " The two intervals overlap, but the paired change excludes 0." if before.overlaps(after) else ""
    return f"{moved}{paired}. R-EMID {direction}.{overlap}"


def _anchor(change: dict[str, Any]) -> str:
    """R-EMID also falls when a model gets worse on ID, so that is said first."""
    remi = read_interval(change["shifts"].get("id", {}).get("remi"))
    if not remi:
        return "id: R-EMI could not be compared, so neither can R-EMID."
    moved = f"id: paired change of R-EMI {remi.value:+.2f} [{remi.low:.2f}, {remi.high:.2f}] nats"
    if remi.high < 0:
        return f"{moved}. R-EMI on ID fell: what R-EMID lost by that is no gain under the shifts."
    return f"{moved}. R-EMI on ID {'rose' if remi.low > 0 else 'did not move beyond noise'}."


def _title(name: str, level: str) -> str:
    return f"{name} (mean)" if level == "shifts" else name


def _markdown_table(table: Sequence[Line], level: str) -> str:
    heads = ["subset" if level == "subsets" else "shift", "", "scored", *(heading for _, heading, _ in COLUMNS)]
    rows = [[line.name.replace("|", "\\|"), line.moment, line.counts, *line.cells] for line in table]
    return _pipes([heads, *rows], names=2)


def _pipes(rows: Sequence[Sequence[str]], names: int) -> str:
    """A Markdown table of cells, the head first; so many first columns are text."""
    rule = ["---" if place < names else "---:" for place in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def _arrows(run: Run, level: str, name: str) -> list[str]:
    cells = []
    for key, _, factor in COLUMNS:
        digits = 0 if factor == 100.0 else 1
        values = [_number(evaluation, level, name, key) for evaluation in (run.before, run.after)]
        shown = ["-" if value is None else f"{value * factor:.{digits}f}" for value in values]
        cells.append(" -> ".join(shown) if shown != ["-", "-"] else "-")
    return cells


def _number(evaluation: dict[str, Any] | None, level: str, name: str, key: str) -> float | None:
    record = evaluation[level].get(name, {}).get(key) if evaluation else None
    return record["value"] if record else None
