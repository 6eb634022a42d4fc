"""A run folder as the report sees it. Whatever an unfinished run does not have yet is listed, not an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coevo.config import Evaluation
from coevo.errors import ConfigError, DataError
from coevo.files import sha256_of
from coevo.records import Broken, checked, read_json, read_lines
from coevo.report import shapes
from coevo.rewards.verdict import Verdict
from coevo.scoring.summary import Row, difference, summarise
from coevo.yamlfile import read_yaml

Record = dict[str, Any]
BEFORE, AFTER = "sft", "final"
"""Names of the two evaluations: after the warm starts, and after the last iteration."""
SECOND = "second_scorer"
"""Where an evaluation dict has the same by the second scorer."""
AGAIN = "Restore the file, or delete the phase that wrote it and resume the run to have it written again."
MEND = "Remove or mend the line."
RESTORE = "Restore the file: it is the run's recipe."
REMOVE = "Restore the file, or remove it: the report does without."
"""What to do about a damaged file."""


@dataclass(frozen=True)
class Run:
    """What the report reads of a run folder."""

    path: Path
    recipe: Record
    environment: Record
    metrics: list[Record]
    before: Record | None
    """The evaluation dict before co-evolution; None if it has not been made."""
    after: Record | None
    rows_before: list[Row]
    rows_after: list[Row]
    turns: list[Record]
    """Rollouts of the last iteration's simulator."""
    changed: tuple[str, ...] = ()
    """What was damaged or edited after it had been measured, in words."""
    audit: Verdict | None = None
    """Of the reward; None if it has not been made."""
    second: Run | None = None
    """The same evaluations by the second scorer, which rewards nothing; None if there is none."""

    @property
    def name(self) -> str:
        """The recipe's name, or the folder's."""
        return str(self.recipe.get("name", self.path.name))

    @property
    def comparable(self) -> bool:
        """Whether both evaluations were made the same way: scorer, estimator, negatives, K and seed."""
        stamp = ("scorer", "estimator", "scale", "negatives", "k", "seed")
        return bool(self.before and self.after) and _pick(self.before, stamp) == _pick(self.after, stamp)

    @cached_property
    def change(self) -> Record | None:
        """After minus before as an evaluation dict, paired by scenario; its `remid` is the change of R-EMID.

        None if the two evaluations cannot be compared.
        """
        rows = self.changed_rows
        if not self.comparable or not rows or self.before is None:
            return None
        return self._summed(rows, "after - before", self.before["scorer"])

    @cached_property
    def excess(self) -> Record | None:
        """The change by the scorer that rewards minus the change by the second one, paired by scenario.

        None if there is one scorer, or a change cannot be had.
        """
        if self.second is None or self.change is None or self.second.change is None:
            return None
        rows = difference(self.second.changed_rows, self.changed_rows)
        return self._summed(rows, "first - second", f"{self.change['scorer']} - {self.second.change['scorer']}")

    @cached_property
    def changed_rows(self) -> list[Row]:
        """After minus before, a row per scenario that both have."""
        return difference(self.rows_before, self.rows_after)

    def _summed(self, rows: list[Row], model: str, scorer: str) -> Record:
        """An evaluation dict of differences, made as the first evaluation was."""
        assert self.before is not None
        config = Evaluation(**_pick(self.before, ("estimator", "negatives", "k", "resamples")))
        return summarise(rows, config, self.before["seed"], model=model, scorer=scorer)

    @property
    def missing(self) -> list[str]:
        """What an unfinished run does not have, in words."""
        notes = [*self.changed]
        if self.audit is None:
            notes.append("The audit of the reward (evaluation/audit.json) has not been made yet.")
        if self.before is None:
            notes.append("The evaluation before co-evolution (evaluation/sft.json) has not been made yet.")
        if self.after is None:
            notes.append("The evaluation after co-evolution (evaluation/final.json) has not been made yet.")
        if self.before and self.after and not self.comparable:
            notes.append("Before and after were measured differently (scorer, design or seed): do not compare them.")
        for name, evaluation, rows in ((BEFORE, self.before, self.rows_before), (AFTER, self.after, self.rows_after)):
            if evaluation and not rows:
                notes.append(f"The scenarios of evaluation/{name}.jsonl are missing, so nothing is paired by scenario.")
        method = (self.recipe.get("method") or {}).get("kind", "coevolution")
        online = method in ("coevolution", "grpo", "think_grpo")
        if online and not any(row.get("role") == "rpm" and row.get("iteration") for row in self.metrics):
            notes.append("No step of the role-playing model's phase has been logged yet.")
        if method == "coevolution" and not self.turns:
            notes.append("No turn of a simulator has been logged yet.")
        return notes


