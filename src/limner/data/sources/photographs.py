"""Photographs and textures of installed packages, for examples without a download or files of one's own.

scikit-learn has two photographs, scikit-image (``pip install 'limner[photos]'``) four more and three textures. Style
transfer takes their names in place of files: ``limner stylise china painting.jpg``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from limner.core.errors import LimnerError, extra
from limner.data.arrays import Arrays
from limner.data.registry import source

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOGRAPHS = ("china", "flower", "astronaut", "chelsea", "coffee", "rocket")
"""Colour photographs, 300 to 512 pixels high."""
TEXTURES = ("brick", "grass", "gravel")
"""Grey textures, 512×512."""
HELD_OUT = "coffee"
_SMALL = ("china", "flower")  # in scikit-learn, which limner requires


def names() -> list[str]:
    """The names of the images whose package is installed."""
    return [*PHOTOGRAPHS, *TEXTURES] if find_spec("skimage") else list(_SMALL)


def known(name: str) -> bool:
    """Whether there is an image of this name, whether or not its package is installed."""
    return name in (*PHOTOGRAPHS, *TEXTURES)


def opened(name: str) -> Image:
    """Opens a photograph or a texture by its name, upright, RGB or grey, 8 bits.

    Raises:
        LimnerError: there is no image of that name, or its package is not installed.
    """
    import numpy as np
    from PIL import Image as image_module

    if name in _SMALL:
        pixels = import_module("sklearn.datasets").load_sample_image(f"{name}.jpg")
    elif not known(name):
        raise LimnerError(f"there is no photograph {name!r}; choose from: {', '.join((*PHOTOGRAPHS, *TEXTURES))}")
    else:
        pixels = getattr(extra("skimage.data", "photos", f"{name} is part of scikit-image"), name)()
    return image_module.fromarray(np.ascontiguousarray(pixels))


@source("photos")
def photos(crop: Annotated[int, Field(ge=16, le=256)] = 256) -> Arrays:
    """Overlapping crops of six photographs of scikit-learn and scikit-image; the crops of one are held out.

    Args:
        crop: side of a crop in pixels of the photograph; neighbours overlap by three quarters. Lower it for details.
    """
    import numpy as np

    images, labels, test = [], [], []
    available = [n for n in names() if n in PHOTOGRAPHS]
    held_out = HELD_OUT if HELD_OUT in available else available[-1]
    for k, name in enumerate(available):
        x = np.asarray(opened(name).convert("RGB"))
        rows, columns = (range(0, n - crop + 1, crop // 4) for n in x.shape[:2])
        crops = [x[i : i + crop, j : j + crop] for i in rows for j in columns]
        images += crops
        labels += [k] * len(crops)
        test += [name == held_out] * len(crops)
    missing = [n for n in PHOTOGRAPHS if n not in available]
    notes = [f"{', '.join(missing)} are missing: pip install 'limner[photos]'"] if missing else []
    return Arrays(np.stack(images), np.array(labels), available, np.array(test), notes=notes)
