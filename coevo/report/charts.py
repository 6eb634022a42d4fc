"""The page's charts as Vega-Lite, drawn by the library that the page embeds; `report.plots` draws the same as pictures.

Vega-Lite with vl-convert (0.9 MB in the page) was taken before Plotly (4.7 MB, or 1.1 MB for its basic part, which the
Python package does not have); it needs no `eval`, so that the page can forbid it. Colours are the page's, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from coevo.report.headline import PLACES
from coevo.report.plots import meaning
from coevo.report.read import Record, Run
from coevo.types import COMPONENTS

MOST_STEPS = 400
"""Points of a curve; of a longer run every n-th step is drawn."""
COMPONENT_NAMES = {"u": "user", "c": "character", "d": "dialogue"}
MOMENTS = ("before", "after")
Chart = dict[str, Any]
"""A Vega-Lite specification with its title, and with words for who sees no picture."""


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`; empty where vl-convert is not installed."""
    try:
        import vl_convert
    except ImportError:
        # the page then shows the pictures
        return ""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # what ends a script block may stand in a string of it
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def charts(run: Run) -> dict[str, list[Chart]]:
    """By place on the page, the charts that have data."""
    made = {
        "top": [by_shift(run, "share_right"), by_shift(run, "remid")],
        "subsets": [by_subset(run), by_component(run)],
        "learning": [_curves([row for row in run.metrics if not row.get("iteration")], "loss", "phase")],
        "rpm": _panels(run, "rpm", ("reward", "part/", "share_right", "kl", "repetition", "share_id", "unscored")),
        "simulator": _panels(
            run, "simulator", ("reward", "regret", "pass_rate", "gate/", "distinct_turns", "kl", "unscored")
        ),
    }
    found = {place: [chart for chart in one if chart] for place, one in made.items()}
    return {place: one for place, one in found.items() if one}


def by_shift(run: Run, measure: str) -> Chart | None:
    """A measure before and after, by shift, with its 95 % intervals."""
    factor, unit = (100, "%") if measure == "share_right" else (1, _unit(run))
    rows = []
    for name, moment, record in _records(run, "shifts", measure):
        place = PLACES.get(name, name)
        rows.append({"place": place, "moment": moment, **{key: factor * record[key] for key in ("value", "low", "high")}})
    rows.sort(key=lambda row: row["place"] != PLACES["id"])
    title = "Right parts of the answers (%)" if measure == "share_right" else f"What the shift costs (R-EMID, {unit})"
    note = "higher is better" if measure == "share_right" else "0 costs nothing, lower is better"
    return _intervals(rows, title, note, 0 if measure == "share_right" else 2) if rows else None


def by_subset(run: Run) -> Chart | None:
    """R-EMID before and after, by subset."""
    rows = [
        {"place": name, "moment": moment, **{key: record[key] for key in ("value", "low", "high")}}
        for name, moment, record in _records(run, "subsets", "remid")
    ]
    return _intervals(rows, f"R-EMID by subset ({_unit(run)})", "0 costs nothing, lower is better", 2) if rows else None


def by_component(run: Run) -> Chart | None:
    """R-EMI of user, character and dialogue alone, by shift, in the latest evaluation."""
    evaluation = run.after or run.before
    if evaluation is None:
        return None
    rows = []
    for shift, entry in evaluation["shifts"].items():
        for component in COMPONENTS:
            if record := entry["components"].get(component):
                place = f"{PLACES.get(shift, shift).removeprefix('shifted ')}: {COMPONENT_NAMES[component]}"
                values = {key: record[key] for key in ("value", "low", "high")}
                rows.append({"place": place, "moment": "after" if run.after else "before", **values})
    title = f"Which part of the context the answers lost (R-EMI by component, {_unit(run)})"
    return _intervals(rows, title, "below 0 is lost, 0 is a good answer's level", 2) if rows else None


def _records(run: Run, level: str, measure: str) -> Iterator[tuple[str, str, Record]]:
    evaluations = [e for e in (run.before, run.after) if e]
    for name in dict.fromkeys(name for e in evaluations for name in e[level]):
        for moment, evaluation in zip(MOMENTS, (run.before, run.after), strict=True):
            record = evaluation[level].get(name, {}).get(measure) if evaluation else None
            if record:
                yield name, moment, record


def _unit(run: Run) -> str:
    evaluation = run.after or run.before
    return "nats per token" if evaluation and evaluation["scale"] == "token_mean" else "nats"


