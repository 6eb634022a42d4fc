"""Before and after in words. What may be said is decided in `scoring.claims`, on numbers as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coevo.maths.stats import Measure
from coevo.report.read import Run
from coevo.scoring.claims import LEAST, beyond, digits, lost, printed, scored, shown, sign, unread

MEASURES = {"register_gap": "M", "share_right": "the share of right slots"}
"""What may fall while R-EMID looks well, and its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Where R-EMI on ID, or R-EMID under a shift, moved to."""

    side: int | None
    """1 if it rose beyond noise, -1 if it fell, 0 for neither, None where that cannot be told."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """Why it cannot be told: reasons, each with the levels that it holds of."""
    but: str = ""
    """What contradicts that all is as well as that looks; empty if nothing does."""


def verdicts(run: Run) -> list[str]:
    """Whether R-EMI on ID moved, then R-EMID per shift: by the paired change, or by the intervals if there is none."""
    if not (run.before and run.after and run.comparable):
        return []
    sentences = [_anchor(run, run.change)] if run.change else []
    for shift, entry in run.after["shifts"].items():
        before = run.before["shifts"].get(shift, {}).get("remid")
        if before and entry.get("remid"):
            sentences.append(_verdict(run, shift, before, entry["remid"]))
    return sentences


def at_home(run: Run) -> Finding | None:
    """Where R-EMI on ID moved to; None without a paired change of it."""
    remi = run.change["shifts"].get("id", {}).get("remi") if run.change else None
    if not run.change or not remi:
        return None
    side = sign(remi, run.change["scale"])
    if side < 0 and _pairs(run, "id", side) >= LEAST:
        return Finding(side)
    if doubts := _doubts(run, ["id"], side):
        return Finding(None, doubts)
    return Finding(side, but=_but(run, "id", side))


def under(run: Run, shift: str) -> Finding:
    """Where R-EMID under a shift moved to, of a run whose two evaluations can be compared."""
    side = _side(run, shift, "remid")
    # that it rose accuses, and takes no more than an interval; the rest acquits
    if doubts := _doubts(run, ["id", shift], side, listens=side <= 0):
        return Finding(None, doubts)
    return Finding(side, but=_but(run, shift, side) if side <= 0 else "")


def _anchor(run: Run, change: dict[str, Any]) -> str:
    """R-EMID also falls when a model gets worse on ID, so that is said first."""
    found = at_home(run)
    if found is None:
        return "id: R-EMI could not be compared, so neither can R-EMID."
    remi = change["shifts"]["id"]["remi"]
    moved = f"id: paired change of R-EMI {shown(remi, change['scale'], signed=True)} {_nats(change)}"
    if found.side is None:
        return f"{moved}. Whether R-EMI on ID moved cannot be told: {_joined(found)}."
    if found.side < 0:
        return f"{moved}. R-EMI on ID fell: what R-EMID lost by that is no gain under the shifts."
    return f"{moved}. R-EMI on ID {'rose' if found.side > 0 else 'did not move beyond noise'}{found.but}."


def _verdict(run: Run, shift: str, before: dict[str, float], after: dict[str, float]) -> str:
    assert run.after is not None
    scale = run.after["scale"]
    first, second = printed(before, scale), printed(after, scale)
    then, now = (f"{one.value:.{digits(scale)}f}" for one in (first, second))
    moved = f"{shift} shift: {then} {_nats(run.after)} before, {now} after"
    change = run.change["shifts"].get(shift, {}).get("remid") if run.change else None
    if change:
        moved += f" (paired change {shown(change, scale, signed=True)})"
    found = under(run, shift)
    if found.side is None:
        return f"{moved}. Whether R-EMID moved cannot be told: {_joined(found)}."
    words = {0: "did not move beyond noise", -1: "fell", 1: "rose"}[found.side]
    hidden = found.side and first.overlaps(second)
    overlap = " The two intervals overlap, but the paired change excludes 0." if hidden else ""
    return f"{moved}. R-EMID {words}{found.but}.{overlap}"


def _joined(found: Finding) -> str:
    return "; ".join(f"{reason}: {names}" for reason, names in found.doubts.items())


def _nats(evaluation: dict[str, Any]) -> str:
    return "nats per token" if evaluation["scale"] == "token_mean" else "nats"


def _side(run: Run, shift: str, measure: str) -> int:
    """1 if a shift's measure rose beyond noise, -1 if it fell, 0 for neither."""
    scale = _scale(run, measure)
    if run.change:
        return sign(run.change["shifts"].get(shift, {}).get(measure), scale)
    found = [e["shifts"].get(shift, {}).get(measure) if e else None for e in (run.before, run.after)]
    before, after = (printed(record, scale) if record else Measure(0.0, 0.0, 0.0) for record in found)
    if not all(found) or before.overlaps(after):
        return 0
    return 1 if after.value > before.value else -1


