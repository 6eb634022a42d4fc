"""Files of character cards: JSON, PNG with a card in its text chunks, and CHARX (a zip with card.json).

A file is told by its first bytes. What coevo does not know of it is kept: a card that is written back has its unknown
fields, its picture and its other chunks and assets byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from coevo.cards.card import Card, parse_card
from coevo.data.jsonstream import Refused, strict_decoder
from coevo.errors import DataError
from coevo.files import what_it_is, write_atomic

LARGEST = 64 * 2**20
"""Bytes of a card's file, and of what a CHARX unpacks to."""
LARGEST_JSON = 8 * 2**20
"""Bytes of a card's JSON."""
PNG = b"\x89PNG\r\n\x1a\n"
CHUNKS = ("ccv3", "chara")
"""Keywords of a card in a PNG; the newer one counts where both are there."""
BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError, OverflowError
)  # fmt: skip
"""What a damaged or encrypted zip ends in."""
BLANK = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
"""The smallest picture, for a card without one."""


def read_card(path: Path) -> Card:
    """The card of one file.

    Raises:
        DataError: the file cannot be opened, is too large, broken, or holds no card.
    """
    data = _bytes(path)
    if data.startswith(PNG):
        text = _in_png(data, path)
    elif data.startswith(b"PK"):
        text = _in_zip(data, path)
    else:
        text = data
    return parse_card(_json(text, path), str(path))


