"""What a table's numbers allow to be said. The sentences of every report are decided here, on numbers as they are printed.

A sentence that accuses ("hurts", "fell") takes one number beyond noise, of responses enough to have an interval, and also
where so many are looked at. One that acquits ("no shift hurts") takes all that
could contradict it: every subset, M beside R-EMI, what the scorer reads of the references, how many responses have a score,
and how wide the intervals are. Where those are not there the verdict is that it cannot be told, and why.

A *record* is a value with its 95 % interval. A *level* is a shift or a subset, with its entry of the evaluation dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

from coevo.maths.stats import Measure, holm, wilson

Record = Mapping[str, float]
Entry = Mapping[str, Any]
LEAST = 6
"""Scored responses below which a level neither acquits nor accuses. A percentile interval of n numbers reaches from the
smallest to the largest at most, and all of them lie on one side of a median with probability 2 / 2^n: below 5 % from n = 6
on. Fewer make no 95 % interval at all; of 6 it is rough: it covers 89 % for normal numbers, 82 % for exponential ones."""
WIDE = 0.5
"""An interval that reaches so much of what the references tell of their contexts acquits nobody."""
EXACT = 1e-9
"""What is nearer to 0 than this is 0, and no number that happens to be small."""
TAIL = 0.025
"""On either side of a 95 % interval."""
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(1 - TAIL)


def digits(scale: str) -> int:
    """Decimals that a figure of this scale is printed with; `share` is one between 0 and 1, printed in percent."""
    return 3 if scale in ("token_mean", "share") else 2


def scale_of(measure: str, scale: str) -> str:
    """The scale of one measure of an evaluation, whose others are on `scale`."""
    return "token_mean" if measure.endswith("_per_token") else scale


def printed(record: Record, scale: str) -> Measure:
    """A record as a reader sees it: what is below the last decimal is none."""
    # adding 0 takes the sign off a zero
    return Measure(*(round(record[name], digits(scale)) + 0.0 for name in ("value", "low", "high")))


def shown(record: Record, scale: str, signed: bool = False) -> str:
    """A record in text, to as many decimals as its scale deserves."""
    seen, places = printed(record, scale), digits(scale)
    return f"{seen.value:{'+' if signed else ''}.{places}f} [{seen.low:.{places}f}, {seen.high:.{places}f}]"


def sign(record: Record | None, scale: str) -> int:
    """1 above 0 beyond noise, -1 below 0, 0 for neither or for no record."""
    if not record:
        return 0
    seen = printed(record, scale)
    return int(min(seen.value, seen.low) > 0) - int(max(seen.value, seen.high) < 0)


def less(first: Record, second: Record) -> Record:
    """First minus second of two independent records, by the method of variance estimates recovery (Zou and Donner 2008)."""
    value = first["value"] - second["value"]
    low = math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    high = math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return {"value": value, "low": value - low, "high": value + high}


def beyond(records: Mapping[str, Record | None], scale: str, side: int) -> list[str]:
    """Names of the records that lie on one side of 0 beyond noise although so many are looked at (Holm), largest first.

    A record's p value is read off its interval as of a normal distribution, so that it is below `TAIL` just where the
    interval does not reach 0.
    """
    known = {name: record for name, record in records.items() if record}
    corrected = holm([_p_value(record, scale, side) for record in known.values()])
    found = [name for name, p in zip(known, corrected, strict=True) if p < TAIL]
    return sorted(found, key=lambda name: -side * known[name]["value"])


def _p_value(record: Record, scale: str, side: int) -> float:
    """One-sided, of the record being on the other side of 0."""
    if sign(record, scale) != side:
        return 1.0
    seen = printed(record, scale)
    reach = seen.value - seen.low if side > 0 else seen.high - seen.value
    return 1 - _NORMAL.cdf(_Z * abs(seen.value) / reach) if reach > 0 else 0.0


# --- what is known of a level ---------------------------------------------------------------------------------------


def scored(entry: Entry) -> int:
    """How many of a level's responses have a score."""
    return int(entry["statuses"].get("ok", 0))


def unread(levels: Mapping[str, Entry], scale: str) -> dict[str, Record]:
    """Levels where even the references tell this scorer nothing of their contexts: nothing can be lost there."""
    told = {name: entry.get("mi_reference") for name, entry in levels.items()}
    return {name: record for name, record in told.items() if record and sign(record, scale) <= 0}


def lost(entry: Entry, other: Entry) -> bool:
    """Whether more of a level's responses are without a score than of another's, beyond noise (Newcombe 1998)."""
    if not (entry["n"] and other["n"]):
        return False
    here, there = (wilson(e["n"] - scored(e), e["n"]).to_dict() for e in (entry, other))
    return less(here, there)["low"] > 0


