"""What finished models lose under which shift, in numbers and in words, made of their measurements. Pure: no model here.

Beside the measures of `summary` stand the divergences of the representation JSD (method, section 6) and the index B2
that is made of them. Which comparisons those are is said by `comparisons`; the caller computes them, since they take time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from coevo.config import Evaluation
from coevo.maths.bound import Bound, emid_bound
from coevo.maths.divergence import Divergence
from coevo.maths.stats import Floats, stratum_seed
from coevo.prompts import Part, character_text
from coevo.scoring.against import against_words
from coevo.scoring.claims import LEAST, beyond, scored, sign
from coevo.scoring.summary import Row, difference, remid_margin, summarise
from coevo.scoring.words import WORDS, coverage_words, home_words, likelier_words, shift_words
from coevo.types import COMPONENTS, Scenario, shift_of

if TYPE_CHECKING:
    from coevo.scoring.evaluate import Measurement

MOST_ROWS = 400
"""Rows of a sample that a divergence takes at most: a permutation costs the cube of it where embeddings are wide."""
COSTLIEST = 10
FEW = 30
"""A subset with fewer scored responses gets a note."""
Kind = Literal["u", "c", "d", "reference", "response", "gap"]


class Which(NamedTuple):
    """One divergence: of what, of which model, and of which subset."""

    kind: Kind
    """`u`, `c`, `d`, `reference`, `response`: P against the subset. `gap`: a model's responses against the references of
    the same scenarios, on the subset."""
    model: str
    """Empty where no model has a part in it."""
    subset: str
    """A shifted subset's tag; for `gap` also `id`, all of P."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of every text, each (N, D) with rows in the scenarios' order; NaN in rows without a text."""

    contexts: Mapping[str, Floats]
    """By component u, c, d."""
    references: Floats
    responses: Mapping[str, Floats]
    """By model; NaN where the response is not `ok`."""


def comparisons(tags: Sequence[str], embedded: Embedded, seed: int) -> Iterator[tuple[Which, Floats, Floats]]:
    """Every divergence that the diagnosis needs, with its two samples.

    P is all ID scenarios together, Q one shifted subset. A sample has at most `MOST_ROWS` rows, drawn by seed. What has
    fewer than two rows on a side is left out.

    Args:
        tags: (N,), each scenario's subset tag.
        embedded: the vectors.
        seed: of the draw.
    """
    by_tag = {tag: np.flatnonzero(np.array(tags) == tag) for tag in dict.fromkeys(tags)}
    shifted = {tag: places for tag, places in by_tag.items() if shift_of(tag) != "id"}
    home = [places for tag, places in by_tag.items() if tag not in shifted]
    if not home:
        return
    p = _some(np.concatenate(home), seed, "id")
    q = {tag: _some(places, seed, tag) for tag, places in shifted.items()}
    for tag, places in q.items():
        yield from _pair(Which("reference", "", tag), embedded.references[p], embedded.references[places])
        for z in COMPONENTS:
            yield from _pair(Which(z, "", tag), embedded.contexts[z][p], embedded.contexts[z][places])
    for model, vectors in embedded.responses.items():
        for tag, places in ({"id": p} | q).items():
            answered = places[~np.isnan(vectors[places]).any(axis=1)]
            yield from _pair(Which("gap", model, tag), vectors[answered], embedded.references[answered])
            if tag != "id":
                yield from _pair(Which("response", model, tag), vectors[p], vectors[places])


def _some(places: np.ndarray, seed: int, name: str) -> np.ndarray:
    if len(places) <= MOST_ROWS:
        return places
    chosen = np.random.default_rng(stratum_seed(seed, "divergence", name)).choice(places, MOST_ROWS, replace=False)
    return np.sort(chosen)


def _pair(which: Which, x: Floats, y: Floats) -> Iterator[tuple[Which, Floats, Floats]]:
    x, y = (rows[~np.isnan(rows).any(axis=1)] for rows in (x, y))
    if min(len(x), len(y)) >= 2:
        yield which, x, y


def diagnose(
    measured: Mapping[str, Measurement],
    scenarios: Sequence[Scenario],
    divergences: Mapping[Which, Divergence],
    config: Evaluation,
    seed: int,
    used: Mapping[Part, Floats] | None = None,
) -> dict[str, Any]:
    """The diagnosis of every model, as plain JSON.

    Args:
        measured: by model, all of the same scenarios, scorer, configuration and seed.
        scenarios: those that were measured.
        divergences: of `comparisons`; those that are missing are null.
        config: of the measurements.
        seed: of the measurements.
        used: by component, what the references use of it (`evaluate.uses`), (N,); a loss where that is not known, or does
            not show, is never denied.
    """
    uses = _uses(scenarios, used or {}, config, seed)
    first = next(iter(measured))
    summary = measured[first].summary
    texts = {x.sample_id: _texts(x) for x in scenarios}
    stamp = {name: value for name, value in summary.items() if name not in ("model", "subsets", "shifts")}
    shifted = [tag for tag in summary["subsets"] if shift_of(tag) != "id"]
    return {
        **stamp,
        "n": len(scenarios),
        "notes": _notes(measured),
        "divergences": {
            tag: {kind: _divergence(divergences, kind, "", tag) for kind in (*COMPONENTS, "reference")} for tag in shifted
        },
        "models": {
            name: _model(name, measured, divergences, config, seed, uses)
            | {"costliest": [texts[row.sample_id] | row.to_dict() for row in _costliest(measurement.rows)]}
            for name, measurement in measured.items()
        },
    }


def _model(
    name: str,
    measured: Mapping[str, Measurement],
    divergences: Mapping[Which, Divergence],
    config: Evaluation,
    seed: int,
    uses: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything of one model but its costliest scenarios."""
    first, rows, summary = next(iter(measured)), measured[name].rows, measured[name].summary
    subsets = {
        tag: entry
        | {"n_negatives": _negatives(r for r in rows if r.subset_tag == tag), "references_use": uses["subsets"][tag]}
        | _risk(name, tag, divergences)
        for tag, entry in summary["subsets"].items()
    }
    shifts = {
        shift: entry
        | {
            "n_negatives": _negatives(r for r in rows if shift_of(r.subset_tag) == shift),
            "references_use": uses["shifts"][shift],
        }
        for shift, entry in summary["shifts"].items()
    }
    scale = summary["scale"]
    hurt = _hurts_most(rows, summary, config, seed)
    worst = _worst(subsets)
    against = _against(first, name, measured, config, seed)
    shifts_found, shifts_said = shift_words(hurt, shifts, subsets, scale)
    home_found, home_said = home_words(shifts, subsets, scale)
    return {
        "n": len(rows),
        "statuses": dict(Counter(row.status for row in rows)),
        "unscored": {
            status: [row.sample_id for row in rows if row.status == status]
            for status in dict.fromkeys(row.status for row in rows if row.status != "ok")
        },
        "verdict": [
            *coverage_words(rows),
            *shifts_said,
            *home_said,
            *likelier_words(shifts, scale),
            *_risk_words(worst),
            *against_words(against, shifts, scale),
        ],
        "findings": {"shifts": shifts_found, "home": home_found},
        "hurts_most": hurt,
        "worst_case": worst,
        "against": against,
        "shifts": shifts,
        "subsets": subsets,
        "gap_id": _divergence(divergences, "gap", name, "id"),
    }


