"""What every report is written with: atomic files, and text that Markdown cannot take for its own."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> Path:
    """Writes beside the target, syncs, and renames over it: a reader meets the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def plain(text: str) -> str:
    """Text of data or models on one line of Markdown, so that nothing in it is markup or a link."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_|#~$]|(?<=\])\()", r"\\\1", flat)
