"""Processes of an experiment: so many at a time, each as soon as what it needs is done."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from coevo.errors import CheckpointError, CoevoError, ConfigError
from coevo.pace import Pace, Work, to_go
from coevo.plan.table import duration

LOG_FILE = "log.txt"
POLL_S = 0.5
SIGN_OF_LIFE_S = 60.0
PATIENCE_S = 10.0
"""Between an interrupt, a request to end and a kill."""
# threads that wait in a loop run, beside other processes, at a tenth of their speed
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Of each process, unless the user's says otherwise."""
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
    after: Callable[[], Iterable[str]] = lambda: ()
    """Tasks that still make what this one takes over: it waits until they are no longer named, or have ended."""
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
        self._pace = Pace()
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
            if len(self._running) < self._jobs and task.needs <= done and lost.union(done).issuperset(task.after()):
                try:
                    said = task.prepare()
                except CoevoError as error:
                    self._outcome.failed[task.name] = str(error)
                    self._say(f"[{self._place()}] {task.name}: failed: {error}")
                    continue
                self._say(f"[{self._place()}] {task.name}{said}")
                others = len(self._running) + len(waiting) - 1
                self._running.append(_Running(task, self._open(task, others), time.monotonic()))
            else:
                still.append(task)
        return still

    def _log(self, task: Task) -> Path:
        # beside a result folder, not in it: that takes only what its own command makes
        return self._out / (f"{task.name}/{LOG_FILE}" if task.words[0] == "train" else f"{task.name}.{LOG_FILE}")

    def _open(self, task: Task, others: int) -> subprocess.Popen[bytes]:
        """Starts a task beside so many others that run or wait: the last one has all cores."""
        log = self._log(task)
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // min(self._jobs, others + 1)))
        environment = {"OMP_NUM_THREADS": threads, **ENVIRONMENT, **os.environ}
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
        name = one.task.name
        if one.process.returncode == 0 and one.task.is_done():
            self._pace.saw(_work(one.task), elapsed)
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
        """Time to go by the tasks of each kind that are done; nothing while there are none."""
        now = time.monotonic()
        running = [(self._pace.expected(_work(one.task)), now - one.began) for one in self._running]
        ends = [max(0.0, expected - elapsed) for expected, elapsed in running if expected is not None]
        seconds, all_known = self._pace.left(map(_work, waiting), sum(ends))
        if not waiting and not self._running:
            return ""
        # no sooner than the longest of those that run
        seconds = max([seconds / self._jobs, *ends])
        all_known = all_known and len(ends) == len(running)
        return to_go(seconds, all_known, duration(seconds))

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


def _work(task: Task) -> Work:
    """A task's kind, such as `train`, and its estimate."""
    return task.words[0], task.seconds


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
