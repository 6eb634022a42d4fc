"""The report of a diagnosis: result.md, result.csv, plots and one HTML file, read off the result folder and nothing else."""

from __future__ import annotations

from pathlib import Path

from coevo.diagnosis.tables import Record
from coevo.errors import DataError
from coevo.records import read_json
from coevo.report.result_shapes import DIAGNOSIS

RESULT_FILE = "result.json"
CAPTIONS = {
    "remid.png": "R-EMID per subset and model, with 95 % intervals",
    "components.png": "What of the context the responses lost, per shift and model (A1), with 95 % intervals",
    "risk.png": "Risk index B2 per subset and model, and which component it comes from",
    "divergences.png": "How far each subset lies from ID, beside what sampling alone would show",
}


def build(folder: str | Path) -> list[Path]:
    """Writes result.md, result.csv, a PNG per plot that has data, and report.html beside result.json.

    Returns:
        The files written. A plot of an earlier result that has no data now is removed.

    Raises:
        DataError: no diagnosis in the folder, or a broken one.
    """
    # drawing is slow to import, and the sentences do without
    from coevo.diagnosis.plots import draw
    from coevo.diagnosis.tables import LEGEND, csv_text, markdown, stamp, tables
    from coevo.files import write_atomic
    from coevo.report.html import environment, figures

    folder = Path(folder)
    result = read_result(folder)
    images = draw(result)
    page = (
        environment()
        .get_template("score.html.j2")
        .render(result=result, stamp=stamp(result), legend=LEGEND, tables=tables(result), figures=figures(images, CAPTIONS))
    )
    files = {"result.md": markdown(result).encode(), "result.csv": csv_text(result).encode(), **images}
    files["report.html"] = page.encode()
    for name in CAPTIONS.keys() - images.keys():
        (folder / name).unlink(missing_ok=True)
    return [write_atomic(folder / name, content) for name, content in files.items()]


def read_result(folder: Path) -> Record:
    """The diagnosis in a result folder.

    Raises:
        DataError: there is none, or it is broken.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise DataError(
            f"{folder}: holds no diagnosis: {RESULT_FILE} is missing. Give the folder that coevo score --out named."
        )
    return read_json(path, DIAGNOSIS, "Run coevo score again to write it anew.")


def sentences(folder: Path) -> list[str]:
    """The diagnosis in words: notes, then a paragraph a model."""
    result = read_result(folder)
    lines = [f"note: {note}" for note in result["notes"]]
    for name, model in result["models"].items():
        lines += ["", name, *(f"  {sentence}" for sentence in model["verdict"])]
    return lines
