"""A model's diagnosis in words, made of its numbers alone; what may be said is decided in `claims`.

Each function returns its finding in one word, for programs, beside the sentences: `unknown` is a finding like others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coevo.scoring.claims import (
    LEAST,
    Entry,
    Record,
    beyond,
    doubts,
    hidden,
    less,
    scored,
    shown,
    sign,
)
from coevo.scoring.summary import Row

WORDS = {"u": "the user's persona", "c": "the character", "d": "the dialogue"}
BROKEN = "less likely in any context (wrong language, broken text), which R-EMI cannot see"
LONGER = "less likely as a whole and not per token, so that they may only be longer than the references"
Said = tuple[str, list[str]]
"""A finding, and its sentences."""


def coverage_words(rows: Sequence[Row]) -> list[str]:
    """How many responses have a score, and whether they are one text."""
    counts = Counter(row.status for row in rows)
    said = []
    if counts["ok"] < len(rows):
        others = ", ".join(f"{status} {n}" for status, n in counts.most_common() if status != "ok")
        said.append(f"{counts['ok']} of {len(rows)} responses could be scored and the others are in no mean: {others}.")
    if poor := counts["loop"] + counts["echo"]:
        said.append(
            f"{poor} of them mostly repeat themselves (loop) or copy the query or the context (echo), which every scorer "
            "finds likely: the figures are of the other responses and say nothing of these."
        )
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
        `hurts`; `subset`: only subsets do; `register`: only M falls; `unknown`; `open`: a shift or subset does by itself,
        but not where so many are looked at, or M is below 0 and not known to be lower than at home; `mean`: no shift
        does, and of single subsets it cannot be told; `none`.
    """
    if hurt is None:
        return "unknown", ["Which shift hurts most cannot be said: R-EMID needs scored responses on ID and under a shift."]
    home, named = shifts["id"], {f"the {name} shift": entry for name, entry in shifts.items() if name != "id"}
    shifted = {tag: entry for tag, entry in subsets.items() if entry["shift"] != "id"}
    if hurt["beyond_noise"]:
        sure = hurt["corrected"]
        others = _other_words(named, subsets, home, scale, f"the {hurt['shift']} shift")
        finding = "hurts" if sure else "subset" if _hurting(shifted, home, scale) else "open"
        return finding, [*_most_words(hurt, shifts, scale), *others, *_subset_words(shifted, home, scale, each=not sure)]
    finding, lead = _acquittal(named, shifted, subsets, home, scale)
    largest = f"The {hurt['shift']} shift's R-EMID {shown(hurt['remid'], scale)} is the largest"
    reach = "is below 0" if sign(hurt["remid"], scale) < 0 else "reaches 0"
    end = f"{largest}, and its interval {reach}." if sign(hurt["remid"], scale) <= 0 else f"{largest}."
    return finding, [f"{lead[0]} {end}", *lead[1:], *_subset_words(shifted, home, scale, each=True)]


def _acquittal(
    named: Mapping[str, Entry], shifted: Mapping[str, Entry], subsets: Mapping[str, Entry], home: Entry, scale: str
) -> Said:
    """What is to be said where no shift's mean is seen to hurt."""
    remids = _remids(shifted)
    hurting, alone = _hurting(shifted, home, scale), [tag for tag in remids if sign(remids[tag], scale) > 0]
    low = hidden(named, home, scale, one=False) or hidden(shifted, home, scale, one=True)
    doubt, unsure = doubts(named, subsets, home, scale), doubts(shifted, subsets, home, scale)
    gaps = _register_words({**shifted, **named}, low, home, scale)
    untold = [f"For the rest it cannot be told: {'; '.join(doubt)}."] if doubt else []
    if hurting:
        subset = "the subset" if len(hurting) == 1 else "the subsets"
        lead = f"No shift is seen to hurt in the mean over its subsets, but {subset} {', '.join(hurting)} {_do(hurting)}."
        return "subset", [lead, *gaps, *untold]
    if any(low.values()):
        worse = ", ".join(name for name in low if low[name])
        return "register", [f"By R-EMID no shift is seen to hurt, but by M: {worse}.", *gaps, *untold]
    if low:
        lead = f"By R-EMID no shift is seen to hurt; whether {_or(list(low))} does by M cannot be told."
        return "open", [lead, *gaps, *untold]
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


