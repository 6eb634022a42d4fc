"""A calibration in words, numbers and pictures: calibration.json, calibration.md and a PNG per part."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo.calibration.settings import NAMES
from coevo.escape import plain
from coevo.files import write_atomic

Result = Mapping[str, Any]
MEASURES = {"remi": "R-EMI", "remid": "R-EMID"}
BRACKETING = ("infonce", "middle", "l1out", "learned_marginal")
INTRODUCTION = (
    "Estimates against exact truth on the world, where P(y|x) is known; figures in nats per response. *Definition*: mutual "
    "information by the responder's own density. *Scored*: what a perfect scorer of references measures of the responder. "
    "The two agree for the references and part with the responder's errors: a definite error, such as one word always taken "
    "for another, costs no information and is as unlikely to a scorer as any other."
)
SPAN = (
    "M2 and M3 err by about +chi/2N and -chi/2N, chi = E p(y|x)/p(y) - 1, while chi is small against N; their middle then "
    "has no error of first order. Above log N only M4 follows."
)
INTERVALS = (
    "Share of draws whose 95 % interval holds the exact expectation (M1, M4) or, for M2, which has none in closed form, the "
    "information that it estimates; the bias beside it says why M2's does not. N scenarios of each subset."
)
BOUNDS = (
    "R-EMID by the definition as a share of B1, over named and random responders, exact. A share near 1 is a bound about "
    "to fail: a responder that is sound at home and guesses under a shift of one component alone comes so far, and would "
    "pass it if references were less noisy. R-EMID as a scorer measures it is not bounded by B1 at all."
)
ATTRIBUTION = (
    "Cases (failure x subset) in which the failed component lost most. *Shown*: without z goes what no other component "
    "shows, which is what a scorer can learn. *Owned*: language and manner go with the user, although the dialogue shows "
    "them too."
)
LEARNED = (
    "Spearman's correlation of estimated and exact R-EMID over responders x shifts. The rows of the exact density use the "
    "same texts and contexts: what they lack is the draw's, and the rest is the scorer's."
)


def write(out: Path, result: Result) -> list[Path]:
    """Writes calibration.json, calibration.md and the plots into `out`.

    Returns:
        The files written.
    """
    # drawing is slow to import, and the table does without
    from coevo.calibration.plots import draw

    text = json.dumps(_plain(result), indent=1, allow_nan=False) + "\n"
    files = {"calibration.json": text.encode(), "calibration.md": markdown(result).encode()}
    return [write_atomic(out / name, content) for name, content in (files | draw(result)).items()]


def console(result: Result) -> str:
    """The verdicts, a line each."""
    return "\n".join(
        f"{'holds' if v['holds'] else 'FAILS'}  {v['line']}\n       asked: {v['wanted']}; seen: {v['found']}"
        for v in result["verdicts"]
    )


def markdown(result: Result) -> str:
    """calibration.md."""
    settings = ", ".join(f"{name} {value}" for name, value in result["settings"].items())
    verdicts = [[v["line"], v["wanted"], v["found"], bool(v["holds"])] for v in result["verdicts"]]
    sections = [
        "# Calibration: estimates against exact truth",
        INTRODUCTION,
        f"Settings: {settings}.",
        table(["claim", "asked", "seen", "holds"], verdicts),
        *_bracket(result),
        *_coverage(result["coverage"]),
        *_bounds(result["bounds"]),
        *_attribution(result["attribution"]),
        *(_learned(result["learned"]) if "learned" in result else []),
    ]
    return "\n\n".join(sections) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers to two decimals, to the right, and what is false in bold."""
    shown = [[_cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[place]) for row in rows) for place in range(len(heads))]
    rule = ["---:" if number else "---" for number in numeric]
    return "\n".join("| " + " | ".join(row) + " |" for row in (list(map(plain, heads)), rule, *shown))


