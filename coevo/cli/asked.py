"""The messages by which a served model is asked: of a run, or of a folder that `coevo export` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import TypeAdapter

from coevo.errors import ConfigError
from coevo.export.asking import Asking
from coevo.records import Shape, read_json


class _Marks(Shape):
    opens: str
    closes: str


class _Format(Shape):
    system: str
    system_in_first_user_message: bool
    template_arguments: dict[str, Any]
    after_template: str
    thought: _Marks | None
    differs: str | None


_SHAPE: TypeAdapter[_Format] = TypeAdapter(_Format)


@dataclass(frozen=True)
class Asked:
    """What of a model's way of being asked a request, and the server, must know; see `coevo.export.asking.Asking`."""

    system: str
    in_user: bool
    arguments: Mapping[str, Any]
    opening: str
    marks: tuple[str, str] | None
    differs: str

    @classmethod
    def of(cls, asking: Asking) -> Asked:
        """Of a run, or of a chat model as it is."""
        return cls(asking.system, asking.in_user, asking.arguments, asking.opening, asking.marks, asking.differs)

    @classmethod
    def read(cls, path: Path) -> Asked:
        """Of a `prompt_format.json`.

        Raises:
            ConfigError: it is none.
        """
        found: Any = read_json(path, _SHAPE, "Export the run again, or remove the file.", ConfigError)
        thought = found["thought"]
        marks = (thought["opens"], thought["closes"]) if thought else None
        try:
            ImmutableSandboxedEnvironment().from_string(found["system"])
        except TemplateError as error:
            raise ConfigError(f"{path}: system: {error}; expected Jinja of persona and character.") from None
        return cls(
            found["system"],
            found["system_in_first_user_message"],
            found["template_arguments"],
            found["after_template"],
            marks,
            found["differs"] or "",
        )

    def messages(self, persona: str, character: str, text: str) -> list[dict[str, str]]:
        """The first request of a dialogue that the user begins."""
        jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        system = jinja.from_string(self.system).render(persona=persona, character=character).strip()
        if self.in_user:
            return [{"role": "user", "content": f"{system}\n\n{text}"}]
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]
