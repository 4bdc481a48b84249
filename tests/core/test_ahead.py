"""Batches that threads read ahead."""

from __future__ import annotations

import threading
import time
from itertools import count

import pytest
import torch

from limner.core.ahead import THREADS, read_ahead


class Slow:
    """A set whose batches take the longer the earlier they are asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.lock = threading.Lock()

    def fetch(self, ids):
        with self.lock:
            self.asked.append(ids[0])
        time.sleep(0.02 if ids[0] % 2 == 0 else 0)
        if ids[0] == 7:
            raise OSError("gone")
        return torch.tensor(ids)


def test_batches_come_in_order_and_few_are_read_before_they_are_asked_for():
    dataset = Slow()
    batches = read_ahead(dataset, ([i] for i in count()))
    assert [int(next(batches)) for _ in range(6)] == list(range(6))
    assert len(dataset.asked) <= 6 + THREADS


def test_an_error_comes_with_its_batch():
    batches = read_ahead(Slow(), ([i] for i in count()))
    assert [int(next(batches)) for _ in range(7)] == list(range(7))
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_the_end_is_the_end():
    assert [int(b) for b in read_ahead(Slow(), ([i] for i in range(3)))] == [0, 1, 2]
