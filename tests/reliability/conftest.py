"""Real processes, as few as possible: each costs the seconds that importing torch takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limner.core.checkpoint import pack, read
from limner.core.run import Run

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "data.size": 16,
    "data.limit": 64,
    "train.batch": 8,
    "train.log_images": 24,
    "train.samples": 4,
    "train.sample_images": 80,
    "train.checkpoint_images": 40,
    "train.device": "cpu",
    "train.threads": 1,
}
"""Settings that make any recipe on digits tiny."""


def words(**more: object) -> list[str]:
    """`QUICK` as arguments of a command line. A double underscore in a keyword stands for a dot."""
    return [f"{k}={v}" for k, v in (QUICK | {k.replace("__", "."): v for k, v in more.items()}).items()]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "limner", *(str(a) for a in arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}


def call(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    """``limner ARGUMENTS`` to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), timeout=600, **more)  # type: ignore[call-overload,no-any-return]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Everything that the newest checkpoint of a run holds."""
    saved = read(Run(run).latest)
    return {f"model.{k}": t for k, t in saved.model.items()} | pack(saved.trainer, "trainer")[0]


def assert_same_bits(run: Path, other: Path) -> None:
    """The newest checkpoints and the metrics of two runs are equal, but for the clock."""
    a, b = tensors(run), tensors(other)
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    clocks = ("seconds", "images_per_second")
    lines = [[{k: v for k, v in m.items() if k not in clocks} for m in Run(r).metrics()] for r in (run, other)]
    assert lines[0] == lines[1]


def until(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 colour images of different sizes in two classes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(30):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16 + i % 3, 18, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restores the number of threads, which trainings in this process change."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
