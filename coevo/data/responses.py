"""Responses of finished models, as JSON Lines: `{"sample_ID": …, "response": …, "model": …}`, checked against their data.

One line a response; one file may hold several models, and one model may be spread over several files. `status` may be
`truncated` for a response that met its token limit. Other fields are ignored.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coevo.data.jsonstream import Refused, clipped, has_surrogate, is_label, json_type, strict_decoder
from coevo.data.rpgbench import known, load
from coevo.data.sample import Problem
from coevo.errors import DataError
from coevo.files import what_it_is
from coevo.text import blank, normalised
from coevo.types import Response, Scenario

MOST_PROBLEMS = 50
"""Problems that one message lists; all are counted."""
EXAMPLE = '{"sample_ID": "IDTest-00000", "response": "Good evening.", "model": "mine"}'
_FIELDS = ("sample_ID", "response", "model", "status")


@dataclass(frozen=True, slots=True)
class Answers:
    """Scenarios of the chosen splits and what each model answered, one response a scenario and in the same order.

    A scenario that a model did not answer has a response of status `missing`.
    """

    scenarios: list[Scenario]
    by_model: dict[str, list[Response]]
    """In the files' order of first appearance."""
    splits: tuple[str, ...]
    """The chosen splits, in the data file's order."""
    unanswered: dict[str, int]
    """Split without any response -> its scenarios; left out where no splits were asked for."""
    unused: dict[str, int]
    """Split that was not asked for -> responses to its scenarios."""

    def missing(self, model: str) -> list[str]:
        """sample_ids that the model did not answer."""
        return [response.sample_id for response in self.by_model[model] if response.status == "missing"]

    def notes(self) -> list[str]:
        """What a reader of any result must know: scenarios without a response, and splits that were left out."""
        notes = []
        for model in self.by_model:
            lacking = self.missing(model)
            if lacking:
                some = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
                notes.append(f"{model} did not answer {len(lacking)} of {len(self.scenarios)} scenarios: {some}")
        shown: dict[str, str] = {}
        for model in self.by_model:
            # what is seen of a name: zero-width marks are not printable
            other = shown.setdefault("".join(c for c in model if c.isprintable() and c != " ").casefold(), model)
            if other != model:
                notes.append(f"The models {other!r} and {model!r} differ in case or space alone, and are taken for two.")
        if self.unanswered:
            listed = ", ".join(f"{split} ({n})" for split, n in self.unanswered.items())
            notes.append(f"Splits of the data without any response, left out: {listed}.")
        if self.unused:
            listed = ", ".join(f"{split} ({n})" for split, n in self.unused.items())
            notes.append(f"Responses to splits that were not asked for, left out: {listed}.")
        return notes


def read_answers(data: Path, files: Sequence[Path], splits: Sequence[str] | None = None) -> Answers:
    """Reads a data file in the RPGBench layout and the responses to it.

    Args:
        data: the scenarios with their references.
        files: JSON Lines, at least one.
        splits: which splits to take; None takes those that any response belongs to.

    Raises:
        DataError: for the data, the first problem; for the responses, all of them (the first 50 in words), each with
            file, line, field, value, what was expected and the remedy.
    """
    found = load(data)
    known(data, splits, found.names)
    return match(str(data), found.names, found.scenarios, files, splits)


def match(
    data: str, names: Sequence[str], every: Sequence[Scenario], files: Sequence[Path], splits: Sequence[str] | None = None
) -> Answers:
    """The same of scenarios that were read already; `data` names where they are from, `names` their splits in order."""
    found = _read_files(files, {x.sample_id: x.split for x in every}, data)
    answered = Counter(split for model in found.values() for _, split in model.values())
    chosen = tuple(name for name in names if (name in splits if splits else name in answered))
    scenarios = [x for x in every if x.split in chosen]
    hollow = [name for name in chosen if name not in {x.split for x in scenarios}]
    if hollow:
        raise DataError(f"{data}: split(s) {', '.join(hollow)} have no sample; expected some; leave them out of --splits.")
    if not any(answered[name] for name in chosen):
        raise DataError(
            f"{data}: no response belongs to the split(s) {', '.join(chosen)}; the responses are to "
            f"{', '.join(sorted(answered))}; name those."
        )
    by_model = {
        model: [
            rows[x.sample_id][0] if x.sample_id in rows else Response(x.sample_id, "", model, "missing") for x in scenarios
        ]
        for model, rows in found.items()
    }
    sizes = Counter(x.split for x in every)
    return Answers(
        scenarios,
        by_model,
        chosen,
        {name: sizes[name] for name in names if not splits and name not in chosen and sizes[name]},
        {name: n for name, n in sorted(answered.items()) if name not in chosen},
    )


_Found = dict[str, dict[str, tuple[Response, str]]]
"""Model -> sample_id -> response and the scenario's split."""


def _read_files(files: Sequence[Path], split_of: Mapping[str, str], data: str) -> _Found:
    reader = _Reader(split_of, data)
    for file in files:
        reader.read(file)
    if reader.problems:
        n, listed = len(reader.problems), reader.problems[:MOST_PROBLEMS]
        by_field = ", ".join(
            f"{field} {count:,}" for field, count in Counter(p.field for p in reader.problems).most_common()
        )
        first = "" if len(listed) == n else f"the first {MOST_PROBLEMS} of them "
        lines = "\n".join(f"  {problem}" for problem in listed)
        raise DataError(f"{n:,} problem(s) in the responses, {first}listed here. By field: {by_field}.\n{lines}")
    return reader.found


