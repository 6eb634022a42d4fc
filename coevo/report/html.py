"""report.html: one file with everything in it, to open, keep or send. All text of data or models is escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jinja2

from coevo.escape import visible
from coevo.report import drift
from coevo.report.changes import verdicts
from coevo.report.read import Run, choose_turns, lost_most
from coevo.report.tables import columns, decisions, legend, lines, simulator_sentences, stamp
from coevo.rewards import verdict as audit

CAPTIONS = {
    "remid_by_subset.png": "R-EMID per subset, before and after co-evolution",
    "reward_parts.png": "The role-playing model's reward and its parts, over steps and iterations",
    "simulator.png": "The simulator's regret and gates, over steps and iterations",
    "learning.png": "Losses of the supervised phases",
}
_TURN: dict[str, Any] = dict.fromkeys(("phase", "step", "sample_id", "subset_tag", "status"), "") | dict.fromkeys(
    ("reward", "parts", "answer", "prompt")
)
"""A rollout's keys, for one that does not have them all."""


def render(run: Run, images: Mapping[str, bytes]) -> str:
    """The page; `images` are PNGs by file name."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            stamp=stamp(run),
            legend=legend(run),
            verdicts=[*simulator_sentences(run), *decisions(run), *verdicts(run)],
            headings=[heading for _, heading, _ in columns(run)],
            tables=[("Means per shift", lines(run, "shifts")), ("Per subset", lines(run, "subsets"))],
            figures=figures(images, CAPTIONS),
            turns=[_TURN | turn for turn in choose_turns(run.turns, 10)],
            losses=lost_most(run),
            audit=_audit(run),
            drift=_drift(run),
        )
    )


def environment() -> jinja2.Environment:
    """Templates of the pages, with every value escaped, and what turns the direction of writing shown."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("coevo.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # before the escaping
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["nats"] = _nats
    made.filters["plain"] = _plain
    return made


def figures(images: Mapping[str, bytes], captions: Mapping[str, str]) -> list[dict[str, str]]:
    """Pictures as the page holds them: in itself."""
    return [
        {"caption": captions[name], "source": "data:image/png;base64," + base64.b64encode(image).decode()}
        for name, image in images.items()
    ]


def _audit(run: Run) -> dict[str, Any] | None:
    if run.audit is None:
        return None
    return {
        "heading": audit.heading(run.audit),
        "rows": audit.cells(run.audit),
        "conclusion": audit.conclusion(run.audit),
    }


def _drift(run: Run) -> dict[str, Any] | None:
    if run.second is None:
        return None
    legends = {drift.LEGEND: drift.table(run), drift.RANKS: drift.ranks(run)}
    return {
        "stamp": drift.stamp(run),
        "verdicts": drift.verdicts(run),
        "tables": [(rows, legend) for legend, rows in legends.items()],
    }


def _nats(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) and value == value else "n/a"


def _plain(value: Any) -> str:
    """Any JSON value as text; a chat's messages one after another."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, dict) and "content" in item for item in value):
        return "\n\n".join(f"{item.get('role', '')}: {item['content']}" for item in value)
    return json.dumps(value, ensure_ascii=False, indent=1)
