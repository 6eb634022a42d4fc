"""Making scenarios: splits, counterfactual shifts, and exact references for queries that a policy wrote."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coevo.data.world.attributes import (
    Attributes,
    Persona,
    QueryAttributes,
    Unreadable,
    check_query,
    join_query,
    parse_character,
    parse_persona,
    parse_query,
    parse_scenario,
)
from coevo.data.world.density import EPSILON, sample_reference
from coevo.data.world.lexicon import (
    ATTRIBUTE_VALUES,
    CALLINGS,
    CHARACTERS,
    FICTION_CRAFTS,
    KINDS,
    LANGUAGE_OF_TAG,
    LEXICA,
    MANNERS,
    MOODS,
    REAL_CRAFTS,
    REAL_KIND,
    TOPICS,
    Character,
    Pool,
)
from coevo.errors import DataError
from coevo.types import SHIFT_OF_TAG, Scenario, Turn

TURN_TAG = "TurnLevelComposition"
WORD_TAG = "WordLevelComposition"
ID_EXCHANGES = 3
"""Exchanges of small talk before the final query: with it, the paper's 4 turns."""
TURN_EXCHANGES = 7
"""The same under TurnLevelComposition: 8 turns."""

SPLITS: dict[str, tuple[str, ...]] = {
    "IDTrain": ("IDTrain",),
    "IDTest": ("IDTest",),
    "OOD1Test": tuple(LANGUAGE_OF_TAG),
    "OOD2Test": KINDS,
    "OOD3Test": (TURN_TAG, WORD_TAG),
    "ShiftTrain": ("IDTrain", *SHIFT_OF_TAG),
}
"""split -> its subset tags. ShiftTrain has ID and all eleven shifts from the train pools, for scorer and simulator."""
POOL_OF_SPLIT: dict[str, Pool] = {split: "train" if split.endswith("Train") else "test" for split in SPLITS}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A scenario before it is put into words."""

    persona: Persona
    character: Character
    query: QueryAttributes
    history: tuple[int, ...]
    """Indices into the lexicon's small talk."""
    tag: str


def support(tag: str) -> dict[str, tuple[str, ...]]:
    """Return attribute -> its values in a subset; the attributes are independent and uniform over them.

    So p(attributes) within a subset is 1 over the product of the six lengths, and exact sums need no sampling.
    """
    return {
        **ATTRIBUTE_VALUES,
        "language": (LANGUAGE_OF_TAG.get(tag, "en"),),
        "craft": FICTION_CRAFTS if tag in KINDS else REAL_CRAFTS,
    }


def generate(split: str, n: int, seed: int, noise: float = EPSILON) -> list[Scenario]:
    """Make n scenarios of a split, evenly over its tags.

    The first k of n are the same for every n, on every machine: scenario i has a generator of its own, seeded by split,
    seed and i. Names, cities and characters come from the split's pool; train and test pools share none.

    Args:
        split: a key of SPLITS.
        n: how many.
        seed: any integer.
        noise: share of each reply slot that is drawn from the whole inventory; EPSILON gives the exact density.

    Raises:
        DataError: unknown split, negative n, or noise outside [0, 1].
    """
    if split not in SPLITS:
        raise DataError(_unknown("split", split, SPLITS))
    if n < 0 or not 0.0 <= noise <= 1.0:
        raise DataError(f"world.generate: n is {n}, noise {noise}; expected n >= 0 and noise in [0, 1]")
    scenarios = []
    for i in range(n):
        rng = random.Random(f"coevo world/{split}/{seed}/{i}")
        tag = SPLITS[split][i % len(SPLITS[split])]
        draft = _draw(tag, POOL_OF_SPLIT[split], rng)
        scenarios.append(_write(draft, f"{split}-{i:05d}", split, rng, noise))
    return scenarios


