"""What a trained model makes of images: translations, stylised images, reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core import units
from limner.core.capabilities import Reconstructs, Stylises, Translates
from limner.core.errors import LimnerError
from limner.core.rng import seeded

_EVEN = 8  # pixels that a place of relu4_1 stands for, the deepest layer that is painted from


@torch.inference_mode()
def translated(model: Translates, x: Tensor, to: str = "b", *, seed: int = 0, batch: int = 16) -> Tensor:
    """Translations (B,C,H,W) of pictures x (B,C',H,W), a batch at a time, with the noise (dropout) of a seed.

    Args:
        model: in evaluation mode.
        x: pictures on any device.
        to: the domain wanted.
        seed: of the noise that some nets have when they are used, too.
        batch: pictures at once.

    Raises:
        LimnerError: the model does not translate to that domain.
    """
    if to not in model.domains:
        raise LimnerError(f"this model translates to {' or '.join(model.domains)} only; leave to={to} out")
    device = next(model.parameters()).device  # type: ignore[attr-defined]
    with seeded(torch.Generator(device).manual_seed(seed)):
        return torch.cat([model.translate(part.to(device), to).float() for part in x.split(batch)])


def stylised(
    model: Stylises,
    x: Tensor,
    styles: Sequence[Tensor],
    *,
    strength: float = 1.0,
    shares: Sequence[float] | None = None,
) -> Tensor:
    """Pictures (B,3,H,W) in [-1,1] in the style of one painting, or between those of several.

    Huang and Belongie 2017, *Arbitrary style transfer in real-time*, eq. 14 and 15.

    Args:
        model: in evaluation mode.
        x: pictures (B,3,H,W) in [-1,1].
        styles: what the model sees in each painting (`encode_features`), (B or 1,N,h,w); computed once, used for many pictures.
        strength: 0 is no style, 1 all of it.
        shares: of several styles, not negative; equal by default.

    Raises:
        LimnerError: shares that do not fit.
    """
    h, w = x.shape[2:]
    maps = model.encode_features(F.pad(x, (0, -w % _EVEN, 0, -h % _EVEN), mode="replicate"))
    t = torch.zeros_like(maps)
    for share, style in zip(units.shares(shares, len(styles), "style_shares"), styles, strict=True):
        t = t + share * model.transfer_statistics(maps, style)
    return model.decode_features(maps + strength * (t - maps))[..., :h, :w].float().clamp(-1, 1)


def forward_together(net: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
    """What a net makes of every part (B,C,H,W): in one pass where it looks at each image alone.

    Batch norm looks at the whole batch: with it one pass would be another net, so parts go through one after the other.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        return tuple(net(part) for part in parts)
    return net(torch.cat(parts)).split([len(part) for part in parts])


def reconstruct(model: Reconstructs, x: Tensor, y: Tensor | None = None) -> Tensor:
    """decode(encode(x)), (B,C,H,W) in [-1,1]."""
    return model.decode(model.encode(x, y), y)
