"""A diagnosis in memory, as `coevo score` makes it in a folder: for notebooks and for other people's programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from coevo.config import Evaluation
from coevo.config.load import plain_message, plain_place
from coevo.data.jsonstream import has_surrogate
from coevo.data.responses import match
from coevo.diagnosis.assemble import Embedded, Which, comparisons
from coevo.diagnosis.assemble import diagnose as diagnosis_of
from coevo.diagnosis.result import Diagnosis
from coevo.diagnosis.run import unread
from coevo.diagnosis.vectors import PERMUTATIONS
from coevo.errors import ConfigError, DataError
from coevo.lm.embedding import Embedder
from coevo.loop.context import seed_of
from coevo.maths.divergence import Divergence, representation_jsd
from coevo.maths.stats import Floats, bootstrap_mean
from coevo.prompts import Part, character_text
from coevo.scoring.evaluate import Measurement, assemble, plan, uses
from coevo.scoring.given import asked, given_scenarios, given_scorer
from coevo.scoring.readings import ASKS_PER_CALL
from coevo.scoring.reasoner import Estimator, ReasonedScorer
from coevo.scoring.scorer import Scores
from coevo.scoring.summary import summarise
from coevo.text import blank, normalised
from coevo.types import COMPONENTS, Response, Scenario, Score

EXPECTED = "texts in the scenarios' order, or sample_id -> text, or coevo.Response objects, or a file of responses"
Answers = str | Path | Sequence[str] | Sequence[Response] | Mapping[str, str] | Mapping[str, Sequence[Response]]


def diagnose(
    scorer: Estimator | Scores,
    scenarios: Sequence[Scenario],
    responses: Answers,
    *,
    divergences: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **evaluation: Any,
) -> Diagnosis:
    """Says what a model loses under which shift, from its responses. The numbers are those of `coevo score`.

    Args:
        scorer: of `load_scorer`.
        scenarios: with references; of ID and of every shift that is to be compared with it.
        responses: a file of responses, as `coevo score --responses` takes it; or texts in the scenarios' order; or
            sample_id -> text; or `Response`s; or model -> `Response`s. A scenario without one is counted as missing.
        divergences: also the divergences of texts and the risk index B2, for which the scorer's base is loaded once more.
        seed: of design and bootstrap, as `--seed`.
        progress: told how many likelihoods are done, of how many.
        **evaluation: `estimator`, `negatives`, `k` and `resamples`, as keys of `evaluation` in a recipe.

    Raises:
        DataError: responses that do not fit the scenarios.
        ConfigError: an evaluation that cannot be, or divergences asked of a scorer without a base.
    """
    config = _evaluation(evaluation)
    scorer, scenarios = given_scorer("diagnose", scorer), given_scenarios("diagnose", scenarios)
    by_model, scenarios = _answers(responses, scenarios)
    drawn = seed_of(seed, "evaluation")
    measured, used = _measured(scorer, scenarios, by_model, config, drawn, progress)
    spread = _divergences(scorer, scenarios, by_model, seed) if divergences else {}
    record = diagnosis_of(measured, scenarios, spread, config, drawn, used)
    record["references_use"] = {
        z: bootstrap_mean(nats[~np.isnan(nats)], config.resamples, drawn).to_dict() for z, nats in used.items()
    }
    record["notes"] += unread(record["references_use"], record["scale"])
    return Diagnosis(record)


def _evaluation(keys: Mapping[str, Any]) -> Evaluation:
    try:
        return Evaluation(**keys)
    except ValidationError as error:
        found = [f"{plain_place(problem['loc'])}: {plain_message(problem)}" for problem in error.errors()]
        known = ", ".join(Evaluation.model_fields)
        raise ConfigError(f"diagnose: {'; '.join(found)}. Keys of an evaluation: {known}.") from None


def _answers(responses: Answers, scenarios: Sequence[Scenario]) -> tuple[dict[str, list[Response]], list[Scenario]]:
    """By model one response a scenario, in order, and the scenarios: of a file, those of splits with any response."""
    if isinstance(responses, str | Path):
        path = Path(responses)
        found = match("the scenarios", list(dict.fromkeys(x.split for x in scenarios)), scenarios, [path])
        return found.by_model, found.scenarios
    if responses is None or isinstance(responses, bytes) or not isinstance(responses, Iterable):
        raise DataError(f"diagnose: responses is a {type(responses).__name__}; expected {EXPECTED}.")
    if isinstance(responses, Mapping):
        for name, value in responses.items():
            if isinstance(value, Mapping) or not isinstance(value, Iterable):
                raise DataError(f"diagnose: responses[{name!r}] is a {type(value).__name__}; expected {EXPECTED}.")
        if any(isinstance(value, str) for value in responses.values()):
            return {"model": _in_order(_of_texts(responses), scenarios, "model")}, list(scenarios)  # type: ignore[arg-type]
        return {name: _in_order(list(rows), scenarios, name) for name, rows in responses.items()}, list(scenarios)  # type: ignore[arg-type]
    responses = list(responses)  # type: ignore[assignment]
    if not responses:
        raise DataError(f"diagnose: there is no response; expected {EXPECTED}.")
    if all(isinstance(one, Response) for one in responses):
        return _in_models(responses, scenarios), list(scenarios)  # type: ignore[arg-type]
    if len(responses) != len(scenarios):
        raise DataError(f"diagnose: {len(responses)} responses to {len(scenarios)} scenarios; expected one each, in order.")
    told = {x.sample_id: text for x, text in zip(scenarios, responses, strict=True)}
    return {"model": _in_order(_of_texts(told), scenarios, "model")}, list(scenarios)  # type: ignore[arg-type]


def _of_texts(texts: Mapping[str, str]) -> list[Response]:
    wrong = next(((name, text) for name, text in texts.items() if not isinstance(text, str)), None)
    if wrong:
        raise DataError(f"diagnose: the response to {wrong[0]!r} is {wrong[1]!r:.60}; expected a text.")
    return [Response(name, normalised(text), "model", "empty" if blank(text) else "ok") for name, text in texts.items()]


def _in_models(responses: Sequence[Response], scenarios: Sequence[Scenario]) -> dict[str, list[Response]]:
    by_model: dict[str, list[Response]] = {}
    for response in responses:
        by_model.setdefault(response.model, []).append(response)
    return {name: _in_order(rows, scenarios, name) for name, rows in by_model.items()}


def _read(response: Response) -> Response:
    """As a file's response is read: without white space at its ends, and empty where nothing else is left."""
    if not isinstance(response, Response) or not isinstance(response.text, str):
        raise DataError(f"diagnose: a response is {response!r:.60}; expected {EXPECTED}.")
    if has_surrogate(response.text):
        raise DataError(
            f"diagnose: the response to {response.sample_id!r} holds half of a surrogate pair, which UTF-8 cannot hold; "
            "remove it."
        )
    text = normalised(response.text)
    status = "empty" if response.status == "ok" and blank(text) else response.status
    return replace(response, text=text, status=status)


