"""A model's diagnosis in words, made of its numbers alone; what may be said is decided in `claims`.

Each function returns its finding in one word, for programs, beside the sentences: `unknown` is a finding like others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coevo.scoring.claims import LEAST, Entry, Record, beyond, doubts, hidden, scored, shown, sign, unread
from coevo.scoring.summary import Row

WORDS = {"u": "the user's persona", "c": "the character", "d": "the dialogue"}
BROKEN = "less likely in any context (wrong language, broken text), which R-EMI cannot see"
Said = tuple[str, list[str]]
"""A finding, and its sentences."""


def coverage_words(rows: Sequence[Row]) -> list[str]:
    """How many responses have a score, and whether they are one text."""
    counts = Counter(row.status for row in rows)
    said = []
    if counts["ok"] < len(rows):
        others = ", ".join(f"{status} {n}" for status, n in counts.most_common() if status != "ok")
        said.append(f"{counts['ok']} of {len(rows)} responses could be scored and the others are in no mean: {others}.")
    texts = Counter(row.response for row in rows if row.status == "ok")
    most = max(texts.values(), default=0)
    if most > 1 and 2 * most > counts["ok"] and len({row.reference for row in rows}) > 1:
        said.append(f"{most} of the {counts['ok']} scored responses are one and the same text, whatever the scenario.")
    return said


# --- the shifts -----------------------------------------------------------------------------------------------------


def shift_words(
    hurt: Mapping[str, Any] | None, shifts: Mapping[str, Entry], subsets: Mapping[str, Entry], scale: str
) -> Said:
    """Which shift hurts most, or why none is seen to.

    Returns:
        `hurts`; `subset`: only subsets do; `register`: only M falls; `unknown`; `open`: a subset does by itself, but not
        where so many are looked at; `mean`: no shift does, and of single subsets it cannot be told; `none`.
    """
    if hurt is None:
        return "unknown", ["Which shift hurts most cannot be said: R-EMID needs scored responses on ID and under a shift."]
    home, named = shifts["id"], {f"the {name} shift": entry for name, entry in shifts.items() if name != "id"}
    shifted = {tag: entry for tag, entry in subsets.items() if entry["shift"] != "id"}
    if hurt["beyond_noise"]:
        return "hurts", [*_most_words(hurt, shifts, scale), *_subset_words(shifted, scale)]
    finding, lead = _acquittal(named, shifted, subsets, home, scale)
    largest = f"The {hurt['shift']} shift's R-EMID {shown(hurt['remid'], scale)} is the largest"
    reach = "is below 0" if sign(hurt["remid"], scale) < 0 else "reaches 0"
    end = f"{largest}, and its interval {reach}." if sign(hurt["remid"], scale) <= 0 else f"{largest}."
    return finding, [f"{lead[0]} {end}", *lead[1:], *_subset_words(shifted, scale, each=True)]


def _acquittal(
    named: Mapping[str, Entry], shifted: Mapping[str, Entry], subsets: Mapping[str, Entry], home: Entry, scale: str
) -> Said:
    """What is to be said where no shift's mean is seen to hurt."""
    remids = _remids(shifted)
    hurting, alone = beyond(remids, scale, 1), [tag for tag in remids if sign(remids[tag], scale) > 0]
    low = hidden(named, home, scale, one=False) or hidden(shifted, home, scale, one=True)
    doubt, unsure = doubts(named, subsets, home, scale), doubts(shifted, subsets, home, scale)
    registers = {name: shown({**shifted, **named}[name]["register_gap"], scale) for name in low}
    gaps = [f"M is below 0 under {name}, {gap}: the responses are {BROKEN}." for name, gap in registers.items()]
    untold = [f"For the rest it cannot be told: {'; '.join(doubt)}."] if doubt else []
    if hurting:
        lead = f"No shift hurts beyond noise in the mean, but of its subsets {', '.join(hurting)} {_do(hurting)}."
        return "subset", [lead, *gaps, *untold]
    if low:
        return "register", [f"By R-EMID no shift is seen to hurt, but by M: {', '.join(low)}.", *gaps, *untold]
    if doubt:
        return "unknown", [f"Whether a shift hurts cannot be told: {'; '.join(doubt)}."]
    if alone:
        return "open", [f"No shift hurts beyond noise in the mean; whether {_or(alone)} does cannot be told."]
    if unsure:
        return "mean", [
            f"No shift hurts beyond noise in the mean; of single subsets it cannot be told: {'; '.join(unsure)}."
        ]
    return "none", ["No shift hurts beyond noise."]


