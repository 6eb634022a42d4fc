"""How a text is read wherever it comes from: references and dialogues of files, models' responses, responses files.

A reference that ends in a line break, as chat exports' do, and a response that does not would else be two texts, and the one
more token costs a model that says the same several nats.
"""

from __future__ import annotations

import re
import unicodedata

_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_MORE_SPACES = "\u2028\u2029\u202f\u205f\u3000"
ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Marks that mean nothing at a text's ends: spaces and joiners without width, direction marks, the byte-order mark."""
ENDS = _SPACES + _MORE_SPACES + ZERO_WIDTH
"""What is taken off a text's ends: all that `str.isspace` knows, and `ZERO_WIDTH`."""
_LINE_BREAK = re.compile("\r\n?|[\x85\u2028\u2029]")
_NO_WORD = re.compile(r"[\W_]+")
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana, and the marks that repeat a character
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"  # Chinese characters
)
"""Scripts without spaces between words, whose every character is a unit. Korean has spaces."""
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")
_SIGN = re.compile(f"[{_UNSPACED}]")


def normalised(text: str) -> str:
    r"""A text as references and responses alike are read, scored and taught.

    `\r\n`, `\r` and Unicode's line ends become `\n`; white space, no-break space and zero-width marks go from both ends. All
    else stays: spaces and empty lines within, case, composed and decomposed letters.
    """
    return _LINE_BREAK.sub("\n", text).strip(ENDS)


def blank(text: str) -> bool:
    """Whether there is nothing to see: white space, control characters, zero-width marks."""
    return not any(not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf") for character in text)


def folded(text: str) -> str:
    """What two copies of a text have in common: its letters and digits, without case, width and accents of another form."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NO_WORD.sub("", plain) or plain


def units(text: str) -> list[str]:
    """Words, and characters of scripts without spaces, in their order and without case; of a text of signs, the signs."""
    return _UNIT.findall(text.casefold()) or [sign for sign in text if not sign.isspace()]


def unspaced(unit: str) -> bool:
    """Whether a unit is a character of a script without spaces."""
    return _SIGN.fullmatch(unit) is not None
