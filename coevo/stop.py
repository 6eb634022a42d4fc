"""A request to stop, which is SIGTERM: kept at once, or at the end of the step in hand. Without torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """This process was asked to stop, and does. No Exception, as KeyboardInterrupt is none: no library may keep it."""


class _Request:
    asked = False
    deferred = False


_request = _Request()


def asked() -> bool:
    """Whether a request has come since `listening` began."""
    return _request.asked


def obey() -> None:
    """Stops here if a request has come.

    Raises:
        Stopped: it has.
    """
    if _request.asked:
        raise Stopped


@contextmanager
def listening() -> Iterator[None]:
    """Turns SIGTERM into `Stopped` while the block runs. A second one, as a launcher sends after Slurm, changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        # signals reach the main thread alone, and only it may say what is to be done with them
        yield
        return
    before = signal.signal(signal.SIGTERM, _came)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        _request.asked = False


@contextmanager
def finishing() -> Iterator[None]:
    """Keeps a request for the end of the block, which looks at `asked` and ends early.

    Raises:
        Stopped: at the end, if a request has come.
    """
    _request.deferred = True
    try:
        yield
    finally:
        _request.deferred = False
    obey()


def _came(signal_number: int, frame: object) -> None:
    first, _request.asked = not _request.asked, True
    if first and not _request.deferred:
        raise Stopped
