"""A calibration in pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from coevo.calibration.settings import NAMES
from coevo.report.plots import COLOURS, STYLE
from coevo.types import SHIFT_OF_TAG

Result = Mapping[str, Any]
MARKERS = {"infonce": "v", "middle": "D", "l1out": "^", "learned_marginal": "o", "club": "x"}
SHIFT_COLOURS = dict(zip(("user", "character", "dialogue"), COLOURS, strict=False))


def draw(result: Result) -> dict[str, bytes]:
    """PNGs by file name; a plot without data is left out."""
    plots: dict[str, Callable[[Result], Figure]] = {
        "estimates.png": estimates,
        "error.png": error,
        "coverage.png": coverage,
        "bound.png": bound,
    }
    if "learned" in result:
        plots["learned.png"] = learned
    images = {}
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            buffer = io.BytesIO()
            plot(result).savefig(buffer, format="png", metadata={"Software": None})
            images[name] = buffer.getvalue()
    return images


def estimates(result: Result) -> Figure:
    """M1 to M4 against the exact information, with the identity line and the ceiling log N."""
    size = result["settings"]["main_size"]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, negatives in zip(figure.subplots(1, 2, sharex=True, sharey=True), ("subset", "pool"), strict=True):
        cases = [case for case in result["bracket"]["cases"] if case["negatives"] == negatives]
        for place, (name, marker) in enumerate(MARKERS.items()):
            points = [(c["information"], _main_point(c, size)["mean"][name]) for c in cases]
            axes.plot(*zip(*points, strict=True), marker, color=COLOURS[place], label=NAMES[name], markersize=6)
        _identity(axes, [case["information"] for case in cases])
        axes.axhline(math.log(size), color="#999999", linestyle=":", linewidth=1)
        axes.set(xlabel="exact I (nats)", title=f"negatives from the {negatives}; dots: log N", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([1, 2, 3, 5, 7, 10, 20, 40]))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    figure.axes[0].set_ylabel(f"estimate at N = {size} (nats)")
    figure.axes[0].legend(loc="upper left")
    return figure


def error(result: Result) -> Figure:
    """How far M2, M3, their middle and M4 are off, over N with all contexts and over K at the main N."""
    size = result["settings"]["main_size"]
    cases = [case for case in result["bracket"]["cases"] if case["negatives"] == "subset"]
    chosen = [cases[0], cases[len(cases) // 2], cases[-1]]
    figure = Figure(figsize=(3.6 * len(chosen), 6), layout="constrained")
    grid = figure.subplots(2, len(chosen))
    for column, case in enumerate(chosen):
        by_n = [g for g in case["grid"] if g["k"] == g["n"] - 1]
        by_k = [g for g in case["grid"] if g["n"] == size]
        for axes, points, key in ((grid[0][column], by_n, "n"), (grid[1][column], by_k, "k")):
            for place, name in enumerate(("infonce", "middle", "l1out", "learned_marginal")):
                values = [g["mean"][name] - case["information"] for g in points]
                axes.plot([g[key] for g in points], values, marker=MARKERS[name], color=COLOURS[place], label=NAMES[name])
            axes.axhline(0, color="#555555", linewidth=1)
            axes.set(xscale="log", xlabel="N, with K = N - 1" if key == "n" else f"K, with N = {size}")
        grid[0][column].set_title(f"{case['law']}, I = {case['information']:.2f}")
    for row in grid:
        row[0].set_ylabel("estimate - exact I (nats)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def coverage(result: Result) -> Figure:
    """Share of draws whose interval holds the truth, a point a case; between the lines is what is asked."""
    rows = [r for r in result["coverage"]["rows"] if r["estimate"] != "l1out"]
    groups = list(dict.fromkeys((r["n"], r["k"], r["negatives"]) for r in rows))
    figure = Figure(figsize=(max(5.5, 1.6 + 1.1 * len(groups)), 3.8), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for place, name in enumerate(("club", "learned_marginal")):
        points = [(groups.index((r["n"], r["k"], r["negatives"])), r["covers_truth"]) for r in rows if r["estimate"] == name]
        x = [at + 0.22 * (place - 0.5) + rng.uniform(-0.08, 0.08) for at, _ in points]
        axes.plot(x, [share for _, share in points], ".", color=COLOURS[place], label=NAMES[name])
    for limit in (0.9, 0.98):
        axes.axhline(limit, color="#555555", linewidth=1, linestyle="--")
    axes.axhline(0.95, color="#BBBBBB", linewidth=1)
    axes.set_xticks(range(len(groups)), [f"n {n}\nK {k}\n{negatives}" for n, k, negatives in groups])
    axes.set(ylabel="share of draws", ylim=(min(0.85, *(r["covers_truth"] for r in rows)) - 0.01, 1.005))
    axes.set_title("95 % intervals of R-EMI and R-EMID that hold the truth", loc="left")
    axes.legend(loc="lower right")
    return figure


def bound(result: Result) -> Figure:
    """B1 against the exact R-EMID of the named responders; below the line the bound would be broken."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    rows = result["bounds"]["rows"]
    for shift, colour in SHIFT_COLOURS.items():
        chosen = [r for r in rows if r["shift"] == shift]
        axes.plot([r["remid"] for r in chosen], [r["b1"] for r in chosen], ".", color=colour, label=f"{shift} shift")
    _identity(axes, [r["remid"] for r in rows])
    axes.set(xlabel="exact R-EMID (nats)", ylabel="exact B1 (nats)")
    axes.legend()
    return figure


def learned(result: Result) -> Figure:
    """R-EMID by the learned scorer (M1, sum) against both truths, with the identity line."""
    points = result["learned"]["points"]
    figure = Figure(figsize=(9, 8), layout="constrained")
    for row, negatives in zip(figure.subplots(2, 2), ("pool", "subset"), strict=True):
        for axes, reading in zip(row, ("definition", "scored"), strict=True):
            truth = f"{reading}, {negatives}"
            for shift, colour in SHIFT_COLOURS.items():
                chosen = [p for p in points if SHIFT_OF_TAG[p["tag"]] == shift]
                values = [p["estimates"][f"learned club {negatives} sum"] for p in chosen]
                axes.plot([p["truth"][truth] for p in chosen], values, ".", color=colour, label=f"{shift} shift")
            _identity(axes, [p["truth"][truth] for p in points])
            axes.set(xlabel=f"exact R-EMID ({truth})", ylabel=f"M1 by the scorer, {negatives}")
    figure.axes[0].legend()
    return figure


def _main_point(case: Result, size: int) -> Any:
    return next(g for g in case["grid"] if g["n"] == size and g["k"] == size - 1)


def _identity(axes: Axes, values: list[float]) -> None:
    ends = [min(values), max(values)]
    axes.plot(ends, ends, color="#555555", linewidth=1)
