"""A gate for a CI: does a model stay within what its team allows it to lose?

A number that is missing, of too few responses, or read by a scorer that reads nothing cannot pass: the gate fails closed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo.diagnosis.result import Diagnosis
from coevo.errors import CheckpointError, ConfigError
from coevo.escape import visible
from coevo.report.read import AFTER, BEFORE, Run, read_run
from coevo.scoring.claims import LEAST, lost, scored, shown, sign, unread

UNREAD = "cannot be told, as the references tell this scorer nothing of their scenes"
SHIFTS = ("user", "character", "dialogue")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Ceiling = float | Mapping[str, float]
"""A limit of every shift that was measured; or of each shift that is named, which must then have been measured."""


@dataclass(frozen=True)
class Check:
    """One limit, and what was found."""

    name: str
    limit: float
    value: float | None
    told: str
    """The number with its interval, or why there is none."""

    @property
    def passed(self) -> bool:
        """Whether the value is there, and not above the limit."""
        return self.value is not None and self.value <= self.limit

    @property
    def above(self) -> float:
        """How far above the limit; what cannot be told is below every number that can."""
        return self.value - self.limit if self.value is not None else -float("inf")

    def __str__(self) -> str:
        return f"{self.name}: {self.told}, at most {self.limit:g} allowed"


@dataclass(frozen=True)
class Limits:
    """What a team allows; None asks nothing."""

    remid: Ceiling | None = None
    """R-EMID of shifts, in nats."""
    risk: Ceiling | None = None
    """The risk index B2 of the worst subset of a shift; of score folders."""
    id_drop: float | None = None
    """R-EMI on ID, before less after; of runs."""


def gate(folder: Path, limits: Limits, model: str | None = None) -> list[Check]:
    """The checks of a run folder, or of what `coevo score` wrote.

    Args:
        folder: of either.
        limits: what is asked.
        model: of a score folder; may be left out where there is one.

    Raises:
        CheckpointError: it is neither; or several models and none named.
        ConfigError: a model is named of a run, which has one.
        DataError: damaged files.
    """
    if (folder / "result.json").is_file():
        return _checks(_of_scores(folder, model), None, limits)
    if not (folder / "resolved.yaml").is_file():
        raise CheckpointError(f"{folder} is neither a run nor a folder of coevo score (no resolved.yaml, no result.json).")
    if model is not None:
        raise ConfigError(f"--model {model}: {folder} is a run, which has one final model; leave --model away.")
    run = read_run(folder)
    if run.after is None:
        raise CheckpointError(f"{folder}: has no evaluation after training; go on with: coevo train --resume {folder}")
    checks, edited = _checks(run.after, run, limits), _edited(run)
    # a number that was written in by hand is none that was measured
    return [replace(check, value=None, told=edited) for check in checks] if edited else checks


def _checks(entry: Mapping[str, Any], run: Run | None, limits: Limits) -> list[Check]:
    checks = []
    for ceiling, what, look in ((limits.remid, "R-EMID", _remid), (limits.risk, "risk index B2", _risk)):
        for shift, limit in _asked(entry, ceiling):
            name = f"{what} under the {shift} shift" if shift else what
            there = entry["shifts"].get(shift)
            checks.append(look(entry, there, name, limit) if there else Check(name, limit, None, "not measured"))
    if limits.id_drop is not None:
        checks.append(_drop(run, limits.id_drop))
    return checks


def _asked(entry: Mapping[str, Any], ceiling: Ceiling | None) -> list[tuple[str, float]]:
    """(shift, limit); of no shift at all where none was measured, which then fails."""
    if ceiling is None:
        return []
    if isinstance(ceiling, Mapping):
        return list(ceiling.items())
    return [(shift, ceiling) for shift in SHIFTS if shift in entry["shifts"]] or [("", ceiling)]


def _of_scores(folder: Path, model: str | None) -> Mapping[str, Any]:
    record = Diagnosis.read(folder).record
    models = record["models"]
    if model is None and len(models) != 1:
        raise CheckpointError(f"{folder}: has {len(models)} models ({', '.join(models)}); name one with --model.")
    name = model if model is not None else next(iter(models))
    if name not in models:
        raise CheckpointError(f"{folder}: has no model {name!r}; it has {', '.join(models)}.")
    return {"scale": record["scale"], **models[name]}


def _edited(run: Run) -> str:
    """What is not as the run measured it, of the evaluations that the numbers are of."""
    names = tuple(f"evaluation/{name}." for name in (BEFORE, AFTER))
    return next((f"cannot be told, as {note.rstrip('.')}" for note in run.changed if note.startswith(names)), "")


def _remid(entry: Mapping[str, Any], found: Mapping[str, Any], name: str, limit: float) -> Check:
    record, home, scale = found.get("remid"), entry["shifts"].get("id"), entry["scale"]
    if record is None or home is None:
        return Check(name, limit, None, "not measured")
    doubt = _few(entry, home, found) or _silent(home, found) or _nothing_told(home, found, scale)
    if doubt:
        return Check(name, limit, None, doubt)
    gap = found.get("register_gap")
    low = f"; M {shown(gap, scale)} is below 0 as well" if gap and sign(gap, scale) < 0 else ""
    return Check(name, limit, record["value"], shown(record, scale) + low)


def _few(entry: Mapping[str, Any], *levels: Mapping[str, Any]) -> str:
    """Why so few responses say nothing; as in every report, of each subset by itself."""
    tags = [tag for level in levels for tag in level["subsets"]]
    counts = {tag: n for tag in tags if (n := scored(entry["subsets"][tag])) < LEAST}
    if not counts and min(map(scored, levels)) >= LEAST:
        return ""
    where = f": {', '.join(f'{tag} ({n})' for tag, n in counts.items())}" if counts else ""
    return f"cannot be told of fewer than {LEAST} scored responses{where}"


def _silent(home: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Of a model that mostly fails to answer, the few answers do not tell."""
    without = [level for level in (home, found) if 2 * scored(level) < level["n"]]
    without += [found] if lost(found, home) else []
    return (
        f"cannot be told, as {without[0]['n'] - scored(without[0])} of {without[0]['n']} responses have no score"
        if without
        else ""
    )


