"""Trains the net behind `limner.evaluation.factors.factor_reader` and writes its file.

    python benchmarks/factor_reader.py --out sprites.safetensors
    python benchmarks/factor_reader.py --check        accuracy of the file that limner ships, on the 1,152 test images

The 10,368 training images of mini-dSprites, each anew in every epoch turned by up to 8°, resized by up to 4 % and moved
by up to 0.6 pixels (less than half a step of each factor), then blurred, dimmed and covered with noise: what comes out
of a generator lies between the grid's values and is softer than a rendered sprite. Batch norm, which is folded into the
convolutions in the end; AdamW with one cycle of the learning rate; a fixed number of epochs, and the last weights. The
test images select nothing. A square and an ellipse repeat after half a turn or less: their angles are learnt and
compared modulo that (`limner.evaluation.factors.canonical`). A new file has other bits: whoever ships it gives it
another key and writes its sha256, which is printed, into `limner/evaluation/factors.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from norms import folded, with_norms
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

import limner.data
from limner.core.batch import to_float
from limner.data.datasets import Pixels
from limner.data.sources.factors import NAMES, SIZES
from limner.evaluation.factors import _Reader, canonical, decode_logits, factor_reader


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images (B,1,32,32) through a Gaussian of `sigma` pixels; black lies around them."""
    if sigma < 0.05:
        return x
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma) ** 2)
    taps = taps / taps.sum()
    return F.conv2d(F.conv2d(x + 1, taps.view(1, 1, 1, 7), padding=(0, 3)), taps.view(1, 1, 7, 1), padding=(3, 0)) - 1


def softened(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B,1,32,32) as a generator might have drawn them."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (len(x),)), generator=generator)

    turn, size = uniform(-math.pi * 8 / 180, math.pi * 8 / 180), 1 + uniform(-0.04, 0.04)
    # in normalised coordinates the image is 2 wide; turning and resizing about the middle of the image would move a
    # sprite that lies elsewhere, so both are about its own centre of mass
    light = (x[:, 0] + 1) / 2
    axis = (torch.arange(32) + 0.5) / 16 - 1
    mass = light.sum((1, 2))
    centre = torch.stack([(light.sum(1) * axis).sum(1), (light.sum(2) * axis).sum(1)], 1) / mass[:, None]
    cos, sin = torch.cos(turn) / size, torch.sin(turn) / size
    matrix = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    shift = centre - (matrix @ centre[:, :, None])[:, :, 0] + uniform(-0.6, 0.6, len(x), 2) / 16
    grid = F.affine_grid(torch.cat([matrix, shift[:, :, None]], 2), list(x.shape), align_corners=False)
    x = F.grid_sample(x + 1, grid, align_corners=False) - 1
    halves = x.split((len(x) + 3) // 4)
    x = torch.cat([blurred(h, float(uniform(0, 1.2, 1))) for h in halves])
    light = (x + 1) / 2 * uniform(0.6, 1.0)[:, None, None, None] + uniform(0, 0.1)[:, None, None, None]
    noise = uniform(0, 0.15)[:, None, None, None] * torch.randn(x.shape, generator=generator)
    return (2 * light - 1 + noise).clamp(-1, 1)


def loss(logits: Tensor, factors: Tensor) -> Tensor:
    parts = logits.split(SIZES, 1)
    return torch.stack([F.cross_entropy(l, factors[:, k]) for k, l in enumerate(parts)]).sum()


def train(x: Tensor, factors: Tensor, epochs: int, batch: int, lr: float, seed: int) -> _Reader:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    trained = with_norms(_Reader()).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(trained.parameters(), lr, weight_decay=1e-2, fused=True)
    each = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, epochs * each, pct_start=0.2)
    began = time.monotonic()
    for epoch in range(epochs):
        order, total = torch.randperm(len(x), generator=generator), 0.0
        for ids in order[: each * batch].split(batch):
            found = loss(trained(softened(x[ids], generator)), factors[ids])
            optimiser.zero_grad()
            found.backward()
            optimiser.step()
            schedule.step()
            total += float(found.detach())
        print(f"epoch {epoch + 1:3d}  {time.monotonic() - began:4.0f} s  loss {total / each:.4f}", flush=True)
    return folded(trained.eval().to(memory_format=torch.contiguous_format))


def table(split: str) -> tuple[Tensor, Tensor]:
    """Images (N,1,32,32) in [-1,1] and canonical factors (N,5)."""
    data = limner.data.load("mini-dsprites", split=split)
    assert isinstance(data, Pixels)
    assert data.pixels is not None
    assert data.factors is not None
    return to_float(data.pixels), canonical(data.factors)


@torch.inference_mode()
def accuracy(net: nn.Module, x: Tensor, factors: Tensor) -> dict[str, float]:
    """Share of images read right, for each factor."""
    found = torch.cat([decode_logits(net(part)) for part in x.split(512)])
    return dict(zip(NAMES, (found == factors).double().mean(0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    x_test, test = table("test")
    soft = softened(x_test, torch.Generator().manual_seed(1))
    if chosen.check:
        shipped = factor_reader()
        for name, images in (("as rendered", x_test), ("softened", soft)):
            right = (shipped.read(images) == test).double().mean(0).tolist()
            shares = ", ".join(f"{n} {share:.4f}" for n, share in zip(NAMES, right, strict=True))
            print(f"{shipped.key}, {len(test)} test images {name}: {shares}")
        return
    net = train(*table("train"), chosen.epochs, chosen.batch, chosen.lr, chosen.seed)
    about = {
        "trained_on": "10,368 training images of mini-dsprites, turned, resized and moved by less than half a step of a"
        " factor, blurred, dimmed and with noise",
        "recipe": f"benchmarks/factor_reader.py, {chosen.epochs} epochs of batches of {chosen.batch}, AdamW"
        f" {chosen.lr:g}, one cycle, seed {chosen.seed}",
        "accuracy_test": accuracy(net, x_test, test),
        "accuracy_test_softened": accuracy(net, soft, test),
        "angles": "modulo half a turn for squares and ellipses, which repeat",
        "test_images": len(test),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    content = save({k: v.contiguous() for k, v in net.state_dict().items()}, {"about": json.dumps(about)})
    print(json.dumps(about, indent=1))
    print(f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    if chosen.out:
        chosen.out.write_bytes(content)


if __name__ == "__main__":
    main()
