"""`coevo score`: from responses to a diagnosis. What a kill interrupts goes on where it was, at most a chunk behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coevo import dist
from coevo.diagnosis.assemble import Floats, Which, diagnose
from coevo.diagnosis.request import (
    REASONINGS,
    REQUEST_FILE,
    Policy,
    Request,
    phase_names,
    phases_of,
    score_stage,
    trained_on,
)
from coevo.diagnosis.result import Diagnosis
from coevo.diagnosis.store import Store
from coevo.diagnosis.vectors import PERMUTATIONS, diverge, embed_all
from coevo.errors import CheckpointError
from coevo.files import content_key, previous, write_atomic, writing
from coevo.lm.likelihood import loses_text
from coevo.lm.lineage import settings_hash
from coevo.lm.loading import local_directory
from coevo.lm.template import date_stamp
from coevo.loop.context import Policies, seed_of
from coevo.loop.estimator import BATCH, reasoner
from coevo.loop.run import start_processes
from coevo.maths.divergence import Divergence
from coevo.maths.stats import bootstrap_mean
from coevo.plan.zero_shot import is_model
from coevo.progress import Progress, Silent
from coevo.prompts import Part, character_text
from coevo.records import Number
from coevo.runs.folder import RunFolder, dump_row, held
from coevo.scoring.claims import shown, sign
from coevo.scoring.evaluate import Measurement, assemble, plan, uses
from coevo.scoring.reasoner import Estimator, ReasonedScorer, Reasoner, Written, scenario_key
from coevo.scoring.scorer import Ask, PromptKey, Scorer
from coevo.scoring.summary import summarise
from coevo.types import Reasoning, Scenario, Score

CHUNK = 512
"""Likelihoods between two writes to disk."""
SCORE_ROW = tuple[Number | None, int, Literal["ok", "too_long", "empty", "reasoning"]]
DIVERGENCE_ROW = tuple[Number, Number, Number, Number]
REASONING_ROW = tuple[str, Literal["ok", "truncated", "empty", "malformed", "too_long"], Number]
"""Values of the caches; a damaged line is named, rather than met in the middle of the work."""
ZERO_SHOT = "zero-shot"
"""In place of the phase that wrote a scorer."""
RESULT_FILE, ROWS_FILE = "result.json", "rows.jsonl"


def score(request: Request, progress: Progress | None = None) -> Path:
    """Scores every model's responses and writes the diagnosis as RESULT_FILE and ROWS_FILE into `request.out`.

    Reasonings, likelihoods, embeddings and divergences are kept there by content hash, so that the same call goes on after
    a kill, and another one (a model more, another k) computes only what is new.

    Returns:
        The folder.

    Raises:
        CoevoError: a run folder, weights or settings that do not fit; what was computed is kept.
    """
    progress = progress or Silent()
    start_processes()
    policies = _policies(request.scorer)
    with held(request.out), writing(request.out, "The same call then goes on where it was."):
        return _score(request, policies, progress)


def _score(request: Request, policies: Policies, progress: Progress) -> Path:
    before = previous(request.out, REQUEST_FILE)
    if before is not None and before != request.to_dict() and (request.out / RESULT_FILE).exists():
        progress.say(f"{request.out} holds the result of another question; what still applies is reused, the rest replaced.")
    if dist.is_main():
        write_atomic(request.out / REQUEST_FILE, json.dumps(request.to_dict(), indent=1, ensure_ascii=False) + "\n")
    with (
        Store(request.out / "cache" / "scores.jsonl", SCORE_ROW) as scores,
        Store(request.out / "cache" / "divergences.jsonl", DIVERGENCE_ROW) as spread,
        Store(request.out / "cache" / "reasonings.jsonl", REASONING_ROW) as written,
    ):
        reasoned = _reason(request, policies, written, progress)
        measured, used = _measure(request, _estimator(request, policies, reasoned), scores, progress)
        embedded = embed_all(request, policies, progress)
        divergences = diverge(request, embedded, spread, progress)
    seed = _seed(request)
    result = diagnose(measured, request.answers.scenarios, divergences, request.recipe.evaluation, seed, used)
    result["references_use"] = {
        z: bootstrap_mean(nats[~np.isnan(nats)], result["resamples"], seed).to_dict() for z, nats in used.items()
    }
    result["notes"] += [
        *unread(result["references_use"], result["scale"]),
        *_notes(request, policies, divergences),
        *_reasoning_notes(request, reasoned),
        *_lost_notes(request, policies),
    ]
    about = {
        "scorer_phase": request.scorer.kind or ZERO_SHOT,
        **_reasoner_facts(request, reasoned),
        **_about(request, policies),
    }
    result = {"asked": request.to_dict(), **about, **result}
    if dist.is_main():
        rows = [{"model": name, **row.to_dict()} for name, found in measured.items() for row in found.rows]
        write_atomic(request.out / ROWS_FILE, "".join(dump_row(row) for row in rows))
        text = Diagnosis(result).to_dict()
        write_atomic(request.out / RESULT_FILE, json.dumps(text, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    dist.barrier()
    return request.out


def _seed(request: Request) -> int:
    """As the run's own evaluation, so that its responses get the same numbers here."""
    return seed_of(request.seed, "evaluation")


