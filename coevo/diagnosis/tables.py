"""A diagnosis as tables: Markdown for people, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coevo.escape import plain, spreadsheet
from coevo.report.tables import ABSENT, negatives_words, unit
from coevo.scoring.claims import shown

Record = dict[str, Any]
Columns = tuple[tuple[str, str], ...]
MEASURES: Columns = (
    ("remi", "R-EMI"),
    ("register_gap", "M"),
    ("likelihood_gap", "R-EMI + M"),
    ("remid", "R-EMID"),
)
COMPONENT_COLUMNS: Columns = (
    ("component_u", "R-EMI_u"),
    ("component_c", "R-EMI_c"),
    ("component_d", "R-EMI_d"),
)
PER_TOKEN: Columns = (("remi_per_token", "R-EMI per token"), ("register_gap_per_token", "M per token"))
DIVERGENCE = ("raw", "null_mean", "null_high", "p_value", "corrected")
KINDS = (("u", "persona"), ("c", "character"), ("d", "dialogue"), ("reference", "reference"))
LEGEND = (
    "R-EMI: what the responses lost of their context, against the references (0 is the references' level, lower is worse). "
    "M, the register gap: the likelihood lost that no context explains (wrong language, broken text). R-EMI + M: the whole "
    "likelihood gap. R-EMID: R-EMI on ID minus R-EMI under the shift; above 0, the shift costs. R-EMI_u, _c, _d: how much "
    "less the responses use persona, character and dialogue than the references do. In brackets, 95 % intervals (bootstrap "
    "over scenarios). D_JS: representation Jensen-Shannon divergence in nats, 0 to ln 2 = 0.69; null: its mean and 95 % "
    "quantile where nothing shifts; corrected: raw less the null's mean. B2: the sum of the square roots of the corrected "
    "D_JS of persona, character and dialogue, and of the fourth roots of those between responses and references on ID and "
    "on the subset, a D_JS within its null taken for 0; an index to rank risks by, without unit. Per token: the same "
    "of nats per token, each text by its own length."
)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text; the first `names` columns are names, the others numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int


def stamp(result: Record) -> str:
    """The line without which the numbers mean nothing: how they were measured."""
    negatives = {"pool": "pool (all subsets together)", "subset": "subset (within each)"}
    return (
        f"Estimator {result['estimator']}; scale {result['scale']} ({unit(result)}); N = {result['n']} scenarios; "
        f"K = {negatives_words(result)}; negatives {negatives.get(result['negatives'], result['negatives'])}; "
        f"seed {result['asked']['seed']}; {result['resamples']} resamples; {result['permutations']} permutations; "
        f"scorer {result['scorer'][:12]} of {result['asked']['scorer']}, {result['scorer_phase']}; {_reasoner(result)}"
        f"embedder: {result['embedder']}, {result['base'][:12]}."
    )


def _reasoner(result: Record) -> str:
    writer = result.get("reasoner")
    return f"reasoner {writer['version'][:12]} of {writer['run']}, {writer['phase']}; " if writer else ""


def tables(result: Record) -> list[Table]:
    """Everything that a page shows in rows and columns; tables without rows are left out."""
    made = [
        _measures(result, "shifts", "Means per shift", MEASURES),
        _measures(result, "subsets", "Per subset", MEASURES),
        *([_measures(result, "shifts", "Per token: means per shift", PER_TOKEN)] if result["scale"] == "sum" else []),
        _measures(result, "shifts", "By component of the context: means per shift", COMPONENT_COLUMNS),
        _measures(result, "subsets", "By component of the context: per subset", COMPONENT_COLUMNS),
        _differences(result),
        _risks(result),
        _divergences(result),
    ]
    return [table for table in made if table.rows]


def measure(entry: Mapping[str, Any], name: str) -> dict[str, float] | None:
    """One measure of a subset or shift; None if it is absent."""
    found: dict[str, float] | None
    found = entry["components"].get(name[-1]) if name.startswith("component_") else entry.get(name)
    return found


def markdown(result: Record) -> str:
    """result.md."""
    parts = ["# Diagnosis", plain(stamp(result)), *(f"> {plain(note)}" for note in result["notes"])]
    for name, model in result["models"].items():
        words = "\n".join(f"- {plain(sentence)}" for sentence in model["verdict"])
        parts.append(f"## {plain(name)}\n\n{words}")
    parts.append(LEGEND)
    for table in tables(result):
        rule = ["---"] * table.names + ["---:"] * (len(table.headings) - table.names)
        lines = [table.headings, rule, *([plain(cell) for cell in row] for row in table.rows)]
        parts.append(f"## {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    for name, model in result["models"].items():
        if model["costliest"]:
            parts.append(f"## Scenarios that cost {plain(name)} most")
            parts += [_case(row) for row in model["costliest"]]
    return "\n\n".join(parts) + "\n"


def csv_text(result: Record) -> str:
    """result.csv: a row per model and shift or subset; absent numbers are empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_csv_headings())
    for name, model in result["models"].items():
        for level in ("shifts", "subsets"):
            for place, entry in model[level].items():
                writer.writerow([spreadsheet(cell) for cell in _csv_row(result, name, level, place, entry)])
    return stream.getvalue()


# --- tables ---------------------------------------------------------------------------------------------------------


