"""Images at the shape of a model: the one function that prepares files for training and for use."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.data.files import decode

Shape = tuple[int, int, int]


def read_at(stream: BinaryIO, shape: Shape) -> NDArray[np.uint8]:
    """Reads an image file as (C,H,W). Call it under `decode.strict`; a bad file may raise any exception."""
    return fit(decode.picture(stream, max(shape[1:])), shape)


def fit(image: Image.Image, shape: Shape) -> NDArray[np.uint8]:
    """Makes (C,H,W) of an image of any size and mode: the shorter side is resized, the rest cropped."""
    # The size changes first, so that fewer pixels change their mode.
    return decode.pixels(decode.channelled(decode.fitted(image, shape[1:]), shape[0]))