def shift(parent: Scenario, tag: str, rng: random.Random) -> Scenario:
    """Make the counterfactual of an ID scenario under one shift, with a new exact reference.

    Calling, manner, topic, mood, character and small talk are kept, except what the tag changes: a user shift translates
    everything and gives a new train-side name and city, a character shift draws a train-side invented character,
    TurnLevelComposition adds four exchanges, WordLevelComposition shuffles the words of every message.

    Raises:
        DataError: unknown tag, or a parent that is not a readable ID scenario of the world.
    """
    if tag not in SHIFT_OF_TAG:
        raise DataError(_unknown("shift tag", tag, SHIFT_OF_TAG))
    draft = replace(_draft_of(parent), tag=tag)
    if tag in LANGUAGE_OF_TAG:
        language = LANGUAGE_OF_TAG[tag]
        name, city = _name_and_city(language, "train", rng)
        draft = replace(draft, persona=replace(draft.persona, name=name, city=city, language=language))
    elif tag in KINDS:
        draft = replace(draft, character=rng.choice(CHARACTERS[tag, "train"]))
    elif tag == TURN_TAG:
        unused = [i for i in range(len(LEXICA["en"].history)) if i not in draft.history]
        n_more = max(0, TURN_EXCHANGES - len(draft.history))
        draft = replace(draft, history=(*draft.history, *rng.sample(unused, n_more)))
    sample_id = f"{parent.sample_id}/{tag}-{rng.getrandbits(32):08x}"
    return replace(_write(draft, sample_id, "Shifted", rng, EPSILON), parent=parent.sample_id)


def paraphrase(parent: Scenario, rng: random.Random) -> Scenario:
    """Say an ID scenario in other words: the query's variants are drawn anew, and the reference from the same law.

    Raises:
        DataError: a parent that is not a readable ID scenario of the world.
    """
    return _rewrite(parent, _draft_of(parent), "paraphrase", rng)


def swap_persona(parent: Scenario, rng: random.Random) -> Scenario:
    """Let another user say it: a train-side name and city, another calling and manner, in the parent's language.

    Raises:
        DataError: a parent that is not a readable ID scenario of the world.
    """
    draft = _draft_of(parent)
    name, city = _name_and_city(draft.persona.language, "train", rng)
    calling = rng.choice([other for other in CALLINGS if other != draft.persona.calling])
    manner = rng.choice([other for other in MANNERS if other != draft.persona.manner])
    persona = Persona(name, city, calling, draft.persona.language, manner)
    draft = replace(draft, persona=persona, query=replace(draft.query, manner=manner))
    return _rewrite(parent, draft, "persona", rng)


def _rewrite(parent: Scenario, draft: _Draft, way: str, rng: random.Random) -> Scenario:
    """Put a draft of the parent's into words, with the variants of its query drawn anew."""
    draft = replace(draft, query=replace(draft.query, variants=(rng.randrange(2), rng.randrange(2), rng.randrange(2))))
    sample_id = f"{parent.sample_id}/{way}-{rng.getrandbits(32):08x}"
    return replace(_write(draft, sample_id, parent.split, rng, EPSILON), parent=parent.sample_id)


def _draft_of(parent: Scenario) -> _Draft:
    """What an ID scenario was written from.

    Raises:
        DataError: it is shifted, or cannot be read.
    """
    if parent.shift != "id":
        raise DataError(
            f"sample {parent.sample_id!r} is itself shifted ({parent.subset_tag}); expected an ID scenario as the parent"
        )
    parse_scenario(parent)
    query = parse_query(parent.query)
    assert isinstance(query, QueryAttributes)  # parse_scenario has read it
    persona, character = parse_persona(parent.persona), parse_character(parent.character)
    return _Draft(persona, character, query, history_indices(parent), parent.subset_tag)


def frame(scenario: Scenario) -> Scenario:
    """Return the scenario with a blank final query and no reference: what a simulator is asked to complete."""
    return replace(scenario, dialogue=(*scenario.dialogue[:-1], Turn("user", "")), reference="")


def with_query(scenario: Scenario, query: str, rng: random.Random) -> Scenario | Unreadable:
    """Put a query into a frame and draw its reference from the exact P(y*|x'): the oracle for a simulator's turns.

    The reply's language and manner are the persona's; a query in others contradicts the persona and is Unreadable.

    Raises:
        DataError: the frame's persona or character is unreadable (the query never raises).
    """
    try:
        persona = parse_persona(scenario.persona)
        character = parse_character(scenario.character)
    except DataError as error:
        raise DataError(f"sample {scenario.sample_id!r}: {error}") from error
    read = check_query(parse_query(query), persona)
    if isinstance(read, Unreadable):
        return read
    attributes = _attributes(persona, character, read)
    turns = (*scenario.dialogue[:-1], Turn("user", " ".join(query.split())))
    return replace(scenario, dialogue=turns, reference=sample_reference(attributes, rng))


