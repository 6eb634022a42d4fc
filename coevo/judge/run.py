"""`coevo judge`: what is asked of a judge, and the result folder. An answer that was paid for is never asked for again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from coevo.config.access import check
from coevo.config.rubric import Rubric
from coevo.data.responses import Answers, read_answers
from coevo.errors import ConfigError, EndpointError, ScoreError
from coevo.files import Journal, check_out, content_key, file_record, locked, previous, write_atomic, writing
from coevo.judge import summary
from coevo.judge.endpoint import Address, Endpoint
from coevo.judge.parse import read_choices, read_scores
from coevo.judge.session import Answer, Judge, Judgement, Messages, Session
from coevo.progress import Progress, Silent, Stage
from coevo.prompts import judge_messages
from coevo.types import Response, Scenario

REQUEST_FILE, RESULT_FILE, ROWS_FILE, CALLS_FILE = "judge.json", "summary.json", "scores.jsonl", "calls.jsonl"
JOURNAL = Path("cache") / "answers.jsonl"
_CHARACTERS_PER_TOKEN = 3.5
"""For estimates alone."""


@dataclass(frozen=True)
class LocalModel:
    """A judge on this machine."""

    path: str
    """A hub id or a directory."""
    max_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any one currency."""

    prompt: float
    completion: float

    def of(self, tokens: Mapping[str, int | None]) -> float | None:
        """The cost of so many tokens; None if the endpoint left some uncounted."""
        read, written = tokens["prompt_tokens"], tokens["completion_tokens"]
        return None if read is None or written is None else (read * self.prompt + written * self.completion) / 1e6


@dataclass(frozen=True)
class Question:
    """What a person asks for."""

    data: Path
    files: tuple[Path, ...]
    rubric: str
    judge: Address | LocalModel
    out: Path
    splits: tuple[str, ...] | None = None
    pairwise: bool = False
    attempts: int = 3
    """Answers to one question that may be paid for until one can be read."""
    seed: int = 0
    """Of the bootstrap."""
    resamples: int = 1000
    prices: Prices | None = None
    key_name: str | None = None
    """The environment variable that holds the endpoint's key; None if it asks for none."""


