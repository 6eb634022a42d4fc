"""An experiment in pictures, in the style of a run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coevo.experiment.table import SHIFTED, SHIFTS
from coevo.report.plots import COLOURS, STYLE, ascii_label, pngs

Record = dict[str, Any]
LEVELS = (*SHIFTS, SHIFTED)
SHIFT_COLOURS = dict(zip(LEVELS, ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00"), strict=True))


def draw(found: Mapping[str, Any]) -> dict[str, bytes]:
    """PNGs by file name; a plot without data is left out."""
    with mpl.rc_context(STYLE):
        return pngs({"methods.png": methods(found), "metrics.png": metrics(found), "bounds.png": bounds(found)})


def _tables(found: Mapping[str, Any]) -> list[tuple[str, Record]]:
    return [
        (f"{base}, by {estimator}", table)
        for base, entry in found["results"].items()
        for estimator, table in entry["estimators"].items()
    ]


def methods(found: Mapping[str, Any]) -> Figure | None:
    """A line a method, a marker a shift; share of right slots beside R-EMID. The first estimator of each base."""
    firsts = [
        (base, next(iter(entry["estimators"].values()))) for base, entry in found["results"].items() if entry["estimators"]
    ]
    if not firsts:
        return None
    count = max(len(table["methods"]) for _, table in firsts)
    figure = Figure(figsize=(10.5, 0.9 + len(firsts) * (0.7 + 0.36 * count)), layout="constrained")
    grid = figure.subplots(len(firsts), 2, squeeze=False)
    for (base, table), row in zip(firsts, grid, strict=True):
        _dots(row[0], table, "share_right", LEVELS, 100.0)
        row[0].set_xlabel("right slots (%), 95 % intervals")
        _dots(row[1], table, "remid", LEVELS[1:], 1.0)
        row[1].set_xlabel("R-EMID (nats), 95 % intervals")
        row[1].axvline(0, color="#555555", linewidth=1)
        row[0].set_title(ascii_label(base)[:60], loc="left")
    handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=len(LEVELS))
    return figure


def _dots(axes: Axes, table: Record, measure: str, levels: Sequence[str], factor: float) -> None:
    names = list(table["methods"])
    for number, level in enumerate(levels):
        records = [(place, table["methods"][name]["levels"].get(level, {}).get(measure)) for place, name in enumerate(names)]
        known = [(place, record) for place, record in records if record]
        if not known:
            continue
        offset = -0.3 + 0.6 * number / max(1, len(levels) - 1)
        values = [record["value"] * factor for _, record in known]
        low = [max(0.0, (record["value"] - record["low"]) * factor) for _, record in known]
        high = [max(0.0, (record["high"] - record["value"]) * factor) for _, record in known]
        axes.errorbar(
            values, [place + offset for place, _ in known], xerr=[low, high], fmt="osD^v"[LEVELS.index(level)], markersize=4,
            capsize=1.5, linewidth=1.1, color=SHIFT_COLOURS[level], label=level,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [ascii_label(name)[:40] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    for place in range(1, len(names)):
        axes.axhline(place - 0.5, color="#EEEEEE", linewidth=0.8)
    axes.grid(axis="y", visible=False)


def metrics(found: Mapping[str, Any]) -> Figure | None:
    """R-EMID against the share of right slots, a panel an estimator."""
    return _scatter(found, "remid", "share_right", "R-EMID (nats)", "right slots (%)", "remid, share_right", 100.0)


def bounds(found: Mapping[str, Any]) -> Figure | None:
    """B2 against R-EMID, a panel an estimator."""
    return _scatter(found, "bound", "remid", "B2 (no unit)", "R-EMID (nats)", "bound, remid", 1.0)


def _scatter(
    found: Mapping[str, Any], x: str, y: str, x_label: str, y_label: str, pair: str, factor: float
) -> Figure | None:
    panels = [(title, table, _points(table, x, y)) for title, table in _tables(found)]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    figure = Figure(figsize=(max(7.5, 5.0 * len(panels)), 4.8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, table, points) in zip(grid, panels, strict=True):
        for number, name in enumerate(table["methods"]):
            mine = [(a, b * factor) for method, a, b in points if method == name]
            axes.plot(
                [a for a, _ in mine], [b for _, b in mine], linestyle="none", marker="osD^vP*X"[number // len(COLOURS) % 8],
                color=COLOURS[number % len(COLOURS)], markersize=4.5, label=ascii_label(name)[:40],
            )  # fmt: skip
        rank = table["correlations"].get(pair, {}).get("spearman", {}).get("value")
        said = "" if rank is None else f"; Spearman {rank:.2f}"
        axes.set_title(f"{ascii_label(title)[:60]}{said}", loc="left")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _points(table: Record, x: str, y: str) -> list[tuple[str, float, float]]:
    found = []
    for name, method in table["methods"].items():
        for tag in method["bound"]:
            first, second = (method["bound"][tag] if key == "bound" else method["levels"][tag].get(key) for key in (x, y))
            if first and second:
                found.append((name, float(first["value"]), float(second["value"])))
    return found
