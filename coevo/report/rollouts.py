"""The rollouts of a run as the page embeds them, for its browser of completions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coevo.escape import visible
from coevo.records import read_lines
from coevo.report import shapes
from coevo.report.contexts import Context, prompted
from coevo.report.read import MEND, Record, Run

MOST = 10_000
"""Rollouts in the page: about 10 MB. Of more, every phase keeps its newest, each phase as many as another."""


def embedded(run: Run, contexts: Mapping[str, Context], most: int = MOST) -> Record:
    """What the browser reads: rows, the contexts that they share, and how many rows were left out."""
    path = run.path / "rollouts.jsonl"
    counts = Counter(row["phase"] for row in _rows(path))
    kept = _quotas(counts, most)
    iterations = {row["phase"]: row["iteration"] for row in run.metrics if row.get("iteration")}
    shared: dict[Any, int] = {}
    rows = []
    met: Counter[str] = Counter()
    for row in _rows(path):
        phase = row["phase"]
        met[phase] += 1
        if met[phase] > counts[phase] - kept[phase]:
            place = shared.setdefault(_context(row, contexts), len(shared))
            rows.append(_row(row, iterations.get(phase, _iteration(phase)), place))
    return {"rows": rows, "contexts": [dict(key) for key in shared], "left_out": counts.total() - len(rows)}


def script_json(value: Any) -> str:
    """JSON that may stand in a `<script>` block: nothing in it ends the block, and nothing is obeyed.

    A character that would be obeyed is written as its escape, as everywhere on the page.
    """
    text = json.dumps(_visible(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # half of a surrogate pair is no text
    return text.encode("utf-8", "replace").decode()


def _rows(path: Path) -> Iterator[Record]:
    yield from read_lines(path, shapes.ROLLOUT, MEND)


def _quotas(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of each phase are kept: all, or equally many, and what a small phase does not need goes to the others."""
    left, kept = most, {}
    for place, (phase, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        kept[phase] = min(count, left // (len(counts) - place))
        left -= kept[phase]
    return kept


def _context(row: Record, contexts: Mapping[str, Context]) -> tuple[tuple[str, Any], ...]:
    prompt = plain_text(row.get("prompt"))
    found = prompted(str(row.get("sample_id") or ""), prompt, contexts)
    if found is None:
        return (("persona", str(row.get("persona") or "")), ("prompt", prompt))
    # a turn of the simulator has no reference
    known = (("persona", found.persona), ("character", found.character), ("dialogue", found.dialogue))
    return known if row["role"] == "simulator" else (*known, ("reference", found.reference))


def _row(row: Record, iteration: Any, context: int) -> Record:
    parts = row.get("parts") or {}
    made = {
        "phase": row["phase"],
        "iteration": iteration,
        "step": row.get("step"),
        "role": row["role"],
        "id": row.get("sample_id") or "",
        "subset": row.get("subset_tag") or "",
        "status": row.get("status") or "",
        "reward": _number(row.get("reward")),
        "parts": {name: _number(value) for name, value in parts.items()},
        "text": row.get("completion") or "",
        "context": context,
    }
    extra = {name: plain_text(row.get(name)) for name in ("thought", "answer", "reason")}
    return made | {name: text for name, text in extra.items() if text}


def plain_text(value: Any) -> str:
    """Any JSON value as text; a chat's messages one after another."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, dict) and "content" in item for item in value):
        return "\n\n".join(f"{item.get('role', '')}: {item['content']}" for item in value)
    return json.dumps(value, ensure_ascii=False, indent=1)


def _iteration(phase: str) -> int | None:
    found = re.search(r"-(\d+)$", phase)
    return int(found[1]) if found else None


def _number(value: Any) -> float | None:
    """A figure to six digits; none of what is no number, or infinite."""
    if not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(f"{value:.6g}")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(name)): _visible(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(inner) for inner in value]
    return value