def doubts(levels: Mapping[str, Entry], subsets: Mapping[str, Entry], home: Entry, scale: str) -> list[str]:
    """Why these levels cannot be acquitted of an R-EMID; empty if they can.

    Args:
        levels: shifts or shifted subsets by name.
        subsets: every subset, the levels' own among them.
        home: the level in distribution.
        scale: of the numbers.
    """
    members = {name: [tag for tag in entry.get("subsets", [name]) if tag in subsets] for name, entry in levels.items()}
    few = {tag for tags in members.values() for tag in tags} | set(home["subsets"])
    counts = {tag: scored(subsets[tag]) for tag in sorted(few) if scored(subsets[tag]) < LEAST}
    deaf = unread({"ID": home, **levels}, scale)
    wide = {name: entry for name, entry in levels.items() if name not in deaf and _is_wide(entry, scale)}
    touching = {name: entry for name, entry in levels.items() if (remid := entry.get("remid")) and touches(remid, scale, 1)}
    without = {name: entry for name, entry in {"ID": home, **levels}.items() if 2 * scored(entry) < entry["n"]}
    without |= {name: entry for name, entry in levels.items() if lost(entry, home)}
    plain = {name: entry for name, entry in {"ID": home, **levels}.items() if _is_plain(entry, scale)}
    told = home.get("mi_response")
    mute = {"ID": told} if told and sign(told, scale) <= 0 else {}
    said = {
        f"fewer than {LEAST} responses with a score, too few for an interval": _listed(counts, str),
        "many responses without a score": _listed(without, lambda e: f"{e['n'] - scored(e)} of {e['n']}"),
        "to this scorer even the references tell nothing of their contexts, beyond noise": _listed(
            deaf, lambda record: shown(record, scale)
        ),
        "the responses tell nothing of their contexts at home, so there is nothing to lose": _listed(
            mute, lambda record: shown(record, scale)
        ),
        "M, which no context explains, is more than all that the references tell of their contexts": _listed(
            plain, lambda e: f"M {shown(e['register_gap'], scale)}, references {shown(e['mi_reference'], scale)}"
        ),
        "the interval ends at 0 itself, as of few or equal numbers": _listed(
            touching, lambda e: f"R-EMID {shown(e['remid'], scale)}"
        ),
        "the interval is so wide that half of what the references tell of their contexts may be lost": _listed(
            wide, lambda e: f"R-EMID {shown(e['remid'], scale)}, references {shown(e['mi_reference'], scale)}"
        ),
    }
    return [f"{reason}: {names}" for reason, names in said.items() if names]


def _is_wide(entry: Entry, scale: str) -> bool:
    remid, told = entry.get("remid"), entry.get("mi_reference")
    if not remid or not told:
        return False
    return sign(remid, scale) <= 0 and bool(remid["high"] >= WIDE * told["value"])


def touches(record: Record, scale: str, side: int) -> bool:
    """Whether a record on one side of 0, as it is printed, has an interval that ends exactly at 0.

    A percentile interval does so where a resample can be made of zeros alone: no continuous measure of many responses.
    """
    end = record["low"] if side > 0 else record["high"]
    return side * printed(record, scale).value > 0 and abs(end) < EXACT


def _is_plain(entry: Entry, scale: str) -> bool:
    """Whether the responses are likelier than the references by more than any context could make them."""
    gap, told = entry.get("register_gap"), entry.get("mi_reference")
    if not gap or not told:
        return False
    return sign(gap, scale) > 0 and bool(gap["low"] > told["value"])


def hidden(levels: Mapping[str, Entry], home: Entry, scale: str, one: bool) -> dict[str, bool]:
    """Levels whose M is below 0 beyond noise, and not at home as well: text that R-EMI cannot tell from sound text.

    That M is beyond noise here and not at home does not make the two differ: home has fewer scenarios.

    Args:
        levels: shifts or shifted subsets by name.
        home: the level in distribution.
        scale: of the numbers.
        one: whether to leave out single ones that are below 0 by themselves, but not where so many are looked at.

    Returns:
        By name, whether that is sure: M is lower than at home, and below 0 also where so many are looked at.
    """
    gaps = {name: entry.get("register_gap") for name, entry in levels.items()}
    corrected = beyond(gaps, scale, -1)
    low = corrected if one else [name for name in gaps if sign(gaps[name], scale) < 0]
    there = home.get("register_gap")
    lower = {name: not there or _falls(there, gaps[name], scale) for name in low}
    enough = {name: min(scored(home), scored(levels[name])) >= LEAST for name in low}
    return {
        name: lower[name] and name in corrected and enough[name] for name in low if lower[name] or sign(there, scale) >= 0
    }


def _falls(home: Record, gap: Record | None, scale: str) -> bool:
    return gap is not None and sign(less(home, gap), scale) > 0


def _listed(entries: Mapping[str, Any], words: Callable[[Any], str]) -> str:
    """Names, each with its figure in brackets."""
    return ", ".join(f"{name} ({words(entry)})" for name, entry in entries.items())
