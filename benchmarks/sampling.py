"""limner's sampling against diffusers' DDIMPipeline: images per second, side by side.

Ours is `model.at(sampler="euler", grid="discrete", steps=50).sample(n)` of a DDPM, which is DDIM, and theirs the
pipeline with `DDIMScheduler`, on the same steps of the same 1,000 noise levels. Theirs has once the very same net, and
once its own `UNet2DModel` of about as many operations. With the same net and the same start both draw the same images,
which is checked first. `bf16` is ours under `torch.autocast`, beside theirs in float32. `2M 20 steps` is ours at its
own default, DPM-Solver++(2M), beside their DDIM: `--run RUN` says how near to the end of the exact path 20 steps of the
one and 50 of the other are with a trained net.

The two sides alternate in one process. What counts is the median over rounds of the ratio; that of processor seconds
stands beside it, since it is what a busy machine disturbs least.

    python benchmarks/sampling.py
    python benchmarks/sampling.py --batches 16 --rounds 9 --threads 1
    python benchmarks/sampling.py --run runs/ddpm --images 64
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ConfigMixin, DDIMPipeline, DDIMScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train import QUIET, RETRIES, Chunk, Clock

import limner
from limner.config.spec import Spec
from limner.samplers import grids
from limner.samplers.diffusion import DiffusionModel
from limner.samplers.steps import dpm2m, euler, heun

SIDE, T = 28, 1000
Draw = Callable[[int], Tensor]
"""Draws so many images in one batch, in [-1,1]."""


# ---- theirs --------------------------------------------------------------------------------------------------------


class SameNet(ModelMixin, ConfigMixin):
    """A net of limner as the pipeline calls one."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, sample_size: int = SIDE, in_channels: int = 1) -> None:
        super().__init__()
        self.net: nn.Module = nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        """The noise in images x at the index t."""
        return SimpleNamespace(sample=self.net(x, t.expand(len(x)) / T))


def unet2d() -> UNet2DModel:
    """Their U-Net with the levels, blocks and attention of ours: 0.378 GFLOP an image, where ours has 0.340."""
    net = UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=64,
    )
    net.register_to_config(sample_size=SIDE)
    return net.eval()


def pipeline(net: nn.Module, steps: int, **options: Any) -> Draw:
    """DDIM of so many steps with their scheduler."""
    scheduler = DDIMScheduler(num_train_timesteps=T, beta_schedule="linear", timestep_spacing="trailing")
    pipe = DDIMPipeline(net, scheduler)
    pipe.set_progress_bar_config(disable=True)

    def draw(n: int) -> Tensor:
        x: Tensor = pipe(batch_size=n, num_inference_steps=steps, output_type="pt", **options).images
        return 2 * x - 1

    return draw


# ---- ours ----------------------------------------------------------------------------------------------------------


def model() -> DiffusionModel:
    """A DDPM with the U-Net of the recipes; layers that begin at zero get weights, or there would be nothing to do."""
    torch.manual_seed(0)
    net = {"name": "denoiser.UNet", "width": 32, "mults": [1, 2, 2]}
    spec = Spec.parse("model", {"name": "ddpm", "F": net, "T": T})
    made: DiffusionModel = spec.build(shape=(1, SIDE, SIDE), classes=0)
    for p in made.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    return made.eval()