def _do(names: Sequence[str]) -> str:
    return "does" if len(names) == 1 else "do"


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _remids(shifted: Mapping[str, Entry]) -> dict[str, Record | None]:
    """R-EMID by subset, of those that have an interval."""
    return {tag: entry["remid"] for tag, entry in shifted.items() if entry.get("remid") and scored(entry) > 1}


def _most_words(hurt: Mapping[str, Any], shifts: Mapping[str, Entry], scale: str) -> list[str]:
    name, entry = hurt["shift"], shifts[hurt["shift"]]
    larger = [s for s, e in shifts.items() if e.get("remid") and e["remid"]["value"] > hurt["remid"]["value"]]
    verb = "hurts" if larger else "hurts most"
    words = f"The {name} shift {verb}: R-EMID {shown(hurt['remid'], scale)}, beyond noise (the interval is above 0)"
    if larger:
        parts = ", ".join(f"of the {shift} shift, {shown(shifts[shift]['remid'], scale)}" for shift in larger)
        words += f"; that {parts}, is larger and within noise"
    elif hurt["next"]:
        margin = f"{shown(hurt['next']['margin'], scale)} more than the {hurt['next']['shift']} shift"
        words += f"; {margin}, {'beyond noise too' if hurt['next']['beyond_noise'] else 'which is within noise'}"
    return [f"{words}.", *_loss_words(name, entry, scale)]


def _subset_words(shifted: Mapping[str, Entry], scale: str, each: bool = False) -> list[str]:
    """The subset with the largest R-EMID, which may hurt where its shift's mean does not; `each` names the others too."""
    remids = _remids(shifted)
    if len(remids) < 2:
        return []
    worst = max(remids, key=lambda tag: (remids[tag] or {})["value"])
    record = remids[worst] or {}
    # the largest of all may be a gain
    place = "and its interval is below 0" if sign(record, scale) < 0 else "which is within noise"
    if sign(record, scale) > 0:
        sure = worst in beyond(remids, scale, 1)
        among = f"where {len(remids)} are looked at (Holm)"
        place = f"beyond noise, also {among}" if sure else f"beyond noise by itself, but not {among}"
    others = [tag for tag in remids if tag != worst and sign(remids[tag], scale) > 0]
    figures = ", ".join(f"{tag} {shown(remids[tag] or {}, scale)}" for tag in others)
    too = f" Beyond noise by themselves too: {figures}." if each and others else ""
    return [f"Of {len(remids)} shifted subsets, {worst} has the largest R-EMID: {shown(record, scale)}, {place}.{too}"]


def _loss_words(name: str, entry: Entry, scale: str) -> list[str]:
    """What of the context the responses lost under one shift (A1), and what no context explains (M)."""
    known = {z: record for z, record in entry["components"].items() if record}
    lost = {z: record for z, record in known.items() if sign(record, scale) < 0}
    uses = entry.get("references_use") or {}
    deaf = [z for z in known if sign(uses.get(z), scale) <= 0]
    sentences = []
    if lost:
        z = min(lost, key=lambda name: lost[name]["value"])
        sentences.append(
            f"Under it the responses use {WORDS[z]} least, against the references: R-EMI_{z} {shown(lost[z], scale)}."
        )
    elif known and len(deaf) < len(known):
        sentences.append("Under it no single component of the context is lost beyond noise.")
    if known and deaf and not (lost.keys() - set(deaf)):
        parts = ", ".join(f"{WORDS[z]} ({shown(uses[z], scale) if uses.get(z) else 'not measured'})" for z in deaf)
        sentences.append(
            f"Whether this is lost under it cannot be told, as the references' own use of it does not show: {parts}."
        )
    if sign(entry["register_gap"], scale) < 0:
        sentences.append(f"M {shown(entry['register_gap'], scale)}: under the {name} shift the responses are also {BROKEN}.")
    return sentences


# --- at home --------------------------------------------------------------------------------------------------------


