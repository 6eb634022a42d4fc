"""The licence of a base, as the base itself says it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from coevo.errors import ConfigError
from coevo.yamlfile import parse_yaml

UNKNOWN = "unknown; look at the base"
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


def licence(base: str, own: str = "") -> str:
    """In words; `own` says what a base is that coevo made or ships."""
    if own:
        return "Apache-2.0, as coevo's" if "ships" in own else "nobody else's, as this run made it"
    card = _card(base)
    said = _field(card) if card is not None else ""
    if said:
        return said
    files = [name for name in FILES if (Path(base) / name).is_file()]
    return f"in its file {files[0]}" if files else UNKNOWN


def _card(base: str) -> Path | None:
    """README.md of a folder, or of the hub, where it can be reached."""
    if Path(base).is_dir():
        return Path(base) / "README.md"
    try:
        return Path(hf_hub_download(base, "README.md"))
    except Exception:  # noqa: BLE001  # a card that cannot be had keeps nothing from being exported
        return None


def _field(card: Path) -> str:
    try:
        head = card.read_text(encoding="utf-8").split("---")[1]
        fields = parse_yaml(head, str(card))
    except (OSError, IndexError, UnicodeDecodeError, ConfigError):
        return ""
    if not isinstance(fields, dict):
        return ""
    said = [fields.get(name) for name in ("license", "license_name", "license_link")]
    return ", ".join(str(one) for one in said if isinstance(one, str | list) and one)
