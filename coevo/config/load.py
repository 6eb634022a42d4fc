"""Reading a recipe: YAML, dotted overrides, errors in a person's words, and the dump with every default written out."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from coevo.config.loop import RPM_PHASES, SIMULATOR_PHASES
from coevo.config.methods import METHOD_BLOCKS
from coevo.config.recipe import Evaluation, FileData, HubBase, Model, RealText, Recipe, RewardWeights, SmallBase, WorldData
from coevo.errors import ConfigError
from coevo.files import utf8_text
from coevo.prompts import FIELDS, MOST_PROMPT
from coevo.yamlfile import parse_yaml, read_yaml

SHORT_FORMS = ("method", "scorer")
"""Blocks that may be their `kind` alone."""
MOST_PROBLEMS = 20
"""Problems of a file that are listed one by one."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a YAML recipe and applies dotted `key=value` overrides; values are YAML too.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest right name), wrong type or value.
    """
    path = Path(path)
    tree = read_yaml(path, "no such recipe. Shipped ones are under recipes/.")
    if isinstance(tree, dict) and {"recipe", "methods"} & tree.keys():
        raise ConfigError(f"{path}: this is an experiment, not a recipe; run it with: coevo experiment {path}")
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: a recipe is a mapping of keys to values, found {type(tree).__name__}; begin with `name: …`."
        )
    for override in overrides:
        _apply(tree, override)
    return parse_recipe(tree, str(path))


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with dotted `key=value` overrides applied."""
    tree = recipe.model_dump(mode="json")
    for override in overrides:
        _apply(tree, override)
    return parse_recipe(tree, recipe.name)


def parse_recipe(tree: dict[str, Any], origin: str) -> Recipe:
    """Validates a recipe's tree; `origin` is named in errors."""
    if isinstance(tree.get("prompts"), str):
        tree = tree | {"prompts": _read_prompts(tree["prompts"], origin)}
    if isinstance(tree.get("scorer"), str):
        tree = tree | {"scorer": {"kind": tree["scorer"]}}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {listed(error.errors(), 'in the recipe', _explain)}") from None


def _read_prompts(name: str, origin: str) -> dict[str, str]:
    """The texts of a folder, or the name of a set of coevo's, as the block that they are short for."""
    folder = Path(name)
    if name in ("short", "instruct"):
        return {"set": name}
    if not folder.is_dir():
        raise ConfigError(
            f"{origin}: prompts: {shown(name)} is no folder, nor short or instruct; expected a folder with files such as "
            f"rpm.j2, from where the command is run ({Path.cwd()})."
        )
    files = sorted(folder.glob("*.j2"))
    for file in files:
        if file.stem not in FIELDS:
            raise ConfigError(f"{origin}: prompts: {file}: no such prompt; {_hint(file.stem, list(FIELDS))}.")
    if not files:
        raise ConfigError(f"{origin}: prompts: {folder} holds no .j2 file; expected some of {', '.join(FIELDS)}.")
    for file in files:
        if not file.is_file():  # a device or a pipe has no end
            raise ConfigError(f"{origin}: prompts: {file} is no file that can be read, or a link to none; expected a text.")
    return {file.stem: utf8_text(file, most_bytes=4 * MOST_PROMPT) for file in files}


def listed(problems: Sequence[Any], where: str, explain: Callable[[Any], str]) -> str:
    """What pydantic found wrong with a file, a line each, up to a number that a person reads."""
    lines = [f"  {explain(problem)}" for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"  … and {len(problems) - MOST_PROBLEMS:,} more; is it the right file?")
    return "\n".join([f"{len(problems):,} problem(s) {where}:", *lines])