def _plain(value: Any) -> Any:
    """JSON has no NaN: null in its place."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return "n/a" if math.isnan(value) else f"{value:.2f}"
    return plain(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bracket(result: Result) -> list[str]:
    size = result["settings"]["main_size"]
    rows = []
    for case in result["bracket"]["cases"]:
        means = next(g for g in case["grid"] if g["n"] == size and g["k"] == size - 1)["mean"]
        row = [case["law"], case["negatives"], case["information"], *(means[name] for name in BRACKETING)]
        row += [case["club"], means["club"]]
        rows.append([*row, *(f"{case['main'][key]:.1%}" for key in ("span_holds", "nearer_error", "middle_error"))])
    heads = ["law", "negatives", "I, exact", *(NAMES[name] for name in BRACKETING), "M1, exact", NAMES["club"]]
    heads += ["span holds I", "nearer is off by", "middle is off by"]
    title = f"## M1 to M4 with the exact density, N = {size:,}, K = N - 1, log N = {math.log(size):.2f}"
    return [title, SPAN, table(heads, rows)]


def _coverage(part: Result) -> list[str]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in part["rows"]:
        key = (MEASURES[row["measure"]], NAMES[row["estimate"]], row["negatives"], row["n"], row["k"])
        groups.setdefault(key, []).append(row)
    rows = []
    for key, members in groups.items():
        covers = [m["covers_truth"] for m in members]
        bias = max((m["mean"] - m["truth"] for m in members), key=abs)
        own = statistics.mean(m["covers_mean"] for m in members)
        rows.append([*key, statistics.mean(covers), min(covers), max(covers), own, bias])
    heads = [
        "measure",
        "estimate",
        "negatives",
        "N",
        "K",
        "holds truth, mean",
        "least",
        "most",
        "holds own mean",
        "largest bias",
    ]
    return ["## Intervals", INTERVALS, table(heads, rows)]


def _bounds(part: Result) -> list[str]:
    rows = [[shift, r["largest"], r["median"], r["largest_remid"]] for shift, r in part["by_shift"].items()]
    ranks = ", ".join(
        f"{index.upper()} with R-EMID {r['remid']:.2f} (scored {r['remid_scored']:.2f})"
        for index, r in part["rank_correlation"].items()
    )
    above = f"Scored R-EMID lies above B1 in {part['scored_above_b1']:.0%} of the cases. Rank correlation: {ranks}."
    return ["## The bound", BOUNDS, table(["shift", "largest share", "median share", "largest R-EMID"], rows), above]


def _attribution(part: Result) -> list[str]:
    failures = dict.fromkeys((row["failure"], row["component"]) for row in part["rows"])
    sorts = dict.fromkeys((row["reading"], row["negatives"]) for row in part["rows"])
    rows = []
    for failure, component in failures:
        cells = []
        for sort in sorts:
            chosen = [r for r in part["rows"] if r["failure"] == failure and (r["reading"], r["negatives"]) == sort]
            cells.append(f"{sum(r['right'] for r in chosen)} of {len(chosen)}")
        rows.append([failure, component, *cells])
    heads = ["failure", "component", *(f"{reading}, {negatives}" for reading, negatives in sorts)]
    return ["## Attribution (A1) with exact densities", ATTRIBUTION, table(heads, rows)]


def _learned(part: Result) -> list[str]:
    truths = list(part["correlations"][0]["spearman"])
    ranks = [
        [r["density"], NAMES[r["estimate"]], r["negatives"], r["scale"], *(r["spearman"][t] for t in truths)]
        for r in part["correlations"]
    ]
    said = []
    for r in part["information"]:
        found = {name: r["estimates"][f"learned {name}"] for name in NAMES}
        said.append(
            [r["tag"], r["negatives"], r["exact"], *(found[name] for name in BRACKETING), r["club_exact"], found["club"]]
        )
    fewer = [[r["negatives"], r["n"], r["k"], r["spearman"]["definition"], r["spearman"]["scored"]] for r in part["grid"]]
    blamed = [
        [
            r["failure"],
            r["tag"],
            r["component"],
            *(r["lost"][z] for z in "ucd"),
            *(r["exact"][z] for z in "ucd"),
            r["blamed"],
        ]
        for r in part["attribution"]
    ]
    return [
        f"## A learned scorer ({part['scorer'][:12]})",
        LEARNED,
        table(["density", "estimate", "negatives", "scale", *truths], ranks),
        "### M1, sum, from fewer scenarios of each subset and fewer negatives",
        table(["negatives", "N", "K", "definition", "scored"], fewer),
        "### What the references say of their context",
        table(["subset", "negatives", "I, exact", *(NAMES[name] for name in BRACKETING), "M1, exact", NAMES["club"]], said),
        "### Who A1 blames",
        table(["failure", "subset", "failed", "u", "c", "d", "u, exact", "c, exact", "d, exact", "blamed"], blamed),
    ]