def _measures(result: Record, level: str, title: str, columns: Columns) -> Table:
    headings = ["shift" if level == "shifts" else "subset", "model", "scored", "K", *(heading for _, heading in columns)]
    names = dict.fromkeys(name for model in result["models"].values() for name in model[level])
    rows = []
    for name in names:
        for model, record in result["models"].items():
            entry = record[level][name]
            scored = f"{entry['statuses'].get('ok', 0)} of {entry['n']}"
            cells = [
                _interval(measure(entry, key), "token_mean" if key.endswith("token") else result["scale"])
                for key, _ in columns
            ]
            rows.append([name, model, scored, _span(entry["n_negatives"]), *cells])
    return Table(title, headings, rows, 2)


def _differences(result: Record) -> Table:
    rows = []
    for model, record in result["models"].items():
        against = record["against"]
        for shift, entry in (against["shifts"] if against else {}).items():
            cells = [_interval(measure(entry, key), result["scale"]) for key, _ in MEASURES]
            rows.append([shift, f"{model} - {against['model']}", str(entry["statuses"].get("ok", 0)), *cells])
    headings = ["shift", "models", "pairs", *(heading for _, heading in MEASURES)]
    return Table("Differences, paired by scenario", headings, rows, 2)


def _risks(result: Record) -> Table:
    rows = []
    for model, record in result["models"].items():
        for tag, entry in record["subsets"].items():
            bound = entry.get("bound")
            if bound:
                shares = [f"{bound['shares'][z]:.2f}" for z in "ucd"]
                worst = " (worst)" if tag == record["worst_case"]["subset"] else ""
                values = [
                    f"{bound['value']:.2f}{worst}",
                    *shares,
                    f"{bound['response']:.2f}",
                    f"{entry['bound_raw']['value']:.2f}",
                ]
                rows.append([tag, model, *values, _corrected(entry["gap"]), _corrected(entry["response"])])
    headings = ["subset", "model", "B2", "persona", "character", "dialogue", "responses", "B2 of raw D_JS"]
    headings += ["D_JS to references", "D_JS to ID responses"]
    return Table("Risk: B2 and its shares", headings, rows, 2)


def _divergences(result: Record) -> Table:
    rows = []
    for tag, found in result["divergences"].items():
        for kind, name in KINDS:
            if found[kind]:
                rows.append([tag, name, *(f"{found[kind][key]:.3f}" for key in DIVERGENCE)])
    headings = ["subset", "of", "raw", "null mean", "null 95 %", "p", "corrected"]
    return Table("Divergences from ID: D_JS in nats", headings, rows, 2)


def _interval(record: Mapping[str, float] | None, scale: str) -> str:
    return shown(record, scale) if record else ABSENT


def _corrected(record: Mapping[str, float] | None) -> str:
    return f"{record['corrected']:.3f} (p {record['p_value']:.3f})" if record else ABSENT


def _span(counts: Sequence[int] | None) -> str:
    if counts is None:
        return ABSENT
    return str(counts[0]) if counts[0] == counts[1] else f"{counts[0]} to {counts[1]}"


def _case(row: Mapping[str, Any]) -> str:
    turns = "; ".join(f"{turn['role']}: {turn['text']}" for turn in row["dialogue"])
    texts = ("persona", "character", "response", "reference")
    lines = [f"- {name}: {plain(str(row[name]))}" for name in texts]
    lines.insert(2, f"- dialogue: {plain(turns)}")
    head = (
        f"**{plain(row['sample_id'])}** ({plain(row['subset_tag'])}): R-EMI {row['remi']:.2f}, M {row['register_gap']:.2f}"
    )
    return "\n".join([head, "", *lines])


# --- csv ------------------------------------------------------------------------------------------------------------


def _csv_headings() -> list[str]:
    headings = ["model", "level", "name", "shift", "n", "scored", "negatives_least", "negatives_most"]
    headings += ["estimator", "scale", "negatives", "k", "resamples"]
    headings += [f"{key}{end}" for key, _ in (*MEASURES, *COMPONENT_COLUMNS, *PER_TOKEN) for end in ("", "_low", "_high")]
    headings += ["bound", "bound_u", "bound_c", "bound_d", "bound_response", "bound_raw"]
    return headings + [f"jsd_{kind}_{key}" for kind in (*(k for k, _ in KINDS), "gap", "response") for key in DIVERGENCE]


def _csv_row(result: Record, model: str, level: str, name: str, entry: Record) -> list[Any]:
    least, most = entry["n_negatives"] or (None, None)
    shift = name if level == "shifts" else entry["shift"]
    row = [model, level.removesuffix("s"), name, shift, entry["n"], entry["statuses"].get("ok", 0), least, most]
    row += [result[key] for key in ("estimator", "scale", "negatives", "k", "resamples")]
    for key, _ in (*MEASURES, *COMPONENT_COLUMNS, *PER_TOKEN):
        record = measure(entry, key) or {}
        row += [record.get(part) for part in ("value", "low", "high")]
    bound, raw = entry.get("bound") or {"shares": {}}, entry.get("bound_raw") or {}
    row += [bound.get("value"), *(bound["shares"].get(z) for z in "ucd"), bound.get("response"), raw.get("value")]
    shared = result["divergences"].get(name, {}) if level == "subsets" else {}
    for kind in (*(k for k, _ in KINDS), "gap", "response"):
        found = (shared.get(kind) if kind in shared else entry.get(kind)) or {}
        row += [found.get(key) for key in DIVERGENCE]
    return row
