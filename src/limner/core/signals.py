"""Orderly ends of long tasks after Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(callback: Callable[[int], None]) -> Iterator[None]:
    """Calls `callback` at the first SIGINT or SIGTERM, instead of ending the process; a second signal ends it.

    Python delivers signals to the main thread only; in other threads this context does nothing.

    Args:
        callback: takes the signal's number. It should only note that the task must stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        for s, handler in before.items():
            signal.signal(s, handler)
        callback(signum)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    for s in before:
        signal.signal(s, handle)
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