def dump_recipe(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *parents, last = key.split(".")
    if not separator or not last or not all(parents):
        raise ConfigError(f"override {override!r}: expected key=value, for example loop.iterations=3.")
    value = parse_yaml(text, f"override {shown(override)}")
    node = tree
    for part in parents:
        child = node.setdefault(part, {})
        if node is tree and part in SHORT_FORMS and isinstance(child, str):
            # `method: dpo` is short for `method: {kind: dpo}`
            child = node[part] = {"kind": child}
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {part!r} holds {shown(child)}, it has no keys of its own.")
        node = child
    node[last] = value


@dataclass(frozen=True)
class _Union:
    """A place of a recipe that is read by one of several classes."""

    key: str
    """The key that says by which."""
    members: dict[str, type[Model]]


_UNIONS: dict[tuple[str, ...], _Union] = {
    ("data",): _Union("kind", {"world": WorldData, "file": FileData}),
    ("base",): _Union("kind", {"small": SmallBase, "hub": HubBase}),
    ("method",): _Union("kind", METHOD_BLOCKS),
    ("loop", "simulator"): _Union("algorithm", SIMULATOR_PHASES),
    ("loop", "rpm"): _Union("algorithm", RPM_PHASES),
}
_REWARDS: dict[str, type[Model]] = {"plain": RewardWeights, "real_text": RealText}
"""By what pydantic calls the blocks of the reward's weights."""
_PLAIN_MESSAGES = {
    "missing": "Field required; write it",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping of keys to values",
    "model_type": "expected a mapping of keys to values",
    "model_attributes_type": "expected a mapping of keys to values",
    "invalid_key": "expected a key of letters",
}


def _explain(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    place: tuple[str, ...] = next((place for place in _UNIONS if tuple(location[: len(place)]) == place), ())
    union, member = _UNIONS.get(place), ""
    if union is not None and len(location) > len(place):
        # pydantic names the chosen member of a discriminated union in the location; users never wrote it
        member = location.pop(len(place))
    reward = next((at for at in range(1, len(location)) if location[at - 1] == "weights" and location[0] != "corl"), 0)
    # the reward's lies within another
    weighed = _REWARDS[location.pop(reward)] if reward else None
    where = plain_place(location) or "recipe"
    if problem["type"] == "extra_forbidden" and weighed is not None:
        inner = location[reward:-1]
        names = _fields_at(inner, weighed) if inner else list(weighed.model_fields)
        return f"{where}: unknown key; {_hint(location[-1], names)}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: {_unknown_key(location, place, member)}"
    if problem["type"].startswith("union_tag") and location[-1] == "weights":
        return f"{where}.kind: is {shown(problem['input']['kind'])}; expected real_text, or no kind"
    if problem["type"].startswith("union_tag"):
        assert union is not None
        found = f"is {shown(problem['input'][union.key])}" if union.key in problem["input"] else "is missing"
        return f"{where}.{union.key}: {found}; expected one of {', '.join(union.members)}"
    return f"{where}: {plain_message(problem)}"


def plain_message(problem: Any) -> str:
    """What pydantic found wrong, in a person's words and with the value."""
    message = _PLAIN_MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return message if isinstance(problem["input"], (dict, Model)) else f"{message} (got {shown(problem['input'])})"


def _unknown_key(location: Sequence[str], place: tuple[str, ...], member: str) -> str:
    """What to write instead; `place` is that of the union that the key is in, and `member` the class by which it is read."""
    *block, key = location
    union = _UNIONS.get(place)
    names = _fields_at(block[len(place) :], union.members[member]) if union is not None else _fields_at(block, Recipe)
    own = union if len(block) == len(place) else None
    if own is not None and own.key == "algorithm":
        for other, fields in own.members.items():
            if key in fields.model_fields:
                return f"a key of {own.key} {other}, and {'.'.join(block)}.{own.key} is {member}; change one"
    return f"unknown key; {_hint(key, names)}{f' ({own.key} {member})' if own is not None else ''}"


def _hint(key: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.lower(), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"


def plain_place(location: Sequence[Any]) -> str:
    """Where in a file that is, as dotted keys on one line."""
    parts = [str(part) for part in location if part != "[key]"]
    return ".".join(part if part.isprintable() and len(part) <= 80 else shown(part) for part in parts)


def shown(value: Any) -> str:
    """A value for a message: short whatever a recipe holds, for aliases can make a few lines expand without end."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 120, 120, 40
    try:
        return short.repr(value)
    except ValueError:
        # Python writes no number of thousands of digits
        return "a number too long to show"


def _fields_at(location: Sequence[str], block: type[Model]) -> list[str]:
    """Names of the keys that are known at a place of a block."""
    schema = _schema(block)
    nodes = [schema]
    for part in location:
        nodes = [child for node in nodes for child in _members(node.get("properties", {}).get(part, {}), schema)]
    return sorted({name for node in nodes for name in node.get("properties", {})})


def keys_like(name: str, evaluation: bool) -> list[str]:
    """Dotted keys of a recipe, or of its evaluation, that have this name or end in it; at most four."""
    schema = _schema(Evaluation if evaluation else Recipe)
    todo, names = [("", schema)], []
    while todo:
        place, node = todo.pop(0)
        for key, child in node.get("properties", {}).items():
            names.append(f"{place}{key}")
            todo += [(f"{place}{key}.", member) for member in _members(child, schema)]
    known = list(dict.fromkeys(names))
    name = {"lr": "learning_rate", "model": "base.path"}.get(name, name)
    if name in known:
        return [name]
    return [key for key in known if key.endswith(f".{name}")][:4]


@cache
def _schema(block: type[Model]) -> dict[str, Any]:
    return block.model_json_schema()


def _members(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    options = node.get("anyOf", node.get("oneOf", [node]))
    return [schema["$defs"][option["$ref"].rsplit("/", 1)[1]] for option in options if "$ref" in option]
