"""The first screen of the page: what was lost, what changed, and what to do next, in plain words.

Nothing is decided here: a sentence says what `report.changes` and `scoring.claims` found, without their figures.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coevo.report import drift
from coevo.report.changes import Finding, at_home, under
from coevo.report.read import Record, Run
from coevo.rewards import verdict as audit
from coevo.scoring.claims import LEAST, beyond, digits, doubts, printed, scored, sign
from coevo.scoring.words import shift_words

PLACES = {"id": "at home", "user": "shifted users", "character": "shifted characters", "dialogue": "shifted dialogues"}
SHARE_MEANING = (
    "Right parts: the share of an answer's five parts that fit its user, character and dialogue, which is known in this "
    "made-up world."
)
COST_MEANING = (
    "What a shift costs (R-EMID): how much more of their context the answers lose there than at home, each against a good "
    "answer, in nats; 0 costs nothing."
)
MOMENTS = "Before: after the supervised warm start. After: at the end of the run. At home: scenarios like those of training."
TILES = {"share_right": "right parts", "remi": "context kept, 0 as in good answers (R-EMI)", "remid": "lost (R-EMID)"}
"""What a tile's figure is."""
NEVER = "The measurement before training is missing, so what changed cannot be told."
MOVED = {
    -1: "after training less is lost under {}",
    1: "after training more is lost under {}",
    0: "nothing moved beyond noise under {}",
}
RESERVED = ", but not in every respect (see “What changed, in full”)"
ACQUITTED = {
    "none": "no shift cost anything beyond noise",
    "mean": "no shift cost anything beyond noise in the mean, and of single subsets it cannot be told",
    "subset": "no shift cost anything beyond noise in the mean, but single subsets did",
    "register": "no shift cost more of the context, but the answers are less likely as texts (M)",
}
"""What is said for a finding of `scoring.words.shift_words` where no shift is seen to hurt; of others it cannot be told."""
UNTOLD = "whether a shift cost anything cannot be told ({})"
ALONE = "a loss is beyond noise by itself, but not where so many are looked at, or of too few responses"
UNSURE = "a subset, or how likely the answers are as texts, speaks against it, but not surely"
LATER = "What training changed will be told after the last measurement."
OTHERWISE = "Before and after were measured differently, so what changed cannot be told."


@dataclass(frozen=True, slots=True)
class Tile:
    """One place of the first screen: a figure before and after, and what may be said of the change."""

    place: str
    figures: str
    words: str


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: why, and a command or a place on the page."""

    why: str
    command: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a check of the reward concludes, where on the page it stands, and whether it speaks against the figures."""

    words: str
    link: str
    against: bool


def sentences(run: Run) -> list[str]:
    """The verdict: what was lost before and after, what changed, and what became of home."""
    if not (run.before or run.after):
        return ["Nothing has been measured yet."]
    said = [_costs(run)]
    if not (run.before and run.after):
        return [
            *said,
            LATER if run.before else NEVER,
        ]
    if not run.comparable:
        return [*said, OTHERWISE]
    found = {shift: under(run, shift) for shift in _shifts(run) if shift != "id" and _has_both(run, shift)}
    home = at_home(run)
    every = [*found.values(), *([home] if home else [])]
    if home and every and all(one.side is None for one in every) and len({tuple(one.doubts) for one in every}) == 1:
        return [*said, f"Whether anything changed, at home or under a shift, cannot be told ({_why(every)})."]
    return [*said, " ".join([*_moves(found), _home(home)])]


def tiles(run: Run) -> list[Tile]:
    """Home and every shift, before and after: the share of right parts where it is known, else what the shift costs."""
    made = []
    for shift in _shifts(run):
        shares = any(_entry(e, shift).get("share_right") for e in (run.before, run.after))
        measure = "share_right" if shares else "remi" if shift == "id" else "remid"
        figures = [_figure(e, shift, measure) for e in (run.before, run.after) if e]
        unit = " %" if shares else ""
        made.append(Tile(_place(shift), " → ".join(figures) + unit, f"{TILES[measure]}{_said(run, shift)}"))
    return made


def meaning(run: Run) -> str:
    """What the figures and the picture mean."""
    shares = any(entry.get("share_right") for e in (run.before, run.after) if e for entry in e["shifts"].values())
    return " ".join([*([SHARE_MEANING] if shares else []), COST_MEANING, MOMENTS])


def steps(run: Run) -> list[Step]:
    """What to do next, the most pressing first."""
    folder = shlex.quote(str(run.path))
    made = []
    if run.after is None:
        made.append(Step("Go on with the run, if nothing trains it now:", f"coevo train --resume {folder}"))
        made.append(Step("Follow it while it trains:", f"coevo view {folder}"))
    if run.audit is None:
        made.append(Step("Find out whether the reward can be trusted:", f"coevo audit --resume {folder}"))
    elif not run.audit.passed:
        made.append(Step("Look at the bad answers that the reward does not see.", link="audit"))
    if few := _few(run):
        made.append(Step(few, _more(run)))
    if run.rows_after or run.rows_before:
        made.append(Step("Read the answers that lost most.", link="worst"))
    if run.after is not None:
        made.append(Step("Score other models' answers by this run's scorer:", _score(run)))
        made.append(Step("Make this page again:", f"coevo report {folder}"))
    return made[:4]


def trust(run: Run) -> list[Trust]:
    """Whether the reward behind all this held: by its audit, and by a scorer that rewards nothing."""
    found = []
    if run.audit:
        words = audit.conclusion(run.audit).splitlines()[0].removesuffix(":").removesuffix(".")
        found.append(Trust(f"{words}.", "audit", not run.audit.passed))
    if said := drift.verdicts(run):
        found.append(Trust(said[0], "drift", said[0].startswith("Drift")))
    return found


