"""Speed and memory of StyleGAN2's training step: the activation form against convolutions of one group per image.

    python benchmarks/stylegan.py                    32 and 64 pixels, one thread
    python benchmarks/stylegan.py --sizes 32 --steps 8 --device cuda

Public code scales the weights of a modulated convolution for each image and computes one convolution of B groups;
limner scales the maps before and after one ordinary convolution, with the same result
(`tests/nets/test_stylegan2.py`). Here one and the same step of limner's model is timed with either. A cycle of 16 steps
has one R1 and four path lengths, as in a training. Both forms start from the same weights, and their images are
compared first. On a CPU the time is that of the processor, so that other programs matter less.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from math import prod, sqrt
from multiprocessing import get_context

import torch
from torch import Tensor
from torch.nn import functional as F

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.optimisers import Adam
from limner.core.update import Updates
from limner.nets import stylegan2

SIZES = (32, 64)
WIDTH, WIDEST = 32, 128  # channels of the largest map, and of the smallest
BATCH = 16


def grouped(self: stylegan2._ModulatedConv, x: Tensor, s: Tensor) -> Tensor:
    """`_ModulatedConv.forward` in the weight form: eq. 1 and 3 of the paper, with B groups."""
    w = self.weight[None] * s[:, None, :, None, None]  # (B,O,I,k,k)
    if self.demodulate:
        w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    else:
        w = w / sqrt(prod(self.weight.shape[1:]))
    b, flat = len(x), x.reshape(1, -1, *x.shape[2:])
    if self.up is None:
        h = F.conv2d(flat, w.flatten(0, 1), padding=w.shape[-1] // 2, groups=b).unflatten(1, (b, -1))[0]
    else:
        h = F.conv_transpose2d(flat, w.transpose(1, 2).flatten(0, 1), stride=2, groups=b).unflatten(1, (b, -1))[0]
        h = self.up.blur(h, 1, gain=4)
    return self.gain * (h + self.bias[:, None, None])


class Batches:
    """A stream of one batch of noise, with new noise for each step."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.images = Images(torch.rand(BATCH, 3, size, size, device=device) * 2 - 1)
        self.batch, self.position, self.device = BATCH, 0, device

    def __next__(self) -> Images:
        self.position += BATCH
        return self.images

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, device=self.device)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(*size, device=self.device)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position), device=self.device)


def measured(size: int, form: str, steps: int, device: str) -> tuple[float, float, Tensor]:
    """Images a second, peak memory in MB, and an image of the first weights."""
    torch.set_num_threads(1)
    sizes = {"width": WIDTH, "widest": WIDEST}
    tree = {
        "name": "stylegan2",
        "G": {"name": "stylegan2.Generator", "z": 128, "w": 128, "mapping": 4, **sizes},
        "D": {"name": "stylegan2.Discriminator", **sizes},
    }
    torch.manual_seed(0)
    model = Spec.parse("model", tree).resolve(shape=(3, size, size), classes=0, condition=None).build().to(device)
    if form == "grouped":
        stylegan2._ModulatedConv.forward = grouped  # type: ignore[method-assign]
    update = Updates(model.groups(), {"*": Adam(lr=2.5e-3, betas=(0.0, 0.99))})
    data = Batches(size, torch.device(device))
    with torch.no_grad():
        first = model.decode(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)).to(device)).cpu()

    def cycle() -> float:
        started = time.process_time() if device == "cpu" else time.perf_counter()
        for _ in range(steps):
            model.step(data, update)
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.process_time() if device == "cpu" else time.perf_counter()) - started

    cycle()
    seconds = min(cycle() for _ in range(2))
    memory = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 2**20
    )
    return BATCH * steps / seconds, memory, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--steps", type=int, default=16, help="steps of a cycle; 16 have the share of R1 of a training")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    unit = "processor" if args.device == "cpu" else "clock"
    for size in args.sizes:
        results = {}
        for form in ("activation", "grouped"):
            with get_context("spawn").Pool(1) as pool:  # a process each, for the peak of its memory
                results[form] = pool.apply(measured, (size, form, args.steps, args.device))
        (a, ma, xa), (g, mg, xg) = results["activation"], results["grouped"]
        print(f"{size} px, batch {BATCH}: activation form {a:.1f} images per {unit} second, {ma:.0f} MB;", end=" ")
        print(f"grouped {g:.1f}, {mg:.0f} MB; ratio {a / g:.2f}; images differ by {(xa - xg).abs().max():.1e} at most")


if __name__ == "__main__":
    main()
