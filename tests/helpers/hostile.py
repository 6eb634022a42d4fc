"""A name that means something to every reader, and what must not be left of it in what coevo writes."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

_COMMANDS = "\x1b[2J\x1b]0;t\x07\x9b31m\u202edne\u2066\r"
HOSTILE = f"=cmd|'/c calc'!A1 <img src=x onerror=alert(1)> [x](javascript:alert(1)) `b` **b** {_COMMANDS}"
_OBEYED = set("\x1b\x07\x9b\r\u202e\u2066")


def planted(value: Any, *names: str) -> Any:
    """A JSON value in which some keys, and the texts that have one of them in it, are hostile."""
    if isinstance(value, dict):
        return {HOSTILE if key in names else key: planted(inner, *names) for key, inner in value.items()}
    if isinstance(value, list):
        return [planted(inner, *names) for inner in value]
    return HOSTILE if isinstance(value, str) and any(name in value for name in names) else value


def assert_harmless(folder: Path, shown: str) -> None:
    """Of the files in a folder and of what a terminal was shown: the name is in it, as text and nothing else."""
    assert "[2J" in shown and not _OBEYED & set(shown)
    kinds = {".md": _markdown, ".csv": _csv, ".html": _html}
    for path in sorted(folder.iterdir()):
        if path.suffix in kinds:
            text = path.read_bytes().decode()
            assert "calc" in text, path
            assert not _OBEYED & set(text), path
            kinds[path.suffix](text)


def _markdown(text: str) -> None:
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text.replace(r"\`", ""))
    assert "<" not in prose and not re.search(r"(?<!\\)\]\(|^ {0,3}(- )?\[[^\]]*\]:|\*\*b\*\*", prose, re.MULTILINE)
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    for table in tables:
        # as many cells as the head has
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def _csv(text: str) -> None:
    for row in csv.reader(text.splitlines()):
        for cell in row:
            assert cell[:1] not in tuple("=+@\t") and (cell[:1] != "-" or float(cell) < 0), cell


class _Page(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script" and not any(name.startswith("on") or name == "href" for name, _ in attrs)
        assert tag != "img" or all((value or "").startswith("data:") for name, value in attrs if name == "src")


def _html(text: str) -> None:
    _Page().feed(text)