def _policies(policy: Policy) -> Policies:
    if is_model(policy.run):
        return Policies(policy.recipe, RunFolder(policy.run), [])
    folder, _ = RunFolder.open(policy.run)
    policies = Policies(policy.recipe, folder, phase_names(policy.run))
    for kind in phases_of(policy):
        if folder.facts(policies.phase_name(kind)) is None:
            raise CheckpointError(f"{policy.run}: phase {kind} has not finished; resume the run first.")
    return policies


# --- reasonings -----------------------------------------------------------------------------------------------------


def _reason(request: Request, policies: Policies, store: Store, progress: Progress) -> Written | None:
    """The reasoning of every scenario; None for a scorer that reads none.

    What the reasoner's run has kept is taken as it stands there, so that its own responses are scored as it scored them.

    Raises:
        CheckpointError: reasoner and scorer are of two bases, or read different prompts.
    """
    if request.reasoner is None:
        return None
    own = _policies(request.reasoner)
    if request.borrowed and own.recipe.reading != policies.recipe.reading:
        raise CheckpointError(
            f"--reasoner {request.reasoner.run}: its prompts are not those of --scorer {request.scorer.run} (`prompts` and "
            "`base.template` in their resolved.yaml), so that the two would read one scenario in different words; give a "
            "reasoner of a run with the scorer's prompts."
        )
    if request.borrowed and own.version(None) != policies.version(None):
        raise CheckpointError(
            f"--reasoner {request.reasoner.run}: its base is {own.version(None)[:12]}, and that of --scorer "
            f"{request.scorer.run} is {policies.version(None)[:12]}; expected one base; give a reasoner that was trained on "
            "the scorer's."
        )
    assert request.reasoner.kind is not None, "a reasoner is always trained"
    name, limits = own.phase_name(request.reasoner.kind), own.recipe.limits
    version = own.version(name)
    by_content = {scenario_key(x): x for x in request.answers.scenarios}
    heat = own.recipe.corl.temperature if own.recipe.corl else 0.0
    keys = {key: content_key(version, own.sections, limits.prompt, limits.reasoning, heat, key) for key in by_content}
    progress.phase(REASONINGS, len(keys))
    writer: Reasoner | None = None
    contents = list(keys)
    for start in range(0, len(contents), BATCH):
        chunk = contents[start : start + BATCH]
        missing = [key for key in chunk if keys[key] not in store]
        if missing:
            writer = writer or reasoner(own, name)
            found = dist.share_out(writer.reason, [by_content[key] for key in missing])
            store.add({keys[key]: list(astuple(one)) for key, one in zip(missing, found, strict=True)})
        progress.advance(len(chunk))
    progress.done(REASONINGS)
    return Written(version, {key: Reasoning(*store[keys[key]]) for key in contents})


