"""Runs an experiment's cells, each in a process of its own, so many at a time; what is done is never done again.

A cell is a run folder of `coevo train`, a measurement is a result folder of `coevo score`: either can be looked at, resumed
and reported alone. A cell that fails stops nobody else.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from coevo.data import write_rpgbench
from coevo.errors import CheckpointError, CoevoError, ConfigError
from coevo.experiment.adopt import adopt, digests
from coevo.experiment.matrix import ASKED_FILE, Cell, Experiment, cell_of, judged_of, scores_of
from coevo.files import write_atomic
from coevo.loop.folder import RunFolder, dump_row, read_resolved, read_rows
from coevo.loop.material import load_material
from coevo.loop.plan import Counts, PhasePlan, count, plan
from coevo.loop.table import duration

LOG_FILE, LOCK_FILE = "log.txt", ".lock"
POLL_S = 0.5
SIGN_OF_LIFE_S = 60.0
PATIENCE_S = 10.0
"""Between an interrupt, a request to end and a kill."""
TAIL = 12
"""Lines of a failed cell's log that are shown."""


@dataclass
class Task:
    """One process to run."""

    name: str
    """Also its folder below the experiment's."""
    words: list[str]
    """Arguments of `coevo`."""
    is_done: Callable[[], bool]
    prepare: Callable[[], str] = lambda: ""
    """Called before the process starts; what it did, in words."""
    needs: frozenset[str] = frozenset()
    """Tasks that must be done first."""
    after: frozenset[str] = frozenset()
    """Tasks that must have ended first, done or not: what they leave behind is taken over."""
    seconds: float | None = 0.0
    """An estimate; None if there is none."""


@dataclass
class Outcome:
    """What became of the tasks."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Task -> why."""
    left: list[str] = field(default_factory=list)
    """Tasks that need a failed one."""


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
    begun = {LOCK_FILE, f".{ASKED_FILE}.tmp"}
    if out.is_dir() and {file.name for file in out.iterdir()} - begun and not (out / ASKED_FILE).is_file():
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
        write_atomic(out / ASKED_FILE, json.dumps(experiment.as_json(), indent=1, ensure_ascii=False) + "\n")
        tasks = list(_tasks(experiment, out, phases))
        return Pool(out, jobs, launch, lock, say).run(tasks)


# --- what there is to run -------------------------------------------------------------------------------------------


def _tasks(experiment: Experiment, out: Path, phases: dict[str, list[PhasePlan]]) -> Iterator[Task]:
    every = (*experiment.estimators, *experiment.cells)
    known = {cell.name: digests(cell.recipe, phases[cell.name]) for cell in every}
    fresh = to_run(experiment, phases)
    ends = {name: own[-1].name for name, own in phases.items()}
    for cell in every:
        estimates = [phase.seconds_estimate for phase in fresh[cell.name]]
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
        folder = RunFolder(root)
        if not (root / "resolved.yaml").is_file():
            folder = RunFolder.create(root, cell.recipe)
        taken = adopt(folder, own, donors)
        return f"; {len(taken)} of {len(phases)} phases are another cell's as well" if taken else ""

    words = ["train", "--resume", str(root)] + (["--until", cell.until] if cell.until else [])
    # a phase that an earlier cell has too is left to that one
    owners: dict[str, str] = {}
    for name, has in known.items():
        for digest in has.values():
            owners.setdefault(digest, name)
    after = frozenset(owners[digest] for digest in own.values()) - {cell.name}
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
            write_rpgbench(data, load_material(cells[0].recipe).tests)
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


# --- processes ------------------------------------------------------------------------------------------------------


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


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    began: float


