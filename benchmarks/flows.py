"""A training step of Glow against normflows: the same sizes, in turn, in one process.

Both have L scales of K steps (activation norm, 1×1 convolution by PLU, affine coupling with kernels of 3, 1 and 3 and a
scale by the sigmoid); normflows is built as in its example of Glow, with a normal base of its own at each scale. A step
is the log-likelihood of a dequantised batch, its gradient, and Adam. limner's is the step of the model with its
updates, a clipped gradient and its norm included, in the memory format of its recipes, channels last; normflows's is
`forward_kld` and `torch.optim.Adam` as they come. The sides alternate; what counts is the median over rounds of the
ratio of processor seconds.

    pip install --no-deps normflows
    python benchmarks/flows.py --rounds 9

normflows: Stimper et al. 2023, *normflows: a PyTorch package for normalizing flows*, arXiv:2302.12014.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from limner.core.batch import Images
from limner.core.optimisers import Adam
from limner.core.update import Updates
from limner.losses.dequantise import LEVEL
from limner.models.glow import Glow
from limner.nets import glow


class Size(NamedTuple):
    """Sizes of a Glow and its batch."""

    shape: tuple[int, int, int]
    levels: int
    steps: int
    width: int
    batch: int


SIZES = {"digits": Size((1, 28, 28), 2, 8, 64, 32), "colour": Size((3, 32, 32), 3, 8, 128, 16)}


class Batches:
    """The same batch, over and over."""

    position = 0

    def __init__(self, x: Tensor) -> None:
        self.x, self.batch = x, len(x)

    def __next__(self) -> Images:
        return Images(self.x)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(size)


def ours(size: Size, x: Tensor, bf16: bool) -> tuple[Callable[[], object], int]:
    """A step of limner, and its parameters."""
    F = glow.Flow(size.width, size.steps, size.levels, shape=size.shape).to(memory_format=torch.channels_last)
    model, data = Glow(F, shape=size.shape), Batches(x)
    model.warm_up(data)
    update = Updates(model.groups(), {"F": Adam(lr=1e-4, clip=1.0)})

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model.step(data, update)

    return step, sum(p.numel() for p in F.parameters())


def theirs(size: Size, x: Tensor) -> tuple[Callable[[], object], int]:
    """A step of normflows, and its parameters."""
    import normflows as nf

    (c, h, w), levels = size.shape, size.levels
    bases, flows, merges = [], [], []
    for i in range(levels):
        blocks = [nf.flows.GlowBlock(c * 2 ** (levels + 1 - i), size.width) for _ in range(size.steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        k = levels - i
        if i:
            merges.append(nf.flows.Merge())
        bases.append(nf.distributions.DiagGaussian((c * 2 ** (k + 1 if i == 0 else k), h >> k, w >> k)))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        loss = model.forward_kld(x + (torch.rand_like(x) - 0.5) * LEVEL)
        loss.backward()
        optimiser.step()

    step()  # its activation norms are set by the first pass
    return step, sum(p.numel() for p in model.parameters())


def seconds(step: Callable[[], object], steps: int) -> float:
    """Processor seconds of some steps."""
    start = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bf16", action="store_true", help="limner with train.precision=bf16; normflows has no such")
    parser.add_argument("--steps", type=int, default=3, help="steps in a row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sizes:
        size = SIZES[name]
        torch.manual_seed(0)
        x = torch.randint(0, 256, (size.batch, *size.shape)) / 127.5 - 1
        (a, n), (b, m) = ours(size, x, args.bf16), theirs(size, x)
        seconds(a, 1), seconds(b, 1)
        times = [(seconds(a, args.steps), seconds(b, args.steps)) for _ in range(args.rounds)]
        ratios = sorted(t / o for o, t in times)
        row = {
            "size": name,
            "precision": ["bf16" if args.bf16 else "fp32", "fp32"],
            "parameters": [n, m],
            "images_per_second": [
                round(size.batch * args.steps / statistics.median(t[k] for t in times), 1) for k in (0, 1)
            ],
            "ratio": round(statistics.median(ratios), 2),
            "range": [round(ratios[0], 2), round(ratios[-1], 2)],
            "rounds": args.rounds,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
