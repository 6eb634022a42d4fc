"""Standard output and error that a run outlives: where nobody reads them any more, what is written goes nowhere."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from coevo.files import OUTPUT

_NOBODY_READS = (errno.EPIPE, errno.EIO)
"""Of a pipe whose reader has ended, as `head` does, and of a terminal that was closed."""


class _Enduring(io.FileIO):
    def write(self, content, /):  # type: ignore[no-untyped-def]
        """As a file's, until nobody reads: from then on for libraries and child processes too.

        Raises:
            OSError: the disk that standard output is written to is full; once, as what is left is met again at the end.
        """
        try:
            return super().write(content)
        except OSError as error:
            _to_nowhere(self.fileno())
            # of standard error nobody could be told
            if error.errno not in _NOBODY_READS and self.fileno() != 2:
                raise OSError(error.errno, error.strerror, OUTPUT) from None
            return super().write(content)


def settle() -> None:
    """Has every later write to standard output and error succeed whether or not somebody reads, or they are open at all.

    A run of many hours must not end because the reader of its progress has. Streams that a caller has put in their place
    are left alone.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # else the next file that is opened has this number, and what a library prints would be written into it
            _to_nowhere(descriptor)
    if sys.stdout is sys.__stdout__:
        # a terminal that cannot show a name shows its escape
        sys.stdout = _stream(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr)


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    raw = _Enduring(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )
