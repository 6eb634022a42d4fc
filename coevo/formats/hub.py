"""Data sets of the Hugging Face hub, and folders of one, as rows. The loader is given: `datasets` is not imported here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from coevo.errors import DataError
from coevo.formats.conversation import Row

PREFIX = "hub:"
SPLIT = "train"


class Load(Protocol):
    """`datasets.load_dataset`, as far as it is used."""

    def __call__(self, name: str, /, *, split: str, streaming: bool) -> Iterable[Mapping[str, Any]]:
        """Records of one split."""


def hub_rows(name: str, load: Load) -> Iterator[Row]:
    """The records of `hub:owner/name` or `hub:owner/name:split`; nothing is loaded before the first is asked for.

    Raises:
        DataError: the name is none, or the data set or its split cannot be loaded.
    """
    found = re.fullmatch(r"(?:hub:)?(?P<owner>[^:\0]+)(?::(?P<split>[^:\0]+))?", name)
    if found is None:
        raise DataError(f"{name!r:.100}: expected hub:OWNER/NAME or hub:OWNER/NAME:SPLIT.")
    number = 0
    try:
        for value in load(found["owner"], split=found["split"] or SPLIT, streaming=True):
            yield Row(f"{name}, record {number}", dict(value))
            number += 1
    except Exception as error:  # loading scripts, networks, formats: whatever they end in
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"{name}: cannot be read at record {number} ({said}); check owner, name and split (it was "
            f"{found['split'] or SPLIT!r}), and the network, or download it and name its files."
        ) from error
