"""Before and after in words and numbers: table.md, results.json, and the table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.errors import DataError
from coevo.escape import plain
from coevo.layout import align
from coevo.maths.stats import Measure
from coevo.report import drift
from coevo.report.changes import verdicts
from coevo.report.read import Run, read_run
from coevo.rewards import verdict as audit
from coevo.scoring.claims import digits, scale_of

RIGHT = ("share_right", "right (%)", 100.0)
MEASURES = (
    ("remi", "R-EMI", 1.0),
    ("register_gap", "M", 1.0),
    ("likelihood_gap", "R-EMI + M", 1.0),
    ("remid", "R-EMID", 1.0),
)
"""Key in the evaluation dict, heading, and factor of every measure shown; R-EMI never without M beside it."""
PER_TOKEN = (("remi_per_token", "R-EMI/token", 1.0), ("register_gap_per_token", "M/token", 1.0))
"""Beside the sums where nobody knows what is right: real texts differ in length."""
ABSENT = "n/a"
LEGEND = (
    "R-EMI: what the responses lost of their context, against the references (nats per response; 0 is the reference's "
    "level, lower is worse). M, the register gap: the likelihood lost that no context explains. R-EMI + M: the whole "
    "likelihood gap. R-EMID: R-EMI on ID minus R-EMI under the shift; above 0, the shift costs. In brackets, 95 % "
    "intervals (bootstrap over scenarios). Change: after minus before, paired by scenario."
)
PER_TOKEN_LEGEND = "R-EMI/token and M/token: the same of nats per token, each text by its own length."


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
    """One per column of `columns`."""


def columns(run: Run) -> tuple[tuple[str, str, float], ...]:
    """The measures that a run's tables show: with the share of right slots in the world, and per token for real text."""
    shifts = [entry for found in (run.before, run.after) if found for entry in found["shifts"].values()]
    if any(entry.get("share_right") for entry in shifts) or not any(entry.get("remi_per_token") for entry in shifts):
        return (RIGHT, *MEASURES)
    return (*MEASURES, *PER_TOKEN)


def legend(run: Run) -> str:
    """What the columns mean."""
    return f"{LEGEND} {PER_TOKEN_LEGEND}" if PER_TOKEN[0] in columns(run) else LEGEND


def lines(run: Run, level: str) -> list[Line]:
    """The table's lines, for `shifts` (means over subsets) or `subsets`, in the evaluation's order."""
    moments = {"before": run.before, "after": run.after, "change": run.change}
    names = dict.fromkeys(name for evaluation in moments.values() if evaluation for name in evaluation[level])
    return [
        _line(name, moment, evaluation[level][name], evaluation["scale"], columns(run))
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


def decisions(run: Run) -> list[str]:
    """One sentence per iteration on whether its role-playing model was kept; a refused one leaves the old in force."""
    sentences = []
    for row in run.metrics:
        if "kept" in row:
            measure = "R6" if "id_r6_change_nats" in row else "R-EMI"
            change = row.get("id_r6_change_nats", row.get("id_remi_change_nats"))
            # adding 0 takes the sign off a zero
            moved = "could not be measured" if change is None else f"changed by {round(change, 2) + 0.0:+.2f} nats"
            if change is not None and "n" in row:
                moved += f" (mean of {row['n']} scenarios, without an interval"
                moved += f"; {row['more_unscored']:.0%} more without a score)" if row.get("more_unscored", 0) > 0 else ")"
            outcome = "kept" if row["kept"] else "refused, the one before stays in force"
            sentences.append(f"Iteration {row.get('iteration')}: {measure} on held-out ID {moved}; new model {outcome}.")
    return sentences


def simulator_sentences(run: Run) -> list[str]:
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


def read_interval(record: dict[str, float] | None) -> Measure | None:
    """An interval of the evaluation dict; None for a measure that is absent or null."""
    return Measure(**record) if record else None


def markdown(run: Run) -> str:
    """table.md."""
    parts = [f"# {plain(run.name)}: before and after", *map(plain, (*run.missing, stamp(run), legend(run)))]
    parts += map(plain, (*simulator_sentences(run), *decisions(run), *verdicts(run)))
    for title, level in (("Means per shift", "shifts"), ("Per subset", "subsets")):
        table = lines(run, level)
        if table:
            parts.append(f"## {title}\n\n{_markdown_table(table, level, [heading for _, heading, _ in columns(run)])}")
    if run.second:
        parts += ["## By a second scorer, which rewards nothing", *map(plain, (drift.stamp(run), *drift.verdicts(run)))]
        parts.append(_pipes(drift.table(run), names=2))
        parts += [f"{drift.LEGEND} {drift.RANKS}", _pipes(drift.ranks(run), names=1)]
    if run.audit:
        parts += ["## Audit of the reward", plain(audit.heading(run.audit)), _pipes(audit.cells(run.audit), names=2)]
        parts.append("\n".join(map(plain, audit.conclusion(run.audit).splitlines())))
    return "\n\n".join(parts) + "\n"


def results(run: Run) -> str:
    """results.json: both evaluation dicts, the paired change, and the sentences."""
    record = {
        "run": run.name,
        "before": run.before,
        "after": run.after,
        "change": run.change,
        "second_scorer": drift.to_dict(run),
        "audit": run.audit and run.audit.to_dict(),
        "lessons": simulator_sentences(run),
        "decisions": decisions(run),
        "verdicts": verdicts(run),
        "missing": run.missing,
    }
    return json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def console_table(run_dir: str | Path) -> str:
    """The before/after table as plain text, about 90 characters wide; intervals are in the report."""
    run = read_run(run_dir)
    blocks = [*run.missing, stamp(run)]
    head = ["", *(heading for _, heading, _ in columns(run))]
    body: list[list[str]] = []
    for level in ("shifts", "subsets"):
        evaluations = [evaluation[level] for evaluation in (run.before, run.after) if evaluation]
        names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation))
        body += [[_title(name, level), *_arrows(run, level, name)] for name in names]
        if level == "shifts" and names:
            body.append([])
    if body:
        blocks.append(align([head, *body]))
    return "\n".join([*blocks, *simulator_sentences(run), *decisions(run), *verdicts(run), *drift.verdicts(run)])