class Pool:
    """Runs tasks in their order, so many at a time, each as soon as what it needs is done."""

    def __init__(self, out: Path, jobs: int, launch: Sequence[str], lock: IO[Any], say: Callable[[str], None]) -> None:
        self._out, self._jobs, self._launch, self._lock, self._say = out, jobs, list(launch), lock, say
        self._running: list[_Running] = []
        self._outcome = Outcome()
        self._spent = self._expected = 0.0
        self._shown = time.monotonic()

    def run(self, tasks: Sequence[Task]) -> Outcome:
        """All of them. An interrupt ends what runs, and is raised again."""
        waiting = [task for task in tasks if not task.is_done()]
        self._outcome.done = [task.name for task in tasks if task not in waiting]
        if self._outcome.done:
            self._say(f"{len(self._outcome.done)} of {len(tasks)} are done already")
        self._total = len(tasks)
        try:
            while waiting or self._running:
                waiting = self._start(waiting)
                time.sleep(POLL_S)
                for one in [one for one in self._running if one.process.poll() is not None]:
                    self._finish(one, waiting)
                self._sign_of_life(waiting)
        finally:
            self._stop()
        return self._outcome

    def _start(self, waiting: list[Task]) -> list[Task]:
        """Starts what can start; returns what still waits."""
        done = set(self._outcome.done)
        lost = {*self._outcome.failed, *self._outcome.left}
        self._outcome.left += [task.name for task in waiting if task.needs & lost]
        still: list[Task] = []
        for task in waiting:
            if task.name in self._outcome.left:
                continue
            if len(self._running) < self._jobs and task.needs <= done and task.after <= done | lost:
                try:
                    said = task.prepare()
                except CoevoError as error:
                    self._outcome.failed[task.name] = str(error)
                    self._say(f"[{self._place()}] {task.name}: failed: {error}")
                    continue
                self._say(f"[{self._place()}] {task.name}{said}")
                self._running.append(_Running(task, self._open(task), time.monotonic()))
            else:
                still.append(task)
        return still

    def _log(self, task: Task) -> Path:
        # beside a result folder, not in it: that takes only what its own command makes
        return self._out / (f"{task.name}/{LOG_FILE}" if task.words[0] == "train" else f"{task.name}.{LOG_FILE}")

    def _open(self, task: Task) -> subprocess.Popen[bytes]:
        log = self._log(task)
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // self._jobs))
        environment = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", **os.environ}
        # a judge is one process, which no launcher multiplies
        launch = [sys.executable, "-m", "coevo"] if task.words[0] == "judge" else self._launch
        try:
            with log.open("ab") as file:
                return subprocess.Popen(
                    [*launch, *task.words],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=(self._lock.fileno(),),
                    # of its own, so that what a launcher has started is stopped with it
                    process_group=0,
                )
        except OSError as error:
            if error.filename != launch[0]:
                raise
            raise ConfigError(f"{shlex.join(launch)}: cannot be started: {error.strerror}; mend --launch.") from None

    def _finish(self, one: _Running, waiting: Sequence[Task]) -> None:
        self._running.remove(one)
        elapsed = time.monotonic() - one.began
        if one.task.seconds:
            self._spent += elapsed
            self._expected += one.task.seconds
        name = one.task.name
        if one.process.returncode == 0 and one.task.is_done():
            self._outcome.done.append(name)
            self._say(f"[{self._place()}] {name}: done in {duration(elapsed)}{self._remaining(waiting)}")
            return
        log = self._log(one.task)
        tail = "\n    ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
        code = one.process.returncode
        why = f"exit {code}" if code else "exit 0 without a result, as of a --launch that does not start coevo"
        self._outcome.failed[name] = f"{why}, see {log}"
        self._say(f"[{self._place()}] {name}: failed with {why}; the end of {log}:\n    {tail}")

    def _sign_of_life(self, waiting: Sequence[Task]) -> None:
        now = time.monotonic()
        if self._running and now - self._shown > SIGN_OF_LIFE_S:
            self._shown = now
            doing = ", ".join(f"{one.task.name} {_phase(self._out / one.task.name)}".strip() for one in self._running)
            self._say(f"[{self._place()}] running: {doing}{self._remaining(waiting)}")

    def _remaining(self, waiting: Sequence[Task]) -> str:
        """Time to go by the plans' estimates and the pace so far; nothing while there is no pace."""
        todo = [task.seconds for task in waiting] + [one.task.seconds for one in self._running]
        if not self._expected or None in todo:
            return ""
        now = time.monotonic()
        begun = sum(min(now - one.began, one.task.seconds or 0.0) for one in self._running)
        seconds = (sum(s for s in todo if s) * self._spent / self._expected - begun) / self._jobs
        return f" · about {duration(max(0.0, seconds))} to go"

    def _place(self) -> str:
        return f"{len(self._outcome.done)}/{self._total}"

    def _stop(self) -> None:
        """Ends what runs and whatever that has started: first as a person would, who is told what was paid for."""
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for one in self._running:
                _signal(one.process, sign)
            until = time.monotonic() + PATIENCE_S
            while self._running and time.monotonic() < until:
                self._running = [one for one in self._running if _signal(one.process, 0)]
                time.sleep(0.1)


def _signal(process: subprocess.Popen[bytes], sign: int) -> bool:
    """Whether a process or one that it started was still there to be told."""
    process.poll()
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True


def _phase(root: Path) -> str:
    """The phase that a run is in, by its newest folder."""
    names = sorted(folder.name for folder in (root / "phases").glob("*-*"))
    return f"({names[-1]})" if names else ""


def failures(outcome: Outcome) -> None:
    """Raises what a person must know at the end.

    Raises:
        CheckpointError: a cell failed.
    """
    if outcome.failed:
        listed = "\n".join(f"  {name}: {why}" for name, why in outcome.failed.items())
        left = f"\nNot run, as they need one of these: {', '.join(outcome.left)}." if outcome.left else ""
        raise CheckpointError(
            f"{len(outcome.failed)} of the experiment's processes failed:\n{listed}{left}\n"
            "What is done is kept. Mend the cause, then give the same command again."
        )