def shows_shift(scenario: Scenario) -> bool:
    """Tell whether a readable scenario really has the shift that its tag claims; an ID tag claims to have none."""
    try:
        attributes = parse_scenario(scenario)
    except DataError:
        return False
    tag = scenario.subset_tag
    return (
        attributes.language == LANGUAGE_OF_TAG.get(tag, "en")
        and attributes.kind == (tag if tag in KINDS else REAL_KIND)
        and len(scenario.dialogue) == 2 * (TURN_EXCHANGES if tag == TURN_TAG else ID_EXCHANGES) + 1
        and attributes.query_form == ("recomposed" if tag == WORD_TAG else "strict")
    )


def history_indices(scenario: Scenario) -> tuple[int, ...]:
    """Return which small talk a scenario's history is made of.

    Raises:
        DataError: a message of the history is not a line of the persona's language (for example, shuffled words).
    """
    lines = LEXICA[parse_persona(scenario.persona).language].history
    turns = scenario.dialogue[:-1]
    indices = []
    for user, agent in zip(turns[::2], turns[1::2], strict=True):
        if (user.text, agent.text) not in lines:
            raise DataError(
                f"sample {scenario.sample_id!r}: the exchange {user.text!r}, {agent.text!r} is not small talk of the "
                "world; shift an ID scenario that world.generate made"
            )
        indices.append(lines.index((user.text, agent.text)))
    return tuple(indices)


def _draw(tag: str, pool: Pool, rng: random.Random) -> _Draft:
    language = LANGUAGE_OF_TAG.get(tag, "en")
    name, city = _name_and_city(language, pool, rng)
    persona = Persona(name, city, rng.choice(CALLINGS), language, rng.choice(MANNERS))
    character = rng.choice(CHARACTERS[tag if tag in KINDS else REAL_KIND, pool])
    variants = (rng.randrange(2), rng.randrange(2), rng.randrange(2))
    query = QueryAttributes(language, persona.manner, rng.choice(MOODS), rng.choice(TOPICS), "strict", variants)
    n_exchanges = TURN_EXCHANGES if tag == TURN_TAG else ID_EXCHANGES
    history = tuple(rng.sample(range(len(LEXICA[language].history)), n_exchanges))
    return _Draft(persona, character, query, history, tag)


def _write(draft: _Draft, sample_id: str, split: str, rng: random.Random, noise: float) -> Scenario:
    lexicon = LEXICA[draft.persona.language]
    turns = []
    for i in draft.history:
        user, agent = lexicon.history[i]
        turns += [Turn("user", user), Turn("agent", agent)]
    turns.append(Turn("user", join_query(lexicon, draft.query)))
    if draft.tag == WORD_TAG:
        turns = [Turn(turn.role, _shuffled(turn.text, rng)) for turn in turns]
    attributes = _attributes(draft.persona, draft.character, draft.query)
    return Scenario(
        sample_id=sample_id,
        split=split,
        subset_tag=draft.tag,
        persona=draft.persona.sentence(),
        character=draft.character.as_object(),
        dialogue=tuple(turns),
        reference=sample_reference(attributes, rng, noise),
    )


def _attributes(persona: Persona, character: Character, query: QueryAttributes) -> Attributes:
    return Attributes(
        language=persona.language,
        manner=persona.manner,
        calling=persona.calling,
        craft=character.craft,
        topic=query.topic,
        mood=query.mood,
    )


def _name_and_city(language: str, pool: Pool, rng: random.Random) -> tuple[str, str]:
    return rng.choice(LEXICA[language].names[pool]), rng.choice(LEXICA[language].cities[pool])


def _shuffled(text: str, rng: random.Random) -> str:
    """Shuffle the words; a text of two or more distinct words never comes back in its own order."""
    words = text.split()
    if len(set(words)) < 2:
        return text
    while True:
        shuffled = rng.sample(words, len(words))
        if shuffled != words:
            return " ".join(shuffled)


def _unknown(what: str, value: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = difflib.get_close_matches(value, list(known), n=1, cutoff=0)
    return f"unknown {what} {value!r} of the world; expected one of {', '.join(known)}; nearest: {near[0]}"