def audit_table(run_dir: str | Path) -> str:
    """The audit of a run's reward as plain text.

    Raises:
        DataError: there is none.
    """
    found = read_run(run_dir).audit
    if found is None:
        raise DataError(f"{run_dir}: its reward has not been audited yet; run coevo audit --resume {run_dir}.")
    return audit.table(found)


def _line(name: str, moment: str, entry: dict[str, Any], scale: str, shown: Sequence[tuple[str, str, float]]) -> Line:
    cells = tuple(
        _cell(entry.get(key), factor, digits(scale_of(key, scale)), signed=moment == "change") for key, _, factor in shown
    )
    scored = entry["statuses"].get("ok", 0)
    return Line(name, entry.get("shift", name), moment, f"{scored} of {entry['n']}", cells)


def _cell(record: dict[str, float] | None, factor: float, places: int, signed: bool) -> str:
    if not record:
        return ABSENT
    value, low, high = (record[name] * factor for name in ("value", "low", "high"))
    if factor == 100.0:
        places = 1 if signed else 0
    return f"{value:{'+' if signed else ''}.{places}f} [{low:.{places}f}, {high:.{places}f}]"


def _title(name: str, level: str) -> str:
    return f"{name} (mean)" if level == "shifts" else name


def _markdown_table(table: Sequence[Line], level: str, headings: Sequence[str]) -> str:
    heads = ["subset" if level == "subsets" else "shift", "", "scored", *headings]
    rows = [[line.name, line.moment, line.counts, *line.cells] for line in table]
    return _pipes([heads, *rows], names=2)


def _pipes(rows: Sequence[Sequence[str]], names: int) -> str:
    """A Markdown table of cells, the head first; so many first columns are text."""
    rule = ["---" if place < names else "---:" for place in range(len(rows[0]))]
    heads, *others = [list(map(plain, row)) for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *others))


def _arrows(run: Run, level: str, name: str) -> list[str]:
    cells = []
    for key, _, factor in columns(run):
        places = 0 if factor == 100.0 else 2 if key.endswith("token") else 1
        values = [_number(evaluation, level, name, key) for evaluation in (run.before, run.after)]
        shown = ["-" if value is None else f"{value * factor:.{places}f}" for value in values]
        cells.append(" -> ".join(shown) if shown != ["-", "-"] else "-")
    return cells


def _number(evaluation: dict[str, Any] | None, level: str, name: str, key: str) -> float | None:
    record = evaluation[level].get(name, {}).get(key) if evaluation else None
    return record["value"] if record else None
