"""Applications of a trained model to images: translation, style transfer, reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core import units
from limner.core.capabilities import Reconstructs, Stylises, Translates
from limner.core.errors import LimnerError
from limner.core.rng import seeded


@torch.inference_mode()
def translated(model: Translates, x: Tensor, to: str = "b", *, seed: int = 0, batch: int = 16) -> Tensor:
    """Translates images x (B,C',H,W) to images (B,C,H,W), one batch at a time.

    Args:
        model: the model, in evaluation mode.
        x: images on any device.
        to: the domain to translate to.
        seed: seeds the noise of nets that are random in evaluation mode (dropout).
        batch: images per forward pass.

    Raises:
        LimnerError: the model does not translate to this domain.
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
    """Renders images in one style, or in a mixture of several.

    Huang and Belongie 2017, *Arbitrary style transfer in real-time*, eq. 14 and 15.

    Args:
        model: the model, in evaluation mode.
        x: images (B,3,H,W) in [-1,1].
        styles: feature maps (B or 1,N,h,w) of each style image (`encode_features`).
        strength: 0 keeps the style of the image, 1 replaces it.
        shares: weight of each style, not negative; equal by default.

    Returns:
        Images (B,3,H,W) in [-1,1].

    Raises:
        LimnerError: the shares do not fit the styles.
    """
    h, w = x.shape[2:]
    multiple = model.multiple
    maps = model.encode_features(F.pad(x, (0, -w % multiple, 0, -h % multiple), mode="replicate"))
    t = torch.zeros_like(maps)
    for share, style in zip(units.shares(shares, len(styles), "style_shares"), styles, strict=True):
        t = t + share * model.transfer_statistics(maps, style)
    return model.decode_features(maps + strength * (t - maps))[..., :h, :w].float().clamp(-1, 1)


def forward_together(net: nn.Module, *parts: Tensor) -> tuple[Tensor, ...]:
    """The outputs of a net for several batches (B,C,H,W), computed in one forward pass if possible.

    With batch norm the output for an image depends on its batch, so such a net runs once for each batch.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
        return tuple(net(part) for part in parts)
    return net(torch.cat(parts)).split([len(part) for part in parts])


def reconstruct(model: Reconstructs, x: Tensor, y: Tensor | None = None) -> Tensor:
    """decode(encode(x)), (B,C,H,W) in [-1,1]."""
    return model.decode(model.encode(x, y), y)
