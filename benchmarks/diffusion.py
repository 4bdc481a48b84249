"""limner's diffusion models against denoising-diffusion-pytorch (ddp): images per second, side by side.

`step` is one training step of `model.step` with limner's stream and updates, on images in memory, beside
`GaussianDiffusion` with the optimiser step of its `Trainer`, restated here, on the same images in memory. ddp has
once the very same net (a copy, in the memory format that it has there), and once its own `Unet`, of about as many
operations. `loop` is `limner train` itself beside ddp's own `Trainer`, on one folder of PNG files, with the same net
and batch, and with the average of the weights on both sides; only sample sheets and checkpoints are put off.

The two sides alternate chunk by chunk in one process, and what counts is the median over rounds of the ratio. The ratio
of processor seconds stands beside it for the step, since that is what a busy machine disturbs least; the loop has none,
since ddp reads its files in other processes.

    pip install --no-deps denoising-diffusion-pytorch ema-pytorch accelerate einops pytorch-fid torchvision
    python benchmarks/diffusion.py
    python benchmarks/diffusion.py --parts step --rounds 9 --threads 1
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import train as loops
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train import Chunk, Clock, Row, Train

import limner.data
from limner import api
from limner.config import recipe as recipes
from limner.core.model import GenerativeModel
from limner.core.stream import Stream
from limner.core.update import Updates

UNCONDITIONAL = {"model.F.conditional": False, "optim.F.clip": 1.0}  # ddp's Unet has no classes, its Trainer clips at 1
RECIPES = {"ddpm-mnist": "pred_noise", "rectified-flow-mnist": "pred_v"}  # with what ddp predicts in its place
DIM = 24  # of ddp's Unet (1, 2, 2): 0.326 GFLOP an image of 28×28, where UNet(32, (1, 2, 2)) has 0.340

NETS = {"same": "the same net", "own": f"its Unet({DIM})"}


# ---- denoising-diffusion-pytorch -----------------------------------------------------------------------------------


def ddp() -> Any:
    """The package. PyPI's torchvision lacks its operators beside a torch for CPUs alone; nothing here calls them."""
    if not torch.cuda.is_available():
        sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("not needed"))
    import denoising_diffusion_pytorch

    return denoising_diffusion_pytorch


class SameNet(nn.Module):
    """A net of limner as ddp calls one: with indices of 1,000 noise levels."""

    self_condition = False

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.channels = self.out_dim = net.shape[0]

    def forward(self, x: Tensor, time: Tensor, _: Tensor | None = None) -> Tensor:
        """The prediction for images x with indices `time` (B,)."""
        return self.net(x, time / 1000)


def gaussian_diffusion(net: nn.Module, prepared: api.Prepared) -> Any:
    """Ddp's model around a net, with the objective that stands for the recipe's."""
    objective = RECIPES[prepared.recipe.model.name.replace("_", "-") + "-mnist"]
    schedule = "linear" if objective == "pred_noise" else "sigmoid"
    return ddp().GaussianDiffusion(
        net, image_size=prepared.dataset.shape[1:], objective=objective, beta_schedule=schedule
    )


def their_step(net: nn.Module, prepared: api.Prepared) -> Train:
    """The optimiser step of ddp's Trainer on images in memory."""
    model, batch = gaussian_diffusion(net, prepared), prepared.options.batch
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
    x = prepared.dataset.fetch(range(len(prepared.dataset))).float() / 255

    def train(steps: int) -> int:
        for _ in range(steps):
            loss = model(x[torch.randint(len(x), (batch,))])
            loss.item()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
        return steps * batch

    return train


def their_net(prepared: api.Prepared) -> nn.Module:
    """Ddp's own net, of about as many operations as the recipe's."""
    return ddp().Unet(DIM, dim_mults=(1, 2, 2), channels=prepared.dataset.shape[0])


def same_net_in_trainer(prepared: api.Prepared) -> Train:
    return trainer(SameNet(prepared.model.F), prepared)


def their_net_in_trainer(prepared: api.Prepared) -> Train:
    return trainer(their_net(prepared), prepared)


def trainer(net: nn.Module, prepared: api.Prepared) -> Train:
    """Ddp's Trainer on the folder of the recipe."""
    model = gaussian_diffusion(net, prepared)
    fixed = {"calculate_fid": False, "augment_horizontal_flip": False, "save_and_sample_every": loops.NEVER}
    theirs = ddp().Trainer(
        model,
        prepared.recipe.to_dict()["data"]["path"],
        train_batch_size=prepared.options.batch,
        train_lr=1e-3,
        results_folder=tempfile.mkdtemp(),
        **fixed,
    )

    def train(steps: int) -> int:
        theirs.train_num_steps = theirs.step + steps
        theirs.train()
        return steps * prepared.options.batch

    return train


# ---- limner --------------------------------------------------------------------------------------------------------


