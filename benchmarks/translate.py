"""pix2pix and CycleGAN in limner's loop against the plain formulation of their steps: pairs per second, side by side.

Ours is `limner train` itself, as in `train.py`, whose rounds and clocks these are. The plain formulation is the usual
one, restated here over the same nets with the same batch and threads: one pass for every picture, discriminators frozen
and thawed by `requires_grad_`, `torch.optim.Adam` as it comes, a pool of pictures in a Python list, `.item()` of every
loss. Both sides have their pictures in memory. The bars for batches of one are ×1.2 (pix2pix) and ×1.15 (CycleGAN), and
×1.5 for both in bf16.

    python benchmarks/translate.py                      every row, fp32 and bf16
    python benchmarks/translate.py --models cyclegan-64 --rounds 7
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from train import Train, measure

from limner import api
from limner.core.batch import to_float
from limner.core.model import GenerativeModel

PATCH = {"name": "patchgan.Discriminator", "norm": "instance"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "pix2pix-128": (
        "pix2pix-facades",
        {"data": {"name": "pairs", "path": "mnist-5k", "task": "denoise", "size": 128, "channels": 3, "limit": 64}},
    ),
    "pix2pix-128 batch 4": (
        "pix2pix-facades",
        {
            "data": {"name": "pairs", "path": "mnist-5k", "task": "denoise", "size": 128, "channels": 3, "limit": 64},
            "train.batch": 4,
            "model.G.norm": "instance",
            "model.D.norm": "instance",
        },
    ),
    "cyclegan-64": (
        "cyclegan-emoji",
        {
            "data": {"name": "domains", "a": "mnist-5k", "b": "digits", "size": 64, "channels": 3, "limit": 64},
            "train.batch": 1,
            **{f"model.{g}.width": 64 for g in "GF"},
            **{f"model.{g}.blocks": 6 for g in "GF"},
            "model.D_X": PATCH | {"width": 64, "patch": 34},
            "model.D_Y": PATCH | {"width": 64, "patch": 34},
        },
    ),
}


def frozen(nets: list[nn.Module], frozen_: bool) -> None:
    for net in nets:
        for p in net.parameters():
            p.requires_grad_(not frozen_)


def pix2pix(model: GenerativeModel) -> Callable[[Tensor, Tensor], float]:
    G, D = model.G, model.D
    adam_G, adam_D = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (G, D))
    bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step(a: Tensor, b: Tensor) -> float:
        y = G(a)
        frozen([D], False)
        adam_D.zero_grad()
        fake, real = D(torch.cat([a, y], 1).detach()), D(torch.cat([a, b], 1))
        loss_D = (bce(fake, torch.zeros_like(fake)) + bce(real, torch.ones_like(real))) * 0.5
        loss_D.backward()
        adam_D.step()
        frozen([D], True)
        adam_G.zero_grad()
        fake = D(torch.cat([a, y], 1))
        loss_G = bce(fake, torch.ones_like(fake)) + 100 * l1(y, b)
        loss_G.backward()
        adam_G.step()
        return loss_D.item() + loss_G.item()

    return step


def cyclegan(model: GenerativeModel) -> Callable[[Tensor, Tensor], float]:
    G, F, D_X, D_Y = model.G, model.F, model.D_X, model.D_Y
    both = [itertools.chain(a.parameters(), b.parameters()) for a, b in ((G, F), (D_X, D_Y))]
    adam_G, adam_D = (torch.optim.Adam(p, lr=2e-4, betas=(0.5, 0.999)) for p in both)
    mse, l1, pools = nn.MSELoss(), nn.L1Loss(), ([], [])

    def pooled(pool: list[Tensor], images: Tensor) -> Tensor:
        shown = []
        for image in images.detach().split(1):
            if len(pool) < 50:
                pool.append(image)
                shown.append(image)
            elif random.random() < 0.5:
                i = random.randrange(50)
                shown.append(pool[i].clone())
                pool[i] = image
            else:
                shown.append(image)
        return torch.cat(shown)

    def critic(D: nn.Module, real: Tensor, fake: Tensor) -> float:
        on_real, on_fake = D(real), D(fake)
        loss = (mse(on_real, torch.ones_like(on_real)) + mse(on_fake, torch.zeros_like(on_fake))) * 0.5
        loss.backward()
        return loss.item()

    def step(x: Tensor, y: Tensor) -> float:
        fake_y = G(x)
        back_x = F(fake_y)
        fake_x = F(y)
        back_y = G(fake_x)
        frozen([D_X, D_Y], True)
        adam_G.zero_grad()
        same = (l1(G(y), y) + l1(F(x), x)) * 5
        on_y, on_x = D_Y(fake_y), D_X(fake_x)
        gan = mse(on_y, torch.ones_like(on_y)) + mse(on_x, torch.ones_like(on_x))
        loss_G = gan + (l1(back_x, x) + l1(back_y, y)) * 10 + same
        loss_G.backward()
        adam_G.step()
        frozen([D_X, D_Y], False)
        adam_D.zero_grad()
        loss_D = critic(D_Y, y, pooled(pools[0], fake_y)) + critic(D_X, x, pooled(pools[1], fake_x))
        adam_D.step()
        return loss_D + loss_G.item()

    return step


STEPS = {"pix2pix": pix2pix, "cyclegan": cyclegan}


def plain(prepared: api.Prepared) -> Train:
    """The usual step on pictures in memory."""
    model = copy.deepcopy(prepared.model).train()
    step, data, batch = STEPS[prepared.recipe.model.name](model), prepared.dataset, prepared.options.batch
    if prepared.recipe.model.name == "pix2pix":
        a, b = data.pairs(range(len(data)))
    else:
        a, b = (to_float(part.fetch(range(len(part)))) for part in (data.a, data.b))

    def train(steps: int) -> int:
        for _ in range(steps):
            i = torch.randint(len(a), (batch,))
            j = i if prepared.recipe.model.name == "pix2pix" else torch.randint(len(b), (batch,))
            step(a[i], b[j])
        return steps * batch

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = []
    print(f"torch {torch.__version__}, {options.threads} threads; pairs a second, ours × plain (of processor time)")
    for name in options.models:
        for precision in options.precision:
            source, settings = MODELS[name]
            row = measure(name, source, settings, plain, precision, options.rounds)
            found.append(row)
            print(
                f"{name:<20} {precision}  batch {row.batch}  {row.ours:6.2f} against {row.theirs:6.2f}:"
                f" ×{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}; ×{row.processor_ratio:.2f}),"
                f" others {row.others:.0%}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
