"""report.html: one file with everything in it, to open, keep or send. All text of data or models is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from coevo.escape import visible
from coevo.report import drift, headline
from coevo.report.changes import verdicts
from coevo.report.charts import charts, library
from coevo.report.contexts import contexts, pool_table
from coevo.report.read import Run, choose_turns
from coevo.report.rollouts import embedded, plain_text, script_json
from coevo.report.tables import columns, decisions, legend, lines, simulator_sentences, stamp
from coevo.report.worst import groups, unscored
from coevo.rewards import verdict as audit

CAPTIONS = {
    "remid_by_subset.png": "R-EMID per subset, before and after co-evolution",
    "reward_parts.png": "The role-playing model's reward and its parts, over steps and iterations",
    "simulator.png": "The simulator's regret and gates, over steps and iterations",
    "learning.png": "Losses of the supervised phases",
}
_PAGE = Path(__file__).parent / "templates" / "page.js"
_TURN: dict[str, Any] = dict.fromkeys(("phase", "step", "sample_id", "subset_tag", "status"), "") | dict.fromkeys(
    ("reward", "parts", "answer", "prompt")
)
"""A rollout's keys, for one that does not have them all."""


def render(run: Run, images: Mapping[str, bytes], live: str = "") -> str:
    """The page; `images` are PNGs by file name.

    Args:
        run: what it shows.
        images: pictures for who has no JavaScript.
        live: what the server of the page calls this state of the run, for a page that comes again when it changes.
    """
    known = contexts(run)
    made = charts(run)
    rollouts = embedded(run, known)
    scripts = {"library": library(), "page": _PAGE.read_text(encoding="utf-8")}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            live=live,
            policy=_policy(scripts.values(), live),
            scripts={name: Markup(script) for name, script in scripts.items()},
            lead=headline.sentences(run),
            tiles=headline.tiles(run),
            meaning=headline.meaning(run),
            steps=headline.steps(run),
            trust=headline.trust(run),
            stamp=stamp(run),
            legend=legend(run),
            verdicts=[*simulator_sentences(run), *decisions(run), *verdicts(run)],
            headings=[heading for _, heading, _ in columns(run)],
            tables=[("Means per shift", lines(run, "shifts")), ("Per subset", lines(run, "subsets"))],
            figures=figures(images, CAPTIONS),
            charts=made,
            chart_data=Markup(script_json({place: [chart["spec"] for chart in one] for place, one in made.items()})),
            rollout_data=Markup(script_json({name: rollouts[name] for name in ("rows", "contexts")})),
            left_out=rollouts["left_out"],
            pool=pool_table(run),
            turns=[_TURN | turn for turn in choose_turns(run.turns, 10)],
            groups=groups(run, known),
            unscored=unscored(run),
            audit=_audit(run),
            drift=_drift(run),
        )
    )


def _policy(scripts: Iterable[str], live: str) -> str:
    """What a browser lets the page do: run these very scripts and no other, and ask nobody for anything."""
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(s.encode()).digest()).decode()}'" for s in scripts if s)
    asks = "; connect-src 'self'" if live else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}{asks}"


def environment() -> jinja2.Environment:
    """Templates of the pages, with every value escaped, and what turns the direction of writing shown."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("coevo.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # before the escaping
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["nats"] = _nats
    made.filters["plain"] = plain_text
    return made


def figures(images: Mapping[str, bytes], captions: Mapping[str, str]) -> list[dict[str, str]]:
    """Pictures as the page holds them: in itself."""
    return [
        {"name": name, "caption": captions[name], "source": "data:image/png;base64," + base64.b64encode(image).decode()}
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