def prepare(name: str, settings: dict[str, Any], precision: str = "fp32") -> api.Prepared:
    fixed = {"train.precision": precision, "train.device": "cpu", "train.threads": torch.get_num_threads()}
    return api.prepare(recipes.load(name, UNCONDITIONAL | settings | fixed))


def our_step(prepared: api.Prepared) -> Train:
    """`model.step` with the stream and the updates of a training."""
    model: GenerativeModel = prepared.model.to(memory_format=torch.channels_last).train()
    update = Updates(model.groups(), prepared.optimisers)
    stream = Stream(prepared.dataset, prepared.options.batch, channels_last=True)

    def train(steps: int) -> int:
        for _ in range(steps):
            stream.begin()
            model.step(stream, update)
        return steps * stream.batch

    return train


# ---- measuring -----------------------------------------------------------------------------------------------------


def alternate(ours: Train, theirs: Train, rounds: int, steps: int) -> list[tuple[Chunk, Chunk]]:
    """Rounds of `steps` steps of ours and theirs in turn, after a chunk of warming up."""
    pairs = []
    for _ in range(rounds + 1):
        chunks = []
        for side in (ours, theirs):
            clock = Clock()
            chunks.append(clock.stop(side(steps)))
        pairs.append((chunks[0], chunks[1]))
    return pairs[1:]


def row(name: str, against: str, batch: int, pairs: list[tuple[Chunk, Chunk]]) -> Row:
    rate = [[c.images / c.wall for c in side] for side in zip(*pairs)]
    cost = [[c.processor / c.images for c in side] for side in zip(*pairs)]
    ratios = [a / b for a, b in zip(*rate)]
    medians = [statistics.median(r) for r in rate]
    processor = statistics.median(b / a for a, b in zip(*cost))
    others = max(c.others for pair in pairs for c in pair)
    ratio = statistics.median(ratios)
    return Row(name, against, "fp32", batch, *medians, ratio, min(ratios), max(ratios), processor, others)


def training_step(names: list[str], nets: list[str], rounds: int, steps: int) -> Iterator[Row]:
    """One training step of each recipe, beside ddp's with the same net and with its own."""
    for name in names:
        prepared = prepare(name, {})
        shape, batch = prepared.dataset.shape, prepared.options.batch
        for against in nets:
            net = SameNet(prepared.model.F) if against == "same" else their_net(prepared)
            with FlopCounterMode(display=False) as counter:
                net(torch.randn(1, *shape), torch.zeros(1, dtype=torch.long))
            label = f"{NETS[against]}, {counter.get_total_flops() / 1e9:.2f} GFLOP"
            yield row(
                f"{name} step", label, batch, alternate(our_step(prepared), their_step(net, prepared), rounds, steps)
            )


def training_loop(names: list[str], nets: list[str], rounds: int) -> Iterator[Row]:
    """`limner train` beside ddp's Trainer, on one folder of PNG files."""
    with tempfile.TemporaryDirectory() as folder:
        digits = limner.data.load("mnist-5k")
        for i, image in enumerate(digits.fetch(range(len(digits)))[:, 0].numpy()):
            Image.fromarray(image).save(Path(folder) / f"{i:05}.png")
        settings = UNCONDITIONAL | {"data": {"name": "folder", "path": folder, "channels": 1}}
        peers = {"same": same_net_in_trainer, "own": their_net_in_trainer}
        for name in names:
            for against in nets:
                found = loops.measure(f"{name} loop", name, settings, peers[against], "fp32", rounds)
                yield Row(
                    **(found.__dict__ | {"against": f"its Trainer, {NETS[against]}", "processor_ratio": float("nan")})
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["step", "loop"], choices=["step", "loop"])
    parser.add_argument("--models", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=list(NETS), help="nets that ddp trains")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="training steps of a chunk, at least")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loops.FIRST, loops.RETRIES = options.steps - 1, 0  # the processes with which ddp reads files are no strangers
    print(
        f"torch {torch.__version__}, {options.threads} threads of {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), {options.rounds} rounds\n"
        f"{'':<27}{'against':<27}{'batch':>6}{'ours':>7}{'theirs':>8}  images/s{'ratio':>7}  lowest–highest"
        f"{'cpu ratio':>11}{'others':>8}"
    )
    parts = {
        "step": lambda: training_step(options.models, options.nets, options.rounds, options.steps),
        "loop": lambda: training_loop(options.models, options.nets, options.rounds),
    }
    for part in options.parts:
        for r in parts[part]():
            print(
                f"{r.model:<27}{r.against:<27}{r.batch:>6}{r.ours:>7.1f}{r.theirs:>8.1f}{'':>10}{r.ratio:>7.2f}"
                f"  {r.low:>6.2f}–{r.high:<7.2f}{r.processor_ratio:>11.2f}{r.others:>8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
