"""Reading a scenario's attributes back from its text alone: persona, character and final query."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from coevo.data.world.lexicon import (
    CALLINGS,
    CRAFTS,
    KINDS,
    LANGUAGES,
    LEXICA,
    MANNERS,
    REAL_KIND,
    Character,
    Lexicon,
)
from coevo.errors import DataError
from coevo.types import Scenario

QueryForm = Literal["strict", "recomposed"]

_LANGUAGE_OF_NAME = {lexicon.name: language for language, lexicon in LEXICA.items()}
_PERSONA = re.compile(
    rf"(?P<name>[^,.]+) from (?P<city>[^,.]+), a (?P<calling>{'|'.join(CALLINGS)})\. "
    rf"Speaks (?P<language>{'|'.join(_LANGUAGE_OF_NAME)}), (?P<manner>{'|'.join(MANNERS)})\."
)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What decides the reply (the first six fields), and who speaks (the rest, which the reply does not depend on)."""

    language: str
    manner: str
    calling: str
    craft: str
    topic: str
    mood: str
    name: str = ""
    city: str = ""
    character: str = ""
    kind: str = REAL_KIND
    work: str = ""
    query_form: QueryForm = "strict"


@dataclass(frozen=True, slots=True)
class QueryAttributes:
    """What a readable final query says."""

    language: str
    manner: str
    mood: str
    topic: str
    form: QueryForm
    """`recomposed`: the words of one opener, mood phrase and question, in another order."""
    variants: tuple[int, int, int]
    """Which variant of the opener, the mood phrase and the question was used."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a query has no exact reference."""

    reason: Literal[
        "empty", "opener", "mood", "question", "mixed", "order", "extra", "language", "manner", "shift", "unfinished"
    ]
    """`opener`, `mood`, `question`: this part is missing; `mixed`: parts of several languages, or several of one part;
    `order`, `extra`: the parts are there, out of order or with other text; `language`, `manner`: not the persona's;
    `shift`: not the shift asked for; `unfinished`: the token limit came first."""
    detail: str


@dataclass(frozen=True, slots=True)
class Persona:
    """What a persona sentence says."""

    name: str
    city: str
    calling: str
    language: str
    manner: str

    def sentence(self) -> str:
        """Render the sentence that `parse_persona` reads."""
        speaks = LEXICA[self.language].name
        return f"{self.name} from {self.city}, a {self.calling}. Speaks {speaks}, {self.manner}."


def parse_persona(text: str) -> Persona:
    """Read a persona sentence such as "Greta from Bremen, a nurse. Speaks German, formal.".

    Raises:
        DataError: the sentence has another form, or names a calling, language or manner that the world lacks.
    """
    match = _PERSONA.fullmatch(text)
    if match is None:
        raise DataError(
            f"user_persona is {_shown(text)}; expected '<name> from <city>, a <calling>. Speaks <language>, <manner>.' "
            f"with calling in {', '.join(CALLINGS)}; language in {', '.join(_LANGUAGE_OF_NAME)}; manner in "
            f"{', '.join(MANNERS)}; take it from world.generate or world.shift"
        )
    language = _LANGUAGE_OF_NAME[match["language"]]
    return Persona(match["name"], match["city"], match["calling"], language, match["manner"])


def parse_character(character: str | Mapping[str, Any]) -> Character:
    """Read a character object.

    Raises:
        DataError: not an object with name, craft, kind and work, or a craft or kind that the world lacks.
    """
    fields = ("name", "craft", "kind", "work")
    if not isinstance(character, Mapping) or not all(isinstance(character.get(key), str) for key in fields):
        raise DataError(f"agent_character is {_shown(character)}; expected an object with text in {', '.join(fields)}")
    name, craft, kind, work = (character[key] for key in fields)
    for key, value, known in (("craft", craft, CRAFTS), ("kind", kind, (REAL_KIND, *KINDS))):
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0)[0]
            raise DataError(f"agent_character.{key} is {value!r}; expected one of {', '.join(known)}; nearest: {near}")
    return Character(name, craft, kind, work)


def parse_query(text: str) -> QueryAttributes | Unreadable:
    """Read a final query: an opener, a mood phrase and a question of one language, in this order, and nothing else.

    The words of exactly one opener, mood phrase and question in any order are read as the recomposed form (English only,
    as in the paper's WordLevelComposition). Runs of white space count as one space.
    """
    words = text.split()
    if not words:
        return Unreadable("empty", "the query is blank; expected opener, mood phrase and question")
    strict = _strict_queries().get(" ".join(words))
    if strict is not None:
        return strict
    recomposed = _recomposed_queries().get(tuple(sorted(words)))
    return recomposed if recomposed is not None else _why_unreadable(" ".join(words))


