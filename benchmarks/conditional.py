"""limner's step of a conditional GAN against PyTorch-GAN's way of doing it: images per second, side by side.

Ours is `limner train cgan-mlp-mnist` itself, as in `benchmarks/train.py`. Theirs restates what PyTorch-GAN's `cgan.py`
does, without a line of it: digits from a `DataLoader` over PIL images, noise and labels of its own from numpy, G first,
through a D whose weights collect gradients that nobody uses, then the two halves of D's batch one after the other,
`torch.optim.Adam` as it comes, and both losses read at every step. Both train the same nets (G 110-128-256-512-1024-784
and D 794-512-512-512-1), made from the same recipe, with the same batch and threads, in this process. The loss is the
cross-entropy on both sides; theirs has the mean square, which costs the same. A second row leaves the loader away:
their step alone, on images in memory.

    python benchmarks/conditional.py                      both rows, fp32
    python benchmarks/conditional.py --rounds 3 --threads 1
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from train import Pictures, Train, endless, measure

import limner.data
from limner import api

RECIPE = "cgan-mlp-mnist"


class LabelledPictures(Pictures):
    """PIL images with their classes."""

    def __init__(self, pixels: np.ndarray[Any, Any], labels: Tensor, size: int) -> None:
        super().__init__(pixels, size)
        self.labels = labels

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return super().__getitem__(i)[0], int(self.labels[i])


def their_step(prepared: api.Prepared) -> Callable[[Tensor, Tensor], float]:
    model = copy.deepcopy(prepared.model).train()
    G, D, classes = model.G, model.D, model.condition.size
    rates = {group: optimiser.lr for group, optimiser in prepared.optimisers.items()}
    optimiser_G = torch.optim.Adam(G.parameters(), lr=rates["G"], betas=(0.5, 0.999))
    optimiser_D = torch.optim.Adam(D.parameters(), lr=rates["D"], betas=(0.5, 0.999))
    criterion, rng = nn.BCEWithLogitsLoss(), np.random.default_rng(0)

    def step(x: Tensor, y: Tensor) -> float:
        real, fake = torch.ones(len(x)), torch.zeros(len(x))
        optimiser_G.zero_grad()
        z = torch.from_numpy(rng.normal(0, 1, (len(x), G.z))).float()
        own = torch.from_numpy(rng.integers(0, classes, len(x)))
        x_hat = G(z, own)
        loss_G = criterion(D(x_hat, own), real)
        loss_G.backward()
        optimiser_G.step()
        optimiser_D.zero_grad()
        loss_D = (criterion(D(x, y), real) + criterion(D(x_hat.detach(), own), fake)) / 2
        loss_D.backward()
        optimiser_D.step()
        return loss_D.item() + loss_G.item()

    return step


def _raw(prepared: api.Prepared) -> tuple[Tensor, Tensor]:
    """Grey values (N,H,W) and classes (N,)."""
    source = limner.data.load(prepared.dataset.name)
    indices = range(len(prepared.dataset))
    return source.fetch(indices)[:, 0], source.labels[list(indices)]


def pytorch_gan(prepared: api.Prepared) -> Train:
    """The whole of it: a loader of pictures and the step."""
    step, (pixels, labels) = their_step(prepared), _raw(prepared)
    pictures = LabelledPictures(pixels.numpy(), labels, prepared.dataset.shape[1])
    batches = endless(DataLoader(pictures, batch_size=prepared.options.batch, shuffle=True))

    def train(steps: int) -> int:
        seen = 0
        for _ in range(steps):
            x, y = next(batches)
            step(x, y)
            seen += len(x)
        return seen

    return train


def in_memory(prepared: api.Prepared) -> Train:
    """The step alone, on images in memory."""
    step, (pixels, labels) = their_step(prepared), _raw(prepared)
    x = pixels[:, None].float().div(127.5).sub(1)

    def train(steps: int) -> int:
        for _ in range(steps):
            i = torch.randint(len(x), (prepared.options.batch,))
            step(x[i], labels[i])
        return steps * prepared.options.batch

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads of {os.cpu_count()} cores ({platform.machine()})")
    print(f"{'against':<12}{'':>5}{'ours':>8}{'theirs':>8}  images/s{'ratio':>8}  lowest–highest{'cpu ratio':>11}")
    for precision in options.precision:
        for peer in (pytorch_gan, in_memory):
            r = measure(RECIPE, RECIPE, {}, peer, precision, options.rounds)
            rates = f"{r.ours:>8.0f}{r.theirs:>8.0f}{'':>10}{r.ratio:>8.2f}  {r.low:>6.2f}–{r.high:<7.2f}"
            print(f"{r.against:<12}{precision:>5}{rates}{r.processor_ratio:>11.2f}", flush=True)


if __name__ == "__main__":
    main()
