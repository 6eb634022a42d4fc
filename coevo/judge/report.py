"""The report of judged responses: summary.md and the words for a terminal, read off summary.json and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo.config.rubric import OVERALL
from coevo.errors import DataError
from coevo.escape import plain
from coevo.files import write_atomic
from coevo.layout import align
from coevo.records import read_json
from coevo.report.result_shapes import JUDGEMENTS

RESULT_FILE, TABLE_FILE = "summary.json", "summary.md"
ABSENT = "–"
Record = Mapping[str, Any]
Table = tuple[str, list[list[str]]]
"""Title, and rows of cells, the head first."""


def build(folder: str | Path) -> list[Path]:
    """Writes summary.md beside summary.json.

    Raises:
        DataError: no judgement in the folder, or a broken one.
    """
    folder = Path(folder)
    result = read_result(folder)
    parts = [f"# Judged by {plain(_judge(result))}", plain(_stamp(result))]
    for title, rows in tables(result):
        parts += [f"## {plain(title)}", _markdown(rows)]
    parts.append("## Counts\n\n" + "\n".join(f"- {plain(line)}" for line in counts(result)))
    return [write_atomic(folder / TABLE_FILE, ("\n\n".join(parts) + "\n").encode())]


def read_result(folder: Path) -> Record:
    """The summary in a result folder.

    Raises:
        DataError: there is none, or it is broken.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise DataError(f"{folder}: nothing judged here: {RESULT_FILE} is missing. Give what coevo judge --out named.")
    return read_json(path, JUDGEMENTS, "Run coevo judge again; its answers are kept.")


def console(folder: Path) -> str:
    """The means by shift as plain text, then the counts."""
    result = read_result(folder)
    lines = [_stamp(result)]
    for title, rows in tables(result):
        if not title.endswith("per subset"):
            lines += ["", title, align(rows)]
    return "\n".join([*lines, "", *counts(result)])


def tables(result: Record) -> list[Table]:
    """By model: means per shift and per subset; or of a comparison: win rates, outcomes and position bias."""
    if "models" in result:
        return [
            (f"{model}: mean scores per {kind}", _means(result, found[f"{kind}s"]))
            for model, found in result["models"].items()
            for kind in ("shift", "subset")
        ]
    found = result["comparison"]
    first, second = found["first"], found["second"]
    won = [
        (f"{first} against {second}: win rates per {kind}", _means(result, found[f"{kind}s"]))
        for kind in ("shift", "subset")
    ]
    return [*won, (f"What {first}'s win rate is made of", _outcomes(result, found)), ("Position bias", _position(found))]


def counts(result: Record) -> list[str]:
    """What was judged, what was not and why, and what it cost."""
    answers = result["answers"]
    lines = []
    for name, statuses in result["unjudged"].items():
        for status, entry in statuses.items():
            some = ", ".join(entry["sample_ids"][:5]) + (", …" if entry["n"] > 5 else "")
            reasons = "; ".join(f"{reason} ({n})" for reason, n in list(entry["reasons"].items())[:3])
            lines.append(f"{name}: {entry['n']} {status}: {some}" + (f" ({reasons})" if reasons else ""))
    if not lines:
        lines.append("Everything was judged.")
    used = answers["prompt_tokens"], answers["completion_tokens"]
    tokens = "tokens not all counted by the endpoint" if None in used else f"{used[0]:,} tokens read, {used[1]:,} written"
    cost = "cost not stated" if answers["cost"] is None else f"cost {answers['cost']:.4f}"
    unreadable = f", {answers['unreadable']} of them unreadable" if answers["unreadable"] else ""
    lines.append(f"{answers['n']} answers of the judge{unreadable}; {tokens}; {cost}.")
    return lines + [f"Note: {note}" for note in result["notes"]]


def _judge(result: Record) -> str:
    judge = result["asked"]["judge"]
    return judge["model"] if "model" in judge else judge["local"]


def _stamp(result: Record) -> str:
    """The line without which the numbers mean nothing."""
    asked, rubric = result["asked"], result["rubric"]
    scale = "win rate of the first model, a tie counts half, a win holds in both orders"
    if not asked["pairwise"]:
        scale = f"scores from {rubric['scale']['least']} to {rubric['scale']['most']}"
    return (
        f"Rubric {rubric['name']} ({asked['rubric']['hash'][:8]}); judge {_judge(result)}; {scale}; N = {result['n']} "
        f"scenarios; in brackets 95 % intervals (bootstrap over scenarios, {asked['resamples']} resamples, seed "
        f"{asked['seed']}); a shift is the mean over its subsets."
    )


def _means(result: Record, entries: Mapping[str, Record]) -> list[list[str]]:
    names = dict(result["rubric"]["headings"])
    if len(names) > 1:
        names |= {OVERALL: "Overall"}
    head = ["", "judged", *names.values()]
    return [head] + [
        [tag, f"{entry['judged']}/{entry['n']}", *(_cell(entry["means"][name]) for name in names)]
        for tag, entry in entries.items()
    ]


def _outcomes(result: Record, found: Record) -> list[list[str]]:
    head = ["", "wins", "losses", "ties", "orders differ"]
    headings = result["rubric"]["headings"]
    return [head] + [[headings[name], *map(str, row.values())] for name, row in found["outcomes"].items()]


def _position(found: Record) -> list[list[str]]:
    position = found["position"] or {"bias": None, "agreement": None}
    return [
        ["", "value"],
        ["bias (-1 always the second, 0 none, 1 always the first)", _cell(position["bias"])],
        ["share of verdicts that hold in both orders", _cell(position["agreement"])],
    ]


def _cell(entry: Record | None) -> str:
    if entry is None:
        return ABSENT
    if entry["low"] is None:
        return f"{entry['value']:.2f}"
    return f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(cell) for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(rows[0]) - 1)]) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])
