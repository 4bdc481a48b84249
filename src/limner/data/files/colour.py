"""What the numbers of an image mean: embedded profiles and colour chunks, to sRGB of 8 bits.

A profile is judged by what it does to colours, never by its name. ICC profiles of 8-bit colour and of CMYK go through
LittleCMS (perceptual intent, which for profiles of primaries and curves is the same as relative colorimetric). Grey
profiles, 16-bit pixels, and the colours that a PNG or AVIF describes by numbers (ITU-T H.273) are converted here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from limner.data.files.limits import BadImage

Curve = NDArray[np.float32]
"""(65536,) linear light in [0,1] of each 16-bit value."""

MAX_PROFILE = 8 << 20
_BAND = 1 << 20  # pixels that are converted at a time
_LEVELS = np.linspace(0, 1, 65536)
DIVIDED_BY_257 = ((np.arange(65536) + 128) // 257).astype(np.uint8)


def _encoded(linear: NDArray[Any]) -> NDArray[Any]:
    """The curve of sRGB (IEC 61966-2-1): linear light to numbers."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def _decoded(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


_TO_SRGB = (_encoded(_LEVELS) * 255 + 0.5).astype(np.uint8)  # of linear light in 16 bits
_SRGB_CURVE: Curve = _decoded(_LEVELS).astype(np.float32)


def _to_xyz(xy: tuple[float, ...]) -> NDArray[np.float64]:
    """The matrix from linear RGB to XYZ of D50, from the chromaticities of white, red, green and blue (Bradford)."""
    x, y = np.array(xy[::2], dtype=np.float64), np.array(xy[1::2], dtype=np.float64)
    white, *_ = colours = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
    primaries = np.array(colours[1:]).T
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapted = np.linalg.inv(bradford) @ np.diag(bradford @ d50 / (bradford @ white)) @ bradford
    matrix: NDArray[np.float64] = adapted @ (primaries * np.linalg.solve(primaries, white))
    return matrix


