"""Photographs and textures that come inside packages: a first try needs no download and no file of one's own.

scikit-learn carries two photographs, scikit-image (``pip install 'limner[photos]'``) four more and three textures.
Their names stand for files wherever a style transfer needs a picture: ``limner stylise china painting.jpg``.
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
"""In colour, 300 to 512 pixels high."""
TEXTURES = ("brick", "grass", "gravel")
"""Grey, 512×512."""
HELD_OUT = "coffee"
_SMALL = ("china", "flower")  # in scikit-learn, which is always there


def names() -> list[str]:
    """Those that can be opened here."""
    return [*PHOTOGRAPHS, *TEXTURES] if find_spec("skimage") else list(_SMALL)


def known(name: str) -> bool:
    """Whether this is the name of one, here or not."""
    return name in (*PHOTOGRAPHS, *TEXTURES)


def opened(name: str) -> Image:
    """A photograph or a texture by its name, upright, RGB or grey, 8 bits.

    Raises:
        LimnerError: there is none of that name, or the package that has it is missing.
    """
    import numpy as np
    from PIL import Image as Pictures

    if name in _SMALL:
        pixels = import_module("sklearn.datasets").load_sample_image(f"{name}.jpg")
    elif not known(name):
        raise LimnerError(f"there is no photograph {name!r}; choose from: {', '.join((*PHOTOGRAPHS, *TEXTURES))}")
    else:
        pixels = getattr(extra("skimage.data", "photos", f"{name} lies inside scikit-image"), name)()
    return Pictures.fromarray(np.ascontiguousarray(pixels))


@source("photos")
def photos(crop: Annotated[int, Field(ge=16, le=256)] = 256) -> Arrays:
    """Overlapping crops of six photographs that come inside scikit-learn and scikit-image; those of one are held out.

    Args:
        crop: side of a crop in the photograph; neighbours overlap by three quarters. Lower it for details alone.
    """
    import numpy as np

    found, labels, held = [], [], []
    present = [n for n in names() if n in PHOTOGRAPHS]
    last = HELD_OUT if HELD_OUT in present else present[-1]
    for k, name in enumerate(present):
        x = np.asarray(opened(name).convert("RGB"))
        places = [range(0, n - crop + 1, crop // 4) for n in x.shape[:2]]
        crops = [x[i : i + crop, j : j + crop] for i in places[0] for j in places[1]]
        found += crops
        labels += [k] * len(crops)
        held += [name == last] * len(crops)
    missing = [n for n in PHOTOGRAPHS if n not in present]
    notes = [f"{', '.join(missing)} are missing: pip install 'limner[photos]'"] if missing else []
    return Arrays(np.stack(found), np.array(labels), present, np.array(held), notes=notes)
