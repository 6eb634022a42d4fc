"""The report of an experiment: report.md, table.csv, result.json, plots and one HTML page, read off its folder."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.escape import plain, plain_code, spreadsheet
from coevo.experiment.read import result
from coevo.experiment.table import SHIFTED, SHIFTS
from coevo.files import write_atomic
from coevo.layout import align
from coevo.scoring.claims import lost, scored, shown

Record = dict[str, Any]
BEYOND = 0.05
"""A corrected p value below it gets a star."""
CAPTIONS = {
    "methods.png": "Share of right slots and R-EMID by shift and method, with 95 % intervals over scenarios and seeds",
    "metrics.png": "Each metric against the share of right slots, a point per method and shifted subset",
    "bounds.png": "The risk index B2 against the measured R-EMID, a point per method and shifted subset",
}
LEGEND = (
    "Means over seeds; in brackets 95 % intervals of each method by itself: scenarios by bootstrap, seeds by Student's t. "
    "A shift is the unweighted mean over its subsets, `shifted` that over all of them. R-EMI, M and R-EMID in nats. "
    "* differs from {baseline}, paired by scenario and seed, with p < 0.05 after Holm's correction over all methods and "
    "shifts of the measure; two methods may differ though their intervals meet. Worst case is the largest B2 over the "
    "subsets of a seed: mean and, in brackets, range over seeds."
)


@dataclass(frozen=True)
class Table:
    """A table as strings; the first column is text."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def build(folder: Path) -> list[Path]:
    """Writes the report into an experiment's folder.

    Returns:
        The files written.

    Raises:
        CheckpointError: no experiment in the folder.
        DataError: measurements that cannot be compared, or a broken file.
    """
    # drawing is slow to import
    from coevo.experiment.plots import draw
    from coevo.report.html import environment, figures

    found = result(folder)
    images = draw(found)
    page = (
        environment()
        .get_template("experiment.html.j2")
        .render(
            result=found,
            legend=LEGEND.format(baseline=found["baseline"]),
            parts=[(heading, tables(found, *which), words(found, *which)) for heading, which in parts(found)],
            missing=missing(found),
            figures=figures(images, CAPTIONS),
        )
    )
    files = {
        "result.json": (json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(),
        "report.md": markdown(found).encode(),
        "table.csv": csv_text(found).encode(),
        **images,
        "report.html": page.encode(),
    }
    for name in CAPTIONS.keys() - images.keys():
        (folder / "report" / name).unlink(missing_ok=True)
    return [write_atomic(folder / "report" / name, content) for name, content in files.items()]


def parts(found: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """A heading and (base, estimator) for each table of the experiment."""
    return [
        (f"Base {base}, measured by {estimator}", (base, estimator))
        for base, entry in found["results"].items()
        for estimator in entry["estimators"]
    ]


def missing(found: Mapping[str, Any]) -> list[str]:
    """What is not there yet."""
    return [note for entry in found["results"].values() for note in entry["missing"]]


def tables(found: Mapping[str, Any], base: str, estimator: str) -> list[Table]:
    """The tables of one base and estimator."""
    table = found["results"][base]["estimators"][estimator]
    made = [
        _by_shift(table, "share_right", "Share of right slots, %", 100.0, (*SHIFTS, SHIFTED)),
        _by_shift(table, "remid", "R-EMID, nats: above 0 the shift costs", 1.0, (*SHIFTS[1:], SHIFTED)),
        _by_shift(table, "remi", "R-EMI, nats: 0 is the reference's level", 1.0, (*SHIFTS, SHIFTED)),
        _by_shift(table, "register_gap", "M, the register gap, nats", 1.0, (*SHIFTS, SHIFTED)),
        _by_shift(table, "judge", "The judge's mean score", 1.0, (*SHIFTS, SHIFTED)),
        _risk(table),
        _by_subset(table, "share_right", "Share of right slots by subset, %", 100.0),
        _by_subset(table, "remid", "R-EMID by subset, nats", 1.0),
        _correlations(table),
    ]
    return [one for one in made if one.rows]


def _by_shift(table: Record, measure: str, title: str, factor: float, levels: Sequence[str]) -> Table:
    known = [level for level in levels if any(measure in m["levels"].get(level, {}) for m in table["methods"].values())]
    tests = table["tests"].get(measure, {})
    rows = [
        [name, *(_cell(m["levels"][level].get(measure), factor, tests.get(name, {}).get(level)) for level in known)]
        for name, m in table["methods"].items()
    ]
    return Table(title, ["method", *known], rows if known else [])


def _by_subset(table: Record, measure: str, title: str, factor: float) -> Table:
    tags = [level for level in table["n"] if level not in (*SHIFTS, SHIFTED)]
    tags = [tag for tag in tags if any(measure in m["levels"][tag] for m in table["methods"].values())]
    digits = 0 if factor == 100.0 else 1
    rows = [
        [name, *(f"{m['levels'][tag][measure]['value'] * factor:.{digits}f}" for tag in tags)]
        for name, m in table["methods"].items()
    ]
    return Table(title, ["method", *tags], rows if tags else [])


def _risk(table: Record) -> Table:
    rows = [
        [name, _cell(m["worst_case"], 1.0, None), str(m["worst_case"].get("subset") or "n/a")]
        for name, m in table["methods"].items()
    ]
    known = any("value" in m["worst_case"] for m in table["methods"].values())
    return Table(
        "Worst-case risk: the largest B2 over the subsets, no unit", ["method", "B2", "subset"], rows if known else []
    )


def _correlations(table: Record) -> Table:
    rows = [
        [f"{name} ({next(iter(kinds.values()))['n']} points)", *(_coefficient(record) for record in kinds.values())]
        for name, kinds in table["correlations"].items()
    ]
    return Table(
        "Correlations over methods × subsets, intervals over methods; within subsets: less each subset's mean",
        ["of", "Pearson", "Spearman", "Kendall"],
        rows,
    )


def _coefficient(record: Record) -> str:
    if record["value"] is None:
        return "n/a"
    span = "" if record["low"] is None else f" [{record['low']:.2f}, {record['high']:.2f}]"
    return f"{record['value']:.2f}{span}"


def _cell(record: Record | None, factor: float, test: Record | None) -> str:
    if not record or "value" not in record:
        return "n/a"
    value, low, high = (record[name] * factor for name in ("value", "low", "high"))
    digits = 1 if factor == 100.0 else 2
    # a difference that the figures do not show is none
    star = "*" if test and test["p_holm"] < BEYOND and round(test["value"] * factor, digits) else ""
    return f"{value:.{digits}f}{star} [{low:.{digits}f}, {high:.{digits}f}]"


def words(found: Mapping[str, Any], base: str, estimator: str) -> list[str]:
    """What the tables say, in sentences: who leads, and which others may be as good."""
    table = found["results"][base]["estimators"][estimator]
    said = []
    for title, measure, factor in (
        ("highest share of right slots over shifted subsets", "share_right", 100.0),
        ("lowest R-EMID over shifted subsets", "remid", 1.0),
    ):
        if lead := table["leads"].get(measure):
            levels = {name: m["levels"][SHIFTED][measure] for name, m in table["methods"].items()}
            said.append(_lead(title, lead, levels, factor) + _but(table["methods"], lead["first"], measure) + ".")
    risks = {n: m["worst_case"] for n, m in table["methods"].items() if "value" in m["worst_case"]}
    if len(risks) > 1:
        said.append(_least(risks))
    return said


def _lead(title: str, lead: Record, levels: Mapping[str, Record], factor: float) -> str:
    first = levels[lead["first"]]
    digits = 1 if factor == 100.0 else 2
    alike = [name for name in lead["p"] if not round((levels[name]["value"] - first["value"]) * factor, digits)]
    near = [name for name in lead["p"] if lead["p"][name] >= BEYOND or name in alike]
    near.sort(key=lambda name: abs(levels[name]["value"] - first["value"]))
    others = f"not beyond noise from {', '.join(near)}" if near else "every other method is behind it beyond noise"
    span = f"[{first['low'] * factor:.{digits}f}, {first['high'] * factor:.{digits}f}]"
    return f"{title}: {lead['first']}, {first['value'] * factor:.{digits}f} {span}; {others}"


def _but(methods: Mapping[str, Record], leader: str, measure: str) -> str:
    """What contradicts a lead: a lower R-EMI at home, as which R-EMID falls too, a lower M, fewer answers with a score."""
    own, found = methods[leader], []
    for level, name, title in (("id", "remi", "R-EMI at home"), (SHIFTED, "register_gap", "M under the shifts")):
        mine = own["levels"].get(level, {}).get(name)
        theirs = {other: m["levels"].get(level, {}).get(name) for other, m in methods.items() if other != leader}
        above = [other for other, record in theirs.items() if mine and record and record["low"] > mine["high"]]
        if measure == "remid" and mine and above:
            found.append(f"its {title}, {shown(mine, 'sum')}, is below that of {', '.join(above)}")
    counts = {name: {"n": sum(m["statuses"].values()), "statuses": m["statuses"]} for name, m in methods.items()}
    if fuller := [other for other in methods if other != leader and lost(counts[leader], counts[other])]:
        here = counts[leader]
        found.append(f"of its answers {scored(here)} of {here['n']} have a score, fewer than of {', '.join(fuller)}")
    return "".join(f"; but {one}" for one in found)


def _least(risks: Mapping[str, Record]) -> str:
    """Without a test: there is one number a seed."""
    ranked = sorted(risks, key=lambda name: risks[name]["value"])
    first = risks[ranked[0]]
    said = f"lowest worst-case risk: {ranked[0]}, {first['value']:.2f}"
    if len(first["by_seed"]) == 1:
        return f"{said}, then {ranked[1]}, {risks[ranked[1]]['value']:.2f}; one seed does not say how far it varies."
    near = [name for name in ranked[1:] if round(risks[name]["low"], 2) <= round(first["high"], 2)]
    others = f"its range over seeds meets that of {', '.join(near)}" if near else "no other range over seeds meets its own"
    return f"{said} [{first['low']:.2f}, {first['high']:.2f}]; {others}."


def markdown(found: Mapping[str, Any]) -> str:
    """report.md."""
    pieces = [f"# Experiment {plain(found['name'])}", *(f"> {plain(note)}" for note in missing(found))]
    pieces.append(plain(LEGEND.format(baseline=found["baseline"])))
    for heading, which in parts(found):
        pieces.append(f"## {plain(heading)}")
        pieces.append("\n".join(f"- {plain(line)}" for line in words(found, *which)))
        for table in tables(found, *which):
            rule = ["---", *["---:"] * (len(table.headings) - 1)]
            heads, *rows = [[plain(cell) for cell in row] for row in (table.headings, *table.rows)]
            lines = [heads, rule, *rows]
            pieces.append(f"### {table.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    pieces.append("## Each cell alone")
    pieces.append("\n".join(f"- {plain_code(name)}: {plain_code(command)}" for name, command in found["commands"].items()))
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


def csv_text(found: Mapping[str, Any]) -> str:
    """table.csv: a row per base, estimator, method, level and measure."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["base", "estimator", "method", "level", "measure", "value", "low", "high", "p", "p_holm"])
    for _, (base, estimator) in parts(found):
        table = found["results"][base]["estimators"][estimator]
        for name, method in table["methods"].items():
            for level, measures in method["levels"].items():
                for measure, record in measures.items():
                    test = table["tests"].get(measure, {}).get(name, {}).get(level, {})
                    numbers = [record["value"], record["low"], record["high"], test.get("p"), test.get("p_holm")]
                    writer.writerow(map(spreadsheet, [base, estimator, name, level, measure, *map(_number, numbers)]))
            for tag, record in method["bound"].items():
                numbers = [(record or {}).get(key) for key in ("value", "low", "high")]
                writer.writerow(map(spreadsheet, [base, estimator, name, tag, "bound", *map(_number, numbers), "", ""]))
    return stream.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def console(folder: Path) -> str:
    """The main table and the sentences, as plain text."""
    found = result(folder)
    blocks = list(missing(found))
    for heading, (base, estimator) in parts(found):
        table = found["results"][base]["estimators"][estimator]
        chosen = list(tables(found, base, estimator)[:2])
        blocks += ["", heading]
        for one in chosen:
            blocks += [one.title, align([one.headings, *one.rows])]
        blocks += words(found, base, estimator)
        blocks += [f"scored: {_scored(table)}"]
    return "\n".join(blocks)


def _scored(table: Record) -> str:
    counts = {name: m["statuses"] for name, m in table["methods"].items()}
    short = {n: c for n, c in counts.items() if c.get("ok", 0) < sum(c.values())}
    if not short:
        return "every answer of every method"
    return "; ".join(f"{n} {c.get('ok', 0)} of {sum(c.values())} answers" for n, c in short.items()) + "; all of the others"