@dataclass(frozen=True)
class _Material:
    """The questions of one stage, and where each belongs: place of the scenario, models in the order shown."""

    messages: list[Messages]
    places: list[tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class Request:
    """What can be asked of a judge."""

    question: Question
    rubric: Rubric
    answers: Answers
    key: str | None = field(repr=False)
    """In memory alone."""

    @cached_property
    def material(self) -> dict[str, _Material]:
        """Stage -> questions: one stage a model, or one for all comparisons, each in both orders."""
        scenarios, by_model = self.answers.scenarios, self.answers.by_model
        if not self.question.pairwise:
            return {
                f"scores of {model}": _questions(self.rubric, scenarios, {model: responses}, [(model,)])
                for model, responses in by_model.items()
            }
        first, second = by_model
        orders = [(first, second), (second, first)]
        return {f"{first} against {second}": _questions(self.rubric, scenarios, by_model, orders)}

    def to_dict(self) -> dict[str, Any]:
        """What was asked, for the result folder; without the key."""
        question = self.question
        return {
            "data": file_record(question.data),
            "responses": [file_record(file) for file in question.files],
            "splits": list(self.answers.splits),
            "rubric": {"name": self.rubric.name, "hash": content_key(self.rubric.model_dump(mode="json"))},
            "pairwise": question.pairwise,
            "judge": _judge_record(question.judge),
            "seed": question.seed,
            "resamples": question.resamples,
        }


def _judge_record(judge: Address | LocalModel) -> dict[str, Any]:
    if isinstance(judge, LocalModel):
        return {"local": judge.path, "max_tokens": judge.max_tokens, "temperature": judge.temperature, "seed": judge.seed}
    return {"endpoint": judge.url, "model": judge.model, "parameters": dict(judge.parameters)}


# --- before anything is asked ---------------------------------------------------------------------------------------


def prepare(question: Question) -> Request:
    """Reads and checks all that can be wrong before a call is made, and writes nothing.

    Raises:
        ConfigError: rubric, endpoint, key or output folder that cannot be, or a comparison of other than two models.
        DataError: scenarios or responses that break their format or do not belong together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("coevo judge runs in one process; call it without accelerate or torchrun.")
    rubric, key = check(question.rubric, question.judge, question.key_name)
    check_out(question.out, REQUEST_FILE, "coevo judge")
    answers = read_answers(question.data, question.files, question.splits)
    if question.pairwise and len(answers.by_model) != 2:
        found = ", ".join(answers.by_model)
        raise ConfigError(f"--pairwise compares two models, the responses are of {len(answers.by_model)}: {found}.")
    return Request(question, rubric, answers, key)


def stages(request: Request) -> list[Stage]:
    """The work in its order; how fast a judge is, nobody knows beforehand."""
    return [Stage(name, None) for name in request.material]


def outlook(request: Request) -> dict[str, Any]:
    """What a call would ask: questions, those whose answers are there, tokens (about) and cost (about).

    Answers of a local model are not looked up, as that needs its weights.
    """
    asked = [messages for own in request.material.values() for messages in own.messages]
    path, judge = request.question.out / JOURNAL, request.question.judge
    left = asked
    if path.is_file() and isinstance(judge, Address):
        session = Session(
            Endpoint(judge, None), _reader(request), Journal(path, writes=False, shape=Answer), request.question.attempts
        )
        left = session.unanswered(asked)
    else:
        left = list({content_key(list(messages)): messages for messages in asked}.values())
    read = round(sum(len(m["content"]) for messages in left for m in messages) / _CHARACTERS_PER_TOKEN)
    written = len(left) * (60 + 12 * len(request.rubric.dimensions))
    prices = request.question.prices
    tokens = {"prompt_tokens": read, "completion_tokens": written}
    return {"questions": len(asked), "to_ask": len(left), **tokens, "cost": prices.of(tokens) if prices else None}


# --- asking ---------------------------------------------------------------------------------------------------------


def judge(request: Request, progress: Progress | None = None) -> Path:
    """Asks the judge about every whole response and writes RESULT_FILE and ROWS_FILE into the result folder.

    Every answer is on disk before the next step, so that the same call goes on after a kill, an interrupt or an error.

    Returns:
        The folder.

    Raises:
        EndpointError: the endpoint is out of reach. What was judged is kept.
        ScoreError: nothing could be judged.
        CoevoError: a local model that cannot be loaded.
    """
    progress, out = progress or Silent(), request.question.out
    with locked(out), writing(out, "The same call then goes on where it was."):
        return _asked(request, progress)


def _asked(request: Request, progress: Progress) -> Path:
    out, question = request.question.out, request.question
    before = previous(out, REQUEST_FILE)
    if before is not None and before != request.to_dict() and (out / RESULT_FILE).exists():
        progress.say(f"{out} holds the result of another question; answers that still apply are reused, the rest replaced.")
    write_atomic(out / REQUEST_FILE, _dump(request.to_dict()))
    with Journal(out / JOURNAL, shape=Answer) as journal:
        if journal.torn_bytes:
            progress.say(f"{out / JOURNAL}: the last line was cut short by a kill; {journal.torn_bytes} bytes dropped.")
        asked = _judge(request)
        session = Session(asked, _reader(request), journal, question.attempts)
        found = {}
        with _accounted(request, session, asked):
            for stage, material in request.material.items():
                progress.phase(stage, len(material.messages))
                found[stage] = session.ask(material.messages, partial(progress.advance, 1))
                progress.done(stage)
    rows = _rows(request, found)
    write_atomic(out / ROWS_FILE, "".join(json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows))
    write_atomic(out / RESULT_FILE, _dump(_result(request, asked, rows, [j for own in found.values() for j in own])))
    if all(row.status != "ok" for row in rows):
        counts = ", ".join(f"{status} {entry['n']}" for status, entry in summary.unjudged(rows).items())
        raise ScoreError(f"Nothing could be judged ({counts}); why is in {out / ROWS_FILE}.")
    return out


def _judge(request: Request) -> Judge:
    judge = request.question.judge
    if isinstance(judge, Address):
        return Endpoint(judge, request.key)
    # a local model needs torch, an endpoint does not
    from coevo.judge.local import Local

    return Local(judge.path, judge.max_tokens, judge.temperature, judge.seed)


@contextmanager
def _accounted(request: Request, session: Session, judge: Judge) -> Iterator[None]:
    """Adds a line on what this call paid for and which calls failed, however it ends."""
    began, ended = time.time(), "stopped"
    out = request.question.out
    try:
        yield
        ended = "finished"
    except EndpointError as error:
        came = f"{len(session.paid)} answers came in before that"
        raise EndpointError(f"{error} {came}; all are kept in {out}, and the same call goes on from there.") from None
    finally:
        counts = summary.tokens(session.paid)
        prices = request.question.prices
        row: dict[str, Any] = {
            "ended": ended,
            "answers": len(session.paid),
            **counts,
            "cost": prices.of(counts) if prices else None,
        }
        row |= {"faults": dict(judge.faults) if isinstance(judge, Endpoint) else {}}
        row |= {"elapsed_s": round(time.time() - began, 2)}
        with (out / CALLS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _reader(request: Request) -> Any:
    return partial(read_choices if request.question.pairwise else read_scores, rubric=request.rubric)


def _questions(
    rubric: Rubric,
    scenarios: Sequence[Scenario],
    by_model: Mapping[str, Sequence[Response]],
    orders: Sequence[tuple[str, ...]],
) -> _Material:
    """Questions on the scenarios that all these models answered whole."""
    material = _Material([], [])
    for place, scenario in enumerate(scenarios):
        if all(responses[place].status == "ok" for responses in by_model.values()):
            for order in orders:
                replies = [by_model[model][place].text for model in order]
                material.messages.append(judge_messages(rubric, scenario, replies))
                material.places.append((place, order))
    return material


# --- what came out --------------------------------------------------------------------------------------------------


def _rows(request: Request, found: Mapping[str, Sequence[Judgement]]) -> list[Any]:
    by_place: dict[tuple[int, tuple[str, ...]], Judgement] = {}
    for stage, material in request.material.items():
        by_place |= dict(zip(material.places, found[stage], strict=True))
    scenarios, by_model = request.answers.scenarios, request.answers.by_model
    if not request.question.pairwise:
        return [
            summary.Scored(model, x.sample_id, x.subset_tag, by_place.get((place, (model,))), responses[place].status)
            for model, responses in by_model.items()
            for place, x in enumerate(scenarios)
        ]
    first, second = by_model
    rows = []
    for place, x in enumerate(scenarios):
        orders = [by_place.get((place, order)) for order in ((first, second), (second, first))]
        both = (orders[0], orders[1]) if orders[0] is not None and orders[1] is not None else None
        status = next((r[place].status for r in by_model.values() if r[place].status != "ok"), "ok")
        rows.append(summary.Compared((first, second), x.sample_id, x.subset_tag, both, status))
    return rows


def _result(request: Request, judge: Judge, rows: Sequence[Any], judgements: Sequence[Judgement]) -> dict[str, Any]:
    question, rubric = request.question, request.rubric
    result = {
        "kind": "judge",
        "asked": request.to_dict(),
        "judge": dict(judge.identity),
        "rubric": rubric.model_dump(mode="json") | {"headings": {d.name: d.heading for d in rubric.dimensions}},
        "n": len(request.answers.scenarios),
    }
    if question.pairwise:
        result["comparison"] = summary.comparison(rows, rubric, question.resamples, question.seed)
        result["unjudged"] = {"pairs": summary.unjudged(rows)}
    else:
        result["models"] = summary.scores(rows, rubric, question.resamples, question.seed)
        result["unjudged"] = {
            model: summary.unjudged([row for row in rows if row.model == model]) for model in request.answers.by_model
        }
    return result | {"answers": _paid(judgements, question.prices), "notes": request.answers.notes()}


def _paid(judgements: Sequence[Judgement], prices: Prices | None) -> dict[str, Any]:
    """All answers behind the result, whenever they were paid for; one that serves several questions counts once."""
    distinct: list[Answer] = list({id(answer): answer for one in judgements for answer in one.answers}.values())
    counts = summary.tokens(distinct)
    read = {id(one.answers[-1]) for one in judgements if one.status == "ok"}
    return {
        "n": len(distinct),
        "unreadable": sum(id(answer) not in read for answer in distinct),
        **counts,
        "cost": prices.of(counts) if prices else None,
        "prices_per_million": None if prices is None else [prices.prompt, prices.completion],
    }


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
