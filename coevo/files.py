"""What a kill cannot halve: whole files, and a dict on disk that grows line by line; and folders that one process at a time
writes into. Without torch."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from pydantic import TypeAdapter

from coevo.errors import CheckpointError, ConfigError, StorageError

KEY_LENGTH = 32
"""Hexadecimal digits of a key: 128 bits."""
_UNPACK = "unpack it"
_WRITE = "write its content as text"
_CONVERT = "convert it"
_KINDS: tuple[tuple[bytes, str, str, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip", _UNPACK, "gunzip -c {file} > {plain}"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", _UNPACK, "zstd -d -c {file} > {plain}"),
    (b"\xfd7zXZ\0", "is compressed with xz", _UNPACK, "xz -d -c {file} > {plain}"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4", _UNPACK, "lz4 -d -c {file} > {plain}"),
    (b"BZh91AY&SY", "is compressed with bzip2", _UNPACK, "bzip2 -d -c {file} > {plain}"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK, "7z x {file}"),
    (b"PK\x03\x04", "is a zip archive, or a document of an office program, which is one", _UNPACK, "unzip {file}"),
    (b"PAR1\x15", "is a Parquet file", _WRITE, "for example with pandas, read_parquet and to_json"),
    (b"ARROW1\0", "is an Arrow file", _WRITE, "for example with pandas, read_feather and to_json"),
    (b"%PDF-", "is a PDF", _WRITE, "a PDF does not keep the fields"),
    (b"SQLite format 3\0", "is an SQLite database", _WRITE, "for example with sqlite3 -json"),
    (b"version https://git-lfs.github.com/", "is a Git LFS pointer, not the file itself", "get the file", "git lfs pull"),
    # those of UTF-32 first: the mark of UTF-16 is the first half of one of them
    (b"\xff\xfe\0\0", "is UTF-32 text", _CONVERT, "iconv -f UTF-32 -t UTF-8 {file} > {utf8}"),
    (b"\0\0\xfe\xff", "is UTF-32 text", _CONVERT, "iconv -f UTF-32 -t UTF-8 {file} > {utf8}"),
    (b"\xff\xfe", "is UTF-16 text", _CONVERT, "iconv -f UTF-16 -t UTF-8 {file} > {utf8}"),
    (b"\xfe\xff", "is UTF-16 text", _CONVERT, "iconv -f UTF-16 -t UTF-8 {file} > {utf8}"),
)
"""First bytes, what has them, the remedy in words, and its command."""
LOCK_FILE = ".lock"
OUTPUT = "standard output"
"""In place of a file's name, in an error about it."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_TRIES, _PAUSE_S = 5, 0.1
"""At a lock: its holder may just be ending."""


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Writes a file so that a kill or a power cut leaves the old one or the new one: temporary file, fsync, rename.

    Raises:
        StorageError: the disk is full; the old file is still there.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # two processes may write the same report at once
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        fsync(path.parent)
    return path


def only_leftovers(folder: Path, names: Collection[str], whole: Collection[str] = ()) -> bool:
    """Whether a folder has nothing in it but what a kill leaves while these files are written for the first time.

    Args:
        folder: to look at.
        names: of the files.
        whole: those that may be there, as they are written before the one that counts.
    """
    names_there = {file.name for file in folder.iterdir()} - {LOCK_FILE, *whole}
    halves = {name for name in names_there for one in names if name.startswith(f".{one}.") and name.endswith(".tmp")}
    return names_there == halves


def fsync(path: Path) -> None:
    """Has a file or a folder's list of names on disk before it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turns what Python, safetensors and torch say of a full disk into one message that names the file.

    Args:
        path: what is being written; of a folder, some file in it.
        remedy: how to go on, once there is room; where blocks are nested, the outer one's is added.

    Raises:
        StorageError: there was no room.
    """
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{error} {remedy}".strip()) from error
    except Exception as error:
        reason = _no_room(error)
        if reason is None:
            raise
        where = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(where).free // 2**20
        raise StorageError(
            f"{path}: cannot be written: {reason} ({free:,} MiB free there). What was finished before is kept; make room. "
            f"{remedy}".strip()
        ) from error


def _no_room(error: Exception) -> str | None:
    """Why a file could not be written; None of an error about anything else."""
    if getattr(error, "filename", None) == OUTPUT:
        # the progress, not what is being written
        return None
    text = str(error)
    # safetensors and tokenizers raise errors of their own, with the system's number in words
    words = re.search(r"\(os error (\d+)\)", text)
    number = getattr(error, "errno", None) or (int(words[1]) if words else None)
    if number in _NO_SPACE:
        return os.strerror(number)
    # torch's writer of checkpoints does not hand on what the system said
    if isinstance(error, RuntimeError) and re.search(r"PytorchStreamWriter|inline_container\.cc.*unexpected pos", text):
        return "the file could not be written to its end"
    return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other coevo from writing into a folder while the block runs.

    The lock is the process's own (flock): it ends with it, however that ends, and leaves nothing to be cleared away. The
    file says who holds it. A file system without locks is taken as it is.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        if not _claimed(file):
            raise ConfigError(
                f"{folder} is in use by {_holder(file)}. Wait for it, or stop it; two at once would write over each other. "
                "Nothing was changed."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S %Z')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder_of(folder: Path) -> str | None:
    """Who writes into a folder at the moment, in words; None if nobody does."""
    try:
        with (folder / LOCK_FILE).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file)
    except OSError:
        pass
    return None


