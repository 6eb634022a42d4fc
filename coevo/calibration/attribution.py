"""Whether A1 names the component that a responder fails, by exact densities that lack one component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coevo.calibration.cache import Cache
from coevo.calibration.responders import FAILURES, GUESSES, SHARED_FAILURES
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.data.world import exact
from coevo.data.world.exact import POOL, TAGS, Reading, only
from coevo.data.world.responders import Fault, Responder
from coevo.types import COMPONENTS, Component

ASKED = 0.95
"""Cases of a hundred that must be attributed rightly: 19 of 20."""
CLEAR = 1e-6
"""Nats by which the failed component must lose more than each other one; exact sums that should be equal differ by less."""


def attribution(settings: Settings, cache: Cache, tick: Tick) -> Result:
    """Losses in u, c and d by failure and subset, for both readings of "without z" and both populations."""
    del settings, cache  # nothing is drawn, and it is quick
    everything = {**FAILURES, **GUESSES, **SHARED_FAILURES}
    rows: list[dict[str, Any]] = []
    readings: tuple[Reading, ...] = ("shown", "owned")
    for done, (name, (component, fault)) in enumerate(everything.items(), start=1):
        for tag in _tags(fault):
            for reading in readings:
                for negatives, population in (("subset", None), ("pool", POOL)):
                    law = Responder(name, fault)
                    lost = {z: exact.component_remi(law, only(tag), z, reading, population) for z in COMPONENTS}
                    row = {"failure": name, "tag": tag, "reading": reading, "negatives": negatives}
                    rows.append(row | judged(component, lost))
        tick(done, len(everything))
    own = [row for row in rows if row["failure"] not in SHARED_FAILURES]
    shared = [row for row in rows if row["failure"] in SHARED_FAILURES]
    return {
        "rows": rows,
        "verdicts": [
            *(_verdict(own, "what one component alone shows", reading, negatives) for reading, negatives in _SORTS),
            *(_verdict(shared, "what persona and dialogue both show", reading, negatives) for reading, negatives in _SORTS),
        ],
    }


_SORTS = (("shown", "subset"), ("shown", "pool"), ("owned", "pool"))


def judged(component: Component, lost: Mapping[Component, float]) -> dict[str, Any]:
    """Which component lost most, and whether it is the failed one and clearly so; `lost` is A1, below 0 for a loss."""
    others = min(value for z, value in lost.items() if z != component)
    return {
        "component": component,
        "lost": dict(lost),
        "blamed": min(lost, key=lambda z: lost[z]),
        "right": bool(lost[component] < others - CLEAR),
    }


def _tags(fault: Fault) -> Sequence[str]:
    """Where the failure shows: English is no failure to who speaks it."""
    foreign = [tag for tag in TAGS if exact.tag_attributes(tag)["language"] != "en"]
    return foreign if "language" in fault.mistakes else TAGS


def _verdict(rows: Sequence[Mapping[str, Any]], what: str, reading: str, negatives: str) -> dict[str, Any]:
    chosen = [row for row in rows if (row["reading"], row["negatives"]) == (reading, negatives)]
    right = sum(row["right"] for row in chosen)
    return verdict(
        f"A1, exact, without what is {reading}, over the {negatives}: failures of {what} lose most in their component",
        "at least 19 of 20",
        f"{right} of {len(chosen)}",
        right >= ASKED * len(chosen),
    )