def _nothing_told(home: Mapping[str, Any], found: Mapping[str, Any], scale: str) -> str:
    if unread({"ID": home, "shift": found}, scale):
        return UNREAD
    told = home.get("mi_response")
    if told and sign(told, scale) <= 0:
        return (
            f"cannot be told, as the responses tell nothing of their scenes at home ({shown(told, scale)}): nothing to lose"
        )
    return ""


def _risk(entry: Mapping[str, Any], found: Mapping[str, Any], name: str, limit: float) -> Check:
    bounds = {tag: entry["subsets"][tag].get("bound") for tag in found["subsets"]}
    missing = [tag for tag, bound in bounds.items() if not bound]
    if missing:
        return Check(name, limit, None, f"not measured in {', '.join(missing)}; coevo score makes it")
    home = entry["shifts"].get("id")
    doubt = _few(entry, found)
    if not doubt and unread({"shift": found, **({"ID": home} if home else {})}, entry["scale"]):
        doubt = UNREAD
    if doubt:
        return Check(name, limit, None, doubt)
    worst = max(bounds, key=lambda tag: bounds[tag]["value"])
    # B2 is an index without an interval
    return Check(name, limit, bounds[worst]["value"], f"{bounds[worst]['value']:.2f}, in {worst}")


def _drop(run: Run | None, limit: float) -> Check:
    name, change = "drop of R-EMI at home", run.change if run else None
    entry = (change or {}).get("shifts", {}).get("id")
    record = (entry or {}).get("remi")
    if run is None or run.after is None or change is None or entry is None or record is None:
        return Check(name, limit, None, "not measured; it needs the evaluations before and after of a run")
    scale = change["scale"]
    doubt = _few(change, entry) or _silent(entry, entry)
    if not doubt and unread({"ID": run.after["shifts"]["id"]}, scale):
        doubt = UNREAD
    if doubt:
        return Check(name, limit, None, doubt)
    drop = {"value": -record["value"], "low": -record["high"], "high": -record["low"]}
    return Check(name, limit, drop["value"], shown(drop, scale))


def verdict(checks: Sequence[Check]) -> str:
    """One line: of a gate that fails, what failed, the worst number first; else the number nearest to its limit."""
    ranked = sorted(checks, key=lambda check: check.above, reverse=True)
    failed = [check for check in ranked if not check.passed]
    if failed:
        return f"gate failed: {'; '.join(map(str, failed))}"
    return f"gate passed: {len(checks)} of {len(checks)} within limits; closest {ranked[0]}"


def junit(checks: Sequence[Check], name: str) -> bytes:
    """The checks as JUnit XML, a test case each."""
    failed = [check for check in checks if not check.passed]
    suite = ET.Element("testsuite", name=_xml(name), tests=str(len(checks)), failures=str(len(failed)), errors="0")
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="coevo.gate", name=_xml(check.name))
        if check in failed:
            ET.SubElement(case, "failure", message=_xml(str(check)))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    """Text that XML can hold; ElementTree escapes its markup."""
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", visible(text))
