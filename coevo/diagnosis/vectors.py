"""What a diagnosis makes of texts alone: vectors by the base, and divergences of them, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coevo import dist
from coevo.diagnosis.assemble import Embedded, Floats, Which, comparisons
from coevo.diagnosis.request import (
    Request,
)
from coevo.diagnosis.store import Store, load_array, save_array
from coevo.files import content_key
from coevo.lm.contexts import release_memory
from coevo.lm.embedding import embed
from coevo.loop.context import Policies
from coevo.maths.divergence import Divergence, representation_jsd
from coevo.progress import Progress
from coevo.prompts import character_text
from coevo.types import COMPONENTS, Response

TEXTS = 256
"""Embeddings between two writes to disk."""
PERMUTATIONS = 200


def embed_all(request: Request, policies: Policies, progress: Progress) -> Embedded:
    """Vectors of every text by the base without adapters, each distinct text once."""
    scenarios, by_model = request.answers.scenarios, request.answers.by_model
    columns: dict[tuple[str, str], list[str]] = {
        ("context", "u"): [x.persona for x in scenarios],
        ("context", "c"): [character_text(x.character) for x in scenarios],
        ("context", "d"): ["\n".join(turn.text for turn in x.dialogue) for x in scenarios],
        ("reference", ""): [x.reference for x in scenarios],
    }
    columns |= {("response", model): [_said(response) for response in responses] for model, responses in by_model.items()}
    # what the scorer held, before the base is loaded beside it
    release_memory()
    model = policies.load(None, trainable=False)
    progress.phase("embeddings", sum(len(set(texts)) for texts in columns.values()))
    base = policies.version(None)
    folder = request.out / "cache" / "embeddings"
    vectors = {key: _vectors(texts, model, policies, base, folder, progress) for key, texts in columns.items()}
    progress.done("embeddings")
    return Embedded(
        {z: vectors["context", z] for z in COMPONENTS},
        vectors["reference", ""],
        {name: vectors["response", name] for name in by_model},
    )


def _said(response: Response) -> str:
    return response.text if response.status == "ok" else ""


def _vectors(texts: Sequence[str], model: Any, policies: Policies, base: str, folder: Path, progress: Progress) -> Floats:
    """One vector a text, NaN for an empty one; from disk where a chunk of the same texts is there."""
    limits = policies.recipe.limits
    window = limits.prompt + limits.response
    distinct = [text for text in dict.fromkeys(texts) if text]
    parts = []
    for start in range(0, len(distinct), TEXTS):
        chunk = distinct[start : start + TEXTS]
        path = folder / f"{content_key(base, window, chunk)}.npy"
        known: Any = load_array(path, progress.say) if dist.is_main() else None
        # the main process alone reads, so that all agree on what is there
        if not dist.gather([known is not None])[0]:
            share = dist.share_out(
                lambda some: list(
                    embed(model, policies.tokenizer, some, window=window, tokens_per_batch=limits.tokens_per_batch)
                ),
                chunk,
            )
            known = np.array(share)
            if dist.is_main():
                save_array(path, known)
        parts.append(dist.gather([known])[0])
        progress.advance(len(chunk))
    found = dict(zip(distinct, np.concatenate(parts), strict=True)) if parts else {}
    absent = np.full(model.config.get_text_config().hidden_size, np.nan, dtype=np.float32)
    return np.stack([found.get(text, absent) for text in texts]).astype(np.float64)


def diverge(request: Request, embedded: Embedded, store: Store, progress: Progress) -> dict[Which, Divergence]:
    """Every divergence of the diagnosis, each kept by the content of its two samples."""
    tags = [x.subset_tag for x in request.answers.scenarios]
    todo = list(comparisons(tags, embedded, request.seed))
    progress.phase("divergences", len(todo))
    found = {}
    for which, x, y in todo:
        contents = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in (x, y)]
        key = content_key("jsd", contents, PERMUTATIONS, request.seed)
        if key not in store:
            made = representation_jsd(x, y, permutations=PERMUTATIONS, seed=request.seed)
            store.add({key: [made.raw, made.null_mean, made.null_high, made.p_value]})
        found[which] = Divergence(*store[key])
        progress.advance()
    progress.done("divergences")
    return found