def home_words(shifts: Mapping[str, Entry], subsets: Mapping[str, Entry], scale: str) -> Said:
    """Where the model stands in distribution.

    Returns:
        `below`, `above`, `at`; `likelier`: at or above, M above 0; `register`: M below 0; `part`: below in a subset or a
        component; `unknown`.
    """
    home = shifts.get("id", {})
    if not (home.get("remi") and home.get("register_gap")):
        return "unknown", []
    remi, gap = sign(home["remi"], scale), sign(home["register_gap"], scale)
    numbers = f"R-EMI {shown(home['remi'], scale)}, M {shown(home['register_gap'], scale)}."
    if remi < 0:
        return "below", [f"At home (ID) it is below the references' level: {numbers}"]
    if gap < 0:
        return "register", [f"At home (ID) the responses are {BROKEN}: {numbers}"]
    if doubt := _home_doubts(home, subsets, scale):
        return "unknown", [
            f"Whether it is at the references' level at home (ID) cannot be told: {'; '.join(doubt)}. {numbers}"
        ]
    place = "above" if remi > 0 else "at"
    if lower := _home_losses(home, subsets, scale):
        return "part", [f"At home (ID) it is {place} the references' level as a whole, but below it in {lower}: {numbers}"]
    if gap > 0:
        end = "by M the responses are likelier than the references in any context, as plainer text is"
        return "likelier", [f"At home (ID) it is {place} the references' level in R-EMI; {end}: {numbers}"]
    return place, [f"At home (ID) it is {place} the references' level: {numbers}"]


def _home_doubts(home: Entry, subsets: Mapping[str, Entry], scale: str) -> list[str]:
    # R-EMI below 0 is what R-EMID above 0 is under a shift
    remi = home["remi"]
    mirrored = {"value": -remi["value"], "low": -remi["high"], "high": -remi["low"]}
    return doubts({"ID": {**home, "remid": mirrored}}, subsets, home, scale)


def _home_losses(home: Entry, subsets: Mapping[str, Entry], scale: str) -> str:
    """ID subsets and components that are below the references' level, with their figures."""
    own = {tag: subsets[tag]["remi"] for tag in home["subsets"] if tag in subsets}
    parts = {f"R-EMI_{z}": record for z, record in home["components"].items()}
    found = [f"{tag} (R-EMI {shown(own[tag], scale)})" for tag in beyond(own, scale, -1)] if len(own) > 1 else []
    return ", ".join(found + [f"{name} ({shown(parts[name], scale)})" for name in beyond(parts, scale, -1)])


# --- against another model ------------------------------------------------------------------------------------------


def against_words(against: Mapping[str, Any] | None, shifts: Mapping[str, Entry], scale: str) -> list[str]:
    """Where R-EMI differs from the first model's beyond noise. R-EMID would also fall by getting worse on ID."""
    if against is None:
        return []
    moved = [words for shift, entry in against["shifts"].items() if (words := _moved(shift, entry, scale))]
    moved += _moved_subsets(against, scale)
    lead = f"Against {against['model']}, paired by scenario"
    alone = {shift: entry for shift, entry in against["shifts"].items() if 2 * scored(entry) < entry["n"]}
    doubt = [f"fewer than half are scored for both: {', '.join(alone)}"] if alone else []
    if few := [tag for tag, entry in against["subsets"].items() if scored(entry) < LEAST]:
        doubt.append(f"fewer than {LEAST} are scored for both: {', '.join(few)}")
    if deaf := unread(shifts, scale):
        doubt.append(f"the references tell this scorer nothing of their contexts beyond noise: {', '.join(deaf)}")
    if moved:
        return [f"{lead}: {', '.join(moved)}."]
    if doubt:
        return [f"{lead}: whether they differ cannot be told; {'; '.join(doubt)}."]
    return [f"{lead}: no difference of R-EMI beyond noise, nor of M."]


def _moved(shift: str, entry: Entry, scale: str) -> str:
    """How one shift differs; empty where it does not."""
    where = "on ID" if shift == "id" else f"under the {shift} shift"
    remi, gap = sign(entry["remi"], scale), sign(entry["register_gap"], scale)
    if remi:
        but = f", but M {shown(entry['register_gap'], scale)}" if gap == -remi else ""
        return f"{'better' if remi > 0 else 'worse'} {where} (R-EMI {shown(entry['remi'], scale)}{but})"
    if gap:
        return f"M {'higher' if gap > 0 else 'lower'} {where} ({shown(entry['register_gap'], scale)}), R-EMI alike"
    return ""


def _moved_subsets(against: Mapping[str, Any], scale: str) -> list[str]:
    """Subsets that differ although so many are looked at, and not as their shift does."""
    subsets = against["subsets"]
    remis = {tag: entry["remi"] for tag, entry in subsets.items()}
    return [
        f"{'better' if side > 0 else 'worse'} on {tag} (R-EMI {shown(subsets[tag]['remi'], scale)})"
        for side in (1, -1)
        for tag in beyond(remis, scale, side)
        if sign(against["shifts"][subsets[tag]["shift"]]["remi"], scale) != side
    ]
