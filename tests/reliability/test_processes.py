"""The same training in fresh processes, in two ranks, and with any number of workers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import limner
from limner.core.batch import Dataset
from limner.core.run import Run
from limner.core.stream import Stream

from .conftest import QUICK, assert_same_bits, call, command, environment, tensors, words  # noqa: TID252 - tests are no package that could be imported by name

WORKERS = (0, 1, 2, 4)


def test_the_same_seed_gives_the_same_bits_in_fresh_processes(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    started = [
        subprocess.Popen(
            command("train", "cvae-mnist", f"out={run}", *words(train__images=160)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        for run in runs
    ]
    assert [p.wait(timeout=600) for p in started] == [0, 0]
    assert_same_bits(*runs)


def test_two_ranks_equal_one_and_leave_one_run(tmp_path: Path) -> None:
    # Summing a gradient in two halves rounds differently: about 1e-7 a step, which Adam may amplify where a gradient is
    # nearly 0. Running statistics (here of the codes, elsewhere of batch norm) are those of one rank's images, and so
    # are the sums of the line of metrics that has only begun.
    shared = QUICK | {"train.images": 160, "train.batch": 16, "train.checkpoint_images": 80}
    shared |= {"data.limit": 100, "train.score_images": 64}  # only the first rank scores, and all save the best
    two = call(
        "train", "ae-mnist", f"out={tmp_path / 'two'}", *words(**_keywords(shared | {"train.device": "cpu,cpu"}))
    )
    assert two.returncode == 0, two.stderr
    one = limner.train("ae-mnist", out=tmp_path / "one", **shared)
    a, b = tensors(one.path), tensors(tmp_path / "two")
    assert a.keys() == b.keys()
    for key in (k for k in a if "prior." not in k and "meters." not in k):
        torch.testing.assert_close(b[key], a[key], rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    run = Run(tmp_path / "two")
    assert [m["images"] for m in run.metrics()] == [m["images"] for m in one.metrics()]
    assert [m["loss/AE"] for m in run.metrics()] == pytest.approx([m["loss/AE"] for m in one.metrics()], rel=1e-5)
    assert [n for n, _ in run.samples()] == [n for n, _ in one.samples()]
    assert [e["event"] for e in run.events()].count("done") == 1
    assert [e["images"] for e in run.events() if e["event"] == "score"] == [64, 128]
    assert run.best.name in ("00000064", "00000128")
    assert sorted(p.name for p in run.checkpoints.iterdir()) == sorted(p.name for p in one.checkpoints.iterdir())


def _keywords(settings: dict[str, object]) -> dict[str, object]:
    return {k.replace(".", "__"): v for k, v in settings.items()}


def from_files(pictures: Path) -> dict[str, object]:
    """Settings for a folder that is read from files while training, with views that are random."""
    return {"data": str(pictures), "data.size": 16, "data.cache": False, "data.flip": True, "data.shift": 2}


def test_any_number_of_workers_gives_the_same_batches(pictures: Path) -> None:
    dataset: Dataset = limner.data.load(str(pictures), size=16, cache=False, flip=True, shift=2)
    assert dataset.pixels is None
    runs = []
    for workers in WORKERS:
        stream = Stream(dataset, 7, seed=3, workers=workers, position=7)
        runs.append([next(stream) for _ in range(9)])  # into the third epoch, over two ends that are no end of a batch
    for batches in runs[1:]:
        for a, b in zip(runs[0], batches, strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)


def test_any_number_of_workers_gives_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    settings = (
        {k: v for k, v in QUICK.items() if not k.startswith("data")} | from_files(pictures) | {"train.images": 80}
    )
    for workers in WORKERS:
        limner.train("gan-mnist", out=tmp_path / str(workers), **settings | {"train.workers": workers})
    for workers in WORKERS[1:]:
        assert_same_bits(tmp_path / "0", tmp_path / str(workers))
