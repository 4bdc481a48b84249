"""An encoder for a model that has none: E learns the point of pictures that the model made.

    loss = | (p - E(G(p))) / σ |²        for draws p of the space, with σ their standard deviations

This is the second step of Antipov, Baccouche and Dugelay 2017 (arXiv:1702.01983) and the inverse generator of BiGAN's
baseline (Donahue et al. 2017, arXiv:1605.09782, section 4.1). E sees only pictures of the model, so its codes of other
pictures are starts for a search and no more. The model's weights stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from limner.config.call import checked
from limner.core.errors import LimnerError
from limner.latent.results import TENSORS, Shown, Target, opened, pack, unpack
from limner.latent.spaces import Label, Space, measured
from limner.losses.reconstruction import psnr
from limner.metrics.extractors.features import resized, three_halvings

_SIDE, _WIDTHS, _HIDDEN = 32, (32, 64, 64), 256
_HELD_OUT = 256  # draws that E does not learn from
_MEASURED = 512  # draws that give mean and deviations


class _Net(nn.Module):
    """Images (B,C,32,32) -> (B,D)."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.body = three_halvings(channels, _WIDTHS, 3, _SIDE, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, dims)

    def forward(self, x: Tensor) -> Tensor:
        """The points, in deviations from their mean."""
        return self.head(self.body(resized(x, (_SIDE, _SIDE))).relu())


@dataclass(frozen=True, eq=False)
class Fitted:
    """An encoder of pictures of one model.

    Attributes:
        net: gives points in deviations from their mean.
        mean: (D,) of the draws that it learnt from.
        sigma: (D,) of them.
    """

    net: nn.Module
    mean: Tensor
    sigma: Tensor

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Points (B,D) of images (B,C,H,W) in [-1,1]."""
        return self.net(x.float()) * self.sigma + self.mean


def fit(space: Space, steps: int, batch: int = 64, seed: int = 0) -> tuple[Fitted, float]:
    """Fits an encoder, and gives the share of the variance of points that it does not find in pictures it never saw.

    Args:
        space: draws points and decodes them.
        steps: steps of Adam, each on new draws.
        batch: draws of a step.
        seed: seed of weights and draws.

    Raises:
        LimnerError: the points of the space are labels.
    """
    if isinstance(space, Label):
        raise LimnerError("an encoder finds points, and those of y are labels; fit it in another space")
    device = space.model.device
    found = measured(space, _MEASURED, seed)
    mean, sigma = found.mean, torch.where(found.sigma > 0, found.sigma, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Net(space.shape[0], len(mean)).to(device)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(steps):
            x, target = _drawn(space, batch, seed + 2 + step, mean, sigma)
            loss = (net(x) - target).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    net.eval().requires_grad_(False)
    x, target = _drawn(space, _HELD_OUT, seed + 1, mean, sigma)
    with torch.no_grad():
        error = float((net(x) - target).square().mean() / target.square().mean())
    return Fitted(net, mean, sigma), error


def _drawn(space: Space, n: int, seed: int, mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (n,C,H,W) of draws, and the draws (n,D) in deviations."""
    rest = space.rest(n, None, seed)
    points = space.draw(n, seed, rest)
    target = (points.flatten(1) - mean) / sigma
    return space.images(points, rest).to(mean.device), target.float()


def read_encoder(path: str | Path, space: Space) -> Fitted:
    """An encoder from a file of `limner latent encoder`.

    Raises:
        LimnerError: there is no such file, it is damaged, or it belongs to another model or another space.
    """
    tensors, about = unpack(path, "encoder", space.model, lambda about, t: t["mean"].shape == t["sigma"].shape)
    if about["space"] != space.name:
        raise LimnerError(f"{Path(path).name} encodes into {about['space']}, not {space.name}; fit another")
    mean, sigma = (tensors.pop(name).to(space.model.device) for name in ("mean", "sigma"))
    net = _Net(space.shape[0], len(mean))
    try:
        net.load_state_dict(tensors)
    except RuntimeError:
        raise LimnerError(f"{Path(path).name} is damaged: its weights do not fit; fit it again") from None
    return Fitted(net.eval().requires_grad_(False).to(space.model.device), mean, sigma)


@checked
def encoder(
    path: str | Path,
    out: str | Path,
    *,
    space: str | None = None,
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 2000,
    batch: Annotated[int, Field(ge=2, le=4096)] = 64,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
) -> Shown:
    """Fits an encoder to a model that has none, with which a projection begins nearer: encoder=FILE.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, for encoder.safetensors and encoder.json; or a file that ends in .safetensors.
        space: the space whose points it finds; the first that the model has by default.
        steps: steps of training, each on new samples. Raise it if the error still falls.
        batch: samples of a step.
        seed: seed of weights and samples.
        overwrite: replace files that exist.
        device: auto, cpu, cuda or mps.

    Raises:
        LimnerError: there is no such model or space, or a file exists.
    """
    place = opened(path, space, device)
    target = Target(out, "encoder", (TENSORS,), overwrite=overwrite)
    fitted, error = fit(place, steps, batch, seed)
    rest = place.rest(_HELD_OUT, None, seed + 1)
    points = place.draw(_HELD_OUT, seed + 1, rest)
    x = place.images(points, rest)
    again = place.images(fitted(x.to(place.model.device)).view_as(points), rest)
    db = float(psnr(again, x).clamp(max=100).median())
    target.tensors(
        pack(
            {**fitted.net.state_dict(), "mean": fitted.mean, "sigma": fitted.sigma}, "encoder", place, {"steps": steps}
        )
    )
    numbers: dict[str, Any] = {"steps": steps, "unexplained": error, "psnr_db": db}
    lines = [
        f"an encoder of pictures of {place.model.title} into {place.name} ({prod(points.shape[1:])} numbers)",
        f"of new samples: {error:.1%} of the variance of points is not found; PSNR of G(E(x)) {db:.1f} dB (median)",
    ]
    shown = Shown(target.written, place.model.title, place.name, numbers, lines)
    target.numbers(shown.document())
    return shown