_D65 = (0.3127, 0.3290)
_SRGB_XY = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_FROM_XYZ = np.linalg.inv(_to_xyz(_SRGB_XY))
# H.273, table 2: chromaticities by ColourPrimaries; what is missing is taken as that of sRGB
_PRIMARIES = {
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # H.273, table 3; the curves of television (1, 6, 14, 15) are shown as sRGB
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Encoding:
    """Curves and primaries.

    Args:
        curves: one for grey, three for colour.
        matrix: (3,3) linear RGB to linear sRGB; None for grey.
    """

    curves: tuple[Curve, ...]
    matrix: NDArray[np.float32] | None = None

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Numbers (H,W,C) uint8 or uint16 to sRGB (H,W,C) uint8; the last channel of 2 or 4 is alpha."""
        h, w, c = values.shape
        out = np.empty((h, w, c), dtype=np.uint8)
        rows = max(1, _BAND // max(w, 1))
        for top in range(0, h, rows):
            band = values[top : top + rows]
            if band.dtype == np.uint8:
                band = band.astype(np.uint16) * 257
            target = out[top : top + rows]
            if self.matrix is None:
                target[..., : min(c, 3) if c > 2 else 1] = self._grey()[band[..., : 3 if c > 2 else 1]]
            else:
                colours = band[..., :3] if c > 2 else np.repeat(band[..., :1], 3, axis=2)
                linear = np.stack([curve[colours[..., k]] for k, curve in enumerate(self.curves)], axis=-1)
                levels = _TO_SRGB[(np.clip(linear @ self.matrix.T, 0, 1) * 65535 + 0.5).astype(np.uint16)]
                target[..., : 3 if c > 2 else 1] = levels if c > 2 else levels[..., 1:2]
            if c in (2, 4):
                target[..., -1] = DIVIDED_BY_257[band[..., -1]]
        return out

    def _grey(self) -> NDArray[np.uint8]:
        return _TO_SRGB[(np.clip(self.curves[0], 0, 1) * 65535 + 0.5).astype(np.uint16)]

    def is_srgb(self) -> bool:
        """Whether no colour moves by more than one level."""
        n = 1 if self.matrix is None else 3
        ramp = np.linspace(0, 255, 18).round().astype(np.uint8) if n == 3 else np.arange(256, dtype=np.uint8)
        probe = np.stack(np.meshgrid(*[ramp] * n), axis=-1).reshape(1, -1, n)
        return _unmoved(probe, self.apply(probe))


def _unmoved(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    return int(np.abs(before.astype(np.int16) - after).max()) <= 1


def _encoding(curves: tuple[Curve, ...], matrix: NDArray[Any] | None) -> Encoding | None:
    """The encoding; None where it is that of sRGB."""
    encoding = Encoding(curves, None if matrix is None else matrix.astype(np.float32))
    return None if encoding.is_srgb() else encoding


@lru_cache(maxsize=16)
def of_numbers(primaries: int, transfer: int) -> Encoding | None:
    """The encoding of H.273's code points, as in a PNG's cICP or an AVIF's nclx; None where it is taken as sRGB.

    Raises:
        BadImage: high dynamic range.
    """
    if transfer in _HDR:
        raise BadImage(f"high dynamic range ({_HDR[transfer]}): map its tones to sRGB and save it again")
    gamma = _GAMMAS.get(transfer)
    curve = _SRGB_CURVE if gamma is None else (_LEVELS**gamma).astype(np.float32)
    return _encoding((curve,) * 3, _FROM_XYZ @ _to_xyz(_PRIMARIES.get(primaries, _SRGB_XY)))


@lru_cache(maxsize=16)
def of_gamma(gamma: int | None, chromaticities: tuple[int, ...] | None) -> Encoding | None:
    """The encoding of a PNG's gAMA and cHRM, both in 1/100,000; None where it is that of sRGB.

    The gamma 1/2.2 is what programs write for sRGB, and is taken as that.
    """
    curve = _SRGB_CURVE
    if gamma is not None and 1_000 <= gamma <= 1_000_000 and not 44_500 <= gamma <= 46_500:
        curve = (_LEVELS ** (100_000 / gamma)).astype(np.float32)
    matrix = np.eye(3)
    if chromaticities is not None and min(chromaticities[1::2]) > 0:
        xy = tuple(c / 100_000 for c in chromaticities)
        try:
            if np.abs(np.array(xy) - _SRGB_XY).max() > 0.002:
                matrix = _FROM_XYZ @ _to_xyz(xy)
        except np.linalg.LinAlgError:
            matrix = np.eye(3)
    return _encoding((curve,) * 3, matrix) if np.isfinite(matrix).all() else None


@lru_cache(maxsize=8)
def of_profile(profile: bytes, grey: bool) -> Encoding | None:
    """The encoding of an ICC profile of curves (grey), or of curves and primaries (colour); else None.

    Raises:
        BadImage: high dynamic range.
    """
    tags = _tags(profile)
    if "cicp" in tags and len(tags["cicp"]) >= 10 and tags["cicp"][9] in _HDR:
        return of_numbers(1, tags["cicp"][9])
    space = profile[16:20]
    try:
        if grey and space == b"GRAY" and "A2B0" in tags:
            return _encoding((_curve_by_lcms(profile),), None)
        if grey and space == b"GRAY" and "kTRC" in tags:
            return _encoding((_curve(tags["kTRC"]),), None)
        if not grey and space == b"RGB " and profile[20:24] == b"XYZ " and "A2B0" not in tags:
            curves = tuple(_curve(tags[f"{c}TRC"]) for c in "rgb")
            columns = [np.array(struct.unpack(">3i", tags[f"{c}XYZ"][8:20])) / 65536 for c in "rgb"]
            return _encoding(curves, _FROM_XYZ @ np.stack(columns, axis=1))
    except (KeyError, ValueError, IndexError, struct.error, ImageCms.PyCMSError, OSError):
        return None
    return None


def _curve_by_lcms(profile: bytes) -> Curve:
    """The curve of a grey profile that is written as a table to L*a*b*, by LittleCMS."""
    embedded, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(embedded, srgb, "L", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    levels = np.asarray(transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None])))[0, :, 1]
    light = _SRGB_CURVE[levels.astype(np.uint16) * 257]
    return np.interp(_LEVELS, np.linspace(0, 1, 256), light).astype(np.float32)


def _tags(profile: bytes) -> dict[str, bytes]:
    """The tags of an ICC profile (ICC.1:2022, 7.3); what lies outside of it is left out."""
    count = int.from_bytes(profile[128:132])
    tags = {}
    for at in range(132, min(132 + 12 * min(count, 200), len(profile) - 11), 12):
        name, offset, size = struct.unpack(">4sII", profile[at : at + 12])
        if offset + size <= len(profile):
            tags[name.decode("latin-1")] = profile[offset : offset + size]
    return tags


def _curve(tag: bytes) -> Curve:
    """A curve of type ``curv`` or ``para`` (ICC.1:2022, 10.6 and 10.18).

    Raises:
        ValueError: another type, or values that are no numbers.
    """
    if tag[:4] == b"curv":
        n = int.from_bytes(tag[8:12])
        table = np.frombuffer(tag, ">u2", count=n, offset=12).astype(np.float64)
        if n == 0:
            y = _LEVELS
        elif n == 1:
            y = _LEVELS ** (table[0] / 256)
        else:
            y = np.interp(_LEVELS, np.linspace(0, 1, n), table / 65535)
    elif tag[:4] == b"para":
        kind = int.from_bytes(tag[8:10])
        n = (1, 3, 4, 5, 7)[kind]
        with np.errstate(all="ignore"):
            y = _parametric(kind, [v / 65536 for v in struct.unpack(f">{n}i", tag[12 : 12 + 4 * n])])
    else:
        raise ValueError(tag[:4])
    if not np.isfinite(y).all():
        raise ValueError("no curve")
    return np.clip(y, 0, 1).astype(np.float32)


def _parametric(kind: int, p: list[float]) -> NDArray[np.float64]:
    g, a, b, c, d, e, f = (p + [0.0] * 7)[:7]
    x = _LEVELS
    power: Callable[[], NDArray[np.float64]] = lambda: np.maximum(a * x + b, 0) ** g  # noqa: E731
    if kind == 0:
        return np.asarray(x**g)
    if kind in (1, 2):
        return np.where(x >= -b / a, power() + c, c) if a else np.full_like(x, np.nan)
    return np.where(x >= d, power() + e, c * x + f)


def profiled(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode L, LA, RGB, RGBA or CMYK from its profile to sRGB; a damaged or unfitting profile is ignored.

    Raises:
        BadImage: high dynamic range.
    """
    if not profile or len(profile) > MAX_PROFILE:
        return image
    if image.mode in ("L", "LA"):
        encoding = of_profile(profile, True)
        return image if encoding is None else from_encoding(image, encoding)
    of_profile(profile, False)  # refuses high dynamic range
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """LittleCMS's transform from a profile to sRGB; None where it moves nothing, or the profile is damaged."""
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(embedded, srgb, mode, "RGBA" if mode == "RGBA" else "RGB")
        if mode != "CMYK":
            ramp = np.linspace(0, 255, 18).round().astype(np.uint8)
            probe = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(18, -1, 3)
            moved = np.asarray(transform.apply(Image.fromarray(probe).convert(mode)))[..., :3]
            return None if _unmoved(probe, moved) else transform
        return transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def from_encoding(image: Image.Image, encoding: Encoding) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA from an encoding to sRGB."""
    values = np.asarray(image)
    return as_image(encoding.apply(values if values.ndim == 3 else values[..., None]))


def narrowed(values: NDArray[np.uint16], profile: bytes | None, encoding: Encoding | None = None) -> Image.Image:
    """16-bit numbers (H,W,C), C in 1..4, to sRGB of 8 bits: by an encoding, else by a profile, else divided by 257.

    Raises:
        BadImage: high dynamic range.
    """
    if encoding is None and profile and len(profile) <= MAX_PROFILE:
        encoding = of_profile(profile, values.shape[2] < 3)
    else:
        profile = None
    if encoding is not None:
        return as_image(encoding.apply(values))
    return profiled(as_image(DIVIDED_BY_257[values]), profile)


def as_image(values: NDArray[np.uint8]) -> Image.Image:
    """An image from (H,W,C) uint8, C in 1..4."""
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