class _Reader:
    """Gathers responses and problems over files."""

    def __init__(self, split_of: Mapping[str, str], data: str) -> None:
        self._split_of, self._data = split_of, data
        self._decoder = strict_decoder()
        self._places: dict[tuple[str, str], str] = {}
        self._place = ""
        self.found: _Found = {}
        self.problems: list[Problem] = []

    def read(self, file: Path) -> None:
        """Reads one file.

        Raises:
            DataError: it cannot be opened, or holds no response.
        """
        some = False
        for number, line in _lines(file):
            self._place, some = f"{file}:{number}", True
            record = self._record(line)
            if record is not None:
                self._take(record)
        if not some:
            raise DataError(f"{file}: holds no response; expected a line like {EXAMPLE}")

    def _record(self, line: bytes) -> dict[str, Any] | None:
        """One line as an object, or None with its problem noted."""
        remedy = f"write one JSON object a line, like {EXAMPLE}"
        try:
            record = self._decoder.decode(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            what = f"byte {error.start} (0x{line[error.start]:02x}) is not valid UTF-8"
            self._add("line", f"{what}; expected UTF-8; convert the file, for example with iconv -f ENCODING -t UTF-8")
        except json.JSONDecodeError as error:
            near = clipped(error.doc[error.pos : error.pos + 30])
            self._add("line", f"malformed JSON, {error.msg.removesuffix(' at')} at {near}; {remedy}")
        except Refused as error:
            found, expected, mend = error.args
            self._add("line", f"found {found}; expected {expected}; {mend}")
        except RecursionError:
            self._add("line", f"JSON that is nested too deeply; {remedy}")
        else:
            if isinstance(record, dict):
                return record
            self._add("line", f"is {clipped(record)} ({json_type(record)}); expected an object; {remedy}")
        return None

    def _take(self, record: dict[str, Any]) -> None:
        before = len(self.problems)
        sample_id = self._text(record, "sample_ID", "the scenario's sample_ID, as --data has it")
        model = self._text(record, "model", "the model's name", label=True)
        text = self._text(record, "response", 'text ("" for a model that said nothing)')
        status: Any = record.get("status", "ok")
        if status not in ("ok", "truncated"):
            self._wrong("status", status, "ok or truncated", "correct it or leave the field out")
        if isinstance(sample_id, str) and sample_id not in self._split_of:
            self._unknown(sample_id)
        if len(self.problems) > before or not (
            isinstance(sample_id, str) and isinstance(model, str) and isinstance(text, str)
        ):
            return
        key = (model, sample_id)
        if key in self._places:
            self._add(
                "sample_ID",
                f"is {clipped(sample_id)}, which model {clipped(model)} answers at {self._places[key]} too; "
                "expected one response a scenario and model; keep one",
            )
            return
        self._places[key] = self._place
        state: Literal["ok", "truncated", "empty"] = "empty" if blank(text) else status
        self.found.setdefault(model, {})[sample_id] = (
            Response(sample_id, normalised(text), model, state),
            self._split_of[sample_id],
        )

    def _text(self, record: Mapping[str, Any], field: str, expected: str, label: bool = False) -> str | None:
        """A field's text, or None with its problem noted."""
        value = record.get(field)
        if field not in record:
            near = difflib.get_close_matches(field, set(record) - set(_FIELDS), n=1)
            hint = f"rename {near[0]!r}" if near else "add the field"
            self._add(field, f"is missing; expected {expected}; {hint}")
        elif not isinstance(value, str):
            self._wrong(field, value, expected, "write it as text")
        elif has_surrogate(value):
            self._wrong(field, value, "text that UTF-8 can hold", "remove the half of a surrogate pair (\\ud8…)")
        elif "\0" in value:
            self._wrong(field, value, "text without the null character", "remove \\u0000")
        elif label and not is_label(value):
            self._wrong(field, value, "a name of one line, 1 to 200 characters", "shorten or write it")
        else:
            return value
        return None

    def _unknown(self, sample_id: str) -> None:
        # looking for a near name is slow, so it is done for the problems that will be read
        few = len(self.problems) < MOST_PROBLEMS
        near = difflib.get_close_matches(sample_id, self._split_of, n=1, cutoff=0.8) if few else []
        hint = f"nearest: {near[0]}" if near else "check that --data is the file that the responses were made for"
        self._add(
            "sample_ID", f"is {clipped(sample_id)}, which {self._data} does not have; expected one of its samples; {hint}"
        )

    def _wrong(self, field: str, value: Any, expected: str, remedy: str) -> None:
        self._add(field, f"is {clipped(value)} ({json_type(value)}); expected {expected}; {remedy}")

    def _add(self, field: str, message: str) -> None:
        place = self._place if field == "line" else f"{self._place}: field {field}"
        self.problems.append(Problem(place, field, message))


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with something in them, and their numbers from 1; byte-order marks are passed over."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                found = what_it_is(line, file) if number == 1 else None
                if found:
                    raise DataError(f"{file}: {found}")
                # every line, for files that were joined
                content = line.removeprefix(b"\xef\xbb\xbf")
                if content.strip():
                    yield number, content
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read ({reason}); expected responses as JSON Lines; check the path.") from error
