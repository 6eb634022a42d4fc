"""A gate for a CI: does a model stay within what its team allows it to lose?

A number that is missing, of too few responses, or read by a scorer that reads nothing cannot pass: the gate fails closed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo.diagnosis.result import Diagnosis
from coevo.errors import CheckpointError
from coevo.escape import visible
from coevo.report.read import read_run
from coevo.scoring.claims import LEAST, scored, shown, sign, unread

SHIFTS = ("user", "character", "dialogue")


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

    def __str__(self) -> str:
        return f"{self.name}: {self.told}, at most {self.limit:g} allowed"


@dataclass(frozen=True)
class Limits:
    """What a team allows; None asks nothing."""

    remid: float | None = None
    """R-EMID of every shift, in nats."""
    risk: float | None = None
    """The risk index B2 of every shifted subset; of score folders."""
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
        DataError: damaged files.
    """
    if (folder / "result.json").is_file():
        entry, drop = _of_scores(folder, model), None
    elif (folder / "resolved.yaml").is_file():
        run = read_run(folder)
        if run.after is None:
            raise CheckpointError(f"{folder}: has no evaluation after training; go on with: coevo train --resume {folder}")
        entry, drop = run.after, run.change
    else:
        raise CheckpointError(f"{folder} is neither a run nor a folder of coevo score (no resolved.yaml, no result.json).")
    checks = []
    if limits.remid is not None:
        there = [shift for shift in SHIFTS if shift in entry["shifts"]]
        checks += [_remid(entry, shift, limits.remid) for shift in there]
        if not there:
            checks.append(Check("R-EMID", limits.remid, None, "no shift was measured"))
    if limits.risk is not None:
        checks += _risks(entry, limits.risk)
    if limits.id_drop is not None:
        checks.append(_drop(drop, limits.id_drop))
    return checks


def _of_scores(folder: Path, model: str | None) -> Mapping[str, Any]:
    models = Diagnosis.read(folder).record["models"]
    if model is None and len(models) > 1:
        raise CheckpointError(f"{folder}: has {len(models)} models ({', '.join(models)}); name one with --model.")
    name = model or next(iter(models))
    if name not in models:
        raise CheckpointError(f"{folder}: has no model {name!r}; it has {', '.join(models)}.")
    return {"scale": Diagnosis.read(folder).record["scale"], **models[name]}


def _remid(entry: Mapping[str, Any], shift: str, limit: float) -> Check:
    name, found, home = f"R-EMID under the {shift} shift", entry["shifts"][shift], entry["shifts"].get("id")
    record = found.get("remid")
    if record is None or home is None:
        return Check(name, limit, None, "not measured")
    if min(scored(found), scored(home)) < LEAST:
        return Check(name, limit, None, f"cannot be told of fewer than {LEAST} scored responses")
    if unread({"ID": home, shift: found}, entry["scale"]):
        return Check(name, limit, None, "cannot be told, as the references tell this scorer nothing of their scenes")
    gap = found.get("register_gap")
    low = f"; M {shown(gap, entry['scale'])} is below 0 as well" if sign(gap, entry["scale"]) < 0 else ""
    return Check(name, limit, record["value"], shown(record, entry["scale"]) + low)


def _risks(entry: Mapping[str, Any], limit: float) -> list[Check]:
    found = {tag: one["bound"]["value"] for tag, one in entry["subsets"].items() if one.get("bound")}
    if not found:
        return [Check("risk index B2", limit, None, "not measured; coevo score makes it")]
    tag = max(found, key=lambda name: found[name])
    return [Check(f"risk index B2, largest in {tag}", limit, found[tag], f"{found[tag]:.2f}")]


def _drop(change: Mapping[str, Any] | None, limit: float) -> Check:
    entry = (change or {}).get("shifts", {}).get("id")
    record = (entry or {}).get("remi")
    if change is None or record is None:
        return Check(
            "drop of R-EMI at home", limit, None, "not measured; it needs the evaluations before and after of a run"
        )
    if scored(entry) < LEAST:
        return Check("drop of R-EMI at home", limit, None, f"cannot be told of fewer than {LEAST} scored responses")
    drop = {"value": -record["value"], "low": -record["high"], "high": -record["low"]}
    return Check("drop of R-EMI at home", limit, drop["value"], shown(drop, change["scale"]))


def junit(checks: list[Check], name: str) -> bytes:
    """The checks as JUnit XML, a test case each."""
    failed = [check for check in checks if not check.passed]
    suite = ET.Element("testsuite", name=visible(name), tests=str(len(checks)), failures=str(len(failed)), errors="0")
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="coevo.gate", name=visible(check.name))
        if check in failed:
            ET.SubElement(case, "failure", message=visible(str(check)))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))
