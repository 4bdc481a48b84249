"""Batches of files that threads read while the step before them runs.

Decoders and file systems release the interpreter lock, so the threads of one process suffice for small images. The
batches come in the order of their indices, whichever thread is ready first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from limner.core.batch import Dataset

THREADS = min(4, os.cpu_count() or 1)
"""Threads that read; each reads a whole batch."""


def read_ahead(dataset: Dataset, indices: Iterable[list[int]], pinned: bool = False) -> Iterator[Tensor]:
    """The items of each list of indices, as `Dataset.fetch` gives them.

    Args:
        dataset: the data set; its `fetch` is called by several threads at once.
        indices: the indices of each batch; they may be endless.
        pinned: in page-locked memory, from which a copy to a CUDA device need not be waited for.
    """

    def fetch(ids: list[int]) -> Tensor:
        items = dataset.fetch(ids)
        return items.pin_memory() if pinned else items

    waiting: deque[Future[Tensor]] = deque()
    pool = ThreadPoolExecutor(THREADS, "limner-read")
    try:
        for ids in indices:
            waiting.append(pool.submit(fetch, ids))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False)  # few batches wait; at the end of the program they could not be cancelled any more