# --- numbers --------------------------------------------------------------------------------------------------------


def _uses(
    scenarios: Sequence[Scenario], used: Mapping[Part, Floats], config: Evaluation, seed: int
) -> dict[str, dict[str, Any]]:
    """What the references use of each component, by subset and by shift; null where it is not known."""
    nats = {z: used.get(z, np.full(len(scenarios), np.nan)) for z in COMPONENTS}
    rows = [
        Row(
            x.sample_id, x.subset_tag, "", "", "", "", "ok", component_u=float(u), component_c=float(c), component_d=float(d)
        )
        for x, u, c, d in zip(scenarios, *nats.values(), strict=True)
    ]
    found = summarise(rows, config, seed, model="", scorer="")
    return {level: {name: e["components"] for name, e in found[level].items()} for level in ("subsets", "shifts")}


def _divergence(divergences: Mapping[Which, Divergence], kind: Any, model: str, tag: str) -> dict[str, float] | None:
    found = divergences.get(Which(kind, model, tag))
    return found.to_dict() if found else None


def _risk(model: str, tag: str, divergences: Mapping[Which, Divergence]) -> dict[str, Any]:
    """B2 of one subset, of corrected and of raw divergences, and the divergences of the responses.

    A corrected divergence within its null counts as 0: the roots of B2 would make much of what is left of it by chance.
    """
    if shift_of(tag) == "id":
        return {}
    wanted: list[tuple[Kind, str, str]] = [(z, "", tag) for z in COMPONENTS]
    wanted += [("gap", model, "id"), ("gap", model, tag)]
    found = [divergences.get(Which(*which)) for which in wanted]
    bounds: dict[str, Any] = {"bound": None, "bound_raw": None}
    known = [divergence for divergence in found if divergence is not None]
    if len(known) == len(found):
        bounds["bound"] = _bound_json(*(d.corrected if d.raw > d.null_high else 0.0 for d in known))
        bounds["bound_raw"] = _bound_json(*(d.raw for d in known))
    return {
        **bounds,
        "gap": _divergence(divergences, "gap", model, tag),
        "response": _divergence(divergences, "response", model, tag),
    }


def _bound_json(u: float, c: float, d: float, gap_p: float, gap_q: float) -> dict[str, Any]:
    bound: Bound = emid_bound({"u": u, "c": c, "d": d}, gap_p, gap_q)
    return {"value": bound.value, "shares": dict(bound.shares), "response": bound.response, "largest": bound.largest}