def sampler(model: DiffusionModel, low: bool = False, **options: Any) -> Draw:
    """Samples of a model at these options; `low` draws them in bfloat16."""
    ready = model.at(**options)

    def draw(n: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            return ready.sample(n, batch=n, seed=0)

    return draw


def check(ours: DiffusionModel, theirs: SameNet, steps: int) -> float:
    """The largest difference of the images that both draw from one start."""
    start = torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    # theirs keeps the ε of an estimate that was clipped, unless it is told to
    options = {"generator": torch.Generator().manual_seed(1), "use_clipped_model_output": True}
    expected = pipeline(theirs, steps, **options)(4)
    ready = ours.at(sampler="euler", grid="discrete", steps=steps)
    sigmas = ready.sigmas(ready.sampling)
    with torch.inference_mode():
        x = euler(ready.denoiser(ready.sampling, None), start * (1 + sigmas[0] ** 2) ** 0.5, sigmas)
    return (x - expected).abs().max().item()


# ---- measuring -----------------------------------------------------------------------------------------------------


def chunk(draw: Draw, n: int, retries: int) -> Chunk:
    """The cost of one batch, again while others take much of the machine."""
    for _ in range(retries + 1):
        clock = Clock()
        draw(n)
        cost = clock.stop(n)
        if cost.others <= QUIET:
            break
    return cost


def measure(name: str, ours: Draw, theirs: Draw, n: int, rounds: int, retries: int) -> None:
    """Prints a row: rounds of ours and theirs in turn, after one of each to warm up."""
    pairs = [(chunk(ours, n, retries), chunk(theirs, n, retries)) for _ in range(rounds + 1)][1:]
    ratios = [b.wall / a.wall for a, b in pairs]
    processor = statistics.median(b.processor / a.processor for a, b in pairs)
    rate = [statistics.median(n / c.wall for c in side) for side in zip(*pairs, strict=True)]
    print(
        f"{name:<24}{n:>6}{rate[0]:>9.1f}{rate[1]:>9.1f}  images/s{statistics.median(ratios):>8.2f}"
        f"  {min(ratios):>6.2f}–{max(ratios):<7.2f}{processor:>9.2f}{max(c.others for p in pairs for c in p):>8.0%}",
        flush=True,
    )


def gigaflops(net: nn.Module) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, SIDE, SIDE), torch.full((1,), 0.5))
    return counter.get_total_flops() / 1e9


def distances(path: str, n: int) -> None:
    """How far samples of a trained run are from the end of the exact path, by sampler and steps."""
    run: DiffusionModel = limner.load(path)
    noise = torch.randn(n, *run.shape, generator=torch.Generator().manual_seed(0))

    def D(x: Tensor, sigma: float) -> Tensor:
        return run.denoise(x, x.new_full((n,), sigma))

    start, flow = run.at_level(noise, run.sigma_max), grids.flow
    with torch.inference_mode():
        truth = heun(D, start, grids.karras(150, run.sigma_min, run.sigma_max))
        for name, x in (
            ("2M, 20 steps", dpm2m(D, start, flow(20, run.sigma_max))),
            ("DDIM, 50 steps", euler(D, start, flow(50, run.sigma_max))),
        ):
            print(f"{name}: root mean square distance {(x - truth).square().mean().sqrt().item():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50, help="steps of DDIM")
    parser.add_argument("--busy", action="store_true", help="on a machine that is never quiet: nothing is done again")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--run", help="a trained run, for the distances to the exact path")
    parser.add_argument("--images", type=int, default=64, help="images for the distances")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        distances(options.run, options.images)
        return
    ours, same, own = model(), SameNet(), unet2d()
    same.net = ours.F
    error = check(ours, same, options.steps)
    print(
        f"torch {torch.__version__}, {options.threads} threads of {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), {options.rounds} rounds; DDIM of {options.steps} steps\n"
        f"GFLOP an image: {gigaflops(ours.F):.3f}, UNet2DModel {gigaflops(own):.3f}; largest difference of images from "
        f"the same start: {error:.1e}\n"
        f"{'':<24}{'batch':>6}{'ours':>9}{'theirs':>9}{'ratio':>18}  lowest–highest{'cpu ratio':>10}{'others':>8}"
    )
    ddim = {"sampler": "euler", "grid": "discrete", "steps": options.steps}
    theirs = pipeline(same, options.steps)
    retries = 0 if options.busy else RETRIES
    for n in options.batches:
        for name, mine, other in (
            ("same net", sampler(ours, **ddim), theirs),
            ("their UNet2DModel", sampler(ours, **ddim), pipeline(own, options.steps)),
            ("same net, bf16", sampler(ours, low=True, **ddim), theirs),
            ("same net, 2M 20 steps", sampler(ours), theirs),
        ):
            measure(name, mine, other, n, options.rounds, retries)


if __name__ == "__main__":
    main()
