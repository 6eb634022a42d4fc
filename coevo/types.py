"""The records that flow through coevo: file -> Scenario -> Response -> Score -> Reward. Frozen, plain, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Shift = Literal["id", "user", "character", "dialogue"]

Component = Literal["u", "c", "d"]
"""A part of a scenario: user persona, character, dialogue."""
COMPONENTS: tuple[Component, ...] = ("u", "c", "d")

SHIFT_OF_TAG: dict[str, Shift] = {
    "german": "user",
    "spanish": "user",
    "chinese": "user",
    "japanese": "user",
    "korean": "user",
    "Literature": "character",
    "Film & Television": "character",
    "Theater": "character",
    "Gaming": "character",
    "TurnLevelComposition": "dialogue",
    "WordLevelComposition": "dialogue",
}
"""The paper's eleven out-of-distribution subset tags and the shift that each belongs to."""

PLAIN_SHIFTS: dict[str, Shift] = {"user": "user", "character": "character", "dialogue": "dialogue"}
"""A shifted scenario of another kind carries its shift as its tag, alone or with a name of one's own after a colon, as in
`user:dialect`; any other tag is ID."""


def shift_of(tag: str) -> Shift:
    """The shift that a subset tag stands for; `id` if it stands for none."""
    return SHIFT_OF_TAG.get(tag) or PLAIN_SHIFTS.get(tag.partition(":")[0], "id")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a dialogue."""

    role: Literal["user", "agent"]
    text: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """One role-play scenario x = (u, c, d) with its reference response y* (method, section 1).

    Example:
        >>> x = Scenario("IDTrain-00000", "IDTrain", "IDTrain", "Ann, a nurse", "Ada Lovelace",
        ...              (Turn("user", "Who are you?"),), "I am Ada.")
        >>> x.query, x.shift
        ('Who are you?', 'id')
    """

    sample_id: str
    """Unique within a file; by the layout's custom it begins with the split's name."""
    split: str
    """IDTrain, IDTest, OOD1Test, ... or, for generated scenarios, the name of their origin."""
    subset_tag: str
    """The paper's subset tag: german, Theater, TurnLevelComposition, ..., or the ID split's name."""
    persona: str
    """u: who the user is."""
    character: str | Mapping[str, Any]
    """c: who the agent plays; free text or an object, kept as the file has it."""
    dialogue: tuple[Turn, ...]
    """d: user and agent in turn, ending in the user's query; the agent may begin, with its greeting."""
    reference: str
    """y*: the golden response; empty only for a frame whose query is still to be written."""
    parent: str | None = None
    """sample_id of the ID scenario that a shifted one was made from, where there is one."""
    draft: str = ""
    """For the simulator alone: what its turn is to say in this user's way; empty where it is free to ask."""
    thought: str = ""
    """The file's own reasoning about this scenario (`SThought`), for the reasoner's cold start; empty where it has none."""
    alternatives: tuple[str, ...] = ()
    """Other responses that are as right as y*, for the audit of a reward; nothing is trained on them."""

    @property
    def query(self) -> str:
        """The user's last message."""
        return self.dialogue[-1].text

    @property
    def shift(self) -> Shift:
        """Which component is out of distribution, read off the subset tag."""
        return shift_of(self.subset_tag)


@dataclass(frozen=True, slots=True)
class Response:
    """What a policy answered to one scenario."""

    sample_id: str
    text: str
    model: str
    """Name of the policy, for example `rpm/sft` or `rpm/iteration-2`."""
    status: Literal["ok", "truncated", "empty", "missing", "loop", "echo"] = "ok"
    """`truncated`: the token limit came before the end of turn. `missing`: no response was given. `loop`, `echo`: most of it
    repeats itself, or copies the query or the context (`coevo.scoring.guards`). Only `ok` responses are scored."""


@dataclass(frozen=True, slots=True)
class Score:
    """One likelihood log q(y|context), kept as (sum, count) so that both scales can be read off it."""

    logprob_nats: float
    """Sum over the response's tokens, end of turn included, in nats; NaN unless status is `ok`."""
    n_tokens: int
    """How many tokens were summed."""
    status: Literal["ok", "too_long", "empty", "reasoning"] = "ok"
    """Why there is no number, if there is none. Never 0 nats, which would be certainty. `reasoning`: the scenario has no
    whole reasoning to be read with."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """r = f_R(x): what a good response to a scenario must contain, in named sections (method, section 1).

    Example:
        >>> Reasoning("language: German\nmood: sad").text.splitlines()
        ['language: German', 'mood: sad']
    """

    text: str
    """The sections alone, as the scorer reads them; empty unless the status is `ok`."""
    status: Literal["ok", "truncated", "empty", "malformed", "too_long"] = "ok"
    """`malformed`: a section is missing, repeated, out of place or says nothing, or there is text outside of them.
    `too_long`: the reasoner has no room for the scenario."""
    structure: float = 1.0
    """Share of the sections that parse, 0 to 1 (R3); below 1 unless the status is `ok`."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward: the scalar that trains, and its unweighted parts for the log."""

    total: float | None
    """None if the completion could not be scored: it is counted, and left out of the group's baseline."""
    parts: Mapping[str, float] = field(default_factory=dict)
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where an adapter's weights come from; written beside them and checked before they are loaded."""

    role: str
    """rpm, scorer, simulator, reasoner, ..."""
    base: str
    """Content hash (sha256 over the weight files) of the base model that the adapter was trained on."""
    parent: str | None
    """Content hash of the adapter that training began from, None if it began from the base."""
    sha256: str
    """Content hash of these weights."""
    phase: str
    """Name of the phase that wrote it."""
    settings: str | None = None
    """Content hash of the base's configuration, tokenizer and chat template; None where an earlier version wrote it."""
    prompts: str | None = None
    """Content hash of the prompts that it was taught to read; None for the short ones."""
