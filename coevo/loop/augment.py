"""Copies of ID samples for augmented SFT: the same in other words, from another user, or in another language.

The world writes its own, with references from the exact law. A file's are written by a model that the recipe names, one text
at a time: what it leaves blank, cuts short or gives back unchanged makes no copy, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from coevo import dist
from coevo.config.methods import AugmentedSFT
from coevo.data import world
from coevo.errors import DataError
from coevo.lm.generation import generate
from coevo.lm.likelihood import encode_prompt, render
from coevo.loop.context import Context, seed_of
from coevo.plan.plan import PhasePlan
from coevo.prompts import Prompts
from coevo.text import blank, normalised
from coevo.types import Scenario, Turn

AT_ONCE = 64
"""Copies written between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is to be made."""

    parent: Scenario
    way: str
    """paraphrase, persona or translation."""
    language: str
    """English name of the language that a translation is into; empty for the other ways."""
    persona: str
    """Who the user then is; empty where it stays."""
    sample_id: str


def planned(samples: Sequence[Scenario], config: AugmentedSFT, seed: int) -> list[Copy]:
    """The copies of each sample, ways and languages in turn over all of them, users drawn from the other samples.

    Raises:
        DataError: another user is wanted, and all samples have the same.
    """
    personas = sorted({x.persona for x in samples})
    if "persona" in config.ways and len(personas) < 2:
        raise DataError(
            f"all {len(samples)} samples have one persona, so no copy can have another; leave `persona` out of method.ways."
        )
    copies: list[Copy] = []
    translated = 0
    for x in samples:
        for k in range(config.copies):
            # a sample with fewer copies than there are ways begins where the one before it ended
            way = config.ways[len(copies) % len(config.ways)]
            language = persona = ""
            if way == "translation":
                language = config.languages[translated % len(config.languages)]
                translated += 1
            elif way == "persona":
                rng = Random(seed_of(seed, x.sample_id, k))
                persona = rng.choice([other for other in personas if other != x.persona])
            copies.append(Copy(x, way, language, persona, f"{x.sample_id}/{way}-{k}"))
    return copies


def write_copies(context: Context, phase: PhasePlan, samples: Sequence[Scenario]) -> tuple[list[Scenario], dict[str, Any]]:
    """Makes the copies of the samples; all processes call it.

    Returns:
        The copies that came out well, and counts: how many were planned, how many are kept, why the others are not.

    Raises:
        DataError: none came out well.
    """
    config = context.recipe.method
    assert isinstance(config, AugmentedSFT)
    seed = seed_of(context.recipe.seed, phase.name)
    wanted = planned(samples, config, seed)
    if config.model is None:
        made: list[Scenario | str] = [of_world(copy, Random(seed_of(seed, copy.sample_id))) for copy in wanted]
        context.progress.advance(len(samples))
    else:
        made = _by_model(context, config, wanted, seed)
    kept = [x for x in made if isinstance(x, Scenario)]
    reasons = Counter(reason for reason in made if isinstance(reason, str))
    if not kept:
        raise DataError(
            f"phase {phase.name}: none of {len(wanted)} copies came out well ({dict(reasons)}); "
            f"method.model={config.model} cannot do this. Name a larger model that was tuned to follow instructions."
        )
    if reasons:
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        context.progress.say(f"{phase.name}: of {len(wanted)} copies {len(kept)} are kept; left out: {listed}")
    return kept, {"planned": len(wanted), "kept": len(kept), "left_out": dict(sorted(reasons.items()))}


def of_world(copy: Copy, rng: Random) -> Scenario:
    """A copy of a scenario of the world, with a reference from the exact law."""
    if copy.way == "paraphrase":
        made = world.paraphrase(copy.parent, rng)
    elif copy.way == "persona":
        made = world.swap_persona(copy.parent, rng)
    else:
        made = world.shift(copy.parent, copy.language.lower(), rng)
    return replace(made, sample_id=copy.sample_id)


# --- by a model -------------------------------------------------------------------------------------------------------


def requests(copy: Copy) -> list[tuple[str, str]]:
    """The (speaker, text) pairs that a model has to write anew, in order; the last one is the reference.

    A translation is of the whole dialogue and leaves persona and card as they are; another user, or other words, change
    the last exchange alone.
    """
    x = copy.parent
    turns = x.dialogue if copy.way == "translation" else x.dialogue[-1:]
    return [*((turn.role, turn.text) for turn in turns), ("agent", x.reference)]


def assemble(copy: Copy, texts: Sequence[str]) -> Scenario | str:
    """The copy from its new texts, in the order of `requests`; or why there is none."""
    asked = requests(copy)
    if any(map(blank, texts)):
        return "incomplete"
    written = [normalised(text) for text in texts]
    if written == [text for _, text in asked]:
        return "unchanged"
    *said, reference = written
    x = copy.parent
    kept = x.dialogue[: len(x.dialogue) - len(said)]
    new = [Turn(turn.role, text) for turn, text in zip(x.dialogue[len(kept) :], said, strict=True)]
    return replace(
        x,
        sample_id=copy.sample_id,
        persona=copy.persona or x.persona,
        dialogue=(*kept, *new),
        reference=reference,
        parent=x.sample_id,
        # the file's own reasoning is about the parent
        thought="",
    )


def _by_model(context: Context, config: AugmentedSFT, wanted: Sequence[Copy], seed: int) -> list[Scenario | str]:
    assert config.model is not None
    model, tokenizer = context.load_other(config.model)
    limits = context.recipe.limits
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = 2 * max(limits.response, limits.turn)

    def work(share: Sequence[Copy]) -> list[Scenario | str]:
        asked = [_messages(context.prompts, copy) for copy in share]
        prompts = [[encode_prompt(tokenizer, render(tokenizer, one)) for one in each] for each in asked]
        fits = [not window or max(map(len, each)) + most <= window for each in prompts]
        flat = [(place, k) for place, each in enumerate(prompts) if fits[place] for k in range(len(each))]
        written = generate(
            model,
            tokenizer,
            [prompts[place][k] for place, k in flat],
            max_new_tokens=most,
            temperature=config.temperature,
            seeds=[seed_of(seed, share[place].sample_id, k) for place, k in flat],
        )
        texts: list[list[str]] = [[] for _ in share]
        for (place, _), result in zip(flat, written, strict=True):
            texts[place].append(result.text if result.status == "ok" else "")
        return [assemble(copy, texts[place]) if fits[place] else "too long" for place, copy in enumerate(share)]

    made: list[Scenario | str] = []
    samples = max(1, AT_ONCE // config.copies)
    for start in range(0, len(wanted), samples * config.copies):
        part = wanted[start : start + samples * config.copies]
        made += dist.share_out(work, part)
        context.progress.advance(len(part) // config.copies)
    return made


def _messages(prompts: Prompts, copy: Copy) -> list[list[dict[str, str]]]:
    about = {"persona": copy.persona, "language": copy.language}
    return [prompts.rewrite_messages(copy.way, text, speaker=speaker, **about) for speaker, text in requests(copy)]
