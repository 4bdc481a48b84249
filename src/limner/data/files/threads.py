"""A few threads that read ahead, because Pillow and the file system release the interpreter lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_BLOCK = 16  # items of one task, so that a task costs more than its bookkeeping


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Maps in order with a few threads. At most some hundred results wait to be taken, however many items there are."""
    n = min(8, os.cpu_count() or 1)
    iterator = iter(items)
    with ThreadPoolExecutor(n) as pool:
        running: deque[Future[list[R]]] = deque()
        while block := list(islice(iterator, _BLOCK)):
            running.append(pool.submit(lambda block: [function(item) for item in block], block))
            if len(running) > 2 * n:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
