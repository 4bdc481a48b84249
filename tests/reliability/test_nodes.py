"""Several machines by torchrun: each process reads its share of the files; together they draw one process's batches."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import limner
from limner.core.ahead import THREADS
from limner.core.batch import Dataset
from limner.core.stream import Stream

from .conftest import environment  # noqa: TID252 - tests are no package that could be imported by name

BATCH, STEPS = 8, 9  # over two ends of the 30 pictures, which are no ends of a batch


def load(pictures: Path) -> Dataset:
    return limner.data.load(str(pictures), size=16, split="all", cache=False, flip=True, shift=2)


class Counting:
    """A set that remembers which of its images were read."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.read = dataset, []

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices):
        self.read += [int(i) for i in indices]
        return self.dataset.fetch(indices)

    def parts(self):
        return (self,)


@pytest.mark.parametrize("world", [2, 4])
def test_each_rank_reads_its_share(pictures, world):
    one = Stream(load(pictures), BATCH, seed=3)
    sets = [Counting(load(pictures)) for _ in range(world)]
    ranks = [Stream(s, BATCH, seed=3, rank=r, world=world) for r, s in enumerate(sets)]
    for _ in range(STEPS):
        whole, parts = next(one), [next(stream) for stream in ranks]
        assert torch.equal(torch.cat([p.x for p in parts]), whole.x)
        assert torch.equal(torch.cat([p.y for p in parts]), whole.y)
    for dataset, stream in zip(sets, ranks):
        (reader,) = stream.readers
        share = [i for step in range(STEPS) for i in reader.sampler.indices(step * BATCH)[1].tolist()]
        assert set(share) <= set(dataset.read)
        ahead = len(dataset.read) - len(share)
        assert ahead <= (THREADS + 1) * BATCH // world, "a few batches ahead, of its own share too"


_SCRIPT = """
import os, sys
import torch, torch.distributed as td
import limner
from limner.core import dist
from limner.core.stream import Stream

dist.join(torch.device("cpu"))
dataset = dist.in_turn(lambda: limner.data.load(sys.argv[1], size=16, split="all", cache=False, flip=True, shift=2))
stream = Stream(dataset, {batch}, seed=3, rank=dist.rank(), world=dist.world())
batches = []
for _ in range({steps}):
    x, y = next(stream)
    xs, ys = ([torch.empty_like(t) for _ in range(dist.world())] for t in (x, y))
    td.all_gather(xs, x.contiguous()), td.all_gather(ys, y)
    batches.append((torch.cat(xs), torch.cat(ys)))
if dist.rank() == 0:
    one = Stream(dataset, {batch}, seed=3)
    for whole, (x, y) in zip(one, batches):
        assert torch.equal(whole.x, x) and torch.equal(whole.y, y)
    print("equal on", dist.world(), "ranks")
dist.leave()
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 2])
def test_two_nodes_draw_what_one_process_draws(pictures, tmp_path, each):
    """Two agents of torchrun, as on two machines, with one or two processes each."""
    script, port = tmp_path / "gather.py", free_port()
    script.write_text(_SCRIPT.format(batch=BATCH, steps=STEPS), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={each}"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    agents = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={node}", str(script), str(pictures)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | {"LIMNER_CACHE": str(tmp_path / f"cache{node}")},
        )
        for node in (0, 1)
    ]
    results = [agent.communicate(timeout=600) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], results
    assert f"equal on {2 * each} ranks" in results[0][0]
