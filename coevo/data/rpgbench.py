"""The RPGBench layout: one JSON object, split -> list of samples. Read as a stream, written atomically.

A sample has `sample_ID`, `subset_tag`, `user_persona` (text), `agent_character` (text or object), `dialogue_context`
(`{"user_query": …}` and `{"agent_response": …}` in turn, ending with the user) and
`agent_golden_response`. Cold-start files add `SThought`, files of ours may add `parent_ID` and `agent_alternatives`; other
fields are ignored.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from coevo.data.jsonstream import WRAP, JsonLists
from coevo.data.remarks import Remarks
from coevo.data.sample import Problem, Sample
from coevo.errors import DataError
from coevo.types import Scenario


@dataclass(slots=True)
class CheckReport:
    """What `check` found in a file."""

    path: str
    n_samples: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(split, subset_tag) -> valid samples."""
    splits: list[str] = field(default_factory=list)
    n_prompt_characters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(split, subset_tag) -> summed characters of persona, character and dialogue; divide by n_samples for the mean."""
    n_reference_characters: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest_prompt: tuple[int, str] = (0, "")
    """Characters, sample_ID."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault of the layout and yet decides what can be measured: copies, one persona for all, look-alike names."""

    @property
    def n_problems(self) -> Counter[str]:
        """field -> how many problems."""
        return Counter(problem.field for problem in self.problems)

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems


def read_rpgbench(path: str | os.PathLike[str], splits: Iterable[str] | None = None) -> Iterator[Scenario]:
    """Stream the scenarios of a file, in the file's order, holding one chunk and the names seen in memory.

    The file's existence and the names of the splits are checked at the call, the samples as they are read.

    Args:
        path: a JSON file in the RPGBench layout.
        splits: which splits to read; None reads all. Samples of others are passed over unchecked.

    Raises:
        DataError: names file, line, sample and field of the first thing that is wrong.
    """
    wanted = _wanted(splits)
    known(path, wanted, split_names(path) if wanted is not None else [])
    with JsonLists(Path(path)):
        return _read(Path(path), wanted, [])


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as a whole, or some of its splits."""

    names: tuple[str, ...]
    """Of all its splits, in the file's order."""
    scenarios: tuple[Scenario, ...]


def load(path: str | os.PathLike[str], splits: Iterable[str] | None = None) -> Loaded:
    """A file's scenarios, as `read_rpgbench` gives them; parsed once a process while the file stays as it is.

    A command asks for the same splits several times: to plan, to check and to train.
    """
    try:
        found = Path(path).stat()
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):
        stamp = (0, 0, 0)  # the reader says what is wrong with the path
    wanted = _wanted(splits)
    return _loaded(os.fspath(path), stamp, None if wanted is None else frozenset(wanted))


@lru_cache(maxsize=4)
def _loaded(path: str, stamp: tuple[int, int, int], wanted: frozenset[str] | None) -> Loaded:
    names: list[str] = []
    scenarios = tuple(_read(Path(path), None if wanted is None else set(wanted), names))
    return Loaded(tuple(names), scenarios)


def _wanted(splits: Iterable[str] | None) -> set[str] | None:
    return {splits} if isinstance(splits, str) else None if splits is None else set(splits)


def known(path: str | os.PathLike[str], wanted: Iterable[str] | None, names: Sequence[str]) -> None:
    """Looks whether a file has the splits.

    Raises:
        DataError: it lacks one.
    """
    for name in sorted(wanted or ()):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0)
            raise DataError(
                f"{os.fspath(path)}: has no split {name!r}; it has {', '.join(map(_visible, names)) or 'none'}"
                + (f"; nearest: {_visible(near[0])}" if near else "")
            )


def _visible(name: str) -> str:
    """A name as it is, in quotes where white space at its ends would not be seen."""
    return name if name == name.strip() else repr(name)


def split_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a file's splits, in the file's order.

    Raises:
        DataError: the file is absent, not UTF-8, cut short or malformed.
    """
    with JsonLists(Path(path)) as lists:
        return [item for item in lists.elements() if isinstance(item, str)]


def check(path: str | os.PathLike[str]) -> CheckReport:
    """Read a whole file and report counts, lengths and all problems; never raises for what is in the file.

    Raises:
        DataError: the file cannot be opened.
    """
    report = CheckReport(os.fspath(path))
    remarks = Remarks()
    seen: set[str] = set()
    filled: set[str] = set()
    with JsonLists(Path(path)) as lists:
        try:
            for item in lists.elements():
                if isinstance(item, str):
                    report.splits.append(item)
                    continue
                sample = Sample(report.path, item)
                scenario = sample.scenario()
                sample_id = item.value.get("sample_ID") if isinstance(item.value, dict) else None
                if isinstance(sample_id, str) and sample_id in seen:
                    sample.problems.append(sample.duplicate())
                elif isinstance(sample_id, str):
                    seen.add(sample_id)
                report.problems.extend(sample.problems)
                if scenario is not None and not sample.problems:
                    _count(report, scenario)
                    remarks.add(scenario)
                filled.add(item.key)
            if not report.n_samples and not report.problems:
                raise DataError(f"{report.path}: holds no sample; expected at least one; {WRAP}")
            report.problems.extend(_empty(report.path, name) for name in report.splits if name not in filled)
        except DataError as error:
            report.problems.append(Problem("", "file", str(error)))
    report.notes = remarks.notes(report.splits)
    return report


def _empty(path: str, split: str) -> Problem:
    return Problem(f"{path}: split {split!r}", "split", "has no sample; expected at least one; fill the split or remove it")


def _read(path: Path, wanted: set[str] | None, names: list[str]) -> Iterator[Scenario]:
    """The scenarios of the wanted splits; the names of all splits go into `names` as they come."""
    seen: set[str] = set()
    empty = set(wanted or ())
    with JsonLists(path) as lists:
        for item in lists.elements():
            if isinstance(item, str):
                names.append(item)
                continue
            if wanted is not None and item.key not in wanted:
                continue
            empty.discard(item.key)
            sample = Sample(str(path), item)
            scenario = sample.scenario()
            if scenario is None:
                raise DataError(str(sample.problems[0]))
            if scenario.sample_id in seen:
                raise DataError(str(sample.duplicate()))
            seen.add(scenario.sample_id)
            yield scenario
    known(path, wanted, names)
    for split in sorted(empty):
        raise DataError(str(_empty(str(path), split)))


def _count(report: CheckReport, scenario: Scenario) -> None:
    key = (scenario.split, scenario.subset_tag)
    character = scenario.character
    text = character if isinstance(character, str) else json.dumps(character, ensure_ascii=False)
    n_prompt = len(scenario.persona) + len(text) + sum(len(turn.text) for turn in scenario.dialogue)
    report.n_samples[key] += 1
    report.n_prompt_characters[key] += n_prompt
    report.n_reference_characters[key] += len(scenario.reference)
    report.n_messages[key] += len(scenario.dialogue)
    report.longest_prompt = max(report.longest_prompt, (n_prompt, scenario.sample_id))