def _intervals(rows: list[Record], title: str, note: str, places: int) -> Chart:
    """Points with intervals, a line a place, before above after."""
    moments = [moment for moment in MOMENTS if any(row["moment"] == moment for row in rows)]
    order = list(dict.fromkeys(row["place"] for row in rows))
    format_ = f".{places}f"
    tooltip = [
        {"field": "place", "type": "nominal", "title": "where"},
        {"field": "moment", "type": "nominal", "title": "when"},
        *({"field": key, "type": "quantitative", "format": format_} for key in ("value", "low", "high")),
    ]
    y = {"field": "place", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 170, "ticks": False}}
    colour = {"field": "moment", "type": "nominal", "scale": {"domain": list(MOMENTS)}, "legend": _legend(moments)}
    shared = {
        "y": y,
        "yOffset": {"field": "moment", "scale": {"domain": list(MOMENTS)}},
        "color": colour,
        "tooltip": tooltip,
    }
    shape = {"field": "moment", "type": "nominal", "scale": {"domain": list(MOMENTS), "range": ["circle", "square"]}}
    x = {"type": "quantitative", "title": note, "axis": {"tickCount": 5}, "scale": {"zero": False}}
    bar = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": shared | {"x": x | {"field": "low"}, "x2": {"field": "high"}},
    }
    legend = shape | {"legend": _legend(moments)}
    point = {
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
        "encoding": shared | {"x": x | {"field": "value"}, "shape": legend},
    }
    zero = {"mark": {"type": "rule", "strokeDash": [4, 3], "color": "gray"}, "encoding": {"x": {"datum": 0}}}
    layers = [bar, point] if places == 0 else [zero, bar, point]
    words = "; ".join(
        f"{r['place']} {r['moment']} {r['value']:.{places}f} [{r['low']:.{places}f}, {r['high']:.{places}f}]" for r in rows
    )
    spec = {"data": {"values": rows}, "layer": layers, "width": "container", "height": len(order) * (14 * len(moments) + 8)}
    return {"title": title, "words": words, "spec": spec}


def _legend(moments: Sequence[str]) -> Record:
    return {"title": None, "orient": "top", "values": list(moments)}


def _panels(run: Run, role: str, names: Sequence[str]) -> list[Chart | None]:
    """A chart a measure over steps, a line an iteration; a name that ends in `/` stands for all that begin so."""
    rows = [row for row in run.metrics if row.get("role") == role and row.get("iteration")]
    known = sorted({key for row in rows for key in row})
    measures = [key for name in names for key in known if key == name or (name.endswith("/") and key.startswith(name))]
    return [_curves(rows, measure, "iteration") for measure in measures]


def _curves(rows: Sequence[Record], measure: str, series: str) -> Chart | None:
    points = [
        {"step": row["step"], "value": row[measure], "series": str(row[series])}
        for row in rows
        if _finite(row.get(measure)) and _finite(row.get("step"))
    ]
    if not points:
        return None
    names = list(dict.fromkeys(point["series"] for point in points))
    drawn = [point for name in names for point in _thinned([p for p in points if p["series"] == name])]
    dashes = [[[1, 0], [6, 3], [8, 3, 2, 3], [2, 3]][place % 4] for place in range(len(names))]
    axis = {"tickCount": 5, "format": ".3~g"}
    steps = {"tickCount": 5, "labelExpr": "datum.value % 1 ? '' : datum.value"}
    tooltip = [
        {"field": "series", "type": "nominal", "title": series},
        {"field": "step", "type": "quantitative"},
        {"field": "value", "type": "quantitative", "format": ".4~g"},
    ]
    legend = {
        "title": series if series != "phase" else None,
        "orient": "top",
        "columns": 2,
        "labelLimit": 130,
        "symbolType": "stroke",
    }
    by_series: Record = {"field": "series", "type": "nominal", "legend": legend}
    share = measure == "pass_rate" or measure.startswith("gate/")
    scale = {"domain": [0, 1]} if share else {"zero": False}
    spec = {
        "data": {"values": drawn},
        "mark": {"type": "line", "point": {"size": 18} if len(drawn) < 60 else False, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "axis": steps, "title": "step"},
            "y": {"field": "value", "type": "quantitative", "title": None, "scale": scale, "axis": axis},
            "color": by_series | {"scale": {"domain": names}},
            "strokeDash": by_series | {"scale": {"domain": names, "range": dashes}},
            "tooltip": tooltip,
        },
        "width": "container",
        "height": 150,
    }
    ends = "; ".join(f"{name}: {_ends([p['value'] for p in points if p['series'] == name])}" for name in names)
    return {"title": meaning(measure), "words": ends, "spec": spec}


def _ends(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} to {values[-1]:.4g} over {len(values)} steps"


def _thinned(points: list[Record]) -> list[Record]:
    every = math.ceil(len(points) / MOST_STEPS)
    return [point for place, point in enumerate(points) if place % every == 0 or place == len(points) - 1]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
