"""A team's own chat logs, in the formats that they come in, as scenarios."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from coevo.errors import DataError
from coevo.formats.chats import COLUMNS, READERS, read
from coevo.formats.conversation import Conversation, rows
from coevo.formats.convert import UNKNOWN, Converted, convert
from coevo.formats.divide import split_by
from coevo.formats.hub import Load, hub_rows


def read_conversations(
    path: Path, format_: str = "", options: Mapping[str, str] | None = None
) -> tuple[str, Iterator[Conversation]]:
    """The format of a file and its conversations, read as a stream where the file allows.

    Args:
        path: JSON Lines, a JSON list, Parquet or CSV.
        format_: a name of `READERS`; recognised by content if empty.
        options: `character` for coser; `conversation`, `role` and `content`, each a column, for a table.

    Raises:
        DataError: names file, record and field of what is wrong.
    """
    try:
        return read(rows(path), format_, options)
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def read_hub(
    name: str, load: Load, format_: str = "", options: Mapping[str, str] | None = None
) -> tuple[str, Iterator[Conversation]]:
    """The format of a data set of the hub, or of a folder of one, and its conversations, read as a stream.

    Args:
        name: `hub:owner/name`, and `:split` where it is not `train`.
        load: `datasets.load_dataset`; given, as this package does without `datasets`.
        format_: as of `read_conversations`.
        options: as of `read_conversations`.

    Raises:
        DataError: it cannot be loaded, or a record is wrong.
    """
    try:
        return read(hub_rows(name, load), format_, options)
    except DataError as error:
        raise DataError(str(error) if name in str(error) else f"{name}: {error}") from None


__all__ = [
    "COLUMNS", "READERS", "UNKNOWN", "Conversation", "Converted", "convert", "read_conversations", "read_hub", "split_by",
]  # fmt: skip
