"""The world where the truth is known (method, section 7): role-play scenarios whose P(y*|x) is a product of five slots.

A scenario's attributes are the user's language, manner and calling (in the persona), the character's craft (in the
character), and topic, mood and, once more, language and manner (in the final query). The reply has five slots: greeting
(language, manner), address (language, calling), content (language, topic), catchphrase (language, craft) and closing
(language, mood). Within one subset tag the attributes are **independent and uniform** over `support(tag)`, and the
slots are independent given the attributes, so that entropies, mutual information and divergences are exact sums over
small finite supports: the joint over a subset factorises into attributes, and the reply into `slot_distribution`s.

Example:
    >>> from coevo.data import world
    >>> x = world.generate("IDTest", 1, seed=0)[0]
    >>> world.share_right(x, "Good evening,") <= 0.2
    True
"""

from coevo.data.world.attributes import (
    Attributes,
    QueryAttributes,
    Unreadable,
    parse_character,
    parse_persona,
    parse_query,
    parse_scenario,
)
from coevo.data.world.density import (
    EPSILON,
    ParsedResponse,
    log_density,
    parse_response,
    right_phrases,
    sample_reference,
    share_right,
    slot_distribution,
)
from coevo.data.world.generator import (
    SPLITS,
    frame,
    generate,
    history_indices,
    paraphrase,
    shift,
    shows_shift,
    support,
    swap_persona,
    with_query,
)
from coevo.data.world.lexicon import (
    CALLINGS,
    CRAFTS,
    INVENTORY,
    KINDS,
    LANGUAGE_OF_TAG,
    LANGUAGES,
    MANNERS,
    MOODS,
    OTHER,
    PHRASES,
    SLOT_ATTRIBUTE,
    SLOTS,
    TOPICS,
    Phrase,
)
from coevo.data.world.reasoning import REASONING_SECTIONS, oracle_reasoning, reasoning_bodies

__all__ = [
    "CALLINGS",
    "CRAFTS",
    "EPSILON",
    "INVENTORY",
    "KINDS",
    "LANGUAGES",
    "LANGUAGE_OF_TAG",
    "MANNERS",
    "MOODS",
    "OTHER",
    "PHRASES",
    "REASONING_SECTIONS",
    "SLOTS",
    "SLOT_ATTRIBUTE",
    "SPLITS",
    "TOPICS",
    "Attributes",
    "ParsedResponse",
    "Phrase",
    "QueryAttributes",
    "Unreadable",
    "frame",
    "generate",
    "history_indices",
    "log_density",
    "oracle_reasoning",
    "paraphrase",
    "parse_character",
    "parse_persona",
    "parse_query",
    "parse_response",
    "parse_scenario",
    "reasoning_bodies",
    "right_phrases",
    "sample_reference",
    "share_right",
    "shift",
    "shows_shift",
    "slot_distribution",
    "support",
    "swap_persona",
    "with_query",
]