def _claimed(file: IO[str]) -> bool:
    for attempt in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE_S if attempt + 1 < _TRIES else 0)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return True
    return False


def _holder(file: IO[str]) -> str:
    file.seek(0)
    text = file.read(200).strip()
    return f"another coevo ({text})" if text.isprintable() and text else "another coevo"


def what_it_is(head: bytes, path: Path) -> str | None:
    """What a file is that should be UTF-8 text and begins like something else, with the command that makes it text.

    Args:
        head: its first bytes.
        path: its name, for the command.

    Returns:
        The rest of a sentence that begins with the file's name, or None for what may be text.
    """
    found = next((kind for kind in _KINDS if head.startswith(kind[0])), None) or _bare_utf16(head)
    if found is None:
        return None
    _, what, remedy, command = found
    plain = path.with_suffix("") if path.suffix else path.with_name(f"{path.name}.txt")
    names = {"file": path, "plain": plain, "utf8": path.with_name(f"{path.stem}.utf8{path.suffix}")}
    shown = command.format(**{name: shlex.quote(str(value)) for name, value in names.items()})
    return f"{what}; expected UTF-8 text; {remedy}: {shown}"


def _bare_utf16(head: bytes) -> tuple[bytes, str, str, str] | None:
    """UTF-16 without its mark, of which every other byte is 0 as long as the text is English or JSON's own signs."""
    start = head[:8]
    for order, zeros, others in (("LE", start[1::2], start[::2]), ("BE", start[::2], start[1::2])):
        if len(start) >= 4 and not any(zeros) and all(others):
            return b"", "is UTF-16 text", _CONVERT, f"iconv -f UTF-16{order} -t UTF-8 {{file}} > {{utf8}}"
    return None


def utf8_text(path: Path, most_bytes: int = -1) -> str:
    """A file's text; a byte-order mark is passed over. No more than `most_bytes` are read, if it is not negative.

    Raises:
        ConfigError: it is not UTF-8; says what it is. Or it is longer.
        OSError: it cannot be opened.
        ValueError: a null character in its name.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1 if most_bytes >= 0 else -1)
    found = what_it_is(content, path)
    if found:
        raise ConfigError(f"{path}: {found}.")
    if 0 <= most_bytes < len(content):
        raise ConfigError(f"{path}: has more than {most_bytes:,} bytes; is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}; expected UTF-8; convert the file, for example with "
            "iconv -f ENCODING -t UTF-8."
        ) from None


def content_key(*parts: Any) -> str:
    """A hash of plain values, the same on every machine."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]


class Journal:
    """A dict from content key to a JSON value, in one append-only file; `add` returns when the rows are on disk.

    A last line that a kill cut short is dropped, and `torn_bytes` says how long it was. `shape` is the type that values
    have, as pydantic reads it.

    Raises:
        ConfigError: another process is writing the file.
        CheckpointError: a line in the middle of the file cannot be read, or its value is of another shape.
    """

    def __init__(self, path: Path, writes: bool = True, shape: Any = Any) -> None:
        self._file: IO[bytes] | None = _locked(path) if writes else None
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        self.torn_bytes = len(content) - len(whole)
        row: TypeAdapter[Any] = TypeAdapter(tuple[str, shape])
        self._rows = dict(_parsed(path, number, line, row) for number, line in enumerate(whole.splitlines(), start=1))
        if self._file is not None and self.torn_bytes:
            self._file.truncate(len(whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    def add(self, rows: Mapping[str, Any]) -> None:
        """Keeps new rows."""
        self._rows.update(rows)
        if self._file is not None and rows:
            lines = (json.dumps([key, value], ensure_ascii=False, allow_nan=False) for key, value in rows.items())
            with writing(Path(self._file.name)):
                self._file.write("".join(f"{line}\n" for line in lines).encode())
                self._file.flush()
                os.fsync(self._file.fileno())


def _locked(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"{path.parent.parent} is in use by another coevo; wait, or choose another --out.") from None
    return file


def _parsed(path: Path, number: int, line: bytes, row: TypeAdapter[Any]) -> tuple[str, Any]:
    try:
        row.validate_json(line, strict=True)
        key, value = json.loads(line)
        return str(key), value
    except (ValueError, TypeError):
        raise CheckpointError(
            f"{path}:{number}: not a row of this cache: {line[:60]!r}. The file was edited or damaged; delete it to have "
            "its content computed again."
        ) from None


def file_record(path: Path) -> dict[str, str]:
    """A file that a result rests on: its path and its sha256."""
    with path.open("rb") as file:
        return {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def previous(out: Path, mark: str) -> dict[str, Any] | None:
    """What the folder's last result was asked, or None."""
    path = out / mark
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); delete the file, or choose another --out.") from None
    return record


def check_out(out: Path, mark: str, made_by: str) -> None:
    """Whether results can be written into a folder: a new or empty one, or one with the file `mark`.

    Raises:
        ConfigError: they cannot.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; expected a folder.")
    # a kill at the very beginning leaves the lock
    if out.is_dir() and not only_leftovers(out, [mark]) and not (out / mark).is_file():
        raise ConfigError(f"--out {out} exists, is not empty, and no {made_by} made it; choose another folder.")
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "nothing may be written in it" if above.is_dir() else "it is a file"
        raise ConfigError(f"--out {out} cannot be made in {above}: {reason}; choose another folder.")