def _estimator(request: Request, policies: Policies, reasoned: Written | None) -> Estimator:
    kind = request.scorer.kind
    scorer = policies.scorer(policies.phase_name(kind)) if kind else policies.zero_shot()
    return scorer if reasoned is None else ReasonedScorer(scorer, reasoned)


# --- likelihoods ----------------------------------------------------------------------------------------------------


def _measure(
    request: Request, estimator: Estimator, store: Store, progress: Progress
) -> tuple[dict[str, Measurement], dict[Part, Floats]]:
    """Every model under one design, and the references' use of each component; they are scored once, with the first."""
    config, seed, scenarios = request.recipe.evaluation, _seed(request), request.answers.scenarios
    cache: dict[str, Any] = {}
    measured, used = {}, {}
    for model, responses in request.answers.by_model.items():
        planned = plan(estimator.version, scenarios, responses, config, seed, cache)
        found = _asked(estimator, planned.asks, store, progress, score_stage(model))
        rows = assemble(planned, found, cache)
        measured[model] = Measurement(rows, summarise(rows, config, seed, model=model, scorer=estimator.version))
        used = uses(planned, cache)
    return measured, {z: nats for z, nats in used.items() if not np.isnan(nats).all()}


def _asked(estimator: Estimator, asks: Sequence[Ask], store: Store, progress: Progress, stage: str) -> list[Score]:
    if isinstance(estimator, ReasonedScorer):
        scorer = estimator.scorer
        return estimator.score_by(lambda shown: _scores(scorer, shown, store, progress, stage), asks)
    return _scores(estimator, asks, store, progress, stage)


def _scores(scorer: Scorer, asks: Sequence[Ask], store: Store, progress: Progress, stage: str) -> list[Score]:
    """Likelihoods in the order asked, in chunks that are on disk before the next one begins.

    What shares a context goes into one chunk, as its prefix is then computed once. The chunks are cut from all questions,
    whatever the store has of them: a run that was killed meets the same batches again, and so the same roundings.
    """
    keys = _keys(scorer, asks)
    contexts: dict[PromptKey, dict[str, Ask]] = {}
    for key, ask in zip(keys, asks, strict=True):
        contexts.setdefault(ask.context, {})[key] = ask
    questions = [question for members in contexts.values() for question in members.items()]
    progress.phase(stage, len(questions))
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        missing = [(key, ask) for key, ask in chunk if key not in store]
        # every process has the same store, so they agree on what is missing
        found = dist.share_out(scorer.score, [ask for _, ask in missing])
        store.add({key: _packed(one) for (key, _), one in zip(missing, found, strict=True)})
        progress.advance(len(chunk))
    progress.done(stage)
    return [_unpacked(store[key]) for key in keys]


def _keys(scorer: Scorer, asks: Sequence[Ask]) -> list[str]:
    """Content keys: of scorer, limit and everything that an ask shows; the same for asks that are one question."""
    known: dict[int, str] = {}
    keys = []
    for ask in asks:
        place, dropped, reasoning = ask.context
        if place not in known:
            known[place] = content_key(_plain_scenario(ask.scenario))
        shown = [known[place], ask.text, sorted(dropped), reasoning]
        keys.append(content_key(scorer.version, scorer.role, scorer.max_length, shown))
    return keys


def _plain_scenario(x: Scenario) -> list[Any]:
    return [x.persona, character_text(x.character), [(turn.role, turn.text) for turn in x.dialogue]]


def _packed(found: Score) -> list[Any]:
    return [found.logprob_nats if found.status == "ok" else None, found.n_tokens, found.status]


def _unpacked(row: Sequence[Any]) -> Score:
    nats, n_tokens, status = row
    return Score(float("nan") if nats is None else nats, n_tokens, status)


# --- what the reader must know --------------------------------------------------------------------------------------


