"""Runs an experiment's cells, each in a process of its own, so many at a time; what is done is never done again.

A cell is a run folder of `coevo train`, a measurement is a result folder of `coevo score`: either can be looked at, resumed
and reported alone. A cell that fails stops nobody else.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from coevo.data import write_rpgbench
from coevo.errors import ConfigError
from coevo.experiment.adopt import adopt, digests, has_phase
from coevo.experiment.matrix import ASKED_FILE, Cell, Experiment, cell_of, judged_of, scores_of
from coevo.experiment.pool import Outcome, Pool, Task
from coevo.files import locked, only_leftovers, write_atomic
from coevo.loop.material import load_material
from coevo.plan.plan import Counts, PhasePlan, count, plan
from coevo.runs.folder import RunFolder, dump_row, read_resolved, read_rows
from coevo.runs.record import with_own_data

LOCK_FILE = ".lock"


def plans(experiment: Experiment) -> dict[str, list[PhasePlan]]:
    """Cell -> its phases. Whatever a recipe cannot do is found here, before anything runs.

    Raises:
        ConfigError, DataError: as of `plan`, with the cell's name.
    """
    found = {}
    # a file that all cells share is read through once
    counts: dict[str, Counts] = {}
    for cell in (*experiment.estimators, *experiment.cells):
        data = cell.recipe.data.model_dump_json()
        try:
            counts[data] = counts.get(data) or count(cell.recipe)
            phases = plan(cell.recipe, counts[data])
        except ConfigError as error:
            raise ConfigError(f"{cell.name}: {error}") from None
        names = [phase.name.partition("-")[2] for phase in phases]
        found[cell.name] = phases if cell.until is None else phases[: names.index(cell.until) + 1]
    return found


def to_run(experiment: Experiment, phases: dict[str, list[PhasePlan]]) -> dict[str, list[PhasePlan]]:
    """Cell -> those of its phases that no earlier cell has too."""
    found, seen = {}, set()
    for cell in (*experiment.estimators, *experiment.cells):
        known = digests(cell.recipe, phases[cell.name])
        found[cell.name] = [phase for phase in phases[cell.name] if known[phase.name] not in seen]
        seen |= set(known.values())
    return found


def check_folder(experiment: Experiment, out: Path) -> None:
    """Whether the cells can be made, or gone on with, below a folder.

    Raises:
        ConfigError: something else is there, or a cell of another recipe.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder.")
    # a kill at the very beginning leaves the lock
    if out.is_dir() and not only_leftovers(out, [ASKED_FILE]) and not (out / ASKED_FILE).is_file():
        raise ConfigError(f"--out {out} exists, is not empty, and holds no experiment; choose another folder.")
    for cell in (*experiment.estimators, *experiment.cells):
        root = out / cell.name
        if (root / "resolved.yaml").is_file() and read_resolved(root) != cell.recipe:
            raise ConfigError(
                f"{root} is of another recipe than {experiment.path} now says; an experiment keeps its recipes. "
                "Choose another --out, or delete that folder to have it run anew."
            )


