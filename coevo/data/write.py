"""Scenarios to a file in the RPGBench layout."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coevo.data.jsonstream import Element
from coevo.data.sample import KEY_OF_ROLE, Sample
from coevo.errors import DataError
from coevo.types import Scenario


def write_rpgbench(path: str | os.PathLike[str], scenarios: Iterable[Scenario]) -> None:
    """Write scenarios, grouped by split, so that `read_rpgbench` gives them back; atomic (temporary file, then rename).

    Raises:
        DataError: a scenario that could not be read back (blank reference or query, repeated sample_id, …), or a folder
            that cannot be written; an existing file is then left as it was.
    """
    target = Path(path)
    groups: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for scenario in scenarios:
        record = _record(scenario)
        group = groups.setdefault(scenario.split, [])
        sample = Sample(os.fspath(path), Element(scenario.split, len(group), record, 0, ""))
        if sample.scenario() is not None and scenario.sample_id in seen:
            sample.problems.append(sample.duplicate())
        if sample.problems:
            raise DataError(f"not written: {sample.problems[0]}")
        seen.add(scenario.sample_id)
        group.append(record)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(groups, file, ensure_ascii=False, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{target}: cannot be written ({reason}); check the folder and its rights") from error


def _record(scenario: Scenario) -> dict[str, Any]:
    character = scenario.character if isinstance(scenario.character, str) else dict(scenario.character)
    record = {
        "sample_ID": scenario.sample_id,
        "subset_tag": scenario.subset_tag,
        "user_persona": scenario.persona,
        "agent_character": character,
        "dialogue_context": [{KEY_OF_ROLE[turn.role]: turn.text} for turn in scenario.dialogue],
        "agent_golden_response": scenario.reference,
    }
    optional: dict[str, Any] = {"parent_ID": scenario.parent, "SThought": scenario.thought or None}
    optional["agent_alternatives"] = list(scenario.alternatives) or None
    return record | {name: value for name, value in optional.items() if value is not None}