def read_run(run_dir: str | Path) -> Run:
    """Reads a run folder, finished or not.

    Raises:
        DataError: no such folder, no recipe in it, or a file that cannot be parsed.
    """
    path = Path(run_dir)
    if not (path / "resolved.yaml").is_file():
        raise DataError(f"{path}: not a run folder: it has no resolved.yaml. Give the folder that coevo train --out named.")
    audited = _read_json(path / "evaluation" / "audit.json", shapes.AUDIT)
    before, after = (_read_json(path / "evaluation" / f"{name}.json", shapes.EVALUATION) for name in (BEFORE, AFTER))
    run = Run(
        path=path,
        recipe=_read_recipe(path / "resolved.yaml"),
        environment=_read_json(path / "environment.json", shapes.OBJECT, REMOVE) or {},
        metrics=list(read_lines(path / "metrics.jsonl", shapes.METRICS, MEND)),
        before=before,
        after=after,
        rows_before=_read_rows(path, BEFORE, before),
        rows_after=_read_rows(path, AFTER, after),
        turns=_last_turns(path / "rollouts.jsonl"),
        changed=tuple(_changed(path)),
        audit=Verdict.from_json(audited) if audited else None,
    )
    seconds = {name: (one or {}).get(SECOND) for name, one in ((BEFORE, before), (AFTER, after))}
    if not any(seconds.values()):
        return run
    old, new = (_read_rows(path, f"{name}-second", second) for name, second in seconds.items())
    second = replace(run, before=seconds[BEFORE], after=seconds[AFTER], rows_before=old, rows_after=new)
    return replace(run, second=second)


def simulator_examples(run_dir: str | Path, n: int = 10) -> list[Record]:
    """Turns that the last iteration's simulator wrote, with an RPM's answer, as rows of rollouts.jsonl."""
    return choose_turns(_last_turns(Path(run_dir) / "rollouts.jsonl"), n)


def choose_turns(turns: list[Record], n: int) -> list[Record]:
    """The latest distinct turns, one subset after another in turn; chosen by place, not by how well they look."""
    by_tag: dict[str, dict[str, Record]] = {}
    for row in reversed(turns):
        by_tag.setdefault(str(row.get("subset_tag")), {}).setdefault(str(row.get("completion")), row)
    queues = [list(by_tag[tag].values()) for tag in sorted(by_tag)]
    depth = max(map(len, queues), default=0)
    return [queue[place] for place in range(depth) for queue in queues if place < len(queue)][:n]


def lost_most(run: Run, n: int = 10) -> list[tuple[Row, Row | None]]:
    """Scenarios with the lowest R-EMI in the latest evaluation, each with its row before if there is one."""
    latest = run.rows_after or run.rows_before
    earlier = {row.sample_id: row for row in run.rows_before} if run.rows_after else {}
    scored = sorted((row for row in latest if row.status == "ok"), key=lambda row: row.remi)
    return [(row, earlier.get(row.sample_id)) for row in scored[:n]]


def _last_turns(path: Path) -> list[Record]:
    turns: list[Record] = []
    phase = None
    for row in read_lines(path, shapes.ROLLOUT, MEND):
        if row.get("role") == "simulator" and "completion" in row:
            if row.get("phase") != phase:
                phase, turns = row.get("phase"), []
            turns.append(row)
    return turns


def _read_rows(run: Path, name: str, evaluation: Record | None) -> list[Row]:
    path = run / "evaluation" / f"{name}.jsonl"
    rows = [Row.from_json(record) for record in read_lines(path, shapes.ROW, AGAIN, exact=True)]
    if rows and not evaluation:
        missing = path.with_name(f"{name}.json")
        raise DataError(f"{missing}: missing, or without this scorer, though {path.name} is there. {AGAIN}")
    if evaluation and path.is_file():
        found = Counter(row.subset_tag for row in rows)
        expected = {tag: entry["n"] for tag, entry in evaluation["subsets"].items()}
        if found != expected or len({row.sample_id for row in rows}) < len(rows):
            raise DataError(
                f"{path}: {len(rows)} rows, by subset {dict(found)}; expected one of each scenario that its evaluation "
                f"counts, {expected}. {AGAIN}"
            )
    return rows


def _read_json(path: Path, shape: TypeAdapter[Any], remedy: str = AGAIN) -> Record | None:
    return read_json(path, shape, remedy) if path.is_file() else None


def _changed(run: Path) -> Iterator[str]:
    """Evaluations that are not as the phase that made them left them."""
    for record in sorted((run / "phases").glob("*/done.json")):
        done = read_json(record, shapes.DONE, f"Restore it, or delete {record.parent} to have the phase run again.")
        for name, digest in done["manifest"].items():
            path = run / name
            if name.startswith("evaluation/") and not (path.is_file() and sha256_of(path) == digest):
                what = "has changed" if path.is_file() else "is missing"
                yield f"{name} {what} since the phase {record.parent.name} made it: what is here was not measured so."


def _read_recipe(path: Path) -> Record:
    try:
        return checked(read_yaml(path, "no such recipe."), shapes.RECIPE)
    except ConfigError as error:
        raise DataError(f"{error}. {RESTORE}") from None
    except Broken as error:
        raise DataError(f"{path}: {error}. {RESTORE}") from None


def _pick(record: Record | None, names: tuple[str, ...]) -> Record:
    return {name: (record or {}).get(name) for name in names}
