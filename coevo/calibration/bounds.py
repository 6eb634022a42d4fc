"""The bound B1 and its index B2, computed exactly, against the exact R-EMID of many responders under every shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from coevo.calibration.cache import Cache
from coevo.calibration.responders import HOME, SHIFTED, dialled, random_responders, worst
from coevo.calibration.settings import Result, Settings, Tick, verdict
from coevo.data.world import exact
from coevo.data.world.exact import only
from coevo.data.world.responders import REFERENCE, Responder
from coevo.maths.correlation import spearman
from coevo.types import SHIFT_OF_TAG


def bounds(settings: Settings, cache: Cache, tick: Tick) -> Result:
    """R-EMID, B1 and B2 by responder and shift; by shift, how much of B1 was ever reached."""
    del cache  # quick enough to do again
    named = [*dialled(), *worst()]
    responders = [*named, *random_responders(settings.random_responders, settings.seed)]
    rows = []
    for done, law in enumerate(responders, start=1):
        rows += [_row(law, tag) for tag in SHIFTED]
        tick(done, len(responders))
    largest = max(rows, key=lambda row: row["reached"])
    below = sum(row["reached"] > 1 for row in rows)
    return {
        "rows": [row for row in rows if row["responder"] in {law.name for law in named}],
        "by_shift": {
            shift: _reached([r for r in rows if r["shift"] == shift]) for shift in dict.fromkeys(SHIFT_OF_TAG.values())
        },
        "rank_correlation": {
            index: {reading: spearman(_column(rows, index), _column(rows, reading)) for reading in ("remid", "remid_scored")}
            for index in ("b1", "b2")
        },
        "scored_above_b1": float(np.mean(_column(rows, "remid_scored") > _column(rows, "b1"))),
        "verdicts": [
            verdict(
                "B1 is never below the exact R-EMID",
                "0 of all shifts x responders",
                f"{below} of {len(rows)}; R-EMID reached {largest['reached']:.3f} of B1 at most "
                f"({largest['responder']}, {largest['tag']})",
                below == 0,
            )
        ],
    }


def _row(law: Responder, tag: str) -> dict[str, Any]:
    home, away = only(HOME), only(tag)
    remid = exact.remi(law, home) - exact.remi(law, away)
    scored = exact.remi(law, home, REFERENCE) - exact.remi(law, away, REFERENCE)
    responses = exact.response_jsd(law, home), exact.response_jsd(law, away)
    roots = {z: math.sqrt(jsd) for z, jsd in exact.component_jsd(home, away).items()}
    entropy = exact.highest_entropy(law, {**home, **away})
    b1 = math.sqrt(2 / 3) * entropy * sum(roots.values()) + 8 * sum(responses) ** 0.25
    return {
        "responder": law.name,
        "tag": tag,
        "shift": SHIFT_OF_TAG[tag],
        "remid": remid,
        "remid_scored": scored,
        "b1": b1,
        "b2": sum(roots.values()) + sum(jsd**0.25 for jsd in responses),
        "reached": remid / b1,
    }


def _reached(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    shares = _column(rows, "reached")
    return {
        "largest": float(shares.max()),
        "median": float(np.median(shares)),
        "largest_remid": float(_column(rows, "remid").max()),
    }


def _column(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return np.array([row[name] for row in rows])
