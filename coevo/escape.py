"""Text of data, files, servers and models where it means something to a reader: one function a kind of reader.

A terminal obeys control characters, Markdown and HTML have links and markup, a spreadsheet runs what begins with `=`.
HTML pages go through Jinja's own escaping, and through `visible` before it.
"""

from __future__ import annotations

import html as markup
import re
from typing import Any

_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, colours, clears, or turns the direction of writing; line breaks and tabs apart."""
_ENTITY = re.compile(r"&(?=#?\w+;)")
_MARKUP = re.compile(r"[\\`*|#~$]|(?<![^\W_])_|_(?![^\W_])|^\[|(?<=\])\(")
"""An underscore within a word is none; brackets are a link with a target behind them, or one that a line began by."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def visible(text: str) -> str:
    """Text for a terminal or a page: characters that would be obeyed rather than shown are written as escapes."""
    return _OBEYED.sub(lambda found: _code(found[0]), text)


def plain(text: str) -> str:
    """Text on one line of Markdown, so that nothing in it is markup, HTML or a link."""
    flat = _ENTITY.sub("&amp;", visible(" ".join(text.split()))).replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda found: "\\" + found[0], flat)


def html(text: str) -> str:
    """Text of an HTML page."""
    return markup.escape(visible(text))


def plain_code(text: str) -> str:
    """Text on one line of Markdown as code: between more backticks than it has in a row."""
    flat = visible(text.replace("\n", " "))
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    space = " " if flat[:1] == "`" or flat[-1:] == "`" else ""
    return f"{fence}{space}{flat}{space}{fence}"


def spreadsheet(cell: Any) -> Any:
    """A cell of a CSV file: text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay."""
    if not isinstance(cell, str):
        return cell
    text = visible(cell)
    formula = cell.lstrip()[:1] in tuple("=+-@＝＋－＠") or cell[:1] in ("\t", "\r")
    return f"'{text}" if formula and not _NUMBER.fullmatch(cell) else text


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