def _about(request: Request, policies: Policies) -> dict[str, Any]:
    limits = policies.recipe.limits
    return {
        "base": policies.base_hash,
        "base_settings": settings_hash(local_directory(policies.base)),
        "embedder": f"mean-pooled last hidden states of the base, pieces of {limits.prompt + limits.response} tokens",
        "permutations": PERMUTATIONS,
        **date_stamp(policies.tokenizer),
    }


def _reasoner_facts(request: Request, reasoned: Written | None) -> dict[str, Any]:
    if request.reasoner is None or reasoned is None:
        return {}
    run, kind = str(request.reasoner.run), request.reasoner.kind
    return {"reasoner": {"run": run, "phase": kind, "version": reasoned.version, "reasonings": _statuses(request, reasoned)}}


def _statuses(request: Request, reasoned: Written) -> dict[str, int]:
    """How many scenarios have a reasoning of each status."""
    return dict(sorted(Counter(one.status for one in reasoned.reason(request.answers.scenarios)).items()))


def _reasoning_notes(request: Request, reasoned: Written | None) -> list[str]:
    if request.reasoner is None or reasoned is None:
        return []
    statuses = _statuses(request, reasoned)
    broken = {status: n for status, n in statuses.items() if status != "ok"}
    notes = []
    if broken:
        notes.append(
            f"{sum(broken.values())} of {len(request.answers.scenarios)} scenarios have no whole reasoning "
            f"({', '.join(f'{status} {n}' for status, n in broken.items())}): responses to them have the status "
            "reasoning and no number, and they are not used as negatives."
        )
    if request.borrowed:
        notes.append(
            f"The reasonings are by {request.reasoner.run}, {request.reasoner.kind}, and the scorer was trained on another "
            "reasoner's: its likelihoods are as good as the two agree in what a reasoning looks like."
        )
    return notes


def _lost_notes(request: Request, policies: Policies) -> list[str]:
    lost = loses_text(policies.tokenizer, [x.reference for x in request.answers.scenarios])
    return [lost[0].upper() + lost[1:]] if lost else []


def unread(used: Mapping[Part, Mapping[str, float]], scale: str) -> list[str]:
    """Components of which even the references use nothing that shows: there is nothing that a model could lose."""
    words = {"u": "persona", "c": "character", "d": "dialogue"}
    unread = [f"{words[z]} (R-EMI_{z}): {shown(record, scale)}" for z, record in used.items() if sign(record, scale) <= 0]
    if not unread:
        return []
    return [
        "By this scorer it does not show, beyond noise, that even the references use a component, so nor can it show what a "
        f"model loses in it: {'; '.join(unread)} nats a response. Either the references do not need it, or the scorer does "
        "not read it: then train one on data like these, or on a base that has read more."
    ]


def _notes(request: Request, policies: Policies, divergences: Mapping[Which, Divergence]) -> list[str]:
    recipe, notes = request.recipe, request.answers.notes()
    taught, sizes = trained_on(request), Counter(x.split for x in request.answers.scenarios)
    if taught.by_split:
        known = ", ".join(f"{n} of {sizes[split]} scenarios of {split}" for split, n in taught.by_split.items())
        notes.append(
            f"The scorer was trained on {known}, under these names or others: it knows those references, so responses look "
            "worse than they are. Do not compare those splits with others."
        )
    notes += [f"Whether the scorer was trained on these scenarios cannot be told: {reason}" for reason in taught.unreadable]
    if request.scorer.kind is None:
        notes.append(
            f"The scorer is {recipe.scorer.base or policies.base} as it is. What it has read before is not known: texts "
            "that it has met are likelier to it than others as good. It was never taught to read a context with a part "
            "missing, so the components u, c, d and the learned marginal are those of an untuned reader."
        )
    elif not recipe.scorer_sft.context_dropout:
        notes.append(
            "The scorer was trained without context dropout (scorer_sft.context_dropout=0): it has never read a context "
            "with a part missing, so the components u, c, d and the learned marginal are guesses."
        )
    if recipe.evaluation.estimator == "released":
        notes.append("Estimator released: for comparison with the paper's figures only; see docs/score.md.")
    if not divergences:
        notes.append("No divergence could be computed.")
    return notes