def _negatives(rows: Iterator[Row]) -> list[int] | None:
    """The fewest and the most negatives of any scored response."""
    counts = [row.n_negatives for row in rows if row.status == "ok"]
    return [min(counts), max(counts)] if counts else None


def _hurts_most(rows: Sequence[Row], summary: Mapping[str, Any], config: Evaluation, seed: int) -> dict[str, Any] | None:
    """The shift with the largest R-EMID that is beyond noise, or the largest of all, and how far the next one is behind.

    `corrected`: also where so many shifts are looked at (Holm), of responses enough to say so; those come first.
    """
    shifts, scale = summary["shifts"], summary["scale"]
    known = {shift: entry["remid"] for shift, entry in shifts.items() if entry.get("remid")}
    if not known:
        return None

    def enough(shift: str) -> bool:
        return min(scored(shifts["id"]), scored(shifts[shift])) >= LEAST

    def spreads(shift: str) -> bool:
        # of one response the bootstrap's interval has no width
        return any(scored(summary["subsets"][tag]) > 1 for tag in shifts[shift]["subsets"])

    sure = {shift: sign(record, scale) > 0 and spreads(shift) and spreads("id") for shift, record in known.items()}
    # of several that are looked at, one is easily beyond noise by itself
    corrected = beyond({shift: record for shift, record in known.items() if enough(shift)}, scale, 1)
    ranked = sorted(
        known, key=lambda shift: (sure[shift] and shift in corrected, sure[shift], known[shift]["value"]), reverse=True
    )
    result: dict[str, Any] = {
        "shift": ranked[0],
        "remid": known[ranked[0]],
        "beyond_noise": sure[ranked[0]],
        "corrected": sure[ranked[0]] and ranked[0] in corrected,
        "next": None,
    }
    if len(ranked) > 1:
        margin = remid_margin(rows, config, seed, ranked[0], ranked[1])
        result["next"] = {
            "shift": ranked[1],
            "margin": margin.to_dict(),
            "beyond_noise": sign(margin.to_dict(), scale) > 0,
        }
    return result


def _worst(subsets: Mapping[str, Any]) -> dict[str, Any] | None:
    """Worst-case risk: the subset with the largest B2."""
    known = {tag: entry["bound"] for tag, entry in subsets.items() if entry.get("bound")}
    if not known:
        return None
    tag = max(known, key=lambda name: known[name]["value"])
    return {"subset": tag, "shift": subsets[tag]["shift"], **known[tag]}


def _against(
    first: str, name: str, measured: Mapping[str, Measurement], config: Evaluation, seed: int
) -> dict[str, Any] | None:
    """This model minus the first one, paired by scenario; its `remid` is the difference of the two R-EMIDs."""
    rows = difference(measured[first].rows, measured[name].rows)
    if name == first or not any(row.status == "ok" for row in rows):
        return None
    change = summarise(rows, config, seed, model=f"{name} - {first}", scorer=measured[name].summary["scorer"])
    return {"model": first, "shifts": change["shifts"], "subsets": change["subsets"]}


def _costliest(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row.status == "ok"), key=lambda row: row.remi)[:COSTLIEST]


def _texts(x: Scenario) -> dict[str, Any]:
    turns = [{"role": turn.role, "text": turn.text} for turn in x.dialogue]
    return {"character": character_text(x.character), "dialogue": turns}


# --- words ----------------------------------------------------------------------------------------------------------


def _risk_words(worst: dict[str, Any] | None) -> list[str]:
    if worst is None:
        return []
    largest = f"; of the components, most of it from {WORDS[worst['largest']]}" if worst["largest"] else ""
    return [f"Worst-case risk (B2, an index without unit): {worst['value']:.2f}, in {worst['subset']}{largest}."]


def _notes(measured: Mapping[str, Measurement]) -> list[str]:
    """What a reader must know of the measurements themselves."""
    notes = []
    summaries = [measurement.summary for measurement in measured.values()]
    subsets: Mapping[str, Any] = summaries[0]["subsets"]
    if "id" not in summaries[0]["shifts"]:
        notes.append("No scenario is in distribution (ID), so there is no R-EMID, no divergence and no index B2.")
    few = [tag for tag in subsets if any(s["subsets"][tag]["statuses"].get("ok", 0) < FEW for s in summaries)]
    if few:
        notes.append(f"Fewer than {FEW} scored responses, so that intervals are rough: {', '.join(few)}.")
    too_long = sum(row.status.endswith("too_long") for m in measured.values() for row in m.rows)
    if too_long:
        notes.append(
            f"{too_long} response(s) are longer with their prompt than the scorer reads: train a scorer with higher "
            "limits.prompt and limits.response to have them counted."
        )
    return notes
