"""A diagnosis in pictures, in the style of a run's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coevo.diagnosis.tables import KINDS, Record, measure
from coevo.report.plots import COLOURS, STYLE, ascii_label, pngs
from coevo.report.tables import unit

MARKERS = "osD^vP*X"
ORDER = {"id": 0, "user": 1, "character": 2, "dialogue": 3}
SHARES = (("u", "persona", "#0072B2"), ("c", "character", "#E69F00"), ("d", "dialogue", "#009E73"))
RESPONSES_COLOUR = "#999999"


def draw(result: Record) -> dict[str, bytes]:
    """PNGs by file name; a plot without data is left out."""
    with mpl.rc_context(STYLE):
        return pngs(
            {
                "remid.png": remid(result),
                "components.png": components(result),
                "risk.png": risk(result),
                "divergences.png": divergences(result),
            }
        )


def remid(result: Record) -> Figure | None:
    """R-EMID, a line a subset, grouped by shift, a marker a model."""
    tags = _tags(result, "remid")
    if not tags:
        return None
    models = list(result["models"])
    figure = Figure(figsize=(8, 1.6 + len(tags) * (0.3 + 0.12 * len(models))), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(models):
        entries = result["models"][name]["subsets"]
        points = [(place, entries[tag].get("remid")) for place, tag in enumerate(tags)]
        _errorbars(axes, [(place, record) for place, record in points if record], number, len(models), name)
    _subset_axis(axes, result, tags)
    axes.set_xlabel(f"R-EMID ({unit(result)}), with 95 % intervals")
    axes.set_title("Above 0 the shift costs; lower is better", loc="left")
    figure.legend(loc="outside upper right", ncols=min(3, len(models)))
    return figure


def components(result: Record) -> Figure | None:
    """R-EMI_u, _c, _d by shift, a panel a model."""
    models = {name: model["shifts"] for name, model in result["models"].items()}
    shifts = sorted(dict.fromkeys(shift for entries in models.values() for shift in entries), key=lambda s: ORDER.get(s, 9))
    if not any(measure(entry, f"component_{z}") for entries in models.values() for entry in entries.values() for z in "ucd"):
        return None
    figure, panels = _panels(len(models), 0.9 + 0.5 * len(shifts))
    for axes, (name, entries) in zip(panels, models.items(), strict=False):
        for number, (z, label, colour) in enumerate(SHARES):
            records = [(place, measure(entries[shift], f"component_{z}")) for place, shift in enumerate(shifts)]
            known = [(place, record) for place, record in records if record]
            _errorbars(axes, known, number, len(SHARES), label, colour)
        axes.axvline(0, color="#555555", linewidth=1)
        axes.set_yticks(range(len(shifts)), shifts)
        axes.set_ylim(len(shifts) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_title(ascii_label(name)[:60], loc="left")
        axes.set_xlabel(f"{unit(result)}; below 0: used less than the reference does")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def risk(result: Record) -> Figure | None:
    """B2 as a stacked bar a subset, a panel a model."""
    tags = _tags(result, "bound")
    if not tags:
        return None
    models = {
        name: model["subsets"]
        for name, model in result["models"].items()
        if any("bound" in e for e in model["subsets"].values())
    }
    figure, panels = _panels(len(models), 1.0 + 0.32 * len(tags))
    for axes, (name, entries) in zip(panels, models.items(), strict=False):
        bounds = [entries[tag].get("bound") for tag in tags]
        start = [0.0] * len(tags)
        stack = [(label, colour, [b["shares"][z] if b else 0.0 for b in bounds]) for z, label, colour in SHARES]
        stack.append(("responses to references", RESPONSES_COLOUR, [b["response"] if b else 0.0 for b in bounds]))
        for label, colour, widths in stack:
            axes.barh(range(len(tags)), widths, left=start, color=colour, label=label, height=0.7)
            start = [a + b for a, b in zip(start, widths, strict=True)]
        _subset_axis(axes, result, tags)
        axes.set_title(ascii_label(name)[:60], loc="left")
        axes.set_xlabel("B2 (no unit)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def divergences(result: Record) -> Figure | None:
    """D_JS of persona, character, dialogue and reference, a panel each; the grey bar is what sampling alone shows."""
    found = result["divergences"]
    tags = sorted((tag for tag in found if any(found[tag].values())), key=lambda tag: _place(result, tag))
    if not tags:
        return None
    figure, panels = _panels(len(KINDS), 1.0 + 0.3 * len(tags), columns=2)
    for axes, (kind, name) in zip(panels, KINDS, strict=True):
        known = [(place, found[tag][kind]) for place, tag in enumerate(tags) if found[tag][kind]]
        places = [place for place, _ in known]
        axes.barh(places, [d["null_high"] for _, d in known], color="#D0D0D0", height=0.6, label="null, to its 95 %")
        style: Any = {"linestyle": "none", "color": COLOURS[0], "markersize": 6}
        axes.plot(
            [d["null_mean"] for _, d in known], places, **style | {"marker": "|", "color": "#555555"}, label="its mean"
        )
        for label, fill, beyond in (("beyond it", "full", True), ("within it", "none", False)):
            chosen = [(place, d["raw"]) for place, d in known if (d["raw"] > d["null_high"]) == beyond]
            axes.plot(
                [raw for _, raw in chosen], [place for place, _ in chosen], **style, marker="o", fillstyle=fill, label=label
            )
        _subset_axis(axes, result, tags)
        axes.axvline(math.log(2), color="#AAAAAA", linewidth=0.8, linestyle=":")
        axes.set_xlim(-0.02, 0.72)
        axes.set_title(name, loc="left")
        axes.set_xlabel("D_JS from ID (nats); dotted: ln 2")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return figure


def _tags(result: Record, key: str) -> list[str]:
    """Subsets that have a number of this name for some model, by shift."""
    tags = dict.fromkeys(tag for m in result["models"].values() for tag, entry in m["subsets"].items() if entry.get(key))
    return sorted(tags, key=lambda tag: _place(result, tag))


def _place(result: Record, tag: str) -> int:
    return ORDER.get(_shift(result, tag), 9)


def _shift(result: Record, tag: str) -> str:
    return next(str(m["subsets"][tag]["shift"]) for m in result["models"].values() if tag in m["subsets"])


def _subset_axis(axes: Axes, result: Record, tags: Sequence[str]) -> None:
    """A line a subset, from top to bottom, with a rule between shifts."""
    shifts = [_shift(result, tag) for tag in tags]
    axes.axvline(0, color="#555555", linewidth=1)
    for place in range(1, len(tags)):
        if shifts[place] != shifts[place - 1]:
            axes.axhline(place - 0.5, color="#AAAAAA", linewidth=0.8, linestyle="--")
    labels = [f"{ascii_label(tag)[:40]} ({shift})" for tag, shift in zip(tags, shifts, strict=True)]
    axes.set_yticks(range(len(tags)), labels)
    axes.set_ylim(len(tags) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def _errorbars(
    axes: Axes, points: Sequence[tuple[int, Record]], number: int, of: int, name: str, colour: str | None = None
) -> None:
    """Values with intervals, one of several series beside each other on the same lines."""
    offset = 0.0 if of == 1 else -0.3 + 0.6 * number / (of - 1)
    values = [record["value"] for _, record in points]
    # a percentile interval need not hold the value when there are few scenarios
    low = [max(0.0, record["value"] - record["low"]) for _, record in points]
    high = [max(0.0, record["high"] - record["value"]) for _, record in points]
    style: Any = {"fmt": MARKERS[number % len(MARKERS)], "color": colour or COLOURS[number % len(COLOURS)]}
    style |= {"markersize": 4.5, "capsize": 2.0, "linewidth": 1.2}
    axes.errorbar(values, [place + offset for place, _ in points], xerr=[low, high], label=ascii_label(name)[:60], **style)


def _panels(count: int, height: float, columns: int = 2) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.2 * columns if columns > 1 else 7.5, 0.5 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in list(grid.flat)[count:]:
        axes.set_visible(False)
    return figure, list(grid.flat)[:count]
