"""`coevo gate`: exit code 0 while a model loses no more than is allowed, for a CI."""

from __future__ import annotations

import argparse
import math

from coevo.cli.console import Commands, command, path, say, warn
from coevo.errors import ConfigError

EXIT_FAILED = 1
SHIFTS = ("user", "character", "dialogue")
GATE_EXAMPLES = """examples:
  coevo gate scores/mine --max-remid 5 --max-risk 2
  coevo gate scores/mine --max-remid user=5,character=3 --model mine
  coevo gate runs/mine --max-remid 5 --max-id-drop 1 --junit gate.xml

One number is a limit of every shift that was measured; a shift that is named (user, character, dialogue) must have been
measured. The value is compared, not its interval, which the line shows.

Exit code 0: every number is there and within its limit. 1: one is above it, or cannot be told (not measured, too few
responses, nothing that the scorer reads, files edited since). 2: the call is wrong, or there is nothing to look at.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    gate = command(commands, "gate", "fail where a model loses more than is allowed", GATE_EXAMPLES)
    gate.add_argument("folder", type=path, metavar="RUN|SCORES", help="a run, or what coevo score wrote")
    gate.add_argument("--max-remid", type=ceiling, metavar="NATS", help="of every shift; or user=NATS,character=NATS")
    gate.add_argument("--max-risk", type=ceiling, metavar="B2", help="of each shift's worst subset; of scores alone")
    gate.add_argument("--max-id-drop", type=number, metavar="NATS", help="of R-EMI at home, before less after; of a run")
    gate.add_argument("--model", metavar="NAME", help="of scores of several models")
    gate.add_argument("--junit", type=path, metavar="FILE", help="also write JUnit XML, a test case a limit and shift")
    gate.set_defaults(run=_gate)


def number(text: str) -> float:
    """A limit.

    Raises:
        ConfigError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"gate: {text[:40]!r} is no limit; expected a number, such as 5 or 0.5.")
    return value


def ceiling(text: str) -> float | dict[str, float]:
    """A limit of every shift, or one a shift.

    Raises:
        ConfigError: it is neither.
    """
    if "=" not in text:
        return number(text)
    limits: dict[str, float] = {}
    for part in text.split(","):
        shift, _, limit = part.partition("=")
        if shift not in SHIFTS or shift in limits:
            what = "is named twice" if shift in limits else "is no shift"
            raise ConfigError(f"gate: {shift[:40]!r} {what}; expected SHIFT=NUMBER, of {', '.join(SHIFTS)}.")
        limits[shift] = number(limit)
    return limits


def _gate(options: argparse.Namespace) -> int:
    from coevo.export.gate import Limits, gate, junit, verdict
    from coevo.files import write_atomic

    limits = Limits(options.max_remid, options.max_risk, options.max_id_drop)
    if limits == Limits():
        raise ConfigError("gate: needs a limit: --max-remid, --max-risk or --max-id-drop, each a number.")
    checks = gate(options.folder, limits, options.model)
    if options.junit:
        write_atomic(options.junit, junit(checks, str(options.folder)))
    failed = not all(check.passed for check in checks)
    (warn if failed else say)(verdict(checks))
    return EXIT_FAILED if failed else 0