def read_cards(path: Path) -> list[Card]:
    """The cards of a file, or of every file in a folder; of JSON Lines, as RPBench's, one a line.

    Raises:
        DataError: as `read_card`; a folder without a file; or two cards of one name.
    """
    files = (
        sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise DataError(f"{path}: holds no file; expected character cards (.json, .png, .charx).")
    cards: dict[str, Card] = {}
    for file in files:
        for card in _lines(file) if file.suffix == ".jsonl" else [read_card(file)]:
            if card.name in cards and card.raw != cards[card.name].raw:
                raise DataError(f"{file}: a second card is called {card.name!r}; expected a name of its own for each.")
            cards[card.name] = card
    return list(cards.values())


def _lines(path: Path) -> Iterator[Card]:
    for number, line in enumerate(_bytes(path).splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            yield parse_card(_json(line, Path(place)), place)


def write_card(card: Card, path: Path, picture: bytes | None = None) -> None:
    """Writes a card as its file's name says: `.json`, `.png` or `.charx`.

    Args:
        card: its `raw` is what is written.
        path: where to.
        picture: of a PNG or CHARX: the file that the card came from, whose picture, chunks and assets are kept.

    Raises:
        DataError: another kind of file, or a picture that is none.
    """
    text = json.dumps(card.raw, ensure_ascii=False).encode()
    if path.suffix == ".json":
        write_atomic(path, text)
    elif path.suffix == ".png":
        write_atomic(path, _with_card(picture or BLANK, text, card.raw.get("spec"), path))
    elif path.suffix == ".charx":
        write_atomic(path, _zipped(picture, text, path))
    else:
        raise DataError(f"{path}: expected a name that ends in .json, .png or .charx.")


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise DataError(f"{path}: has {size:,} bytes; expected a character card of at most {LARGEST:,}.")
        with path.open("rb") as file:
            return file.read(LARGEST)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); expected a character card.") from None


def _json(data: bytes, path: Path) -> Any:
    found = what_it_is(data[:4096], path)
    if found:
        raise DataError(f"{path}: {found}")
    if len(data) > LARGEST_JSON:
        raise DataError(f"{path}: the card's JSON has {len(data):,} bytes; expected at most {LARGEST_JSON:,}.")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
        value, end = strict_decoder().raw_decode(text, len(text) - len(text.lstrip()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} of the card is not valid UTF-8; write it in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: no card: malformed JSON, {error.msg} at line {error.lineno}.") from None
    except Refused as error:
        raise DataError(f"{path}: {error.args[0]} found; expected {error.args[1]}.") from None
    except RecursionError:
        raise DataError(f"{path}: the JSON is nested too deeply; expected a character card.") from None
    if text[end:].strip():
        raise DataError(f"{path}: {text[end : end + 40].strip()!r} follows the card; expected one card a file.")
    return value


# --- PNG ---------------------------------------------------------------------------------------------------------------


def _chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, content, the whole chunk). Lengths are checked against the file, so that none is reserved for a lie."""
    place = len(PNG)
    while place < len(data):
        if place + 12 > len(data):
            raise DataError(f"{path}: the PNG is cut short at byte {place}; copy or write it again.")
        (length,) = struct.unpack_from(">I", data, place)
        if place + 12 + length > len(data):
            raise DataError(f"{path}: a chunk of the PNG claims {length:,} bytes and the file ends before; copy it again.")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        yield kind, content, data[place : place + 12 + length]
        place += 12 + length
        if kind == b"IEND":
            return


def _in_png(data: bytes, path: Path) -> bytes:
    """The card's JSON."""
    found: dict[str, bytes] = {}
    for kind, content, _ in _chunks(data, path):
        keyword, zero, text = content.partition(b"\0")
        name = keyword.decode("latin-1").casefold()
        if kind == b"tEXt" and zero and name in CHUNKS:
            found.setdefault(name, text)
        elif kind in (b"zTXt", b"iTXt") and zero and name in CHUNKS:
            found.setdefault(name, _unpacked(kind, text, path))
    coded = next((found[name] for name in CHUNKS if name in found), None)
    if coded is None:
        raise DataError(
            f"{path}: the PNG holds no character card (no text chunk ccv3 or chara); was the picture saved anew?"
        )
    try:
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{path}: the card in the PNG is not base64; write it again.") from None


def _unpacked(kind: bytes, text: bytes, path: Path) -> bytes:
    """A compressed text chunk, no more of it than a card may have."""
    if kind == b"iTXt":
        packed, rest = text[:1], text[2:].split(b"\0", 2)[-1]
        if packed != b"\1":
            return rest
        text = rest
    else:
        text = text[1:]
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(text, LARGEST_JSON * 2)
    except zlib.error:
        raise DataError(f"{path}: a compressed text of the PNG is broken; write it again.") from None
    if decoder.unconsumed_tail:
        raise DataError(f"{path}: a compressed text of the PNG has more than {LARGEST_JSON * 2:,} bytes; it is no card.")
    return data


def _with_card(picture: bytes, text: bytes, spec: Any, path: Path) -> bytes:
    """The picture with the card in place of the one that it held; all other chunks as they are."""
    if not picture.startswith(PNG):
        raise DataError(f"{path}: the picture is no PNG; give one, or none.")
    names = ("ccv3", "chara") if spec == "chara_card_v3" else ("chara",)
    made = [_chunk(name, base64.b64encode(text)) for name in names]
    kept, out = True, [PNG]
    for kind, content, whole in _chunks(picture, path):
        own = kind in (b"tEXt", b"zTXt", b"iTXt") and content.partition(b"\0")[0].decode("latin-1").casefold() in CHUNKS
        if (own or kind == b"IEND") and kept:
            out += made
            kept = False
        if not own:
            out.append(whole)
    return b"".join(out)


def _chunk(name: str, text: bytes) -> bytes:
    content = b"tEXt" + name.encode() + b"\0" + text
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


# --- CHARX -------------------------------------------------------------------------------------------------------------


def _opened(data: bytes, path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except BROKEN_ZIP as error:
        raise DataError(f"{path}: is no zip file that can be read ({error}); expected a CHARX.") from None
    for member in archive.infolist():
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or ":" in member.filename:
            raise DataError(f"{path}: holds a file called {member.filename!r:.80}, outside of its folder; it take it out.")
    total = sum(member.file_size for member in archive.infolist())
    if total > LARGEST * 4 or len(archive.infolist()) > 10_000:
        raise DataError(f"{path}: unpacks to {total:,} bytes; expected at most {LARGEST * 4:,}.")
    return archive


def _in_zip(data: bytes, path: Path) -> bytes:
    with _opened(data, path) as archive:
        names = [member for member in archive.infolist() if member.filename == "card.json"]
        if len(names) != 1:
            raise DataError(f"{path}: holds {len(names)} files card.json; expected one, as a CHARX has.")
        try:
            with archive.open(names[0]) as file:
                text = file.read(LARGEST_JSON + 1)  # no more, whatever its size is said to be
        except BROKEN_ZIP as error:
            raise DataError(f"{path}: card.json cannot be unpacked ({str(error)[:100]}); write the CHARX again.") from None
    return text


def _zipped(source: bytes | None, text: bytes, path: Path) -> bytes:
    """A zip of the card and the other members of the source, whose contents stay."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(zipfile.ZipInfo("card.json", (1980, 1, 1, 0, 0, 0)), text)
        if source is not None:
            with _opened(source, path) as archive:
                for member in archive.infolist():
                    if member.filename != "card.json":
                        made.writestr(member, archive.read(member))
    return out.getvalue()
