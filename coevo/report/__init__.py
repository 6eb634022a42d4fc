"""The report of a run: table.md, results.json, plots and one HTML file, read off the run folder and nothing else."""

from __future__ import annotations

from pathlib import Path

from coevo.report.read import read_run, simulator_examples
from coevo.report.tables import audit_table, console_table

__all__ = ["audit_table", "build", "console_table", "simulator_examples"]


def build(run_dir: str | Path) -> list[Path]:
    """Writes RUN/report/, also of a run that is not finished; what is not there yet is named in the report.

    Returns:
        The files written: table.md, results.json, a PNG per plot that has data, report.html.

    Raises:
        DataError: the folder is not a run folder, or a file in it is broken.
    """
    # drawing is slow to import, and the console table does without
    from coevo.files import write_atomic
    from coevo.report.html import render
    from coevo.report.plots import draw
    from coevo.report.tables import markdown, results

    run = read_run(run_dir)
    images = draw(run)
    files = {"table.md": markdown(run).encode(), "results.json": results(run).encode()}
    files |= images
    # half of a surrogate pair, which JSON can hold, is no text
    files["report.html"] = render(run, images).encode("utf-8", "replace")
    return [write_atomic(run.path / "report" / name, content) for name, content in files.items()]
