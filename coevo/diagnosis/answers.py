"""A file of responses, as `coevo score` and `coevo judge` read it: written once it is whole, and resumed until then."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from coevo.config.access import Address
from coevo.diagnosis.generate import Sampling
from coevo.errors import ConfigError, EndpointError
from coevo.files import Journal, content_key, write_atomic
from coevo.judge.endpoint import Endpoint
from coevo.judge.session import Answer, Failure
from coevo.prompts import Prompts
from coevo.scoring.thinking import split
from coevo.text import blank, normalised
from coevo.types import Response, Scenario

AT_ONCE = 32
"""Scenarios between two writes to disk."""
Kept = Callable[[Mapping[int, Response]], None]
"""Takes responses by the scenario's place as they come."""


class Writer(Protocol):
    """Who answers."""

    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that an answer depends on, beside the scenario and its place."""

    def write(self, scenarios: Mapping[int, Scenario], keep: Kept) -> None:
        """Answers scenarios by place."""


class Local:
    """A `Responder` as a writer."""

    def __init__(self, responder: Any) -> None:
        """Takes one that is prepared."""
        self._responder, self.name = responder, responder.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of its weights, prompts and sampling."""
        found: Mapping[str, Any] = self._responder.identity
        return found

    def write(self, scenarios: Mapping[int, Scenario], keep: Kept) -> None:
        """In parts, each kept when it is done."""
        places = list(scenarios)
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE]
            keep(dict(zip(part, self._responder.answer([scenarios[place] for place in part], part), strict=True)))


class Remote:
    """A model behind an OpenAI-compatible endpoint as a writer."""

    def __init__(self, address: Address, key: str | None, prompts: Prompts, name: str | None = None) -> None:
        """Takes the address with model and sampling, the key, and the prompts that it is asked with."""
        self._endpoint, self._prompts = Endpoint(address, key), prompts
        self.name = name or address.model.rpartition("/")[2]

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of model, sampling and prompts; the address is no part of it."""
        return {**self._endpoint.identity, "prompts": self._prompts.stamp}

    def write(self, scenarios: Mapping[int, Scenario], keep: Kept) -> None:
        """Several at a time, each kept when it is there.

        Raises:
            EndpointError: it is out of reach or refuses us, or it gave up on some; what was kept stays.
        """
        failed: list[str] = []

        def take(key: str, found: Answer | Failure) -> None:
            place = int(key)
            if isinstance(found, Answer):
                keep({place: self._response(scenarios[place], found)})
            else:
                failed.append(f"{scenarios[place].sample_id}: {found.reason}")

        asks = {str(place): self._prompts.messages("rpm", x) for place, x in scenarios.items()}
        self._endpoint.answer(asks, take)
        if failed:
            raise EndpointError(f"{len(failed)} scenarios have no response ({failed[0]}); the same call asks again.")

    def _response(self, x: Scenario, answer: Answer) -> Response:
        status = "truncated" if answer.finish == "length" else "empty" if blank(answer.text) else "ok"
        shown = split(answer.text, (), status)  # without the thought
        return Response(x.sample_id, normalised(shown.response), self.name, shown.status)


def write_answers(
    writer: Writer,
    scenarios: Sequence[Scenario],
    out: Path,
    settings: Mapping[str, Any],
    progress: Callable[[int], None] = lambda _: None,
) -> Counter[str]:
    """Has all scenarios answered and writes the file.

    Until it is whole, what has come is in a journal beside it, and the same call goes on from there. The journal knows
    model, sampling, prompts and scenario, so another call takes nothing of it.

    Args:
        writer: who answers.
        scenarios: in the order of the file.
        out: a new file of JSON Lines.
        settings: written into every line: with what the response was drawn.
        progress: told how many more are done.

    Returns:
        How many responses by status.

    Raises:
        ConfigError: the file is there, or another process writes it.
        EndpointError: of an endpoint.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; expected a new file. Choose another name, or delete it first.")
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written there ({error.strerror}); choose another place with --out.") from None
    keys = [content_key("response", dict(writer.identity), place, _content(x)) for place, x in enumerate(scenarios)]
    with Journal(part, shape=tuple[str, str]) as journal:
        todo = {place: x for place, (x, key) in enumerate(zip(scenarios, keys, strict=True)) if key not in journal}
        progress(len(scenarios) - len(todo))

        def keep(found: Mapping[int, Response]) -> None:
            journal.add({keys[place]: [response.text, response.status] for place, response in found.items()})
            progress(len(found))

        writer.write(todo, keep)
        rows = [(x, *journal[key]) for x, key in zip(scenarios, keys, strict=True)]
        write_atomic(out, "".join(_line(writer.name, settings, *row) for row in rows))
        part.unlink()
    return Counter(status for _, _, status in rows)


def _content(x: Scenario) -> dict[str, Any]:
    """What a model is shown of a scenario."""
    found = asdict(x)
    return {name: found[name] for name in ("sample_id", "persona", "character", "dialogue")}


def _line(name: str, settings: Mapping[str, Any], x: Scenario, text: str, status: str) -> str:
    # an empty response is one whose text is empty
    told = status if status == "truncated" else "ok"
    row = {"sample_ID": x.sample_id, "response": text, "model": name, "status": told, "settings": dict(settings)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def parameters(sampling: Sampling) -> dict[str, Any]:
    """Fields of a request to an endpoint."""
    return {"temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens, "seed": sampling.seed}
