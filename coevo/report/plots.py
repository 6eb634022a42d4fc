"""The run in pictures. Labels are ASCII, as no font for other scripts is promised; colours are Okabe and Ito's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coevo.escape import visible
from coevo.report.read import Record, Run
from coevo.report.tables import read_interval

BEFORE_COLOUR, AFTER_COLOUR = "#0072B2", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
STYLES = ("-", "--", "-.", ":")
MEANINGS = {
    "loss": "loss of the supervised phases (nats per token)",
    "reward": "reward (nats)",
    "part/negative_remid": "negative R-EMID (nats)",
    "part/anchor_remi": "anchor R-EMI (nats)",
    "regret": "regret S1 (nats)",
    "pass_rate": "turns passing all gates (share)",
    "distinct_turns": "distinct turns (share)",
    "share_right": "slots right (share)",
    "share_id": "ID prompts (share)",
    "kl": "KL to the phase's start (nats)",
    "repetition": "repetition (share)",
    "unscored": "not scored (share)",
}
REAL_TEXT = ("contrast", "marginal", "overshoot", "shortfall", "echo", "loop", "unended", "anchor_gap", "shifted_gap")
"""Parts of R6, whose unit is another."""
MEANINGS |= {f"part/{name}": f"{name.replace('_', ' ')} (nats per root token)" for name in REAL_TEXT}
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "figure.dpi": 120,
}


def draw(run: Run) -> dict[str, bytes]:
    """PNGs by file name; a plot without data is left out."""
    plots: dict[str, Callable[[Run], Figure | None]] = {
        "remid_by_subset.png": remid_by_subset,
        "reward_parts.png": reward_parts,
        "simulator.png": simulator,
        "learning.png": learning,
    }
    with mpl.rc_context(STYLE):
        return pngs({name: plot(run) for name, plot in plots.items()})


def pngs(figures: Mapping[str, Figure | None]) -> dict[str, bytes]:
    """The figures that there are, as PNGs; the same figure gives the same bytes."""
    images = {}
    for name, figure in figures.items():
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", metadata={"Software": None})
            images[name] = buffer.getvalue()
    return images


def remid_by_subset(run: Run) -> Figure | None:
    """R-EMID before and after, a line a subset, grouped by shift, with 95 % intervals."""
    evaluations = [evaluation for evaluation in (run.before, run.after) if evaluation]
    order = {"user": 0, "character": 1, "dialogue": 2}
    shift_of = {tag: e["shift"] for evaluation in evaluations for tag, e in evaluation["subsets"].items()}
    tags = sorted((tag for tag in shift_of if shift_of[tag] in order), key=lambda tag: order[shift_of[tag]])
    if not tags:
        return None
    figure = Figure(figsize=(8, 1.5 + 0.42 * len(tags)), layout="constrained")
    axes = figure.subplots()
    moments = (("before", run.before, BEFORE_COLOUR, "o", -0.13), ("after", run.after, AFTER_COLOUR, "s", 0.13))
    for label, evaluation, colour, marker, offset in moments:
        if not evaluation:
            continue
        points = [(place, read_interval(evaluation["subsets"].get(t, {}).get("remid"))) for place, t in enumerate(tags)]
        known = [(place + offset, point) for place, point in points if point]
        values = [point.value for _, point in known]
        errors = [[p.value - p.low for _, p in known], [p.high - p.value for _, p in known]]
        style: Any = {"fmt": marker, "color": colour, "markersize": 5, "capsize": 2.5}
        # a percentile interval need not hold the value when there are few scenarios
        bars = [[max(0.0, error) for error in side] for side in errors]
        axes.errorbar(values, [place for place, _ in known], xerr=bars, label=label, **style)
    axes.axvline(0, color="#555555", linewidth=1)
    for place in range(1, len(tags)):
        if shift_of[tags[place]] != shift_of[tags[place - 1]]:
            axes.axhline(place - 0.5, color="#AAAAAA", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(tags)), [f"{ascii_label(tag)} ({shift_of[tag]})" for tag in tags])
    axes.set_ylim(len(tags) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("R-EMID (nats per response), with 95 % intervals")
    axes.set_title("Above 0 the shift costs; lower is better", loc="left")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def reward_parts(run: Run) -> Figure | None:
    """Every part of the role-playing model's reward over steps, a line an iteration."""
    rows = _steps(run, "rpm")
    parts = sorted({name for row in rows for name in row if name.startswith("part/")})
    return _panels(rows, ["reward", *parts, "share_right", "kl", "repetition", "share_id", "unscored"], "Role-playing model")


def simulator(run: Run) -> Figure | None:
    """Regret and every gate's pass rate over steps, a line an iteration."""
    rows = _steps(run, "simulator")
    gates = sorted({name for row in rows for name in row if name.startswith("gate/")})
    return _panels(rows, ["reward", "regret", "pass_rate", *gates, "distinct_turns", "kl", "unscored"], "Simulator")


def learning(run: Run) -> Figure | None:
    """Losses of the supervised phases."""
    rows = [row for row in run.metrics if not row.get("iteration") and _finite(row.get("loss")) and _has_step(row)]
    phases = list(dict.fromkeys(str(row.get("phase")) for row in rows))
    if not phases:
        return None
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for place, phase in enumerate(phases):
        _curve(axes, [row for row in rows if str(row.get("phase")) == phase], "loss", place, phase)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title("Supervised phases")
    axes.legend()
    return figure


def _steps(run: Run, role: str) -> list[Record]:
    return [row for row in run.metrics if row.get("role") == role and row.get("iteration") and _has_step(row)]


def _has_step(row: Record) -> bool:
    return _finite(row.get("step"))


def _panels(rows: Sequence[Record], names: Sequence[str], title: str) -> Figure | None:
    shown = [name for name in names if any(_finite(row.get(name)) for row in rows)]
    if not shown:
        return None
    columns = min(3, len(shown))
    height = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(3.7 * columns, 0.8 + 2.5 * height), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False)
    iterations = sorted({row["iteration"] for row in rows})
    for axes, name in zip(grid.flat, shown, strict=False):
        for place, iteration in enumerate(iterations):
            chosen = [row for row in rows if row["iteration"] == iteration and _finite(row.get(name))]
            _curve(axes, chosen, name, place, f"iteration {iteration}")
        axes.set_title(ascii_label(meaning(name)))
        axes.set_xlabel("step")
        if name == "pass_rate" or name.startswith("gate/"):
            axes.set_ylim(-0.03, 1.03)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=min(6, len(labels)))
    return figure


def _curve(axes: Axes, rows: Sequence[Record], name: str, place: int, label: str) -> None:
    # told apart by line style as well as by colour
    style: Any = {"color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place % len(STYLES)], "linewidth": 1.5}
    marker = "o" if len(rows) == 1 else None
    steps, values = [row["step"] for row in rows], [row[name] for row in rows]
    axes.plot(steps, values, label=ascii_label(label), marker=marker, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def meaning(name: str) -> str:
    """What a figure of metrics.jsonl is, with its unit."""
    if name in MEANINGS:
        return MEANINGS[name]
    if name.startswith("part/"):
        return f"{name.removeprefix('part/').replace('_', ' ')} (nats)"
    return f"gate {name.removeprefix('gate/')} (share passing)"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def ascii_label(text: str) -> str:
    """A label that every font can draw."""
    # a dollar sign would begin mathematics
    return visible(text).encode("ascii", "replace").decode().replace("$", "?")