def parse_scenario(scenario: Scenario) -> Attributes:
    """Read the attributes of a scenario from its text alone: persona, character object and final query.

    Raises:
        DataError: names the sample and what is unreadable, or that query and persona contradict each other.
    """
    where = f"sample {scenario.sample_id!r}: "
    try:
        persona = parse_persona(scenario.persona)
        character = parse_character(scenario.character)
    except DataError as error:
        raise DataError(where + str(error)) from error
    query = check_query(parse_query(scenario.query), persona)
    if isinstance(query, Unreadable):
        raise DataError(
            f"{where}the final user_query {_shown(scenario.query)} is unreadable ({query.reason}): {query.detail}; "
            "take the query from world.generate or world.shift, or replace it with world.with_query"
        )
    return Attributes(
        language=persona.language,
        manner=persona.manner,
        calling=persona.calling,
        craft=character.craft,
        topic=query.topic,
        mood=query.mood,
        name=persona.name,
        city=persona.city,
        character=character.name,
        kind=character.kind,
        work=character.work,
        query_form=query.form,
    )


def check_query(query: QueryAttributes | Unreadable, persona: Persona) -> QueryAttributes | Unreadable:
    """Return the query, or why it contradicts the persona: another language or manner has no exact reference."""
    if isinstance(query, Unreadable):
        return query
    if query.language != persona.language:
        said, owed = LEXICA[query.language].name, LEXICA[persona.language].name
        return Unreadable("language", f"the query is in {said}, the persona speaks {owed}")
    if query.manner != persona.manner:
        return Unreadable("manner", f"the query is {query.manner}, the persona {persona.manner}")
    return query


def join_query(lexicon: Lexicon, query: QueryAttributes) -> str:
    """Render the strict form of a query in a language, which need not be the query's own."""
    opener, mood, question = query.variants
    parts = (
        lexicon.opener[query.manner][opener],
        lexicon.mood[query.mood][mood],
        lexicon.question[query.topic][question],
    )
    return " ".join(parts)


def _shown(value: Any, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


@cache
def _strict_queries() -> dict[str, QueryAttributes]:
    found: dict[str, QueryAttributes] = {}
    for language in LANGUAGES:
        lexicon = LEXICA[language]
        openers = [(value, i) for value, texts in lexicon.opener.items() for i in range(len(texts))]
        moods = [(value, i) for value, texts in lexicon.mood.items() for i in range(len(texts))]
        questions = [(value, i) for value, texts in lexicon.question.items() for i in range(len(texts))]
        for manner, i in openers:
            for mood, j in moods:
                for topic, k in questions:
                    query = QueryAttributes(language, manner, mood, topic, "strict", (i, j, k))
                    found[join_query(lexicon, query)] = query
    return found


@cache
def _recomposed_queries() -> dict[tuple[str, ...], QueryAttributes]:
    return {
        tuple(sorted(text.split())): QueryAttributes(
            query.language, query.manner, query.mood, query.topic, "recomposed", query.variants
        )
        for text, query in _strict_queries().items()
        if query.language == "en"
    }


@cache
def _query_parts() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    part_of = {
        text: (part, language)
        for language in LANGUAGES
        for part in ("opener", "mood", "question")
        for texts in getattr(LEXICA[language], part).values()
        for text in texts
    }
    longest_first = sorted(part_of, key=len, reverse=True)
    return re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)"), part_of


def _why_unreadable(text: str) -> Unreadable:
    pattern, part_of = _query_parts()
    found = [part_of[match] for match in pattern.findall(text)]
    counts = Counter(part for part, _ in found)
    for part in ("opener", "mood", "question"):
        if counts[part] == 0:
            return Unreadable(part, f"no known {part} phrase in {_shown(text)}")  # type: ignore[arg-type]
    languages = {language for _, language in found}
    if len(languages) > 1:
        return Unreadable("mixed", f"parts in {', '.join(sorted(languages))}; expected one language")
    if max(counts.values()) > 1:
        return Unreadable("mixed", "more than one opener, mood phrase or question")
    if pattern.sub("", text).strip():
        return Unreadable("extra", f"besides the three parts: {_shown(pattern.sub('', text).strip())}")
    return Unreadable("order", "expected opener, mood phrase, question, in this order")