def run(
    experiment: Experiment, out: Path, jobs: int, launch: Sequence[str], say: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Runs all that is not done yet: estimators, cells, and the measurement of every cell by every estimator.

    Args:
        experiment: what to run.
        out: its folder, new or of the same experiment.
        jobs: processes at a time.
        launch: the words that start `coevo`.
        say: told a line at a time what happens.

    Raises:
        ConfigError: another process is at work in the folder.
    """
    phases = plans(experiment)
    check_folder(experiment, out)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out / LOCK_FILE) as lock:
        write_atomic(out / ASKED_FILE, json.dumps(experiment.to_dict(), indent=1, ensure_ascii=False) + "\n")
        tasks = list(_tasks(experiment, out, phases))
        return Pool(out, jobs, launch, lock, say).run(tasks)


# --- what there is to run -------------------------------------------------------------------------------------------


def _tasks(experiment: Experiment, out: Path, phases: dict[str, list[PhasePlan]]) -> Iterator[Task]:
    every = (*experiment.estimators, *experiment.cells)
    known = {cell.name: digests(cell.recipe, phases[cell.name]) for cell in every}
    fresh = to_run(experiment, phases)
    ends = {name: own[-1].name for name, own in phases.items()}
    for cell in every:
        left = [phase for phase in fresh[cell.name] if not has_phase(out / cell.name, phase.name)]
        estimates = [phase.seconds_estimate for phase in left]
        seconds = None if None in estimates else sum(s for s in estimates if s is not None)
        yield replace(_training(cell, out, phases[cell.name], known), seconds=seconds)
    for base in experiment.matrix.bases:
        for seed in experiment.seeds:
            for estimator in experiment.estimators:
                if estimator.base == base:
                    # a cell's own last evaluation takes as long
                    last = [phases[cell_of(base, method, seed)][-1].seconds_estimate for method in experiment.methods]
                    seconds = None if None in last else sum(s for s in last if s is not None)
                    yield replace(_reading(experiment, out, base, seed, estimator, ends), seconds=seconds)
            if experiment.judge is not None:
                yield _reading(experiment, out, base, seed, None, ends)


def _training(cell: Cell, out: Path, phases: list[PhasePlan], known: dict[str, dict[str, str]]) -> Task:
    root = out / cell.name
    last = root / "phases" / phases[-1].name / "done.json"
    donors = [(out / name, has) for name, has in known.items() if name != cell.name]
    own = known[cell.name]

    def prepare() -> str:
        with locked(root):
            folder = RunFolder(root) if (root / "resolved.yaml").is_file() else RunFolder.create(root, cell.recipe)
            taken = adopt(folder, own, donors)
        return f"; {len(taken)} of {len(phases)} phases are another cell's as well" if taken else ""

    words = ["train", "--resume", str(root)] + (["--until", cell.until] if cell.until else [])
    # a phase that an earlier cell has too is left to that one
    owners: dict[str, str] = {}
    for name, has in known.items():
        for digest in has.values():
            owners.setdefault(digest, name)

    def after() -> Iterator[str]:
        for phase, digest in own.items():
            owner = owners[digest]
            if owner != cell.name and not has_phase(out / owner, phase):
                yield owner

    return Task(cell.name, words, last.is_file, prepare, after=after)


def _reading(
    experiment: Experiment, out: Path, base: str, seed: int, estimator: Cell | None, ends: Mapping[str, str]
) -> Task:
    """The measurement of one seed's cells by an estimator, or by a language model where there is none."""
    cells = [cell for cell in experiment.cells if (cell.base, cell.seed) == (base, seed)]
    name = scores_of(base, estimator.method, seed) if estimator else judged_of(base, seed)
    record = out / name / ("result.json" if estimator else "summary.json")
    # the phase that ends each run it rests on
    marks = [
        out / cell.name / "phases" / ends[cell.name] / "done.json" for cell in (*cells, *([estimator] if estimator else []))
    ]
    data, folder = out / "data" / f"{base}.json", out / "responses" / base
    files = [folder / f"{cell.method}.seed-{seed}.jsonl" for cell in cells]

    def prepare() -> str:
        if not _is_newer(data, [out / cell.name / "resolved.yaml" for cell in cells]):
            data.parent.mkdir(parents=True, exist_ok=True)
            write_rpgbench(data, load_material(with_own_data(out / cells[0].name, cells[0].recipe)).tests)
        for cell, file in zip(cells, files, strict=True):
            export(out / cell.name, ends[cell.name], cell.method, file)
        return ""

    def is_done() -> bool:
        # a run that was made anew is measured anew
        return _is_newer(record, marks) and _models(record) == {cell.method for cell in cells}

    command = ["score", "--scorer", str(out / estimator.name)] if estimator else ["judge", *(experiment.judge or [])]
    words = [*command, "--data", str(data), "--out", str(out / name), "--responses", *map(str, files)]
    needs = frozenset((*([estimator.name] if estimator else []), *(cell.name for cell in cells)))
    return Task(name, words, is_done, prepare, needs)


def _is_newer(file: Path, sources: Sequence[Path]) -> bool:
    """Whether a file and what it was made of are there, and none of that has been written since."""
    if not all(path.is_file() for path in (file, *sources)):
        return False
    made = file.stat().st_mtime_ns
    return all(source.stat().st_mtime_ns <= made for source in sources)


def _models(record: Path) -> set[str] | None:
    """The models of a result; None of one that is damaged."""
    try:
        return set(json.loads(record.read_bytes())["models"])
    except (ValueError, KeyError, TypeError):
        return None


def export(run: Path, last: str, model: str, file: Path) -> None:
    """A finished run's answers to the tests as `coevo score` and `coevo judge` read them.

    Raises:
        CheckpointError: they are not as its last phase left them.
    """
    RunFolder(run).facts(last)
    rows = []
    for row in read_rows(run / "evaluation" / "final.jsonl"):
        status = {"status": "truncated"} if row["status"] == "truncated" else {}
        rows.append({"sample_ID": row["sample_id"], "response": row["response"], "model": model, **status})
    write_atomic(file, "".join(dump_row(row) for row in rows))


def _locked(path: Path) -> IO[bytes]:
    """A lock that every process of the experiment holds: also those that outlive one that was killed."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"{path.parent} is in use by another coevo experiment, or by cells that one started and that outlived it; "
            "wait for them or stop them, or choose another --out."
        ) from None
    return file