def _measured(run: Run) -> list[tuple[str, Record]]:
    return [(moment, e) for moment, e in (("Before", run.before), ("After", run.after)) if e]


def _costs(run: Run) -> str:
    """What the shifts cost before and after; once, where it is the same."""
    said = {moment: _lost(evaluation) for moment, evaluation in _measured(run)}
    if len(said) == 2 and len(set(said.values())) == 1:
        return f"Before and after, {said['Before']}."
    return " ".join(f"{moment}, {words}." for moment, words in said.items())


def _lost(evaluation: Record) -> str:
    """Under which shifts a loss is beyond noise, also where so many are looked at; else what `scoring.words` finds."""
    home, scale = evaluation["shifts"].get("id"), evaluation["scale"]
    shifts = {name: entry for name, entry in evaluation["shifts"].items() if name != "id"}
    remids = {name: entry["remid"] for name, entry in shifts.items() if entry.get("remid")}
    if home is None or not remids:
        return UNTOLD.format("home, or every shift, has no figure")
    sure = [name for name in beyond(remids, scale, 1) if min(scored(home), scored(shifts[name])) >= LEAST]
    if sure:
        return f"the model lost more than at home under {_listed([name for name in shifts if name in sure])}"
    few = [reason.partition(": ")[0] for reason in doubts(shifts, evaluation["subsets"], home, scale)]
    if any(sign(record, scale) > 0 for record in remids.values()):
        return UNTOLD.format(few[0] if few else ALONE)
    largest = max(remids, key=lambda name: remids[name]["value"])
    looked = {"shift": largest, "remid": remids[largest], "beyond_noise": False, "corrected": False}
    finding, _ = shift_words(looked, evaluation["shifts"], evaluation["subsets"], scale)
    return ACQUITTED.get(finding, UNTOLD.format(few[0] if few else UNSURE))


def _home(found: Finding | None) -> str:
    if found is None:
        return "Whether anything changed at home cannot be told: nothing is paired by scenario there."
    if found.side is None:
        return f"Whether anything changed at home cannot be told ({_why([found])})."
    if found.side < 0:
        return "At home the answers got worse, so a smaller loss under the shifts is no gain by itself."
    words = "the answers got better" if found.side else "nothing moved beyond noise"
    return f"At home {words}{RESERVED if found.but else ''}."


def _moves(findings: Mapping[str, Finding]) -> list[str]:
    said = []
    for side in (1, -1, 0):
        for reserved in (False, True):
            names = [name for name, f in findings.items() if f.side == side and bool(f.but) == reserved]
            if names:
                said.append(MOVED[side].format(_listed(names)) + (RESERVED if reserved else ""))
    unknown = {name: f for name, f in findings.items() if f.side is None}
    if unknown:
        said.append(f"whether it changed under {_listed(list(unknown))} cannot be told ({_why(list(unknown.values()))})")
    words = "; ".join(said)
    return [f"{words[0].upper()}{words[1:]}."] if said else []


def _said(run: Run, shift: str) -> str:
    """What a tile says of the change."""
    if not run.comparable or (shift != "id" and not _has_both(run, shift)):
        return ""
    found = at_home(run) if shift == "id" else under(run, shift)
    if found is None or found.side is None:
        return "; change cannot be told"
    better, worse = ("better", "worse") if shift == "id" else ("more is lost", "less is lost")
    words = {0: "no change beyond noise", 1: better, -1: worse}[found.side]
    return f"; {words}{', with a reservation' if found.but else ''}"


def _has_both(run: Run, shift: str) -> bool:
    return all(_entry(e, shift).get("remid") for e in (run.before, run.after))


def _shifts(run: Run) -> list[str]:
    names = dict.fromkeys(name for _, found in _measured(run) for name in found["shifts"])
    return sorted(names, key=lambda name: name != "id")


def _entry(evaluation: Record | None, shift: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = evaluation["shifts"].get(shift, {}) if evaluation else {}
    return found


def _figure(evaluation: Record, shift: str, measure: str) -> str:
    record = _entry(evaluation, shift).get(measure)
    if not record:
        return "n/a"
    if measure == "share_right":
        return f"{100 * record['value']:.0f}"
    return f"{printed(record, evaluation['scale']).value:.{digits(evaluation['scale'])}f}"


def _place(shift: str) -> str:
    return PLACES.get(shift, shift)


def _listed(names: Sequence[str]) -> str:
    first, *others = map(_place, names)
    *middle, last = [first, *(name.removeprefix("shifted ") for name in others)]
    return f"{', '.join(middle)} and {last}" if middle else last


def _why(findings: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(reason for found in findings for reason in found.doubts))


def _few(run: Run) -> str:
    """That there are too few scenarios to tell anything, where there are."""
    latest = run.after or run.before
    counts = [scored(entry) for entry in latest["subsets"].values()] if latest else []
    if not counts or min(counts) >= LEAST:
        return ""
    return f"Measure on more scenarios: a subset has {min(counts)} with a score, {LEAST} are the least that tell anything."


def _more(run: Run) -> str:
    if (run.recipe.get("data") or {}).get("kind") != "world":
        return ""
    recipe = shlex.quote(str(run.path / "resolved.yaml"))
    return f"coevo train {recipe} data.test=50 --out {shlex.quote(f'{run.path}-more')}"


def _score(run: Run) -> str:
    data = run.recipe.get("data") or {}
    file = shlex.quote(str(data["path"])) if data.get("path") else "DATA.json"
    return f"coevo score --data {file} --responses ANSWERS.jsonl --scorer {shlex.quote(str(run.path))}"
