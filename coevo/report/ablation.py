"""The ablation of several runs that differ by their seed, read off their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coevo.errors import CheckpointError
from coevo.files import write_atomic
from coevo.records import read_lines
from coevo.report.shapes import READING
from coevo.scoring.ablation import Reading, markdown, tabulate


def pooled(folders: Sequence[Path], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """The table over the runs' own; see `scoring.ablation.tabulate`.

    Raises:
        CheckpointError: a folder without an ablation.
        DataError: a damaged row.
        ScoreError: runs that cannot be compared.
    """
    return tabulate([_read(folder) for folder in folders], resamples, seed)


def write(table: dict[str, Any], out: Path) -> list[Path]:
    """Writes `ablation.json` and `ablation.md` into a folder."""
    texts = {"ablation.json": json.dumps(table, indent=1, ensure_ascii=False) + "\n", "ablation.md": markdown(table)}
    return [write_atomic(out / name, text.encode()) for name, text in texts.items()]


def _read(folder: Path) -> list[Reading]:
    path = folder / "evaluation" / "ablation.jsonl"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; expected the readings of a run with corl.ablation=true. Run one, or resume this one."
        )
    lines = read_lines(path, READING, "Restore the file, or run the phase `ablation` again.", exact=True)
    return [Reading.from_json(record) for record in lines]