def _register_words(levels: Mapping[str, Entry], low: Mapping[str, bool], home: Entry, scale: str) -> list[str]:
    """M where it is below 0, beside M at home."""
    there = f" (at home {shown(home['register_gap'], scale)})" if home.get("register_gap") else ""
    gaps = {name: f"{shown(levels[name]['register_gap'], scale)}{there}" for name in low}
    return [
        f"M is below 0 under {name}, {gap}: the responses are {_broken(levels[name])}."
        if low[name]
        else f"M is below 0 under {name}, {gap}, but not beyond noise once home and the number of shifts are counted in."
        for name, gap in gaps.items()
    ]


def _broken(entry: Entry) -> str:
    """What an M below 0 says of the responses: summed nats grow with length, so M per token is asked as well."""
    per_token = entry.get("register_gap_per_token")
    return BROKEN if not per_token or sign(per_token, "token_mean") < 0 else LONGER


def _other_words(named: Mapping[str, Entry], subsets: Mapping[str, Entry], home: Entry, scale: str, worst: str) -> list[str]:
    """Of the shifts beside the one that hurts most: those that M speaks against, and those of which nothing is known."""
    rest = {name: entry for name, entry in named.items() if name != worst}
    low = hidden(rest, home, scale, one=False)
    quiet = {name: entry for name, entry in rest.items() if sign(entry.get("remid"), scale) <= 0}
    doubt = doubts(quiet, subsets, home, scale) if quiet else []
    untold = [f"Whether {_or(list(quiet))} hurts too cannot be told: {'; '.join(doubt)}."] if doubt else []
    return [*_register_words(rest, low, home, scale), *untold]


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _remids(shifted: Mapping[str, Entry]) -> dict[str, Record | None]:
    """R-EMID by subset, of those that have an interval."""
    return {tag: entry["remid"] for tag, entry in shifted.items() if entry.get("remid") and scored(entry) > 1}


def _hurting(shifted: Mapping[str, Entry], home: Entry, scale: str) -> list[str]:
    """Subsets that hurt although so many are looked at, of responses enough to say so."""
    found = beyond(_remids(shifted), scale, 1)
    return [tag for tag in found if min(scored(home), scored(shifted[tag])) >= LEAST]


def _most_words(hurt: Mapping[str, Any], shifts: Mapping[str, Entry], scale: str) -> list[str]:
    name, entry, home = hurt["shift"], shifts[hurt["shift"]], shifts["id"]
    known = {s: e["remid"] for s, e in shifts.items() if e.get("remid")}
    larger = [s for s, record in known.items() if record["value"] > hurt["remid"]["value"]]
    verb = "may hurt" if not hurt["corrected"] else "hurts" if larger else "hurts most"
    noise = "beyond noise (the interval is above 0)" if hurt["corrected"] else alone_words(len(known), "shifts", home, entry)
    words = f"The {name} shift {verb}: R-EMID {shown(hurt['remid'], scale)}, {noise}"
    if larger:
        parts = ", ".join(
            f"of the {shift} shift, {shown(known[shift], scale)}, is larger and "
            + ("within noise" if sign(known[shift], scale) <= 0 else alone_words(len(known), "shifts", home, shifts[shift]))
            for shift in larger
        )
        words += f"; that {parts}"
    elif hurt["next"]:
        margin = f"{shown(hurt['next']['margin'], scale)} more than the {hurt['next']['shift']} shift"
        words += f"; {margin}, {'beyond noise too' if hurt['next']['beyond_noise'] else 'which is within noise'}"
    return [f"{words}.", *_loss_words(name, entry, home, scale)]


