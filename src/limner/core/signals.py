"""Ctrl-C and SIGTERM in the middle of long work: it ends in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(note: Callable[[int], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `note` and nothing else happens; a second one ends the process at once.

    Only the main thread hears signals; elsewhere this does nothing.

    Args:
        note: takes the signal's number. It should only write down that it is time to come to an end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(signum: int, frame: FrameType | None) -> None:
        for s, handler in before.items():
            signal.signal(s, handler)
        note(signum)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    for s in before:
        signal.signal(s, heard)
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
