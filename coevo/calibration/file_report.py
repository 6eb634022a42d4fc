"""Who A1 blames on a file's scenarios, in words and numbers: attribution.json and attribution.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coevo.calibration.report import table
from coevo.escape import plain
from coevo.files import write_atomic

Result = Mapping[str, Any]
INTRODUCTION = (
    "Every scenario is answered as if one component were another scenario's, with the reference that answers the real one. "
    "R-EMI_z, nats per response, is how much less the answers use z than the references do in their own scenarios; the "
    "component that was mistaken should lose most. 95 % intervals, bootstrap over scenarios."
)
SHARED = "Donors that share none, one or both of the other two components with the scenario, persona and character by name: "


def write(out: Path, result: Result) -> list[Path]:
    """Writes attribution.json and attribution.md into `out`.

    Returns:
        The files written.
    """
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    files = {"attribution.json": text.encode(), "attribution.md": markdown(result).encode()}
    return [write_atomic(out / name, content) for name, content in files.items()]


def markdown(result: Result) -> str:
    """attribution.md."""
    verdicts = [[v["line"], v["wanted"], v["found"], bool(v["holds"])] for v in result["verdicts"]]
    shared = "; ".join(f"{z}: {', '.join(map(str, counts))}" for z, counts in result["shared"].items())
    uses = ", ".join(f"{z} {_shown(record)}" for z, record in result["uses"].items())
    losses = [
        [
            r["component"],
            r["tag"],
            r["n"],
            *(_shown(r["lost"][z]) for z in "ucd"),
            *(_shown(r["more_than"][z]) if z in r["more_than"] else "" for z in "ucd"),
        ]
        for r in result["losses"]
    ]
    cases = [
        [c["component"], c["tag"], c["n"], *(c["lost"][z] for z in "ucd"), c["blamed"], "yes" if c["right"] else "no"]
        for c in result["cases"]
    ]
    sections = [
        f"# Attribution by components swapped between scenarios ({plain(result['scorer'][:12])})",
        INTRODUCTION,
        f"{result['n']} scenarios, {len(result['unscored'])} of them left out, as a likelihood is beyond the scorer's "
        f"limits; seed {result['seed']}. {SHARED}{shared}.",
        table(["claim", "asked", "seen", "holds"], verdicts),
        f"What the references use of each component (I_z), and so can be lost: {uses} nats a response.",
        "## Losses",
        table(
            ["mistaken", "subset", "N", "R-EMI_u", "R-EMI_c", "R-EMI_d", "more than u", "more than c", "more than d"], losses
        ),
        "## Cases",
        table(["mistaken", "subset", "N", "R-EMI_u", "R-EMI_c", "R-EMI_d", "blamed", "right"], cases),
    ]
    return "\n\n".join(sections) + "\n"


def _shown(record: Mapping[str, float]) -> str:
    value, low, high = (f"{round(record[name], 2) + 0.0:.2f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