def _scale(run: Run, measure: str) -> str:
    assert run.after is not None
    return "share" if measure == "share_right" else str(run.after["scale"])


def _pairs(run: Run, shift: str, side: int) -> int:
    """Responses that have a score before and after: of all the shift, or, if it did not move, the fewest of a subset."""
    evaluation = run.change or run.after
    assert evaluation is not None
    level = evaluation["shifts"].get(shift)
    if side and level:
        return scored(level)
    tags = level["subsets"] if level else []
    return min((scored(evaluation["subsets"][tag]) for tag in tags), default=0)


def _doubts(run: Run, shifts: list[str], side: int, listens: bool = True) -> dict[str, str]:
    """Why nothing can be concluded of these shifts; empty if something can.

    Args:
        run: the run.
        shifts: which.
        side: where the measure moved to; if it did not, every subset must have pairs enough, else all together.
        listens: whether the scorer must read something of the references.
    """
    assert run.after is not None
    few = [f"{shift} ({_pairs(run, shift, side)})" for shift in shifts if _pairs(run, shift, side) < LEAST]
    levels = {shift: run.after["shifts"][shift] for shift in shifts if shift in run.after["shifts"]}
    scale = run.after["scale"]
    deaf = [f"{name} ({shown(record, scale)})" for name, record in unread(levels, scale).items()] if listens else []
    reasons = {
        f"{'' if side else 'in a subset '}fewer than {LEAST} scenarios are scored before and after": few,
        "to this scorer even the references tell nothing of their contexts, beyond noise": deaf,
    }
    return {reason: ", ".join(names) for reason, names in reasons.items() if names}


def _but(run: Run, shift: str, side: int = 0) -> str:
    """What contradicts that a shift is as well off as before, or better: M, right slots, subsets, unscored responses."""
    assert run.before is not None and run.after is not None
    found = [
        f"{name} fell{_by(run, shift, measure)}" for measure, name in MEASURES.items() if _side(run, shift, measure) < 0
    ]
    if run.change:
        own = run.change["shifts"].get(shift, {}).get("subsets", [])
        measure, worse = ("remi", -1) if shift == "id" else ("remid", 1)
        changes = {tag: run.change["subsets"][tag].get(measure) for tag in own}
        # where it moved as a whole, subsets that moved with it are no contradiction
        for way in (worse,) if side else (worse, -worse):
            if moved := beyond(changes, run.change["scale"], way):
                places = ", ".join(f"{tag} ({_change(run, tag, measure)})" for tag in moved)
                found.append(f"it {'rose' if way > 0 else 'fell'} on {places}")
    before, after = (evaluation["shifts"].get(shift) for evaluation in (run.before, run.after))
    if before and after and lost(after, before):
        counts = [f"{e['n'] - scored(e)} of {e['n']}" for e in (before, after)]
        found.append(f"more responses have no score: {counts[0]} before, {counts[1]} after")
    return f", but {'; '.join(found)}" if found else ""


def _by(run: Run, shift: str, measure: str) -> str:
    record = run.change["shifts"][shift].get(measure) if run.change else None
    if not record:
        return ""
    if measure == "share_right":
        record = {name: 100 * value for name, value in record.items()}
        return f" (change {record['value']:+.1f} [{record['low']:.1f}, {record['high']:.1f}] points)"
    return f" (change {shown(record, _scale(run, measure), signed=True)})"


def _change(run: Run, tag: str, measure: str) -> str:
    assert run.change is not None
    return shown(run.change["subsets"][tag][measure], run.change["scale"], signed=True)