def alone_words(count: int, what: str, *levels: Entry) -> str:
    """Why what is beyond noise by itself is not taken for sure."""
    if any(scored(level) < LEAST for level in levels):
        return f"beyond noise by itself, but of fewer than {LEAST} responses"
    return f"beyond noise by itself, but not after Holm's correction for {count} {what}"


def _subset_words(shifted: Mapping[str, Entry], home: Entry, scale: str, each: bool = False) -> list[str]:
    """The subset with the largest R-EMID, which may hurt where its shift's mean does not; `each` names the others too."""
    remids = _remids(shifted)
    if len(remids) < 2:
        return []
    worst = max(remids, key=lambda tag: (remids[tag] or {})["value"])
    record = remids[worst] or {}
    # the largest of all may be a gain
    place = "and its interval is below 0" if sign(record, scale) < 0 else "which is within noise"
    if sign(record, scale) > 0:
        sure = worst in _hurting(shifted, home, scale)
        also = f"beyond noise, also after Holm's correction for {len(remids)} subsets"
        place = also if sure else alone_words(len(remids), "subsets", home, shifted[worst])
    others = [tag for tag in remids if tag != worst and sign(remids[tag], scale) > 0]
    figures = ", ".join(f"{tag} {shown(remids[tag] or {}, scale)}" for tag in others)
    too = " too" if sign(record, scale) > 0 else ""
    more = f" Beyond noise by themselves{too}: {figures}." if each and others else ""
    return [f"Of {len(remids)} shifted subsets, {worst} has the largest R-EMID: {shown(record, scale)}, {place}.{more}"]


def _loss_words(name: str, entry: Entry, home: Entry, scale: str) -> list[str]:
    """What of the context the responses lost under one shift (A1), and what no context explains (M)."""
    if scored(entry) < LEAST:
        return []
    known = {z: record for z, record in entry["components"].items() if record}
    lost = {z: known[z] for z in beyond(known, scale, -1)}
    uses = entry.get("references_use") or {}
    deaf = [z for z in known if sign(uses.get(z), scale) <= 0]
    sentences = []
    if lost:
        z = min(lost, key=lambda name: lost[name]["value"])
        there = home["components"].get(z)
        alike = there and sign(there, scale) < 0 and sign(less(there, lost[z]), scale) <= 0
        also = f"; at home it is as low, within noise: {shown(there, scale)}" if there and alike else ""
        # those that are not known to be lost less than it
        alike_lost = [other for other in lost if other != z and sign(less(lost[other], lost[z]), scale) <= 0]
        figure = ", ".join(f"R-EMI_{one} {shown(lost[one], scale)}" for one in (z, *alike_lost)) + also
        what = f"{WORDS[z]} least" if not alike_lost else f"{' and '.join(WORDS[one] for one in (z, *alike_lost))} less"
        sentences.append(f"Under it, compared with the references, the responses use {what}: {figure}.")
    elif known and len(deaf) < len(known):
        sentences.append("Under it no single component of the context is lost beyond noise.")
    if known and deaf and not (lost.keys() - set(deaf)):
        parts = ", ".join(f"{WORDS[z]} ({shown(uses[z], scale) if uses.get(z) else 'not measured'})" for z in deaf)
        sentences.append(
            f"Whether this is lost under it cannot be told, as the references' own use of it does not show: {parts}."
        )
    if hidden({name: entry}, home, scale, one=False).get(name):
        there = f" (at home {shown(home['register_gap'], scale)})" if home.get("register_gap") else ""
        gap = f"M {shown(entry['register_gap'], scale)}{there}"
        sentences.append(f"{gap}: under the {name} shift the responses are also {_broken(entry)}.")
    return sentences


# --- at home --------------------------------------------------------------------------------------------------------


