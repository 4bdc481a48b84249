"""Masks: pictures that are white where something applies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.data.files import decode


def whiteness(image: Image.Image) -> Image.Image:
    """How white each pixel is, mode L: luminance times alpha, so what is transparent is black.

    Args:
        image: mode L, LA, RGB or RGBA.
    """
    if image.mode not in ("LA", "RGBA"):
        return decode.channelled(image, 1)
    luminance = decode.pixels(image.convert("RGB").convert("L"))[0].astype(np.uint16)
    product: NDArray[np.uint8] = ((luminance * np.asarray(image.getchannel("A")) + 127) // 255).astype(np.uint8)
    return Image.fromarray(product)
