"""One model's diagnosis against another's in words, paired by scenario; what may be said is decided in `claims`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coevo.scoring.claims import LEAST, WIDE, Entry, beyond, scored, shown, sign, touches, unread
from coevo.scoring.words import alone_words


def against_words(against: Mapping[str, Any] | None, shifts: Mapping[str, Entry], scale: str) -> list[str]:
    """Where R-EMI differs from the first model's beyond noise. R-EMID would also fall by getting worse on ID."""
    if against is None:
        return []
    sure = _sure(against["shifts"], scale)
    moved = [words for shift, entry in against["shifts"].items() if (words := _moved(shift, entry, scale, sure))]
    moved += _moved_subsets(against, scale, sure["remi"], "remi", ("better", "worse", "R-EMI "))
    lead = f"Against {against['model']}, paired by scenario"
    chance = {s: words for s, entry in against["shifts"].items() if (words := _moved(s, entry, scale, sure, alone=True))}
    fullest = max((against["shifts"][s] for s in chance), key=scored, default=None)
    why = alone_words(len(against["shifts"]), "comparisons", *([fullest] if fullest else []))
    alone = f"{why}: {', '.join(chance.values())}"
    few_both = {shift: entry for shift, entry in against["shifts"].items() if 2 * scored(entry) < entry["n"]}
    doubt = [f"fewer than half are scored for both: {', '.join(few_both)}"] if few_both else []
    if few := [tag for tag, entry in against["subsets"].items() if scored(entry) < LEAST]:
        doubt.append(f"fewer than {LEAST} are scored for both: {', '.join(few)}")
    if gaps := _moved_subsets(against, scale, sure["register_gap"], "register_gap", ("M higher", "M lower", "")):
        doubt.append(f"M differs in single subsets: {', '.join(gaps)}")
    doubt += _wide_words(against["shifts"], shifts, scale)
    if deaf := unread(shifts, scale):
        doubt.append(f"the references tell this scorer nothing of their contexts beyond noise: {', '.join(deaf)}")
    if moved:
        return [f"{lead}: {', '.join(moved)}." + (f" {alone[0].upper()}{alone[1:]}." if chance else "")]
    doubt += [alone] if chance else []
    if doubt:
        return [f"{lead}: whether they differ cannot be told; {'; '.join(doubt)}."]
    return [f"{lead}: no difference of R-EMI beyond noise, nor of M."]


def _wide_words(against: Mapping[str, Entry], shifts: Mapping[str, Entry], scale: str) -> list[str]:
    """Differences that may be as large as half of what the references tell, or whose interval ends at 0 itself."""
    told = {name: (shifts.get(name, {}).get("mi_reference") or {}).get("value") for name in against}
    records = {name: entry["remi"] for name, entry in against.items() if entry.get("remi")}
    wide = [n for n, r in records.items() if (of := told[n]) is not None and max(abs(r["low"]), abs(r["high"])) >= WIDE * of]
    ends = [n for n, r in records.items() if touches(r, scale, 1) or touches(r, scale, -1)]
    said = {
        "the interval is so wide that they may differ by half of what the references tell of their contexts": wide,
        "the interval ends at 0 itself, as of few or equal numbers": [name for name in ends if name not in wide],
    }
    listed = {why: ", ".join(f"{name} ({shown(records[name], scale)})" for name in names) for why, names in said.items()}
    return [f"{why}: {names}" for why, names in listed.items() if names]


def _sure(shifts: Mapping[str, Entry], scale: str) -> dict[str, list[str]]:
    """By measure, the shifts that differ although so many are looked at: of four, one does by chance in a fifth of cases."""
    names = ("remi", "register_gap")
    records = {name: {s: entry[name] for s, entry in shifts.items() if scored(entry) >= LEAST} for name in names}
    return {name: [*beyond(records[name], scale, 1), *beyond(records[name], scale, -1)] for name in names}


def _moved(shift: str, entry: Entry, scale: str, sure: Mapping[str, list[str]], alone: bool = False) -> str:
    """How one shift differs, for sure or `alone`, by itself only; empty where it does not."""
    where = "on ID" if shift == "id" else f"under the {shift} shift"
    remi, gap = sign(entry["remi"], scale), sign(entry["register_gap"], scale)
    known = {name: shift in places for name, places in sure.items()}
    if alone and any(known.values()):
        return ""
    if remi and known["remi"] is not alone:
        but = f", but M {shown(entry['register_gap'], scale)}" if gap == -remi else ""
        return f"{'better' if remi > 0 else 'worse'} {where} (R-EMI {shown(entry['remi'], scale)}{but})"
    if gap and known["register_gap"] is not alone:
        beside = "" if remi else ", R-EMI within noise"
        return f"M {'higher' if gap > 0 else 'lower'} {where} ({shown(entry['register_gap'], scale)}){beside}"
    return ""


def _moved_subsets(
    against: Mapping[str, Any], scale: str, sure: Sequence[str], measure: str, words: tuple[str, str, str]
) -> list[str]:
    """Subsets that differ by a measure although so many are looked at, and not as their shift does.

    Args:
        against: the differences.
        scale: of the numbers.
        sure: shifts that differ by the measure.
        measure: `remi` or `register_gap`.
        words: for more and for less, and what stands before the figure.
    """
    subsets, (more, fewer, name) = against["subsets"], words
    records = {tag: entry[measure] for tag, entry in subsets.items() if scored(entry) >= LEAST}
    return [
        f"{more if side > 0 else fewer} on {tag} ({name}{shown(records[tag], scale)})"
        for side in (1, -1)
        for tag in beyond(records, scale, side)
        if subsets[tag]["shift"] not in sure or sign(against["shifts"][subsets[tag]["shift"]][measure], scale) != side
    ]