def home_words(shifts: Mapping[str, Entry], subsets: Mapping[str, Entry], scale: str) -> Said:
    """Where the model stands in distribution.

    Returns:
        `below`, `above`, `at`; `likelier`: at or above, M above 0; `register`: M below 0; `part`: below in a subset or a
        component; `unknown`, also of a part.
    """
    home = shifts.get("id", {})
    if not (home.get("remi") and home.get("register_gap")):
        return "unknown", []
    remi, gap = sign(home["remi"], scale), sign(home["register_gap"], scale)
    numbers = f"R-EMI {shown(home['remi'], scale)}, M {shown(home['register_gap'], scale)}."
    enough = scored(home) >= LEAST
    if remi < 0 and enough:
        return "below", [f"At home (ID) it is below the references' level: {numbers}"]
    if gap < 0 and enough:
        return "register", [f"At home (ID) the responses are {_broken(home)}: {numbers}"]
    if doubt := _home_doubts(home, subsets, scale):
        return "unknown", [
            f"Whether it is at the references' level at home (ID) cannot be told: {'; '.join(doubt)}. {numbers}"
        ]
    place = "above" if remi > 0 else "at"
    lower, alone = _home_losses(home, subsets, scale)
    if lower:
        return "part", [f"At home (ID) it is {place} the references' level as a whole, but below it in {lower}: {numbers}"]
    if alone:
        lead = f"At home (ID) it is {place} the references' level as a whole; of parts it cannot be told"
        end = "below it beyond noise by itself, but not after Holm's correction"
        return "unknown", [f"{lead}: {alone} {end}. {numbers}"]
    if gap > 0:
        end = "by M the responses are likelier than the references in any context, as plainer text is"
        return "likelier", [f"At home (ID) it is {place} the references' level in R-EMI; {end}: {numbers}"]
    return place, [f"At home (ID) it is {place} the references' level: {numbers}"]


def likelier_words(shifts: Mapping[str, Entry], scale: str) -> list[str]:
    """What M far above 0 means, more than the references tell of all their context."""
    high = {
        name: entry["register_gap"]
        for name, entry in shifts.items()
        if sign(entry.get("register_gap"), scale) > 0
        and entry["register_gap"]["low"] > (entry.get("mi_reference") or {"value": 0.0})["value"]
    }
    if not high:
        return []
    where = {name: "at home" if name == "id" else f"under the {name} shift" for name in high}
    places = ", ".join(f"{where[name]} ({shown(record, scale)})" for name, record in high.items())
    return [
        f"M is far above 0 {places}: to this scorer the responses are likelier than the references in any context. They are "
        "blander or more repetitive than these, not better."
    ]


def _home_doubts(home: Entry, subsets: Mapping[str, Entry], scale: str) -> list[str]:
    # R-EMI below 0 is what R-EMID above 0 is under a shift
    remi = home["remi"]
    mirrored = {"value": -remi["value"], "low": -remi["high"], "high": -remi["low"]}
    return doubts({"ID": {**home, "remid": mirrored}}, subsets, home, scale)


def _home_losses(home: Entry, subsets: Mapping[str, Entry], scale: str) -> tuple[str, str]:
    """ID subsets and components below the references' level, with their figures: for sure, and by themselves only."""
    own = {tag: subsets[tag] for tag in home["subsets"] if tag in subsets and len(home["subsets"]) > 1}
    families: list[tuple[Mapping[str, Record | None], str]] = [
        ({tag: entry["remi"] for tag, entry in own.items()}, "{} (R-EMI {})"),
        ({tag: entry["register_gap"] for tag, entry in own.items()}, "{} (M {})"),
        ({f"R-EMI_{z}": record for z, record in home["components"].items()}, "{} ({})"),
    ]
    found: tuple[list[str], list[str]] = ([], [])
    for records, text in families:
        sure = beyond(records, scale, -1)
        for name, record in records.items():
            if record and sign(record, scale) < 0:
                found[name not in sure].append(text.format(name, shown(record, scale)))
    return ", ".join(found[0]), ", ".join(found[1])
