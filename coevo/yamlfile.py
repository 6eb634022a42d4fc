"""YAML that people write: recipes, overrides, experiments, rubrics. One loader, with an end to what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from coevo.errors import ConfigError
from coevo.files import utf8_text

LONGEST = 500_000
"""Characters of a file; the longest that ships has 5,000."""
MOST_VALUES = 5_000
"""Keys and values, each alias counted as all that it stands for: a few lines can stand for 9^9 values."""
DEEPEST = 50
"""Levels, through aliases too."""
_LONGEST_PLAIN = 1000
"""Characters of a number, date or other value without quotes that is no text: numbers of base 60 cost their square."""


def read_yaml(path: Path, missing: str) -> Any:
    """The content of a file of a person's; `missing` is said of one that is not there.

    Raises:
        ConfigError: a file that cannot be read, is too large, or is no YAML.
    """
    try:
        text = utf8_text(path, most_bytes=4 * LONGEST)
    except FileNotFoundError:
        raise ConfigError(f"{path}: {missing}") from None
    except (OSError, ValueError) as error:
        # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: cannot be read: {reason}; expected a YAML file; check the path and its rights."
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The value that YAML stands for; `origin` is named in errors.

    Raises:
        ConfigError: no YAML, a key twice, or more than a person writes: too long, too deep, too many values.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"{origin}: not valid YAML: it has more than {LONGEST:,} characters; is it the right file?")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f"{error.context}: " if error.context else ""
        raise ConfigError(f"{origin}{place}: not valid YAML: {context}{error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{origin}, line {line}: not valid YAML: it holds the character U+{ord(text[error.position]):04X}; in double "
            "quotes it can be written as an escape"
        ) from None
    except (ValueError, AttributeError, TypeError) as error:
        # dates that are none, numbers of thousands of digits
        raise ConfigError(f"{origin}: not valid YAML: a value cannot be read ({error}); quote it") from None


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys, of which plain YAML keeps the last in silence, and without bombs.

    Everything is counted while it is composed, before merge keys and aliases are expanded.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._composed = 0
        self._extents: dict[int, tuple[int, int]] = {}
        """By identity of a node that is complete: values in it, and levels, aliases expanded."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Called for every value and key."""
        event = self.peek_event()
        self._level += 1
        self._composed += 1
        _within(self._composed, self._level, event.start_mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._extents:
                raise _error(f"the alias *{event.anchor} stands within what it stands for", event.start_mark)
            return node
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        extents = [self._extents[id(part)] for part in inner]
        values, levels = 1 + sum(n for n, _ in extents), 1 + max((depth for _, depth in extents), default=0)
        _within(values, levels, event.start_mark)
        self._extents[id(node)] = values, levels
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        """Called for every value that has no others in it."""
        node = super().compose_scalar_node(anchor)
        if not node.tag.endswith(":str") and len(node.value) > _LONGEST_PLAIN:
            raise _error(f"a value of {len(node.value):,} characters that is no text; quote it", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Called for every mapping, before merge keys put others into it."""
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                # 1 and 01 are one key, and so are yes and true; a merge key has no value
                known = key.tag in self.yaml_constructors
                value = self.construct_object(key) if known else (key.tag, key.value)
                if value in seen:
                    raise _error(f"key {key.value[:80]!r} occurs twice; keep one", key.start_mark)
                seen.add(value)
        return node


def _within(values: int, levels: int, mark: Any) -> None:
    if values > MOST_VALUES:
        raise _error(f"it has more than {MOST_VALUES:,} keys and values, aliases expanded; expected fewer", mark)
    if levels > DEEPEST:
        raise _error(f"it is nested too deeply; expected at most {DEEPEST} levels", mark)


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
