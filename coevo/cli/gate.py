"""`coevo gate`: exit code 0 while a model loses no more than is allowed, for a CI."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, path, say, warn
from coevo.errors import ConfigError

EXIT_FAILED = 1
GATE_EXAMPLES = """examples:
  coevo gate scores/mine --max-remid 5 --max-risk 2
  coevo gate runs/mine --max-remid 5 --max-id-drop 1 --junit gate.xml

Exit code 0: every number is there and within its limit. 1: one is above it, or cannot be told. 2: the call is wrong.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    gate = command(commands, "gate", "fail where a model loses more than is allowed", GATE_EXAMPLES)
    gate.add_argument("folder", type=path, metavar="RUN|SCORES", help="a run, or what coevo score wrote")
    gate.add_argument("--max-remid", type=float, metavar="NATS", help="of every shift")
    gate.add_argument("--max-risk", type=float, metavar="B2", help="of the worst subset; of scores")
    gate.add_argument("--max-id-drop", type=float, metavar="NATS", help="of R-EMI at home, before less after; of a run")
    gate.add_argument("--model", metavar="NAME", help="of scores of several models")
    gate.add_argument("--junit", type=path, metavar="FILE", help="also write JUnit XML")
    gate.set_defaults(run=_gate)


def _gate(options: argparse.Namespace) -> int:
    from coevo.export.gate import Limits, gate, junit
    from coevo.files import write_atomic

    limits = Limits(options.max_remid, options.max_risk, options.max_id_drop)
    given = [value for value in (limits.remid, limits.risk, limits.id_drop) if value is not None]
    if not given or not all(abs(value) < 1e9 for value in given):
        raise ConfigError("coevo gate needs a limit: --max-remid, --max-risk or --max-id-drop, each a number.")
    checks = gate(options.folder, limits, options.model)
    if options.junit:
        write_atomic(options.junit, junit(checks, str(options.folder)))
    failed = [check for check in checks if not check.passed]
    if failed:
        warn(f"gate failed: {'; '.join(map(str, failed))}")
        return EXIT_FAILED
    closest = max(checks, key=lambda check: (check.value or 0.0) - check.limit)
    say(f"gate passed: {len(checks)} of {len(checks)} within limits; closest {closest}")
    return 0