def _in_order(responses: Sequence[Response], scenarios: Sequence[Scenario], model: str) -> list[Response]:
    read = [_read(response) for response in responses]
    by_id = {response.sample_id: response for response in read}
    unknown = sorted(by_id.keys() - {x.sample_id for x in scenarios})
    if unknown or len(by_id) < len(responses):
        why = f"no scenario is called {unknown[0]!r}" if unknown else "two responses to one scenario"
        raise DataError(f"diagnose: responses of {model}: {why}; expected one response a scenario, by sample_id.")
    return [by_id.get(x.sample_id) or Response(x.sample_id, "", model, "missing") for x in scenarios]


def _measured(
    scorer: Scores,
    scenarios: Sequence[Scenario],
    by_model: Mapping[str, Sequence[Response]],
    config: Evaluation,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Measurement], dict[Part, Floats]]:
    cache: dict[str, Any] = {}
    measured, used = {}, {}
    for model, responses in by_model.items():
        planned = plan(scorer.version, scenarios, responses, config, seed, cache)
        order = planned.by_context()
        found: dict[int, Score] = {}
        for start in range(0, len(order), ASKS_PER_CALL):
            places = order[start : start + ASKS_PER_CALL]
            found |= zip(places, asked(scorer, [planned.asks[place] for place in places]), strict=True)
            if progress:
                progress(len(found), len(order))
        rows = assemble(planned, [found[place] for place in range(len(order))], cache)
        measured[model] = Measurement(rows, summarise(rows, config, seed, model=model, scorer=scorer.version))
        used = uses(planned, cache)
    return measured, {z: nats for z, nats in used.items() if not np.isnan(nats).all()}


def _divergences(
    scorer: Estimator | Scores, scenarios: Sequence[Scenario], by_model: Mapping[str, Sequence[Response]], seed: int
) -> dict[Which, Divergence]:
    inner = scorer.scorer if isinstance(scorer, ReasonedScorer) else scorer
    embedder: Embedder | None = getattr(inner, "embedder", None)
    if embedder is None:
        raise ConfigError(
            "diagnose: this scorer names no base, by which the divergences are made; give one of load_scorer, or "
            "divergences=False."
        )
    columns = {
        "u": [x.persona for x in scenarios],
        "c": [character_text(x.character) for x in scenarios],
        "d": ["\n".join(turn.text for turn in x.dialogue) for x in scenarios],
        "reference": [x.reference for x in scenarios],
    }
    said = {name: [r.text if r.status == "ok" else "" for r in rows] for name, rows in by_model.items()}
    every = [text for texts in (*columns.values(), *said.values()) for text in texts]
    distinct = [text for text in dict.fromkeys(every) if text]
    vectors = dict(zip(distinct, embedder.embed(distinct).astype(np.float64), strict=True))
    absent = np.full(len(next(iter(vectors.values()))), np.nan)

    def rows(texts: Sequence[str]) -> Floats:
        return np.stack([vectors.get(text, absent) for text in texts])

    embedded = Embedded(
        {z: rows(columns[z]) for z in COMPONENTS}, rows(columns["reference"]), {name: rows(said[name]) for name in said}
    )
    return {
        which: representation_jsd(x, y, permutations=PERMUTATIONS, seed=seed)
        for which, x, y in comparisons([x.subset_tag for x in scenarios], embedded, seed)
    }
